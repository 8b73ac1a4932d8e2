"""What both kinds of import share: the model to fill, and what its file says beside the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import torch
from torch import nn

from pixelwise.data.normalise import Normalisation
from pixelwise.data.pictures import default_palette
from pixelwise.engine.model_file import BYTE, COLOR_OPTION, ModelCard, Option, build_model, check_colors
from pixelwise.models import model_options
from pixelwise.structures import size_rule_of

CHANNELS = 3
ROUNDING = 1e-6


def build_from_seed(
    seed: int, name: str, *, num_classes: int, in_channels: int, options: Mapping[str, Option]
) -> nn.Module:
    """Build a model whose initialisation depends on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(name, num_classes=num_classes, in_channels=in_channels, options=options)


def color_options(name: str, normalisation: Normalisation) -> dict[str, Option]:
    """Return what tells a model that compares colours by what its images are divided; nothing for all others."""
    std = tuple(BYTE * value for value in normalisation.std)
    if COLOR_OPTION not in model_options(name) or max(abs(value - 1) for value in std) < ROUNDING:
        return {}
    return {COLOR_OPTION: tuple(round(value, 6) for value in std)}


def imported_card(
    name: str,
    model: nn.Module,
    *,
    num_classes: int,
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    ignore_index: int | None,
    normalisation: Normalisation,
    licence: str | None,
    origin: str,
    options: Mapping[str, Option],
) -> ModelCard:
    """Describe imported weights; classes without known names or colours get numbers and distinct colours.

    Raises:
        RequestError: if the model compares colours, and the images are brought to it in other steps than it knows.
    """
    check_colors(model, normalisation, name=name)
    colours = default_palette(min(num_classes, 255)) + [[0, 0, 0]] * max(0, num_classes - 255)
    return ModelCard(
        pixelwise=version("pixelwise"),
        model=name,
        options=dict(options),
        num_classes=num_classes,
        in_channels=CHANNELS,
        classes=tuple(classes) or tuple(f"class_{index}" for index in range(num_classes)),
        palette=tuple(palette) or tuple((red, green, blue) for red, green, blue in colours),
        ignore_index=ignore_index,
        normalisation=normalisation,
        scale=1.0,
        input_rule=size_rule_of(model).describe(),
        licence=licence,
        origin=origin,
        iteration=0,
        metrics={},
    )
