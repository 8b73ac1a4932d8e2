"""The compiled loops of the permutohedral lattice and of mean field, for one thread and a part of the points each.

Axes: N points, d features, R = d + 1 vertices of a simplex, M vertices of the lattice, V vertices of a point over all
kernels, K labels, L labels padded to a multiple of `LANES`.

A vertex of the lattice is known by d integers with the same remainder r modulo d + 1. They are packed into one int64:
r in the lowest bits, then each integer's quotient (coordinate - r) / (d + 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

LANES = 8  # float32 values that one vector instruction handles
BLOCK = 32  # points that a pass treats at once, so that what is between its steps stays in the first-level cache
GOLDEN = -7046029254386353131  # 2**64 / golden ratio, as int64: spreads packed keys over the table
FIRST_SIZE = 1 << 12  # of a table of vertices, which doubles when it is half full

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[Loop], Loop]:
    """Return a decorator that compiles a loop at its first call, or reads it from numba's cache.

    Where a number must be known when a loop is compiled, and the cache must find it again, the loop takes a tuple of so
    many zeros, whose length is part of its type.
    """

    def decorate(loop: Loop) -> Loop:
        try:
            made: Loop = numba.njit(cache=True, nogil=True, error_model="numpy", **options)(loop)
        except RuntimeError:  # no folder for the cache can be written: compile per process
            made = numba.njit(nogil=True, error_model="numpy", **options)(loop)
        return made

    return decorate


def layout(d: int) -> tuple[int, int]:
    """Return the bits of the remainder and of each quotient in a packed vertex of d features.

    >>> layout(5), layout(2)
    ((3, 12), (2, 30))
    """
    remainder = int(d).bit_length()
    return remainder, (63 - remainder) // d


@compiled()
def new_table(size: Any) -> Any:
    """Return an empty table of packed vertices and its ids; loops of one line are far faster to compile than slices."""
    table, ids = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int32)
    for slot in range(size):
        ids[slot] = -1
    return table, ids


@compiled()
def find_or_insert(key: Any, table: Any, ids: Any, unique: Any, count: Any) -> Any:
    """Return the id of a packed vertex in a table; it is `count`, and entered, if it was new."""
    mask = table.shape[0] - 1
    slot = (key * GOLDEN >> 20) & mask
    while True:
        if ids[slot] < 0:
            table[slot] = key
            ids[slot] = count
            unique[count] = key
            return count
        if table[slot] == key:
            return ids[slot]
        slot = (slot + 1) & mask


@compiled()
def lookup(keys: Any, table: Any, ids: Any, out: Any, missing: Any) -> None:
    """Write the id of each key, or `missing` where the table has none."""
    mask = table.shape[0] - 1
    for i in range(keys.shape[0]):
        key = keys[i]
        slot = (key * GOLDEN >> 20) & mask
        out[i] = missing
        while ids[slot] >= 0:
            if table[slot] == key:
                out[i] = ids[slot]
                break
            slot = (slot + 1) & mask


def embedding(d: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """Return what `embed` needs to know for d features.

    Returns:
        Scale of each feature, float32 (d,); what a step of each coordinate adds to a packed vertex, int64 (d + 1,), 0
        for the last, which is not stored; the largest quotient, within float32's exact integers or a power of two.
    """
    r_bits, q_bits = layout(d)
    scale = [np.sqrt(2 / 3) * (d + 1) / np.sqrt((j + 1) * (j + 2)) for j in range(d)]
    steps = [*(1 << (r_bits + q_bits * j) for j in range(d)), 0]
    return np.array(scale, dtype=np.float32), np.array(steps, dtype=np.int64), min(2 ** (q_bits - 1) - 2, 2**28)


@compiled()
def closest(
    features: Any, scale: Any, steps: Any, limit: Any, begin: Any, size: Any, distance: Any,
    rounded: Any, rank: Any, keys: Any,
) -> Any:  # fmt: skip
    """Find the closest vertex of remainder 0 of some points, by loops over the points that become vector instructions.

    Arguments: those of `embed`; first point and how many; of each coordinate (d + 1, block) the distance from the
    vertex, its quotient there, and how many coordinates lie farther; packed vertices (block). Returns whether all
    quotients can be packed.
    """
    d = features.shape[1]
    vertices = d + 1
    down = np.float32(1.0 / vertices)
    total = np.zeros(size, dtype=np.float32)
    excess = np.zeros(size, dtype=np.int32)
    farthest = np.float32(0)
    for j in range(d, -1, -1):
        row, whole = distance[j], rounded[j]
        for b in range(size):
            value = features[begin + b, j - 1] * scale[j - 1] if j else np.float32(0)
            elevated = total[b] - np.float32(j) * value
            total[b] += value
            nearest = np.rint(elevated * down)
            row[b] = elevated - nearest * np.float32(vertices)
            farthest = max(farthest, abs(nearest))
            whole[b] = np.int32(nearest)
            excess[b] += whole[b]
    for j in range(vertices):
        for b in range(size):
            rank[j, b] = excess[b]
    for j in range(d):
        for k in range(j + 1, vertices):
            one, other, rank_one, rank_other = distance[j], distance[k], rank[j], rank[k]
            for b in range(size):
                nearer = np.int32(one[b] < other[b])
                rank_one[b] += nearer
                rank_other[b] += np.int32(1) - nearer
    for b in range(size):
        keys[b] = 0
    for j in range(vertices):
        row, whole, place = distance[j], rounded[j], rank[j]
        for b in range(size):
            wrap = np.int32(place[b] < 0) - np.int32(place[b] > d)
            place[b] += wrap * np.int32(vertices)
            whole[b] += wrap
            row[b] -= np.float32(wrap * np.int32(vertices))
            keys[b] += (np.int64(whole[b]) + (limit + 2)) * steps[j]
    return farthest <= np.float32(limit)


@compiled()
def grown(unique: Any, count: Any) -> Any:
    """Return a table for more of the vertices so far, its ids, and the vertices with room for more."""
    wider = np.empty(2 * unique.shape[0], dtype=np.int64)
    table, table_ids = new_table(2 * wider.shape[0])
    for j in range(count):
        find_or_insert(unique[j], table, table_ids, wider, j)
    return table, table_ids, wider


@compiled()
def embed(
    features: Any, scale: Any, steps: Any, limit: Any, first: Any, last: Any, ids: Any, weights: Any,
    column: Any, start: Any,
) -> Any:  # fmt: skip
    """Find the simplex of each point from `first` to `last`, and the weights of its vertices.

    Arguments: features float32 (N, d), already divided by their standard deviations; what `embedding` returns;
    ids int32 (N, V) and weights float32 (N, V), of which the columns from `column` on are filled; the first vertex's
    number. Returns the vertices met, packed, in the order of their first use; empty if a coordinate is too large to be
    packed.

    Source: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010, section 3.
    """
    d = features.shape[1]
    vertices = d + 1
    down = np.float32(1.0 / vertices)
    distance = np.empty((vertices, BLOCK), dtype=np.float32)
    rounded = np.empty((vertices, BLOCK), dtype=np.int32)
    rank = np.empty((vertices, BLOCK), dtype=np.int32)
    keys = np.empty(BLOCK, dtype=np.int64)
    by_rank = np.empty(vertices, dtype=np.int64)
    nearness = np.empty(vertices, dtype=np.float32)
    found = np.zeros(vertices, dtype=np.int32)
    last_keys = np.empty(vertices, dtype=np.int64)
    for r in range(vertices):
        last_keys[r] = -1
    last_key, last_order, count = -1, -1, 0
    table, table_ids = new_table(FIRST_SIZE)
    unique = np.empty(FIRST_SIZE // 2, dtype=np.int64)
    for begin in range(first, last, BLOCK):
        size = min(BLOCK, last - begin)
        if not closest(features, scale, steps, limit, begin, size, distance, rounded, rank, keys):
            return unique[:0]
        if count + vertices * BLOCK > unique.shape[0]:
            table, table_ids, unique = grown(unique, count)
        for b in range(size):
            order = 0
            for j in range(vertices):
                place = rank[j, b]
                by_rank[place] = j
                nearness[place] = distance[j, b] * down
                order |= j << (4 * place)
            i, key = begin + b, keys[b]
            if key != last_key or order != last_order:
                last_key, last_order = key, order
                for r in range(vertices):
                    # Vertex r is vertex r - 1 moved by one along all axes but that of the coordinate ranked d + 1 - r.
                    if r > 0:
                        key += 1 - steps[by_rank[vertices - r]]
                    if key != last_keys[r]:
                        last_keys[r] = key
                        found[r] = find_or_insert(key, table, table_ids, unique, count)
                        if found[r] == count:
                            count += 1
            weights[i, column] = np.float32(1) + nearness[d] - nearness[0]
            ids[i, column] = start + found[0]
            for r in range(1, vertices):
                weights[i, column + r] = nearness[d - r] - nearness[vertices - r]
                ids[i, column + r] = start + found[r]
    return unique[:count]


@compiled()
def merge(keys: Any, new_ids: Any) -> Any:
    """Number keys among which some come twice: return the single ones, their table and its ids; fill the new ids."""
    size = 1 << 4
    while size < 2 * keys.shape[0] + 2:
        size *= 2
    table, table_ids = new_table(size)
    unique = np.empty(keys.shape[0] + 1, dtype=np.int64)
    count = 0
    for i in range(keys.shape[0]):
        new_ids[i] = find_or_insert(keys[i], table, table_ids, unique, count)
        if new_ids[i] == count:
            count += 1
    return unique[:count], table, table_ids


@compiled(fastmath=True)
def renumber(ids: Any, first: Any, last: Any, column: Any, end: Any, start: Any, new_ids: Any) -> None:
    """Replace the ids of points from `first` to `last`, in columns from `column` to `end`, which begin at `start`."""
    for i in range(first, last):
        for v in range(column, end):
            ids[i, v] = start + new_ids[ids[i, v] - start]


@compiled(fastmath=True)
def splat(ids: Any, weights: Any, column: Any, end: Any, start: Any, source: Any, values: Any) -> None:
    """Add each point's source (N, C) to the values (M + 1, C) of its vertices, by its weights."""
    for i in range(ids.shape[0]):
        for v in range(column, end):
            vertex, weight = ids[i, v] - start, weights[i, v]
            for c in range(source.shape[1]):
                values[vertex, c] += weight * source[i, c]


@compiled(fastmath=True)
def slice_(ids: Any, weights: Any, column: Any, end: Any, start: Any, values: Any, target: Any) -> None:
    """Read each point's target (N, C) off the values (M + 1, C) of its vertices, by its weights."""
    for i in range(ids.shape[0]):
        for c in range(target.shape[1]):
            target[i, c] = 0
        for v in range(column, end):
            vertex, weight = ids[i, v] - start, weights[i, v]
            for c in range(target.shape[1]):
                target[i, c] += weight * values[vertex, c]


@compiled(fastmath=True)
def blur(neighbours: Any, old: Any, new: Any) -> None:
    """Blur values (M + 1, C) along one axis: new = old + half of both neighbours, int32 (2, M)."""
    for m in range(neighbours.shape[1]):
        left, right = neighbours[0, m], neighbours[1, m]
        for c in range(old.shape[1]):
            new[m, c] = old[m, c] + np.float32(0.5) * (old[left, c] + old[right, c])


@compiled(fastmath=True)
def add_weights(ids: Any, weights: Any, first: Any, last: Any, column: Any, end: Any, start: Any, values: Any) -> None:
    """Add the weights of points from `first` to `last` to the values (M + 1) of their vertices."""
    for i in range(first, last):
        for v in range(column, end):
            values[ids[i, v] - start] += weights[i, v]


@compiled(fastmath=True)
def normalise(
    ids: Any, read: Any, write: Any, first: Any, last: Any, column: Any, end: Any, start: Any, values: Any, gain: Any,
    tiny: Any, to_read: Any, to_write: Any,
) -> None:  # fmt: skip
    """Multiply weights by norms.

    Arguments: ids, weights to read and to write (N, V), which may be one array if both are multiplied alike; first and
    last point; first and last column; the first vertex's number; values float32 (M + 1), from which a point's norm n is
    sliced; gain of the slicing; how often the square root of 1 / n goes into the weights for reading and for writing.
    """
    for i in range(first, last):
        norm = np.float32(0)
        for v in range(column, end):
            norm += write[i, v] * values[ids[i, v] - start]
        inverse = np.float32(1) / (norm * gain + tiny)
        root = np.sqrt(inverse)
        if to_read == 1:  # and to_write too, and the weights may be the same
            for v in range(column, end):
                write[i, v] *= root
                read[i, v] = write[i, v]
        elif to_read == 2:
            for v in range(column, end):
                read[i, v] *= inverse
        elif to_write == 2:
            for v in range(column, end):
                write[i, v] *= inverse


@compiled(fastmath=True)
def restore(weights: Any, first: Any, last: Any, column: Any, end: Any) -> None:
    """Take norms out of weights again: without, each point's sum to 1."""
    for i in range(first, last):
        total = np.float32(0)
        for v in range(column, end):
            total += weights[i, v]
        inverse = np.float32(1) / total
        for v in range(column, end):
            weights[i, v] *= inverse


@compiled()
def clean(given: Any, out: Any, first: Any, last: Any, least: Any) -> Any:
    """Divide values (K, N), of points from `first` to `last`, by their sums over the labels, and raise them to `least`.

    The two arrays may be one. Returns the smallest and largest sum and the smallest value; NaN anywhere gives NaN sums.
    """
    low, high, smallest = np.float32(np.inf), np.float32(-np.inf), np.float32(np.inf)
    odd = np.float32(0)
    width = 512
    total = np.empty(width, dtype=np.float32)
    lowest = np.empty(width, dtype=np.float32)
    for begin in range(first, last, width):
        size = min(width, last - begin)
        for j in range(size):
            total[j], lowest[j] = 0, np.inf
        for k in range(given.shape[0]):
            row = given[k, begin : begin + size]
            for j in range(size):
                total[j] += row[j]
                lowest[j] = min(lowest[j], row[j])
        for j in range(size):
            low = min(low, total[j])
            high = max(high, total[j])
            smallest = min(smallest, lowest[j])
            odd += total[j] * np.float32(0)  # 0, or NaN
            total[j] = np.float32(1) / total[j]
        for k in range(given.shape[0]):
            row, target = given[k, begin : begin + size], out[k, begin : begin + size]
            for j in range(size):
                target[j] = max(row[j] * total[j], least)
    return low + odd, high + odd, smallest
