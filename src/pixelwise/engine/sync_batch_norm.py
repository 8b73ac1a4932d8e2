"""Batch normalisation over the batches of all processes together.

Statistics of a few windows say little: PSPNet trains on sixteen windows with common statistics, and loses much without
them. With several processes each has only its share of a batch. PyTorch's `SyncBatchNorm` works on GPUs alone; on a CPU
the same sums go over all processes through autograd, so that two processes give what one gives for the whole batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelwise.engine import processes


class Synchronised(NamedTuple):
    """A normalised batch.

    Attributes:
        values: (N, C, H, W), with mean 0 and deviation 1 over all processes.
        mean: (C,), without gradient.
        variance: (C,), the biased one, without gradient.
        num_values: per channel in all processes.
    """

    values: Tensor
    mean: Tensor
    variance: Tensor
    num_values: Tensor


def standardise(batch: Tensor, eps: float) -> Synchronised:
    """Bring the batches (N, C, H, W) of all processes together to mean 0 and deviation 1; in float32."""
    values = batch.float()
    num_values = processes.total(values.new_tensor(values.numel() / values.shape[1]))
    mean = processes.total(values.sum(dim=(0, 2, 3))) / num_values  # (C,)
    centred = values - mean[:, None, None]
    variance = processes.total(centred.square().sum(dim=(0, 2, 3))) / num_values
    scaled = centred * (variance + eps).rsqrt()[:, None, None]
    return Synchronised(scaled.to(batch), mean.detach(), variance.detach(), num_values)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes' batches; in one process, plain batch normalisation."""

    process_group = None  # all: what PyTorch's own forward pass asks for
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if not self.training or self.running_mean is None or processes.count() == 1:
            return super().forward(input)
        if input.is_cuda:
            normalised: Tensor = nn.SyncBatchNorm.forward(self, input)  # type: ignore[arg-type]
            return normalised
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        values, mean, variance, num_values = standardise(input, self.eps)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, weight)
            self.running_var.lerp_(variance * num_values / (num_values - 1), weight)  # unbiased, as PyTorch keeps it
        return values if self.weight is None else values * self.weight[:, None, None] + self.bias[:, None, None]


def synchronise(model: nn.Module) -> None:
    """Turn every `BatchNorm2d` of a model into a `SyncBatchNorm2d` that holds the same tensors."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d and module.track_running_stats:
            module.__class__ = SyncBatchNorm2d  # same state, another forward: names, hooks and optimisers stay
