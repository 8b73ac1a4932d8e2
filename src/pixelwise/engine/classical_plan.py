"""Deciding what the user left open of a classical pipeline's training: threads, options, scale, rounds, validations."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.classical.boosting import Boosting
from pixelwise.classical.joint_boost import Stumps
from pixelwise.classical.textonboost import TextonBoost
from pixelwise.data.dataset import Item
from pixelwise.data.scan import Dataset
from pixelwise.engine.classical_config import ClassicalConfig
from pixelwise.engine.classical_images import ignored_of, images_of, labels_of
from pixelwise.engine.plan import (
    BUDGET_SHARE,
    MOST_VALIDATIONS,
    SMALLEST_HALVED,
    VALIDATION_SHARE,
    Clock,
    Plan,
    plan_cache,
    plan_name,
    plan_threads,
)
from pixelwise.engine.run_folder import Progress
from pixelwise.models import create_model, model_options

SEED = "seed"  # of the options, which the run's own takes the place of
PROBED = 3  # training images by which the cost of full size is told
PROBE_ROUNDS = 3
CALIBRATION_SHARE = 0.02  # of a time budget
FEWEST_CALIBRATION_ROUNDS = 4
RANDOM_STUMPS = 200  # by which the cost of a stump in prediction is told
COMPARED_IMAGES = 8  # of the validation set, on which a training compares CRFs
REPORT_IMAGES = 14  # that a report predicts, about: best and worst ones, and those of confusions
REPORT_COMPARED = 2  # of them, which it shows with several CRFs
FEWEST_ROUNDS = 300  # fewer, and half the resolution teaches more


def plan_estimator(config: ClassicalConfig) -> Plan[ClassicalConfig]:
    """Settle the model's name, its options, threads and memory."""
    plan = Plan(config)
    plan_name(plan)
    given = plan.config.options
    options = {key: given.get(key, known.default) for key, known in model_options(plan.config.model).items()}
    plan.config = plan.config.model_copy(
        update={"options": {**given, **{key: value for key, value in options.items() if key != SEED}}}
    )
    plan_threads(plan)
    plan_cache(plan)
    return plan


def build_estimator(config: ClassicalConfig, *, num_classes: int) -> TextonBoost:
    """Build the estimator that a configuration names.

    Raises:
        RequestError: for an unknown option or an impossible value.
    """
    keywords: dict[str, Any] = {SEED: config.seed, **config.options}
    estimator: object = create_model(config.model, num_classes=num_classes, **keywords)
    assert isinstance(estimator, TextonBoost)
    return estimator


@dataclass(frozen=True)
class Costs:
    """Measured seconds of the budget's clock.

    Attributes:
        round: one round.
        image: the validation of one image, with no stumps.
        stump: what it takes more with each.
        compared: the comparison of CRFs on one image.
    """

    round: float
    image: float
    stump: float = 0.0
    compared: float = 0.0

    def validations(self, count: int, num_val: int, rounds: int) -> float:
        """Return the seconds of so many validations, evenly spread over so many rounds."""
        return num_val * count * (self.image + self.stump * rounds * (count + 1) / (2 * count))

    def report(self, num_val: int) -> float:
        """Return the seconds of what follows the last round: CRFs are compared, and the report is written."""
        compared = min(num_val, COMPARED_IMAGES) + min(num_val, REPORT_COMPARED)
        return self.compared * compared + self.image * min(num_val, REPORT_IMAGES)


def measure(
    estimator: TextonBoost,
    boosting: Boosting,
    progress: Progress,
    clock: Clock,
    validate: Callable[[Sequence[Item]], object],
    compare: Callable[[Sequence[Item]], object],
    items: Sequence[Item],
    image: NDArray[np.uint8],
) -> Costs:
    """Time rounds, which are the first ones of the run, and the validation of an image.

    Rounds are added until the time is used up, four at least, and the median is taken: the first ones, and those that
    another process disturbs, say nothing about the rest. What stumps cost in prediction is told by many random ones.

    Args:
        estimator: is trained.
        boosting: gets the rounds.
        progress: counts them.
        clock: of the budget.
        validate: scores items.
        compare: scores items with several CRFs.
        items: to validate on.
        image: one of them, as the estimator sees it.
    """
    times: list[float] = []
    while len(times) < FEWEST_CALIBRATION_ROUNDS or sum(times) < CALIBRATION_SHARE * clock.limit:
        start = clock.now()
        progress.losses.append(boosting.round())
        times.append(clock.now() - start)
    progress.iteration = boosting.num_rounds

    def timed(function: Callable[[], object]) -> float:
        function()  # the first time compiles
        start = clock.now()
        function()
        return clock.now() - start

    grown = with_random_stumps(estimator, RANDOM_STUMPS)
    few = timed(lambda: estimator.predict_probabilities(image))
    more = timed(lambda: grown.predict_probabilities(image))
    stump = max(0.0, more - few) / RANDOM_STUMPS
    some = items[:: -(-len(items) // 3)]
    seen = timed(lambda: validate(some)) / len(some)
    compared = timed(lambda: compare(some[:1]))
    return Costs(statistics.median(times), max(0.0, seen - stump * progress.iteration), stump, compared)


def with_random_stumps(estimator: TextonBoost, count: int) -> TextonBoost:
    """Return an estimator of the same textons whose stumps look at random features, to time it."""
    grown, stumps = copy.copy(estimator), estimator.stumps
    num_features = int(estimator.options["num_textons"]) * int(estimator.options["num_rectangles"])
    places = np.arange(count) % len(stumps)
    features = np.random.default_rng(0).integers(num_features, size=count)
    repeated = {name: getattr(stumps, name)[places] for name in Stumps.names()}
    grown.stumps = Stumps(**{**repeated, "features": features.astype(np.int32)})
    return grown


def plan_scale(plan: Plan[ClassicalConfig], dataset: Dataset, clock: Clock | None) -> None:
    """Choose half the resolution where a time budget allows too few rounds at full size."""
    if plan.config.data.scale is not None:
        return
    card = dataset.card
    smallest = min(min(height, width) for height, width, _ in card.image_sizes)
    rounds = None if clock is None or smallest < SMALLEST_HALVED else rounds_at_full_size(plan.config, dataset, clock)
    if rounds is None or rounds >= FEWEST_ROUNDS:
        plan.decide("the images' own size", scale=1.0)
    else:
        plan.decide(f"at full size the budget would allow about {rounds} rounds", scale=0.5)


def rounds_at_full_size(config: ClassicalConfig, dataset: Dataset, clock: Clock) -> int:
    """Estimate by a few images how many rounds a time budget allows at full size."""
    items, validation = dataset.folder.split("train"), dataset.folder.split("val")
    some = items[:: max(1, len(items) // PROBED)][:PROBED]
    images, labels = images_of(dataset, some, 1.0), labels_of(dataset, some, 1.0)
    times = {"begin": 0.0, "round": 0.0, "image": 0.0}
    for _ in range(2):  # the first time compiles
        estimator = build_estimator(config, num_classes=len(dataset.card.classes))
        start = clock.now()
        boosting = estimator.begin(images, labels, ignore_index=ignored_of(dataset), num_threads=config.threads)
        times["begin"] = (clock.now() - start) / len(some)
        start = clock.now()
        for _ in range(PROBE_ROUNDS):
            boosting.round()
        times["round"] = (clock.now() - start) / PROBE_ROUNDS / len(some)
        start = clock.now()
        estimator.predict_probabilities(images[0], num_threads=config.threads)
        times["image"] = clock.now() - start
    left = (clock.limit - clock.now()) * BUDGET_SHARE - times["begin"] * len(items)
    left -= 2 * times["image"] * len(validation)
    return max(0, int(left / (times["round"] * len(items))))


def plan_rounds(
    plan: Plan[ClassicalConfig], num_val: int, costs: Costs | None = None, *, done: int = 0, left: float = 0.0
) -> None:
    """Settle the number of rounds and how often to validate.

    Args:
        plan: is completed.
        num_val: validation images.
        costs: measured times, None for a budget in iterations.
        done: rounds that there are already.
        left: seconds of the budget that are left.
    """
    config = plan.config
    validations = MOST_VALIDATIONS
    if costs is not None:
        rounds, validations = rounds_within(left * BUDGET_SHARE - costs.report(num_val), done, num_val, costs)
        limit = config.budget.cpu_minutes or config.budget.minutes
        kind = "CPU minutes" if config.budget.cpu_minutes else "minutes"
        plan.decide(f"{limit:g} {kind} at {costs.round:.3g} s a round of boosting", iterations=rounds)
    elif config.iterations is None:
        plan.decide("rounds of boosting, as asked", iterations=config.budget.iterations)
    assert plan.config.iterations is not None
    if plan.config.val_every is None:
        every = max(1, math.ceil(plan.config.iterations / validations))
        plan.decide(f"{math.ceil(plan.config.iterations / every)} validations", val_every=every)


def rounds_within(left: float, done: int, num_val: int, costs: Costs) -> tuple[int, int]:
    """Return how many rounds, and how many validations among them, fit into the seconds that are left.

    Validations take a tenth of them, if two do not take more; later ones take longer, since they use more stumps.
    """
    rounds, validations = done + 1, 2
    for _ in range(8):  # each settles one of the two by the other
        affordable = VALIDATION_SHARE * left / max(1e-9, costs.validations(1, num_val, rounds // 2))
        validations = int(min(MOST_VALIDATIONS, max(2, affordable)))
        rounds = done + max(1, int((left - costs.validations(validations, num_val, rounds)) / costs.round))
    return rounds, validations
