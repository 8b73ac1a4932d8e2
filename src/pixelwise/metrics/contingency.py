"""How many pixels two label maps share, label by label: the basis of the scores of objects and regions.

A label map gives each pixel the number of its object or region. Unlike class ids the numbers of two maps have
nothing to do with each other, and there may be thousands; of all pairs only few share a pixel, so the table
is kept as a list of its non-zero cells.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from pixelwise.errors import RequestError
from pixelwise.metrics.compiled import compile_loop

Labels: TypeAlias = npt.NDArray[np.integer]
Counts: TypeAlias = npt.NDArray[np.int64]

# Slots of the first hash table: half of them are filled at most, two maps of EM slices need about a thousand.
_SLOTS = 1 << 13
_BLOCK = 4096
# Labels below it are summed in a table, which is faster than sorting them.
_DENSE_LABELS = 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Contingency:
    """The non-zero cells of the table of shared pixels, in the order in which the rows of the maps meet them.

    Attributes:
        truth: (M,) int64, label in the true map.
        prediction: (M,) int64, label in the predicted map.
        pixels: (M,) int64, pixels that have both labels, above 0.
    """

    truth: Counts
    prediction: Counts
    pixels: Counts


def contingency_table(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> Contingency:
    """Count the pixels of every pair of labels.

    Args:
        prediction: (H, W) labels, integer or bool, from 0.
        truth: the same.

    Returns:
        The pairs that occur; none for maps without pixels. Label 0 is counted like the others.

    Raises:
        RequestError: A map is not two-dimensional or not integer, a label is negative, or the shapes differ.

    >>> table = contingency_table([[1, 1, 2]], [[7, 0, 0]])
    >>> table.truth.tolist(), table.prediction.tolist(), table.pixels.tolist()
    ([7, 0, 0], [1, 1, 2], [1, 1, 1])
    """
    predicted, true = label_map("prediction", prediction), label_map("truth", truth)
    if predicted.shape != true.shape:
        raise RequestError(
            f"prediction has shape {predicted.shape} and truth has shape {true.shape}. Both must be equal. "
            "Bring the prediction to the size of the truth before counting."
        )
    narrow = all(labels.dtype.itemsize < 4 or labels.dtype == np.int32 for labels in (predicted, true))
    dtype = np.int32 if narrow else np.int64
    flat_truth, flat_prediction = (_flat(labels, dtype) for labels in (true, predicted))
    cells = np.empty((0, 3), np.int64)
    slots = _SLOTS
    while true.size and not cells.size:
        cells = _compiled_tally()(flat_truth, flat_prediction, slots)
        slots *= 8
    for name, given, column in (("truth", true, 0), ("prediction", predicted, 1)):
        if cells.size and cells[:, column].min() < 0:
            raise _negative_error(name, given)
    return Contingency(truth=cells[:, 0].copy(), prediction=cells[:, 1].copy(), pixels=cells[:, 2].copy())


def label_areas(labels: Counts, pixels: Counts) -> tuple[Counts, Counts]:
    """Sum the pixels of equal labels: one column of a contingency (M,) -> labels (N,) ascending, areas (N,)."""
    if labels.size and labels.max() < _DENSE_LABELS:
        by_label = np.bincount(labels, pixels).astype(np.int64)
        found = np.flatnonzero(by_label)
        return found, by_label[found]
    found, index = np.unique(labels, return_inverse=True)
    return found, np.bincount(index, pixels).astype(np.int64)


def _flat(labels: Labels, dtype: type[np.integer]) -> Labels:
    return cast(Labels, np.ascontiguousarray(labels, dtype).reshape(-1))


def label_map(name: str, labels: npt.ArrayLike) -> Labels:
    """Return the map as an array, or say why it is none: two axes and whole numbers are accepted."""
    array = np.asarray(labels)
    if array.ndim != 2 or array.dtype.kind not in "iub":
        raise RequestError(
            f"{name} has shape {array.shape} and dtype {array.dtype}. Accepted is one map (H, W) of whole numbers. "
            "Give one slice with one label per pixel, not probabilities or a stack of masks."
        )
    return array


def _negative_error(name: str, labels: Labels) -> RequestError:
    wrong = labels[(labels < 0) | (labels > np.iinfo(np.int64).max)]
    return RequestError(
        f"{name} holds the label {int(wrong[0])} ({wrong.size} pixel{'s' if wrong.size > 1 else ''} out of range). "
        "Accepted are labels from 0 (membrane or background) to 2^63 - 1. Set ignored pixels to 0."
    )


@functools.cache
def _compiled_tally() -> Callable[[Labels, Labels, int], Counts]:
    import numba

    # Typed read-only, so that writable and read-only arrays share one compilation.
    kinds = [numba.types.Array(label, 1, "C", readonly=True) for label in (numba.int32, numba.int64)]
    return compile_loop(_tally, [numba.int64[:, ::1](labels, labels, numba.int64) for labels in kinds])


def _tally(truth: Labels, prediction: Labels, num_slots: int) -> Counts:
    """Count label pairs; (P,) twice, P > 0 -> (M, 3) int64 rows (truth, prediction, pixels).

    Neighbouring pixels mostly have the same pair, so whole runs are added; where runs start is found without
    a branch, block by block. The table is open-addressed with `num_slots` slots, a power of two; without a
    free one the result has no rows.
    """
    slots = np.full(num_slots, -1, np.int32)
    cells = np.empty((num_slots // 2, 3), np.int64)
    # Odd constants (golden ratio, MurmurHash3) carry small labels into the upper half, which is used.
    first, second, shift = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(32)
    last = num_slots - 1
    ends = np.empty(_BLOCK + 1, np.int64)
    used = start = 0
    for block in range(1, truth.size + 1, _BLOCK):
        true, predicted = truth[block - 1 : block + _BLOCK], prediction[block - 1 : block + _BLOCK]
        runs = 0
        for i in range(true.size - 1):
            ends[runs] = block + i
            runs += (true[i] != true[i + 1]) | (predicted[i] != predicted[i + 1])
        if block + _BLOCK > truth.size:
            ends[runs] = truth.size
            runs += 1
        for end in ends[:runs]:
            t, p = truth[start], prediction[start]
            slot = np.int64((np.uint64(t) * first ^ np.uint64(p) * second) >> shift) & last
            while slots[slot] >= 0 and (cells[slots[slot], 0] != t or cells[slots[slot], 1] != p):
                slot = (slot + 1) & last
            if slots[slot] < 0:
                if used == len(cells):
                    return cells[:0]
                slots[slot] = used
                cells[used, 0], cells[used, 1], cells[used, 2] = t, p, 0
                used += 1
            cells[slots[slot], 2] += end - start
            start = end
    return cells[:used]
