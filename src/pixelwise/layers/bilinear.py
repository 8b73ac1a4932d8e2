"""Bilinear interpolation as a transposed convolution, the "deconvolution" of the FCN and Dilation networks.

Unlike `functional.interpolate` it sees zeros beyond the border: there the output fades to zero, in the interior
the two agree wherever kernel size and padding are 2 s and s / 2 for stride s.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError


def bilinear_kernel(size: int) -> Tensor:
    """Return the kernel that interpolates linearly along both axes, float (size, size).

    With f = ceil(size / 2) the profile is 1 - |i - c| / f around the centre c; for stride f its entries sum to f^2.

    Source: `upsample_filt` of the reference code's `surgery.py`.

    >>> bilinear_kernel(4)[0].tolist()
    [0.0625, 0.1875, 0.1875, 0.0625]
    """
    if size < 1:
        raise RequestError(f"bilinear kernel of size {size}; accepted: whole numbers from 1. Use 2 s for stride s.")
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    profile = 1 - (torch.arange(size) - centre).abs() / factor
    return torch.outer(profile, profile)


class BilinearUpsampling(nn.Module):
    """A transposed convolution that starts as bilinear interpolation of each channel; without bias, unless asked.

    Fixed, its `weight` is a buffer (channels, 1, k, k): no parameter, but part of the state dict. Learnt, it is a
    parameter (channels, channels, k, k) with zeros off the diagonal, since Caffe's layer is dense and learns to
    mix channels.
    """

    weight: Tensor

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int,
        stride: int,
        padding: int = 0,
        learnt: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = padding
        self.groups = 1 if learnt else channels
        kernel = bilinear_kernel(kernel_size)
        if learnt:
            self.weight = nn.Parameter(torch.eye(channels)[:, :, None, None] * kernel)
        else:
            self.register_buffer("weight", kernel.repeat(channels, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Upsample (N, C, h, w) to (N, C, (h - 1) s + k - 2 p, (w - 1) s + k - 2 p)."""
        return functional.conv_transpose2d(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding, groups=self.groups
        )

    def extra_repr(self) -> str:
        """Name the numbers in the printed network."""
        size = self.weight.shape[-1]
        learnt = isinstance(self.weight, nn.Parameter)
        bias = ", bias=True" if self.bias is not None else ""
        return f"kernel_size={size}, stride={self.stride}, padding={self.padding}, learnt={learnt}{bias}"
