"""The iterations of mean field over lattices that are built: passes over the points, and blurs of their vertices.

An iteration is one pass over the points (`step.py`) and one blur of each lattice. The compatibility transform is
applied to the few vertices instead of all points, since slicing is linear.

Axes: N points, K labels, L labels padded to a multiple of 8, V vertices of a point over all kernels, M vertices of all
lattices, each with a row of zeros behind for vertices that are not there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import loops
from pixelwise.crf.lattice import Float, Index, Lattice, each, shares
from pixelwise.crf.step import COMPARE, FINISH, GO_ON, NOTE, blur, update

MANY_VALUES = 1 << 21  # of all vertices, from which threads share each axis; it takes a message to each of them


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What the points have to do with the vertices.

    Attributes:
        ids: int32 (N, V), of the vertices of all lattices, which are numbered through.
        read: float32 (N, V), with which a point reads off them, norms included.
        write: float32 (N, V), the same for adding to them; it may be the same array.
        lattices: one per kernel.
    """

    ids: Index
    read: Float
    write: Float
    lattices: Sequence[Lattice]

    @property
    def num_rows(self) -> int:
        """M."""
        return sum(lattice.num_vertices + 1 for lattice in self.lattices)

    def filter(self, kernel: int, values: Float) -> Float:
        """Filter values of the points, float32 (N, C), by a kernel with its norms; see `MeanField.filter`."""
        lattice = self.lattices[kernel]
        place = (lattice.column, lattice.end, lattice.start)
        old = np.zeros((lattice.num_vertices + 1, values.shape[1]), dtype=np.float32)
        loops.splat(self.ids, self.write, *place, np.require(values, np.float32, ["C", "W"]), old)
        old = lattice.blurred(old)
        out = np.empty(values.shape, dtype=np.float32)
        loops.slice_(self.ids, self.read, *place, old, out)
        out *= np.float32(lattice.gain)
        return out


class Inference:
    """One inference: its buffers, and what is known after some iterations.

    Args:
        weights: of the points.
        probabilities: float32 (K, N), contiguous.
        compatibilities: of each kernel, a number, (K,) or (K, K).
        pool: threads that share the work; None works in the calling one.
        num_threads: of the pool.
    """

    def __init__(
        self,
        weights: Weights,
        probabilities: Float,
        compatibilities: Sequence[NDArray[np.float32]],
        pool: ThreadPoolExecutor | None,
        num_threads: int,
    ) -> None:
        self.weights, self.probabilities, self.pool = weights, probabilities, pool
        labels, count = probabilities.shape
        self.padded = -(-labels // loops.LANES) * loops.LANES
        self.parts = shares(count, num_threads)
        self.factors = [
            _padded(given * np.float32(lattice.gain), self.padded)
            for given, lattice in zip(compatibilities, weights.lattices, strict=True)
        ]
        self.started = False
        rows = weights.num_rows
        self.sums = [aligned(rows, self.padded) for _ in self.parts]
        self.values = aligned(rows, self.padded)
        self.scratch = [
            aligned(lattice.num_vertices + 1 if lattice.d % 2 else 0, self.padded) for lattice in weights.lattices
        ]
        for lattice, scratch in zip(weights.lattices, self.scratch, strict=True):
            self.values[lattice.start + lattice.num_vertices] = 0
            scratch[lattice.num_vertices :] = 0

    def go_on(self, beliefs: Float | None = None) -> float:
        """Do one iteration.

        Args:
            beliefs: float32 (K, N); where given, those before the iteration are written to it, and compared with those
                that it holds from the call before.

        Returns:
            Mean divergence of the beliefs before the iteration from those one iteration earlier; infinite if there are
            none or they are not asked for.
        """
        mode = GO_ON if beliefs is None else (COMPARE if self.started else NOTE)
        out = np.empty((0, 0), dtype=np.float32) if beliefs is None else beliefs
        divergence = sum(each(self.pool, partial(self._pass, out, mode), range(len(self.parts))))
        self._blur()
        self.started = True
        return divergence / self.probabilities.shape[1] if mode == COMPARE else math.inf

    def beliefs(self, out: Float | None = None) -> Float:
        """Return the beliefs after the iterations that were done, float32 (K, N), in `out` if it is given.

        It may be the array of the probabilities, if there are no more iterations.
        """
        beliefs = np.empty(self.probabilities.shape, dtype=np.float32) if out is None else out
        each(self.pool, partial(self._pass, beliefs, FINISH), range(len(self.parts)))
        return beliefs

    def _pass(self, beliefs: Float, mode: int, part: int) -> float:
        """Pass over a part of the points, from the values to its sums or the beliefs."""
        if mode != FINISH:
            self.sums[part].fill(0)
        w = self.weights
        divergence: float = update(
            (0,) * w.ids.shape[1],
            self.probabilities,
            w.ids.reshape(-1),
            w.read.reshape(-1),
            w.write.reshape(-1),
            self.values.reshape(-1) if self.started else np.empty(0, dtype=np.float32),
            self.sums[part].reshape(-1),
            beliefs,
            self.padded,
            *self.parts[part],
            mode,
        )
        return divergence

    def _blur(self) -> None:
        """Add up the parts' sums, blur them along the axes of each lattice, apply gains and compatibilities."""
        lattices = self.weights.lattices
        shared = len(self.parts) > 1 and (self.sums[0].size > MANY_VALUES or len(lattices) < len(self.parts))
        if not shared:  # a lattice for each thread
            tasks = [
                [(index, step, 0, lattice.num_vertices) for step in range(lattice.d + 3)]
                for index, lattice in enumerate(lattices)
            ]
            each(self.pool, self._blur_all, tasks)
            return
        for step in range(max((lattice.d + 3 for lattice in lattices), default=0)):
            rows = [
                (index, step, *part)
                for index, lattice in enumerate(lattices)
                if step < lattice.d + 3
                for part in shares(lattice.num_vertices, len(self.parts))
            ]
            each(self.pool, lambda task: self._blur_rows(*task), rows)

    def _blur_all(self, tasks: Sequence[tuple[int, int, int, int]]) -> None:
        for task in tasks:
            self._blur_rows(*task)

    def _blur_rows(self, index: int, step: int, first: int, last: int) -> None:
        """Do a step for vertices from `first` to `last` of a lattice: add, then blur along each axis, then transform.

        What is blurred goes from the sums to the values and back. The last axis ends at the values; for an even number
        of axes the last but one takes another array instead.
        """
        lattice, factor = self.weights.lattices[index], self.factors[index]
        here = slice(lattice.start, lattice.start + lattice.num_vertices + 1)
        sums, values, scratch = self.sums[0][here], self.values[here], self.scratch[index]
        axis, axes = step - 1, lattice.d + 1
        if axis < 0:
            for other in self.sums[1:]:
                sums[first:last] += other[here][first:last]
        elif axis == axes:
            if factor.ndim == 2:
                values[first:last] = values[first:last] @ factor.T
        else:
            old, new = (sums, values) if axis % 2 == 0 else (values, sums)
            if axes % 2 == 0 and axis >= axes - 2:
                old, new = (sums, scratch) if axis == axes - 2 else (scratch, values)
            scale = np.ones(self.padded, dtype=np.float32)
            if axis == axes - 1 and factor.ndim < 2:
                scale *= factor
            neighbours = lattice.neighbours[axis].reshape(-1)
            blur(neighbours, old.reshape(-1), new.reshape(-1), scale, self.padded, first, last)


def aligned(rows: int, columns: int) -> Float:
    """Return an empty array whose rows of whole vectors never lie across two cache lines' borders needlessly."""
    size = rows * columns
    room = np.empty(size + 16, dtype=np.float32)
    first = (-room.ctypes.data % 64) // 4
    return room[first : first + size].reshape(rows, columns)


def _padded(given: NDArray[np.float32], padded: int) -> NDArray[np.float32]:
    """Return a number as it is, a row as (L,) or a matrix as (L, L) with zeros for labels that there are not."""
    out = np.zeros((padded,) * given.ndim, dtype=np.float32)
    out[tuple(slice(side) for side in given.shape)] = given
    return out
