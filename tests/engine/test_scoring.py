"""Scores by name: each goes through the same tally, asks for what it needs, and says how it was measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelwise.engine.evaluate import Confusions, Scorer, merged
from pixelwise.engine.objects import given_objects
from pixelwise.engine.scoring import METRICS, Case, Known, check_metrics
from pixelwise.errors import RequestError

CELLS = Known(classes=("cell", "membrane"), ignore_index=None, boundary_class=1, has_objects=True)
PLAIN = Known(classes=("cell", "membrane"), ignore_index=None)


def case(labels: np.ndarray, truth: np.ndarray) -> Case:
    chosen = torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), 2).permute(2, 0, 1).float()
    cells = np.cumsum(np.pad(labels, ((0, 0), (1, 0)))[:, :-1], axis=1) + 1
    true_cells = np.cumsum(np.pad(truth, ((0, 0), (1, 0)))[:, :-1], axis=1) + 1
    return Case(
        labels=labels,
        truth=truth,
        probabilities=chosen * 0.9 + 0.05,
        objects=given_objects(cells * (labels == 0), labels, dict.fromkeys(range(1, 99), 0.5)),
        true_objects=given_objects(true_cells * (truth == 0), truth),
    )


def scored(known: Known, *cases: Case, names: tuple[str, ...] = METRICS) -> dict[str, object]:
    scorer = Scorer(known, check_metrics(names, known), with_probabilities=True)
    for number, one in enumerate(cases):
        scorer.add(f"image{number}", one)
    return scorer.result({"split": "val"}).to_json()


def test_a_perfect_prediction_has_perfect_scores() -> None:
    truth = np.zeros((16, 24), np.uint8)
    truth[:, [7, 15]] = 1
    found = scored(CELLS, case(truth, truth))
    errors = ("rand_error", "pixel_error", "warping_error")
    wanted = dict.fromkeys(METRICS, 1.0) | dict.fromkeys(errors, 0.0) | {"ece": 0.05}
    assert found["metrics"] == pytest.approx(wanted, abs=1e-6)
    assert found["confusions"] == []
    assert found["border_split"]["interior"]["wrong_pixels"] == 0


def test_a_merge_of_two_cells_is_seen_by_each_measure_in_its_way() -> None:
    truth = np.zeros((9, 21), np.uint8)
    truth[:, 10] = 1
    labels = np.zeros_like(truth)
    found = scored(CELLS, case(labels, truth))
    metrics = found["metrics"]
    # The strip of metrics.md (golden 6, "merge"): precision 0.5, recall 1.
    assert metrics["vrand"] == pytest.approx(2 / 3)
    assert metrics["vinfo"] == pytest.approx(0, abs=1e-12)
    assert metrics["pixel_error"] == pytest.approx(1 / 21)
    assert metrics["seg"] == pytest.approx(90 / 189)  # the merged cell covers both, with twice the pixels
    assert metrics["ap50"] == 0
    assert metrics["pq"] == 0
    assert metrics["boundary_iou"] < 1
    assert found["protocol"]["objects_found"].startswith("1 predicted, 2 true ones")
    split = found["border_split"]
    assert (split["boundary"]["wrong_pixels"], split["interior"]["wrong_pixels"]) == (9, 0)
    assert split["boundary"]["pixels"] + split["interior"]["pixels"] == truth.size
    assert found["confusions"] == [
        {"truth": "membrane", "prediction": "cell", "pixels": 9, "share": 1.0, "image": "image0"}
    ]


def test_labels_alone_can_be_scored_but_not_calibrated() -> None:
    truth = np.array([[0, 1, 0, 0]], np.uint8)
    scorer = Scorer(PLAIN, ["boundary_iou"])
    scorer.add("a", Case(labels=truth, truth=truth))
    found = scorer.result({"split": "val"}).to_json()
    assert found["metrics"]["boundary_iou"] == 1
    assert found["loss"] is None
    assert "ece" not in found["metrics"]
    with pytest.raises(RequestError, match="ece needs probabilities, and the predictions are labels only"):
        Scorer(PLAIN, ["ece"]).add("a", Case(labels=truth, truth=truth))


def test_what_the_data_cannot_answer_is_refused_at_once() -> None:
    with pytest.raises(RequestError, match=r"metric vrand .* not known which class is the boundary \(classes: cell, "):
        check_metrics(["vrand"], PLAIN)
    with pytest.raises(RequestError, match="metric seg compares objects, and the data has no object ids"):
        check_metrics(["seg"], PLAIN)
    with pytest.raises(RequestError, match=r"unknown metric 'vrnd'; closest: vrand.*Accepted: miou, "):
        check_metrics(["vrnd"], CELLS)
    assert check_metrics(["vrand", "miou", "vrand"], CELLS) == ("miou", "vrand")


def test_ap_without_confidences_is_refused() -> None:
    truth = np.zeros((4, 4), np.uint8)
    objects = given_objects(np.ones((4, 4), int), truth)
    with pytest.raises(
        RequestError, match="metric ap50 ranks objects by their confidence, and the predictions have none"
    ):
        Scorer(CELLS, ["ap50", "seg"]).add("a", Case(labels=truth, truth=truth, objects=objects, true_objects=objects))
    scorer = Scorer(CELLS, ["pq", "seg"])
    scorer.add("a", Case(labels=truth, truth=truth, objects=objects, true_objects=objects))
    assert scorer.result({"split": "val"}).to_json()["metrics"]["pq"] == 1


def test_the_largest_confusions_name_the_image_that_shows_them_best() -> None:
    mixed = Confusions(["a", "b", "c"])
    first, second = np.array([[5, 2, 0], [0, 4, 0], [1, 0, 0]]), np.array([[0, 3, 0], [7, 1, 0], [0, 0, 9]])
    mixed.add("one", first)
    mixed.add("two", second)
    assert mixed.largest(first + second) == [
        {"truth": "b", "prediction": "a", "pixels": 7, "share": 7 / 12, "image": "two"},
        {"truth": "a", "prediction": "b", "pixels": 5, "share": 0.5, "image": "two"},
        {"truth": "c", "prediction": "a", "pixels": 1, "share": 0.1, "image": "one"},
    ]


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_images_that_are_dealt_out_have_the_scores_of_all(parts: int) -> None:
    """The last of seven parts has none; images 0 and 3 are alike, so that either could show a confusion best."""
    scorers = [
        Scorer(Known(classes=("a", "b", "c"), ignore_index=3), (), with_probabilities=True) for _ in range(parts + 1)
    ]
    for number in range(6):
        rng = np.random.default_rng(number % 3)
        chances = torch.from_numpy(rng.random((3, 9, 11)).astype(np.float32))
        probabilities, truth = chances / chances.sum(dim=0), rng.integers(0, 4, (9, 11))
        case = Case(labels=probabilities.argmax(dim=0).numpy(), truth=truth, probabilities=probabilities)
        for scorer in (scorers[-1], scorers[number % parts]):
            scorer.add(f"image{number}", case)
    wanted = scorers[-1].result({"split": "val"}).to_json()
    found = merged(scorers[:-1]).result({"split": "val"}).to_json()
    assert found.pop("metrics") == pytest.approx(wanted.pop("metrics"))  # sums in another order
    assert found.pop("calibration")["mce"] == pytest.approx(wanted.pop("calibration")["mce"])
    assert found == wanted
