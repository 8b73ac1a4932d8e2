"""What a model is: parameters, receptive field, sizes, cost and layer table, computed and not quoted."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import torch
import yaml
from pydantic import BaseModel, ConfigDict
from torch import nn

from pixelwise.engine.layer_fields import field_of_view, fields_by_layer
from pixelwise.engine.layer_table import Layer, layer_table, output_stride, receptive_fields
from pixelwise.engine.model_file import Option, build_twin
from pixelwise.errors import RequestError, closest
from pixelwise.models import known_names, model_info, model_options
from pixelwise.models.parts import PARTS, create_part, part_options
from pixelwise.registry import CLASSICAL, ModelInfo
from pixelwise.structures import classifier_strides_of, size_rule_of


class LayerRow(BaseModel):
    """One line of the printed layer table; sizes are (C, H, W), FLOPs are for one image.

    Attributes:
        receptive_field: [height, width] in input pixels of the unit that sees most; None where it is the whole image.
        field_of_view: [height, width] in pixels of the layer's own window, for layers whose paper states it; see
            `layer_fields.field_of_view`.
        parameters_share: of those of all layers, 0 to 1.
        flops_share: of those of all layers, 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    output: list[int]
    receptive_field: list[int] | None
    field_of_view: list[int] | None
    parameters: int
    parameters_share: float
    flops: int
    flops_share: float


class Stage(BaseModel):
    """A step of a classical pipeline, in words with its numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    text: str


class Description(BaseModel):
    """The facts of a model that `pixelwise describe` prints; None and empty where it has none of a kind.

    Attributes:
        name: the public one, also of a model that was asked for by one of its `aliases`.
        pretrained: weights of its encoder that a package brings ("pretrained"), and what is missing, if anything;
            None where there are none.
        receptive_field: [height, width] in pixels of the output that sees most; None behind a global pooling.
        receptive_field_smallest: the same of the output that sees least (strides make it depend on the phase).
        output_stride: step in input pixels of the grid on which the last layer with weights computes.
        flops: for one image of `input_size`, a multiply-add counted as two.
        stages: of a classical pipeline, which has no layers; its numbers grow with every round, so that none are
            counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    aliases: list[str]
    pretrained: str | None
    family: str
    task: str
    year: int
    paper: str
    fidelity: str
    source: str
    num_classes: int
    in_channels: int
    options: dict[str, Option]
    parameters: int | None
    receptive_field: list[int] | None
    receptive_field_smallest: list[int] | None
    output_stride: int
    legal_sizes: str
    input_size: list[int]
    output_size: list[int]
    flops: int | None
    layers: list[LayerRow]
    stages: list[Stage] = []


def describe(
    name: str,
    *,
    num_classes: int = 2,
    in_channels: int | None = None,
    input_size: tuple[int, int] | None = None,
    **options: Option,
) -> Description:
    """Describe a model without allocating its weights.

    Args:
        name: a name of `list_models()`, an alias of one, or a module of `models.parts`, such as "context_basic".
        num_classes: K of the head.
        in_channels: C of the image; None takes the system's own (1 for the paper's U-Net, K for a module).
        input_size: (H, W); None takes the paper's or the usual size. An illegal one raises `RequestError`
            that names the nearest legal sizes.
        options: the model's own options.
    """
    part = name in PARTS
    if not part and name not in known_names():
        raise RequestError(
            f"unknown model {name!r}; closest names: {closest(name, [*known_names(), *PARTS])}. `pixelwise models` "
            f"lists models; modules are {', '.join(PARTS)}."
        )
    info = PARTS[name] if part else model_info(name)
    if info.task == CLASSICAL:
        from pixelwise.engine.describe_classical import describe_classical

        return describe_classical(
            info, num_classes=num_classes, in_channels=in_channels, input_size=input_size, options=options
        )
    if in_channels is None:
        own = inspect.signature(info.build).parameters.get("in_channels")
        in_channels = num_classes if own is None else int(own.default)
    build = _build_part if part else build_twin
    model = build(name, num_classes=num_classes, in_channels=in_channels, options=options)
    rule = size_rule_of(model)
    size = input_size or info.input_size
    layers = layer_table(model, in_channels=in_channels, input_size=size)
    largest, smallest = _field_extremes(layers, rule.period)
    known = part_options(name) if part else model_options(name)
    defaults = {key: parameter.default for key, parameter in known.items()}
    return Description(
        name=info.name,
        aliases=list(info.aliases),
        pretrained=_pretrained(info, {**defaults, **options}),
        family=info.family,
        task=info.task,
        year=info.year,
        paper=info.paper,
        fidelity=info.fidelity,
        source=info.source,
        num_classes=num_classes,
        in_channels=in_channels,
        options={**defaults, **options},
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        receptive_field=largest,
        receptive_field_smallest=smallest,
        output_stride=output_stride(layers),
        legal_sizes=rule.describe(),
        input_size=list(size),
        output_size=list(layers[-1].shape[1:]),
        flops=sum(layer.flops for layer in layers),
        layers=_rows(layers, period=rule.period, classifier_strides=classifier_strides_of(model)),
    )


def _build_part(name: str, *, num_classes: int, in_channels: int, options: Mapping[str, Option]) -> nn.Module:
    with torch.device("meta"):
        return create_part(name, num_classes=num_classes, in_channels=in_channels, **options)


def _pretrained(info: ModelInfo, options: Mapping[str, Option]) -> str | None:
    """Say what "pretrained" stands for, or why it cannot be had here."""
    if info.pretrained is None:
        return None
    try:
        return info.pretrained.inputs(options).source
    except RequestError as error:
        return str(error)


def read_options(settings: Sequence[str]) -> dict[str, Option]:
    """Read "option=value" texts; values are read as YAML, so that 0.5, true, null and [1, 2] mean what they say.

    As in training, an option may also be called "options.NAME".
    """
    options: dict[str, Option] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        try:
            value = yaml.safe_load(text) if equals else None
        except yaml.YAMLError:
            value = [text]  # refused below, as every list of other things than numbers
        if isinstance(value, list) and all(type(item) in (int, float) for item in value):
            value = tuple(value)
        if not equals or not isinstance(value, str | int | float | bool | tuple | None):
            raise RequestError(f"--set {setting!r}; accepted: option=value, such as base_channels=32.")
        options[key.strip().removeprefix("options.")] = value
    return options


def _field_extremes(layers: list[Layer], period: int) -> tuple[list[int] | None, list[int] | None]:
    per_axis = [receptive_fields(layers, axis=axis, period=period) for axis in (0, 1)]
    if any(fields is None for fields in per_axis):
        return None, None
    known = [fields for fields in per_axis if fields is not None]
    return [max(fields) for fields in known], [min(fields) for fields in known]


def _rows(layers: Sequence[Layer], *, period: int, classifier_strides: Mapping[str, int]) -> list[LayerRow]:
    rows = []
    parameters, flops = sum(layer.parameters for layer in layers), sum(layer.flops for layer in layers)
    for index, (layer, field) in enumerate(zip(layers, fields_by_layer(layers, period=period), strict=True)):
        windows = layer.windows or ()
        cell = classifier_strides.get(layer.name)
        row = LayerRow(
            name=layer.name,
            kind=layer.kind,
            kernel=[window.kernel for window in windows],
            stride=[window.stride for window in windows],
            dilation=[window.dilation for window in windows],
            output=list(layer.shape),
            receptive_field=None if field is None else list(field),
            field_of_view=None if cell is None else list(field_of_view(layers, index, cell=cell)),
            parameters=layer.parameters,
            parameters_share=layer.parameters / max(1, parameters),
            flops=layer.flops,
            flops_share=layer.flops / max(1, flops),
        )
        rows.append(row)
    return rows
