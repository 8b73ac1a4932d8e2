"""Mean field of a fully connected CRF with Gaussian kernels, on permutohedral lattices.

P. Krähenbühl, V. Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011,
https://arxiv.org/abs/1210.5644, algorithm 1: message passing by filtering, compatibility transform, local update. The
last and the first of an iteration and the next are one pass over the points (`step.py`), and the compatibility
transform is applied to the few vertices of the lattices instead of all points, since slicing is linear.

For Potts with weight w the message to label l is w times the filtered belief of l, which after the softmax is the same
as -w times that of all others. The message includes the point itself, as in the authors' code.

Axes: N points, K labels, L labels padded to a multiple of 8, V vertices of a point over all kernels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import loops
from pixelwise.crf.lattice import Float, Index, Lattice, each, shares
from pixelwise.crf.step import blur, update
AHEAD = 0
from pixelwise.errors import RequestError

Normalization = Literal["none", "before", "after", "symmetric"]
Compatibility: TypeAlias = float | NDArray[np.floating]
TINY = 1e-20  # added to norms, as in the authors' code
NO_LABEL = -1e30  # message to a label that only fills the padding
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
    probabilities: Float, kernels: Sequence[Kernel], *, iterations: int, num_threads: int | None = None
) -> Float:
    """Infer the beliefs of all points, once; `MeanField` does so again and again for the same points.

    Args:
        probabilities: float32 (K, N), positive; their negative logarithm is the unary energy.
        kernels: of the pairwise energy.
        iterations: synchronous updates; 0 returns the normalised probabilities.
        num_threads: None takes all cores that the process may use.

    Returns:
        float32 (K, N), summing to 1 over the labels.
    """
    field = MeanField(
        [kernel.features for kernel in kernels],
        [kernel.normalization for kernel in kernels],
        num_points=probabilities.shape[-1],
        num_threads=num_threads,
    )
    return field.infer(
        probabilities, [kernel.compatibility for kernel in kernels], iterations=iterations, num_threads=num_threads
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
        room = np.zeros((self.num_points + AHEAD, columns), dtype=np.int32)  # a pass asks for rows that come soon
        self._ids: Index = room[: self.num_points]
        self._flat_ids: Index = room.reshape(-1)
        self._write: Float = np.empty((self.num_points, columns), dtype=np.float32)
        self._lattices: list[Lattice] = []
        with _threads(num_threads, self.num_points) as (pool, threads):
            column = 0
            for each_features in features:
                lattice = Lattice(
                    each_features, ids=self._ids, weights=self._write, column=column, pool=pool, num_threads=threads
                )
                self._lattices.append(lattice)
                column = lattice.end
            self._starts: list[int] = np.cumsum([0, *(each.num_vertices + 1 for each in self._lattices)]).tolist()
            self._read = self._normalise(pool, shares(self.num_points, threads))

    def _normalise(self, pool: ThreadPoolExecutor | None, parts: Sequence[tuple[int, int]]) -> Float:
        """Put norms into the weights with which points read and write their vertices; return those for reading.

        All lattices get one numbering at the same time, each with a row of zeros behind its vertices.
        """
        same = all(normalization in ("none", "symmetric") for normalization in self.normalizations)
        read = self._write if same else self._write.copy()
        for normalization, lattice, start in zip(self.normalizations, self._lattices, self._starts, strict=False):
            to_read, to_write = ROOTS[normalization]
            values = lattice.sums(parts, pool) if to_read or to_write else np.empty(0, dtype=np.float32)
            gain, columns = np.float32(lattice.gain), (lattice.column, lattice.end)
            rest = (values, gain, np.float32(TINY), to_read, to_write, start)
            each(pool, partial(self._normalise_part, read, columns, rest), parts)
        return read

    def _normalise_part(
        self, read: Float, columns: tuple[int, int], rest: tuple[object, ...], part: tuple[int, int]
    ) -> None:
        loops.normalise(self._ids, read, self._write, read is self._write, *part, *columns, *rest)

    def infer(
        self,
        probabilities: Float,
        compatibilities: Sequence[Compatibility],
        *,
        iterations: int,
        num_threads: int | None = None,
    ) -> Float:
        """Infer the beliefs of all points.

        Args:
            probabilities: float32 (K, N), positive; their negative logarithm is the unary energy.
            compatibilities: of each kernel; see `Kernel`.
            iterations: synchronous updates; 0 returns the normalised probabilities.
            num_threads: None takes all cores that the process may use.

        Returns:
            float32 (K, N), summing to 1 over the labels.
        """
        return next(self.infer_each(probabilities, compatibilities, iterations=(iterations,), num_threads=num_threads))

    def infer_each(
        self,
        probabilities: Float,
        compatibilities: Sequence[Compatibility],
        *,
        iterations: Sequence[int],
        num_threads: int | None = None,
    ) -> Iterator[Float]:
        """Yield the beliefs after several numbers of iterations, all from one run.

        Args:
            probabilities: as `infer` takes them.
            compatibilities: of each kernel; see `Kernel`.
            iterations: each larger than the one before, from 0 on.
            num_threads: None takes all cores that the process may use.

        Yields:
            float32 (K, N), an array of its own for each number of iterations.
        """
        if not iterations or iterations[0] < 0 or any(b <= a for a, b in pairwise(iterations)):
            raise RequestError(
                f"iterations are {tuple(iterations)}; accepted: whole numbers from 0 on, each above the one before. "
                "Sort them."
            )
        if probabilities.ndim != 2 or probabilities.shape[1] != self.num_points or not len(probabilities):
            raise RequestError(
                f"probabilities have shape {probabilities.shape}, there are {self.num_points} points; accepted: (K, "
                f"{self.num_points}). Give one row for each label."
            )
        if len(compatibilities) != len(self._lattices):
            raise RequestError(
                f"there are {len(compatibilities)} compatibilities and {len(self._lattices)} kernels; accepted: one "
                "for each kernel. Give as many."
            )
        probabilities = np.ascontiguousarray(probabilities, dtype=np.float32)
        with _threads(num_threads, self.num_points) as (pool, threads):
            run = _Run(self, probabilities, compatibilities, pool, threads)
            done = 0
            for count in iterations:
                for _ in range(done, count):
                    run.go_on()
                done = count
                yield run.beliefs()


@contextmanager
def _threads(wanted: int | None, count: int) -> Iterator[tuple[ThreadPoolExecutor | None, int]]:
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


class _Run:
    """One inference: the buffers of its iterations."""

    def __init__(
        self,
        field: MeanField,
        probabilities: Float,
        compatibilities: Sequence[Compatibility],
        pool: ThreadPoolExecutor | None,
        num_threads: int,
    ) -> None:
        self.probabilities, self.pool = probabilities, pool
        self.lattices, self.starts = field._lattices, field._starts
        self.flat_ids, self.num_vertices = field._flat_ids, field._ids.shape[1]
        self.read, self.write = field._read.reshape(-1), field._write.reshape(-1)
        labels, count = probabilities.shape
        self.padded = -(-labels // loops.LANES) * loops.LANES
        self.floor = np.full(self.padded, NO_LABEL, dtype=np.float32)
        self.floor[:labels] = 0
        self.parts = shares(count, num_threads)
        self.compatibilities = [_compatibility(given, labels, self.padded) for given in compatibilities]
        self.values: Float = np.empty((0, self.padded), dtype=np.float32)  # none before the first iteration
        self.sums = [aligned(self.starts[-1], self.padded) for _ in self.parts]
        self.spare = [aligned(self.starts[-1], self.padded) for _ in range(2)]

    def go_on(self) -> None:
        """Do one iteration."""
        nothing = np.empty((0, 0), dtype=np.float32)
        each(self.pool, partial(self._update, nothing, False), range(len(self.parts)))
        self.values = self._blur(self.sums, self.spare)

    def beliefs(self) -> Float:
        """Return the beliefs after the iterations that were done, float32 (K, N)."""
        beliefs = np.empty(self.probabilities.shape, dtype=np.float32)
        each(self.pool, partial(self._update, beliefs, True), range(len(self.parts)))
        return beliefs

    def _update(self, beliefs: Float, finish: bool, part: int) -> None:
        """Update a part of the points: from the values to the beliefs where `finish` is set, else on to its sums."""
        if not finish:
            self.sums[part].fill(0)
        update(
            (0,) * self.num_vertices,
            self.probabilities,
            self.flat_ids,
            self.read,
            self.write,
            self.values.reshape(-1),
            self.sums[part].reshape(-1),
            beliefs,
            self.padded,
            *self.parts[part],
            finish,
        )

    def _blur(self, sums: list[Float], spare: list[Float]) -> Float:
        """Add up the parts' sums, blur them along the axes of each lattice, apply gains and compatibilities."""
        total = sums[0]
        for other in sums[1:]:
            total += other
        # A lattice for each thread where there are so many; else each thread does some of the labels.
        width = self.padded if len(self.lattices) >= len(self.parts) else loops.LANES
        values, scratch = spare
        for last in self.starts[1:]:
            scratch[last - 1] = values[last - 1] = 0  # the row of vertices that are not there

        def work(task: tuple[int, int]) -> None:
            index, first = task
            lattice = self.lattices[index]
            rows = slice(self.starts[index], self.starts[index + 1])
            old, new = total[rows], scratch[rows]
            for axis in range(lattice.d + 1):
                n = lattice.neighbours[axis].reshape(-1)
                blur(n, old.reshape(-1), new.reshape(-1), self.padded, first, first + width, 0, lattice.num_vertices)
                old, new = new, old
            values[rows, first : first + width] = old[:, first : first + width]

        each(
            self.pool,
            work,
            [(index, first) for index in range(len(self.lattices)) for first in range(0, self.padded, width)],
        )
        for index, matrix in enumerate(self.compatibilities):
            rows = slice(self.starts[index], self.starts[index + 1])
            gain = np.float32(self.lattices[index].gain)
            if matrix.ndim < 2:
                values[rows] *= gain * matrix
            else:
                values[rows] = gain * (values[rows] @ matrix.T)
        return values


def aligned(rows: int, columns: int) -> Float:
    """Return an empty array whose rows of whole vectors never lie across two cache lines' borders needlessly."""
    size = rows * columns
    room = np.empty(size + 16, dtype=np.float32)
    first = (-room.ctypes.data % 64) // 4
    return room[first : first + size].reshape(rows, columns)


def _compatibility(compatibility: Compatibility, labels: int, padded: int) -> NDArray[np.float32]:
    """Return a number, a row (L,) or a matrix (L, L) of a kernel's compatibility."""
    given = np.asarray(compatibility, dtype=np.float32)
    if given.shape not in ((), (labels,), (labels, labels)):
        raise RequestError(
            f"compatibility has shape {given.shape}; accepted: a number, ({labels},) or ({labels}, {labels}), one for "
            f"each label. Give one of them."
        )
    out = np.zeros((padded,) * given.ndim, dtype=np.float32)
    out[tuple(slice(side) for side in given.shape)] = given
    return out
