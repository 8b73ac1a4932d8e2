"""Scores of label maps from one confusion matrix summed over the whole data set.

Symbols of the formulas, as in Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic
Segmentation", CVPR 2015, section 5: n_ij is the number of pixels of true class i predicted as class j,
t_i = sum_j n_ij, p_j = sum_i n_ij, K the number of classes.

| score              | formula                           |
|--------------------|-----------------------------------|
| pixel accuracy     | sum_i n_ii / sum_i t_i            |
| class accuracy i   | n_ii / t_i                        |
| IoU i              | n_ii / (t_i + p_i - n_ii)         |
| Dice (F1) i        | 2 n_ii / (t_i + p_i)              |
| mean accuracy, IoU | mean over the classes             |
| fwIoU              | sum_i t_i IoU_i / sum_i t_i       |

Matrices of several images or batches add up: `total += confusion_matrix(...)` in int64, then one call of
`semantic_scores(total, ...)`. Averaging scores of batches is a different number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pixelwise.errors import RequestError, WorkError

Labels: TypeAlias = npt.NDArray[np.integer | np.bool_]
Counts: TypeAlias = npt.NDArray[np.int64]
_Tally: TypeAlias = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint8], int, int, int], Counts]

_MAX_CLASSES = 65535
# (K + 2) * (K + 1) codes must fit into 16 bits, and the label K + 1 into 8.
_MAX_BYTE_CLASSES = 254
# The counters of the compiled loop have 32 bits; one call sees fewer pixels than they can count.
_PIXELS_PER_CALL = 2**31
_BLOCK = 4096
_NAMED_VALUES = 3


def confusion_matrix(
    prediction: npt.ArrayLike, truth: npt.ArrayLike, num_classes: int, ignore_index: int | None = None
) -> Counts:
    """Count how often each true class was predicted as each class.

    Args:
        prediction: predicted class ids, any shape, integer or bool. What stands on ignored pixels is free.
        truth: true class ids, same shape, integer or bool.
        num_classes: K, 1 to 65535. The loop for up to 254 classes is compiled at its first use, which takes
            about a second; later processes read it from numba's cache in 0.3 s.
        ignore_index: truth value of the pixels to leave out; any integer, also one of the class ids.

    Returns:
        (K, K) int64, rows are the truth, columns the prediction. All zero where no pixel counts.

    Raises:
        RequestError: shapes differ, an array is not integer, or a counted pixel holds no class id.
        WorkError: K * K counts do not fit into the memory (K = 65535 takes 32 GiB of address space).

    >>> confusion_matrix([[0, 1], [1, 1]], [[0, 1], [0, 255]], num_classes=2, ignore_index=255).tolist()
    [[1, 1], [0, 1]]
    """
    predicted = _label_array("prediction", prediction)
    true = _label_array("truth", truth)
    if predicted.shape != true.shape:
        raise RequestError(
            f"prediction has shape {predicted.shape} and truth has shape {true.shape}. Both must be equal: "
            "one class id per pixel. Bring the prediction to the size of the truth before counting."
        )
    if not 1 <= num_classes <= _MAX_CLASSES:
        raise RequestError(
            f"num_classes is {num_classes}. Accepted are 1 to {_MAX_CLASSES}. "
            "Pass the number of classes of the data set."
        )
    if num_classes > _MAX_BYTE_CLASSES:
        return _count_many_classes(predicted, true, num_classes, ignore_index)
    return _count_byte_classes(predicted, true, num_classes, ignore_index)


def _label_array(name: str, labels: npt.ArrayLike) -> Labels:
    array = np.asarray(labels)
    if array.dtype.kind not in "iub":
        raise RequestError(
            f"{name} has dtype {array.dtype}. Accepted are integer and bool arrays of class ids. "
            "Take the argmax of scores over the class axis, or convert the array to an integer type."
        )
    return array


def _count_byte_classes(prediction: Labels, truth: Labels, num_classes: int, ignore_index: int | None) -> Counts:
    """Count with the compiled loop; (K, K) int64 for K up to 254."""
    true, ignored = _to_bytes(truth, num_classes, ignore_index)
    predicted, _ = _to_bytes(prediction, num_classes, None)
    # More tables serve label maps with long runs, fewer stay in the cache: measured at K = 21 to 254.
    num_tables = 8 if num_classes <= 32 else 4 if num_classes <= 160 else 2
    tally = _compiled_tally()
    counts = np.zeros((num_classes + 2, num_classes + 1), np.int64)
    for start in range(0, true.size, _PIXELS_PER_CALL):
        span = slice(start, start + _PIXELS_PER_CALL)
        counts += tally(true[span], predicted[span], num_classes, ignored, num_tables).reshape(counts.shape)
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        counts[ignore_index] = 0
    if counts[num_classes + 1].any() or counts[:num_classes, num_classes].any():
        raise _no_class_error(prediction, truth, num_classes, ignore_index)
    return counts[:num_classes, :num_classes].copy()


def _to_bytes(labels: Labels, num_classes: int, ignore_index: int | None) -> tuple[npt.NDArray[np.uint8], int]:
    """Flatten to (P,) uint8 and return with it the byte that means ignored, 0 where none does.

    Values that are no class stay none: those beyond a byte become K + 1. The loop looks for the
    ignored byte among the non-classes only, so 0 never matches.
    """
    flat = np.ascontiguousarray(labels).reshape(-1)
    if flat.dtype == np.uint8 or flat.size == 0 or (flat.min() >= 0 and flat.max() <= 255):
        ignored = ignore_index if ignore_index is not None and 0 <= ignore_index <= 255 else 0
        return flat.astype(np.uint8, copy=False), ignored
    codes = np.where((flat >= 0) & (flat < num_classes), flat, num_classes + 1).astype(np.uint8)
    if ignore_index is not None and not 0 <= ignore_index < num_classes:
        codes[flat == ignore_index] = num_classes
    return codes, num_classes


@functools.cache
def _compiled_tally() -> _Tally:
    """Compile `_tally`; at first use, since importing numba and compiling take a second or more."""
    import numba

    # Typed read-only, so that writable and read-only arrays share one compilation.
    labels = numba.types.Array(numba.uint8, 1, "C", readonly=True)
    signature = numba.int64[::1](labels, labels, numba.int64, numba.int64, numba.int64)
    try:
        tally: _Tally = numba.njit(signature, cache=True, nogil=True)(_tally)
    except (RuntimeError, OSError):
        # No folder for the cache can be written: read-only install and home. Compile per process.
        tally = numba.njit(signature, nogil=True)(_tally)
    return tally


def _tally(
    truth: npt.NDArray[np.uint8],
    prediction: npt.NDArray[np.uint8],
    num_classes: int,
    ignored: int,
    num_tables: int,
) -> Counts:
    """Count label pairs; (P,) uint8 twice -> ((K + 2) * (K + 1),) int64.

    Rows are the true classes, ignored, no class; columns the predicted classes, no class: one pass counts,
    ignores and checks. Two loops over cached blocks, since only the first vectorises. Neighbouring pixels
    mostly hit the same counter and would wait for its last store; separate tables avoid the wait.
    """
    cells = (num_classes + 2) * (num_classes + 1)
    tables = np.zeros(num_tables * cells, np.uint32)
    codes = np.empty(_BLOCK, np.uint16)
    # Narrow types and slices without an offset are what lets the compiler use whole vectors.
    limit, width = np.uint8(num_classes), np.uint16(num_classes + 1)
    no_class, ignored_byte = np.uint8(num_classes + 1), np.uint8(ignored)
    stride, last_table, one = np.uint64(cells), np.uint64(num_tables - 1), np.uint32(1)
    for start in range(0, truth.size, _BLOCK):
        true, predicted = truth[start : start + _BLOCK], prediction[start : start + _BLOCK]
        for i in range(true.size):
            t, p = true[i], predicted[i]
            row = t if t < limit else (limit if t == ignored_byte else no_class)
            column = p if p < limit else limit
            codes[i] = np.uint16(np.uint16(row) * width) + np.uint16(column)
        whole = true.size // 8 * 8
        for i in range(0, whole, 8):
            for j in range(8):
                tables[np.uint64(codes[i + j]) + (np.uint64(j) & last_table) * stride] += one
        for i in range(whole, true.size):
            tables[np.uint64(codes[i])] += one
    counts = np.zeros(cells, np.int64)
    for table in range(num_tables):
        for cell in range(cells):
            counts[cell] += tables[table * cells + cell]
    return counts


def _count_many_classes(prediction: Labels, truth: Labels, num_classes: int, ignore_index: int | None) -> Counts:
    """Count with numpy in 64-bit codes; (K, K) int64 for any K."""
    counted = _counted_pixels(truth, ignore_index)
    true, predicted = truth[counted], prediction[counted]
    for values in (true, predicted):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise _no_class_error(prediction, truth, num_classes, ignore_index)
    try:
        matrix = np.zeros((num_classes, num_classes), np.int64)
    except MemoryError as error:
        raise WorkError(
            f"A confusion matrix of num_classes={num_classes} takes {num_classes**2 * 8 / 2**30:.1f} GiB. "
            "It must fit into the free memory. Merge classes, or use a machine with more memory."
        ) from error
    codes = true.astype(np.int64) * num_classes + predicted.astype(np.int64)
    # Adds in place: pages of the matrix that no pixel hits are never touched, bincount would write all.
    np.add.at(matrix.reshape(-1), codes, 1)
    return matrix


def _counted_pixels(truth: Labels, ignore_index: int | None) -> npt.NDArray[np.bool_]:
    if ignore_index is None:
        return np.ones(truth.shape, np.bool_)
    return np.asarray(truth != ignore_index, np.bool_)


def _no_class_error(prediction: Labels, truth: Labels, num_classes: int, ignore_index: int | None) -> RequestError:
    """Name the values on counted pixels that are no class, of the truth first, the most frequent first."""
    counted = _counted_pixels(truth, ignore_index)
    of_truth, of_prediction = (
        values[(values < 0) | (values >= num_classes)] for values in (truth[counted], prediction[counted])
    )
    name, wrong = ("truth", of_truth) if of_truth.size else ("prediction", of_prediction)
    found, pixels = np.unique(wrong, return_counts=True)
    frequent = sorted(zip((-pixels).tolist(), found.tolist(), strict=True))[:_NAMED_VALUES]
    listed = [f"{value} ({-count} pixel{'s' if count < -1 else ''})" for count, value in frequent]
    more = f" and {found.size - len(listed)} more values" if found.size > len(listed) else ""
    accepted = f"0 to {num_classes - 1} (num_classes={num_classes})"
    if name == "truth":
        accepted += f" and ignore_index={ignore_index}"
        advice = "Map these values to classes, or pass as ignore_index the one of the pixels to leave out."
    else:
        advice = "Predict only these classes, or check that the model and the data agree on num_classes."
    return RequestError(f"{name} holds {', '.join(listed)}{more} on counted pixels. Accepted are {accepted}. {advice}")


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of one class; a score that is not defined is None.

    Attributes:
        name: the class.
        iou: in [0, 1]; 0 for a class absent from the truth but predicted; None or 0, as `absent` says,
            for a class absent from truth and prediction.
        accuracy: share of the true pixels found, in [0, 1]; None for a class absent from the truth.
        dice: in [0, 1], None where `iou` is.
        truth_pixels: counted pixels of this class in the truth.
        predicted_pixels: counted pixels predicted as this class.
        note: "absent from the truth" (then `predicted_pixels` says whether it was predicted), "never
            predicted", "predicted but never right", or "" for a class with a right pixel.
    """

    name: str
    iou: float | None
    accuracy: float | None
    dice: float | None
    truth_pixels: int
    predicted_pixels: int
    note: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SemanticScores:
    """Scores of a data set; all means are None where no pixel was counted.

    Attributes:
        pixel_accuracy: share of right pixels, in [0, 1].
        mean_accuracy: mean class accuracy over the classes present in the truth, in [0, 1].
        miou: mean IoU over the classes, in [0, 1].
        fwiou: IoU weighted by the true pixels of the class, in [0, 1].
        per_class: one entry per class, by class id.
        confusion: (K, K) int64, rows are the truth.
    """

    pixel_accuracy: float | None
    mean_accuracy: float | None
    miou: float | None
    fwiou: float | None
    per_class: tuple[ClassScores, ...]
    confusion: Counts

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers under the names of the report; None where not defined."""
        return {
            "metrics": {
                "miou": self.miou,
                "pixel_accuracy": self.pixel_accuracy,
                "mean_accuracy": self.mean_accuracy,
                "fwiou": self.fwiou,
            },
            "per_class": {c.name: {k: v for k, v in vars(c).items() if k != "name"} for c in self.per_class},
            "confusion_matrix": self.confusion.tolist(),
        }


def semantic_scores(
    confusion: npt.ArrayLike, class_names: Sequence[str], *, absent: Literal["skip", "zero"] = "skip"
) -> SemanticScores:
    """Turn one confusion matrix into scores.

    Args:
        confusion: (K, K) integer, rows are the truth, summed over the whole data set.
        class_names: K different names, by class id.
        absent: what a class absent from truth and prediction adds to the mean IoU: "skip" leaves it out,
            "zero" counts IoU and Dice 0, as the scripts of ADE20K and PSPNet do. Mean accuracy always
            leaves out classes that are absent from the truth (PSPNet's script counts them 0).

    Returns:
        The scores, fractions in [0, 1]; None where not defined.

    Raises:
        RequestError: the matrix is not square, integer and non-negative, or the names do not fit it.

    >>> scores = semantic_scores([[6, 2, 0], [1, 7, 0], [0, 0, 0]], ["sky", "road", "car"])
    >>> round(scores.miou, 6), scores.per_class[2].iou, scores.per_class[2].note
    (0.683333, None, 'absent from the truth')
    """
    matrix = _checked_confusion(confusion, class_names, absent)
    total = int(matrix.sum())
    iou_if_absent = 0.0 if absent == "zero" and total else None
    hits, truth, predicted = (n.tolist() for n in (matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)))
    per_class = tuple(
        _class_scores(*row, iou_if_absent) for row in zip(class_names, hits, truth, predicted, strict=True)
    )
    weighted = [c.truth_pixels * c.iou for c in per_class if c.iou is not None]
    return SemanticScores(
        pixel_accuracy=_ratio(sum(hits), total),
        mean_accuracy=_mean([c.accuracy for c in per_class]),
        miou=_mean([c.iou for c in per_class]),
        fwiou=_ratio(math.fsum(weighted), total),
        per_class=per_class,
        confusion=matrix,
    )


def _checked_confusion(confusion: npt.ArrayLike, class_names: Sequence[str], absent: str) -> Counts:
    """Return a (K, K) int64 copy of the matrix, or say what is wrong with the arguments."""
    matrix = np.asarray(confusion)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "iu":
        raise RequestError(
            f"confusion has shape {matrix.shape} and dtype {matrix.dtype}. Accepted is a square integer "
            "matrix, rows = truth. Pass the sum of confusion_matrix(...) over the images."
        )
    if matrix.size and matrix.min() < 0:
        raise RequestError(
            f"confusion holds the count {matrix.min()}. Counts are 0 or more. Sum the matrices in int64."
        )
    if len(class_names) != len(matrix):
        raise RequestError(
            f"class_names has {len(class_names)} names and confusion has {len(matrix)} classes. Both must "
            "be equal. Pass one name per class id."
        )
    if len(set(class_names)) != len(class_names):
        twice = sorted({repr(name) for name in class_names if list(class_names).count(name) > 1})
        raise RequestError(
            f"class_names holds {', '.join(twice)} more than once. Each name stands for one class. "
            "Rename or merge these classes."
        )
    if absent not in ("skip", "zero"):
        raise RequestError(f"absent is {absent!r}. Accepted are 'skip' and 'zero'. Choose one of them.")
    return matrix.astype(np.int64)


def _class_scores(
    name: str, hits: int, truth_pixels: int, predicted_pixels: int, iou_if_absent: float | None
) -> ClassScores:
    pixels = truth_pixels + predicted_pixels
    if truth_pixels == 0:
        note = "absent from the truth"
    elif predicted_pixels == 0:
        note = "never predicted"
    else:
        note = "" if hits else "predicted but never right"
    return ClassScores(
        name=name,
        iou=_ratio(hits, pixels - hits) if pixels else iou_if_absent,
        accuracy=_ratio(hits, truth_pixels),
        dice=_ratio(2 * hits, pixels) if pixels else iou_if_absent,
        truth_pixels=truth_pixels,
        predicted_pixels=predicted_pixels,
        note=note,
    )


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the defined values; the exact sum makes it independent of the order of the classes."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None
