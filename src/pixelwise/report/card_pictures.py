"""The pictures of a data card: which images are shown, and how their labels are painted over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset import Item
from pixelwise.data.images import AnyArray
from pixelwise.data.pictures import (
    WRONG_COLOR,
    LabelMap,
    Picture,
    error_map,
    fit_size,
    overlay,
    shrink_image,
    shrink_labels,
    to_display,
)

OUTLINE_COLOR = (0, 255, 255)
MAX_SIDE = 320  # pixels, of a picture
OUTSIDE = 2**31 - 1  # a label that has no colour: the image is left as it is


@dataclass(frozen=True, kw_only=True)
class Paint:
    """How labels become colours.

    Attributes:
        palette: a colour for each class.
        ignore_index: label of hatched pixels, None if there are none.
        background: class that is left unpainted, None if all are painted.
    """

    palette: Sequence[Sequence[int]]
    ignore_index: int | None
    background: int | None

    def over(self, image: AnyArray, labels: LabelMap, objects: LabelMap | None) -> Picture:
        """Paint classes over an image; hatch ignored pixels, draw objects' outlines, show what is no class in red.

        Args:
            image: (H, W, C), any type.
            labels: class indices (H, W).
            objects: object ids (H, W), 0 for none, or None.

        Returns:
            uint8 (h, w, 3), at most 320 pixels a side.
        """
        size = fit_size(*labels.shape, max_height=MAX_SIDE, max_width=MAX_SIDE)
        shown = shrink_labels(labels, size).astype(np.int64)
        unpainted = np.where(shown == self.background, OUTSIDE, shown) if self.background is not None else shown
        picture = overlay(shrink_image(to_display(image), size), unpainted, self.palette)
        ignored = np.zeros(size, dtype=bool) if self.ignore_index is None else shown == self.ignore_index
        picture[ignored] = error_map(shown, shown, self.ignore_index)[ignored]
        picture[(shown >= len(self.palette)) & ~ignored] = WRONG_COLOR
        if objects is not None:
            picture[outlines(shrink_labels(objects, size))] = OUTLINE_COLOR
        return picture


def outlines(objects: LabelMap) -> NDArray[np.bool_]:
    """Return the pixels (H, W) of objects, ids above 0, that have a neighbour of another id.

    >>> outlines(np.array([[7, 7, 7, 9, 0]])).tolist()
    [[False, False, True, True, False]]
    """
    _, dense = np.unique(objects, return_inverse=True)
    ids = dense.reshape(objects.shape).astype(np.float32)
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
    edges: NDArray[np.bool_] = (cv2.morphologyEx(ids, cv2.MORPH_GRADIENT, cross) > 0) & (objects > 0)
    return edges


def thumbnail(image: AnyArray) -> Picture:
    """Return an image (H, W, C) as a picture of at most 320 pixels a side."""
    size = fit_size(*image.shape[:2], max_height=MAX_SIDE, max_width=MAX_SIDE)
    return shrink_image(to_display(image), size)


def choose(items: Sequence[Item], classes_of: Mapping[Item, frozenset[int]], count: int) -> list[Item]:
    """Choose items that together show as many classes as possible, then others evenly over the split.

    Args:
        items: of one split.
        classes_of: the classes that each item holds; items that are not in it hold none.
        count: items wanted at most.

    Returns:
        The items, in their order in the split.
    """
    chosen: list[Item] = []
    missing = set[int]().union(*(classes_of.get(item, frozenset()) for item in items))
    while missing and len(chosen) < count:
        best = max(items, key=lambda item: len(missing & classes_of.get(item, frozenset())))
        chosen.append(best)
        missing -= classes_of[best]
    rest = [item for item in items if item not in set(chosen)]
    free = min(count - len(chosen), len(rest))
    chosen += [rest[(2 * index + 1) * len(rest) // (2 * free)] for index in range(free)]
    return [item for item in items if item in set(chosen)]
