"""Layers as `look` shows them: their names, which stand for the network's stages, and where their units lie.

Coordinates are those of the network's input: pixel i covers i - 0.5 to i + 0.5, counted from the top left. A pair
is (height, width).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pixelwise.engine.layer_table import Interval, Layer, Window, input_span, receptive_fields
from pixelwise.errors import RequestError, closest

MAX_STAGES = 16
UNPOOL = "unpool"

# Kinds that only finish the layer before them, and kinds that only move or thin out what others computed.
_FINISHING = ("batch norm", "relu", "dropout")
_MOVING = ("max pool", "average pool", "concatenate", "crop", "pad", "dropout")


def layer_labels(layers: Sequence[Layer]) -> list[str]:
    """Return a name for each row: the module's, or the kind where the model itself computes it.

    Names that occur several times are numbered, as in "pool:1" and "pool:2".
    """
    names = [layer.name or layer.kind for layer in layers]
    total, seen = Counter(names), Counter[str]()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(name if total[name] == 1 else f"{name}:{seen[name]}")
    return labels


def layer_title(layers: Sequence[Layer], labels: Sequence[str], row: int) -> str:
    """Return a row's name for a heading; one without a module of its own has the name of what it finishes as well.

    So "relu:2" is "conv1_2 (relu:2)".
    """
    source = row
    while source >= 0 and layers[source].kind in _FINISHING:
        source = layers[source].inputs[0]
    if labels[row] == layers[row].name or source in (-1, row) or not layers[source].name:
        return labels[row]
    return f"{layers[source].name} ({labels[row]})"


def find_layers(layers: Sequence[Layer], wanted: str, *, model: str) -> list[int]:
    """Return the rows of a layer: one for a label, all uses for a name that occurs several times."""
    labels = layer_labels(layers)
    found = [i for i, layer in enumerate(layers) if wanted in (labels[i], layer.name or layer.kind)]
    if not found:
        raise RequestError(
            f"layer {wanted!r} is not one of the {len(labels)} of {model}; closest: {closest(wanted, labels)}. "
            f"`pixelwise describe {model}` lists all; the second use of a layer is written NAME:2."
        )
    return found


def unit_strides(layers: Sequence[Layer], input_size: tuple[int, int]) -> list[tuple[float, float]]:
    """Return the distance between neighbouring units of each layer, in input pixels."""
    strides: dict[int, tuple[float, float]] = {-1: (1.0, 1.0)}
    for index, layer in enumerate(layers):
        if layer.windows is None or len(layer.shape) != 3:
            size = layer.shape[1:] if len(layer.shape) == 3 else (1, 1)
            strides[index] = input_size[0] / size[0], input_size[1] / size[1]
            continue
        before = [max(strides[source][axis] for source in layer.inputs) for axis in (0, 1)]
        height, width = (_step(stride, window) for stride, window in zip(before, layer.windows, strict=True))
        strides[index] = height, width
    return [strides[index] for index in range(len(layers))]


def _step(stride: float, window: Window) -> float:
    return stride / window.stride if window.transposed else stride * window.stride


def stages(layers: Sequence[Layer], strides: Sequence[tuple[float, float]]) -> list[int]:
    """Return the rows that stand for the network in a figure, at most about `MAX_STAGES` of them.

    A stage is a run of layers with one stride and one beginning of their names; of the beginnings that keep the
    number, the longest is taken. Its last layer that computes something stands for it. An unpooling is a stage of its
    own, beyond the number.
    """
    depths = max(layer.name.count(".") + 2 for layer in layers)
    chosen = _stages_at(0, layers, strides)
    for depth in range(1, depths):
        finer = _stages_at(depth, layers, strides)
        if sum(layers[row].kind != UNPOOL for row in finer) > MAX_STAGES:
            break
        chosen = finer
    return chosen


def _stages_at(depth: int, layers: Sequence[Layer], strides: Sequence[tuple[float, float]]) -> list[int]:
    """Return the last computing row of each stage, names cut after `depth` parts."""
    last: dict[int, int] = {}
    stage, before = 0, ""
    for index, layer in enumerate(layers):
        joins = layer.kind in _FINISHING or not layer.name
        beginning = before if joins else ".".join(layer.name.split(".")[:depth])
        alone = UNPOOL in (layer.kind, layers[index - 1].kind)
        if index and (beginning != before or strides[index] != strides[index - 1] or alone):
            stage += 1
        before = beginning
        if layer.kind not in _MOVING and len(layer.shape) == 3:
            last[stage] = index
    return list(last.values())


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the units of a layer lie, in input pixels.

    Attributes:
        origin: centre of the first unit; averaged over the pooling grid where the unit's position in it matters.
        stride: distance between neighbouring units.
        field: receptive field of the unit that sees most; None where each sees the whole image.
        phases: after so many units the position in the pooling grid repeats.
    """

    origin: tuple[float, float] = (0.0, 0.0)
    stride: tuple[float, float] = (1.0, 1.0)
    field: tuple[int, int] | None = (1, 1)
    phases: tuple[int, int] = (1, 1)


def place_of(layers: Sequence[Layer], index: int, *, stride: tuple[float, float], period: int) -> Place:
    """Place the units of one layer; `period` is that of the model's pooling grid."""
    until = layers[: index + 1]
    phases = max(1, round(period / stride[0])), max(1, round(period / stride[1]))
    fields = [receptive_fields(until, axis=axis, period=phases[axis]) for axis in (0, 1)]
    if fields[0] is None or fields[1] is None:
        # nothing is known but that the layer's grid covers the input
        return Place(origin=((stride[0] - 1) / 2, (stride[1] - 1) / 2), stride=stride, field=None, phases=phases)
    top, left = (_origin(until, axis, stride[axis], phases[axis]) for axis in (0, 1))
    return Place(origin=(top, left), stride=stride, field=(max(fields[0]), max(fields[1])), phases=phases)


def _origin(layers: Sequence[Layer], axis: int, stride: float, phases: int) -> float:
    spans = [input_span(layers, position, axis) for position in range(phases)]
    centres = [(span[0] + span[1]) / 2 for span in spans if span is not None]
    return sum(centres) / len(centres) - stride * (phases - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One unit of a layer and what it sees.

    Attributes:
        position: its indices in the layer's map.
        centre: where it lies in the input.
        spans: first and last input position that it depends on, per axis; they may lie beyond the image.
    """

    position: tuple[int, int]
    centre: tuple[float, float]
    spans: tuple[Interval, Interval]


def central_unit(
    layers: Sequence[Layer], index: int, place: Place, *, centre: tuple[float, float], input_size: tuple[int, int]
) -> Unit:
    """Return the unit of a layer near the input position `centre`; of those in one period, the one that sees most."""
    shape = layers[index].shape if len(layers[index].shape) == 3 else (1, 1, 1)
    positions, spans = [], []
    for axis in (0, 1):
        nearest = round((centre[axis] - place.origin[axis]) / place.stride[axis])
        first = min(max(nearest - place.phases[axis] // 2, 0), shape[1 + axis] - 1)
        stop = min(first + place.phases[axis], shape[1 + axis])
        seen = {p: input_span(layers[: index + 1], p, axis) or (0, input_size[axis] - 1) for p in range(first, stop)}
        position = max(seen, key=lambda p: seen[p][1] - seen[p][0])
        positions.append(position)
        spans.append(seen[position] if place.field else (0, input_size[axis] - 1))
    top, left = (place.origin[axis] + place.stride[axis] * positions[axis] for axis in (0, 1))
    return Unit(position=(positions[0], positions[1]), centre=(top, left), spans=(spans[0], spans[1]))
