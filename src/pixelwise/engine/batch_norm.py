"""Batch normalisation that fits what follows: steady statistics, and training in batches of one.

A network normalised by each batch is used with running statistics. Two things keep them together:

- `set_momentum`: running statistics are the mean over the last stretch of a run, not over PyTorch's ten batches.
- `renormalise`: where a batch is so small that its own statistics say little (in a batch of one, each image would be
  normalised by itself), they are corrected towards the running ones.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from pixelwise.engine import processes
from pixelwise.engine.averaging import window
from pixelwise.engine.sync_batch_norm import standardise, synchronise
from pixelwise.layers.frozen_batch_norm import freeze_batch_norm

FEWEST_BATCHES = 10  # whose statistics are averaged, as PyTorch does
SMALL_BATCH = 4  # images; below, batch statistics are corrected
# The paper's limits and when they are reached, as shares of the run (of its 160,000 steps: 5,000 to 40,000 and 25,000).
LARGEST_R, LARGEST_D = 3.0, 5.0
FROM, UNTIL_R, UNTIL_D = 0.03, 0.25, 0.16


class BatchRenorm2d(nn.BatchNorm2d):
    """Batch normalisation whose training agrees with its use, for batches of any size.

    In training x becomes (x - mean) / std * r + d, with r = std / running std and d = (mean - running mean) / running
    std, clipped and without gradient: where nothing is clipped, that is normalisation by the running statistics, with
    gradients through those of the batch. Names and values of the state are batch normalisation's, and so is evaluation.

    A single value per channel (a global pooling in a batch of one) is normalised by the running statistics alone: d is
    all there is of it. There d passes gradients on, within its limits; the paper's has none, and no layer before such a
    normalisation would learn.

    The running variance takes in how far batch means lie from the running mean (the exponentially weighted variance of
    all values), which the paper's mean of batch deviations leaves out: in batches of one that is the part that differs
    between images, and for a single value per channel it is all there is.

    Source: S. Ioffe, "Batch Renormalization", NeurIPS 2017, algorithm 1.
    """

    r_max = 1.0
    d_max = 0.0

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        if processes.count() > 1:
            return self._synchronised(input)
        if input.numel() == input.shape[1]:
            return self._single(input)
        with torch.no_grad():
            # PyTorch's kernel gives the statistics several times faster than `var_mean` does.
            _, mean, inverse = torch.native_batch_norm(input, None, None, None, None, True, 0.0, self.eps)  # (C,)
            r, d = self._corrections(mean, inverse)
            self._take_in(mean, (inverse**-2 - self.eps).clamp(min=0))
        # Corrections are constants: PyTorch's own kernel takes them as part of weight and bias.
        scale, shift = (r, d) if self.weight is None else (r * self.weight, d * self.weight + self.bias)
        cudnn = torch.backends.cudnn.enabled
        return torch.batch_norm(input, scale, shift, None, None, True, 0.0, self.eps, cudnn)

    def _synchronised(self, input: Tensor) -> Tensor:
        """Normalise by the statistics of all processes' batches."""
        values, mean, variance, _ = standardise(input, self.eps)
        with torch.no_grad():
            r, d = self._corrections(mean, (variance + self.eps).rsqrt())
            self._take_in(mean, variance)
        scale, shift = (r, d) if self.weight is None else (r * self.weight, d * self.weight + self.bias)
        return values * scale[:, None, None] + shift[:, None, None]

    def _corrections(self, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """Return r and d for a batch's mean and the inverse of its deviation, (C,) each."""
        assert self.running_mean is not None
        assert self.running_var is not None
        running = (self.running_var + self.eps).sqrt()
        r = (1 / (inverse * running)).clamp(1 / self.r_max, self.r_max)
        return r, ((mean - self.running_mean) / running).clamp(-self.d_max, self.d_max)

    def _single(self, input: Tensor) -> Tensor:
        """Normalise one value per channel, (1, C, 1, 1)."""
        assert self.running_mean is not None
        assert self.running_var is not None
        d = (input.flatten() - self.running_mean) / (self.running_var + self.eps).sqrt()  # (C,)
        with torch.no_grad():
            self._take_in(input.detach().flatten().to(self.running_mean), torch.zeros_like(self.running_mean))
        d = d.clamp(-self.d_max, self.d_max)
        return (d if self.weight is None else d * self.weight + self.bias).view_as(input).to(input)

    def _take_in(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running mean and variance as exponentially weighted moments of all values."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        distance = mean - self.running_mean
        self.running_mean.add_(self.momentum * distance)
        self.running_var.add_(self.momentum * distance.square()).mul_(1 - self.momentum)
        self.running_var.add_(self.momentum * variance)


def renormalise(model: nn.Module) -> None:
    """Turn every `BatchNorm2d` of a model into a `BatchRenorm2d` that holds the same tensors."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d and module.track_running_stats:
            module.__class__ = BatchRenorm2d  # same state, another forward: names, hooks and optimisers stay


def set_batch_norm(model: nn.Module, kind: str) -> None:
    """Let every `BatchNorm2d` of a model train as the configuration's settled `batch_norm` says; names and state stay.

    Args:
        model: with the weights that it starts from.
        kind: "batch", "sync", "renorm" or "frozen".
    """
    if kind == "sync":
        synchronise(model)
    elif kind == "renorm":
        renormalise(model)
    elif kind == "frozen":
        freeze_batch_norm(model)


def fewest_values(model: nn.Module, *, in_channels: int, input_size: tuple[int, int]) -> tuple[str, int] | None:
    """Return the `BatchNorm2d` that sees the smallest map in training, and the pixels of that map.

    Args:
        model: built on the meta device; its modes are changed.
        in_channels: C of the images.
        input_size: (height, width) of a training window, legal for the model.

    Returns:
        The path of the layer and height x width of its input for one window; None without such a layer.
    """
    seen: dict[str, int] = {}
    model.train()
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # in training it would refuse a single value
            module.register_forward_pre_hook(partial(_note_pixels, seen, name))
    with torch.no_grad():
        model(torch.zeros(1, in_channels, *input_size, device="meta"))
    return min(seen.items(), key=lambda entry: entry[1], default=None)


def _note_pixels(seen: dict[str, int], name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    seen[name] = math.prod(inputs[0].shape[2:])


def set_momentum(model: nn.Module, iteration: int, iterations: int) -> None:
    """Let batch normalisation average over the window of `iteration` (from 0), instead of PyTorch's ten batches.

    Small batches differ much: statistics of the last few fit the next image badly, and those from long ago fit the
    weights badly. The limits of renormalised layers widen on the paper's schedule.
    """
    share = iteration / iterations
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1 / window(iteration, iterations, fewest=FEWEST_BATCHES)
        if isinstance(module, BatchRenorm2d):
            module.r_max = 1 + (LARGEST_R - 1) * _ramp(share, UNTIL_R)
            module.d_max = LARGEST_D * _ramp(share, UNTIL_D)


def _ramp(share: float, until: float) -> float:
    return min(1.0, max(0.0, (share - FROM) / (until - FROM)))
