"""One mean-field update of a part of the points, in one pass: read the lattices, take the softmax, write to the next.

Beliefs are never stored between iterations. Per point, the messages of all kernels are gathered from the vertices
around it (V of them over all kernels), turned into beliefs, and scattered to the same vertices for the next filtering.

Axes: N points, K labels, L labels padded to a multiple of `LANES`, V vertices of a point.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pixelwise.crf.loops import BLOCK, Loop, compiled
from pixelwise.crf.vector import LANES, mix, move, transpose


@cache
def update(vertices: int, padded: int) -> Loop:
    """Return the pass over the points from `first` to `last`.

    Arguments: probabilities float32 (K, N); ids int32 (N V); weights with which a point reads and writes its vertices,
    float32 (N V) each; values to read, float32 (M L), or none at the start; `floor` float32 (L), 0 and very low where
    there is no label; sums to write, float32 (M L); beliefs float32 (K, N), filled where `finish` is set, and then
    nothing is written to the sums.
    """
    start, go_on, end, only = (
        move(vertices, padded, reads=reads, writes=writes)
        for reads, writes in ((False, True), (True, True), (True, False), (False, False))
    )
    turn = transpose(padded)

    def loop(probabilities, ids, read, write, values, floor, sums, beliefs, first, last, finish):  # type: ignore[no-untyped-def]
        labels, count = probabilities.shape
        flat = probabilities.reshape(-1)
        whole = labels // LANES * LANES
        q = np.zeros(BLOCK * padded, dtype=np.float32)
        for begin in range(first, last, BLOCK):
            size = min(BLOCK, last - begin)
            done = 0
            if size == BLOCK:
                done = whole
                for k in range(0, whole, LANES):
                    for b in range(0, BLOCK, LANES):
                        turn(flat, k * count + begin + b, count, q, b * padded + k)
            for k in range(done, labels):
                for b in range(size):
                    q[b * padded + k] = probabilities[k, begin + b]
            for b in range(size):
                point, row = (begin + b) * vertices, b * padded
                if values.shape[0]:
                    if finish:
                        end(ids, read, write, point, values, floor, q, row, sums)
                    else:
                        go_on(ids, read, write, point, values, floor, q, row, sums)
                elif finish:
                    only(ids, read, write, point, values, floor, q, row, sums)
                else:
                    start(ids, read, write, point, values, floor, q, row, sums)
            if finish:
                for k in range(labels):
                    for b in range(size):
                        beliefs[k, begin + b] = q[b * padded + k]

    return compiled(loop)


@cache
def blur(padded: int, width: int) -> Loop:
    """Return the blur along one axis: neighbours int32 (2 M), old and new float32 ((M + 1) L), first column."""
    row = mix(padded, width)

    def loop(neighbours, old, new, first):  # type: ignore[no-untyped-def]
        count = neighbours.shape[0] // 2
        for m in range(count):
            row(neighbours, m, count, old, new, first)

    return compiled(loop)
