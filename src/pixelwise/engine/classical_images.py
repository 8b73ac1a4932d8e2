"""Images and label maps as a classical pipeline sees them: 8-bit colour, at the training's scale, read when needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset import Item
from pixelwise.data.images import AnyArray
from pixelwise.data.normalise import Normalisation, resize_image, resize_labels
from pixelwise.data.scan import Dataset
from pixelwise.errors import RequestError

GREY, COLOUR = 1, 3  # channels
NOTHING_IGNORED = -1  # a label that no mask has
BYTE = 255.0


def check_channels(channels: int, what: str, model: str) -> None:
    """Refuse images that are neither grey nor in colour: the filters see lightness and two colour differences."""
    if channels not in (GREY, COLOUR):
        raise RequestError(
            f"{what} have {channels} channels; accepted by {model}: {GREY} (grey) or {COLOUR} (red, green, blue). "
            "Convert the images, or train a network, which takes any channels."
        )


def rgb8(image: AnyArray, normalisation: Normalisation) -> NDArray[np.uint8]:
    """Return an image (H, W, 1 or 3) as the filters see it, uint8 (H, W, 3).

    8-bit values stay. Others are brought from the range of the training images to 0..255 and rounded, and those beyond
    it are cut off. Grey is shown as equal red, green and blue.
    """
    if image.dtype != np.uint8:
        image = np.rint(np.clip(normalisation.unit(image), 0, 1) * BYTE).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], COLOUR)))


Value = TypeVar("Value")


@dataclass(frozen=True)
class Lazy(Sequence[Value], Generic[Value]):
    """A sequence whose entries are made when they are asked for.

    Attributes:
        items: what entries are made of.
        make: makes one.
    """

    items: Sequence[Item]
    make: Callable[[Item], Value]

    @overload
    def __getitem__(self, index: int) -> Value: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Value]: ...

    def __getitem__(self, index: int | slice) -> Value | Sequence[Value]:
        """Make an entry, or return a part of the sequence."""
        if isinstance(index, slice):
            return Lazy(self.items[index], self.make)
        return self.make(self.items[index])

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.items)


def ignored_of(dataset: Dataset) -> int:
    """Return the label that does not count; one that no mask has where all do."""
    return NOTHING_IGNORED if dataset.card.ignore_index is None else dataset.card.ignore_index


def images_of(dataset: Dataset, items: Sequence[Item], scale: float) -> Lazy[NDArray[np.uint8]]:
    """Return the images of items as the filters see them, uint8 (H, W, 3), resized by a factor."""
    return Lazy(items, lambda item: rgb8(resize_image(dataset.image(item), scale), dataset.card.normalisation))


def labels_of(dataset: Dataset, items: Sequence[Item], scale: float) -> Lazy[NDArray[np.integer[Any]]]:
    """Return the label maps (H, W) of items, resized by a factor, by the nearest pixel."""
    return Lazy(items, lambda item: resize_labels(dataset.labels(item), scale))
