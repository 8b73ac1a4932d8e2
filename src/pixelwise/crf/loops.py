"""The compiled loops of the permutohedral lattice and of mean field, for one thread and a part of the points each.

Axes: N points, d features, R = d + 1 vertices of a simplex, M vertices of the lattice, V vertices of a point over all
kernels, K labels, L labels padded to a multiple of `LANES`.

A vertex of the lattice is known by d integers with the same remainder r modulo d + 1. They are packed into one int64:
r in the lowest bits, then each integer's quotient (coordinate - r) / (d + 1).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

LANES = 8  # float32 values that one vector instruction handles
BLOCK = 32  # points whose labels are transposed at once, so that they stay in the first-level cache
GOLDEN = -7046029254386353131  # 2**64 / golden ratio, as int64: spreads packed keys over the table

Loop = Callable[..., Any]


def layout(d: int) -> tuple[int, int]:
    """Return the bits of the remainder and of each quotient in a packed vertex of d features.

    >>> layout(5), layout(2)
    ((3, 12), (2, 30))
    """
    remainder = int(d).bit_length()
    return remainder, (63 - remainder) // d


def compiled(loop: Loop) -> Loop:
    """Compile a loop, or read it from numba's cache."""
    import numba

    try:
        return numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")(loop)
    except RuntimeError:  # no folder for the cache can be written: compile per process
        return numba.njit(nogil=True, fastmath=True, error_model="numpy")(loop)


def exact(loop: Loop) -> Loop:
    """Compile a loop whose rounding decides which simplex a point lies in, without reordering its sums."""
    import numba

    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(loop)
    except RuntimeError:
        return numba.njit(nogil=True, error_model="numpy")(loop)


@cache
def find_or_insert() -> Loop:
    """Return (key, table keys, table ids, unique keys, count) -> id of the key; its id is `count` if it was new."""

    def loop(key, table, ids, unique, count):  # type: ignore[no-untyped-def]
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

    return exact(loop)


@cache
def lookup() -> Loop:
    """Return (keys, table keys, table ids, out): the id of each key, or `missing` where the table has none."""

    def loop(keys, table, ids, out, missing):  # type: ignore[no-untyped-def]
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

    return exact(loop)


@cache
def embed(d: int) -> Loop:
    """Return the loop that finds the simplex of each point of a part and the weights of its vertices.

    Arguments: features float32 (N, d), already divided by their standard deviations; first and last point; ids int32
    (N, V) and weights float32 (N, V), of which the columns from `column` on are filled. Returns the vertices met,
    packed, in the order of their first use; empty if a coordinate is too large to be packed.

    Source: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010, section 3.
    """
    r_bits, q_bits = layout(d)
    insert = find_or_insert()
    vertices = d + 1
    limit = 2 ** (q_bits - 1) - 2
    scale = np.array([np.sqrt(2 / 3) * (d + 1) / np.sqrt((j + 1) * (j + 2)) for j in range(d)], dtype=np.float32)
    down = np.float32(1 / (d + 1))
    steps = np.array([*(1 << (r_bits + q_bits * j) for j in range(d)), 0], dtype=np.int64)  # the last is not stored

    def loop(features, first, last, ids, weights, column):  # type: ignore[no-untyped-def]
        elevated = np.empty(vertices, dtype=np.float32)
        rounded = np.empty(vertices, dtype=np.int64)
        rank = np.empty(vertices, dtype=np.int64)
        by_rank = np.empty(vertices, dtype=np.int64)
        distance = np.empty(vertices, dtype=np.float32)
        last_key = np.full(vertices, -1, dtype=np.int64)
        last_id = np.empty(vertices, dtype=np.int32)
        table = np.empty(1 << 12, dtype=np.int64)
        table_ids = np.full(1 << 12, -1, dtype=np.int32)
        unique = np.empty(1 << 11, dtype=np.int64)
        count = 0
        for i in range(first, last):
            total = np.float32(0)
            for j in range(d, 0, -1):
                value = features[i, j - 1] * scale[j - 1]
                elevated[j] = total - j * value
                total += value
            elevated[0] = total
            excess = 0
            for j in range(vertices):
                rounded[j] = np.int64(np.rint(elevated[j] * down))
                excess += rounded[j]
                distance[j] = elevated[j] - rounded[j] * vertices
                rank[j] = 0
            for j in range(d):
                for k in range(j + 1, vertices):
                    nearer = np.int64(distance[j] < distance[k])
                    rank[j] += nearer
                    rank[k] += 1 - nearer
            farthest = 0
            for j in range(vertices):
                rank[j] += excess
                wrap = np.int64(rank[j] < 0) - np.int64(rank[j] > d)
                rank[j] += wrap * vertices
                rounded[j] += wrap
                distance[j] -= wrap * vertices
                by_rank[rank[j]] = j
                farthest = max(farthest, abs(rounded[j]))
            if farthest > limit:
                return unique[:0]
            key = 0
            for j in range(d):
                key |= (rounded[j] + (limit + 2)) << (r_bits + q_bits * j)
            if count + vertices > unique.shape[0]:
                grown = np.empty(2 * unique.shape[0], dtype=np.int64)
                grown[:count] = unique[:count]
                unique = grown
                table = np.empty(2 * table.shape[0], dtype=np.int64)
                table_ids = np.full(table.shape[0], -1, dtype=np.int32)
                for j in range(count):
                    insert(unique[j], table, table_ids, unique, j)
            for r in range(vertices):
                # Vertex r is vertex r - 1 moved by one along all axes but that of the coordinate that ranks d + 1 - r.
                if r > 0:
                    moved = by_rank[vertices - r]
                    key += 1 - (steps[moved])
                current = distance[by_rank[d - r]] * down
                weights[i, column + r] = (
                    current - distance[by_rank[vertices - r]] * down
                    if r
                    else (np.float32(1) + current - distance[by_rank[0]] * down)
                )
                if key != last_key[r]:
                    last_key[r] = key
                    last_id[r] = insert(key, table, table_ids, unique, count)
                    if last_id[r] == count:
                        count += 1
                ids[i, column + r] = last_id[r]
        return unique[:count]

    return exact(loop)


@cache
def merge() -> Loop:
    """Return (parts' unique keys in a row, where each part ends) -> all unique keys, and an id for each one given."""
    insert = find_or_insert()

    def loop(keys, new_ids):  # type: ignore[no-untyped-def]
        size = 1 << 4
        while size < 2 * keys.shape[0] + 2:
            size *= 2
        table = np.empty(size, dtype=np.int64)
        table_ids = np.full(size, -1, dtype=np.int32)
        unique = np.empty(keys.shape[0] + 1, dtype=np.int64)
        count = 0
        for i in range(keys.shape[0]):
            new_ids[i] = insert(keys[i], table, table_ids, unique, count)
            if new_ids[i] == count:
                count += 1
        return unique[:count], table, table_ids

    return exact(loop)


@cache
def renumber() -> Loop:
    """Return (ids, first point, last point, first column, last column, new ids): replace each id in place."""

    def loop(ids, first, last, column, end, new_ids):  # type: ignore[no-untyped-def]
        for i in range(first, last):
            for v in range(column, end):
                ids[i, v] = new_ids[ids[i, v]]

    return compiled(loop)


@cache
def splat() -> Loop:
    """Return (ids, weights, columns, source (N, C), values (M + 1, C)): add each point's source to its vertices."""

    def loop(ids, weights, column, end, source, values):  # type: ignore[no-untyped-def]
        for i in range(ids.shape[0]):
            for v in range(column, end):
                vertex, weight = ids[i, v], weights[i, v]
                for c in range(source.shape[1]):
                    values[vertex, c] += weight * source[i, c]

    return compiled(loop)


@cache
def slice_() -> Loop:
    """Return (ids, weights, columns, values (M + 1, C), target (N, C)): read each point's value at its vertices."""

    def loop(ids, weights, column, end, values, target):  # type: ignore[no-untyped-def]
        for i in range(ids.shape[0]):
            for c in range(target.shape[1]):
                target[i, c] = 0
            for v in range(column, end):
                vertex, weight = ids[i, v], weights[i, v]
                for c in range(target.shape[1]):
                    target[i, c] += weight * values[vertex, c]

    return compiled(loop)


@cache
def blur() -> Loop:
    """Return (neighbours of one axis (2, M), old (M + 1, C), new (M + 1, C), columns): new = old + their mean."""

    def loop(neighbours, old, new, first, last):  # type: ignore[no-untyped-def]
        for m in range(neighbours.shape[1]):
            left, right = neighbours[0, m], neighbours[1, m]
            for c in range(first, last):
                new[m, c] = old[m, c] + np.float32(0.5) * (old[left, c] + old[right, c])

    return compiled(loop)


@cache
def add_weights() -> Loop:
    """Return (ids, weights, first point, last point, columns, values (M + 1)): splat ones."""

    def loop(ids, weights, first, last, column, end, values):  # type: ignore[no-untyped-def]
        for i in range(first, last):
            for v in range(column, end):
                values[ids[i, v]] += weights[i, v]

    return compiled(loop)


@cache
def normalise() -> Loop:
    """Return the loop that multiplies weights by norms and renumbers their vertices.

    Arguments: ids, weights to read and to write (N, V), which may be one array; first and last point; first and last
    column; values float32 (M + 1), from which a point's norm n is sliced, or none; gain of the slicing; how often the
    square root of 1 / n goes into the weights for reading and for writing; number of the first vertex.
    """

    def loop(ids, read, write, same, first, last, column, end, values, gain, tiny, to_read, to_write, start):  # type: ignore[no-untyped-def]
        for i in range(first, last):
            if values.shape[0]:
                norm = np.float32(0)
                for v in range(column, end):
                    norm += write[i, v] * values[ids[i, v]]
                inverse = np.float32(1) / (norm * gain + tiny)
                root = np.sqrt(inverse)
                for_read = inverse if to_read == 2 else (root if to_read == 1 else np.float32(1))
                for_write = inverse if to_write == 2 else (root if to_write == 1 else np.float32(1))
                for v in range(column, end):
                    write[i, v] *= for_write
                    if not same:
                        read[i, v] *= for_read
            for v in range(column, end):
                ids[i, v] += start

    return compiled(loop)
