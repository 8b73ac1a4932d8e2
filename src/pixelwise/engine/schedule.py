"""The optimiser, what each layer takes of it, and its learning rate as a function of the iteration."""

from __future__ import annotations

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from pixelwise.errors import RequestError, closest

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


class Factors(BaseModel):
    """What a layer takes of the learning rate and of the weight decay, as factors.

    Attributes:
        lr: of the layer's weights; 0 freezes the whole layer.
        bias_lr: of its biases; None is `lr` times the optimiser's `bias_lr`.
        decay: of the weight decay.
        bias_decay: the same for biases; None is the optimiser's `bias_decay`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lr: float = Field(1.0, ge=0, allow_inf_nan=False)
    bias_lr: float | None = Field(None, ge=0, allow_inf_nan=False)
    decay: float = Field(1.0, ge=0, allow_inf_nan=False)
    bias_decay: float | None = Field(None, ge=0, allow_inf_nan=False)


class OptimizerConfig(BaseModel):
    """How weights are updated.

    Attributes:
        name: "adamw"; "sgd" (with momentum); "sgd_caffe" (Caffe's momentum, which remembers steps and not gradients,
            so that a lower learning rate reaches the whole step only with time).
        lr: peak learning rate.
        momentum: of SGD; AdamW's first moment.
        weight_decay: on weights; biases and normalisation parameters are left out.
        schedule: "poly": lr * (1 - t) ** power after the warm-up, with t from 0 to 1; "constant" (Caffe: fixed);
            "step": lr * gamma ** (iteration // step).
        unit: "iteration"; or "epoch": the rate changes at the beginning of an epoch only, and `step` counts epochs.
        power: exponent of "poly".
        step: iterations (or epochs) between two drops of "step".
        gamma: factor of a drop.
        warmup: share of the iterations in which the rate rises linearly from 0.
        clip_norm: largest norm of the gradient, longer ones are scaled down; 0 switches it off.
        bias_lr: factor of the learning rate for biases (normalisations aside); Caffe's networks have 2.
        bias_decay: share of the weight decay that biases take.
        norm_decay: which parameters of normalisations take the weight decay: "none", "scale" or "all".
        layers: factors of single layers by pattern of their name, such as {"fc8*": {lr: 10, bias_lr: 20}}; of several
            patterns that fit, the last one counts.
        accumulate: batches whose gradients are averaged for one step (Caffe: iter_size).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["adamw", "sgd", "sgd_caffe"] = "adamw"
    lr: float = Field(3e-3, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-2, ge=0, allow_inf_nan=False)
    schedule: Literal["poly", "constant", "step"] = "poly"
    unit: Literal["iteration", "epoch"] = "iteration"
    power: float = Field(0.9, gt=0, allow_inf_nan=False)
    step: int | None = Field(None, ge=1)
    gamma: float = Field(0.1, gt=0, le=1)
    warmup: float = Field(0.03, ge=0, lt=1)
    clip_norm: float = Field(5.0, ge=0, allow_inf_nan=False)
    bias_lr: float = Field(1.0, gt=0, allow_inf_nan=False)
    bias_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    norm_decay: Literal["none", "scale", "all"] = "none"
    layers: dict[str, Factors] = Field(default_factory=dict)
    accumulate: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.schedule == "step" and self.step is None:
            raise ValueError("schedule is step and step is not given; accepted: iterations between drops. Give step")
        if self.schedule != "step" and self.step is not None:
            raise ValueError(f"step={self.step} has no effect with schedule={self.schedule}; leave it out")
        return self


def learning_rate(
    config: OptimizerConfig, iteration: int, iterations: int, *, per_epoch: Fraction = Fraction(1)
) -> float:
    """Return the rate of an iteration, counted from 0, of a run of so many, of which an epoch has `per_epoch`.

    >>> config = OptimizerConfig(lr=1.0, warmup=0, power=0.9)
    >>> [round(learning_rate(config, i, 100), 6) for i in (0, 50, 90, 100)]
    [1.0, 0.535887, 0.125893, 0.0]
    >>> config = OptimizerConfig(lr=1.0, warmup=0, power=0.9, unit="epoch")
    >>> [round(learning_rate(config, i, 100, per_epoch=Fraction(25)), 6) for i in (0, 24, 50, 74, 99)]
    [1.0, 1.0, 0.535887, 0.535887, 0.287175]
    >>> config = OptimizerConfig(lr=1.0, warmup=0, schedule="step", step=9000)
    >>> [round(learning_rate(config, i, 20000), 6) for i in (8999, 9000, 18000)]
    [1.0, 0.1, 0.01]
    """
    warmup = round(config.warmup * iterations)
    if iteration < warmup:
        return config.lr * ((iteration + 1) / warmup)
    if config.schedule == "constant":
        return config.lr
    begun: int | Fraction = iteration
    if config.unit == "epoch":
        begun = iteration // per_epoch * (1 if config.schedule == "step" else per_epoch)
    if config.schedule == "step":
        assert config.step is not None
        return config.lr * math.pow(config.gamma, begun // config.step)
    left = 1 - float(max(begun - warmup, 0)) / max(1, iterations - warmup)
    return config.lr * math.pow(max(left, 0.0), config.power)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser with a group for each pair of factors; by default weights, and biases and norms.

    Raises:
        RequestError: if a pattern of `layers` fits no layer, or nothing is left to train.
    """
    # These two first, so that the order of the optimiser's state is the same in all versions.
    groups: dict[tuple[float, float], list[Tensor]] = {(1.0, 1.0): [], (1.0, 0.0): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(parameter_factors(config, model, name), []).append(parameter)
    filled = [
        {"params": params, "factor": factor, "lr": config.lr * factor, "weight_decay": config.weight_decay * decay}
        for (factor, decay), params in groups.items()
        if params and factor
    ]
    if not filled:
        raise RequestError("optimizer.layers freezes every layer; accepted: one with lr above 0. Change a pattern.")
    if config.name == "adamw":
        return torch.optim.AdamW(filled, lr=config.lr, betas=(config.momentum, 0.999))
    if config.name == "sgd_caffe":
        return CaffeSGD(filled, lr=config.lr, momentum=config.momentum)
    return torch.optim.SGD(filled, lr=config.lr, momentum=config.momentum)


def parameter_factors(config: OptimizerConfig, model: nn.Module, name: str) -> tuple[float, float]:
    """Return what a parameter takes of the learning rate and of the weight decay."""
    layer, _, _ = name.rpartition(".")
    factors = Factors()
    for pattern, given in config.layers.items():
        if fnmatchcase(layer, pattern):
            factors = given
    if model.get_parameter(name).ndim > 1:
        return factors.lr, factors.decay
    if isinstance(model.get_submodule(layer), NORMS):
        decays = config.norm_decay == "all" or (config.norm_decay == "scale" and name.endswith("weight"))
        return factors.lr, factors.decay if decays else 0.0
    return (
        factors.lr * config.bias_lr if factors.bias_lr is None else factors.bias_lr,
        config.bias_decay if factors.bias_decay is None else factors.bias_decay,
    )


def freeze(config: OptimizerConfig, model: nn.Module) -> int:
    """Take the parameters of layers with a factor of 0 out of training, and return how many numbers these are.

    Raises:
        RequestError: if a pattern of `layers` fits no layer with parameters.
    """
    names = [name for name, _ in model.named_parameters()]
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    for pattern in config.layers:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise RequestError(
                f"optimizer.layers: {pattern!r} fits none of the {len(layers)} layers; closest: "
                f"{closest(pattern, layers)}. Correct or remove it."
            )
    frozen = [name for name in names if not parameter_factors(config, model, name)[0]]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return sum(model.get_parameter(name).numel() for name in frozen)


class CaffeSGD(torch.optim.Optimizer):
    """Stochastic gradient descent with Caffe's momentum: v = m v + lr (g + decay w); w = w - v.

    PyTorch's `SGD` applies the rate after the momentum. The two are equal as long as the rate is constant.

    Source: SGDSolver of BVLC Caffe (ComputeUpdateValue).
    """

    def __init__(self, groups: list[dict[str, object]], *, lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["velocity"] = torch.zeros_like(parameter)
            velocities = [self.state[parameter]["velocity"] for parameter in parameters]
            gradients = [parameter.grad for parameter in parameters]
            if group["weight_decay"]:
                gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, gradients, alpha=group["lr"])
            torch._foreach_sub_(parameters, velocities)
