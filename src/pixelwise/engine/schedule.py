"""The optimiser and its learning rate as a function of the iteration."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn


class OptimizerConfig(BaseModel):
    """How weights are updated.

    Attributes:
        name: "adamw" or "sgd" (with momentum).
        lr: peak learning rate.
        momentum: of SGD; AdamW's first moment.
        weight_decay: on weights; biases and normalisation parameters are left out.
        schedule: "poly": lr * (1 - t) ** power after the warm-up, with t from 0 to 1; "constant".
        power: exponent of "poly".
        warmup: share of the iterations in which the rate rises linearly from 0.
        clip_norm: largest norm of the gradient, longer ones are scaled down; 0 switches it off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(3e-3, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-2, ge=0, allow_inf_nan=False)
    schedule: Literal["poly", "constant"] = "poly"
    power: float = Field(0.9, gt=0, allow_inf_nan=False)
    warmup: float = Field(0.03, ge=0, lt=1)
    clip_norm: float = Field(5.0, ge=0, allow_inf_nan=False)


def learning_rate(config: OptimizerConfig, iteration: int, iterations: int) -> float:
    """Return the rate of an iteration, counted from 0, of a run of so many.

    >>> config = OptimizerConfig(lr=1.0, warmup=0, power=0.9)
    >>> [round(learning_rate(config, i, 100), 6) for i in (0, 50, 90, 100)]
    [1.0, 0.535887, 0.125893, 0.0]
    """
    warmup = round(config.warmup * iterations)
    if iteration < warmup:
        return config.lr * ((iteration + 1) / warmup)
    if config.schedule == "constant":
        return config.lr
    left = 1 - (iteration - warmup) / max(1, iterations - warmup)
    return config.lr * math.pow(max(left, 0.0), config.power)


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser with two groups: parameters with weight decay, and biases and norms without."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
