"""Gaussian filtering of points with any features on the permutohedral lattice.

A. Adams, J. Baek, A. Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010.

Points are splatted onto the vertices of the simplex around them, values are blurred along the d + 1 axes of the
lattice, and read back. What comes out approximates sum_j exp(-|f_i - f_j|^2 / 2) q_j, the point itself included. It
is not exact, and not to be: it is the filter of the published dense CRFs, to their last digits but rounding.

Axes: N points, d features, M vertices, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import loops
from pixelwise.errors import RequestError

Float = NDArray[np.float32]
Index = NDArray[np.int32]

Part = TypeVar("Part")
Result = TypeVar("Result")

MOST_FEATURES = 8  # a packed vertex has 63 bits for all of its coordinates


class Lattice:
    """The lattice of a set of points, built once and used for any number of filterings.

    Args:
        features: float32 (N, d), d from 1 to 8, divided by the kernel's standard deviations.
        ids: int32 (N, V) of which the columns from `column` on are filled with vertices; None takes an own array.
        weights: float32 (N, V), the same for their weights.
        column: first column.
        start: number of the first vertex; those of several lattices can follow each other.
        pool: threads that share the points; None works in the calling one.
        num_threads: of the pool.

    Attributes:
        num_vertices: M.
        neighbours: int32 (d + 1, 2, M), the vertices on both sides along each axis; M where there is none.

    Raises:
        RequestError: if the features have another shape, are not finite, or lie so far apart that their lattice
            cannot be numbered.
    """

    def __init__(
        self,
        features: Float,
        *,
        ids: Index | None = None,
        weights: Float | None = None,
        column: int = 0,
        start: int = 0,
        pool: ThreadPoolExecutor | None = None,
        num_threads: int = 1,
    ) -> None:
        if features.ndim != 2 or not 1 <= features.shape[1] <= MOST_FEATURES or not len(features):
            raise RequestError(
                f"features have shape {features.shape}; accepted: (N, d) with N from 1 and d from 1 to "
                f"{MOST_FEATURES}. Give one row per point."
            )
        if not np.isfinite(features).all():
            raise RequestError(
                "features hold NaN or infinite values; accepted: finite numbers. Remove or replace them."
            )
        features = np.require(features, np.float32, ["C", "W"])
        count, d = features.shape
        self.d, self.column, self.end, self.start = d, column, column + d + 1, start
        self.ids = np.empty((count, self.end), dtype=np.int32) if ids is None else ids
        self.weights = np.empty((count, self.end), dtype=np.float32) if weights is None else weights
        parts = shares(count, num_threads)
        scale, steps, limit = loops.embedding(d)
        points = (features, scale, steps, limit)
        embedded = each(pool, lambda part: loops.embed(*points, *part, self.ids, self.weights, column, start), parts)
        if not all(len(keys) for keys in embedded):
            raise RequestError(
                f"features reach {np.abs(features).max():.4g} standard deviations; accepted for {d} features: about "
                f"{(limit + 2) / 2:.4g}. Give larger standard deviations."
            )
        keys = np.concatenate(embedded)
        new_ids = np.empty(len(keys), dtype=np.int32)
        unique, table, table_ids = loops.merge(keys, new_ids)
        starts = np.cumsum([0, *(len(part) for part in embedded)])
        # The first part's numbers stay. Threads share each of the others, or all but one would wait with two parts.
        pieces = [
            (first + begin, first + end, new_ids[starts[part] : starts[part + 1]])
            for part, (first, last) in enumerate(parts)
            for begin, end in shares(last - first, num_threads)
            if part
        ]
        each(
            pool,
            lambda piece: loops.renumber(self.ids, piece[0], piece[1], column, self.end, start, piece[2]),
            pieces,
        )
        self.num_vertices = len(unique)
        self.neighbours = _neighbours(unique, table, table_ids, d, pool)

    @property
    def gain(self) -> float:
        """Factor that the slicing is multiplied by: 1 / (1 + 2^-d)."""
        return 1 / (1 + math.pow(2, -self.d))

    def sums(self, parts: Sequence[tuple[int, int]], pool: ThreadPoolExecutor | None) -> Float:
        """Return the blurred weights of all points at the vertices, float32 (M + 1); sliced, they are the norms."""

        def work(part: tuple[int, int]) -> Float:
            own = np.zeros(self.num_vertices + 1, dtype=np.float32)
            loops.add_weights(self.ids, self.weights, *part, self.column, self.end, self.start, own)
            return own

        old: Float = np.stack(each(pool, work, parts), axis=-1).sum(axis=-1, keepdims=True, dtype=np.float32)
        return self.blurred(old)[:, 0]

    def blurred(self, old: Float, *, transposed: bool = False) -> Float:
        """Blur the values of the vertices, float32 (M + 1, C), along all axes; what was given is overwritten."""
        new = np.zeros_like(old)
        for axis in range(self.d, -1, -1) if transposed else range(self.d + 1):
            loops.blur(self.neighbours[axis], old, new)
            old, new = new, old
        return old

    def filter(self, values: Float, *, transposed: bool = False) -> Float:
        """Filter values of the points.

        Args:
            values: float32 (N, C).
            transposed: blur along the axes in the reverse order, which is the transposed filter.

        Returns:
            float32 (N, C).
        """
        old = np.zeros((self.num_vertices + 1, values.shape[1]), dtype=np.float32)
        places = (self.column, self.end, self.start)
        loops.splat(self.ids, self.weights, *places, np.ascontiguousarray(values), old)
        old = self.blurred(old, transposed=transposed)
        out = np.empty((len(self.ids), values.shape[1]), dtype=np.float32)
        loops.slice_(self.ids, self.weights, *places, old, out)
        out *= np.float32(self.gain)
        return out


def _neighbours(
    unique: NDArray[np.int64], table: NDArray[np.int64], table_ids: Index, d: int, pool: ThreadPoolExecutor | None
) -> Index:
    """Return the vertices on both sides along each axis, int32 (d + 1, 2, M), M where there is none.

    Along axis j a vertex's neighbour has every coordinate one less, and coordinate j d more. So its remainder is one
    less too, and where that is below 0 it is d and every quotient is one less; quotient j is one more. The last
    coordinate is not stored.
    """
    r_bits, q_bits = loops.layout(d)
    steps = [1 << (r_bits + q_bits * j) for j in range(d)]
    count = len(unique)
    lower = np.where((unique & ((1 << r_bits) - 1)) == 0, unique + d - sum(steps), unique - 1)
    neighbours = np.full((d + 1, 2, count), count, dtype=np.int32)

    def fill(axis: int) -> None:
        wanted = lower + steps[axis] if axis < d else lower
        below, above = neighbours[axis]
        loops.lookup(wanted, table, table_ids, below, count)
        there = below < count
        above[below[there]] = np.flatnonzero(there)  # who is below one has it above

    each(pool, fill, range(d + 1))
    return neighbours


def shares(count: int, parts: int) -> list[tuple[int, int]]:
    """Cut so many points into parts of about the same length; none is empty.

    >>> shares(7, 2), shares(1, 2)
    ([(0, 3), (3, 7)], [(0, 1)])
    """
    ends = np.linspace(0, count, min(parts, count) + 1).astype(int).tolist()
    return list(pairwise(ends))


def each(pool: ThreadPoolExecutor | None, work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Do the work for every part, in the pool's threads where there is one, and return the results in order."""
    if pool is None or len(parts) < 2:
        return [work(part) for part in parts]
    return list(pool.map(work, parts))
