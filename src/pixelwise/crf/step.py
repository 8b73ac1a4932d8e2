"""One mean-field update of a part of the points, in one pass: read the lattices, take the softmax, write to the next.

Beliefs are never stored between iterations. For eight points at a time, the messages of all kernels are gathered from
the vertices around each (V of them over all kernels), turned into beliefs, and scattered to the same vertices for the
next filtering. In between the eight are turned so that each is a lane of the vectors and labels follow each other, as
they do in the maps: a softmax then needs no sum or maximum within a vector.

Axes: N points, K labels, L labels padded to a multiple of `LANES`, V vertices of a point.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelwise.crf.loops import BLOCK, LANES, compiled
from pixelwise.crf.vector import gather, mix, scatter, soften, transpose


@compiled(fastmath=True)
def update(
    vertices: Any,
    probabilities: Any,
    ids: Any,
    read: Any,
    write: Any,
    values: Any,
    sums: Any,
    beliefs: Any,
    padded: Any,
    first: Any,
    last: Any,
    finish: Any,
) -> None:
    """Pass over the points from `first` to `last`.

    Arguments: V zeros; probabilities float32 (K, N); ids int32 (N V); weights with which a point reads and writes its
    vertices, float32 (N V) each; values to read, float32 (M L), or none at the start; sums to write, float32 (M L);
    beliefs float32 (K, N), filled where `finish` is set, and then nothing is written to the sums; L.
    """
    labels, count = probabilities.shape
    chunks = padded // LANES
    p, out = probabilities.reshape(-1), beliefs.reshape(-1)
    few = np.ones(labels * LANES, dtype=np.float32)  # probabilities of the last points, if they are less than eight
    q = np.zeros(BLOCK * padded, dtype=np.float32)  # (block, L)
    scores = np.zeros(padded * BLOCK, dtype=np.float32)  # (block / 8, L, 8)
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        if values.shape[0]:
            for i in range(begin, end):
                gather(vertices, ids, read, i * len(vertices), values, padded, q, (i - begin) * padded)
            for row in range(0, (end - begin) * padded, LANES * padded):
                transpose(q, row, padded, LANES, scores, row, LANES, LANES * LANES, chunks)
        else:
            scores[:] = 0
        for i in range(begin, end, LANES):
            row = (i - begin) * padded
            size = min(LANES, end - i)
            if size == LANES:
                if finish:
                    soften(scores, row, labels, p, i, count, out, i, count)
                else:
                    soften(scores, row, labels, p, i, count, scores, row, LANES)
            else:
                for k in range(labels):
                    for b in range(size):
                        few[k * LANES + b] = p[k * count + i + b]
                soften(scores, row, labels, few, 0, LANES, scores, row, LANES)
                if finish:
                    for k in range(labels):
                        for b in range(size):
                            out[k * count + i + b] = scores[row + k * LANES + b]
        if not finish:
            for row in range(0, (end - begin) * padded, LANES * padded):
                transpose(scores, row, LANES, LANES * LANES, q, row, padded, LANES, chunks)
            for i in range(begin, end):
                scatter(vertices, ids, write, i * len(vertices), q, (i - begin) * padded, padded, sums)


@compiled(fastmath=True)
def blur(neighbours: Any, old: Any, new: Any, padded: Any, begin: Any, end: Any, first: Any, last: Any) -> None:
    """Blur the values of vertices from `first` to `last` along one axis, in columns from `begin` to `end`.

    Arguments: neighbours int32 (2 M); old and new values float32 ((M + 1) L); L; columns, multiples of 8; vertices.
    """
    count = neighbours.shape[0] // 2
    for m in range(first, last):
        mix(neighbours, m, count, old, new, padded, begin, end)
