"""How far the confidence of predictions is from their accuracy: expected calibration error.

The pixels are sorted into M bins of equal width by the probability of the predicted class. With B_m the pixels of
bin m, n their number over all bins, acc and conf the share of right ones and the mean confidence in a bin:

| score | formula                                               |
|-------|-------------------------------------------------------|
| ECE   | sum_m (number of B_m / n) abs(acc(B_m) - conf(B_m))   |
| MCE   | max_m abs(acc(B_m) - conf(B_m)), of bins with a pixel |

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equations 3 and 5. Its bin m, from 1 to M,
holds the confidences above (m - 1) / M, up to and with m / M; here the first also holds 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pixelwise.errors import RequestError
from pixelwise.metrics.compiled import compile_loop

Confidences: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]
Totals: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = npt.NDArray[np.int64]
_Loop: TypeAlias = Callable[[Confidences, Mask, Mask, Confidences, Counts, Totals], int]

_MAX_BINS = 10_000
# Sums of softmax probabilities over tiles or flips may pass 1 by rounding; they fall into the last bin.
_LARGEST = 1 + 1e-5


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """One bar of a reliability diagram.

    Attributes:
        low: lower edge of the confidence, not in the bin (0 is in the first).
        high: upper edge, in the bin.
        pixels: how many fell into the bin.
        confidence: their mean confidence; None without any.
        accuracy: share of right ones, in [0, 1]; None without any.
    """

    low: float
    high: float
    pixels: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class CalibrationScores:
    """Calibration over a data set.

    Attributes:
        ece: expected calibration error, in [0, 1]; None where no pixel was counted.
        mce: largest gap of a bin, in [0, 1]; None where no pixel was counted.
        bins: from low to high confidence.
    """

    ece: float | None
    mce: float | None
    bins: tuple[CalibrationBin, ...]


class Calibration:
    """Calibration of the confidence in the predicted class, summed over images.

    Args:
        num_bins: M, bins of equal width from 0 to 1.

    >>> calibration = Calibration(num_bins=2)
    >>> calibration.add(np.array([0.25, 0.75, 0.75]), np.array([False, True, False]))
    >>> calibration.result().ece
    0.25
    """

    def __init__(self, num_bins: int = 15) -> None:
        if not 1 <= num_bins <= _MAX_BINS:
            raise RequestError(f"num_bins is {num_bins}. Accepted are 1 to {_MAX_BINS}. Guo et al. use 15.")
        # Edges in float32, as the confidences: a confidence of float32(0.2) lies on the edge 3 / 15.
        self._edges = (np.arange(num_bins + 1) / num_bins).astype(np.float32)
        self._counts = np.zeros((num_bins, 2), np.int64)  # pixels, right ones
        self._confidence = np.zeros(num_bins, np.float64)

    def add(self, confidence: npt.ArrayLike, correct: npt.ArrayLike, counted: npt.ArrayLike | None = None) -> None:
        """Count the pixels of one image, or of a batch.

        Args:
            confidence: probability of the predicted class in [0, 1], float of any shape; taken as float32.
            correct: whether the prediction is right, bool, same shape.
            counted: which pixels count, bool, same shape; None for all. What stands on the others is free.

        Raises:
            RequestError: a shape or type is another, or a counted confidence is not in [0, 1].
        """
        values, right = np.asarray(confidence), np.asarray(correct)
        chosen = np.ones(values.shape, np.bool_) if counted is None else np.asarray(counted)
        _check_arrays(values, right, chosen)
        # A copy for this image alone: a refused image must not leave half of its counts.
        counts, totals = np.zeros_like(self._counts), np.zeros_like(self._confidence)
        flat = [np.ascontiguousarray(a).reshape(-1) for a in (values.astype(np.float32, copy=False), right, chosen)]
        if _compiled_tally()(flat[0], flat[1], flat[2], self._edges, counts, totals):
            raise _range_error(values[chosen])
        self._counts += counts
        self._confidence += totals

    def merge(self, other: Calibration) -> None:
        """Add what another one with as many bins has counted."""
        self._counts += other._counts
        self._confidence += other._confidence

    def result(self) -> CalibrationScores:
        """Return the scores of everything added so far."""
        edges = [m / len(self._counts) for m in range(len(self._counts) + 1)]
        bins = tuple(
            CalibrationBin(
                low=low,
                high=high,
                pixels=pixels,
                confidence=total / pixels if pixels else None,
                accuracy=right / pixels if pixels else None,
            )
            for low, high, (pixels, right), total in zip(
                edges[:-1], edges[1:], self._counts.tolist(), self._confidence.tolist(), strict=True
            )
        )
        gaps = [
            (b.pixels, abs(b.accuracy - b.confidence))
            for b in bins
            if b.accuracy is not None and b.confidence is not None
        ]
        if not gaps:
            return CalibrationScores(ece=None, mce=None, bins=bins)
        ece = math.fsum(pixels * gap for pixels, gap in gaps) / sum(pixels for pixels, _ in gaps)
        return CalibrationScores(ece=ece, mce=max(gap for _, gap in gaps), bins=bins)


def _check_arrays(confidence: npt.NDArray[np.generic], correct: Mask, counted: Mask) -> None:
    if confidence.dtype.kind != "f":
        raise RequestError(
            f"confidence has dtype {confidence.dtype}. Accepted are float probabilities in [0, 1]. "
            "Pass the largest probability of each pixel, not its class or a byte."
        )
    for name, mask in (("correct", correct), ("counted", counted)):
        if mask.shape != confidence.shape or mask.dtype != np.bool_:
            raise RequestError(
                f"{name} has shape {mask.shape} and dtype {mask.dtype}, confidence has shape {confidence.shape}. "
                "Accepted is one bool per confidence. Compare prediction and truth at the same size."
            )


def _range_error(confidence: npt.NDArray[np.floating]) -> RequestError:
    outside = confidence[~((confidence >= 0) & (confidence <= _LARGEST))]
    return RequestError(
        f"confidence holds {outside.size} values outside [0, 1], such as {outside.flat[0]:g}. Accepted are "
        "probabilities. Pass the softmax of the logits, not the logits."
    )


@functools.cache
def _compiled_tally() -> _Loop:
    import numba

    # Typed read-only, so that writable and read-only arrays share one compilation.
    values, masks = (numba.types.Array(t, 1, "C", readonly=True) for t in (numba.float32, numba.boolean))
    signature = numba.int64(values, masks, masks, values, numba.int64[:, ::1], numba.float64[::1])
    return compile_loop(_tally, [signature])


def _tally(
    confidence: Confidences, correct: Mask, counted: Mask, edges: Confidences, counts: Counts, totals: Totals
) -> int:
    """Add (P,) pixels to the counts (M, 2) and the sums of confidence (M,); return how many are out of range."""
    wrong = 0
    last = totals.size - 1
    for i in range(confidence.size):
        if not counted[i]:
            continue
        value = confidence[i]
        if not 0 <= value <= _LARGEST:
            wrong += 1
            continue
        # The product may round up to the next integer, never down past one: the lower edge decides.
        m = min(int(value * np.float32(totals.size)), last)
        if m > 0 and value <= edges[m]:
            m -= 1
        counts[m, 0] += 1
        counts[m, 1] += correct[i]
        totals[m] += value
    return wrong
