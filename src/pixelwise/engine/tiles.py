"""Cutting an image of any size into windows that a model accepts, and the mirrored world around the image.

Valid convolutions: each window predicts its inner part from full context (U-Net's overlap-tile strategy). The
windows' origins differ by multiples of the pooling period, so that the tiles reproduce the whole-image pass.
Padded convolutions: windows overlap by a halo, whose predictions are thrown away; windows at the image border
start there, as the whole-image pass does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import RequestError
from pixelwise.structures import SizeRule


@dataclass(frozen=True, kw_only=True)
class Span:
    """One window along one axis, in pixels of the image.

    Attributes:
        start: first input pixel; negative ones lie in the mirrored world before the image.
        size: input pixels.
        first: first output pixel that is kept.
        stop: end of the kept output pixels (not included).
    """

    start: int
    size: int
    first: int
    stop: int


def plan_spans(side: int, rule: SizeRule, *, tile: int | None, halo: int) -> list[Span]:
    """Cover an image side with windows.

    Args:
        side: pixels of the image.
        rule: sizes that the model accepts.
        tile: input pixels of a window; None, or a tile that holds the image, takes one window.
        halo: pixels at a window's inner borders that are not trusted; without effect for valid convolutions.

    Raises:
        RequestError: if the tile is not legal or leaves nothing between its halos.
    """
    if tile is not None and not rule.is_legal(tile):
        raise RequestError(
            f"tile {tile} is not legal for this model; accepted: {rule.describe()}. Nearest: {rule.nearest(tile)}."
        )
    whole = rule.covering(side)
    if tile is None or tile >= whole:
        return [Span(start=-rule.margin, size=whole, first=0, stop=side)]
    halo = 0 if rule.margin else -(-halo // rule.period) * rule.period
    step = (tile - 2 * rule.margin - 2 * halo) // rule.period * rule.period
    if step < 1:
        smallest = rule.at_least(2 * rule.margin + 2 * halo + rule.period)
        raise RequestError(
            f"tile {tile} leaves nothing between its borders of {rule.margin + halo} pixels; accepted: from {smallest}."
        )
    spans: list[Span] = []
    while not spans or spans[-1].stop < side:
        origin, size = len(spans) * step, tile
        ends = not rule.margin and origin + tile >= whole  # the last window ends where the whole-image pass ends
        if ends and (whole - tile) % rule.period == 0:
            origin = whole - tile
        elif ends:  # further back it would see another pooling grid
            size = whole - origin
        first = spans[-1].stop if spans else 0
        stop = origin + step + (0 if rule.margin else halo)
        last = stop >= side or ends
        spans.append(Span(start=origin - rule.margin, size=size, first=first, stop=side if last else stop))
    return spans


def mirror(image: NDArray[Any], rows: Span, columns: Span) -> NDArray[Any]:
    """Cut a window (h, w, ...) out of an image (H, W, ...), mirrored at the borders without repeating them."""
    ys = _mirrored(np.arange(rows.start, rows.start + rows.size), image.shape[0])
    xs = _mirrored(np.arange(columns.start, columns.start + columns.size), image.shape[1])
    return np.ascontiguousarray(image[ys[:, None], xs[None, :]])


def _mirrored(index: NDArray[np.intp], side: int) -> NDArray[np.intp]:
    if side == 1:
        return np.zeros_like(index)
    period = 2 * (side - 1)
    index = np.abs(index) % period
    return np.where(index < side, index, period - index)
