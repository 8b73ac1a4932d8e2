"""Statistics of batch normalisation measured once, over training batches, with the weights as they are.

Caffe's batch normalisation keeps no running statistics, so SegNet and DeconvNet measured them after training: mean and
variance of each of so many batches, averaged. Running statistics lag behind the weights and stress the last batches;
these do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.errors import RequestError


@torch.no_grad()
def measure_statistics(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the running statistics of every `BatchNorm2d` by the mean over batches of each batch's own.

    While this runs, layers are normalised by the batch, as in training, so that the statistics of a layer are those
    under the batch statistics of the layers before it. Dropout is off. The variance is the biased one. The model's
    modes are as before when this returns.

    Args:
        model: on the device of the batches.
        batches: float (N, C, H, W) each, as training gives them. The originals take 94 batches of four (SegNet on
            CamVid, 367 // 4 + 367 % 4) and 501 of eight (DeconvNet).

    Returns:
        The number of batches.

    Raises:
        RequestError: if there is no batch.

    Source: compute_bn_statistics.py of alexgkendall/SegNet-Tutorial; its factor m / (m - 1) is a whole-number
    division, so 1.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = {layer: (torch.zeros_like(_mean(layer)), torch.zeros_like(_mean(layer))) for layer in layers}
    hooks = [layer.register_forward_pre_hook(partial(_add, sums[layer])) for layer in layers]
    count = 0
    try:
        with _by_batch(model, layers):
            for batch in batches:
                model(batch)
                count += 1
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise RequestError("0 batches to measure statistics on; accepted: one or more. Give training images.")
    for layer, (mean, variance) in sums.items():
        layer.running_mean = mean / count
        layer.running_var = variance / count
    return count


@contextmanager
def _by_batch(model: nn.Module, layers: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Evaluate a model, but normalise by the batch; running statistics stay as they are."""
    modes = {module: module.training for module in model.modules()}
    kept = {layer: (layer.momentum, layer.num_batches_tracked) for layer in layers}
    model.eval()
    for layer in layers:
        layer.train()
        layer.momentum = 0.0
        layer.num_batches_tracked = torch.zeros((), dtype=torch.long, device=_mean(layer).device)
    try:
        yield
    finally:
        for layer, (momentum, tracked) in kept.items():
            layer.momentum, layer.num_batches_tracked = momentum, tracked
        for module, training in modes.items():
            module.training = training


def _mean(layer: nn.BatchNorm2d) -> Tensor:
    assert layer.running_mean is not None, "a batch normalisation without running statistics"
    return layer.running_mean


def _add(sums: tuple[Tensor, Tensor], _: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Add a batch's mean and variance to their sums."""
    variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
    sums[0].add_(mean)
    sums[1].add_(variance)
