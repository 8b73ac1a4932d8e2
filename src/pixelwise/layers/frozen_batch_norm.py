"""Batch normalisation that stays as it was given: statistics and affine parameters fixed, in training too.

Caffe's networks were fine-tuned so (`use_global_stats`, learning rate 0 for scale and shift): batches of one or two
windows say too little about mean and variance.
"""

from __future__ import annotations

from typing import Self

from torch import nn


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A `BatchNorm2d` with the same state, whose statistics and parameters no training changes."""

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever the network around does."""
        del mode
        return super().train(False)


def freeze_batch_norm(model: nn.Module) -> int:
    """Turn every `BatchNorm2d` of a model into a `FrozenBatchNorm2d` that holds the same tensors.

    Returns:
        How many there were.
    """
    layers = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    for layer in layers:
        layer.__class__ = FrozenBatchNorm2d  # same state, another mode: names, hooks and devices stay
        layer.requires_grad_(False).train()
    return len(layers)
