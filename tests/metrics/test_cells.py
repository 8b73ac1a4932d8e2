from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.errors import RequestError
from pixelwise.metrics import CellTally, seg_score

Labels = npt.NDArray[np.integer]

patient = settings(deadline=None, max_examples=100 * settings().max_examples // 100)

# py-ctcmetrics 1.3.3, `seg` of the matches of `match`, over the frames of `frames()` together.
CTC_SEG = 0.3759947125735231


def frames(num_frames: int = 4, size: int = 36, num_cells: int = 14) -> list[tuple[Labels, Labels]]:
    """Make Voronoi maps in whole numbers, some cells left out: predictions of moved cells, and truth."""
    rng = random.Random(3)
    y, x = np.mgrid[:size, :size]
    found = []
    for _ in range(num_frames):
        points = [(rng.randrange(size), rng.randrange(size)) for _ in range(num_cells)]
        moved = [(a + rng.randrange(-3, 4), b + rng.randrange(-3, 4)) for a, b in points]
        maps = []
        for seeds in (points, moved):
            labels = np.stack([(y - a) ** 2 + (x - b) ** 2 for a, b in seeds]).argmin(axis=0) + 1
            for number in rng.sample(range(1, num_cells + 1), 4):
                labels[labels == number] = 0
            maps.append(labels.astype(np.uint16))
        found.append((maps[1], maps[0]))
    return found


def added(pairs: list[tuple[Labels, Labels]], margin: int = 0) -> CellTally:
    tally = CellTally(margin=margin)
    for prediction, truth in pairs:
        tally.add(prediction, truth)
    return tally


def slow_seg(pairs: list[tuple[Labels, Labels]]) -> tuple[list[float], int]:
    """Return the overlap of each reference object, and the number of predictions that match nothing."""
    overlaps, unmatched = [], 0
    for prediction, truth in pairs:
        matching = set()
        for number in set(truth.ravel().tolist()) - {0}:
            reference = truth == number
            best = 0.0
            for other in set(prediction.ravel().tolist()) - {0}:
                cell = prediction == other
                if 2 * (reference & cell).sum() > reference.sum():
                    best = (reference & cell).sum() / (reference | cell).sum()
                    matching.add(other)
            overlaps.append(best)
        unmatched += len(set(prediction.ravel().tolist()) - {0} - matching)
    return overlaps, unmatched


@st.composite
def maps(draw: st.DrawFn) -> tuple[Labels, Labels]:
    shape = draw(st.sampled_from(((1, 1), (1, 9), (6, 4), (8, 8))))
    seed = draw(st.integers(0, 2**32))
    prediction, truth = np.random.default_rng(seed).integers(0, draw(st.integers(1, 6)), (2, *shape))
    return prediction, np.where(prediction % 2 == 0, prediction, truth)


def test_golden_seg() -> None:
    """Golden 7: R1 10 px, S 8 of them and 2 more; R2 8 px, S exactly 4; R3 4 px, S 3 of them."""
    truth = np.array([[1] * 10 + [0] * 2 + [2] * 8 + [3] * 4])
    prediction = np.array([[0] * 2 + [5] * 8 + [5] * 2 + [6] * 4 + [0] * 4 + [7] * 3 + [0]])
    scores = seg_score(prediction, truth)
    assert scores.seg == pytest.approx(0.472222, abs=5e-7)
    assert (scores.num_reference, scores.num_predicted, scores.num_matched) == (3, 3, 2)
    assert (scores.false_positives, scores.merged) == (1, 0)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_equals_the_recorded_reference() -> None:
    assert added(frames()).result().seg == pytest.approx(CTC_SEG, abs=1e-12)


def test_equals_ctcmetrics(tmp_path: Path) -> None:
    reason = "py-ctcmetrics is not installed; its number is recorded in CTC_SEG"
    representations = pytest.importorskip("ctc_metrics.utils.representations", reason=reason)
    from ctc_metrics.metrics.technical.seg import seg  # type: ignore[import-not-found, unused-ignore]

    labels, overlaps = [], []
    for prediction, truth in frames():
        for name, cells in (("truth", truth), ("prediction", prediction)):
            tifffile.imwrite(tmp_path / f"{name}.tif", cells)
        found = representations.match(str(tmp_path / "truth.tif"), str(tmp_path / "prediction.tif"))
        labels.append(found[0])
        overlaps.append(found[4])
    assert seg(labels, overlaps) == pytest.approx(CTC_SEG, abs=1e-12)


@patient
@given(st.lists(maps(), max_size=3))
def test_equals_a_slow_one(pairs: list[tuple[Labels, Labels]]) -> None:
    overlaps, unmatched = slow_seg(pairs)
    scores = added(pairs).result()
    assert scores.seg == (pytest.approx(sum(overlaps) / len(overlaps)) if overlaps else None)
    assert scores.num_matched == sum(overlap > 0 for overlap in overlaps)
    assert scores.false_positives == unmatched
    assert (scores.num_reference, scores.num_images) == (len(overlaps), len(pairs))


@patient
@given(maps(), st.permutations(range(1, 7)))
def test_names_and_orientation_do_not_matter(pair: tuple[Labels, Labels], names: list[int]) -> None:
    renamed = [np.array([0, *names])[labels].T * factor for labels, factor in zip(pair, (1, 2**40), strict=True)]
    assert vars(seg_score(*renamed)) == pytest.approx(vars(seg_score(*pair)))


@patient
@given(maps())
def test_perfect_prediction_scores_one(pair: tuple[Labels, Labels]) -> None:
    scores = seg_score(pair[1], pair[1])
    if scores.num_reference:
        assert scores.seg == scores.precision == scores.recall == scores.f1 == 1
    assert scores.false_positives == scores.merged == 0


def test_extra_and_merged_cells_show_beside_seg() -> None:
    truth = np.array([[1, 1, 2, 2, 0, 0, 0, 0]])
    scores = seg_score(np.array([[4, 4, 4, 4, 0, 5, 0, 6]]), truth)
    assert scores.seg == 0.5
    assert (scores.num_matched, scores.merged, scores.false_positives) == (2, 1, 2)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx((1 / 3, 1 / 2, 2 / 5))


def test_objects_in_the_margin_only_are_removed() -> None:
    truth, prediction = np.zeros((2, 8, 8), int)
    truth[0, :3], truth[0:3, 5] = 1, 2
    prediction[0, :3], prediction[0:3, 5:7], prediction[7, 7] = 3, 4, 5
    assert seg_score(prediction, truth).num_reference == 2
    scores = seg_score(prediction, truth, margin=2)
    # The second object reaches the inside with one pixel and counts whole.
    assert (scores.num_reference, scores.num_predicted) == (1, 1)
    assert scores.seg == 0.5


def test_nothing_to_count_is_none() -> None:
    empty = CellTally().result()
    assert (empty.seg, empty.precision, empty.recall, empty.f1) == (None, None, None, None)
    assert empty.to_json()["seg"] is None
    scores = seg_score(np.array([[1, 0]]), np.array([[0, 0]]))
    assert (scores.seg, scores.recall, scores.precision, scores.f1, scores.false_positives) == (None, None, 0, 0, 1)


def test_says_what_is_wrong() -> None:
    with pytest.raises(RequestError, match=r"margin is -1. Accepted are 0 or more pixels"):
        CellTally(margin=-1)
    tally = CellTally(margin=2)
    with pytest.raises(
        RequestError, match=r"margin is 2 and an image has the size 4 x 9. Accepted are margins below 2"
    ):
        tally.add(np.zeros((4, 9), int), np.zeros((4, 9), int))
    with pytest.raises(RequestError, match=r"prediction has shape \(5, 9\) and truth has shape \(5, 8\)"):
        tally.add(np.zeros((5, 9), int), np.zeros((5, 8), int))
    with pytest.raises(RequestError, match=r"truth holds the label -1 \(1 pixel out of range\)"):
        tally.add(np.zeros((1, 2), int), np.array([[0, -1]]))
    assert tally.result().num_images == 0
