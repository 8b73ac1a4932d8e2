"""The colour potential of TextonBoost: which of an image's own colours its classes have.

J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost for Image Understanding", IJCV 81(1), 2009, section 3. The
clusters of an image's colours in CIELab are Gaussians that all its classes share:

- P(k | x_i) ~ N(x_i; mu_k, Sigma_k), clusters by k-means                             -> `ColorModel.clusters`
- theta_pi(c, k) = ((sum_i [c_i = c] P(k | x_i) + alpha_pi) / (sum_i P(k | x_i) + alpha_pi))^w_pi
- pi(c_i, x_i) = log sum_k theta_pi(c_i, k) P(k | x_i)                                -> `ColorModel.potential`

The labels c_i are those found before, so both alternate with inference (`texton_crf.py`). alpha_pi = 0.1, w_pi = 3 and
15 clusters are quoted from memory.

Departures: what is least of a cluster's variance (`FLOOR`), and that k-means sees a sample of the pixels.

Axes: K classes; M clusters; H, W image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pixelwise.classical.filter_bank import lab
from pixelwise.errors import RequestError

Float = NDArray[np.float32]

FLOOR = 1.0  # added to the variances of a cluster: a difference that is just visible has length 1 in CIELab
SAMPLED = 10_000  # pixels that clusters are learnt from


@dataclass(frozen=True, kw_only=True)
class ColorModel:
    """How colours and labels of one image are tied.

    Attributes:
        num_clusters: M; fewer where an image has fewer colours.
        alpha: alpha_pi, the pixels that each class is thought to have in each cluster before; above 0.
        weight: w_pi, the power of the shares: how much colours count beside other potentials.
        seed: of the sample and of k-means.
    """

    num_clusters: int = 15
    alpha: float = 0.1
    weight: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.num_clusters, bool) or not isinstance(self.num_clusters, int) or self.num_clusters < 1:
            raise RequestError(
                f"num_clusters is {self.num_clusters!r}; accepted: whole numbers from 1. Give for example 15."
            )
        if not 0 < self.alpha < np.inf:
            raise RequestError(f"alpha is {self.alpha!r}; accepted: a number above 0. Give for example 0.1.")
        if not 0 <= self.weight < np.inf:
            raise RequestError(f"weight is {self.weight!r}; accepted: a number from 0. Give for example 3.")

    def clusters(self, image: NDArray[np.uint8]) -> Float:
        """Return the probability of each cluster at each pixel.

        Args:
            image: uint8 (H, W, 3).

        Returns:
            float32 (M, H, W), summing to 1 over M.
        """
        colors = lab(image).reshape(3, -1).T.astype(np.float64)  # (H * W, 3)
        rng = np.random.default_rng(self.seed)
        sample = colors
        if len(colors) > SAMPLED:
            sample = colors[np.sort(rng.choice(len(colors), SAMPLED, replace=False))]
        means, nearest = self._k_means(sample)
        scores = np.empty((len(means), len(colors)), dtype=np.float32)
        for k, mean in enumerate(means):
            centred = sample[nearest == k] - mean
            covariance = centred.T @ centred / max(1, len(centred)) + FLOOR * np.eye(3)
            whitening = np.linalg.inv(np.linalg.cholesky(covariance))
            whitened = (colors - mean) @ whitening.T
            scores[k] = np.log(np.linalg.det(whitening)) - 0.5 * (whitened**2).sum(axis=1)
        scores -= scores.max(axis=0)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=0)
        return scores.reshape(-1, *image.shape[:2])

    def _k_means(self, sample: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
        """Return the clusters' centres and the nearest one of each colour."""
        different, nearest = np.unique(sample, axis=0, return_inverse=True)
        if len(different) <= self.num_clusters:
            return different, nearest.reshape(-1)
        from sklearn.cluster import KMeans

        means = KMeans(self.num_clusters, init="k-means++", n_init=1, random_state=self.seed)
        with threadpool_limits(limits=1):  # sums in one order, and so finds the same, everywhere
            means.fit(sample)
        return means.cluster_centers_, means.labels_

    def potential(self, clusters: Float, labels: NDArray[np.integer], *, num_classes: int) -> Float:
        """Return the potential of an image's pixels.

        Args:
            clusters: float32 (M, H, W), as `clusters` returned them.
            labels: (H, W), 0..K - 1, found before.
            num_classes: K.

        Returns:
            float32 (K, H, W): logarithms, up to 0.
        """
        each = clusters.reshape(len(clusters), -1)
        chosen = labels.reshape(-1)
        counts = np.stack([np.bincount(chosen, weights=one, minlength=num_classes) for one in each], axis=1)
        shares = (counts + self.alpha) / (each.sum(axis=1, dtype=np.float64) + self.alpha)
        table = (shares**self.weight).astype(np.float32)  # (K, M)
        mixed: Float = table @ each
        np.log(np.maximum(mixed, np.finfo(np.float32).tiny, out=mixed), out=mixed)
        return mixed.reshape(num_classes, *labels.shape)
