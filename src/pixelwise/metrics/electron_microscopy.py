"""Scores of membrane predictions in electron microscopy: the ISBI 2012 challenge, both its rankings.

| score         | what it compares                                                              | ranking   |
|---------------|-------------------------------------------------------------------------------|-----------|
| V_rand        | pairs of pixels in the same cell, after membranes are thinned to lines         | 2015 on   |
| V_info        | information that the cells share, after thinning                               | 2015 on   |
| Rand error    | 1 - F-score of the same pairs, without thinning                                | 2012-2014 |
| warping error | pixels of splits and mergers that no change of outlines explains               | 2012-2014 |
| pixel error   | wrong pixels                                                                   | 2012-2014 |

Symbols: n = pixels of true cells (the membrane of the truth is left out), p_ij = share of n in true cell i and
predicted cell j, u = share of n predicted as membrane (j = 0), where each pixel counts as a cell of its own.
a_i = sum_j p_ij with j = 0, b_j = sum_i p_ij for j > 0, all logarithms are natural:

| name                  | formula                                                                   |
|-----------------------|---------------------------------------------------------------------------|
| SA, SB, SAB           | sum a_i^2; sum b_j^2 + u / n; sum_(j>0) p_ij^2 + u / n                     |
| V_rand                | SAB / (SA / 2 + SB / 2); split part SAB / SA, merge part SAB / SB          |
| HA, HB, HAB           | -sum a ln a; -sum b ln b + u ln n; -sum_(j>0) p ln p + u ln n              |
| V_info                | I / (HA / 2 + HB / 2), I = HA + HB - HAB; split part I / HB, merge I / HA  |

Source: Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for connectomics",
Frontiers in Neuroanatomy 2015; conventions are those of the organisers' Java, fiji/Trainable_Segmentation at
41c7083: `RandError.java` (getMaximalVRandAfterThinning averaged per slice, getForegroundRestrictedRandIndex-
MaximalFScore), `VariationOfInformation.java` (getMaximalVInfoAfterThinning), `WarpingError.java` and
`PixelError.java` (getMinimumMetricValue). Departures are said where they are made.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixelwise.metrics.contingency import Contingency, Counts, contingency_table, label_areas
from pixelwise.metrics.membranes import Mask, Regions, checked_slice, connected_cells, grown_cells, warping_error

# Summed as the original's loop does, so the last is a hair below 1 and keeps the pixels of probability 1.
THRESHOLDS = (0.0, *itertools.accumulate([0.1] * 10))

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PartitionScores:
    """How well predicted cells agree with true cells; all in [0, 1], 1 is best.

    Attributes:
        vrand: the Rand score V_rand.
        vrand_split: low where true cells are cut into pieces.
        vrand_merge: low where predicted cells cover several true ones.
        vinfo: the information score V_info.
        vinfo_split: as `vrand_split`; 1 with a single true cell, 0 with a single predicted cell, both as in
            the original. `vinfo` is 0 then, even for a perfect prediction.
        vinfo_merge: as `vrand_merge`; 0 with a single true cell, 1 with a single predicted cell.
        rand_index: share of the pairs of pixels on which both agree (Rand 1971), n (n - 1) / 2 pairs; 1 for n = 1.
        num_pixels: n, pixels of true cells.
    """

    vrand: float
    vrand_split: float
    vrand_merge: float
    vinfo: float
    vinfo_split: float
    vinfo_merge: float
    rand_index: float
    num_pixels: int


def partition_scores(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> PartitionScores | None:
    """Compare two maps of numbered cells as they are, without thinning.

    Args:
        prediction: (H, W) integer labels, 0 = membrane, whose pixels each count as a cell of their own.
        truth: the same; pixels of 0 are left out.

    Returns:
        The scores; None where the truth holds no cell, which leaves them undefined.

    Raises:
        RequestError: The maps are no label maps, or their shapes differ.

    >>> scores = partition_scores([[1, 1, 2, 2, 0, 3, 3, 3, 3]], [[1, 1, 1, 1, 0, 2, 2, 2, 2]])
    >>> round(scores.vrand, 6), scores.vrand_split, round(scores.vinfo, 6)
    (0.857143, 0.75, 0.8)
    """
    return _partition_scores(_Overlap(contingency_table(prediction, truth)))


class _Overlap:
    """Pixel counts of a contingency inside the true cells.

    Attributes:
        cells: n p_ij for j > 0.
        truth: n a_i.
        prediction: n b_j.
        lone: n u.
        num_pixels: n.
        pair_sums: n^2 (SAB, SA, SB).
    """

    def __init__(self, table: Contingency) -> None:
        inside = table.truth > 0
        of_cell = inside & (table.prediction > 0)
        self.cells = table.pixels[of_cell]
        _, self.truth = label_areas(table.truth[inside], table.pixels[inside])
        _, self.prediction = label_areas(table.prediction[of_cell], self.cells)
        self.num_pixels = int(self.truth.sum())
        self.lone = self.num_pixels - int(self.cells.sum())
        squares = [float(counts @ counts) for counts in (self.cells, self.truth, self.prediction)]
        self.pair_sums = np.array([squares[0] + self.lone, squares[1], squares[2] + self.lone])

    def entropy(self, counts: Counts, lone: int) -> float:
        """Return the entropy of n pixels in parts of the given sizes and `lone` parts of one pixel, in nats."""
        n = self.num_pixels
        return (float(counts @ np.log(n / counts)) + lone * math.log(n)) / n


def _partition_scores(overlap: _Overlap) -> PartitionScores | None:
    n = overlap.num_pixels
    if n == 0:
        return None
    sab, sa, sb = overlap.pair_sums.tolist()
    of_truth = overlap.entropy(overlap.truth, 0)
    of_prediction = overlap.entropy(overlap.prediction, overlap.lone)
    # Rounding may leave a little less than nothing, where the maps have nothing to do with each other.
    shared = max(0.0, of_truth + of_prediction - overlap.entropy(overlap.cells, overlap.lone))
    if of_prediction == 0:
        split, merge = 0.0, 1.0
    elif of_truth == 0:
        split, merge = 1.0, 0.0
    else:
        split, merge = shared / of_prediction, shared / of_truth
    return PartitionScores(
        vrand=2 * sab / (sa + sb),
        vrand_split=sab / sa,
        vrand_merge=sab / sb,
        vinfo=2 * shared / (of_truth + of_prediction) if of_truth and of_prediction else 0.0,
        vinfo_split=split,
        vinfo_merge=merge,
        rand_index=1 - (sa + sb - 2 * sab) / (n * (n - 1)) if n > 1 else 1.0,
        num_pixels=n,
    )


@dataclass(frozen=True, kw_only=True)
class ThresholdScores:
    """Scores at one threshold of the prediction, in [0, 1]; None where not defined or not asked for.

    Attributes:
        threshold: probability above which a pixel is cell.
        vrand: mean over the slices that hold a true cell, as the next five.
        vrand_split: see `PartitionScores`.
        vrand_merge: see `PartitionScores`.
        vinfo: see `PartitionScores`.
        vinfo_split: see `PartitionScores`.
        vinfo_merge: see `PartitionScores`.
        rand_error: 1 - SAB / (SA / 2 + SB / 2) without thinning; numerator and denominator, times n^2, are
            summed over the slices, so large cells of any slice count most.
        pixel_error: share of wrong pixels, mean over the slices.
        warping_error: see `warping_error`, mean over the slices.
    """

    threshold: float
    vrand: float | None
    vrand_split: float | None
    vrand_merge: float | None
    vinfo: float | None
    vinfo_split: float | None
    vinfo_merge: float | None
    rand_error: float | None
    pixel_error: float | None
    warping_error: float | None


_PARTITION = ("vrand", "vrand_split", "vrand_merge", "vinfo", "vinfo_split", "vinfo_merge")
_BEST_IS_MOST = {"vrand": True, "vinfo": True, "rand_error": False, "pixel_error": False, "warping_error": False}


@dataclass(frozen=True, kw_only=True)
class MembraneScores:
    """Scores of a stack; each measure at its own best threshold.

    Attributes:
        best: row of the best threshold by measure ("vrand", "vinfo", "rand_error", "pixel_error",
            "warping_error"), the lowest threshold on ties; measures that are not defined are missing.
        per_threshold: the rows of all thresholds, in ascending order.
        num_slices: slices added.
        num_slices_with_cells: slices that hold a true cell: those that count in V_rand, V_info and Rand error.
    """

    best: Mapping[str, ThresholdScores]
    per_threshold: tuple[ThresholdScores, ...]
    num_slices: int
    num_slices_with_cells: int

    def to_json(self) -> dict[str, object]:
        """Return plain dicts, lists and numbers; None where not defined."""
        metrics = {measure: getattr(self.best.get(measure), measure, None) for measure in _BEST_IS_MOST}
        parts = {f"{m}_{part}": m for m in ("vrand", "vinfo") for part in ("split", "merge")}
        return {
            "metrics": metrics | {part: getattr(self.best.get(m), part, None) for part, m in parts.items()},
            "best_thresholds": {measure: row.threshold for measure, row in self.best.items()},
            "per_threshold": [vars(row) for row in self.per_threshold],
            "num_slices": self.num_slices,
            "num_slices_with_cells": self.num_slices_with_cells,
        }


class MembraneTally:
    """Scores of membranes, summed over slices, at the 11 thresholds 0, 0.1 ... 1 of the current ranking.

    U-Net's paper speaks of 10 thresholds and does not name them. A prediction of 0 and 1 only has the same scores
    at each threshold (the warping error aside, which goes by the distance from it). In the original one slice
    without a true cell makes V_info of the whole stack undefined and counts as V_rand 0; here such a slice
    counts in the pixel and warping error only.

    Args:
        with_warping_error: also warp each slice at each threshold; takes several times the time of the rest.

    >>> tally = MembraneTally()
    >>> tally.add(np.array([[0.9, 0.25, 0.8]]), np.array([[True, False, True]]))
    >>> best = tally.result().best["vrand"]
    >>> round(best.threshold, 1), best.vrand
    (0.3, 1.0)
    """

    def __init__(self, *, with_warping_error: bool = False) -> None:
        self._with_warping_error = with_warping_error
        self._num_slices = self._num_slices_with_cells = 0
        self._partition = np.zeros((len(THRESHOLDS), len(_PARTITION)))
        self._pairs = np.zeros((len(THRESHOLDS), 3))
        self._pixel_error, self._warping_error = np.zeros((2, len(THRESHOLDS)))

    def add(self, interior_probability: npt.ArrayLike, truth_interior: npt.ArrayLike) -> None:
        """Compare one slice.

        Args:
            interior_probability: (H, W), probability of being inside a cell, in [0, 1]; taken as float32, as
                in image files. A map of 0 and 1 may be bool or integer. Above the threshold is cell.
            truth_interior: (H, W) bool, True inside of cells. Sizes may differ from slice to slice.

        Raises:
            RequestError: An array is not of that kind, or the shapes differ.
        """
        probability, truth = checked_slice(interior_probability, truth_interior)
        columns = np.ascontiguousarray(probability.T, np.float64)  # (W, H)
        true_columns = np.ascontiguousarray(truth.T)
        true_cells = connected_cells(true_columns)
        num_interior = -1
        for index, threshold in enumerate(THRESHOLDS):
            interior = columns > threshold
            # Maps of rising thresholds only lose pixels: with the same number they are the same.
            if num_interior != (num_interior := int(np.count_nonzero(interior))):
                values, pairs = _compare(interior, true_cells)
                wrong = np.count_nonzero(interior != true_columns) / interior.size
            self._partition[index] += values
            self._pairs[index] += pairs
            self._pixel_error[index] += wrong
            if self._with_warping_error:
                self._warping_error[index] += warping_error(probability, truth, threshold)
        self._num_slices += 1
        self._num_slices_with_cells += bool(truth.any())

    def result(self) -> MembraneScores:
        """Return the scores of everything added so far: means over the slices, and their best thresholds."""
        rows = tuple(self._row(index) for index in range(len(THRESHOLDS)))
        best = {}
        for measure, most in _BEST_IS_MOST.items():
            values = [getattr(row, measure) for row in rows]
            if None not in values:
                best[measure] = rows[values.index(max(values) if most else min(values))]
        return MembraneScores(
            best=best,
            per_threshold=rows,
            num_slices=self._num_slices,
            num_slices_with_cells=self._num_slices_with_cells,
        )

    def _row(self, index: int) -> ThresholdScores:
        partition: dict[str, float | None] = dict.fromkeys(_PARTITION)
        rand_error = None
        if self._num_slices_with_cells:
            means = self._partition[index] / self._num_slices_with_cells
            partition = dict(zip(_PARTITION, means.tolist(), strict=True))
            sab, sa, sb = self._pairs[index].tolist()
            rand_error = 1 - 2 * sab / (sa + sb)
        errors = [self._pixel_error[index], self._warping_error[index]]
        pixel_error, warping = (float(error) / self._num_slices if self._num_slices else None for error in errors)
        return ThresholdScores(
            threshold=THRESHOLDS[index],
            **partition,
            rand_error=rand_error,
            pixel_error=pixel_error,
            warping_error=warping if self._with_warping_error else None,
        )


def _compare(interior: Mask, true_cells: Regions) -> tuple[Floats, Floats]:
    """Return the values of _PARTITION after thinning, and the pair sums without; both of transposed maps (W, H)."""
    cells = connected_cells(interior)
    scores = _partition_scores(_Overlap(contingency_table(grown_cells(cells), true_cells)))
    values = [getattr(scores, name) if scores else 0.0 for name in _PARTITION]
    return np.array(values), _Overlap(contingency_table(cells, true_cells)).pair_sums
