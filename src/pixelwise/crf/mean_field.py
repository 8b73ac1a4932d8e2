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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import loops
from pixelwise.crf.lattice import Float, Index, Lattice, each, shares
from pixelwise.crf.step import blur, update
from pixelwise.crf.vector import AHEAD
from pixelwise.errors import RequestError

Normalization = Literal["none", "before", "after", "symmetric"]
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
    compatibility: float | NDArray[np.floating]
    normalization: Normalization = "symmetric"


def mean_field(
    probabilities: Float, kernels: Sequence[Kernel], *, iterations: int, num_threads: int | None = None
) -> Float:
    """Infer the beliefs of all points.

    Args:
        probabilities: float32 (K, N), positive; their negative logarithm is the unary energy.
        kernels: of the pairwise energy.
        iterations: synchronous updates; 0 returns the normalised probabilities.
        num_threads: None takes all cores that the process may use.

    Returns:
        float32 (K, N), summing to 1 over the labels.
    """
    threads = min(num_threads or usable_cores(), max(1, probabilities.shape[1] // FEWEST_POINTS))
    if threads == 1:
        return _MeanField(probabilities, kernels, None, 1).run(iterations)
    with ThreadPoolExecutor(threads) as pool:
        return _MeanField(probabilities, kernels, pool, threads).run(iterations)


def usable_cores() -> int:
    """Return how many cores the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _MeanField:
    """The lattices of all kernels, with one numbering of the columns, and the buffers of the iterations."""

    def __init__(
        self, probabilities: Float, kernels: Sequence[Kernel], pool: ThreadPoolExecutor | None, num_threads: int
    ) -> None:
        self.probabilities, self.pool = probabilities, pool
        labels, count = probabilities.shape
        self.padded = -(-labels // loops.LANES) * loops.LANES
        self.floor = np.full(self.padded, NO_LABEL, dtype=np.float32)
        self.floor[:labels] = 0
        self.parts = shares(count, num_threads)
        columns = sum(kernel.features.shape[1] + 1 for kernel in kernels)
        room = np.zeros((count + AHEAD, columns), dtype=np.int32)  # a pass asks for the rows of points that come soon
        self.ids: Index = room[:count]
        self.flat_ids: Index = room.reshape(-1)
        self.write: Float = np.empty((count, columns), dtype=np.float32)
        self.lattices: list[Lattice] = []
        column = 0
        for kernel in kernels:
            lattice = Lattice(
                kernel.features, ids=self.ids, weights=self.write, column=column, pool=pool, num_threads=num_threads
            )
            self.lattices.append(lattice)
            column = lattice.end
        self.read = self._normalise(kernels)
        self.compatibilities = [_compatibility(kernel, labels, self.padded) for kernel in kernels]

    def _normalise(self, kernels: Sequence[Kernel]) -> Float:
        """Put norms into the weights with which points read and write their vertices; return those for reading.

        All lattices get one numbering at the same time, each with a row of zeros behind its vertices.
        """
        same = all(kernel.normalization in ("none", "symmetric") for kernel in kernels)
        read = self.write if same else self.write.copy()
        self.starts = np.cumsum([0, *(lattice.num_vertices + 1 for lattice in self.lattices)]).tolist()
        for kernel, lattice, start in zip(kernels, self.lattices, self.starts, strict=False):
            to_read, to_write = ROOTS[kernel.normalization]
            values = lattice.sums(self.parts, self.pool) if to_read or to_write else np.empty(0, dtype=np.float32)
            gain, columns = np.float32(lattice.gain), (lattice.column, lattice.end)
            rest = (values, gain, np.float32(TINY), to_read, to_write, start)
            each(self.pool, partial(self._normalise_part, read, columns, rest), self.parts)
        return read

    def _normalise_part(
        self, read: Float, columns: tuple[int, int], rest: tuple[object, ...], part: tuple[int, int]
    ) -> None:
        loops.normalise(self.ids, read, self.write, read is self.write, *part, *columns, *rest)

    def run(self, iterations: int) -> Float:
        """Return the beliefs after so many updates, float32 (K, N)."""
        beliefs = np.empty(self.probabilities.shape, dtype=np.float32)
        values: Float = np.empty((0, self.padded), dtype=np.float32)
        sums = [aligned(self.starts[-1], self.padded) for _ in self.parts]
        spare = [aligned(self.starts[-1], self.padded) for _ in range(2)]
        for _ in range(iterations):
            each(self.pool, partial(self._update, values, sums, beliefs, False), range(len(self.parts)))
            values = self._blur(sums, spare)
        each(self.pool, partial(self._update, values, sums, beliefs, True), range(len(self.parts)))
        return beliefs

    def _update(self, values: Float, sums: list[Float], beliefs: Float, finish: bool, part: int) -> None:
        """Update a part of the points: from the values to the beliefs where `finish` is set, else on to its sums."""
        if not finish:
            sums[part].fill(0)
        update(
            (0,) * self.ids.shape[1],
            (0,) * (self.padded // loops.LANES),
            self.probabilities,
            self.flat_ids,
            self.read.reshape(-1),
            self.write.reshape(-1),
            values.reshape(-1),
            self.floor,
            sums[part].reshape(-1),
            beliefs,
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
        vectors = (0,) * (width // loops.LANES)
        values, scratch = spare
        for last in self.starts[1:]:
            scratch[last - 1] = values[last - 1] = 0  # the row of vertices that are not there

        def work(task: tuple[int, int]) -> None:
            index, first = task
            lattice = self.lattices[index]
            rows = slice(self.starts[index], self.starts[index + 1])
            old, new = total[rows], scratch[rows]
            for axis in range(lattice.d + 1):
                blur(
                    vectors, lattice.neighbours[axis].reshape(-1), old.reshape(-1), new.reshape(-1), self.padded, first
                )
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


def _compatibility(kernel: Kernel, labels: int, padded: int) -> NDArray[np.float32]:
    """Return a number, a row (L,) or a matrix (L, L) of a kernel's compatibility."""
    given = np.asarray(kernel.compatibility, dtype=np.float32)
    if given.shape not in ((), (labels,), (labels, labels)):
        raise RequestError(
            f"compatibility has shape {given.shape}; accepted: a number, ({labels},) or ({labels}, {labels}), one for "
            f"each label. Give one of them."
        )
    out = np.zeros((padded,) * given.ndim, dtype=np.float32)
    out[tuple(slice(side) for side in given.shape)] = given
    return out
