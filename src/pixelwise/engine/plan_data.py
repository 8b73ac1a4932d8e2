"""Deciding what the user left open from the data: normalisation, class weights, where windows lie, batch statistics."""

from __future__ import annotations

import math

from torch import nn

from pixelwise.data.card import ImagesCard
from pixelwise.data.normalise import Normalisation, scaled_size
from pixelwise.data.scan import DataCard, Dataset
from pixelwise.engine import processes
from pixelwise.engine.batch_norm import SMALL_BATCH, fewest_values
from pixelwise.engine.config import RANDOM, TrainConfig
from pixelwise.engine.model_file import BYTE, COLOR_OPTION, build_twin, card_of, check_color_std
from pixelwise.engine.plan import AnyConfig, Plan
from pixelwise.engine.start import image_statistics, weights_file
from pixelwise.errors import RequestError
from pixelwise.layers.frozen_batch_norm import FrozenBatchNorm2d
from pixelwise.losses.segmentation import rarest_class, suitable_class_weights
from pixelwise.models import model_options
from pixelwise.structures import color_std_of

FOREGROUND_CROPS = 0.33  # of the windows, where a class is rare and windows are much smaller than images
REASON = "as the images were brought that the weights have seen"
MUCH_SMALLER = 0.5  # of the image's area


def plan_normalisation(plan: Plan[AnyConfig], card: ImagesCard) -> Normalisation:
    """Settle how images become network input; the data card says what suits the data."""
    _as_the_weights_saw(plan, card)
    _as_colors_are_compared(plan, card)
    if plan.config.data.mean is not None:
        return _subtract(plan.config.data.mean, plan.config.data.std, card)
    if plan.config.data.normalise_per_image is None:
        suits = card.normalisation.per_image
        reason = "images differ more from each other than within" if suits else "images are much alike in brightness"
        plan.decide(reason, normalise_per_image=suits)
    return card.normalisation.model_copy(update={"per_image": plan.config.data.normalise_per_image})


def _as_the_weights_saw(plan: Plan[AnyConfig], card: ImagesCard) -> None:
    """Bring images as those were brought that a file of weights has seen, unless the configuration says how."""
    data, file = plan.config.data, weights_file(plan.config)
    if file is None or data.mean or data.normalise_per_image is not None:
        return
    given = card_of(file)
    if given is None or given.in_channels != card.channels:
        return
    statistics = image_statistics(given)
    if statistics is not None:
        mean, std = statistics
        plan.decide(REASON, mean=mean, **({} if set(std) == {1.0} else {"std": std}))
    elif given.normalisation.per_image:
        plan.decide(REASON, normalise_per_image=True)


def _as_colors_are_compared(plan: Plan[AnyConfig], card: ImagesCard) -> None:
    """Bring images to a model that compares colours as it wants them, and refuse a configuration that does not."""
    config, data = plan.config, plan.config.data
    if COLOR_OPTION not in model_options(config.model):
        return
    twin = build_twin(config.model, num_classes=2, in_channels=card.channels, options=config.options)
    std = color_std_of(twin)
    assert std is not None, f"{config.model} has the option {COLOR_OPTION} and declares none"
    if data.normalise_per_image:
        raise RequestError(
            f"data.normalise_per_image=true: {config.model} compares colours in steps of 0..255, which would differ "
            "from image to image; accepted: false. Leave it out, or give data.mean."
        )
    if data.mean is None:
        given = {} if set(std) == {1.0} else {"std": std}
        mean = tuple(round(BYTE * value, 4) for value in card.normalisation.mean)
        plan.decide(f"{config.model} compares colours in steps of 0..255", mean=mean, **given)
    elif len(data.mean) == len(std):
        check_color_std(config.model, std, given=data.std or (1.0,) * len(std))


def _subtract(mean: tuple[float, ...], std: tuple[float, ...] | None, card: ImagesCard) -> Normalisation:
    """Return "subtract a mean from 0..255, divide by a deviation, or by nothing"."""
    if len(mean) != card.channels:
        raise RequestError(
            f"data.mean has {len(mean)} values and the images have {card.channels} channels; accepted: one value of "
            f"0..255 a channel. Give --set data.mean=[{','.join(['0'] * card.channels)}], or the mean of your images."
        )
    return Normalisation(
        intensity_range=card.normalisation.intensity_range,
        mean=tuple(value / BYTE for value in mean),
        std=tuple(value / BYTE for value in std or (1.0,) * card.channels),
    )


def plan_class_weights(plan: Plan[TrainConfig], dataset: Dataset) -> None:
    """Settle the class weights where the configuration leaves them to the data."""
    loss = plan.config.loss
    if loss.class_weights == "auto":
        kind, reason = suitable_class_weights(dataset.card.pixel_counts["train"], dataset.card.classes)
        plan.config = plan.config.model_copy(update={"loss": loss.model_copy(update={"class_weights": kind})})
        plan.lines.append(f"loss.class_weights = {kind} ({reason})")


def plan_foreground_crops(plan: Plan[TrainConfig], card: DataCard) -> None:
    """Settle how many windows are laid over less frequent classes; crop and scale are settled before."""
    data = plan.config.data
    if data.foreground_crops is not None:
        return
    if data.whole_images:
        plan.decide("a window shows a whole image", foreground_crops=0.0)
        return
    assert data.crop is not None
    height, width = scaled_size(card.image_sizes[0][:2], data.scale or 1.0)
    rare = rarest_class(card.pixel_counts["train"], card.classes)
    if rare is None:
        plan.decide("no class is rare", foreground_crops=0.0)
    elif data.crop[0] * data.crop[1] > MUCH_SMALLER * height * width:
        plan.decide("a window shows most of an image", foreground_crops=0.0)
    else:
        plan.decide(f"windows would often miss rare classes such as {rare[0]}", foreground_crops=FOREGROUND_CROPS)


def plan_batch_norm(
    plan: Plan[AnyConfig], model: nn.Module, *, in_channels: int = 3, window: tuple[int, int] | None = None
) -> None:
    """Settle how batch normalisation trains, and check the processes' shares of a batch, whose size is settled before.

    Args:
        plan: is completed.
        model: with the weights that it starts from.
        in_channels: C of the images.
        window: (height, width) of a training window, legal for the model; None does not look for single values.

    Raises:
        RequestError: if a batch cannot be shared, or what is asked for has no effect or would see a single value,
            which has no deviation.
    """
    size, kind = plan.config.data.batch_size, plan.config.batch_norm
    assert size is not None
    parts, share = processes.count(), _share_of(size)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    trains = not all(isinstance(module, FrozenBatchNorm2d) for module in norms)
    if not trains:
        if kind not in ("auto", "batch"):
            none = "keeps its batch normalisation as it was given" if norms else "has no batch normalisation"
            raise RequestError(
                f"batch_norm={kind} has no effect: {plan.config.model} {none}; accepted: batch, or auto. Leave it out."
            )
        plan.config = plan.config.model_copy(update={"batch_norm": "batch"})
    elif kind == "auto" and size < SMALL_BATCH:
        reason = f"batches of {size} say too little by themselves: corrected towards the running statistics"
        plan.decide(reason, batch_norm="renorm")
    elif kind == "auto" and parts > 1:
        plan.decide(f"over the {size} windows of {parts} processes, {share} in each", batch_norm="sync")
    elif kind == "auto":
        plan.decide(f"batches of {size} windows", batch_norm="batch")
    elif kind == "batch" and parts > 1:
        plan.note(f"batch_norm = batch: each process by its own {share} of {size} windows; sync takes all of them")
    together = {"batch": share, "sync": size}.get(plan.config.batch_norm)
    if trains and together == 1 and window is not None:
        _check_single_values(plan, in_channels, window)
    if trains and kind == "frozen" and plan.config.weights in (None, RANDOM) and not plan.config.transplant:
        plan.note("batch_norm = frozen keeps statistics that no data gave: a network without weights learns badly so")


def _share_of(batch_size: int) -> int:
    """Return the windows of every batch that each process takes."""
    parts = processes.count()
    if batch_size % parts:
        raise RequestError(
            f"data.batch_size={batch_size} for {parts} processes, which take equal shares of every batch; accepted: "
            f"multiples of {parts}. Give --set data.batch_size={parts * math.ceil(batch_size / parts)}."
        )
    return batch_size // parts


def _check_single_values(plan: Plan[AnyConfig], in_channels: int, window: tuple[int, int]) -> None:
    """Refuse batches of one where a layer is normalised behind a global pooling."""
    config = plan.config
    twin = build_twin(config.model, num_classes=2, in_channels=in_channels, options=config.options)
    smallest = fewest_values(twin, in_channels=in_channels, input_size=window)
    if smallest is not None and smallest[1] == 1:
        parts = processes.count()
        seen = "batches of 1" if parts == 1 else "1 window in each process"
        raise RequestError(
            f"batch_norm={config.batch_norm} with {seen}: {smallest[0]} of {config.model} sees a single value per "
            f"channel of windows of {window[0]} x {window[1]}, which has no deviation; accepted: data.batch_size from "
            f"{2 * parts}, or batch_norm={'' if parts == 1 else 'sync, '}renorm or frozen. Change one of them."
        )
