"""One image with its truth, as files on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image with its truth.

    Attributes:
        name: the image's file name without its ending, and `_000`, ... for a page of a stack; the name of all that
            is made from it.
        split: "train", "val", ...
        image: path of the image.
        mask: path of the mask; a folder where each object has a file of its own.
        instances: path of the 16-bit object map, if there is one.
        page: number of the page in stacks (image, mask and instances alike), None for files of one image.
    """

    name: str
    split: str
    image: Path
    mask: Path
    instances: Path | None = None
    page: int | None = None

    @property
    def key(self) -> str:
        """What tells this item from all others of its data set."""
        return f"{self.split}/{self.name}"
