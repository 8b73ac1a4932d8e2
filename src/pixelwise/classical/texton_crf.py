"""TextonBoost's conditional random field: texture-layout, location, colour and edge potentials together.

J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost for Image Understanding", IJCV 81(1), 2009, section 3:
log P(c | x) = sum_i psi(c_i, x) + pi(c_i, x_i) + lambda(c_i, i) + sum_ij phi(c_i, c_j, g_ij(x)) - log Z.

- psi, the logarithm of a classifier's probabilities (of `textonboost.py`, or any)  -> argument of `map_labels`
- pi, colour                                                                        -> `color_model.py`
- lambda, location                                                                  -> `location.py`
- phi, edges, and the labels of least energy by alpha-expansion                     -> `crf/grid.py`

Colour needs labels, and labels colour: the first labels are found without it, then both in turn, twice in the paper.

The paper's weights (`TextonCRF.paper`) go with the boosted scores of 5000 rounds, whose logarithms reach far. The
defaults, softer edges and no colour, are for less sure classifiers. They were chosen on CamVid for `TextonBoost` with
150 textons and 150 rounds on 41 images of 240 x 180, by the pixel accuracy on 21 others: 0.709 alone, 0.768 with these
edges, 0.771 with colour of weight 0.1 too, 0.743 with colour of weight 0.4, 0.669 with all weights of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pixelwise.classical.color_model import ColorModel
from pixelwise.classical.location import LocationPotential
from pixelwise.crf.expansion import Labels
from pixelwise.crf.grid import GridCRF
from pixelwise.crf.inputs import check_probabilities
from pixelwise.errors import RequestError

EDGE = GridCRF(contrast_weight=9.0, constant_weight=0.3)


@dataclass(frozen=True, kw_only=True)
class TextonCRF:
    """The potentials that are added to a classifier's.

    Attributes:
        edge: what neighbours with different labels cost.
        location: what the place of a pixel says; None leaves it out.
        color: what its colour says; None leaves it out.
        iterations: how often colour is learnt and labels are found again; has no effect without colour.
    """

    edge: GridCRF = EDGE
    location: LocationPotential | None = None
    color: ColorModel | None = None
    iterations: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise RequestError(
                f"iterations is {self.iterations!r}; accepted: whole numbers from 1. Give for example 2, or color=None."
            )

    @classmethod
    def paper(cls, location: LocationPotential | None = None) -> Self:
        """Return all potentials with the weights of the paper."""
        return cls(edge=GridCRF(), location=location, color=ColorModel())

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
