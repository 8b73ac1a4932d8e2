"""Looking at one image with its mask: what a scan notes of each pair, and keeps for the next time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pixelwise.data.images import (
    AnyArray,
    LossyMaskError,
    RawMask,
    colour_table,
    read_image,
    read_mask,
    read_orientation,
)
from pixelwise.data.items import ImageItem, Item
from pixelwise.data.memory import Memory
from pixelwise.data.problems import Finding
from pixelwise.data.speckle import Scatter, scattered
from pixelwise.data.tiff import Palette, turned
from pixelwise.errors import RequestError

SAMPLED_PIXELS = 2**16  # from here on every fourth pixel settles mean and deviation to well under a percent
MOST_SAMPLED = 2**22  # of a huge image, so that the sample does not fill the memory
MOST_VALUES = 512  # colours that are counted in a mask; those with most pixels
COUNTED_AT_ONCE = 2**24
IGNORE = 255  # the usual value of pixels that must not count


class SeenImage(BaseModel):
    """What one pass found out about one image.

    Attributes:
        size: (height, width).
        channels: of the image.
        dtype: of the image.
        low: least value of the image, per channel.
        high: largest value of the image, per channel.
        mean: of the values, per channel.
        variance: of the values, per channel.
        image_digest: the same for images with the same pixels, whatever their files.
        orientation: EXIF orientation by which the image is turned, 1 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int]
    channels: int
    dtype: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    variance: tuple[float, ...]
    image_digest: str
    orientation: int

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.size[0] * self.size[1]


class Seen(SeenImage):
    """What one pass found out about one pair.

    Attributes:
        mask_digest: the same for masks with the same values.
        counts: pixels of each value of the mask; colours are packed in a number.
        num_values: distinct values of the mask, which may be more than are counted.
        mask_bits: of a value of the mask.
        palette: colours of a palette mask.
        coloured: the values of the mask are colours.
        mask_channels: of the mask's file.
        bilevel: the mask has one bit a pixel.
        scatter: values of the mask in single pixels around a few others, as compression leaves them.
        same_as_image: the mask holds the grey values of the image.
        mask_orientation: EXIF orientation by which the mask is turned, if it has the size of the image before turning.
        unsettled_orientation: the mask may have been drawn on either, which the sizes do not tell.
        num_objects: object ids, None without an object map.
        object_pixels: pixels with an object id of each value of the mask.
        void_object: the id 255 marks what the mask marks with 255.
    """

    mask_digest: str
    counts: dict[int, int]
    num_values: int
    mask_bits: int
    palette: Palette | None
    coloured: bool
    mask_channels: int
    bilevel: bool
    scatter: Scatter | None
    same_as_image: bool
    mask_orientation: int
    unsettled_orientation: bool
    num_objects: int | None
    object_pixels: dict[int, int]
    void_object: bool

    @property
    def as_colours(self) -> Seen:
        """The same with the mask's values as packed colours."""
        if self.coloured:
            return self
        table = colour_table(self.palette)
        counts: dict[int, int] = {}
        for value, count in self.counts.items():
            colour = int(table[min(value, 256)])
            counts[colour] = counts.get(colour, 0) + count
        return self.model_copy(update={"counts": counts, "coloured": True, "palette": None, "bilevel": False})


@dataclass(frozen=True)
class Pair:
    """An item and what was seen of it."""

    item: Item
    seen: Seen


def look_at(
    items: Sequence[Item], on_image: Callable[[int, int], None] | None = None
) -> tuple[list[Pair], list[Finding]]:
    """Read every image and mask once; return what was seen, and what is wrong with the others.

    What is remembered of files with the same bytes is not read again.
    """
    memory = Memory()
    pairs: list[Pair] = []
    findings: list[Finding] = []
    for done, item in enumerate(items, start=1):
        try:
            pairs.append(Pair(item, memory.recall(item, Seen, partial(_look_at_one, item))))
        except RequestError as error:
            findings.append(_unusable(item, error))
        if on_image is not None:
            on_image(done, len(items))
    return pairs, findings


class _SizeError(RequestError):
    """Image and mask have different sizes."""


def _unusable(item: Item, error: RequestError) -> Finding:
    text = str(error)
    files = [path for path in (item.image, item.mask, item.instances) if path is not None]
    path = next((path for path in files if text.startswith(str(path))), item.image)
    kinds = {_SizeError: "different size", LossyMaskError: "compressed mask"}
    usual = "unreadable file" if error.__cause__ is not None else "unusable file"  # what a decoder said is its cause
    return Finding(path=path, text=text, kind=kinds.get(type(error), usual), spoils=frozenset({item.key}))


def _look_at_one(item: Item) -> Seen:
    image, mask = read_image(item.image, page=item.page), read_mask(item.mask, page=item.page)
    orientation = read_orientation(item.image, page=item.page)
    size = (image.shape[0], image.shape[1])
    noted = read_orientation(item.mask, page=item.page) if orientation > 1 else 1
    # A phone stores the picture lying and a note to turn it; a mask without the note may have been drawn on either.
    swapped = mask.values.shape == size[::-1] != size and orientation in (5, 6, 7, 8)
    mask_orientation = orientation if swapped and noted == 1 else 1
    tells_nothing = orientation in (2, 3, 4) or size[0] == size[1]
    _check_size(item, size, turned(mask.values, mask_orientation))
    objects = None
    if item.instances is not None:
        objects = read_mask(item.instances, page=item.page).values
        _check_size(item, size, turned(objects, mask_orientation), of_instances=True)
    return Seen(
        **_of_image(image),
        **_of_mask(mask),
        **_of_objects(mask.values, objects),
        same_as_image=_same(image, turned(mask.values, mask_orientation)),
        orientation=orientation,
        mask_orientation=mask_orientation,
        unsettled_orientation=orientation > 1 and noted == 1 and tells_nothing,
    )


def look_at_image(item: ImageItem) -> SeenImage:
    """Read an image and return what was seen of it."""
    image = read_image(item.image, page=item.page)
    return SeenImage(**_of_image(image), orientation=read_orientation(item.image, page=item.page))


def _check_size(item: Item, size: tuple[int, int], values: AnyArray, *, of_instances: bool = False) -> None:
    if values.shape != size:
        height, width = values.shape
        raise _SizeError(
            f"{item.image} is {size[0]} x {size[1]} (height x width), but "
            f"{item.instances if of_instances else item.mask} is {height} x {width}; accepted: equal sizes. Export the "
            "mask again at the image's size."
        )


def _same(image: AnyArray, values: AnyArray) -> bool:
    return image.shape[2] in (1, 3) and all(np.array_equal(image[:, :, i], values) for i in range(image.shape[2]))


def _of_image(image: AnyArray) -> dict[str, Any]:
    flat = image.reshape(-1, image.shape[2])
    step = 1 if len(flat) < SAMPLED_PIXELS else max(4, len(flat) // MOST_SAMPLED)
    sample = flat[::step].astype(np.float64)
    return {
        "size": image.shape[:2],
        "channels": image.shape[2],
        "dtype": str(image.dtype),
        # over rows first, which numpy does many times faster than over pixels
        "low": tuple(map(float, image.min(axis=0).min(axis=0))),
        "high": tuple(map(float, image.max(axis=0).max(axis=0))),
        "mean": tuple(map(float, sample.mean(axis=0))),
        "variance": tuple(map(float, sample.var(axis=0))),
        "image_digest": _digest(image),
    }


def _of_mask(mask: RawMask) -> dict[str, object]:
    counts = _count(mask.values)
    return {
        "mask_digest": _digest(mask.values),
        "counts": dict(
            sorted(sorted(counts.items(), key=lambda entry: -entry[1])[:MOST_VALUES]) if mask.coloured else counts
        ),
        "num_values": len(counts),
        "mask_bits": 8 * mask.values.itemsize,
        "palette": mask.palette,
        "coloured": mask.coloured,
        "mask_channels": mask.channels,
        "bilevel": mask.bilevel,
        "scatter": scattered(mask.values, counts),
    }


def _of_objects(values: AnyArray, objects: AnyArray | None) -> dict[str, object]:
    if objects is None:
        return {"num_objects": None, "object_pixels": {}, "void_object": False}
    void = (values == IGNORE) & (objects == IGNORE)
    return {
        "num_objects": len(_count(objects).keys() - {0}),
        "object_pixels": _count(values[objects > 0]),
        "void_object": bool(void.any()) and int(void.sum()) == int((objects == IGNORE).sum()),
    }


def _count(values: AnyArray) -> dict[int, int]:
    """Count the pixels of each value, in rising order."""
    if values.dtype == np.uint32:
        found, counts = np.unique(values, return_counts=True)
    else:
        flat = values.ravel()
        all_counts = np.zeros(1 << 8 * values.itemsize, dtype=np.int64)
        for start in range(0, len(flat), COUNTED_AT_ONCE):  # numpy makes 8 bytes of each value
            all_counts += np.bincount(flat[start : start + COUNTED_AT_ONCE], minlength=len(all_counts))
        found = np.flatnonzero(all_counts)
        counts = all_counts[found]
    return {int(value): int(count) for value, count in zip(found, counts, strict=True)}


def _digest(array: NDArray[np.generic]) -> str:
    digest = hashlib.blake2b(f"{array.shape} {array.dtype} ".encode(), digest_size=12)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
