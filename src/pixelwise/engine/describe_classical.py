"""What a classical pipeline is: its stages with their numbers, and how far a pixel looks, computed from its filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pixelwise.classical.filter_bank import FilterBank, filter_bank
from pixelwise.engine.describe import Description, Stage
from pixelwise.engine.model_file import Option
from pixelwise.models import create_model, model_options
from pixelwise.registry import ModelInfo

CHANNELS = 3
CHANNEL_NAMES = ("L", "a", "b")


def describe_classical(
    info: ModelInfo,
    *,
    num_classes: int,
    in_channels: int | None,
    input_size: tuple[int, int] | None,
    options: Mapping[str, Option],
) -> Description:
    """Describe TextonBoost; arguments as for `describe`.

    Raises:
        RequestError: for an unknown option or an impossible value.
    """
    known = {key: parameter.default for key, parameter in model_options(info.name).items()}
    options = {**known, **options}
    channels = CHANNELS if in_channels is None else in_channels
    keywords: dict[str, Any] = dict(options)
    create_model(info.name, num_classes=num_classes, in_channels=channels, **keywords)
    bank = filter_bank(str(options["bank"]), kappa=float(keywords["kappa"]))
    field = int(keywords["box"]) + 2 * radius(bank) + 1
    height, width = input_size or info.input_size
    return Description(
        name=info.name,
        aliases=list(info.aliases),
        pretrained=None,
        family=info.family,
        task=info.task,
        year=info.year,
        paper=info.paper,
        fidelity=info.fidelity,
        source=info.source,
        num_classes=num_classes,
        in_channels=channels,
        options=dict(options),
        parameters=None,
        receptive_field=[field, field],
        receptive_field_smallest=[field, field],
        output_stride=1,
        legal_sizes="any side, from 1",
        input_size=[height, width],
        output_size=[height, width],
        flops=None,
        layers=[],
        stages=stages(bank, keywords, num_classes),
    )


def radius(bank: FilterBank) -> int:
    """Return how many pixels from its centre the largest filter of a bank sees."""
    return max(int(side) for one in bank.filters for side in one.kernel.shape) // 2


def stages(bank: FilterBank, options: Mapping[str, Any], num_classes: int) -> list[Stage]:
    """Return the steps from an image to probabilities."""
    box, textons, rectangles = options["box"], options["num_textons"], options["num_rectangles"]
    candidates, share = textons * rectangles, options["feature_share"]
    counts = [sum(one.channel == channel for one in bank.filters) for channel in range(len(CHANNEL_NAMES))]
    of_each = ", ".join(f"{count} of {name}" for count, name in zip(counts, CHANNEL_NAMES, strict=True) if count)
    side = 2 * radius(bank) + 1
    texts = {
        "filter bank": (
            f"{bank.name}, {len(bank.filters)} filters on CIELab ({of_each}), {bank.num_responses} responses a pixel; "
            f"the largest is {side} x {side} pixels"
        ),
        "textons": f"{textons} clusters of whitened responses, by k-means; each pixel gets the nearest",
        "texture-layout features": (
            f"{rectangles} rectangles within a box of {box} x {box} pixels around the pixel, times {textons} textons: "
            f"{candidates:,} candidate features, each the share of a rectangle that has one texton"
        ),
        "joint boosting": (
            f"a round adds one stump that several of the {num_classes} classes may share, the best of "
            f"{max(1, round(share * candidates)):,} features ({share:.2%} of the candidates) and "
            f"{options['num_thresholds']} thresholds, on every {options['grid_step']}th pixel in both directions"
        ),
        "probabilities": "softmax of the stumps' sums at every pixel",
    }
    return [Stage(name=name, text=text) for name, text in texts.items()]
