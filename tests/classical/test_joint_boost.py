from __future__ import annotations

from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pixelwise.classical.joint_boost import DenseFeatures, JointBoostClassifier, JointBoosting, Stumps
from pixelwise.errors import RequestError

Values = NDArray[np.float64]

THRESHOLDS = np.array([-0.8, -0.2, 0.1, 0.9])


def toy(seed: int, *, classes: int = 4, count: int = 60, features: int = 5) -> tuple[Values, NDArray[np.uint8]]:
    """Samples of which each class shares a shift of a feature with its neighbour."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.uint8)
    values = rng.normal(size=(count, features))
    values[:, 0] += 1.5 * (labels < 2)
    values[:, 1] += 2.0 * (labels % 3 == 0)
    return values, labels


def fit(
    values: Values, z: Values, weights: Values, shared: tuple[int, ...], feature: int, theta: float
) -> tuple[float, Values]:
    """Fit one stump by weighted least squares, in the plainest way: its error, and h of every sample and class."""
    over = values[:, feature] > theta
    h = np.empty_like(weights)
    for c in range(z.shape[1]):
        if c not in shared:
            h[:, c] = np.average(z[:, c], weights=weights[:, c])
    own = list(shared)
    for side in (over, ~over):
        if side.any():
            h[np.ix_(side, own)] = np.average(z[np.ix_(side, own)], weights=weights[np.ix_(side, own)])
    return float((weights * (z - h) ** 2).sum()), h


def greedy_sets(fits: Any, classes: int) -> list[tuple[int, ...]]:
    """The sets that the best-first search looks at: in each step all that have one class more."""
    seen: list[tuple[int, ...]] = []
    current: tuple[int, ...] = ()
    while len(current) < classes:
        grown = [(*current, c) for c in range(classes) if c not in current]
        current = min(grown, key=lambda shared: fits(shared)[0])
        seen.append(current)
    return seen


def brute_round(
    values: Values, z: Values, weights: Values, *, greedy: bool
) -> tuple[float, int, int, tuple[int, ...], Values]:
    """Try all features, thresholds and sharing sets, or the sets of the greedy search."""
    classes = z.shape[1]
    best: tuple[float, int, int, tuple[int, ...], Values] | None = None
    everything = list(chain.from_iterable(combinations(range(classes), size + 1) for size in range(classes)))
    for feature in range(values.shape[1]):
        for number, theta in enumerate(THRESHOLDS):

            def fits(shared: tuple[int, ...], feature: int = feature, theta: float = theta) -> tuple[float, Values]:
                return fit(values, z, weights, shared, feature, theta)

            for shared in greedy_sets(fits, classes) if greedy else everything:
                error, h = fits(shared)
                if best is None or error < best[0] - 1e-12:
                    best = (error, feature, number, tuple(sorted(shared)), h)
    assert best is not None
    return best


def signs(labels: NDArray[np.uint8], classes: int) -> Values:
    return np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)


@pytest.mark.parametrize(("classes", "greedy"), [(2, False), (3, False), (4, True), (5, True)])
def test_rounds_are_those_of_the_brute_force(classes: int, greedy: bool) -> None:
    values, labels = toy(classes, classes=classes)
    z = signs(labels, classes)
    rng = np.random.default_rng(1)
    start = rng.uniform(0.5, 2, len(labels)).astype(np.float32)
    boosting = JointBoosting(DenseFeatures(values, THRESHOLDS), labels, classes, sample_weights=start, num_threads=1)
    weights = np.repeat(start[:, None], classes, axis=1).astype(np.float64)
    for _ in range(5):
        total = weights.sum()
        error, feature, threshold, shared, h = brute_round(values, z, weights, greedy=greedy)
        stump, found = boosting.round()
        assert (stump.features[0], stump.thresholds[0]) == (feature, threshold)
        assert tuple(np.flatnonzero(stump.shared[0])) == shared
        assert found == pytest.approx(error / total, abs=1e-6)
        over = values[:, [feature]] > THRESHOLDS[threshold]
        assert stump.scores(over) == pytest.approx(h, abs=1e-6)
        weights *= np.exp(-z * h)
        assert boosting.weights[:, :classes] == pytest.approx(weights, rel=1e-5)
        assert (boosting.weights > 0).all()


def test_greedy_sets_lose_nothing_here() -> None:
    values, labels = toy(11, classes=4)
    z, weights = signs(labels, 4), np.ones((len(labels), 4))
    greedy, everything = (brute_round(values, z, weights, greedy=flag) for flag in (True, False))
    assert greedy[:4] == everything[:4]


def test_one_round_in_one_dimension_is_the_closed_form() -> None:
    values = np.array([[-2.0], [-1.0], [-0.5], [0.2], [1.0], [2.0]])
    labels = np.array([0, 0, 1, 0, 1, 1], np.uint8)
    stump, error = JointBoosting(DenseFeatures(values, np.array([0.0])), labels, 2, num_threads=1).round()
    # Class 0: z is 1, 1, -1 below 0 and 1, -1, -1 above; class 1 the reverse. Each alone is best: no set may hold both.
    assert stump.shared.tolist() == [[True, False]]
    assert (stump.below[0], stump.above[0]) == pytest.approx((1 / 3, -1 / 3))
    assert stump.constants.tolist() == [[0, 0]]
    assert error == pytest.approx(1 - 6 * (1 / 3) ** 2 / 12)


def test_permuted_classes_and_features_permute_the_stumps() -> None:
    values, labels = toy(5)
    names = np.array([2, 0, 3, 1], np.uint8)
    order = np.array([3, 1, 4, 0, 2])
    one = JointBoosting(DenseFeatures(values, THRESHOLDS), labels, 4, num_threads=1)
    two = JointBoosting(DenseFeatures(values[:, order], THRESHOLDS), names[labels], 4, num_threads=1)
    for _ in range(6):
        (left, error), (right, other) = one.round(), two.round()
        assert order[right.features[0]] == left.features[0]
        assert np.array_equal(right.shared[0, names], left.shared[0])
        assert right.above == pytest.approx(left.above, abs=1e-6)
        assert error == pytest.approx(other, abs=1e-6)


def test_rounds_depend_on_the_seed_and_their_number_alone() -> None:
    values, labels = toy(6, features=40)
    source = DenseFeatures(values, THRESHOLDS)

    def start(seed: int, threads: int = 1) -> JointBoosting:
        return JointBoosting(source, labels, 4, feature_share=0.2, seed=seed, num_threads=threads)

    whole, other = start(1), start(2)
    stumps = Stumps.joined([whole.round()[0] for _ in range(6)])
    assert not np.array_equal(whole.candidates(0), whole.candidates(1))
    assert not np.array_equal(whole.candidates(0), other.candidates(0))
    resumed = start(1, threads=2)
    resumed.replay(Stumps.joined([stumps[m] for m in range(3)]))
    again = Stumps.joined([resumed.round()[0] for _ in range(3)])
    assert np.array_equal(resumed.weights, whole.weights)
    for name in Stumps.names():
        assert np.array_equal(getattr(again, name), getattr(stumps, name)[3:])


def test_a_class_without_samples_and_a_constant_feature() -> None:
    values, labels = np.zeros((6, 1)), np.array([0, 0, 2, 2, 2, 0], np.uint8)
    boosting = JointBoosting(DenseFeatures(values, np.array([0.0])), labels, 3, num_threads=1)
    for _ in range(150):  # exp(-150) is no float32
        stump, error = boosting.round()
        assert np.isfinite([error, *stump.above, *stump.below, *stump.constants[0]]).all()
        assert (boosting.weights > 0).all()
    assert stump.above == 0  # no sample is there


def test_classifier_learns_what_stumps_can() -> None:
    values, labels = toy(7, classes=3, count=300, features=2)
    values = values + 5 * np.stack([labels == 1, labels == 2], axis=1)
    model = JointBoostClassifier(num_rounds=30, num_thresholds=20).fit(values, labels)
    assert (model.scores(values).argmax(axis=1) == labels).mean() > 0.9
    assert model.scores(values[:3]).shape == (3, 3)


def test_refused_requests() -> None:
    with pytest.raises(RequestError, match=r"num_rounds is 0, num_thresholds 32, feature_share 1.0; accepted: from 1"):
        JointBoostClassifier(num_rounds=0)
    model = JointBoostClassifier()
    with pytest.raises(RequestError, match=r"values have shape \(4,\) and labels \(4,\); accepted: \(N, features\)"):
        model.fit(np.zeros(4), np.zeros(4, int))
    with pytest.raises(RequestError, match="labels lie between -1 and 0; accepted: whole numbers from 0 to 255"):
        model.fit(np.zeros((2, 1)), [0, -1])
