"""The compiled loop that finds nearest textons.

Axes: P pixels, R responses, T textons.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelwise.classical.vector import PIXELS, TEXTONS, nearer
from pixelwise.crf.loops import compiled


@compiled()
def assign(responses: Any, whitened: Any, centres: Any, half_norms: Any, nearest: Any) -> None:
    """Write the number of each pixel's nearest texton.

    Arguments: R zeros; whitened float32 (R, P); centres float32 (T, R), T a multiple of 4, and their halved squared
    norms (T,), infinite for those that only fill up; nearest uint16 (P,). Of equally near ones the first wins.
    """
    count = whitened.shape[1]
    block = np.zeros((len(responses), PIXELS), dtype=np.float32)
    best = np.empty(PIXELS, dtype=np.float32)
    which = np.empty(PIXELS, dtype=np.int32)
    for first in range(0, count, PIXELS):
        size = min(PIXELS, count - first)
        for r in range(len(responses)):
            for i in range(size):
                block[r, i] = whitened[r, first + i]
        best[:] = -np.inf
        which[:] = 0
        for t in range(0, centres.shape[0], TEXTONS):
            nearer(responses, block, centres, half_norms, t, best, which)
        for i in range(size):
            nearest[first + i] = which[i]
