"""Fully connected layers as convolutions: many weights, few positions.

fc6 of VGG-16 has 102.8 million weights, 411 MB. FCN applies them at 16 x 12 positions of an image of 500 x 375,
DeconvNet at one. On a CPU PyTorch's convolution (oneDNN) copies its weights into an order of its own before each use,
which takes as long as some hundred positions. A matrix product reads them where they lie, and needs no second copy of
them in memory.

At inference on a CPU these layers are therefore computed as a matrix product where positions are few, which gives the
convolution's numbers up to rounding. In training, on other devices, in exported programs and on larger maps they are
the convolutions that they inherit from; names, shapes and initialisation of their weights are a convolution's always.

`benchmarks/fully_connected.py` measures where the one is faster and where the other: on an AMD EPYC (7x7 window, 512
channels, one thread) the product takes 0.05 of the time for one position, 0.62 for 192, 0.92 for 512, 1.05 for 1200.

Axes: N batch, C input channels, O output channels, k side of the window, h and w positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_POSITIONS = 512  # of a batch; the product was the faster one up to here, whatever the map's shape


def by_product(x: Tensor, positions: int) -> bool:
    """Say whether a layer is to be computed as a matrix product."""
    inference = torch.is_inference_mode_enabled() and not torch.compiler.is_compiling()
    return inference and x.device.type == "cpu" and 0 < positions <= MOST_POSITIONS


class FullyConnected2d(nn.Conv2d):
    """A convolution with many weights, (O, C, k, k).

    Args:
        in_channels: C.
        out_channels: O.
        window: k.
        padding: zeros around the map.
        dilation: steps between the taps of the window.
        bias: add one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: int,
        *,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, window, padding=padding, dilation=dilation, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, O, h, w)."""
        rate, zeros = self.dilation[0], int(self.padding[0])
        reach = rate * (self.kernel_size[0] - 1) + 1
        h, w = (max(0, side + 2 * zeros - reach + 1) for side in x.shape[2:])
        if not by_product(x, len(x) * h * w):
            return super().forward(x)
        padded = functional.pad(x, (zeros,) * 4) if zeros else x
        windows = padded.unfold(2, reach, 1).unfold(3, reach, 1)[..., ::rate, ::rate]  # (N, C, h, w, k, k)
        weight = self.weight
        if weight.is_contiguous(memory_format=torch.channels_last):  # in whichever order the weights lie in memory
            windows, weight = windows.permute(0, 2, 3, 4, 5, 1), weight.permute(0, 2, 3, 1)
        else:
            windows = windows.permute(0, 2, 3, 1, 4, 5)
        rows = windows.reshape(len(x) * h * w, -1)  # (N h w, C k k) or (N h w, k k C)
        out = functional.linear(rows, weight.flatten(1), self.bias)  # (N h w, O)
        return out.view(len(x), h, w, -1).permute(0, 3, 1, 2)


class FullyConnectedTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution with many weights, (C, O, k, k), without padding.

    Args:
        in_channels: C.
        out_channels: O.
        window: k.
    """

    def __init__(self, in_channels: int, out_channels: int, window: int) -> None:
        super().__init__(in_channels, out_channels, window)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (N, C, h, w) to (N, O, h + k - 1, w + k - 1); a product from a single cell only."""
        if x.shape[2:] != (1, 1) or not by_product(x, len(x)):
            return super().forward(x, output_size)
        weight = self.weight
        last = weight.is_contiguous(memory_format=torch.channels_last)
        weight = weight.permute(0, 2, 3, 1) if last else weight  # (C, k, k, O) or (C, O, k, k)
        out = (x.flatten(1) @ weight.flatten(1)).view(len(x), *weight.shape[1:])
        out = out.permute(0, 3, 1, 2) if last else out  # (N, O, k, k)
        return out if self.bias is None else out + self.bias[:, None, None]
