"""The location potential of TextonBoost: what is where in the training images.

J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost for Image Understanding", IJCV 81(1), 2009, section 3:
lambda(c, i) = log ((N_{c,i^} + alpha) / (N_{i^} + alpha))^w, where N counts the training pixels whose place, brought to
a square that all images are mapped to, is i^; alpha = 1, w = 0.1. Numbers are quoted from memory; the side of the
square is ours.

Axes: K classes; G cells along each side of the square; H, W image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import RequestError

SIDE = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class LocationPotential:
    """How often each class was seen at each place.

    Attributes:
        counts: int64 (K, G, G), training pixels of a class whose place is in a cell (down, right).
        alpha: counts that each cell is thought to have had before; keeps classes never seen in a cell possible.
        weight: w, the power of the shares: how much places count beside other potentials.
    """

    counts: NDArray[np.int64]
    alpha: float = 1.0
    weight: float = 0.1

    def __post_init__(self) -> None:
        shape = self.counts.shape
        if len(shape) != 3 or not shape[0] or shape[1] != shape[2] or not shape[1] or self.counts.min() < 0:
            raise RequestError(
                f"counts have shape {shape}; accepted: numbers from 0, (K, G, G). Learn them by "
                "`LocationPotential.fit`."
            )
        if not 0 < self.alpha < np.inf:
            raise RequestError(f"alpha is {self.alpha!r}; accepted: a number above 0. Give for example 1.")
        if not 0 <= self.weight < np.inf:
            raise RequestError(f"weight is {self.weight!r}; accepted: a number from 0. Give for example 0.1.")

    @classmethod
    def fit(
        cls,
        labels: Iterable[NDArray[np.integer]],
        *,
        num_classes: int,
        ignore_index: int = 255,
        side: int = SIDE,
        alpha: float = 1.0,
        weight: float = 0.1,
    ) -> Self:
        """Count the classes of label maps (H, W) of any sizes; -1 and `ignore_index` are not counted.

        Args:
            labels: label maps, read once.
            num_classes: K.
            ignore_index: label of pixels that are not counted.
            side: G.
            alpha: see the class.
            weight: see the class.

        Raises:
            RequestError: if a label is out of range, or an option is impossible.

        >>> LocationPotential.fit([np.array([[0, 1], [0, 0]])], num_classes=2, side=2).counts[1].tolist()
        [[0, 1], [0, 0]]
        """
        if side < 1 or num_classes < 1:
            raise RequestError(
                f"num_classes is {num_classes} and side {side}; accepted: whole numbers from 1. Give for example 21 "
                f"and {SIDE}."
            )
        counts = np.zeros((num_classes, side, side), dtype=np.int64)
        for index, truth in enumerate(labels):
            counted = (truth != ignore_index) & (truth != -1)
            chosen = truth[counted].astype(np.int64)
            if truth.ndim != 2 or ((chosen < 0) | (chosen >= num_classes)).any():
                raise RequestError(
                    f"label map {index} has shape {truth.shape} and labels from {truth.min()} to {truth.max()}; "
                    f"accepted: (H, W), 0 to {num_classes - 1}, and -1 or {ignore_index} for pixels that don't count. "
                    "Map other labels to these."
                )
            rows, columns = _cells(truth.shape, side)
            cells = (rows[:, None] * side + columns)[counted]
            counts += np.bincount(chosen * side**2 + cells, minlength=counts.size).reshape(counts.shape)
        return cls(counts=counts, alpha=alpha, weight=weight)

    def potential(self, height: int, width: int) -> NDArray[np.float32]:
        """Return the potential of an image's pixels, float32 (K, H, W): logarithms, from very low to 0."""
        total = self.counts.sum(axis=0)
        table = self.weight * np.log((self.counts + self.alpha) / (total + self.alpha))
        rows, columns = _cells((height, width), self.counts.shape[1])
        potential: NDArray[np.float32] = table.astype(np.float32)[:, rows[:, None], columns]
        return potential

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return everything that prediction needs, as arrays."""
        return {"counts": self.counts, "options": np.array([self.alpha, self.weight])}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild a potential from `state_dict`.

        Raises:
            RequestError: if arrays are missing or impossible.
        """
        if missing := {"counts", "options"} - state.keys():
            raise RequestError(
                f"the state lacks {', '.join(sorted(missing))}; accepted: what `state_dict` returned, complete. Save "
                "the model again."
            )
        alpha, weight = state["options"].tolist()
        return cls(counts=state["counts"].astype(np.int64), alpha=alpha, weight=weight)


def _cells(shape: tuple[int, ...], side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row and the column of the square where the centre of each row and column of an image is."""
    rows, columns = ((2 * np.arange(size) + 1) * side // (2 * size) for size in shape[:2])
    return rows, columns
