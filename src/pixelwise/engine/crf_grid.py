"""Which parameters of the dense CRF are worth a trial.

L.-C. Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs", ICLR 2015,
https://arxiv.org/abs/1412.7062: w2 = theta_gamma = 3 fixed, w1 from 5 to 10, theta_alpha from 50 to 100, theta_beta
from 3 to 10 on a coarse grid, then a finer one around its best point, all for images of about 500 pixels. Its second
version, https://arxiv.org/abs/1606.00915, searched theta_alpha from 30 and w1 from 3.

Here positions are scaled by the longer side of the images over 500, steps are factors, and small weights are tried too,
w2 at 0.4 w1 then: kernels are normalised, so that strong ones wash weak probabilities out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Search = Literal["grid", "random"]
SIDE = 500  # pixels of the longer side of the images that published values are for
THETA_ALPHA = (30.0, 55.0, 100.0)
THETA_BETA = (3.0, 5.5, 10.0)
THETA_GAMMA = 3.0
# w1 and w2 of the appearance and of the smoothness kernel.
WEIGHTS = ((0.1, 0.04), (0.25, 0.1), (0.5, 0.2), (1.0, 0.4), (2.5, 1.0), (5.0, 3.0), (7.0, 3.0), (10.0, 3.0))
# The second round: factors around the best point of the first, one of both sigmas at a time.
FINER_SIGMAS = ((1.0, 1.0), (0.74, 1.0), (1.35, 1.0), (1.0, 0.74), (1.0, 1.35))
FINER_WEIGHTS = (0.7, 1.0, 1.4)
# Random trials: the range of all published presets, and small weights; even on a logarithmic scale.
RANGES = {
    "theta_alpha": (20.0, 160.0),
    "theta_beta": (3.0, 13.0),
    "theta_gamma": (1.0, 3.0),
    "w1": (0.1, 10.0),
    "w2": (0.1, 3.0),
}
WEIGHTS_A_LATTICE = 10  # random weights that share lattices
RANDOM_TRIALS = 200


@dataclass(frozen=True)
class Sigmas:
    """What decides the lattices: theta_alpha and theta_gamma in pixels, theta_beta in steps of colours of 0..255."""

    theta_alpha: float
    theta_beta: float
    theta_gamma: float


@dataclass(frozen=True)
class Weights:
    """w1 of the appearance and w2 of the smoothness kernel."""

    w1: float
    w2: float


@dataclass(frozen=True)
class Batch:
    """Trials that share their lattices."""

    sigmas: Sigmas
    weights: tuple[Weights, ...]


def first_grid(longer_side: float) -> list[Batch]:
    """Return the coarse grid, its middle first."""
    scale = longer_side / SIDE
    middle = (math.sqrt(THETA_ALPHA[0] * THETA_ALPHA[-1]), math.sqrt(THETA_BETA[0] * THETA_BETA[-1]))
    pairs = sorted(
        itertools.product(THETA_ALPHA, THETA_BETA),
        key=lambda pair: sum(abs(math.log(value / wanted)) for value, wanted in zip(pair, middle, strict=True)),
    )
    weights = tuple(Weights(w1, w2) for w1, w2 in WEIGHTS)
    return [Batch(_rounded(alpha * scale, beta, THETA_GAMMA * scale), weights) for alpha, beta in pairs]


def finer_grid(sigmas: Sigmas, weights: Weights) -> list[Batch]:
    """Return the trials around a point, that one's lattices first and without the point itself."""
    around = tuple(
        Weights(_short(weights.w1 * a), _short(weights.w2 * b))
        for a, b in itertools.product(FINER_WEIGHTS, FINER_WEIGHTS)
    )
    batches = [
        Batch(_rounded(sigmas.theta_alpha * a, sigmas.theta_beta * b, sigmas.theta_gamma), around)
        for a, b in FINER_SIGMAS
    ]
    same = tuple(each for each in around if each != weights)
    return [Batch(batches[0].sigmas, same), *batches[1:]]


def random_trials(longer_side: float, count: int, seed: int) -> list[Batch]:
    """Return so many random trials, ten on the same lattices."""
    rng, scale = np.random.default_rng(seed), longer_side / SIDE

    def draw(name: str) -> float:
        low, high = RANGES[name]
        return float(np.exp(rng.uniform(math.log(low), math.log(high))))

    batches = []
    for first in range(0, count, WEIGHTS_A_LATTICE):
        sigmas = _rounded(draw("theta_alpha") * scale, draw("theta_beta"), draw("theta_gamma") * scale)
        size = min(WEIGHTS_A_LATTICE, count - first)
        batches.append(Batch(sigmas, tuple(Weights(_short(draw("w1")), _short(draw("w2"))) for _ in range(size))))
    return batches


def cut(batches: Iterable[Batch], most: int | None) -> list[Batch]:
    """Return the first trials, at most so many; None keeps all."""
    if most is None:
        return list(batches)
    kept = []
    for batch in batches:
        if most <= 0:
            break
        kept.append(Batch(batch.sigmas, batch.weights[:most]))
        most -= len(batch.weights)
    return kept


def count_trials(batches: Sequence[Batch]) -> int:
    """Return how many trials there are."""
    return sum(len(batch.weights) for batch in batches)


def _rounded(theta_alpha: float, theta_beta: float, theta_gamma: float) -> Sigmas:
    return Sigmas(_short(theta_alpha), _short(theta_beta), _short(theta_gamma))


def _short(value: float) -> float:
    """Round to three digits, which are read and retyped by people."""
    return float(f"{value:.3g}")
