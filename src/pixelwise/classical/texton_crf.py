"""TextonBoost's conditional random field: texture-layout, location, colour and edge potentials together.

J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost for Image Understanding", IJCV 81(1), 2009, section 3:
log P(c | x) = sum_i psi(c_i, x) + pi(c_i, x_i) + lambda(c_i, i) + sum_ij phi(c_i, c_j, g_ij(x)) - log Z.

- psi, the logarithm of a classifier's probabilities (of `textonboost.py`, or any)  -> argument of `map_labels`
- pi, colour                                                                        -> `color_model.py`
- lambda, location                                                                  -> `location.py`
- phi, edges, and the labels of least energy by alpha-expansion                     -> `crf/grid.py`

Colour needs labels, and labels colour: the first labels are found without it, then both in turn, twice in the paper.

Departure: the edge weights of the paper go with the boosted scores of 5000 rounds; the default is `grid.GRIDS`' for
probabilities as such. `GridCRF()` has the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pixelwise.classical.color_model import ColorModel
from pixelwise.classical.location import LocationPotential
from pixelwise.crf.dense import check_probabilities
from pixelwise.crf.expansion import Labels
from pixelwise.crf.grid import GRIDS, GridCRF
from pixelwise.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class TextonCRF:
    """The potentials that are added to a classifier's.

    Attributes:
        edge: what neighbours with different labels cost.
        location: what the place of a pixel says; None leaves it out.
        color: what its colour says; None leaves it out.
        iterations: how often colour is learnt and labels are found again.
    """

    edge: GridCRF = field(default_factory=lambda: GRIDS["grid4"])
    location: LocationPotential | None = None
    color: ColorModel | None = field(default_factory=ColorModel)
    iterations: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise RequestError(
                f"iterations is {self.iterations!r}; accepted: whole numbers from 1. Give for example 2, or color=None."
            )

    def map_labels(self, image: NDArray[np.uint8], probabilities: NDArray[np.floating]) -> Labels:
        """Return the likeliest labels.

        Args:
            image: uint8 (H, W, 3).
            probabilities: float (K, H, W), of any classifier, as `dense_crf` takes them.

        Returns:
            int64 (H, W).

        Raises:
            RequestError: as `dense_crf`, or if there are other classes than the location potential has.
        """
        unary = -np.log(check_probabilities(image, probabilities))
        if self.location is not None:
            if len(self.location.counts) != len(unary):
                raise RequestError(
                    f"there are probabilities of {len(unary)} classes, and {len(self.location.counts)} have places; "
                    "accepted: as many of both. Learn the places from labels of the same classes."
                )
            unary -= self.location.potential(*image.shape[:2])
        labels = self.edge.least_energy(image, unary)
        if self.color is None:
            return labels
        clusters = self.color.clusters(image)
        for _ in range(self.iterations):
            colored = unary - self.color.potential(clusters, labels, num_classes=len(unary))
            labels = self.edge.least_energy(image, colored)
        return labels
