"""Looking at one image with its mask: what a scan notes of each pair, and what can be wrong with masks together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset import Item
from pixelwise.data.encoding import MaskEncoding
from pixelwise.data.images import AnyArray, RawMask, read_image, read_mask, read_orientation
from pixelwise.data.tiff import Palette, turned
from pixelwise.errors import RequestError

SAMPLED_PIXELS = 2**16  # from here on every fourth pixel settles mean and deviation to well under a percent


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one pass found out about one pair.

    Attributes:
        item: the pair.
        size: (height, width).
        channels: of the image.
        dtype: of the image.
        low: least value of the image.
        high: largest value of the image.
        mean: of the values, per channel.
        variance: of the values, per channel.
        counts: pixels of each value of the mask.
        palette: colours of a palette mask.
        bilevel: the mask has one bit a pixel.
        orientation: EXIF orientation by which the image is turned, 1 for none.
        mask_orientation: the same for the mask, if it has the size of the image before turning.
    """

    item: Item
    size: tuple[int, int]
    channels: int
    dtype: str
    low: float
    high: float
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    counts: dict[int, int]
    palette: Palette | None
    bilevel: bool
    orientation: int
    mask_orientation: int


def look_at(items: Iterable[Item]) -> tuple[list[Seen], list[str]]:
    """Read every image and mask once; return what was seen, and what is wrong with the others."""
    seen: list[Seen] = []
    problems: list[str] = []
    for item in items:
        try:
            seen.append(_look_at_one(item))
        except RequestError as error:
            problems.append(str(error))
    return seen, problems


def _look_at_one(item: Item) -> Seen:
    image, mask = read_image(item.image), read_mask(item.mask)
    orientation = read_orientation(item.image)
    size = (image.shape[0], image.shape[1])
    # A phone stores the picture lying and a note to turn it; a mask without the note may have been drawn on either.
    swapped = mask.values.shape == size[::-1] != size and orientation in (5, 6, 7, 8)
    mask_orientation = orientation if swapped and read_orientation(item.mask) == 1 else 1
    _check_size(item.image, size, item.mask, turned(mask.values, mask_orientation))
    if item.instances is not None:
        objects = read_mask(item.instances).values
        _check_size(item.image, size, item.instances, turned(objects, mask_orientation))
    return _statistics(item, image, mask, orientation, mask_orientation)


def _check_size(image: Path, size: tuple[int, int], mask: Path, values: AnyArray) -> None:
    if values.shape != size:
        height, width = values.shape
        raise RequestError(
            f"{image} is {size[0]} x {size[1]} (height x width), but {mask} is {height} x {width}; accepted: equal "
            "sizes. Export the mask again at the image's size."
        )


def _statistics(item: Item, image: AnyArray, mask: RawMask, orientation: int, mask_orientation: int) -> Seen:
    flat = image.reshape(-1, image.shape[2])
    sample = flat[:: 4 if len(flat) >= SAMPLED_PIXELS else 1].astype(np.float64)
    counts = np.bincount(mask.values.ravel())
    return Seen(
        item=item,
        size=(image.shape[0], image.shape[1]),
        channels=image.shape[2],
        dtype=str(image.dtype),
        low=float(image.min()),
        high=float(image.max()),
        mean=sample.mean(axis=0),
        variance=sample.var(axis=0),
        counts={int(value): int(counts[value]) for value in np.flatnonzero(counts)},
        palette=mask.palette,
        bilevel=mask.bilevel,
        orientation=orientation,
        mask_orientation=mask_orientation,
    )


def outside(pair: Seen, encoding: MaskEncoding, names: Sequence[str]) -> str | None:
    """Name the values of a mask that mean no class, or return None."""
    allowed = {0, 255} if encoding.kind == "binary_255" else set(range(len(names)))
    # The white of a 1-bit file is 255 only because we say so, and is not what a data set ignores.
    ignored_value = None if pair.bilevel else encoding.ignore_index
    wrong = [value for value in pair.counts if value not in allowed and value != ignored_value]
    if not wrong:
        return None
    if pair.bilevel:
        return (
            f"{pair.item.mask} is a black and white (1-bit) file with {_pixels(pair.counts[255])} of white, but the "
            f"masks are recognised as class numbers ({encoding.words}); accepted: one kind for all. Save it with "
            "8 bits and class numbers, or all masks in black and white."
        )
    shown = ", ".join(f"value {value} ({_pixels(pair.counts[value])})" for value in wrong[:4])
    ignored = f" and {encoding.ignore_index} (ignored)" if encoding.ignore_index is not None else ""
    return (
        f"{pair.item.mask} holds {shown}{', ...' if len(wrong) > 4 else ''}; accepted: 0 to {len(names) - 1} "
        f"({', '.join(names[:4])}{', ...' if len(names) > 4 else ''}){ignored}. Correct the mask, add the class, or "
        f'write "ignore_index": {wrong[0]} into dataset.json if these pixels should not count.'
    )


def _pixels(count: int) -> str:
    return f"{count} pixel{'' if count == 1 else 's'}"


def two_meanings(seen: Iterable[Seen], encoding: MaskEncoding) -> list[str]:
    """Refuse a mixture of 0/1 and 0/255 masks, whose 255 would count as ignored."""
    values = set[int]().union(*(pair.counts for pair in seen))
    both = [pair for pair in seen if {1, 255} <= pair.counts.keys()]
    if values != {0, 1, 255} or both or encoding.ignore_index != 255:
        return []
    first = {value: next(pair for pair in seen if value in pair.counts) for value in (1, 255)}
    return [
        f"{first[1].item.mask} holds the value 1 ({_pixels(first[1].counts[1])}), {first[255].item.mask} the value 255 "
        f"({_pixels(first[255].counts[255])}), and no mask both, so that 255 may mean class 1 or ignored pixels; "
        "accepted: one meaning. Give all masks the same values, or write dataset.json with name, classes and "
        '"ignore_index": 255.'
    ]


def changing_colours(seen: Sequence[Seen], encoding: MaskEncoding) -> list[str]:
    """Refuse palette masks in which the same index has different colours: each file then numbers its own classes."""
    if encoding.kind != "palette":
        return []
    first: dict[int, tuple[tuple[int, int, int], Path]] = {}
    for pair in seen:
        for value in pair.counts:
            if pair.palette is None or value >= len(pair.palette):
                continue
            colour, path = first.setdefault(value, (pair.palette[value], pair.item.mask))
            if colour != pair.palette[value]:
                return [
                    f"{pair.item.mask} shows the palette index {value} as {list(pair.palette[value])}, {path} as "
                    f"{list(colour)}; accepted: one palette for all masks, since indices are class numbers. Save the "
                    "masks with the same palette, or, if only the colours differ, write dataset.json with name and "
                    "classes."
                ]
    return []
