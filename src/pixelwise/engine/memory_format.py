"""In which order a network's numbers lie in memory while it trains: channel by channel, or pixel by pixel.

On a CPU the gradients of wide convolutions, and of losses over many classes, are computed faster from contiguous
channels: a training step of PSPNet-50 takes 1.4 times as long with the channels last. Inference, GPUs, narrow networks
and convolutions of single channels are better off with these.

Strided 1x1 convolutions of few channels must not have them last: on a CPU the gradient of their weights is wrong then,
or writes past its memory and ends the process (uxlfoundation/oneDNN issue 6035, seen with PyTorch 2.15).
"""

from __future__ import annotations

import statistics

import torch
from torch import nn

WIDE = 128  # channels of the middle one of all convolutions
UNSAFE = 16  # input channels of a strided 1x1 convolution that are too few: a block's, 8 with AVX2 and 16 with AVX-512


def training_format(model: nn.Module, device: str) -> torch.memory_format:
    """Return the order in which a network trains."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu and any(_is_unsafe(each) for each in convolutions):
        return torch.contiguous_format
    if not on_cpu or any(each.groups > 1 for each in convolutions):
        return torch.channels_last
    wide = bool(convolutions) and statistics.median(each.out_channels for each in convolutions) >= WIDE
    return torch.contiguous_format if wide else torch.channels_last


def _is_unsafe(convolution: nn.Conv2d) -> bool:
    strided = convolution.kernel_size == (1, 1) and max(convolution.stride) > 1
    return strided and convolution.in_channels < UNSAFE


def format_of(model: nn.Module) -> torch.memory_format:
    """Return the order in which a network's weights lie, and so its images should."""
    last = any(each.ndim == 4 and not each.is_contiguous() for each in model.parameters())
    return torch.channels_last if last else torch.contiguous_format
