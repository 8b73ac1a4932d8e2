"""Textons: clusters of filter responses. An image becomes a map of the number of each pixel's nearest cluster.

Responses are whitened (zero mean, unit covariance over the training pixels), so that the distance to a cluster is
Mahalanobis'; unwhitened, the Gaussians' large variance would decide alone.

Axes: S samples, R responses, T textons, H, W image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelwise.classical import texton_loops
from pixelwise.classical.vector import TEXTONS
from pixelwise.errors import RequestError

Float = NDArray[np.float32]

FLAT = 1e-3  # standard deviation of a response, in units of Lab, below which it is rounding noise: grey images' colour
DEPENDENT = 1e-6  # share of the largest variance below which a combination of responses is noise too
MOST_TEXTONS = 65535
BATCH = 4096  # samples of a step of k-means


@dataclass(frozen=True, kw_only=True, eq=False)
class TextonDictionary:
    """Clusters of whitened responses.

    Attributes:
        mean: float32 (R,).
        whitening: float32 (R, R); whitened responses are whitening @ (responses - mean).
        centres: float32 (T, R), whitened.
    """

    mean: Float
    whitening: Float
    centres: Float

    @property
    def num_textons(self) -> int:
        """T."""
        return len(self.centres)

    @classmethod
    def fit(cls, responses: Float, *, num_textons: int, seed: int = 0) -> TextonDictionary:
        """Cluster responses by k-means: one start, by k-means++.

        Args:
            responses: float32 (S, R), from sampled pixels.
            num_textons: T, up to 65535.
            seed: of k-means.

        Raises:
            RequestError: if there are fewer different responses than textons.
        """
        if not 1 <= num_textons <= MOST_TEXTONS:
            raise RequestError(f"num_textons is {num_textons}; accepted: 1 to {MOST_TEXTONS}. Give for example 400.")
        mean = responses.mean(axis=0, dtype=np.float64)
        whitening = _whitening(responses, mean)
        whitened = np.ascontiguousarray((responses - mean) @ whitening.T, dtype=np.float32)
        different = len(np.unique(whitened, axis=0))
        if different < num_textons:
            raise RequestError(
                f"num_textons is {num_textons}, but the {len(responses)} sampled pixels have {different} different "
                f"responses. Accepted: 1 to {different} here. Give fewer textons or more images."
            )
        return cls(
            mean=mean.astype(np.float32),
            whitening=whitening.astype(np.float32),
            centres=_k_means(whitened, num_textons, seed),
        )

    def assign(self, responses: Float) -> NDArray[np.uint16]:
        """Return the nearest texton of each pixel; of equally near ones the first.

        Args:
            responses: float32 (R, H, W).

        Returns:
            uint16 (H, W).
        """
        num_responses, height, width = responses.shape
        whitened = self.whitening @ (responses.reshape(num_responses, -1) - self.mean[:, None])
        # Filled up to whole steps of the loop, by textons that nothing is near to.
        more = -self.num_textons % TEXTONS
        centres = np.pad(self.centres, ((0, more), (0, 0)))
        half_norms = (0.5 * np.square(self.centres, dtype=np.float64).sum(axis=1)).astype(np.float32)
        half_norms = np.pad(half_norms, (0, more), constant_values=np.inf)
        nearest = np.empty(height * width, dtype=np.uint16)
        texton_loops.assign((0,) * num_responses, whitened, centres, half_norms, nearest)
        return nearest.reshape(height, width)


def _whitening(responses: Float, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix that makes the covariance of responses the identity; directions without variance become 0."""
    centred = responses.astype(np.float64) - mean
    deviation = np.sqrt(np.square(centred).mean(axis=0))
    scale = np.where(deviation > FLAT, 1 / np.maximum(deviation, FLAT), 0.0)
    centred *= scale
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = variances > DEPENDENT * max(variances[-1], 0.0)
    roots = np.where(kept, 1 / np.sqrt(np.where(kept, variances, 1.0)), 0.0)
    whitening = (roots[:, None] * axes.T) * scale
    return np.ascontiguousarray(whitening, dtype=np.float64)


def _k_means(whitened: Float, num_textons: int, seed: int) -> Float:
    """Return the centres, float32 (T, R)."""
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(
        num_textons,
        init="k-means++",
        n_init=1,
        batch_size=BATCH,
        init_size=min(len(whitened), max(3 * num_textons, 5 * BATCH)),
        max_iter=10,
        random_state=seed,
    )
    means.fit(whitened)
    return np.ascontiguousarray(means.cluster_centers_, dtype=np.float32)
