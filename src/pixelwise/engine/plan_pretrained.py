"""Deciding what a training takes from published weights: where it starts, how images look, how fast layers learn."""

from __future__ import annotations

from collections.abc import Mapping

from pixelwise.engine.config import RANDOM
from pixelwise.engine.model_file import Option
from pixelwise.engine.plan import AnyConfig, Plan
from pixelwise.engine.schedule import Factors
from pixelwise.errors import RequestError
from pixelwise.models import model_info, model_options
from pixelwise.registry import PRETRAINED, PublishedInputs

ENCODER = "encoder.*"
ENCODER_LR = 0.33  # of the learning rate: the encoder knows much already, and large steps would forget it


def plan_weights(plan: Plan[AnyConfig], channels: int) -> None:
    """Start from pretrained weights where a model has some and the configuration leaves it open.

    Args:
        plan: the rest is settled later, but for the machine.
        channels: of the images.

    Raises:
        RequestError: if the package that brings them is missing; nothing takes their place unasked.
    """
    config = plan.config
    pretrained = model_info(config.model).pretrained
    if pretrained is None or config.transplant or config.weights not in (None, PRETRAINED):
        return
    if config.weights is None and not pretrained.offline:
        plan.decide(f"--weights {PRETRAINED} takes those of {config.model}, which may be downloaded", weights=RANDOM)
        return
    try:
        inputs = pretrained.inputs(all_options(config.model, config.options))
    except RequestError as error:
        if config.weights == PRETRAINED:
            raise
        raise RequestError(f"{error} To train without them, give --weights {RANDOM}.") from error
    if config.weights is None:
        plan.decide(inputs.source, weights=PRETRAINED)
    _plan_inputs(plan, channels, inputs)
    optimizer = plan.config.optimizer
    if not optimizer.layers:
        layers = {ENCODER: Factors(lr=ENCODER_LR)}
        plan.config = plan.config.model_copy(update={"optimizer": optimizer.model_copy(update={"layers": layers})})
        plan.lines.append(f"optimizer.layers = {{{ENCODER}: {{lr: {ENCODER_LR:g}}}}} (pretrained layers learn slowly)")


def all_options(model: str, given: Mapping[str, Option]) -> dict[str, Option]:
    """Return a model's options, those that were not given at their defaults."""
    return {key: given.get(key, parameter.default) for key, parameter in model_options(model).items()}


def _plan_inputs(plan: Plan[AnyConfig], channels: int, inputs: PublishedInputs) -> None:
    """Bring images as the weights want them, unless the configuration says how."""
    data = plan.config.data
    if data.mean is not None or data.normalise_per_image is not None:
        return
    mean, std = inputs.mean, inputs.std
    if len(mean) != channels:
        plan.note(f"the first layer is spread from {len(mean)} channels over {channels}")
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    plan.decide("as the pretrained weights want their images", mean=mean, std=std)
