"""Scores near class borders: bands around them, and Boundary IoU.

| score        | what is counted                                                                          |
|--------------|------------------------------------------------------------------------------------------|
| bands        | pixels within a Euclidean distance of a truth border, and the pixels beyond it           |
| Boundary IoU | per class, the pixels of truth and of prediction that lie near the outline of their mask |

Sources: the bands are the trimaps of Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and
Fully Connected CRFs", ICLR 2015, and, at 7 pixels, the boundary and interior of Peng et al., "Large Kernel
Matters", CVPR 2017. Boundary IoU: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021; github.com/bowenc0221/boundary-iou-api, commit 37d2558.

Ignored pixels are never counted and the prediction is free on them: it is taken as ignored there, too. A border
to them is a border like any other, since data sets such as VOC mark borders by ignored pixels.

The F1 score of outlines is in `boundary_f1`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from pixelwise.errors import RequestError
from pixelwise.metrics.semantic import Counts, SemanticScores, confusion_matrix, semantic_scores

ClassMap: TypeAlias = npt.NDArray[np.uint8 | np.uint16]
Mask: TypeAlias = npt.NDArray[np.bool_]

# The largest number of classes whose ids, with K for none, fit into 8 bits.
_MAX_BYTE_CLASSES = 255


def class_maps(
    prediction: npt.ArrayLike,
    truth: npt.ArrayLike,
    num_classes: int,
    ignore_index: int | None,
    *,
    score_ignored: bool = False,
) -> tuple[ClassMap, ClassMap]:
    """Check one image and return its maps with K for "no class".

    Args:
        prediction: (H, W) integer or bool, class ids.
        truth: (H, W) integer or bool, class ids and `ignore_index`.
        num_classes: K.
        ignore_index: truth value of the pixels to leave out.
        score_ignored: keep what was predicted on ignored pixels; values that are no class become K there.

    Returns:
        Prediction and truth, (H, W) uint8, from 256 classes on uint16; new arrays.

    Raises:
        RequestError: as `confusion_matrix`, and for arrays that are no image.
    """
    confusion_matrix(prediction, truth, num_classes, ignore_index)  # checks types, shapes and values
    predicted, true = np.asarray(prediction), np.asarray(truth)
    if true.ndim != 2 or true.size == 0:
        raise RequestError(
            f"truth has shape {true.shape}. Accepted is one image (H, W) of at least one pixel. "
            "Add the images one by one."
        )
    dtype = np.dtype(np.uint8 if num_classes <= _MAX_BYTE_CLASSES else np.uint16)
    maps: tuple[ClassMap, ClassMap] = predicted.astype(dtype), true.astype(dtype)
    if ignore_index is not None:
        ignored = true == ignore_index
        maps[0][(predicted < 0) | (predicted >= num_classes) if score_ignored else ignored] = num_classes
        maps[1][ignored] = num_classes
    return maps


def empty_confusion(num_classes: int) -> Counts:
    """Return (K, K) zeros, or refuse K as `confusion_matrix` does."""
    nothing = np.zeros(0, np.uint8)
    return confusion_matrix(nothing, nothing, num_classes)


def diagonal(labels: ClassMap) -> float:
    """Return the length of the image diagonal in pixels: of its sides, not from pixel centre to pixel centre."""
    height, width = labels.shape
    return math.sqrt(height**2 + width**2)


def border_pixels(labels: ClassMap) -> Mask:
    """Mark the pixels that have one of another label above, below, left or right; (H, W) -> (H, W) bool.

    Both sides of a border are marked; the edge of the image is no border.
    """
    border = np.zeros(labels.shape, np.bool_)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border


@dataclass(frozen=True, kw_only=True, eq=False)
class BandScores:
    """Scores on the two sides of one distance from the truth borders.

    Attributes:
        distance: in pixels.
        within: scores of the pixels at most that far from a border (trimap, boundary region).
        beyond: scores of all others (interior).
    """

    distance: float
    within: SemanticScores
    beyond: SemanticScores


class BoundaryBands:
    """Scores near to and far from truth borders, from confusion matrices summed over the data set.

    Border pixels are those on both sides of a change of label (4-neighbours, a change to ignored pixels included)
    and have the distance 0. Predicted borders play no part.

    Args:
        num_classes: K.
        ignore_index: truth value of the pixels to leave out.
        distances: Euclidean distances in pixels, increasing. One of 7 gives the split of Peng et al. into
            boundary and interior, a range of them the trimap curve of Chen et al.

    >>> bands = BoundaryBands(2, distances=(0,))
    >>> bands.add([[0, 0, 0, 1]], [[0, 0, 1, 1]])
    >>> bands.result(["sky", "road"])[0].within.pixel_accuracy
    0.5
    """

    def __init__(
        self, num_classes: int, *, ignore_index: int | None = None, distances: Sequence[float] = (7.0,)
    ) -> None:
        ordered = all(near < far for near, far in itertools.pairwise(distances))
        if not (ordered and distances and distances[0] >= 0):
            raise RequestError(
                f"distances is {tuple(distances)}. Accepted is at least one distance in pixels, 0 or more, each "
                "larger than the one before. Sort them and name each once."
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.distances = tuple(float(distance) for distance in distances)
        self._total = empty_confusion(num_classes)
        # Disjoint rings: pixels beyond one distance and within the next.
        self._rings = np.zeros((len(self.distances), *self._total.shape), np.int64)

    def add(self, prediction: npt.ArrayLike, truth: npt.ArrayLike) -> None:
        """Count one image; both (H, W), integer or bool."""
        predicted, true = class_maps(prediction, truth, self.num_classes, self.ignore_index)
        # Without any border pixel OpenCV answers 1.8e19 everywhere: all is beyond.
        far = cv2.distanceTransform((~border_pixels(true)).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # Squared distances are whole numbers, which takes the rounding of OpenCV's square root away.
        squared = np.rint(np.square(far, dtype=np.float64))
        self._total += confusion_matrix(predicted, true, self.num_classes, self.num_classes)
        inner = np.zeros(far.shape, np.bool_)
        for ring, distance in zip(self._rings, self.distances, strict=True):
            within = squared <= distance**2 * (1 + 1e-9)
            ring += confusion_matrix(
                predicted[within & ~inner], true[within & ~inner], self.num_classes, self.num_classes
            )
            inner = within

    def merge(self, other: BoundaryBands) -> None:
        """Add what another one of the same classes and distances has counted."""
        self._total += other._total
        self._rings += other._rings

    def result(self, class_names: Sequence[str]) -> tuple[BandScores, ...]:
        """Return the scores of everything added so far, one entry per distance."""
        return tuple(
            BandScores(
                distance=distance,
                within=semantic_scores(within, class_names),
                beyond=semantic_scores(self._total - within, class_names),
            )
            for distance, within in zip(self.distances, self._rings.cumsum(axis=0), strict=True)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundaryIoUScores:
    """Boundary IoU of a data set.

    Attributes:
        boundary_iou: mean over the classes that have a band in truth or prediction, in [0, 1]; None without any.
        per_class: by class id, in [0, 1]; None for a class without a band anywhere.
        intersection: (K,) int64, pixels in both bands of the class.
        union: (K,) int64, pixels in one of them or both.
    """

    boundary_iou: float | None
    per_class: tuple[float | None, ...]
    intersection: Counts
    union: Counts


class BoundaryIoU:
    """Boundary IoU of each class, from bands summed over the data set.

    The band of a mask holds its pixels within a chessboard distance d of a pixel that is not of the mask; beyond the
    edge of the image nothing is. d is `dilation_ratio` times the image diagonal, rounded, at least 1 pixel. Bands are
    equal, bit for bit, to those of the original code. That scores single objects; here the bands of a class are
    compared as a whole, and intersections and unions are summed over all images before they are divided, as for
    the mean IoU. A class that is predicted but not in the truth has the IoU 0.

    Args:
        num_classes: K.
        ignore_index: truth value of the pixels to leave out.
        dilation_ratio: width of the band as a share of the image diagonal, above 0 and at most 1.

    >>> scored = BoundaryIoU(2)
    >>> scored.add([[0, 0, 0, 1]], [[0, 0, 1, 1]])
    >>> [round(iou, 3) for iou in scored.result().per_class]
    [0.667, 0.5]
    """

    def __init__(self, num_classes: int, *, ignore_index: int | None = None, dilation_ratio: float = 0.02) -> None:
        if not 0 < dilation_ratio <= 1:
            raise RequestError(
                f"dilation_ratio is {dilation_ratio}. Accepted are shares of the image diagonal above 0, up to 1. "
                "The paper's is 0.02."
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.dilation_ratio = dilation_ratio
        self._intersection = empty_confusion(num_classes).sum(axis=0)
        self._areas = self._intersection.copy()

    def add(self, prediction: npt.ArrayLike, truth: npt.ArrayLike) -> None:
        """Count one image; both (H, W), integer or bool."""
        predicted, true = class_maps(prediction, truth, self.num_classes, self.ignore_index)
        width = max(1, round(self.dilation_ratio * diagonal(true)))
        near_predicted, near_true = inner_band(predicted, width), inner_band(true, width)
        self._areas += self._pixels(predicted[near_predicted]) + self._pixels(true[near_true])
        self._intersection += self._pixels(true[near_predicted & near_true & (predicted == true)])

    def _pixels(self, labels: ClassMap) -> Counts:
        """Count the pixels of each class, without those of no class; (P,) -> (K,)."""
        return np.bincount(labels, minlength=self.num_classes + 1)[: self.num_classes]

    def result(self) -> BoundaryIoUScores:
        """Return the scores of everything added so far."""
        union = self._areas - self._intersection
        per_class = tuple(
            hits / whole if whole else None
            for hits, whole in zip(self._intersection.tolist(), union.tolist(), strict=True)
        )
        defined = [iou for iou in per_class if iou is not None]
        return BoundaryIoUScores(
            boundary_iou=math.fsum(defined) / len(defined) if defined else None,
            per_class=per_class,
            intersection=self._intersection.copy(),
            union=union,
        )


def inner_band(labels: ClassMap, width: int) -> Mask:
    """Mark the pixels with another label, or the outside of the image, within a chessboard distance.

    All classes at once: a pixel is outside the band of its class where the least and the greatest label of its
    window are equal. OpenCV leaves the outside out of both, so the frame of the image is added.

    Args:
        labels: (H, W) class ids.
        width: distance in pixels, 1 or more.
    """
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    band = np.asarray(cv2.erode(labels, window) != cv2.dilate(labels, window), np.bool_)
    for side in (band, band.T):
        side[:width] = side[-width:] = True
    return band
