"""How far beliefs lie from the CRF's distribution, as the authors' library reports it: a diagnosis, not a fast path.

P. Krähenbühl, V. Koltun, "Parameter Learning and Convergent Inference for Dense Random Fields", ICML 2013; the number
is that of `DenseCRF::klDivergence` in its code, which pydensecrf wraps.

Axes: N points, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf.lattice import Float
from pixelwise.crf.mean_field import Compatibility, MeanField
from pixelwise.errors import RequestError

SMALLEST = 1e-20  # belief whose logarithm is taken, as in the authors' code


def kl_divergence(
    field: MeanField, probabilities: Float, beliefs: Float, compatibilities: Sequence[Compatibility]
) -> float:
    """Return KL(Q || P) of beliefs Q but for log Z, as the authors' library computes it.

    It is sum_i sum_l Q_i(l) (log Q_i(l) - log p_i(l)) - sum_m sum_i sum_l Q_i(l) [mu_m K_m Q]_i(l), with each kernel's
    normalization and compatibility. What to know about it:

    - log Z is left out, and rewards of equal labels stand for penalties of others, so it is negative as a rule; only
      its fall from iteration to iteration says something.
    - The pairwise sum is over ordered pairs, each pair twice, and over each point with itself. The divergence has half
      of that, so mean field may lower the one while this one rises, and the other way round.
    - Updates are synchronous, and filters are approximate: not even the divergence itself has to fall each time.

    Args:
        field: kernels of the points.
        probabilities: float32 (K, N), positive, as they were given for the inference; they need not sum to 1.
        beliefs: float32 (K, N).
        compatibilities: of each kernel; see `Kernel`.

    Raises:
        RequestError: if probabilities and beliefs have other shapes.
    """
    if probabilities.shape != beliefs.shape or beliefs.ndim != 2 or beliefs.shape[1] != field.num_points:
        raise RequestError(
            f"probabilities have shape {probabilities.shape} and beliefs {beliefs.shape}, there are {field.num_points} "
            f"points; accepted: (K, {field.num_points}) both. Give the beliefs that were inferred from them."
        )
    q = beliefs.astype(np.float64)
    terms = q * (np.log(np.maximum(q, SMALLEST)) - np.log(probabilities.astype(np.float64)))
    total = float(terms.sum())
    for kernel, compatibility in enumerate(compatibilities):
        filtered: NDArray[np.floating] = field.filter(kernel, np.ascontiguousarray(beliefs.T, dtype=np.float32)).T
        given = np.asarray(compatibility, dtype=np.float64)
        message = given @ filtered if given.ndim == 2 else given.reshape(-1, 1) * filtered
        total -= float((q * message).sum())
    return total
