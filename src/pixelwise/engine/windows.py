"""How an output position of an operation looks at its input along one axis.

Grids are taken as endless: positions beyond the border of a map are counted on, as padding would fill them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

Interval = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Window:
    """How an output position of an operation looks at its input along one axis.

    A forward window reads input positions `out * stride - padding + dilation * 0..kernel-1`. A transposed one
    is the reverse of that relation. Padding may be negative: a crop is a window of 1 that starts further in.
    """

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    transposed: bool = False

    def reads(self, span: Interval) -> Interval:
        """Return the hull of the input positions that the outputs of `span` (both ends included) depend on."""
        first, last = span
        reach = (self.kernel - 1) * self.dilation
        if self.transposed:
            return -((reach - self.padding - first) // self.stride), (last + self.padding) // self.stride
        return first * self.stride - self.padding, last * self.stride - self.padding + reach

    @property
    def step(self) -> float:
        """Distance of neighbouring outputs in units of the input."""
        return 1 / self.stride if self.transposed else float(self.stride)


@dataclass(frozen=True, kw_only=True)
class Resize(Window):
    """Interpolation along one axis: output o lies at input position `scale * o + shift`.

    Linear interpolation reads the positions on either side, one if it falls on a position; nearest-neighbour
    interpolation reads the one before. `kernel` and `stride` say the same in whole numbers, for display.
    """

    scale: Fraction
    shift: Fraction
    linear: bool

    def reads(self, span: Interval) -> Interval:
        """Return the hull of the input positions that the outputs of `span` (both ends included) depend on."""
        first, last = (self.scale * position + self.shift for position in span)
        return math.floor(first), math.ceil(last) if self.linear else math.floor(last)

    @property
    def step(self) -> float:
        """Distance of neighbouring outputs in units of the input."""
        return float(self.scale)


@dataclass(frozen=True, kw_only=True)
class Bins(Window):
    """Adaptive pooling along one axis: `inputs` positions in `outputs` bins of nearly equal length.

    Bin o reads input positions floor(o * inputs / outputs) to ceil((o + 1) * inputs / outputs) - 1.
    """

    inputs: int
    outputs: int

    def reads(self, span: Interval) -> Interval:
        """Return the hull of the input positions that the outputs of `span` (both ends included) depend on."""
        first, last = span
        return first * self.inputs // self.outputs, -(-(last + 1) * self.inputs // self.outputs) - 1

    @property
    def step(self) -> float:
        """Distance of neighbouring outputs in units of the input."""
        return self.inputs / self.outputs
