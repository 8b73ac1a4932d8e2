"""One image with its truth, as files on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ImageItem:
    """One image, whatever its truth is.

    Attributes:
        name: the name of all that is made from it, one of its split.
        split: "train", "val", ...
        image: path of the image.
        page: number of the page in a stack, None for a file of one image.
    """

    name: str
    split: str
    image: Path
    page: int | None = None

    @property
    def key(self) -> str:
        """What tells this item from all others of its data set."""
        return f"{self.split}/{self.name}"

    @property
    def files(self) -> tuple[Path | None, ...]:
        """All files that it is made of, each in its place."""
        return (self.image,)


@dataclass(frozen=True, kw_only=True)
class Item(ImageItem):
    """One image with its mask.

    Attributes:
        name: the image's file name without its ending, and `_000`, ... for a page of a stack.
        mask: path of the mask; a folder where each object has a file of its own.
        instances: path of the 16-bit object map, if there is one.
        page: of image, mask and instances alike.
    """

    mask: Path
    instances: Path | None = None

    @property
    def files(self) -> tuple[Path | None, ...]:
        """Image, mask and object map."""
        return (self.image, self.mask, self.instances)
