"""Modules with a name and a table of their own in a paper, which map score maps and not images.

They are described as models are, but `create_model` does not build them: their builders are in `pixelwise.layers`.
"""

from __future__ import annotations

import inspect
from types import MappingProxyType
from typing import Any

from torch import nn

from pixelwise.errors import RequestError
from pixelwise.layers.context import context_basic, context_large
from pixelwise.models.dilation import PAPER
from pixelwise.registry import ModelInfo, check_options
from pixelwise.structures import SizeRule

SCORE_MAP = (66, 66)  # of the released VOC network's input of 900 x 900

PARTS = MappingProxyType(
    {
        build.__name__: ModelInfo(
            name=build.__name__,
            family="Dilation",
            task="module",
            year=2016,
            paper=PAPER,
            fidelity="verified",
            source="the context networks of fyu/dilation; padding='layers' as in the urban ones, 'first' as in VOC's",
            input_size=SCORE_MAP,
            build=build,
        )
        for build in (context_basic, context_large)
    }
)


def part_options(name: str) -> dict[str, inspect.Parameter]:
    """Return the options of a part (keywords besides num_classes) with their defaults."""
    parameters = inspect.signature(PARTS[name].build).parameters
    return {key: value for key, value in parameters.items() if key != "num_classes"}


def create_part(name: str, *, num_classes: int, in_channels: int, **options: Any) -> nn.Module:
    """Build a part; it takes maps of any size with a channel for each class.

    Raises:
        RequestError: for an unknown option, an impossible value, or another number of channels than of classes.
    """
    check_options(name, part_options(name), options)
    if in_channels != num_classes:
        raise RequestError(
            f"in_channels={in_channels} of {name} for {num_classes} classes; accepted: {num_classes}, a score map for "
            "each class. Leave in_channels out."
        )
    part: nn.Module = PARTS[name].build(num_classes, **options)
    part.size_rule = SizeRule()  # type: ignore[assignment]
    return part
