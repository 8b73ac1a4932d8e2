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
    """

    name: str
    split: str
    image: Path

    @property
    def key(self) -> str:
        """What tells this item from all others of its data set."""
        return f"{self.split}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Item(ImageItem):
    """One image with its mask.

    Attributes:
        name: the image's file name without its ending, and `_000`, ... for a page of a stack.
        mask: path of the mask; a folder where each object has a file of its own.
        instances: path of the 16-bit object map, if there is one.
        page: number of the page in stacks (image, mask and instances alike), None for files of one image.
    """

    mask: Path
    instances: Path | None = None
    page: int | None = None
