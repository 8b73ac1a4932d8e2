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
from pixelwise.crf.vector import compare, gather, mix, scatter, soften, transpose

# Digest of `vector.py`, which a test holds true. numba's cache looks at the text of this file alone, and would keep on
# running loops of older instructions.
INSTRUCTIONS = "5acafec0"

# What a pass does with the beliefs: write them to the sums, and to the beliefs too, and compare them with what was
# there; or write them to the beliefs alone.
GO_ON, NOTE, COMPARE, FINISH = 0, 1, 2, 3


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
    mode: Any,
) -> Any:
    """Pass over the points from `first` to `last`.

    Arguments: V zeros; probabilities float32 (K, N); ids int32 (N V); weights with which a point reads and writes its
    vertices, float32 (N V) each; values to read, float32 (M L), or none at the start; sums to write, float32 (M L);
    beliefs float32 (K, N), or none where they are not written; L; first and last point; mode, see above. Returns the
    sum over the points of the divergence of the beliefs from those before, 0 if they are not compared.
    """
    labels, count = probabilities.shape
    chunks = padded // LANES
    p, out = probabilities.reshape(-1), beliefs.reshape(-1)
    few = np.ones(labels * LANES, dtype=np.float32)  # probabilities of the last points, if they are less than eight
    before = np.ones(labels * LANES, dtype=np.float32)  # and their beliefs
    q = np.zeros(BLOCK * padded, dtype=np.float32)  # (block, L)
    scores = np.zeros(padded * BLOCK, dtype=np.float32)  # (block / 8, L, 8)
    divergence = 0.0
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        if values.shape[0]:
            for i in range(begin, end):
                gather(vertices, ids, read, i * len(vertices), values, padded, q, (i - begin) * padded)
            for row in range(0, (end - begin) * padded, LANES * padded):
                transpose(q, row, padded, LANES, scores, row, LANES, LANES * LANES, chunks)
        else:
            for k in range(scores.shape[0]):
                scores[k] = 0
        for i in range(begin, end, LANES):
            row = (i - begin) * padded
            size = min(LANES, end - i)
            if size == LANES:
                if mode == FINISH:
                    soften(scores, row, labels, p, i, count, out, i, count)
                else:
                    soften(scores, row, labels, p, i, count, scores, row, LANES)
                if mode == COMPARE:
                    divergence += compare(scores, row, labels, out, i, count)
                elif mode == NOTE:
                    for k in range(labels):
                        for b in range(LANES):
                            out[k * count + i + b] = scores[row + k * LANES + b]
            else:
                for k in range(labels):
                    for b in range(size):
                        few[k * LANES + b] = p[k * count + i + b]
                soften(scores, row, labels, few, 0, LANES, scores, row, LANES)
                if mode == COMPARE:
                    for k in range(labels):
                        for b in range(LANES):
                            before[k * LANES + b] = out[k * count + i + b] if b < size else scores[row + k * LANES + b]
                    divergence += compare(scores, row, labels, before, 0, LANES)
                if mode != GO_ON:
                    for k in range(labels):
                        for b in range(size):
                            out[k * count + i + b] = scores[row + k * LANES + b]
        if mode != FINISH:
            for row in range(0, (end - begin) * padded, LANES * padded):
                transpose(scores, row, LANES, LANES * LANES, q, row, padded, LANES, chunks)
            for i in range(begin, end):
                scatter(vertices, ids, write, i * len(vertices), q, (i - begin) * padded, padded, sums)
    return divergence


@compiled(fastmath=True)
def blur(neighbours: Any, old: Any, new: Any, factors: Any, padded: Any, first: Any, last: Any) -> None:
    """Blur the values of vertices from `first` to `last` along one axis, and multiply them by factors of the labels.

    Arguments: neighbours int32 (2 M); old and new values float32 ((M + 1) L); factors float32 (L); L; vertices.
    """
    count = neighbours.shape[0] // 2
    for m in range(first, last):
        mix(neighbours, m, count, old, new, factors, padded)
