"""Images with their probabilities and labels, computed once and read many times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.images import AnyArray

MEMORY_BYTES = 2**30  # beyond, arrays go to files


@dataclass(frozen=True, kw_only=True)
class Unary:
    """One image to try a CRF on.

    Attributes:
        picture: uint8 (H, W, 3).
        probabilities: float16 (K, H, W).
        truth: class ids, (H, W).
    """

    picture: NDArray[np.uint8]
    probabilities: NDArray[np.float16]
    truth: AnyArray

    @property
    def arrays(self) -> dict[str, AnyArray]:
        """All arrays by name."""
        return {"picture": self.picture, "probabilities": self.probabilities, "truth": self.truth}


class Unaries:
    """A growing list of them, in memory up to so many bytes, the others in a temporary folder that goes at the end.

    Args:
        memory_bytes: of arrays that stay in memory.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._left = memory_bytes
        self._kept: list[Unary | Path] = []
        self._folder: TemporaryDirectory[str] | None = None

    def __enter__(self) -> Unaries:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, unary: Unary) -> None:
        """Keep one."""
        size = sum(array.nbytes for array in unary.arrays.values())
        if size <= self._left:
            self._left -= size
            self._kept.append(unary)
            return
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="pixelwise-unaries-")
        path = Path(self._folder.name) / f"{len(self._kept)}.npz"
        np.savez(path, **unary.arrays)  # type: ignore[arg-type]  # its other parameter is not among the names
        self._kept.append(path)

    def __getitem__(self, index: int) -> Unary:
        kept = self._kept[index]
        if isinstance(kept, Unary):
            return kept
        with np.load(kept, allow_pickle=False) as arrays:
            return Unary(**arrays)
