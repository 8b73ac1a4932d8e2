from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.errors import RequestError
from pixelwise.metrics import ObjectTally

Labels = npt.NDArray[np.integer]
Case = tuple[Labels, Labels, dict[int, float], dict[int, int], dict[int, int]]

patient = settings(deadline=None, max_examples=80 * settings().max_examples // 100)

# pycocotools 2.0.11, iouType "segm", on `images(6)` with maxDets [1, 2, max_detections]: AP, AP50, AP75 at area "all".
# faster-coco-eval 1.8.0 agrees on maps of the same kind.
PYCOCOTOOLS = {
    100: (0.08598352030113363, 0.271475222710241, 0.05510031266284524),
    3: (0.06176263162030488, 0.1987417491749175, 0.043095827439886845),
}


def images(num_images: int, seed: int = 7, size: int = 40, num_cells: int = 16, num_classes: int = 3) -> list[Case]:
    """Make Voronoi maps in whole numbers, many equal scores, a class that is never true."""
    rng = random.Random(seed)
    y, x = np.mgrid[:size, :size]
    found = []
    for _ in range(num_images):
        points = [(rng.randrange(size), rng.randrange(size)) for _ in range(num_cells)]
        moved = [(a + rng.randrange(-2, 3), b + rng.randrange(-2, 3)) for a, b in points]
        maps = []
        for seeds in (points, moved):
            labels = np.stack([(y - a) ** 2 + (x - b) ** 2 for a, b in seeds]).argmin(axis=0) + 1
            for number in rng.sample(range(1, num_cells + 1), 6):
                labels[labels == number] = 0
            maps.append(labels)
        truth, prediction = maps
        true_classes = {number: rng.randrange(1, num_classes) for number in range(1, num_cells + 1)}
        predicted_classes = {
            number: value if rng.random() < 0.8 else rng.randrange(1, num_classes + 1)
            for number, value in true_classes.items()
        }
        scores = {number: rng.randrange(10) / 10 for number in range(1, num_cells + 1)}
        found.append((prediction, truth, scores, predicted_classes, true_classes))
    return found


def added(cases: list[Case], max_detections: int = 100) -> ObjectTally:
    tally = ObjectTally(max_detections=max_detections)
    for prediction, truth, scores, predicted_classes, true_classes in cases:
        tally.add(prediction, truth, scores=scores, predicted_classes=predicted_classes, true_classes=true_classes)
    return tally


def ids(labels: Labels) -> list[int]:
    return sorted(set(labels.ravel().tolist()) - {0})


def slow_iou(prediction: Labels, truth: Labels, number: int, other: int) -> float:
    first, second = prediction == number, truth == other
    return float((first & second).sum() / (first | second).sum())


def slow_ap(cases: list[Case], class_id: int, threshold: float, max_detections: int) -> float | None:
    """Walk through the ranked predictions, then read the best precision off the curve 101 times."""
    num_truth, ranked = 0, []
    for prediction, truth, scores, predicted_classes, true_classes in cases:
        free = [number for number in ids(truth) if true_classes[number] == class_id]
        num_truth += len(free)
        found = [number for number in ids(prediction) if predicted_classes[number] == class_id]
        for number in sorted(found, key=lambda number: -scores[number])[:max_detections]:
            best = max(free, key=lambda other: (slow_iou(prediction, truth, number, other), other), default=None)
            hit = False
            if best is not None and slow_iou(prediction, truth, number, best) >= threshold:
                hit = True
                free.remove(best)
            ranked.append((scores[number], hit))
    if not num_truth:
        return None
    ranked.sort(key=lambda pair: -pair[0])
    curve = []
    right = 0
    for place, (_, hit) in enumerate(ranked, 1):
        right += hit
        curve.append((right / num_truth, right / place))
    precisions = [max((p for r, p in curve if r >= k / 100), default=0.0) for k in range(101)]
    return sum(precisions) / 101


def slow_panoptic(cases: list[Case], class_id: int) -> tuple[float, float | None]:
    """Return PQ and the score of the DSB of one class."""
    total, hits, wrong, dsb = 0.0, 0, 0, []
    for prediction, truth, _, predicted_classes, true_classes in cases:
        wanted = [number for number in ids(truth) if true_classes[number] == class_id]
        found = [number for number in ids(prediction) if predicted_classes[number] == class_id]
        overlaps = [slow_iou(prediction, truth, p, t) for p in found for t in wanted]
        matches = [iou for iou in overlaps if iou > 0.5]
        total, hits = total + sum(matches), hits + len(matches)
        wrong += len(wanted) + len(found) - 2 * len(matches)
        if wanted or found:
            counts = [sum(iou > t / 100 for iou in overlaps) for t in range(50, 100, 5)]
            dsb.append(sum(n / (len(wanted) + len(found) - n) for n in counts) / 10)
    return total / (hits + wrong / 2), sum(dsb) / len(dsb)


def strip(*runs: tuple[int, int]) -> Labels:
    """Make a map of one row from (label, pixels)."""
    return np.array([[label for label, pixels in runs for _ in range(pixels)]])


@pytest.mark.parametrize("max_detections", PYCOCOTOOLS)
def test_equals_the_recorded_reference(max_detections: int) -> None:
    scores = added(images(6), max_detections).result()
    assert (scores.ap, scores.ap50, scores.ap75) == pytest.approx(PYCOCOTOOLS[max_detections], abs=1e-12)
    assert scores.num_cut == (0 if max_detections == 100 else 20)


def test_golden_ap() -> None:
    """Golden 8: TP, FP, TP with two truths."""
    tally = ObjectTally()
    truth = strip((1, 4), (0, 4), (2, 4))
    tally.add(strip((5, 4), (6, 4), (7, 4)), truth, scores={5: 0.9, 6: 0.8, 7: 0.7})
    assert tally.result().ap50 == pytest.approx(0.834983, abs=5e-7)


def test_golden_dsb() -> None:
    """Golden 9: three of each, matched IoU .96, .72, .48."""
    truth = strip((1, 25), (2, 25), (3, 25))
    prediction = strip((1, 24), (0, 1), (2, 18), (0, 7), (3, 12), (0, 13))
    tally = ObjectTally()
    tally.add(prediction, truth)
    assert tally.result().dsb2018 == pytest.approx(0.35)


def test_golden_panoptic_quality() -> None:
    """Golden 10: IoU .9 and .6, one wrong prediction, two missed objects."""
    truth = strip((1, 10), (2, 10), (3, 5), (4, 5), (0, 5))
    prediction = strip((1, 9), (0, 1), (2, 6), (0, 14), (3, 5))
    tally = ObjectTally()
    tally.add(prediction, truth)
    scores = tally.result()
    assert (scores.pq, scores.sq, scores.rq) == pytest.approx((0.428571, 0.75, 0.571429), abs=5e-7)
    assert scores.ap is None


@pytest.mark.parametrize("max_detections", [100, 2])
@pytest.mark.parametrize("seed", [2, 4])
def test_equals_slow_ones(seed: int, max_detections: int) -> None:
    cases = images(3, seed, size=20, num_cells=12)
    scores = added(cases, max_detections).result()
    assert {row.class_id for row in scores.per_class} == {1, 2, 3}
    for row in scores.per_class:
        by_threshold = [slow_ap(cases, row.class_id, float(t), max_detections) for t in np.linspace(0.5, 0.95, 10)]
        if row.class_id == 3:
            assert by_threshold == [None] * 10
            assert (row.ap, row.ap50, row.ap75, row.dsb2018, row.pq) == (None, None, None, None, 0)
            continue
        expected = [value or 0.0 for value in by_threshold]
        # COCO adds 2e-16 to each denominator.
        assert row.ap == pytest.approx(sum(expected) / 10, abs=1e-12)
        assert (row.ap50, row.ap75) == pytest.approx((expected[0], expected[5]), abs=1e-12)
        assert (row.pq, row.dsb2018) == pytest.approx(slow_panoptic(cases, row.class_id), abs=1e-12)
    assert scores.ap == pytest.approx(sum(row.ap or 0 for row in scores.per_class) / 2)
    assert scores.pq == pytest.approx(sum(row.pq for row in scores.per_class) / 3)


@patient
@given(st.integers(0, 2**32), st.permutations(range(1, 9)))
def test_names_and_orientation_do_not_matter(seed: int, names: list[int]) -> None:
    cases = images(2, seed, size=12, num_cells=8)
    # Equal scores rank by id: make them differ.
    cases = [(p, t, {k: v + k / 100 for k, v in s.items()}, pc, tc) for p, t, s, pc, tc in cases]
    table = np.array([0, *names])
    renamed = [
        (
            table[p].T,
            table[t].T * 2**40,
            {int(table[k]): v for k, v in s.items()},
            {int(table[k]): v for k, v in pc.items()},
            {int(table[k]) * 2**40: v for k, v in tc.items()},
        )
        for p, t, s, pc, tc in cases
    ]
    first, second = added(cases).result(), added(renamed).result()
    for name in ("ap", "ap50", "ap75", "dsb2018", "pq", "sq", "rq"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), abs=1e-12)


@patient
@given(st.integers(0, 2**32))
def test_perfect_prediction_scores_one(seed: int) -> None:
    cases = [(t, t, s, tc, tc) for _, t, s, _, tc in images(2, seed, size=12, num_cells=8)]
    scores = added(cases).result()
    assert scores.ap == pytest.approx(1)
    assert scores.ap50 == pytest.approx(1)
    assert scores.dsb2018 == scores.pq == scores.sq == scores.rq == 1


def test_an_object_is_found_once() -> None:
    tally = ObjectTally()
    # 5/9 finds it, but at the second rank, after 4/9.
    tally.add(strip((1, 5), (2, 4)), strip((9, 9)), scores={1: 0.3, 2: 0.9})
    assert tally.result().ap50 == pytest.approx(0.5)
    # 4/8 twice: the better score finds it, the other is wrong. The ranks read wrong, right, right, wrong.
    tally.add(strip((1, 4), (2, 4)), strip((9, 8)), scores={1: 0.3, 2: 0.9})
    assert tally.result().ap50 == pytest.approx(2 / 3)


def test_two_halves_of_one_prediction_leave_one_missed() -> None:
    tally = ObjectTally()
    tally.add(strip((1, 8)), strip((1, 4), (2, 4)), scores={1: 0.5})
    # IoU is exactly 0.5 with both: enough for AP, not for the DSB and PQ.
    scores = tally.result()
    assert scores.ap50 == pytest.approx(51 / 101)
    assert scores.ap75 == scores.dsb2018 == scores.pq == scores.sq == 0


def test_iou_of_nine_tenths_counts_for_ap_and_not_for_the_dsb() -> None:
    tally = ObjectTally()
    tally.add(strip((1, 9), (0, 1)), strip((1, 10)), scores={1: 1.0})
    scores = tally.result()
    assert scores.ap == pytest.approx(0.9)
    assert scores.dsb2018 == pytest.approx(0.8)


def test_images_without_objects() -> None:
    tally = ObjectTally()
    assert tally.result().to_json()["metrics"] == dict.fromkeys(("ap", "ap50", "ap75", "dsb2018", "pq", "sq", "rq"))
    tally.add(strip((0, 3)), strip((0, 3)), scores={})
    assert tally.result().per_class == ()
    tally.add(strip((0, 3)), strip((1, 3)), scores={})
    assert (tally.result().ap, tally.result().dsb2018, tally.result().pq) == (0, 0, 0)
    tally.add(strip((4, 3)), strip((1, 3)), scores={4: -5.0})
    assert tally.result().ap == pytest.approx(51 / 101)
    assert (tally.result().dsb2018, tally.result().num_images) == (0.5, 3)


def test_objects_of_other_classes_do_not_match() -> None:
    tally = ObjectTally()
    tally.add(strip((1, 4)), strip((1, 4)), predicted_classes={1: 3}, true_classes={1: 2})
    rows = {row.class_id: (row.pq, row.num_truth, row.num_predicted) for row in tally.result().per_class}
    assert rows == {2: (0, 1, 0), 3: (0, 0, 1)}


def test_says_what_is_wrong() -> None:
    one, none = strip((4, 2)), strip((0, 2))
    with pytest.raises(RequestError, match=r"max_detections is 0. Accepted are 1 or more"):
        ObjectTally(max_detections=0)
    tally = ObjectTally()
    with pytest.raises(RequestError, match=r"object 4 of the prediction has the score None. Every id"):
        tally.add(one, none, scores={5: 0.2})
    with pytest.raises(RequestError, match=r"object 4 of the prediction has the score nan"):
        tally.add(one, none, scores={4: float("nan")})
    with pytest.raises(RequestError, match=r"object 4 of the truth has no class \(1 of 1 objects without\)"):
        tally.add(none, one, true_classes={})
    with pytest.raises(RequestError, match=r"prediction has shape \(1, 2\) and truth has shape \(1, 3\)"):
        tally.add(one, strip((0, 3)))
    assert tally.result().num_images == 0
    tally.add(one, one, scores={4: 0.2})
    with pytest.raises(RequestError, match=r"scores are not given for image 2, unlike for the images before it"):
        tally.add(one, one)
    unranked = ObjectTally()
    unranked.add(one, one)
    with pytest.raises(RequestError, match=r"scores are given for image 2, unlike"):
        unranked.add(one, one, scores={4: 0.2})
