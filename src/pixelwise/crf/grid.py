"""The contrast-sensitive CRF of 4 or 8 neighbours, TextonBoost's edge potential, whose labels are found by graph cuts.

J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost for Image Understanding", IJCV 81(1), 2009,
https://doi.org/10.1007/s11263-007-0109-1. Map from the paper to this file:

- section 3.1, edge potential theta_phi^T g_ij [c_i != c_j], g_ij = [exp(-beta |x_i - x_j|^2), 1],
  beta = 1 / (2 <|x_i - x_j|^2>) over the neighbours of an image                  -> `GridCRF.links`
- section 3.2, alpha-expansion                                                    -> `expansion.py`, `min_cut.py`

The weights theta_phi = [45, 10] are quoted from memory, as the paper was not at hand, and belong to the scores of its
boosted classifier, which reach much further than the logarithm of a network's probabilities. `GRIDS` are those for
probabilities.

Departures: eight neighbours, an option; their diagonal links count 1 / sqrt(2), by their length (Boykov, Kolmogorov,
"Computing Geodesics and Minimal Surfaces via Graph Cuts", ICCV 2003), which makes the cut's length depend less on its
direction. Colours are those of the image, red, green and blue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf.expansion import Labels, energy_of, expand
from pixelwise.crf.inputs import check_image, check_probabilities
from pixelwise.crf.lattice import Float
from pixelwise.crf.min_cut import STEPS
from pixelwise.errors import RequestError

Connectivity = Literal[4, 8]
MOST = 1e30  # of a weight, so that the sum of all stays far below the largest float32


@dataclass(frozen=True, kw_only=True)
class GridCRF:
    """Labels of least energy: unary energies, and a price for each pair of neighbours with different labels.

    Attributes:
        connectivity: 4 or 8 neighbours.
        contrast_weight: price that falls with the difference of colour, theta_phi's first.
        constant_weight: price that does not, theta_phi's second; removes small regions.
        diagonal_weight: factor of both for diagonal neighbours.
    """

    connectivity: Connectivity = 4
    contrast_weight: float = 45.0
    constant_weight: float = 10.0
    diagonal_weight: float = 1 / math.sqrt(2)

    def __post_init__(self) -> None:
        if self.connectivity not in get_args(Connectivity):
            raise RequestError(f"connectivity is {self.connectivity!r}; accepted: 4, 8. Give one.")
        for name in ("contrast_weight", "constant_weight", "diagonal_weight"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
                raise RequestError(f"{name} is {value!r}; accepted: a number from 0 to {MOST:g}. Give for example 1.")

    def links(self, image: NDArray[np.uint8]) -> Float:
        """Return the price of different labels for each pixel and its neighbours behind it.

        Args:
            image: uint8 (H, W, 3).

        Returns:
            float32 (2, H, W): to the right, below; or (4, H, W), then also below to the right and below to the left.
            0 where there is no neighbour. An image of one colour has no contrast: its links are all at their highest.
        """
        height, width = image.shape[:2]
        colors = image.astype(np.float32)
        squares = []
        for down, right in STEPS[: self.connectivity // 2]:
            here, there = _pairs(height, width, down, right)
            squares.append(((colors[here] - colors[there]) ** 2).sum(axis=-1))
        total = sum(float(square.sum(dtype=np.float64)) for square in squares)
        beta = sum(square.size for square in squares) / (2 * total) if total else 0.0
        links = np.zeros((len(squares), height, width), dtype=np.float32)
        for link, square, (down, right) in zip(links, squares, STEPS, strict=False):
            price = self.contrast_weight * np.exp(np.float32(-beta) * square) + self.constant_weight
            link[_pairs(height, width, down, right)[0]] = price * (self.diagonal_weight if down and right else 1)
        return links

    def map_labels(self, image: NDArray[np.uint8], probabilities: NDArray[np.floating]) -> Labels:
        """Return the labels of least energy, whose unary energy is the negative logarithm of probabilities.

        Args:
            image: uint8 (H, W, 3).
            probabilities: float (K, H, W), as `dense_crf` takes them.

        Returns:
            int64 (H, W). For two labels there is none better; for more, see `expansion.py`.

        Raises:
            RequestError: as `dense_crf`.

        >>> GridCRF().map_labels(np.zeros((1, 3, 3), np.uint8), np.array([[[0.9, 0.4, 0.9]], [[0.1, 0.6, 0.1]]]))
        array([[0, 0, 0]])
        """
        return expand(-np.log(check_probabilities(image, probabilities)), self.links(image))

    def least_energy(
        self, image: NDArray[np.uint8], unary: NDArray[np.floating], *, start: Labels | None = None
    ) -> Labels:
        """Return the labels of least energy for any unary energies.

        Args:
            image: uint8 (H, W, 3).
            unary: float (K, H, W), finite; what each label costs each pixel.
            start: labels int64 (H, W) to begin with; the result's energy is never above theirs.

        Returns:
            int64 (H, W).

        Raises:
            RequestError: if shapes or types are others, or an energy is not finite.
        """
        energies = _check(image, unary)
        if start is not None:
            _check_labels(start, energies)
        return expand(energies, self.links(image), start)

    def energy(self, labels: Labels, image: NDArray[np.uint8], unary: NDArray[np.floating]) -> float:
        """Return the energy of labels int64 (H, W); other arguments and errors as `least_energy`'s."""
        energies = _check(image, unary)
        _check_labels(labels, energies)
        return energy_of(labels, energies, self.links(image))


def _pairs(height: int, width: int, down: int, right: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where pixels with a neighbour in a direction are, and where those neighbours are."""
    here = slice(0, max(0, height - down)), slice(max(0, -right), width - max(0, right))
    there = slice(down, height), slice(max(0, right), width + min(0, right))
    return here, there


def _check(image: NDArray[Any], unary: NDArray[Any]) -> Float:
    """Return unary energies as float32; refuse what does not fit the image."""
    check_image(image)
    height, width = image.shape[:2]
    if unary.ndim != 3 or unary.shape[1:] != (height, width) or not len(unary):
        raise RequestError(
            f"unary has shape {unary.shape}, the image is {height} x {width}; accepted: (K, {height}, {width}). Give "
            "the energies of this image, labels first."
        )
    if not np.issubdtype(unary.dtype, np.floating) or not np.isfinite(unary).all():
        found = f"type {unary.dtype}" if not np.issubdtype(unary.dtype, np.floating) else "NaN or infinite values"
        raise RequestError(
            f"unary has {found}; accepted: finite floating point. Clip probabilities from below before the logarithm."
        )
    return np.ascontiguousarray(unary, dtype=np.float32)


def _check_labels(labels: NDArray[Any], unary: Float) -> None:
    """Refuse labels that do not fit unary energies."""
    if labels.shape != unary.shape[1:] or labels.dtype != np.int64:
        raise RequestError(
            f"labels have shape {labels.shape} and type {labels.dtype}; accepted: int64 {unary.shape[1:]}. Give one "
            "label for each pixel."
        )
    if labels.min() < 0 or labels.max() >= len(unary):
        raise RequestError(
            f"labels go from {labels.min()} to {labels.max()}; accepted: 0..{len(unary) - 1}. Give those of the unary."
        )


# For the negative logarithm of a network's probabilities; chosen on the 26 images of CamVid (480 x 360, 11 classes) for
# which there are probabilities of an ESPNet at an eighth of the size: mean IoU 0.670 without, 0.674 and 0.673 with
# these, 0.671 with 4.5 and 1, 0.586 with the paper's 45 and 10. A straight border cuts one link a pixel of four
# neighbours and 1 + sqrt 2 of eight, so that the latter's weights are smaller by this.
GRIDS = MappingProxyType(
    {
        "grid4": GridCRF(connectivity=4, contrast_weight=4.5, constant_weight=0.2),
        "grid8": GridCRF(connectivity=8, contrast_weight=1.8, constant_weight=0.08),
    }
)

__all__ = ["GRIDS", "GridCRF"]
