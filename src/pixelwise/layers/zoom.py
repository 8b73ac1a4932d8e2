"""Bilinear interpolation on an anchored grid: the "Interp" layer of DeepLab, the `interp_map` of Dilation.

Cell i of the map lies on position z * i of the result, so that every z-th position is a cell unchanged. There is
no shift by half a cell, as there is with `align_corners=False`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def zoom(x: Tensor, factor: int, *, size: Sequence[int] | None = None, offset: int = 0) -> Tensor:
    """Interpolate a map linearly between its cells.

    Args:
        x: float (N, C, h, w).
        factor: z, positions between neighbouring cells.
        size: (H, W) to cut out; None keeps all positions.
        offset: first position that is kept along both axes, with `size` only.

    Returns:
        Float (N, C, z (h - 1) + 1, z (w - 1) + 1), or (N, C, H, W).

    >>> import torch
    >>> zoom(torch.tensor([[[[0.0, 4.0]]]]), 4).tolist()
    [[[[0.0, 1.0, 2.0, 3.0, 4.0]]]]
    """
    whole = [factor * (side - 1) + 1 for side in x.shape[2:]]
    if factor > 1:
        x = functional.interpolate(x, size=whole, mode="bilinear", align_corners=True)
    return x if size is None else x[:, :, offset : offset + size[0], offset : offset + size[1]]


def pad_to_grid(images: Tensor, step: int) -> Tensor:
    """Add zeros at the bottom and the right, so that every side is a multiple of the step and one more.

    Then the first and the last pixel lie on cells of a network whose cells are so many pixels apart. Zero is the mean
    colour, with which DeepLab fills images up to 321, 513 or 1025 x 2049 pixels.

    Args:
        images: float (N, C, H, W).
        step: pixels between neighbouring cells.

    Returns:
        Float (N, C, step * ceil((H - 1) / step) + 1, step * ceil((W - 1) / step) + 1).

    >>> import torch
    >>> pad_to_grid(torch.ones(1, 1, 512, 1), 16).shape
    torch.Size([1, 1, 513, 1])
    """
    bottom, right = ((1 - side) % step for side in images.shape[2:])
    return functional.pad(images, (0, right, 0, bottom)) if bottom or right else images
