"""One mean-field update of a part of the points, in one pass: read the lattices, take the softmax, write to the next.

Beliefs are never stored between iterations. Per point, the messages of all kernels are gathered from the vertices
around it (V of them over all kernels), turned into beliefs, and scattered to the same vertices for the next filtering.

Axes: N points, K labels, L labels padded to a multiple of `LANES`, V vertices of a point.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelwise.crf.loops import BLOCK, LANES, compiled
from pixelwise.crf.vector import go_on, mix, only_read, only_write, scale, transpose


@compiled(fastmath=True)
def update(
    vertices: Any,
    vectors: Any,
    probabilities: Any,
    ids: Any,
    read: Any,
    write: Any,
    values: Any,
    floor: Any,
    sums: Any,
    beliefs: Any,
    first: Any,
    last: Any,
    finish: Any,
) -> None:
    """Pass over the points from `first` to `last`.

    Arguments: V zeros; L / 8 zeros; probabilities float32 (K, N); ids int32 (N V); weights with which a point reads and
    writes its vertices, float32 (N V) each; values to read, float32 (M L), or none at the start; `floor` float32 (L), 0
    and very low where there is no label; sums to write, float32 (M L); beliefs float32 (K, N), filled where `finish` is
    set, and then nothing is written to the sums.
    """
    labels, count = probabilities.shape
    padded = len(vectors) * LANES
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
                    transpose(vectors, flat, k * count + begin + b, count, q, b * padded + k)  # type: ignore[call-arg]
        for k in range(done, labels):
            for b in range(size):
                q[b * padded + k] = probabilities[k, begin + b]
        for b in range(size):
            point, row = (begin + b) * len(vertices), b * padded
            if values.shape[0]:
                if finish:
                    only_read(vertices, vectors, ids, read, write, point, values, floor, q, row, sums)
                else:
                    go_on(vertices, vectors, ids, read, write, point, values, floor, q, row, sums)
            elif finish:
                scale(vertices, vectors, ids, read, write, point, values, floor, q, row, sums)
            else:
                only_write(vertices, vectors, ids, read, write, point, values, floor, q, row, sums)
        if finish:
            for k in range(labels):
                for b in range(size):
                    beliefs[k, begin + b] = q[b * padded + k]


@compiled(fastmath=True)
def blur(vectors: Any, neighbours: Any, old: Any, new: Any, padded: Any, first: Any) -> None:
    """Blur values along one axis, in as many columns from the first one on as the vectors have values.

    Arguments: a zero for each vector; neighbours int32 (2 M); old and new values float32 ((M + 1) L); L; first column.
    """
    count = neighbours.shape[0] // 2
    for m in range(count):
        mix(vectors, neighbours, m, count, old, new, padded, first)  # type: ignore[call-arg]
