"""Masks whose values were scattered by lossy compression or smooth resizing, which no export as PNG mends.

Such masks hold many rare values in single pixels beside the values that were drawn. Measured on ten real data sets
(172 masks): of the rarest 5 % of pixels, at most 5 % have no neighbour of the same value; after JPEG at quality 50
to 98, 13 % to 100 % in all but two data sets with few labelled pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from pixelwise.data.images import AnyArray

RARE_SHARE = 0.05  # of the pixels
LEAST_VALUES = 4  # rare ones; two or three occur in any mask
SINGLE_SHARE = 0.12  # of the rare pixels, above which values are scattered
CENTRES_TOLD = 4
NEAR_END = 8  # black is not always 0 after JPEG, nor white 255


class Scatter(BaseModel):
    """What lossy compression left of a mask.

    Attributes:
        num_values: distinct values in all.
        centres: the most frequent values, with their share of the pixels.
        two_sided: the two most frequent values are black and white, so that a threshold brings the mask back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_values: int
    centres: tuple[tuple[int, float], ...]
    two_sided: bool


def scattered(values: AnyArray, counts: Mapping[int, int]) -> Scatter | None:
    """Return how the values (H, W) of a mask are scattered, None if they are not.

    Args:
        values: class numbers, grey levels or packed colours.
        counts: pixels of each value.
    """
    order = sorted(counts, key=lambda value: (-counts[value], value))
    below = np.cumsum([counts[value] for value in order])
    frequent = order[: int(np.searchsorted(below, (1 - RARE_SHARE) * values.size)) + 1]
    if len(order) - len(frequent) < LEAST_VALUES:
        return None
    single = values[_single(values)]
    rare = int(values.size - below[len(frequent) - 1])
    if np.count_nonzero(~np.isin(single, frequent)) < SINGLE_SHARE * rare:
        return None
    return Scatter(
        num_values=len(order),
        centres=tuple((value, counts[value] / values.size) for value in order[:CENTRES_TOLD]),
        two_sided=min(order[:2]) < NEAR_END and 255 - NEAR_END < max(order[:2]) <= 255,
    )


def _single(values: AnyArray) -> AnyArray:
    """Return which pixels (H, W) have no neighbour of the same value above, below, left or right."""
    single = np.ones(values.shape, dtype=bool)
    for first, second in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        same = values[first] == values[second]
        single[first] &= ~same
        single[second] &= ~same
    return single
