"""Searching the parameters of the dense CRF that suit a model: what every trial scores, and what that is worth.

All trials of a batch share the lattices of an image, which are built once; numbers of iterations are looked at on the
way. Confusion matrices are kept for the first and the second half of the images apart, so that the choice can be
cross-validated without a further inference.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf.dense import CRFParameters, check_probabilities, color_features, position_features
from pixelwise.crf.mean_field import MeanField, Normalization
from pixelwise.crf.refiner import labels_of
from pixelwise.engine.crf_grid import (
    RANDOM_TRIALS,
    Batch,
    Search,
    Sigmas,
    Weights,
    count_trials,
    cut,
    finer_grid,
    first_grid,
    random_trials,
)
from pixelwise.engine.unaries import Unaries, Unary
from pixelwise.errors import RequestError, closest
from pixelwise.metrics import confusion_matrix, semantic_scores

METRICS = ("miou", "pixel_accuracy")
FEWEST_TO_CROSS = 10  # images from which on halves say something
Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched for, and how; checked when it is made.

    Attributes:
        search: "grid", coarse to fine, or "random".
        trials: at most so many; None takes the whole grid, or 200 random ones.
        seed: of random trials; None takes 0.
        minutes: after which no batch is begun, and one that has begun does not count; None for no end.
        iterations: of mean field, ascending; each is a trial of its own.
        normalization: of the kernels.
        metric: what the best trial has most of.
    """

    search: Search = "grid"
    trials: int | None = None
    seed: int | None = None
    minutes: float | None = None
    iterations: tuple[int, ...] = (10,)
    normalization: Normalization = "after"
    metric: str = "miou"

    def __post_init__(self) -> None:
        if self.search not in ("grid", "random"):
            raise RequestError(f"search is {self.search!r}; accepted: grid or random. Give one.")
        if self.trials is not None and self.trials < 1:
            raise RequestError(f"trials is {self.trials}; accepted: 1 and more. Give for example 100.")
        if self.seed is not None and (self.search == "grid" or self.seed < 0):
            what = "has no effect on a grid" if self.search == "grid" else "is below 0"
            raise RequestError(f"seed {self.seed} {what}; accepted: from 0, with a random search. Leave it out.")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise RequestError(f"minutes is {self.minutes:g}; accepted: above 0. Give for example 10.")
        ascending = tuple(sorted(set(self.iterations)))
        if not ascending or ascending != tuple(self.iterations) or ascending[0] < 1:
            raise RequestError(
                f"iterations: {', '.join(map(str, self.iterations)) or 'none'}; accepted: whole numbers from 1, each "
                "above the one before. Give for example 10, or 2,5,10."
            )
        if self.metric not in METRICS:
            raise RequestError(
                f"metric is {self.metric!r}; closest: {closest(self.metric, METRICS)}. Accepted: {', '.join(METRICS)}."
            )
        CRFParameters(normalization=self.normalization)  # refuses unknown ones


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One set of parameters.

    Attributes:
        parameters: the set.
        halves: confusion matrices of the first and the second half of the images, int64 (2, K, K), rows truth.
        planned: it was chosen before any image was scored, not placed around the best so far.
    """

    parameters: CRFParameters
    halves: Counts
    planned: bool

    @property
    def confusion(self) -> Counts:
        """Over all images, int64 (K, K)."""
        total: Counts = self.halves.sum(axis=0)
        return total


@dataclass(kw_only=True)
class Found:
    """What a search found.

    Attributes:
        classes: names in index order.
        metric: what was looked for.
        num_images: of both halves.
        unary: confusion matrices of the probabilities alone, int64 (2, K, K).
        trials: in the order of the search.
        num_planned: trials of the whole search, which time may have cut.
    """

    classes: tuple[str, ...]
    metric: str
    num_images: int
    unary: Counts
    trials: list[Trial] = field(default_factory=list)
    num_planned: int = 0

    def score(self, confusion: Counts) -> float:
        """Return the metric of a confusion matrix."""
        value = getattr(semantic_scores(confusion, self.classes), self.metric)
        return -math.inf if value is None else float(value)

    @property
    def best(self) -> Trial | None:
        """The first of the best trials, if it is better than the probabilities alone."""
        best = max(self.trials, key=lambda trial: self.score(trial.confusion))
        return best if self.score(best.confusion) > self.score(self.unary.sum(axis=0)) else None

    def cross_validated(self) -> float | None:
        """Return the metric over all images, each scored with what the other half of the images chose.

        What is chosen is a trial that was planned beforehand, or no CRF where none helps that half. None where there
        are too few images.
        """
        if self.num_images < FEWEST_TO_CROSS:
            return None
        candidates = [self.unary, *(trial.halves for trial in self.trials if trial.planned)]
        held_out = np.zeros_like(self.unary[0])
        for chosen_on, scored_on in ((0, 1), (1, 0)):
            best = max(candidates, key=lambda halves: self.score(halves[chosen_on]))
            held_out += best[scored_on]
        return self.score(held_out)


def search(
    unaries: Unaries,
    found: Found,
    plan: Plan,
    *,
    longer_side: float,
    ignore_index: int | None,
    on_step: Callable[[int, int], None] | None = None,
) -> None:
    """Try parameters on all images.

    Args:
        unaries: the images, neighbours beside each other.
        found: what is known before; trials are added.
        plan: which.
        longer_side: pixels of the images' longer side.
        ignore_index: value of pixels that do not count.
        on_step: called with the images of all batches that are done and to do.

    Raises:
        RequestError: if the minutes are over before a single batch was tried on all images.
    """
    per_weight = len(plan.iterations)
    most = None if plan.trials is None else max(1, plan.trials // per_weight)
    rounds = [cut(_first_round(plan, longer_side, most), most)]
    left = None if most is None else most - count_trials(rounds[0])
    if plan.search == "grid":
        rounds.append(cut(finer_grid(Sigmas(1, 1, 1), Weights(1, 1)), left))  # as many as there will be
    clock = _Clock(plan.minutes, total=sum(map(len, rounds)) * len(unaries), on_step=on_step)
    found.num_planned = sum(map(count_trials, rounds)) * per_weight
    for number, planned in enumerate(rounds):
        for batch in cut(_around(found), left) if number else planned:
            trials = _try(unaries, batch, plan, clock, len(found.classes), ignore_index, planned=not number)
            if trials is None:
                break
            found.trials += trials
        if clock.over():
            break
    if not found.trials:
        raise RequestError(
            f"minutes {plan.minutes:g}: over before {len(rounds[0][0].weights)} sets of parameters were tried on all "
            f"{len(unaries)} images; accepted: more minutes or fewer images. Raise it, or name some images with --list."
        )


def _first_round(plan: Plan, longer_side: float, most: int | None) -> list[Batch]:
    if plan.search == "grid":
        return first_grid(longer_side)
    return random_trials(longer_side, RANDOM_TRIALS if most is None else most, plan.seed or 0)


def _around(found: Found) -> list[Batch]:
    """Return the finer grid around the best trial, whether it helps or not."""
    best = max(found.trials, key=lambda trial: found.score(trial.confusion)).parameters
    sigmas = Sigmas(best.bilateral_spatial_sigma, best.bilateral_color_sigma, best.spatial_sigma)
    return finer_grid(sigmas, Weights(best.bilateral_weight, best.spatial_weight))


class _Clock:
    """Counts images, and knows when the minutes are over."""

    def __init__(self, minutes: float | None, *, total: int, on_step: Callable[[int, int], None] | None) -> None:
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.done, self.total, self.on_step = 0, total, on_step

    def over(self) -> bool:
        return time.monotonic() >= self.end

    def step(self) -> None:
        self.done += 1
        if self.on_step is not None:
            self.on_step(self.done, self.total)


def _try(
    unaries: Unaries,
    batch: Batch,
    plan: Plan,
    clock: _Clock,
    num_classes: int,
    ignore_index: int | None,
    *,
    planned: bool,
) -> list[Trial] | None:
    """Return the trials of a batch over all images, or None where the time was over before the last one."""
    sets = [_parameters(batch.sigmas, weights, count, plan) for weights in batch.weights for count in plan.iterations]
    halves = np.zeros((len(sets), 2, num_classes, num_classes), dtype=np.int64)
    for index in range(len(unaries)):
        if clock.over():
            return None
        unary = unaries[index]
        for number, labels in enumerate(_labels(unary, batch, plan)):
            half = half_of(index, len(unaries))
            halves[number, half] += confusion_matrix(labels, unary.truth, num_classes, ignore_index)
        clock.step()
    return [Trial(parameters=each, halves=counts, planned=planned) for each, counts in zip(sets, halves, strict=True)]


def _labels(unary: Unary, batch: Batch, plan: Plan) -> Iterator[NDArray[np.integer]]:
    """Yield the labels of an image for all weights of a batch, and for each after all numbers of iterations."""
    height, width = unary.picture.shape[:2]
    checked = check_probabilities(unary.picture, unary.probabilities.astype(np.float32))
    sigmas = batch.sigmas
    kernels = MeanField(
        [
            position_features(height, width, sigmas.theta_gamma),
            color_features(unary.picture, sigmas.theta_alpha, sigmas.theta_beta),
        ],
        plan.normalization,
    )
    points = checked.reshape(len(checked), -1)  # (K, H W)
    for weights in batch.weights:
        for beliefs in kernels.infer_each(points, [weights.w2, weights.w1], iterations=plan.iterations):
            yield labels_of(beliefs.reshape(checked.shape))


def _parameters(sigmas: Sigmas, weights: Weights, iterations: int, plan: Plan) -> CRFParameters:
    return CRFParameters(
        spatial_sigma=sigmas.theta_gamma,
        spatial_weight=weights.w2,
        bilateral_spatial_sigma=sigmas.theta_alpha,
        bilateral_color_sigma=sigmas.theta_beta,
        bilateral_weight=weights.w1,
        iterations=iterations,
        normalization=plan.normalization,
    )


def half_of(index: int, count: int) -> int:
    """Return 0 for the images of the first half, 1 for the others; neighbours, often near copies, stay together.

    >>> [half_of(index, 5) for index in range(5)]
    [0, 0, 0, 1, 1]
    """
    return int(index >= (count + 1) // 2)
