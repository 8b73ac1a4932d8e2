"""The first half minute: each sentence appears with its numbers where it holds, and only there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pixelwise.data.card import DataCard
from pixelwise.report.borders import borders
from pixelwise.report.calibration import reliability
from pixelwise.report.confusions import largest_confusions
from pixelwise.report.progress import training_end
from pixelwise.report.run_files import RunFiles
from pixelwise.report.summary import Known, Summary, summarise
from pixelwise.report.tables import Classes

NAMES = ["road", "tree", "pole", "bird"]


def metrics_of(**changes: object) -> dict[str, Any]:
    """Return scores of 1,000 pixels of four classes; the bird is never found."""
    matrix = [[590, 10, 0, 0], [50, 240, 10, 0], [20, 20, 20, 0], [40, 0, 0, 0]]
    iou = [0.8308, 0.7273, 0.2857, 0.0]
    truth = [600, 300, 60, 40]
    base: dict[str, Any] = {
        "metrics": {"miou": 0.461, "pixel_accuracy": 0.85},
        "per_class": {
            name: {"iou": iou[k], "accuracy": matrix[k][k] / truth[k], "truth_pixels": truth[k]}
            for k, name in enumerate(NAMES)
        },
        "protocol": {"split": "val", "scale": 1.0},
        "num_images": 20,
        "confusion_matrix": matrix,
        "per_image": [{"name": f"i{n}", "miou": 0.4 + n / 100} for n in range(20)],
        "iteration": 40,
    }
    return base | changes


def card_of(**changes: object) -> DataCard:
    values: dict[str, Any] = {
        "name": "n",
        "root": "/data",
        "layout": "l",
        "mask_encoding": {"kind": "index", "ignore_index": None, "words": "w"},
        "classes": NAMES,
        "palette": None,
        "ignore_index": None,
        "licence": None,
        "num_images": {"train": 100, "val": 20},
        "split_source": "folders",
        "pixel_counts": {"train": {"road": 9000, "tree": 850, "pole": 100, "bird": 50, "(ignored)": 7}},
        "image_sizes": [[10, 10, 100]],
        "channels": 3,
        "dtype": "uint8",
        "normalisation": {"intensity_range": [0, 255], "mean": [0.5], "std": [0.1], "per_image": False},
        "decisions": [],
        "images_per_class": {"train": {"road": 100, "tree": 90, "pole": 95, "bird": 3}},
    }
    return DataCard.model_validate(values | changes)


def files_of(metrics: dict[str, Any], mious: list[float], losses: list[float], **config: object) -> RunFiles:
    validation = [
        {"iteration": 10 * n, "loss": loss, "miou": miou}
        for n, (miou, loss) in enumerate(zip(mious, losses, strict=True), start=1)
    ]
    training = [{"iteration": 10 * len(mious), "loss": 1.0, "epoch": 3.5}]
    return RunFiles(
        config={"iterations": 10 * len(mious), "early_stop": 0, **config},
        config_text="",
        environment={},
        card={},
        metrics=metrics,
        training=training,
        validation=validation,
        problems={},
    )


def told(
    metrics: dict[str, Any] | None = None,
    card: DataCard | None = None,
    mious: list[float] | None = None,
    losses: list[float] | None = None,
    **config: object,
) -> Summary:
    metrics = metrics_of() if metrics is None else metrics
    mious = [0.40, 0.45, 0.46, 0.461] if mious is None else mious
    classes = Classes(names=NAMES, palette=[[0, 0, 0]] * 4, outside=[0, 0, 0], ignore_index=None)
    summary = summarise(
        Known(
            files=files_of(metrics, mious, [0.3] * len(mious) if losses is None else losses, **config),
            card=card,
            confusions=largest_confusions(metrics, classes),
            borders=borders(metrics),
            reliability=reliability(metrics),
        )
    )
    assert summary is not None
    return summary


def texts(sentences: list[Any]) -> str:
    return "\n".join(one.text for one in sentences)


def test_how_good_and_where_it_fails() -> None:
    summary = told()
    assert texts(summary.good).splitlines() == [
        "85.0 % of the pixels of 20 validation images get the right class; calling all of them “road” would reach "
        "60.0 %.",
        "Mean IoU over 4 classes: 46.1 %; best road 83 %, tree 73 %, pole 29 %.",
    ]
    assert texts(summary.fails).splitlines() == [
        "Never found: bird.",
        "Lowest IoU: pole 29 %, tree 73 %, road 83 %.",
        "Largest confusion: tree taken for road, 33 % of all wrong pixels and 16.7 % of all tree.",
        "Worst image: i0, mean IoU 40 %; half of the images reach 50 %.",
    ]
    assert [one.section for one in summary.fails] == ["classes", "classes", "confusion", "images"]


def test_the_borders_are_told_where_they_are_known() -> None:
    sides = {
        "boundary": {"pixels": 200, "wrong_pixels": 60, "pixel_accuracy": 0.7, "miou": 0.3},
        "interior": {"pixels": 800, "wrong_pixels": 40, "pixel_accuracy": 0.95, "miou": 0.5},
    }
    summary = told(metrics_of(border_split={"distance": 7.0, **sides}))
    assert "60 % of the wrong pixels lie within 7 pixels of a true border" in texts(summary.fails)


def test_rare_classes_want_images_and_small_ones_a_finer_scale() -> None:
    summary = told(metrics_of(protocol={"scale": 0.5}), card_of())
    assert "what is rare and weak: bird (0.50 % of the training pixels)." in texts(summary.advice)
    assert "pole" not in texts(summary.advice)  # 29 % is more than half of 46.1 %
    weaker = metrics_of(protocol={"scale": 0.5})
    weaker["per_class"]["pole"]["iou"] = 0.1
    advice = texts(told(weaker, card_of()).advice)
    assert "For small classes (pole) give more time, or --set data.scale=1: the model saw the images at 0.5" in advice
    assert "data.scale" not in texts(told(weaker | {"protocol": {"scale": 1.0}}, card_of()).advice)


def test_outlines_want_a_finer_scale_too() -> None:
    sides = {"boundary": {"pixels": 200, "wrong_pixels": 60}, "interior": {"pixels": 800, "wrong_pixels": 40}}
    changes = {"border_split": {"distance": 7.0, **sides}, "protocol": {"scale": 0.25}}
    assert "For finer outlines give more time" in texts(told(metrics_of(**changes)).advice)


@pytest.mark.parametrize(
    ("mious", "rises"),
    [([0.1, 0.2, 0.3], True), ([0.3, 0.301], False), ([0.2, 0.4, 0.3], False), ([0.3], False)],
)
def test_a_rising_score_asks_for_more_time(mious: list[float], rises: bool) -> None:
    advice = texts(told(mious=mious).advice)
    assert ("Train longer: mean IoU was still rising, by 10.0 points since iteration 20." in advice) == rises


def test_a_rising_validation_loss_is_told() -> None:
    advice = texts(told(mious=[0.4, 0.3, 0.3], losses=[0.3, 0.2, 0.25]).advice)
    assert "The validation loss rose from 0.2 at iteration 20 to 0.25" in advice
    assert "loss rose" not in texts(told(mious=[0.4, 0.3, 0.3], losses=[0.3, 0.2, 0.23]).advice)


def test_images_that_fail_are_named() -> None:
    rows = [{"name": "good", "miou": 0.8}] * 5 + [{"name": "purple", "miou": 0.3}, {"name": "none", "miou": None}]
    advice = texts(told(metrics_of(per_image=rows)).advice)
    assert "Add training images of the kind of purple: mean IoU is less than half the usual 80 % there." in advice


def test_a_model_that_is_no_better_than_one_answer_is_advised_to_train() -> None:
    summary = told(metrics_of(metrics={"miou": 0.461, "pixel_accuracy": 0.6}), card_of(warnings=2))
    assert texts(summary.advice).splitlines() == [
        "Look at the 2 warnings about the data.",
        "Train much longer: it is no better than calling all pixels “road”, after 3.5 passes over the training images.",
    ]


def test_few_images_and_false_confidence_are_told() -> None:
    entry = {"low": 0.8, "high": 1.0, "pixels": 10, "confidence": 0.95, "accuracy": 0.85}
    changes = {"num_images": 3, "calibration": {"mce": 0.1, "bins": [entry]}}
    metrics = metrics_of(**changes, metrics={"miou": 0.461, "pixel_accuracy": 0.85, "ece": 0.1})
    advice = texts(told(metrics).advice)
    assert "Validate on more images: with 3, another choice" in advice
    assert "Mind its probabilities: it is over-confident" in advice


def test_where_nothing_stands_out_that_is_said() -> None:
    matrix = [[600, 0, 0, 0], [0, 298, 2, 0], [0, 2, 58, 0], [0, 1, 1, 38]]
    metrics = metrics_of(confusion_matrix=matrix, metrics={"miou": 0.95, "pixel_accuracy": 0.994})
    for row in metrics["per_class"].values():
        row |= {"iou": 0.95, "accuracy": 0.97}
    metrics["confusion_matrix"][1] = [1, 297, 1, 1]
    metrics["confusion_matrix"][2] = [1, 1, 57, 1]
    assert texts(told(metrics).advice).startswith("Nothing stands out.")


def test_without_scores_there_is_no_summary() -> None:
    files = replace(files_of({}, [], []), training=[])
    assert summarise(Known(files=files, card=None, confusions=[], borders=None, reliability=None)) is None
    assert training_end(files) is None


@pytest.mark.parametrize(
    ("config", "words", "early", "complete"),
    [
        ({"iterations": 40}, "40 iterations", False, True),
        ({"iterations": None}, "40 iterations", False, True),
        (
            {"iterations": 100, "early_stop": 2},
            "stopped early at iteration 40 of 100: no better score in 2 validations",
            True,
            True,
        ),
        (
            {"iterations": 100, "early_stop": 3},
            "at iteration 40 of 100 when this report was written: not finished",
            False,
            False,
        ),
        (
            {"iterations": 100},
            "at iteration 40 of 100 when this report was written: not finished",
            False,
            False,
        ),
    ],
)
def test_why_training_ended(config: dict[str, object], words: str, early: bool, complete: bool) -> None:
    metrics = metrics_of(iteration=20)
    end = training_end(files_of(metrics, [0.4, 0.5, 0.4, 0.4], [1.0] * 4, **config))
    assert end is not None
    assert (end.words, end.early, end.complete) == (words, early, complete)


def test_an_early_stop_and_an_unfinished_run_are_in_the_summary() -> None:
    mious = [0.4, 0.5, 0.4, 0.4]
    early = told(metrics_of(iteration=20), mious=mious, iterations=100, early_stop=2)
    assert "Training stopped early at iteration 40 of 100: no better score in 2 validations." in texts(early.good)
    unfinished = told(metrics_of(iteration=20), mious=mious, iterations=100)
    assert "Training stands at iteration 40 of 100" in texts(unfinished.advice)
