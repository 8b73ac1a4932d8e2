"""Mean field of a fully connected CRF with Gaussian kernels, on permutohedral lattices.

P. Krähenbühl, V. Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011,
https://arxiv.org/abs/1210.5644, algorithm 1: message passing by filtering, compatibility transform, local update. What
is done in an iteration stands in `inference.py` and `step.py`; what is done once for an image, here.

For Potts with weight w the message to label l is w times the filtered belief of l, which after the softmax is the same
as -w times that of all others. The message includes the point itself, as in the authors' code.

The compiled loops are kept in numba's cache. They are compiled, for some seconds, at the first call ever, and one of
them once more when a point has another number of vertices (there are d + 1 for each kernel). Other sizes of images,
numbers of labels and parameters run the same code. Each process takes about half a second to load it.

Axes: N points, K labels, d features of a kernel, V vertices of a point over all kernels.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import loops
from pixelwise.crf.inference import Inference, Weights
from pixelwise.crf.lattice import Float, Index, Lattice, each, shares
from pixelwise.errors import RequestError

Normalization = Literal["none", "before", "after", "symmetric"]
Compatibility: TypeAlias = float | NDArray[np.floating]
TINY = 1e-20  # added to norms, as in the authors' code
FEWEST_POINTS = 4096  # for which a further thread pays
# How often the root of 1 / n goes into the weights with which a point reads and writes its vertices.
ROOTS = {"none": (0, 0), "before": (0, 2), "after": (2, 0), "symmetric": (1, 1)}


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One Gaussian kernel of the pairwise energy.

    Attributes:
        features: float32 (N, d), divided by the standard deviations.
        compatibility: what filtered beliefs are multiplied by to become a message: a number w (Potts: equal labels are
            rewarded by w), a vector (K,) (per label) or a matrix (K, K) (row l: message to label l, the reward of each
            other label; Potts is w times the identity).
        normalization: by the kernel's own sums n_i = sum_j k(f_i, f_j): "none"; "before" (q / n is filtered), "after"
            (what was filtered is divided by n) or "symmetric" (the square root of n on both sides).
    """

    features: Float
    compatibility: Compatibility
    normalization: Normalization = "symmetric"


def mean_field(
    probabilities: Float,
    kernels: Sequence[Kernel],
    *,
    iterations: int,
    tolerance: float | None = None,
    num_threads: int | None = None,
) -> Float:
    """Infer the beliefs of all points, once; `MeanField` does so again and again for the same points.

    Args:
        probabilities: float32 (K, N), positive; their negative logarithm is the unary energy.
        kernels: of the pairwise energy.
        iterations: synchronous updates at most; 0 returns the normalised probabilities.
        tolerance: to stop earlier, see `MeanField.infer`; None never does.
        num_threads: None takes all cores that the process may use.

    Returns:
        float32 (K, N), summing to 1 over the labels.

    Raises:
        RequestError: if shapes do not fit, values are not finite, or `MeanField` refuses the kernels.

    Any features make a kernel, and there may be any number of them. Here points on a line agree with their neighbours,
    and with points of the same height:

    >>> place = np.arange(6, dtype=np.float32)[:, None]
    >>> height = np.array([[0], [0], [9], [9], [0], [0]], dtype=np.float32)
    >>> kernels = [
    ...     Kernel(features=place / np.float32(1.5), compatibility=0.5),
    ...     Kernel(features=np.hstack([place / 50, height / 2]).astype(np.float32), compatibility=3.0),
    ... ]
    >>> p = np.array([0.8, 0.4, 0.3, 0.4, 0.8, 0.6], dtype=np.float32)
    >>> mean_field(np.stack([p, 1 - p]), kernels, iterations=10).argmax(axis=0).tolist()
    [0, 0, 1, 1, 0, 0]
    """
    field = MeanField(
        [kernel.features for kernel in kernels],
        [kernel.normalization for kernel in kernels],
        num_points=probabilities.shape[-1],
        num_threads=num_threads,
    )
    return field.infer(
        probabilities,
        [kernel.compatibility for kernel in kernels],
        iterations=iterations,
        tolerance=tolerance,
        num_threads=num_threads,
    )


def usable_cores() -> int:
    """Return how many cores the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class MeanField:
    """The kernels of a set of points (an image), made once, for any number of inferences.

    What takes long, the lattices and the kernels' own sums, depends on the features alone. Probabilities, weights
    (they are in the compatibilities) and numbers of iterations may differ from inference to inference. Nothing of an
    inference stays behind, so that threads may share an object.

    Args:
        features: float32 (N, d) of each kernel, d from 1 to 8, divided by its standard deviations.
        normalizations: one for all kernels, or each kernel's; see `Kernel`.
        num_points: N; needed where there is no kernel.
        num_threads: to build with; None takes all cores that the process may use.

    Raises:
        RequestError: if features are not of the same points, a normalization is unknown, or `Lattice` refuses them.

    >>> field = MeanField([np.arange(4, dtype=np.float32)[:, None]])
    >>> probabilities = np.array([[0.9, 0.4, 0.9, 0.9], [0.1, 0.6, 0.1, 0.1]], dtype=np.float32)
    >>> [int((field.infer(probabilities, [w], iterations=5)[1] > 0.5).sum()) for w in (0.0, 3.0)]
    [1, 0]
    """

    def __init__(
        self,
        features: Sequence[Float],
        normalizations: Normalization | Sequence[Normalization] = "symmetric",
        *,
        num_points: int | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.num_points = len(features[0]) if num_points is None and features else num_points or 0
        for index, each_features in enumerate(features):
            if len(each_features) != self.num_points:
                raise RequestError(
                    f"features of kernel {index} have {len(each_features)} points, there are {self.num_points}; "
                    "accepted: one row for each point. Give features of the same points."
                )
        self.normalizations = _normalizations(normalizations, len(features))
        columns = sum(each_features.shape[-1] + 1 for each_features in features)
        ids: Index = np.empty((self.num_points, columns), dtype=np.int32)
        weights: Float = np.empty((self.num_points, columns), dtype=np.float32)
        lattices: list[Lattice] = []
        with threads_for(num_threads, self.num_points) as (pool, threads):
            column = start = 0
            for each_features in features:
                place = {"column": column, "start": start}
                lattice = Lattice(each_features, ids=ids, weights=weights, **place, pool=pool, num_threads=threads)
                lattices.append(lattice)
                column, start = lattice.end, start + lattice.num_vertices + 1
            self._weights = self._normalised(lattices, weights, pool, threads)

    def _normalised(
        self, lattices: Sequence[Lattice], weights: Float, pool: ThreadPoolExecutor | None, threads: int
    ) -> Weights:
        """Put norms into the weights, which come from the lattices, with which points read and write their vertices."""
        parts = shares(self.num_points, threads)
        same = all(normalization in ("none", "symmetric") for normalization in self.normalizations)
        read = weights if same else weights.copy()
        ids: Index = lattices[0].ids if lattices else np.empty((self.num_points, 0), dtype=np.int32)
        for normalization, lattice in zip(self.normalizations, lattices, strict=True):
            if normalization != "none":
                values = lattice.sums(parts, pool)
                place = (lattice.column, lattice.end, lattice.start)
                how = (values, np.float32(lattice.gain), np.float32(TINY), *ROOTS[normalization])
                each(pool, _normalising(ids, read, weights, place, how), parts)
        return Weights(ids=ids, read=read, write=weights, lattices=lattices)

    def with_normalizations(
        self, normalizations: Normalization | Sequence[Normalization], *, num_threads: int | None = None
    ) -> MeanField:
        """Return the same kernels with other normalizations; the lattices are not built again."""
        other = copy.copy(self)
        other.normalizations = _normalizations(normalizations, len(self.normalizations))
        weights = self._weights.write.copy()
        lattices = [copy.copy(lattice) for lattice in self._weights.lattices]
        for lattice in lattices:
            loops.restore(weights, 0, self.num_points, lattice.column, lattice.end)
            lattice.weights = weights
        with threads_for(num_threads, self.num_points) as (pool, threads):
            other._weights = other._normalised(lattices, weights, pool, threads)
        return other

    def infer(
        self,
        probabilities: Float,
        compatibilities: Sequence[Compatibility],
        *,
        iterations: int,
        tolerance: float | None = None,
        num_threads: int | None = None,
        out: Float | None = None,
    ) -> Float:
        """Infer the beliefs of all points.

        Args:
            probabilities: float32 (K, N), positive; their negative logarithm is the unary energy.
            compatibilities: of each kernel; see `Kernel`.
            iterations: synchronous updates at most; 0 returns the normalised probabilities.
            tolerance: to stop as soon as the mean over the points of KL(Q_t || Q_t-1) = sum_l Q_t(l) log(Q_t(l) /
                Q_t-1(l)), of the beliefs after an iteration from those before, is below it; what is returned is Q_t,
                and that was found one iteration later. None always does all iterations, and spares the comparison.
            num_threads: None takes all cores that the process may use.
            out: float32 (K, N), contiguous, for the result. Without a tolerance it may be the probabilities themselves.

        Returns:
            float32 (K, N), summing to 1 over the labels.
        """
        if tolerance is None:
            found = self.infer_each(
                probabilities, compatibilities, iterations=(iterations,), num_threads=num_threads, out=out
            )
            return next(found)
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not tolerance >= 0:
            raise RequestError(
                f"tolerance is {tolerance!r}; accepted: a number from 0 on, or None. Give for example 1e-4."
            )
        with self._inference(probabilities, compatibilities, (iterations,), num_threads, out) as run:
            beliefs = np.empty(probabilities.shape, dtype=np.float32) if out is None else out
            for _ in range(iterations):
                if run.go_on(beliefs) < tolerance:
                    return beliefs
            return run.beliefs(beliefs)

    def infer_each(
        self,
        probabilities: Float,
        compatibilities: Sequence[Compatibility],
        *,
        iterations: Sequence[int],
        num_threads: int | None = None,
        out: Float | None = None,
    ) -> Iterator[Float]:
        """Yield the beliefs after several numbers of iterations, all from one run.

        Args:
            probabilities: as `infer` takes them.
            compatibilities: of each kernel; see `Kernel`.
            iterations: each larger than the one before, from 0 on.
            num_threads: None takes all cores that the process may use.
            out: float32 (K, N), contiguous, for all results, one after the other.

        Yields:
            float32 (K, N), an array of its own for each number of iterations unless `out` is given.
        """
        with self._inference(probabilities, compatibilities, iterations, num_threads, out) as run:
            done = 0
            for count in iterations:
                for _ in range(done, count):
                    run.go_on()
                done = count
                yield run.beliefs(out)

    def filter(self, kernel: int, values: Float) -> Float:
        """Filter values of the points by one kernel: sum_j k(f_i, f_j) v_j, the point included, with its normalization.

        Args:
            kernel: its number, from 0.
            values: float32 (N, C).

        Returns:
            float32 (N, C).
        """
        return self._weights.filter(kernel, values)

    @contextmanager
    def _inference(
        self,
        probabilities: Float,
        compatibilities: Sequence[Compatibility],
        iterations: Sequence[int],
        num_threads: int | None,
        out: Float | None,
    ) -> Iterator[Inference]:
        """Check what is given, and open an inference and its threads."""
        _check_iterations(iterations)
        if probabilities.ndim != 2 or probabilities.shape[1] != self.num_points or not probabilities.size:
            raise RequestError(
                f"probabilities have shape {probabilities.shape}, there are {self.num_points} points; accepted: (K, "
                f"{self.num_points}). Give one row for each label."
            )
        if len(compatibilities) != len(self.normalizations):
            raise RequestError(
                f"there are {len(compatibilities)} compatibilities and {len(self.normalizations)} kernels; accepted: "
                "one for each kernel. Give as many."
            )
        p = np.require(probabilities, np.float32, ["C", "W"])
        check_out(out, p.shape)
        given = [_compatibility(each_given, len(p)) for each_given in compatibilities]
        with threads_for(num_threads, self.num_points) as (pool, threads):
            low, high = _range(p, pool, threads)
            if not (low >= 0 and high < math.inf):
                raise RequestError(
                    f"probabilities go from {low:.4g} to {high:.4g}; accepted: positive, finite numbers. Take the "
                    "softmax of logits first."
                )
            yield Inference(self._weights, p, given, pool, threads)


def _normalising(
    ids: Index, read: Float, write: Float, place: tuple[int, int, int], how: tuple[object, ...]
) -> Callable[[tuple[int, int]], None]:
    """Return what puts a kernel's norms into the weights of a part of the points."""
    return lambda part: loops.normalise(ids, read, write, *part, *place, *how)


@contextmanager
def threads_for(wanted: int | None, count: int) -> Iterator[tuple[ThreadPoolExecutor | None, int]]:
    """Open threads for so many points: a pool, or None where one thread is enough, and how many there are."""
    threads = min(wanted or usable_cores(), max(1, count // FEWEST_POINTS))
    if threads == 1:
        yield None, 1
        return
    with ThreadPoolExecutor(threads) as pool:
        yield pool, threads


def _normalizations(given: Normalization | Sequence[Normalization], kernels: int) -> tuple[Normalization, ...]:
    """Return each kernel's normalization."""
    several: tuple[Normalization, ...] = (given,) * kernels if isinstance(given, str) else tuple(given)
    if len(several) != kernels or any(each not in ROOTS for each in several):
        raise RequestError(
            f"normalizations are {given!r} for {kernels} kernels; accepted: {', '.join(ROOTS)}. Give one for all "
            "kernels, or one for each."
        )
    return several


def _check_iterations(iterations: Sequence[int]) -> None:
    """Refuse other iterations than whole numbers that grow."""
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in iterations)
    if not whole or not iterations or iterations[0] < 0 or any(b <= a for a, b in pairwise(iterations)):
        raise RequestError(
            f"iterations are {tuple(iterations)}; accepted: whole numbers from 0 on, each above the one before. "
            "Sort them."
        )


def check_out(out: Float | None, shape: tuple[int, ...]) -> None:
    """Refuse an array for the result that has another shape or type, or gaps."""
    if out is None:
        return
    if out.shape != shape or out.dtype != np.float32 or not (out.flags.c_contiguous and out.flags.writeable):
        raise RequestError(
            f"out has shape {out.shape} and type {out.dtype}, strides {out.strides}; accepted: float32 {shape}, "
            "contiguous, that can be written. Give np.empty of these."
        )


def _range(p: Float, pool: ThreadPoolExecutor | None, threads: int) -> tuple[float, float]:
    """Return the smallest and largest of values (K, N); NaN if there is one."""
    parts = [p[:, slice(*part)] for part in shares(p.shape[1], threads)]
    ends = np.array(each(pool, lambda part: (part.min(), part.max()), parts))
    return float(ends[:, 0].min()), float(ends[:, 1].max())


def _compatibility(compatibility: Compatibility, labels: int) -> NDArray[np.float32]:
    """Return a number, a row (K,) or a matrix (K, K) of a kernel's compatibility."""
    given = np.asarray(compatibility, dtype=np.float32)
    if given.shape not in ((), (labels,), (labels, labels)) or not np.isfinite(given).all():
        raise RequestError(
            f"compatibility has shape {given.shape}; accepted: a number, ({labels},) or ({labels}, {labels}), one for "
            f"each label. Give one of them."
        )
    return given
