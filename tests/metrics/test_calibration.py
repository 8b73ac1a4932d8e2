"""Calibration against a worked example, a slow version and numbers of the paper's authors' code."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pixelwise.errors import RequestError
from pixelwise.metrics import Calibration, CalibrationScores

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# The first example pays for the compilation.
patient = settings(
    deadline=None, max_examples=100 * settings().max_examples // 100, suppress_health_check=[HealthCheck.too_slow]
)
confidences = arrays.arrays(
    np.float32, st.integers(0, 30), elements=st.floats(0, 1, width=32) | st.sampled_from((0, 0.2, 0.4, 0.6, 1))
)


def scores_of(confidence: npt.ArrayLike, correct: npt.ArrayLike, num_bins: int = 15) -> CalibrationScores:
    calibration = Calibration(num_bins)
    calibration.add(confidence, correct)
    return calibration.result()


def marks(count: int, seed: int) -> Mask:
    return np.random.default_rng(seed).random(count) < 0.6


def test_worked_example() -> None:
    # Bin (0, 0.5]: 0.25 wrong, 0.5 right: gap 0.5 - 0.375; bin (0.5, 1]: 0.75 right, 1 and 1 wrong: gap 2.75/3 - 1/3.
    scores = scores_of([[0.25, 0.75, 1], [0.5, 1, 1]], [[False, True, False], [True, False, True]], 2)
    low, high = scores.bins
    assert (low.low, low.high, low.pixels, low.confidence, low.accuracy) == (0, 0.5, 2, 0.375, 0.5)
    assert (high.low, high.high, high.pixels, high.confidence, high.accuracy) == (0.5, 1, 4, 3.75 / 4, 0.5)
    assert scores.ece == pytest.approx((2 * 0.125 + 4 * 0.4375) / 6)
    assert scores.mce == 0.4375


@pytest.mark.parametrize(("num_bins", "expected"), [(10, 0.1420169175), (15, 0.1367262602), (20, 0.1420169175)])
def test_numbers_of_the_authors_code(num_bins: int, expected: float) -> None:
    # gpleiss/temperature_scaling, commit ce1154e: _ECELoss(n_bins)(logits, labels), torch on the CPU. It sums in
    # float32, hence the tolerance.
    y, x = np.mgrid[:40, :50]
    planes = [((x * 7 + y * 3) % 11) / 3, ((x * x + y) % 13) / 4, ((x + y * y) % 17) / 5]
    logits = np.stack(planes).astype(np.float32)
    right = (x * y) % 4 != 0
    confidence = (np.exp(logits) / np.exp(logits).sum(axis=0)).max(axis=0)
    assert scores_of(confidence, right, num_bins).ece == pytest.approx(expected, abs=1e-7)


def slow_scores(confidence: Floats, correct: Mask, num_bins: int) -> tuple[float, float, list[int]]:
    """Follow equations 3 and 5 of Guo et al. bin by bin; edges in float32, 0 in the first bin."""
    edges = [np.float32(m / num_bins) for m in range(num_bins + 1)]
    ece, mce, counts = 0.0, 0.0, []
    for m in range(num_bins):
        inside = (confidence > edges[m]) & (confidence <= edges[m + 1])
        inside |= (confidence == 0) & (m == 0)
        counts.append(int(inside.sum()))
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].astype(np.float64).mean())
            ece, mce = ece + gap * inside.mean(), max(mce, gap)
    return ece, mce, counts


@patient
@given(confidences, st.sampled_from((1, 2, 5, 10, 15, 1000)), st.integers(0, 2**32 - 1))
def test_equals_slow_version(confidence: Floats, num_bins: int, seed: int) -> None:
    correct = marks(confidence.size, seed)
    scores = scores_of(confidence, correct, num_bins)
    ece, mce, counts = slow_scores(confidence, correct, num_bins)
    assert [b.pixels for b in scores.bins] == counts
    if confidence.size:
        assert scores.ece == pytest.approx(ece, abs=1e-12)
        assert scores.mce == pytest.approx(mce, abs=1e-12)
    else:
        assert (scores.ece, scores.mce) == (None, None)


@pytest.mark.parametrize("num_bins", [1, 3, 7, 10, 15, 49, 100, 9999])
def test_edges_belong_to_the_bin_below(num_bins: int) -> None:
    edges = (np.arange(1, num_bins + 1) / num_bins).astype(np.float32)
    assert [b.pixels for b in scores_of(edges, np.ones(num_bins, bool), num_bins).bins] == [1] * num_bins
    above = np.nextafter(edges[:-1], np.float32(2))
    assert [b.pixels for b in scores_of(above, above > 0, num_bins).bins] == [0] + [1] * (num_bins - 1)


def test_certain_and_right_is_calibrated() -> None:
    scores = scores_of(np.ones((3, 4), np.float32), np.ones((3, 4), bool))
    assert (scores.ece, scores.mce) == (0, 0)
    assert [b.pixels for b in scores.bins] == [0] * 14 + [12]
    assert (scores.bins[0].confidence, scores.bins[0].accuracy) == (None, None)


@patient
@given(confidences, confidences, st.integers(0, 2**32 - 1))
def test_images_add_up_in_any_order(first: Floats, second: Floats, seed: int) -> None:
    images = [(values, marks(values.size, seed)) for values in (first, second)]
    there, back = Calibration(), Calibration()
    for image, last in zip(images, images[::-1], strict=True):
        there.add(*image)
        back.add(*last)
    joined = scores_of(np.concatenate([first, second]), np.concatenate([image[1] for image in images]))
    for scores in (there.result(), back.result()):
        assert [b.pixels for b in scores.bins] == [b.pixels for b in joined.bins]
        assert [b.accuracy for b in scores.bins] == [b.accuracy for b in joined.bins]
        assert scores.ece == (None if joined.ece is None else pytest.approx(joined.ece, abs=1e-12))


@patient
@given(confidences, st.integers(0, 2**32 - 1))
def test_pixels_that_do_not_count_are_free(confidence: Floats, seed: int) -> None:
    correct, counted = marks(confidence.size, seed), marks(confidence.size, seed + 1)
    free = np.where(counted, confidence, np.float32("nan"))
    calibration = Calibration()
    calibration.add(free, correct, counted)
    assert calibration.result() == scores_of(confidence[counted], correct[counted])


def test_other_layouts_and_types() -> None:
    confidence = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    correct = confidence > 0.5
    expected = scores_of(confidence, correct)
    frozen = confidence.copy()
    frozen.setflags(write=False)
    for same in (frozen, confidence.astype(np.float64), np.asfortranarray(confidence)):
        assert scores_of(same, correct) == expected
    strided, strided_correct = np.repeat(confidence, 2, axis=1)[:, ::2], np.repeat(correct, 2, axis=1)[:, ::2]
    assert scores_of(strided, strided_correct) == expected


def test_sums_do_not_lose_small_terms() -> None:
    calibration = Calibration(1)
    value = np.full(1_000_000, 0.1, np.float32)
    for _ in range(20):
        calibration.add(value, np.zeros(value.size, bool))
    (scored,) = calibration.result().bins
    assert scored.pixels == 20_000_000
    assert scored.confidence == pytest.approx(float(np.float32(0.1)), rel=1e-10)


def test_probability_rounded_above_one() -> None:
    assert scores_of(np.array([1 + 1e-6], np.float32), [True]).bins[-1].pixels == 1


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-0.1, 1.001, math.nan, math.inf])
def test_confidence_out_of_range(wrong: float) -> None:
    calibration = Calibration()
    with pytest.raises(
        RequestError, match=rf"confidence holds 2 values outside \[0, 1\], such as {wrong:g}\. Accepted"
    ):
        calibration.add([0.5, wrong, wrong, 7.0], np.ones(4, bool), [True, True, True, False])
    assert calibration.result().ece is None


def test_arrays_refused() -> None:
    calibration, image, right = Calibration(), np.full((4, 5), 0.5), np.ones((4, 5), bool)
    with pytest.raises(RequestError, match=r"confidence has dtype uint8\. Accepted are float probabilities"):
        calibration.add(image.astype(np.uint8), right)
    with pytest.raises(RequestError, match=r"correct has shape \(4, 4\) and dtype bool, confidence has shape \(4, 5\)"):
        calibration.add(image, right[:, :4])
    with pytest.raises(RequestError, match=r"correct has shape \(4, 5\) and dtype int64"):
        calibration.add(image, right.astype(np.int64))
    with pytest.raises(RequestError, match=r"counted has shape \(5,\) and dtype bool"):
        calibration.add(image, right, right[0])


@pytest.mark.parametrize("num_bins", [0, -1, 10_001])
def test_num_bins_refused(num_bins: int) -> None:
    with pytest.raises(RequestError, match=f"num_bins is {num_bins}. Accepted are 1 to 10000"):
        Calibration(num_bins)
