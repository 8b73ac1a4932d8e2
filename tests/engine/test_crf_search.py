"""Searching parameters of the dense CRF."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelwise.crf.dense import CRFParameters
from pixelwise.crf.dense import refine as dense_refine
from pixelwise.engine import crf_search
from pixelwise.engine.crf_grid import (
    RANGES,
    Sigmas,
    Weights,
    count_trials,
    cut,
    finer_grid,
    first_grid,
    random_trials,
)
from pixelwise.engine.crf_search import Found, Plan, Trial, half_of, search
from pixelwise.engine.unaries import Unaries, Unary
from pixelwise.errors import RequestError
from pixelwise.metrics import confusion_matrix

SIZE = (12, 16)
PUBLISHED = CRFParameters(
    spatial_sigma=3.0,
    bilateral_spatial_sigma=55.0,
    bilateral_color_sigma=5.5,
    bilateral_weight=5.0,
    normalization="after",
)


def noisy(seed: int, labels: int = 3) -> Unary:
    """A picture of stripes, and probabilities that are often wrong."""
    rng = np.random.default_rng(seed)
    truth = (np.arange(SIZE[1])[None] * labels // SIZE[1]).repeat(SIZE[0], axis=0).astype(np.uint8)
    picture = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)[truth]
    chosen = np.where(rng.random(SIZE) < 0.4, rng.integers(0, labels, SIZE), truth)
    maps = 0.2 + 0.4 * (np.arange(labels)[:, None, None] == chosen)
    truth[0, 0] = 255
    return Unary(picture=picture, probabilities=maps.astype(np.float16), truth=truth)


def found_for(unaries: Unaries, metric: str = "miou") -> Found:
    halves = np.zeros((2, 3, 3), np.int64)
    for index in range(len(unaries)):
        labels = unaries[index].probabilities.argmax(axis=0)
        halves[half_of(index, len(unaries))] += confusion_matrix(labels, unaries[index].truth, 3, 255)
    return Found(classes=("a", "b", "c"), metric=metric, num_images=len(unaries), unary=halves)


def searched(count: int = 3, unaries: Unaries | None = None, **plan: Any) -> Found:
    unaries = Unaries() if unaries is None else unaries
    for seed in range(count):
        unaries.add(noisy(seed))
    found = found_for(unaries)
    search(unaries, found, Plan(**plan), longer_side=500, ignore_index=255)
    return found


def test_every_trial_is_what_the_parameters_give() -> None:
    found = searched(2, trials=9, iterations=(2, 5))
    assert [trial.parameters.iterations for trial in found.trials] == [2, 5] * 4
    for trial in found.trials:
        total = np.zeros((3, 3), np.int64)
        for seed in range(2):
            unary = noisy(seed)
            beliefs = dense_refine(unary.picture, unary.probabilities.astype(np.float32), trial.parameters)
            total += confusion_matrix(beliefs.argmax(axis=0), unary.truth, 3, 255)
        np.testing.assert_array_equal(trial.confusion, total)


def test_the_best_is_better_than_what_was_given() -> None:
    found = searched()
    assert found.best is not None
    assert found.score(found.best.confusion) > found.score(found.unary.sum(axis=0)) + 0.1
    assert len(found.trials) == found.num_planned
    assert {trial.planned for trial in found.trials} == {True, False}
    assert PUBLISHED in [trial.parameters for trial in found.trials]


def test_the_first_of_equals_is_the_best_and_equal_is_not_better() -> None:
    right, wrong = np.array([[[3, 0], [0, 3]]] * 2), np.array([[[2, 1], [0, 3]]] * 2)
    found = Found(classes=("a", "b"), metric="pixel_accuracy", num_images=2, unary=wrong)
    same = [
        Trial(parameters=CRFParameters(iterations=n), halves=counts, planned=True)
        for n, counts in enumerate((wrong, right, right))
    ]
    found.trials = same[:1]
    assert found.best is None
    found.trials = same
    assert found.best is same[1]


def test_halves_cross_validate_the_choice() -> None:
    """A trial that helps the first half only is chosen there, and hurts where it is scored."""
    good, bad, alone = np.diag([4, 4]), np.array([[2, 2], [2, 2]]), np.array([[3, 1], [1, 3]])
    found = Found(classes=("a", "b"), metric="pixel_accuracy", num_images=10, unary=np.stack([alone, alone]))
    found.trials = [Trial(parameters=CRFParameters(), halves=np.stack([good, bad]), planned=True)]
    # the first half chooses the trial, the second none
    assert found.cross_validated() == pytest.approx((4 + 6) / 16)
    found.trials = [replace(found.trials[0], planned=False)]  # placed with knowledge of all images
    assert found.cross_validated() == pytest.approx(12 / 16)
    found.num_images = 9
    assert found.cross_validated() is None


def test_time_ends_a_search_after_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000))
    monkeypatch.setattr(crf_search.time, "monotonic", lambda: next(now))
    found = searched(2, minutes=5.5 / 60)
    assert 0 < len(found.trials) < found.num_planned
    assert len(found.trials) % 8 == 0
    monkeypatch.setattr(crf_search.time, "monotonic", lambda: next(now))
    with pytest.raises(
        RequestError, match=r"minutes 0\.01.*: over before 8 sets of parameters were tried on all 3 images"
    ):
        searched(3, minutes=0.01)


def test_steps_are_counted_to_the_end() -> None:
    steps: list[tuple[int, int]] = []
    for words in ({}, {"trials": 10}, {"trials": 3}, {"search": "random", "trials": 25}):
        unaries = Unaries()
        unaries.add(noisy(0))
        steps.clear()
        found = found_for(unaries)
        search(
            unaries, found, Plan(**words), longer_side=50, ignore_index=255, on_step=lambda *step: steps.append(step)
        )
        assert steps == [(number, steps[-1][1]) for number in range(1, steps[-1][1] + 1)]
        assert len(found.trials) == found.num_planned == words.get("trials", found.num_planned)


def test_the_grid_scales_positions_alone() -> None:
    small, large = first_grid(250)[0], first_grid(500)[0]
    assert large.sigmas == Sigmas(55, 5.5, 3)
    assert small.sigmas == Sigmas(27.5, 5.5, 1.5)
    assert Weights(7, 3) in large.weights


def test_the_finer_grid_surrounds_a_point_and_leaves_it_out() -> None:
    batches = finer_grid(Sigmas(70, 5.5, 3), Weights(5, 3))
    assert batches[0].sigmas == Sigmas(70, 5.5, 3)
    assert Weights(5, 3) not in batches[0].weights
    assert Weights(5, 3) in batches[1].weights
    assert count_trials(batches) == 44
    assert count_trials(cut(batches, 11)) == 11
    assert cut(batches, 0) == []


def test_random_trials_are_those_of_the_seed() -> None:
    trials = random_trials(500, 23, seed=4)
    assert trials == random_trials(500, 23, seed=4) != random_trials(500, 23, seed=5)
    assert count_trials(trials) == 23
    for batch in trials:
        for name, (low, high) in RANGES.items():
            values = [getattr(each, name) for each in ([batch.sigmas] if "theta" in name else batch.weights)]
            assert all(0.99 * low <= value <= 1.01 * high for value in values)


def test_unaries_beyond_the_memory_go_to_files_and_vanish() -> None:
    with Unaries(memory_bytes=5000) as unaries:
        for seed in range(4):
            unaries.add(noisy(seed))
        assert unaries._folder is not None
        folder = Path(unaries._folder.name)
        assert len(list(folder.iterdir())) == 2
        for seed in range(4):
            for name, array in unaries[seed].arrays.items():
                np.testing.assert_array_equal(array, noisy(seed).arrays[name])
    assert not folder.exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"search": "bayes"}, "search is 'bayes'; accepted: grid or random"),
        ({"trials": 0}, "trials is 0; accepted: 1 and more"),
        ({"seed": 3}, "seed 3 has no effect on a grid"),
        ({"seed": -3, "search": "random"}, "seed -3 is below 0"),
        ({"minutes": 0}, "minutes is 0; accepted: above 0"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"iterations": ()}, "iterations: none; accepted: whole numbers from 1"),
        ({"iterations": (10, 5)}, "iterations: 10, 5; accepted: .* each above the one before"),
        ({"iterations": (0, 5)}, "iterations: 0, 5"),
        ({"normalization": "both"}, "normalization is 'both'; accepted: none, before, after, symmetric"),
        ({"metric": "iou"}, "metric is 'iou'; closest: miou"),
    ],
)
def test_impossible_plans(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Plan(**given)
