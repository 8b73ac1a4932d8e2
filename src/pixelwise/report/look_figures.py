"""The pictures that `look` puts on its sheet: maps, filters, probabilities and receptive fields.

Axes: H, W of the image at the network's scale; C channels of a layer; h, w of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pixelwise.data.pictures import LabelMap, Palette, Picture, overlay, shrink_labels
from pixelwise.engine.layer_table import Interval
from pixelwise.report.look_layers import Place, Unit
from pixelwise.report.look_pass import Gradient
from pixelwise.report.look_sheet import Panel, column_width, heat

MAX_TILES = 256  # channels or kernels of one figure
MAX_SLICES = 64  # channels of a kernel, side by side
STRONGEST = 8
KERNEL_COLUMNS = 30
FIELD_COLOR = (255, 140, 0)
EFFECTIVE = 1 - 0.9545  # of the largest gradient; Luo et al., section 3

NO_PICTURE = np.zeros((1, 1, 3), dtype=np.uint8)

Values = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class View:
    """The image and where it lies in the network's input.

    Attributes:
        picture: uint8 (h, w, 3), as it is drawn; may be finer than what the network sees.
        size: (H, W), at the network's scale.
        top: input row of its first row.
        left: input column of its first column.
    """

    picture: Picture
    size: tuple[int, int]
    top: int = 0
    left: int = 0


def panel_size(size: tuple[int, int], columns: int) -> tuple[int, int]:
    """Return (height, width) of an image of `size` as one of so many panels side by side, at most 1.5 times as high."""
    width = column_width(columns)
    scale = min(width / size[1], 1.5 * width / size[0])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def photo(view: View, columns: int) -> Image.Image:
    """Return the image as a panel's picture: averaged where it shrinks, in blocks where it grows."""
    height, width = panel_size(view.size, columns)
    how = Image.Resampling.BOX if height < view.picture.shape[0] else Image.Resampling.NEAREST
    return Image.fromarray(view.picture).resize((width, height), how)


def photo_panel(view: View, caption: str, columns: int) -> Panel:
    """Return the image itself."""
    return Panel(picture=photo(view, columns), caption=caption, photo=True)


def on_image(values: Values, place: Place, view: View, size: tuple[int, int]) -> Values:
    """Resample a map (h, w) so that it lies on the image, as a panel of `size`: nearest unit, averaged where many."""
    (rows, down), (columns, across) = (
        _nearest_units(size[axis], (view.top, view.left)[axis], view.size[axis], place, axis, values.shape[axis])
        for axis in (0, 1)
    )
    fine = values[rows[:, None], columns[None]]
    blocks = fine.reshape(size[0], down, size[1], across)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


def _nearest_units(
    count: int, first: int, length: int, place: Place, axis: int, units: int
) -> tuple[NDArray[np.intp], int]:
    """Return the unit below each sample of a panel's side, and how many samples make one of its `count` pixels."""
    samples = max(1, int(np.ceil(length / place.stride[axis] / count)))
    points = first - 0.5 + (np.arange(count * samples) + 0.5) * length / (count * samples)
    nearest = np.rint((points - place.origin[axis]) / place.stride[axis]).astype(np.intp)
    return np.clip(nearest, 0, units - 1), samples


def kinds_on_image(values: NDArray[np.uint8], place: Place, view: View, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resample a map (h, w) of numbers that stand for kinds as `on_image` does, without averaging: the middle one."""
    rows, columns = (
        units[samples // 2 :: samples]
        for units, samples in (
            _nearest_units(size[axis], (view.top, view.left)[axis], view.size[axis], place, axis, values.shape[axis])
            for axis in (0, 1)
        )
    )
    return np.asarray(values[rows[:, None], columns[None]])


def stretched(values: Values) -> Values:
    """Bring values to 0..1, their lowest and highest; equal ones become 0."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def strongest_channels(maps: Values, count: int = STRONGEST) -> list[int]:
    """Return the channels of (C, h, w) that vary most over the map, most first; of equals, the first one first."""
    order = np.argsort(-maps.reshape(len(maps), -1).std(axis=1), kind="stable")
    return [int(channel) for channel in order[:count]]


def channel_panels(maps: Values, channels: list[int], place: Place, view: View, columns: int) -> list[Panel]:
    """Draw channels of a layer (C, h, w), each on its own scale."""
    size = panel_size(view.size, columns)
    panels = []
    for channel in channels:
        values = on_image(maps[channel], place, view, size)
        flat = ", flat" if values.min() == values.max() else ""
        panels.append(Panel(picture=heat(stretched(values)), caption=f"channel {channel}{flat}"))
    return panels


def kernel_tiles(weight: Values) -> NDArray[np.uint8]:
    """Turn kernels (N, C, h, w) into pictures, each from its own lowest (0) to its highest weight (255).

    Returns:
        uint8 (N, h, w, 3) in colour if C is 3; else (N, h, C * w + C - 1), the channels side by side, 255 between.
    """
    scaled = np.stack([np.rint(stretched(kernel) * 255) for kernel in weight]).astype(np.uint8)
    if weight.shape[1] == 3:
        return scaled.transpose(0, 2, 3, 1)
    framed = np.pad(scaled, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255)  # (N, C, h, w + 1)
    joined = framed.transpose(0, 2, 1, 3).reshape(len(weight), weight.shape[2], -1)
    return joined[:, :, :-1]


def kernel_panels(weight: Values) -> tuple[list[Panel], int]:
    """Draw kernels (N, C, h, w) as small panels; returns them and how many stand side by side."""
    tiles = kernel_tiles(weight[:MAX_TILES, :MAX_SLICES])
    columns = max(1, min(KERNEL_COLUMNS, KERNEL_COLUMNS * tiles.shape[1] // tiles.shape[2]))
    scale = max(1, column_width(columns) // tiles.shape[2])
    size = tiles.shape[2] * scale, tiles.shape[1] * scale
    pictures = [Image.fromarray(tile).resize(size, Image.Resampling.NEAREST) for tile in tiles]
    return [Panel(picture=picture) for picture in pictures], columns


def field_panel(view: View, unit: Unit, what: str, columns: int, *, whole: bool = False) -> Panel:
    """Mark on the image what a unit sees; `whole` says that this is all of it, whatever its size."""
    picture = photo(view, columns)
    (top, bottom), (left, right) = _on_view(unit.spans, view)
    scale = picture.height / view.size[0], picture.width / view.size[1]
    box = (left * scale[1], top * scale[0], (right + 1) * scale[1] - 1, (bottom + 1) * scale[0] - 1)
    y, x = ((unit.centre[axis] - start + 0.5) * scale[axis] for axis, start in enumerate((view.top, view.left)))
    _mark(picture, box, (x, y))
    height, width = (last - first + 1 for first, last in unit.spans)
    cut = (bottom - top + 1, right - left + 1) != (height, width)
    size = "the whole image" if whole else f"{height} x {width} pixels"
    note = ", cut at the image's border" if cut and not whole else ""
    return Panel(picture=picture, caption=f"receptive field of {what}: {size}{note}", photo=True)


def _on_view(spans: tuple[Interval, Interval], view: View) -> list[Interval]:
    """Return spans of the input as rows and columns of the image, cut at its border."""
    sides = zip(spans, (view.top, view.left), view.size, strict=True)
    return [(max(first - start, 0), min(last - start, side - 1)) for (first, last), start, side in sides]


def _mark(picture: Image.Image, box: tuple[float, float, float, float], point: tuple[float, float]) -> None:
    """Draw a rectangle around a box and, if there is room, a cross at a point; dark beside bright shows anywhere."""
    draw = ImageDraw.Draw(picture)
    (left, top, right, bottom), (x, y) = box, point
    for color, away, width in (((0, 0, 0), 4, 5), (FIELD_COLOR, 3, 3)):
        corner = min(right + away, picture.width - 1), min(bottom + away, picture.height - 1)
        draw.rectangle((max(left - away, 0), max(top - away, 0), *corner), outline=color, width=width)
        if min(right - left, bottom - top) > 20:
            draw.line((x - 6, y, x + 6, y), color, width)
            draw.line((x, y - 6, x, y + 6), color, width)


def gradient_panel(
    gradient: Gradient, view: View, spans: tuple[Interval, Interval], classes: Sequence[str], columns: int
) -> Panel:
    """Draw the part of a gradient that lies in the field and on the image, enlarged to a panel."""
    (top, bottom), (left, right) = _on_view(spans, view)
    rows = slice(top + view.top - gradient.top, bottom + view.top - gradient.top + 1)
    columns_ = slice(left + view.left - gradient.left, right + view.left - gradient.left + 1)
    shown = gradient.magnitude[rows, columns_]
    scale = min(panel_size(view.size, columns)[0] / shown.shape[0], column_width(columns) / shown.shape[1])
    size = max(1, round(shown.shape[0] * scale)), max(1, round(shown.shape[1] * scale))
    # the square root, since a few pixels at the middle outweigh all others
    values = np.sqrt(shown / max(float(shown.max()), 1e-30))
    picture = heat(cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_NEAREST))
    side, name = effective_side(gradient.magnitude), classes[gradient.class_index]
    return Panel(
        picture=picture,
        caption=f"effective field inside it: square root of the gradient of the logit of {name}; "
        f"pixels above {EFFECTIVE:.2%} of the largest gradient would fill {side:.0f} x {side:.0f}",
    )


def effective_side(magnitude: Values) -> float:
    """Return the side of a square of as many pixels as have more than 4.55 % of the largest gradient."""
    return float(np.sqrt((magnitude > EFFECTIVE * magnitude.max()).sum()))


def label_panel(view: View, labels: LabelMap, palette: Palette, caption: str, columns: int) -> Panel:
    """Lay classes (h, w) over the image; labels without a colour leave it."""
    picture = photo(view, columns)
    shown = shrink_labels(labels, (picture.height, picture.width))
    return Panel(
        picture=Image.fromarray(overlay(np.asarray(picture), shown, palette)),
        caption=caption,
        photo=True,
    )


def scale_end(probabilities: Values) -> float:
    """Return the end of a scale from 0 on which probabilities can be told apart: 1, or less where all are small.

    >>> scale_end(np.float32([0.51, 0.2])), scale_end(np.float32([0.06]))
    (1.0, 0.1)
    """
    most = float(probabilities.max(initial=0))
    return next((end for end in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if most <= end), 1.0)


def probability_picture(probability: Values, columns: int, *, end: float) -> Image.Image:
    """Draw probabilities (h, w) on the scale 0 to `end`."""
    height, width = probability.shape
    size = panel_size((height, width), columns)
    return heat(on_image(probability / end, Place(), View(picture=NO_PICTURE, size=(height, width)), size))


def class_panel(view: View, probability: Values, color: tuple[int, int, int], columns: int) -> Panel:
    """Lay one class's probabilities (h, w) over the image, with the line where they pass one half."""
    picture = np.asarray(photo(view, columns))
    height, width = picture.shape[:2]
    smooth = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
    drawn = np.rint(picture + 0.7 * smooth[..., None] * (np.array(color) - picture)).astype(np.uint8)
    lines, _ = cv2.findContours((smooth > 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for shade, thickness in ((0, 3), (255, 1)):
        cv2.drawContours(drawn, lines, -1, (shade, shade, shade), thickness, cv2.LINE_AA)
    share = (probability > 0.5).mean()
    caption = f"probability over the image; the white line surrounds what is above 0.5: {share:.1%} of the pixels"
    return Panel(picture=Image.fromarray(drawn), caption=caption, photo=True)
