"""What the units of each layer see, computed from the layer table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pixelwise.engine.layer_table import Layer, receptive_fields
from pixelwise.engine.windows import Interval, Resize, Window

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
    """Go through the layers once; behind the first interpolation a field depends on the unit, and units are asked."""
    even: dict[int, _Reach] = {-1: _Reach()}
    spans = _Spans(layers, even, axis, period)
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
            fields.append(spans.largest(index))
    return fields


class _Spans:
    """What units see where it depends on the unit, remembered for one period of each layer.

    Along an axis, units that lie further on see no less far on, so that the first and the last position that a unit
    sees are those of the first and the last unit under its window.
    """

    def __init__(self, layers: Sequence[Layer], even: Mapping[int, _Reach], axis: int, period: int) -> None:
        self.layers, self.even, self.axis, self.period = layers, even, axis, period
        self.steps = {-1: Fraction(1)}  # input positions between two units
        self.repeating = {-1}  # layers of which a period holds a whole number of units, as of all that they read
        self.known: dict[tuple[int, int], Interval] = {}

    def largest(self, index: int) -> int:
        """Return the field of the unit of a layer that sees most; all its sources have windows."""
        for row in range(len(self.steps) - 1, index + 1):
            layer = self.layers[row]
            step = Fraction(1) if layer.windows is None else _step_of(layer.windows[self.axis])
            self.steps[row] = step = max(self.steps[source] for source in layer.inputs) * step
            # A step of 0: one cell spread over a map with its corners aligned, as behind a global pooling.
            if step and self.repeating.issuperset(layer.inputs) and (self.period / step).denominator == 1:
                self.repeating.add(row)
        if index not in self.repeating:
            return max(receptive_fields(self.layers[: index + 1], axis=self.axis, period=self.period) or [0])
        fields = (self._span(index, unit) for unit in range(int(self.period / self.steps[index])))
        return max(last - first + 1 for first, last in fields)

    def _span(self, index: int, unit: int) -> Interval:
        """Return the input positions that a unit sees; those a period further on see the same, so much further on."""
        if index in self.even:
            reach = self.even[index]
            return reach.step * unit + reach.first, reach.step * unit + reach.last
        periods, unit = divmod(unit, int(self.period / self.steps[index]))
        if (index, unit) not in self.known:
            windows = self.layers[index].windows
            assert windows is not None
            first, last = windows[self.axis].reads((unit, unit))
            seen = [(self._span(source, first)[0], self._span(source, last)[1]) for source in self.layers[index].inputs]
            self.known[index, unit] = min(one for one, _ in seen), max(other for _, other in seen)
        first, last = self.known[index, unit]
        return first + periods * self.period, last + periods * self.period


def _step_of(window: Window) -> Fraction:
    """Return the distance of neighbouring outputs in units of the input, exactly."""
    if isinstance(window, Resize):
        return window.scale
    return Fraction(1, window.stride) if window.transposed else Fraction(window.stride)


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
