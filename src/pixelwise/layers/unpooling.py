"""Max pooling that remembers where each maximum was, and unpooling that puts values back there.

2x2 windows, two apart. A side of odd length ends in a window of one row or column, as Caffe rounds ("ceil mode"):
45 x 61 pools to 23 x 31 and unpools to 45 x 61 again. Of equal values the first in reading order is the maximum.

Source: M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 2.1
(switches); the networks are SegNet and DeconvNet.

Axes: N batch, C channels, H and W size before pooling, h = ceil(H / 2) and w = ceil(W / 2) after it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError


class Switches(NamedTuple):
    """Where the maxima of a pooling were.

    Attributes:
        indices: int64 (N, C, h, w), the maximum's place y * W + x in its channel of the map before pooling.
        size: (H, W) of that map.
    """

    indices: Tensor
    size: tuple[int, int]


class MaxPool2x2(nn.Module):
    """Halves the sides of a map and keeps the switches."""

    def forward(self, x: Tensor) -> tuple[Tensor, Switches]:
        """Pool (N, C, H, W) to (N, C, h, w); any size from 1 x 1."""
        pooled, indices = functional.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
        return pooled, Switches(indices, (x.shape[2], x.shape[3]))


class MaxUnpool2x2(nn.Module):
    """Puts each value where its window's maximum was, among zeros."""

    def forward(self, x: Tensor, switches: Switches) -> Tensor:
        """Unpool (N, C, h, w) to the (N, C, H, W) of the switches; at most one value per window is not zero.

        Raises:
            RequestError: if the map has not the switches' shape.
        """
        if x.shape != switches.indices.shape:
            raise RequestError(
                f"a map of shape {tuple(x.shape)} meets switches of shape {tuple(switches.indices.shape)}; accepted: "
                "equal shapes. Unpool with the switches of the pooling of the same level."
            )
        if torch.are_deterministic_algorithms_enabled():  # where PyTorch has no max_unpool2d; this is slower
            flat = x.new_zeros(*x.shape[:2], switches.size[0] * switches.size[1])
            return flat.scatter(2, switches.indices.flatten(2), x.flatten(2)).view(*x.shape[:2], *switches.size)
        return functional.max_unpool2d(x, switches.indices, (2, 2), output_size=switches.size)
