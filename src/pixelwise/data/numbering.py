"""Whether the values of masks number objects or classes: told by how they are given out and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.data.images import read_mask
from pixelwise.data.pairs import Pair

LOOKED_AT = 24  # masks whose areas are counted
FEW = 4  # up to three values in 8 bits are taken as classes: an organ with a tumour is numbered just so
MANY = 16  # values from 1 without a gap, which no list of classes gives every image
CONNECTED_SHARE = 0.8  # of the areas; some objects are cut in two by others


def numbers_objects(pairs: Sequence[Pair]) -> bool | None:
    """Say whether each value of a mask but 0 is one object.

    Objects are numbered from 1 in each image anew, so that images hold different numbers of values with no gaps
    between, and each value is one connected area.

    Returns:
        True or False; None where both meanings fit.
    """
    if all(pair.item.mask.is_dir() for pair in pairs):
        return True  # one file for each object
    values = [sorted(pair.seen.counts.keys() - {0}) for pair in pairs]
    values = [found for found in values if found]
    numbers = {len(found) for found in values}
    if len(numbers) < 2:
        return False
    wide = any(pair.seen.mask_bits > 8 for pair in pairs)
    largest = max(numbers)
    if largest < (2 if wide else FEW):
        return False
    # Objects may have been taken out later, such as those at the border; then 16 bits speak for objects.
    dense = all(2 * len(found) >= found[-1] for found in values) if wide else all(len(f) == f[-1] for f in values)
    if not dense or _connected_share(pairs) < CONNECTED_SHARE:
        return False
    return True if largest >= (FEW if wide else MANY) else None


def _connected_share(pairs: Sequence[Pair]) -> float:
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(LOOKED_AT, len(pairs))).round().astype(int))
    areas = [
        single for i in chosen for single in _connected(read_mask(pairs[i].item.mask, page=pairs[i].item.page).values)
    ]
    return float(np.mean(areas)) if areas else 0.0


def _connected(values: NDArray[Any]) -> list[bool]:
    """Say of each value (H, W) but 0 whether it is one area, neighbours at corners included."""
    boxes = ndimage.find_objects(values.astype(np.int32))
    found = []
    for value, box in enumerate(boxes, start=1):
        if box is not None:
            areas, _ = cv2.connectedComponents((values[box] == value).view(np.uint8), connectivity=8)
            found.append(areas == 2)  # the background is one
    return found
