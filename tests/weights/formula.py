"""Numbers by a fixed formula, the same with every version of every library: weights and images for golden tensors."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def numbers(key: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """Return values between -1 and 1, evenly spread, that depend on the key: splitmix64 over a counter."""
    count = math.prod(shape)
    with np.errstate(over="ignore"):
        state = np.uint64(zlib.crc32(key.encode()) << 32) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    values = (state >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    return values.reshape(tuple(shape))


def weight(key: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """Return weights that keep the size of what goes through: variance 2 / fan_in for (out, in, h, w) or (out, in)."""
    return numbers(key, shape) * np.float32(math.sqrt(6 / max(1, math.prod(shape[1:]))))


def image(height: int, width: int) -> NDArray[np.float32]:
    """Return an image as Caffe's networks see it, float32 (1, 3, H, W), B, G, R with the mean taken away."""
    return numbers("image", (1, 3, height, width)) * np.float32(120)
