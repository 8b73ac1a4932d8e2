"""Stride exchanged for dilation: the same weights on a denser grid.

Taking the stride s from a layer makes its output s times denser; every later layer then finds the cells that it
used to see s positions apart, and is dilated by s to see the same ones. On every s-th position the twin's
output is the original's (F. Yu, V. Koltun, ICLR 2016, https://arxiv.org/abs/1511.07122, section 3; the "hole"
algorithm of DeepLab, https://arxiv.org/abs/1412.7062, section 3.1).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError

# Layers that work on each position alone, so that a denser grid changes nothing for them.
_POSITIONWISE = (
    nn.BatchNorm2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.LeakyReLU,
    nn.LocalResponseNorm,
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
)


def dilate(
    network: nn.Sequential | nn.ModuleList, *, output_stride: int = 1, rate: int = 1
) -> tuple[nn.Sequential, int]:
    """Return the dilated twin of a strided network.

    Args:
        network: layers that run in order; convolutions, pools and layers that work on each position alone, also
            nested. Strides must be equal along both axes, padding zeros.
        output_stride: strides are kept while their product does not exceed it.
        rate: rate that earlier layers have already left, where a network is dilated in parts.

    Returns:
        The twin and the rate after it. The twin shares the parameters and the names of the state dict;
        `twin(x)[:, :, ::rate, ::rate]` equals `network(x)`. In training batch normalisation differs, since it
        averages over the denser grid.

    Raises:
        RequestError: for a layer that has no dilated twin, by name.
    """
    twin, _, rate = _dilate(network, output_stride, rate)
    return twin, rate


def _dilate(network: nn.Module, room: int, rate: int, path: str = "") -> tuple[nn.Sequential, int, int]:
    """Dilate the children in order; `room` is the stride that may still be kept."""
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in network.named_children():
        here = f"{path}{name}"
        if isinstance(layer, nn.Sequential | nn.ModuleList):
            children[name], room, rate = _dilate(layer, room, rate, f"{here}.")
            continue
        stride = _stride(layer, here)
        keeps = rate == 1 and stride <= room
        children[name] = layer if keeps else _twin(layer, rate, here)
        room, rate = (room // stride, rate) if keeps else (room, rate * stride)
    return nn.Sequential(children), room, rate


def _stride(layer: nn.Module, path: str) -> int:
    if isinstance(layer, _POSITIONWISE):
        return 1
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        raise RequestError(
            f"layer {path} is a {type(layer).__name__}; accepted: convolutions, max and average pools, and layers "
            "that work on each position alone. Dilate the part before it."
        )
    height, width = _pair(layer.stride)
    if height != width:
        raise RequestError(
            f"layer {path} has stride ({height}, {width}); accepted: one stride for both axes. Leave it out."
        )
    return height


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _times(value: int | tuple[int, ...], rate: int) -> tuple[int, int]:
    height, width = _pair(value)
    return height * rate, width * rate


def _twin(layer: nn.Module, rate: int, path: str) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return _dilated_convolution(layer, rate, path)
    if isinstance(layer, nn.MaxPool2d):
        return DilatedMaxPool(layer, rate)
    if isinstance(layer, nn.AvgPool2d):
        if layer.ceil_mode or layer.divisor_override is not None:
            raise RequestError(
                f"layer {path} is an average pool with ceil_mode={layer.ceil_mode}, divisor_override="
                f"{layer.divisor_override}; accepted: neither. Pad the input instead."
            )
        return DilatedAveragePool(layer, rate)
    return layer


def _dilated_convolution(layer: nn.Conv2d, rate: int, path: str) -> nn.Conv2d:
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise RequestError(
            f"layer {path} has padding={layer.padding!r}, padding_mode={layer.padding_mode!r}; accepted: zeros, in "
            "numbers. Only zeros stay the same on a denser grid."
        )
    twin = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        (layer.kernel_size[0], layer.kernel_size[1]),
        padding=_times(layer.padding, rate),
        dilation=_times(layer.dilation, rate),
        groups=layer.groups,
        bias=layer.bias is not None,
        device="meta",
    )
    twin.weight, twin.bias = layer.weight, layer.bias
    return twin


class DilatedMaxPool(nn.Module):
    """The twin of a max pool; in ceil mode it pads as far as the original's last window reaches."""

    def __init__(self, pool: nn.MaxPool2d, rate: int) -> None:
        super().__init__()
        self.pool = pool
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the maximum over windows at every position, not every stride-th."""
        sides = [self._sides(x.shape[axis + 2], axis) for axis in (0, 1)]
        padded = functional.pad(x, (*sides[1], *sides[0]), value=-torch.inf)
        dilation = _times(self.pool.dilation, self.rate)
        return functional.max_pool2d(padded, self.pool.kernel_size, stride=1, dilation=dilation)

    def _sides(self, side: int, axis: int) -> tuple[int, int]:
        """Return the padding before and behind, in cells."""
        pool, rate = self.pool, self.rate
        padding, stride = _pair(pool.padding)[axis], _pair(pool.stride)[axis]
        reach = _pair(pool.dilation)[axis] * (_pair(pool.kernel_size)[axis] - 1)
        before = behind = padding * rate
        if pool.ceil_mode:
            coarse = -(-side // rate)  # cells of the original's input
            windows = -(-(coarse + 2 * padding - reach - 1) // stride) + 1
            if (windows - 1) * stride >= coarse + padding:  # a window that begins behind the input is left out
                windows -= 1
            needed = (windows - 1) * stride * rate + reach * rate + 1
            behind = max(behind, needed - side - before)
        return before, behind


class DilatedAveragePool(nn.Module):
    """The twin of an average pool."""

    def __init__(self, pool: nn.AvgPool2d, rate: int) -> None:
        super().__init__()
        self.pool = pool
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the average over windows at every position, not every stride-th."""
        height, width = _pair(self.pool.kernel_size)
        total = self._sums(x, height, width)
        if self.pool.count_include_pad:
            return total / (height * width)
        return total / self._sums(torch.ones_like(x[:1, :1]), height, width)

    def _sums(self, x: Tensor, height: int, width: int) -> Tensor:
        channels = x.shape[1]
        ones = x.new_ones(channels, 1, height, width)
        padding = _times(self.pool.padding, self.rate)
        return functional.conv2d(x, ones, padding=padding, dilation=self.rate, groups=channels)
