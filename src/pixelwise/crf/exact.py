"""The CRF once more without any approximation, in N^2 operations: the slow twin that the fast path is tested against.

Axes: N points, d features, K labels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf.mean_field import TINY, Kernel

Double = NDArray[np.float64]


def gaussian_matrix(features: NDArray[np.floating]) -> Double:
    """Return exp(-|f_i - f_j|^2 / 2) of all pairs of points, float64 (N, N); the diagonal is 1."""
    f = np.asarray(features, dtype=np.float64)
    squares = (f**2).sum(axis=1)
    distances = squares[:, None] + squares[None, :] - 2 * f @ f.T
    matrix: Double = np.exp(-0.5 * np.maximum(distances, 0))
    return matrix


def exact_mean_field(probabilities: NDArray[np.floating], kernels: Sequence[Kernel], *, iterations: int) -> Double:
    """Infer the beliefs of all points; arguments and result as `mean_field`'s, in float64."""
    p = np.asarray(probabilities, dtype=np.float64)
    matrices = [_normalised(kernel) for kernel in kernels]
    beliefs = p / p.sum(axis=0)
    for _ in range(iterations):
        message = np.zeros_like(p)
        for kernel, matrix in zip(kernels, matrices, strict=True):
            message += _transform(np.asarray(kernel.compatibility, dtype=np.float64), beliefs @ matrix.T)
        scores = np.log(p) + message
        scores = np.exp(scores - scores.max(axis=0))
        beliefs = scores / scores.sum(axis=0)
    result: Double = beliefs
    return result


def _normalised(kernel: Kernel) -> Double:
    """Return the kernel's matrix with its normalisation; row i says what point i takes of each other."""
    matrix = gaussian_matrix(kernel.features)
    norm = matrix.sum(axis=1) + TINY
    if kernel.normalization == "before":
        matrix /= norm[None, :]
    elif kernel.normalization == "after":
        matrix /= norm[:, None]
    elif kernel.normalization == "symmetric":
        root = np.sqrt(norm)
        matrix /= root[:, None] * root[None, :]
    return matrix


def _transform(compatibility: Double, filtered: Double) -> Double:
    """Turn filtered beliefs (K, N) into messages."""
    message: Double = compatibility @ filtered if compatibility.ndim == 2 else compatibility.reshape(-1, 1) * filtered
    return message
