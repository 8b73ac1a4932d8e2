"""Unpooling switches as pictures: in which corner of each 2x2 window the maximum was, and where its value goes back to.

One colour stands for each corner. A detail shows windows large enough to see the single units, before the pooling and
after the unpooling; it lies where the pooled channel varies most.

Axes: C channels, H and W of the map before pooling, h and w after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pixelwise.data.pictures import Picture
from pixelwise.report.look_figures import (
    MAX_TILES,
    Values,
    View,
    kinds_on_image,
    panel_size,
    stretched,
    strongest_channels,
)
from pixelwise.report.look_layers import Place
from pixelwise.report.look_pass import Operation
from pixelwise.report.look_sheet import TEXT, Panel, column_width, heat, sheet_font

CORNERS = ("top left", "top right", "bottom left", "bottom right")
# Okabe and Ito's: apart for the colour-blind too. The darkest texts and lines are legible on each.
CORNER_COLORS = np.array([(230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167)], np.uint8)
DETAIL = 8  # windows of a detail's side
Part = tuple[int, int, int, int]  # first row, first column, number of rows and of columns
COLUMNS = 4  # panels of a level
MAX_CELL = 40  # pixels of a unit in a detail
EMPTY = (236, 238, 240)
WINDOW_LINE = (120, 128, 136)
UNIT_LINE = (210, 215, 220)


@dataclass(kw_only=True)
class Level:
    """A pooling and its unpooling, read while the network runs: first `pooling`, then `unpooling`.

    Attributes:
        within: first row, first column, rows and columns of the windows that lie on the image.
        corners: uint8 (C, h, w), 0 to 3 in the order of `CORNERS`; of the first channels, if there are many.
        channel: the one whose pooled map varies most.
        detail: first row, first column, rows and columns of the windows that are drawn large.
        before: the channel there before pooling, (2 rows, 2 columns), less where the map ends.
        after: the same place after unpooling.
    """

    within: Part
    corners: NDArray[np.uint8] | None = None
    channel: int = 0
    detail: Part = (0, 0, 0, 0)
    before: Values | None = None
    after: Values | None = None

    def pooling(self, operation: Operation) -> None:
        """Read the switches."""
        source, pooled, indices = operation.reads[0][0], operation.gives[0][0], operation.gives[1][0].cpu().numpy()
        maps = pooled.float().cpu().numpy()
        self.channel = strongest_channels(maps, 1)[0]
        top, left, rows, columns = self.within
        row, column, *size = _liveliest(maps[self.channel, top : top + rows, left : left + columns])
        self.detail = (top + row, left + column, size[0], size[1])
        corners = corner_of(indices, source.shape[2])
        self.corners = corners[: max(MAX_TILES, self.channel + 1)]
        self.before = self._cut(source[self.channel].float().cpu().numpy())

    def unpooling(self, operation: Operation) -> None:
        """Read what stands at the switches' places."""
        self.after = self._cut(operation.gives[0][0, self.channel].float().cpu().numpy())

    def _cut(self, values: Values) -> Values:
        top, left, rows, columns = self.detail
        return values[2 * top : 2 * (top + rows), 2 * left : 2 * (left + columns)]


def corner_of(indices: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """Return in which corner of its window each maximum was, from its place y * width + x.

    >>> corner_of(np.array([0, 1, 6, 7]), 6).tolist()
    [0, 1, 2, 3]
    """
    return np.asarray(indices // width % 2 * 2 + indices % width % 2, dtype=np.uint8)


def windows_on(view: View, place: Place, size: tuple[int, int]) -> Part:
    """Return which of the windows (h, w) of a pooled layer have their middle on the image; at least one does, or is
    nearest.
    """
    found = []
    for axis, start in enumerate((view.top, view.left)):
        ends = (start - 0.5 - place.origin[axis], start + view.size[axis] - 0.5 - place.origin[axis])
        first, last = (end / place.stride[axis] for end in ends)
        top = min(max(int(np.ceil(first)), 0), size[axis] - 1)
        found.append((top, max(min(int(np.floor(last)), size[axis] - 1) - top + 1, 1)))
    return found[0][0], found[1][0], found[0][1], found[1][1]


def _liveliest(values: Values) -> Part:
    """Return the part of at most `DETAIL` rows and columns with the largest variance, the first of equals."""
    rows, columns = min(DETAIL, values.shape[0]), min(DETAIL, values.shape[1])
    wide = values.astype(np.float64)
    mean, square = (
        cv2.boxFilter(v, -1, (columns, rows), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE) for v in (wide, wide**2)
    )
    variance = (square - mean**2)[: values.shape[0] - rows + 1, : values.shape[1] - columns + 1]
    top, left = divmod(int(variance.argmax()), variance.shape[1])
    return top, left, rows, columns


def legend_panel() -> Panel:
    """Return a window in its four colours, with words."""
    side = column_width(8)
    picture = Image.new("RGB", (side, side), EMPTY)
    draw = ImageDraw.Draw(picture)
    for corner, words in enumerate(CORNERS):
        y, x = corner // 2 * side // 2, corner % 2 * side // 2
        draw.rectangle((x, y, x + side // 2 - 1, y + side // 2 - 1), tuple(CORNER_COLORS[corner].tolist()))
        for line, word in enumerate(words.split()):
            draw.text((x + side // 4, y + side // 4 - 10 + 20 * line), word, TEXT, sheet_font(15), anchor="mm")
    draw.rectangle((0, 0, side - 1, side - 1), outline=WINDOW_LINE)
    return Panel(picture=picture)


def corners_panel(corners: NDArray[np.uint8], place: Place, view: View, columns: int, caption: str) -> Panel:
    """Draw the switches (h, w) of a channel where its windows lie on the image."""
    return Panel(picture=Image.fromarray(_corner_picture(corners, place, view, columns)), caption=caption)


def _corner_picture(corners: NDArray[np.uint8], place: Place, view: View, columns: int) -> Picture:
    return CORNER_COLORS[kinds_on_image(corners, place, view, panel_size(view.size, columns))]


def shares(corners: NDArray[np.uint8]) -> str:
    """Say how many of the maxima were in each corner."""
    counts = np.bincount(corners.ravel(), minlength=4) / corners.size
    return ", ".join(f"{words} {count:.0%}" for words, count in zip(CORNERS, counts, strict=True))


def level_panels(level: Level, place: Place, view: View) -> list[Panel]:
    """Draw a level: all switches of the channel, and a detail before pooling, of the switches, and after unpooling."""
    assert level.corners is not None
    assert level.before is not None
    assert level.after is not None
    corners = level.corners[level.channel]
    top, left, rows, columns = level.detail
    part = corners[top : top + rows, left : left + columns]
    size = " x ".join(map(str, corners.shape))
    whole = Image.fromarray(_corner_picture(corners, place, view, COLUMNS))
    _outline(whole, level.detail, place, view)
    what = f"{rows} x {columns} windows" if rows * columns > 1 else "window"
    return [
        Panel(picture=whole, caption=f"the corner of the maximum in each of {size} windows; a frame marks the detail"),
        Panel(picture=_before(level.before, part), caption=f"detail of {what} before pooling, a dot on each maximum"),
        Panel(picture=_places(part), caption="the switches there: the place of each maximum"),
        Panel(
            picture=_after(level.after, part), caption="after unpooling: values at these places, zeros (grey) around"
        ),
    ]


def _outline(picture: Image.Image, detail: Part, place: Place, view: View) -> None:
    """Mark the detail on the image."""
    edges = []
    for axis, (first, count) in enumerate(((detail[0], detail[2]), (detail[1], detail[3]))):
        scale = (picture.height, picture.width)[axis] / view.size[axis]
        origin, stride = place.origin[axis] - (view.top, view.left)[axis], place.stride[axis]
        limit = (picture.height, picture.width)[axis] - 1
        ends = ((origin + (unit - 0.5) * stride + 0.5) * scale for unit in (first, first + count))
        edges.append([min(max(end, 0), limit) for end in ends])
    (top, bottom), (left, right) = edges
    draw = ImageDraw.Draw(picture)
    for color, away, width in (((255, 255, 255), 4, 6), ((0, 0, 0), 2, 2)):
        corner = min(right + away, picture.width - 1), min(bottom + away, picture.height - 1)
        draw.rectangle((max(left - away, 0), max(top - away, 0), *corner), outline=color, width=width)


def _cell(part: NDArray[np.uint8]) -> int:
    """Return how many pixels a unit of a detail has."""
    side = max(len(part), len(part[0]))
    return max(1, min(MAX_CELL, column_width(COLUMNS) // (2 * side)))


def _canvas(part: NDArray[np.uint8]) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    cell = _cell(part)
    picture = Image.new("RGB", (2 * cell * part.shape[1] + 1, 2 * cell * part.shape[0] + 1), EMPTY)
    return picture, ImageDraw.Draw(picture), cell


def _ruled(picture: Image.Image, cell: int, *, units: bool) -> Image.Image:
    """Draw the borders of the windows, and of the units in them."""
    draw = ImageDraw.Draw(picture)
    for step, color in ((cell, UNIT_LINE), (2 * cell, WINDOW_LINE))[0 if units else 1 :]:
        for x in range(0, picture.width, step):
            draw.line((x, 0, x, picture.height), color)
        for y in range(0, picture.height, step):
            draw.line((0, y, picture.width, y), color)
    return picture


def _squares(part: NDArray[np.uint8], cell: int) -> list[tuple[int, int, int]]:
    """Return corner, x and y in pixels of each switch of a detail."""
    return [
        (corner, (2 * column + corner % 2) * cell, (2 * row + corner // 2) * cell)
        for row, line in enumerate(part.tolist())
        for column, corner in enumerate(line)
    ]


def _before(values: Values, part: NDArray[np.uint8]) -> Image.Image:
    picture, draw, cell = _canvas(part)
    units = heat(stretched(values)).convert("RGB")
    picture.paste(units.resize((units.width * cell, units.height * cell), Image.Resampling.NEAREST), (0, 0))
    _ruled(picture, cell, units=False)
    inset = 0.25 * cell
    for corner, x, y in _squares(part, cell):
        box = (x + inset, y + inset, x + cell - inset, y + cell - inset)
        draw.ellipse(box, tuple(CORNER_COLORS[corner].tolist()), (0, 0, 0), max(1, cell // 12))
    return picture


def _places(part: NDArray[np.uint8]) -> Image.Image:
    picture, draw, cell = _canvas(part)
    for corner, x, y in _squares(part, cell):
        draw.rectangle((x, y, x + cell, y + cell), tuple(CORNER_COLORS[corner].tolist()))
    return _ruled(picture, cell, units=True)


def _after(values: Values, part: NDArray[np.uint8]) -> Image.Image:
    picture, draw, cell = _canvas(part)
    squares = _squares(part, cell)
    found = np.array([values[y // cell, x // cell] for _, x, y in squares], np.float32)
    colors = np.asarray(heat(stretched(found)[None]).convert("RGB"))[0].tolist()
    for (_, x, y), color in zip(squares, colors, strict=True):
        draw.rectangle((x, y, x + cell, y + cell), tuple(color))
    return _ruled(picture, cell, units=True)
