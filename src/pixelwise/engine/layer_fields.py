"""What the units of each layer see, computed from the layer table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pixelwise.engine.layer_table import Layer, receptive_fields
from pixelwise.engine.windows import Window

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Reach:
    """Units that lie evenly: unit p of a layer depends on input positions step p + first to step p + last."""

    step: int = 1
    first: int = 0
    last: int = 0


def fields_by_layer(layers: Sequence[Layer], *, period: int) -> list[Size | None]:
    """Return the receptive field (height, width) of each layer, in pixels, of the unit that sees most.

    None where units see the whole image. `period` is that of the model's pooling grid.
    """
    heights, widths = (_fields_along(layers, axis, period) for axis in (0, 1))
    return [None if h is None or w is None else (h, w) for h, w in zip(heights, widths, strict=True)]


def _fields_along(layers: Sequence[Layer], axis: int, period: int) -> list[int | None]:
    """Go through the layers once; behind the first upsampling a field depends on the unit, and units are asked."""
    even: dict[int, _Reach] = {-1: _Reach()}
    whole: set[int] = set()
    fields: list[int | None] = []
    for index, layer in enumerate(layers):
        if layer.windows is None or any(source in whole for source in layer.inputs):
            whole.add(index)
            fields.append(None)
            continue
        reach = _after(layer.windows[axis], [even.get(source) for source in layer.inputs])
        if reach is not None:
            even[index] = reach
            fields.append(reach.last - reach.first + 1)
        else:
            fields.append(max(receptive_fields(layers[: index + 1], axis=axis, period=period) or [0]))
    return fields


def _after(window: Window, sources: Sequence[_Reach | None]) -> _Reach | None:
    """Return the reach behind a window; None where units no longer lie evenly."""
    known = [source for source in sources if source is not None]
    if type(window) is not Window or window.transposed or len(known) < len(sources):
        return None
    step = known[0].step
    if any(source.step != step for source in known):
        return None
    reach = (window.kernel - 1) * window.dilation
    return _Reach(
        step=step * window.stride,
        first=min(source.first for source in known) - window.padding * step,
        last=max(source.last for source in known) + (reach - window.padding) * step,
    )


def field_of_view(layers: Sequence[Layer], index: int, *, cell: int) -> Size:
    """Return what a layer's window covers in pixels, as the authors of DeepLab count: (k - 1) rate stride + cell.

    Args:
        layers: the layer table.
        index: the row of a convolution.
        cell: pixels that one cell under the window stands for.

    Source: L.-C. Chen et al., PAMI 2018, section 4.1.1, Table 1.
    """
    windows = layers[index].windows
    assert windows is not None
    height, width = (
        (window.kernel - 1) * window.dilation * _step(layers, index, axis) + cell for axis, window in enumerate(windows)
    )
    return height, width


def _step(layers: Sequence[Layer], index: int, axis: int) -> int:
    """Return the distance in pixels of the cells that a layer reads."""
    steps = {-1: 1.0}
    for row, layer in enumerate(layers[:index]):
        window = layer.windows[axis] if layer.windows else Window()
        steps[row] = max(steps[source] for source in layer.inputs) * window.step
    return round(max(steps[source] for source in layers[index].inputs))
