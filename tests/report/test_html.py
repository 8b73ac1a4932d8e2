"""The report of a made-up run: whole, self-contained, escaped, and tolerant of what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelwise.data.pictures import default_palette
from pixelwise.data.problems import Problem
from pixelwise.errors import RequestError, WorkError
from pixelwise.report.card_images import Shown, ShownImage
from pixelwise.report.curves import Series, draw
from pixelwise.report.data_section import Samples
from pixelwise.report.examples import MAX_EXAMPLES, Example, Group
from pixelwise.report.html import write_report
from pixelwise.report.page import LegendEntry

VOID_TAGS = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects tags and text, and checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data.replace("\u00a0", " ")

    def found(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def class_names(count: int) -> list[str]:
    return ["background", "<b>cell</b>"] if count == 2 else [f"class & {index}" for index in range(count)]


def make_run(run: Path, count: int) -> Path:
    """Write a run folder of a task with `count` classes, the last of them absent."""
    rng = np.random.default_rng(0)
    names = class_names(count)
    matrix = rng.integers(0, 40, (count, count)) + np.diag(rng.integers(500, 5000, count))
    matrix[1, 0] = 200  # the largest confusion
    if count > 2:
        matrix[-1] = 0
        matrix[:, -1] = 0
    per_class = {name: class_scores(matrix, index) for index, name in enumerate(names)}
    ious = [row["iou"] for row in per_class.values() if isinstance(row["iou"], float)]
    metrics = {
        "metrics": {
            "miou": float(np.mean(ious)),
            "pixel_accuracy": 0.91,
            "mean_accuracy": 0.8,
            "fwiou": None,
            "vrand": 0.98765,
            "ece": 0.05,
            "own_score": 12.5,
        },
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
        "protocol": {"resolution": "of the labels", "flip": False, "ignored_pixels": 1234, "scales": [1.0]},
        "num_images": 7,
        "iteration": 750,
        "split": "val",
        "per_image": [{"name": "a", "miou": 0.25, "pixel_accuracy": 0.5}, {"name": "b", "miou": None}],
        "border_split": {
            "distance": 7.0,
            "boundary": {"pixel_accuracy": 0.5, "miou": 0.3, "pixels": 210, "wrong_pixels": 62},
            "interior": {"pixel_accuracy": 0.9, "miou": 0.6, "pixels": 790, "wrong_pixels": 38},
        },
        "calibration": {
            "mce": 0.1,
            "bins": [
                {"low": 0.0, "high": 0.5, "pixels": 0, "confidence": None, "accuracy": None},
                {"low": 0.5, "high": 1.0, "pixels": 1000, "confidence": 0.96, "accuracy": 0.91},
            ],
        },
        "confusions": [{"truth": names[1], "prediction": names[0], "image": "good one"}],
        "bf_per_class": dict.fromkeys(names, 0.125),
        "parameters": 1_234_567,
    }
    config = {"model": "unet_small", "optimizer": {"lr": 0.01}, "iterations": 1000, "early_stop": 0}
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "data_card.json").write_text(json.dumps(make_card(names)))
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "environment.json").write_text(json.dumps({"python": "3.11", "device": "cpu", "note": "<script>"}))
    (run / "log.jsonl").write_text("\n".join(json.dumps(event) for event in log_events(names)))
    return run


def make_card(names: list[str]) -> dict[str, Any]:
    counts = {name: 100 * index for index, name in enumerate(names)} | {"(ignored)": 5}
    return {
        "name": "fake <data>",
        "root": "/nowhere",
        "layout": "images and masks",
        "mask_encoding": {"kind": "index", "ignore_index": 255, "words": "class numbers"},
        "classes": names,
        "palette": [*default_palette(len(names)), [1, 2, 3]],
        "ignore_index": 255,
        "num_images": {"train": 20, "val": 7},
        "split_source": "folders",
        "pixel_counts": dict.fromkeys(("train", "val"), counts),
        "image_sizes": [[48, 64, 20], [32, 32, 7]],
        "channels": 3,
        "dtype": "uint8",
        "normalisation": {"intensity_range": [0, 255], "mean": [0.5], "std": [0.1], "per_image": False},
        "licence": None,
        "decisions": ["layout: images and masks", "images: train 20, val 7", "some images are <i>grey</i>"],
        "images_per_class": {split: dict.fromkeys(names, 3) for split in ("train", "val")},
        "cooccurrence": [[6] * len(names)] * len(names),
        "warnings": 1,
    }


def class_scores(matrix: np.ndarray, index: int) -> dict[str, float | int | str | None]:
    hit = int(matrix[index, index])
    truth, predicted = int(matrix[index].sum()), int(matrix[:, index].sum())
    if not truth:
        return {"iou": None, "accuracy": None, "dice": None, "truth_pixels": 0, "predicted_pixels": predicted}
    return {
        "iou": hit / (truth + predicted - hit),
        "accuracy": hit / truth,
        "dice": 2 * hit / (truth + predicted),
        "truth_pixels": truth,
        "predicted_pixels": predicted,
        "note": "",
    }


def log_events(names: list[str]) -> list[dict[str, object]]:
    events: list[dict[str, object]] = [{"event": "start"}]
    for iteration in range(1, 1001):
        loss = float("nan") if iteration == 17 else 2 / iteration**0.5
        event = {"event": "train", "iteration": iteration, "loss": loss, "lr": 0.01 * (1 - iteration / 1000)}
        events.append(event)
        if iteration % 250 == 0:
            scores = {
                "loss": 0.3,
                "miou": iteration / 2000,
                "per_class_iou": dict.fromkeys(names, iteration / 1500),
            }
            events.append({"event": "validation", "iteration": iteration, **scores})
    return events


def make_example(
    name: str, count: int, height: int = 48, width: int = 64, score: float = 0.5, group: Group | None = "best"
) -> Example:
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(width) * count // width, height).reshape(width, height).T.astype(np.uint8)
    prediction = np.roll(truth, 3, axis=1)
    truth[:4] = 255
    truth[20:24, :5], prediction[20:24, :5] = 1, 0
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Example(name=name, image=image, truth=truth, prediction=prediction, score=score, group=group)


def examples(count: int) -> Iterator[Example]:
    yield make_example("good one", count)
    yield make_example("good two", count)
    yield make_example('bad "<i>one</i>', count, height=700, width=900, score=float("nan"), group="worst")


def samples() -> Samples:
    shown = Shown(source="data:image/jpeg;base64,", alternative="a sample", width=1, height=1)
    image = ShownImage(name="<u>s</u>", caption="1 × 1", image=shown, labels=shown, problems=())
    return Samples(images=[image], legend=[LegendEntry(name="<u>", color="#000000")])


PROBLEM = Problem(file="<s>.png", problem="is <s>constant</s>", severity="warning", kind="constant images")


@pytest.mark.parametrize("count", [2, 11, 133])
def test_report_is_whole_and_self_contained(tmp_path: Path, count: int) -> None:
    run = make_run(tmp_path / "run", count)
    before = {path.name for path in run.iterdir()}
    path = write_report(run, examples=examples(count), samples=samples(), problems=[PROBLEM])
    assert path == run / "report.html"
    assert {entry.name for entry in run.iterdir()} == before | {"report.html"}
    assert path.stat().st_size < 15_000_000

    reader = read(path)
    identifiers = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in reader.tags:
        for key in ("src", "href", "xlink:href", "data", "srcset"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:image/"))
            assert not value.startswith("#") or value == "#" or value[1:] in identifiers
    assert not re.search(r"url\(|@import", path.read_text(encoding="utf-8"))
    assert not reader.found("script")
    assert not reader.found("link")

    pictures = reader.found("img")
    assert len(pictures) == 4 * 3 + 3 + 2  # examples, one cut-out, one sample
    assert all(picture["alt"] for picture in pictures)
    assert max(int(picture["width"] or 0) for picture in pictures) == 480
    # three charts, reliability, and for classes: a chart each, or twelve and a line each for the others, and the matrix
    assert len(reader.found("svg")) == 4 + count + (count > 30)
    assert all(one.get("role") == "img" for one in reader.found("svg"))
    assert all("scope" in header for header in reader.found("th"))
    for words in (
        "unet_small on fake <data>",
        "1,234,567",
        "ignored pixels: 1,234",
        "of iteration 750",
        "Largest confusions",
        "62 % of the wrong pixels lie within 7 pixels of a true border; that band holds 21 % of all pixels.",
        "It is over-confident",
        "Calibration error5.00 %",
        "V_rand0.9877",
        "own score12.5",
        "Trained for 1,000 iterations",
        "12.5 %",  # boundary F1 of a class
        "some images are <i>grey</i>",
        "is <s>constant</s>",
        "3 of 20",
    ):
        assert words in reader.text.replace("\n", ""), words
    assert ("Classes seen together" in reader.text) == (2 < count <= 30)


@pytest.mark.parametrize("count", [2, 11, 133])
def test_names_are_shown_literally(tmp_path: Path, count: int) -> None:
    run = make_run(tmp_path, count)
    reader = read(write_report(run, examples=examples(count), samples=samples(), problems=[PROBLEM]))
    for name in class_names(count):
        assert name in reader.text
    for tag in ("b", "i", "u", "s"):
        assert not reader.found(tag)
    assert 'bad "<i>one</i>' in reader.text


def test_an_example_is_cut_out_for_its_confusion_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path, 11)
    reader = read(write_report(run, examples=[make_example("good one", 11, group=None)]))
    assert [picture["alt"].partition(" good one")[0] for picture in reader.found("img")] == [
        "Image",
        "True classes of",
        "Predicted classes of",
    ]
    assert "No example images were given" in reader.text  # of the best and the worst ones


def test_runs_of_earlier_versions_say_what_they_lack(tmp_path: Path) -> None:
    run = make_run(tmp_path, 11)
    for name, keys in (
        ("metrics.json", ("border_split", "calibration", "confusions", "bf_per_class")),
        ("data_card.json", ("images_per_class", "cooccurrence", "warnings")),
    ):
        content = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps({key: value for key, value in content.items() if key not in keys}))
    log = (run / "log.jsonl").read_text().replace("per_class_iou", "other")
    (run / "log.jsonl").write_text(log)
    text = read(write_report(run, examples=examples(11))).text
    for words in (
        "metrics.json does not hold how errors divide between borders and interior: the run is of an earlier version.",
        "metrics.json does not hold how sure the model was: the run is of an earlier version.",
        "metrics.json does not name the images that show them: the run is of an earlier version.",
        "data_card.json does not hold how many images show each class: the run is of an earlier version.",
        "The validations in log.jsonl hold no IoU per class.",
        "taken for",
    ):
        assert words in text


def test_an_early_stop_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path, 2)
    (run / "config.yaml").write_text(yaml.safe_dump({"model": "m", "iterations": 5000, "early_stop": 1}))
    text = read(write_report(run)).text
    assert text.count("stopped early at iteration 1,000 of 5,000: no better score in 1 validations") == 3


@pytest.mark.slow
def test_noise_of_many_classes_and_large_images_stays_below_15_mb(tmp_path: Path) -> None:
    """The worst case of all: pictures that do not compress, as many as a report holds, one of 20 megapixels."""
    count = 133
    run = make_run(tmp_path, count)
    rng = np.random.default_rng(0)
    names = class_names(count)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["confusion_matrix"] = rng.integers(90, 110, (count, count)).tolist()
    matrix = np.array(metrics["confusion_matrix"])
    np.fill_diagonal(matrix, 0)
    pairs = [divmod(int(place), count) for place in np.argsort(-matrix, axis=None, kind="stable")[:8]]
    metrics["confusions"] = [{"truth": names[t], "prediction": names[p], "image": "all"} for t, p in pairs]
    (run / "metrics.json").write_text(json.dumps(metrics))

    def noise(name: str, height: int, width: int, group: Group | None) -> Example:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        truth, prediction = rng.integers(0, count, (2, height, width), dtype=np.uint8)
        return Example(name=name, image=image, truth=truth, prediction=prediction, score=0.0, group=group)

    def all_of_them() -> Iterator[Example]:
        yield noise("large", 4000, 5000, "best")
        yield noise("all", 600, 600, None)
        for index in range(2 * MAX_EXAMPLES - 1):
            yield noise(f"n{index}", 720, 480, "worst" if index < MAX_EXAMPLES else "best")

    path = write_report(run, examples=all_of_them())
    assert path.read_text().count("<img ") == 4 * 2 * MAX_EXAMPLES + 3 * 8
    assert path.stat().st_size < 12_000_000  # a sample of the training images takes 2 MB at most


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path, 11)
    first = write_report(run, examples=examples(11)).read_bytes()
    assert write_report(run, examples=examples(11)).read_bytes() == first


def test_scores_are_percent_and_absent_classes_a_dash(tmp_path: Path) -> None:
    text = read(write_report(make_run(tmp_path, 11))).text
    assert "91.00 %" in text
    assert "absent from the labels, never predicted" in text
    assert "no pixels of this class" in text
    assert "nan" not in text.lower()
    assert "lowest 25.0 %, median 25.0 %, highest 25.0 %" in text
    assert "No example images were given" in text


def test_binary_tasks_tell_the_two_errors_apart(tmp_path: Path) -> None:
    text = read(write_report(make_run(tmp_path, 2), examples=examples(2))).text
    assert "false positive: <b>cell</b> predicted, not there" in text
    assert "false negative: <b>cell</b> missed" in text
    assert "wrong class" not in text


def test_curves_say_what_they_leave_out(tmp_path: Path) -> None:
    text = read(write_report(make_run(tmp_path, 2))).text
    assert "Each point of the training curves is the mean of 3 logged values." in text
    assert "1 logged training loss(es) are missing or not finite" in text


def test_an_empty_run_folder_names_what_is_missing(tmp_path: Path) -> None:
    text = read(write_report(tmp_path)).text
    for name in ("config.yaml", "environment.json", "data_card.json", "log.jsonl", "metrics.json"):
        assert f"{name} is not in the run folder (yet)." in text


def test_examples_alone_are_shown(tmp_path: Path) -> None:
    reader = read(write_report(tmp_path, examples=[make_example("alone", 3)]))
    assert "alone – mean IoU of this image 50.0 %" in reader.text
    assert len(reader.found("img")) == 4


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", '{"metrics": 3, "classes": 4, "per_class": [1]}'])
def test_damaged_files_do_not_stop_the_report(tmp_path: Path, content: str) -> None:
    for name in ("config.yaml", "environment.json", "data_card.json", "log.jsonl", "metrics.json"):
        (tmp_path / name).write_text(content)
    read(write_report(tmp_path, examples=[make_example("x", 3)]))


def test_a_cut_log_line_is_counted_and_the_rest_drawn(tmp_path: Path) -> None:
    make_run(tmp_path, 2)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('\n{"event": "train", "iter')
    reader = read(write_report(tmp_path))
    assert "1 line(s) of log.jsonl could not be read and are left out." in reader.text
    assert len(reader.found("svg")) == 3 + 2 + 1  # training, the two classes, reliability


def test_a_resumed_run_counts_the_later_entry(tmp_path: Path) -> None:
    losses = [(1, 5.0), (2, 9.0), (2, 3.0)]
    lines = [json.dumps({"event": "train", "iteration": i, "loss": loss, "lr": 0.1}) for i, loss in losses]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    text = read(write_report(tmp_path)).text
    assert "training: from 5 at iteration 1 to 3 at iteration 2, lowest 3, highest 5" in text


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere is not a folder"):
        write_report(tmp_path / "nowhere")


def test_too_many_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"more than {MAX_EXAMPLES} examples are of group 'best': a report holds"):
        write_report(tmp_path, examples=[make_example("x", 2)] * (MAX_EXAMPLES + 1))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_report_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_report(tmp_path).read_bytes()

    def full(source: Path, target: Path) -> None:
        raise OSError(28, f"No space left for {source} and {target}")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(WorkError, match=r"report\.html cannot be written: No space left"):
        write_report(tmp_path, examples=[make_example("x", 2)])
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_bytes() == old


def test_axes_of_a_chart() -> None:
    one = Series(label="a", style="s1", points=[(0, 0.0), (100, 1.0)])
    chart = draw("T", [one], 100)
    assert [tick.text for tick in chart.x_ticks] == ["0", "50", "100"]
    assert [tick.text for tick in chart.y_ticks] == ["0", "0.5", "1"]
    assert chart.y_ticks[0].position > chart.y_ticks[-1].position
    assert chart.lines[0].markers == []


def test_a_single_point_and_a_wide_spread_can_be_drawn() -> None:
    single = draw("T", [Series(label="a", style="s1", points=[(5, 0.0)])], 5)
    assert [tick.text for tick in single.x_ticks] == ["0", "2", "4"]
    assert len(single.lines[0].markers) == 1
    wide = draw("T", [Series(label="a", style="s1", points=[(1, 200.0), (2, 1.0)])], 2, may_log=True)
    assert wide.title == "T (logarithmic axis)"
    assert [tick.text for tick in wide.y_ticks] == ["1", "10", "100"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    "metrics",
    "per_class",
    "protocol",
    "per_image",
    "confusion_matrix",
    "confusions",
    "border_split",
    "calibration",
    "num_images",
    "iteration",
)


@settings(
    max_examples=40 * settings().max_examples // 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_whatever_metrics_hold_there_is_a_report(tmp_path: Path, data: st.DataObject) -> None:
    """Replaces values anywhere in an otherwise good metrics.json."""
    run = make_run(tmp_path, 3)
    metrics = json.loads((run / "metrics.json").read_text())
    for key in data.draw(st.lists(st.sampled_from(KEYS), max_size=4)):
        inside = metrics.get(key)
        if isinstance(inside, dict) and inside and data.draw(st.booleans()):
            inside[data.draw(st.sampled_from(sorted(inside)))] = data.draw(JSON)
        else:
            metrics[key] = data.draw(JSON)
    (run / "metrics.json").write_text(json.dumps(metrics))
    read(write_report(run, examples=[make_example("good one", 3)]))
