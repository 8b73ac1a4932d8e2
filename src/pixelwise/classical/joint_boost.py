"""Joint boosting: stumps that several classes share.

A. Torralba, K. P. Murphy, W. T. Freeman, "Sharing visual features for multiclass and multiview object detection", PAMI
29(5), 2007. GentleBoost for all classes at once: class c's score H_c is a sum of stumps

    h_c = a if v > theta else b    for classes c of the stump's sharing set,
    h_c = k_c                      for the others,

each with the least weighted squared error sum_c sum_i w_ic (z_ic - h_c(v_i))^2, z = 1 for sample i's own class and -1
for others; then w_ic is multiplied by exp(-z_ic h_c). The constant keeps the number of samples of a class from making
the choice of the sharing set.

All of a round's candidates are scored from sums of the weights per class and bin of the feature's values: a, b, k and
the error of any sharing set follow from them in closed form. The set is found greedily (the class that gains most, the
best to add, ...: C^2 instead of 2^C sets), as in the paper.

Axes: M stumps, N samples, C classes, L classes padded to a multiple of 8, F candidate features, B bins of a feature.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from pixelwise.classical import joint_boost_loops as loops
from pixelwise.crf.lattice import each, shares
from pixelwise.crf.loops import LANES
from pixelwise.crf.mean_field import usable_cores
from pixelwise.errors import RequestError

Sums = NDArray[np.float64]

MOST_CLASSES = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Stumps:
    """The weak classifiers of a strong one, in the order of the rounds that found them.

    Attributes:
        features: int32 (M,), which feature each stump looks at.
        thresholds: int32 (M,), index into the set of thresholds.
        shared: bool (M, C), the classes that share it.
        above: float32 (M,), a: what it adds to their scores where the feature is over the threshold.
        below: float32 (M,), b: what it adds elsewhere.
        constants: float32 (M, C), k_c: what it adds to the other classes' scores; 0 for classes that share it.
    """

    features: NDArray[np.int32]
    thresholds: NDArray[np.int32]
    shared: NDArray[np.bool_]
    above: NDArray[np.float32]
    below: NDArray[np.float32]
    constants: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, number: int) -> Stumps:
        """Return one of them, as a set of one."""
        return Stumps(**{name: getattr(self, name)[number : number + 1] for name in self.names()})

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the arrays."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def none(cls, num_classes: int) -> Self:
        """Return no stumps of so many classes."""
        return cls(
            features=np.zeros(0, np.int32),
            thresholds=np.zeros(0, np.int32),
            shared=np.zeros((0, num_classes), np.bool_),
            above=np.zeros(0, np.float32),
            below=np.zeros(0, np.float32),
            constants=np.zeros((0, num_classes), np.float32),
        )

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Put stumps one after the other."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.names()})

    def scores(self, over: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Add up H for samples of which it is known which thresholds they are over.

        Args:
            over: bool (N, M).

        Returns:
            float32 (N, C).
        """
        steps = self.shared * (self.above - self.below)[:, None]
        floor = (self.constants + self.shared * self.below[:, None]).sum(axis=0, dtype=np.float64)
        scores: NDArray[np.float32] = (over @ steps.astype(np.float64) + floor).astype(np.float32)
        return scores


class FeatureSource(Protocol):
    """What joint boosting needs to know of the samples: sums over bins of the features' values."""

    @property
    def num_features(self) -> int:
        """How many features there are to choose from."""

    def histograms(
        self,
        features: NDArray[np.int64],
        labels: NDArray[np.uint8],
        weights: NDArray[np.float32],
        num_classes: int,
        pool: ThreadPoolExecutor | None,
    ) -> tuple[Sums, Sums]:
        """Sum the weights of the samples in each bin of some features.

        Args:
            features: (F,), ascending.
            labels: uint8 (N,).
            weights: float32 (N, L).
            num_classes: C.
            pool: two threads or more that share the features, or None.

        Returns:
            float64 (F, B, C) over all samples, and over those of the class itself.
        """

    def over(self, feature: int, threshold: int) -> NDArray[np.bool_]:
        """Return which samples have a value over one of the thresholds, bool (N,)."""


class DenseFeatures:
    """Features whose values are at hand.

    Args:
        values: (N, features).
        thresholds: (B - 1,), ascending, at most 255; the same for all features.
    """

    def __init__(self, values: NDArray[np.floating], thresholds: NDArray[np.floating]) -> None:
        # v is over theta_t if bin > t: the bin is the number of thresholds below v.
        self.bins = np.ascontiguousarray(np.searchsorted(thresholds, values.T, side="left").astype(np.uint8))
        self.num_bins = len(thresholds) + 1

    @property
    def num_features(self) -> int:
        """How many features there are to choose from."""
        return len(self.bins)

    def histograms(
        self,
        features: NDArray[np.int64],
        labels: NDArray[np.uint8],
        weights: NDArray[np.float32],
        num_classes: int,
        pool: ThreadPoolExecutor | None,
    ) -> tuple[Sums, Sums]:
        """Sum the weights of the samples in each bin of some features."""
        sums, own = np.zeros((2, len(features), self.num_bins, num_classes))

        def work(part: tuple[int, int]) -> None:
            loops.dense_histograms(self.bins, labels, weights, features, *part, sums, own)

        each(pool, work, halves(len(features), pool))
        return sums, own

    def over(self, feature: int, threshold: int) -> NDArray[np.bool_]:
        """Return which samples have a value over one of the thresholds, bool (N,)."""
        over: NDArray[np.bool_] = self.bins[feature] > threshold
        return over


class JointBoosting:
    """Joint boosting under way: the samples' weights after some rounds.

    Args:
        source: features of the samples.
        labels: uint8 (N,).
        num_classes: C.
        sample_weights: float32 (N,), what every class's weight of a sample starts with; 1 for None.
        feature_share: share of the features that a round tries, at random.
        seed: of what a round tries.
        num_threads: None takes all cores that the process may use; the result is the same.

    Attributes:
        weights: float32 (N, L), above 0.
        num_rounds: rounds so far.
    """

    def __init__(
        self,
        source: FeatureSource,
        labels: NDArray[np.uint8],
        num_classes: int,
        *,
        sample_weights: NDArray[np.float32] | None = None,
        feature_share: float = 1.0,
        seed: int = 0,
        num_threads: int | None = None,
    ) -> None:
        self.source, self.labels, self.num_classes = source, labels, num_classes
        self.num_tried = max(1, round(feature_share * source.num_features))
        self.seed = seed
        self.num_rounds = 0
        padded = -(-num_classes // LANES) * LANES
        first = np.ones(len(labels), np.float32) if sample_weights is None else sample_weights
        self.weights = np.repeat(first[:, None], padded, axis=1)
        self._num_threads = num_threads or usable_cores()
        self._pool = ThreadPoolExecutor(self._num_threads) if self._num_threads > 1 else None

    def round(self) -> tuple[Stumps, float]:
        """Find the best stump of this round's features and reweigh the samples.

        Of equally good stumps the one with the first feature and threshold wins.

        Returns:
            The stump, and its squared error as a share of the sum of the weights.
        """
        tried = self.candidates(self.num_rounds)
        sums, own = self.source.histograms(tried, self.labels, self.weights, self.num_classes, self._pool)
        gains = np.empty(len(tried))
        thresholds = np.zeros(len(tried), np.int32)
        shared = np.zeros((len(tried), self.num_classes), np.bool_)
        parts = halves(len(tried), self._pool)
        each(self._pool, lambda part: loops.search(sums, own, *part, gains, thresholds, shared), parts)
        best = int(gains.argmax())
        stump = fitted(int(tried[best]), int(thresholds[best]), shared[best], sums[best], own[best])
        self.replay(stump)
        return stump, 1 - float(gains[best] / sums[best].sum())

    def candidates(self, number: int) -> NDArray[np.int64]:
        """Return the features that a round tries, ascending; they depend on the seed and its number alone."""
        count = self.source.num_features
        if self.num_tried >= count:
            return np.arange(count)
        chosen = np.random.default_rng((self.seed, number)).choice(count, self.num_tried, replace=False)
        return np.sort(chosen)

    def replay(self, stumps: Stumps) -> None:
        """Reweigh the samples by stumps found earlier."""
        padded = self.weights.shape[1]
        for m in range(len(stumps)):
            over = self.source.over(int(stumps.features[m]), int(stumps.thresholds[m]))
            steps = np.zeros((2, padded))
            for side, value in enumerate((stumps.below[m], stumps.above[m])):
                steps[side, : self.num_classes] = np.where(stumps.shared[m], value, stumps.constants[m])
            others, own = np.exp(steps).astype(np.float32), np.exp(-steps).astype(np.float32)
            loops.reweigh((0,) * padded, self.weights, self.labels, over, others, own, 0, len(self.labels))
            self.num_rounds += 1


def fitted(feature: int, threshold: int, shared: NDArray[np.bool_], sums: Sums, own: Sums) -> Stumps:
    """Return the stump of least squared error, given its sharing set bool (C,) and the sums (B, C) of its feature.

    A side without samples gets 0.
    """
    agreement = 2 * own - sums  # sum w z

    def mean(agreements: Sums, weights: Sums) -> Sums:
        return np.divide(agreements, weights, out=np.zeros(np.shape(weights)), where=np.asarray(weights) > 0)

    sides = (slice(threshold + 1, None), slice(None, threshold + 1))
    above, below = (mean(agreement[side, shared].sum(), sums[side, shared].sum()) for side in sides)
    constants = np.where(shared, 0, mean(agreement.sum(axis=0), sums.sum(axis=0)))
    return Stumps(
        features=np.array([feature], np.int32),
        thresholds=np.array([threshold], np.int32),
        shared=shared[None].copy(),
        above=np.array([above], np.float32),
        below=np.array([below], np.float32),
        constants=constants[None].astype(np.float32),
    )


def halves(count: int, pool: ThreadPoolExecutor | None) -> list[tuple[int, int]]:
    """Cut so many features into parts for the pool's threads, several for each, since some take longer."""
    return shares(count, 1 if pool is None else 8)


class JointBoostClassifier:
    """Joint boosting of features whose values are at hand.

    Args:
        num_rounds: stumps.
        num_thresholds: of each feature, evenly spread over all values' quantiles.
        feature_share: share of the features that a round tries, in (0, 1].
        seed: of what a round tries.

    Attributes:
        stumps: what was learnt.
        thresholds: (B - 1,).
    """

    def __init__(
        self, *, num_rounds: int = 100, num_thresholds: int = 32, feature_share: float = 1.0, seed: int = 0
    ) -> None:
        if num_rounds < 1 or not 1 <= num_thresholds <= 255 or not 0 < feature_share <= 1:
            raise RequestError(
                f"num_rounds is {num_rounds}, num_thresholds {num_thresholds}, feature_share {feature_share}; "
                "accepted: from 1, 1 to 255, above 0 to 1. Give for example 100, 32, 1."
            )
        self.num_rounds, self.num_thresholds = num_rounds, num_thresholds
        self.feature_share, self.seed = feature_share, seed
        self.stumps = Stumps.none(1)
        self.thresholds = np.zeros(0)

    def fit(self, values: npt.ArrayLike, labels: npt.ArrayLike) -> Self:
        """Learn from samples.

        Args:
            values: (N, features), finite.
            labels: (N,), classes from 0; there are as many classes as the largest label says.

        Raises:
            RequestError: if the shapes don't fit, or values or labels are out of range.
        """
        table, classes = np.asarray(values, np.float64), np.asarray(labels)
        if table.ndim != 2 or classes.shape != table.shape[:1] or not table.size or not np.isfinite(table).all():
            raise RequestError(
                f"values have shape {table.shape} and labels {classes.shape}; accepted: (N, features) of finite "
                "numbers and (N,). Give one row and one label per sample."
            )
        if not np.issubdtype(classes.dtype, np.integer) or classes.min() < 0 or classes.max() >= MOST_CLASSES:
            raise RequestError(
                f"labels lie between {classes.min()} and {classes.max()}; accepted: whole numbers from 0 to "
                f"{MOST_CLASSES - 1}. Number the classes from 0."
            )
        places = np.linspace(0, 1, self.num_thresholds + 2)[1:-1]
        self.thresholds = np.unique(np.quantile(table, places))
        boosting = JointBoosting(
            DenseFeatures(table, self.thresholds),
            classes.astype(np.uint8),
            int(classes.max()) + 1,
            feature_share=self.feature_share,
            seed=self.seed,
        )
        self.stumps = Stumps.joined([boosting.round()[0] for _ in range(self.num_rounds)])
        return self

    def scores(self, values: npt.ArrayLike) -> NDArray[np.float32]:
        """Return H of samples (N, features), float32 (N, C); the largest is the class."""
        table = np.asarray(values, np.float64)
        return self.stumps.scores(table[:, self.stumps.features] > self.thresholds[self.stumps.thresholds])
