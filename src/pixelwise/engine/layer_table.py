"""The layer table of any model, read off its forward pass, and the receptive field computed from it.

The model runs once on the meta device (shapes without numbers) while every tensor operation is recorded with
its inputs. The record is a directed graph, so that skips, crops and sums need no help from the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pixelwise.engine.windows import Bins, Resize
from pixelwise.engine.windows import Interval as Interval
from pixelwise.engine.windows import Window as Window

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A row of the layer table: one tensor operation.

    Attributes:
        name: path of the module that ran it, as in `named_modules()`.
        kind: "convolution", "up-convolution", "max pool", "batch norm", "relu", "concatenate", "crop", ...
        inputs: indices of the rows whose outputs it reads; -1 is the image.
        shape: (C, H, W) of its output.
        windows: per axis (height, width); None where every output sees the whole input.
        parameters: parameters of the module, counted at its first use.
        flops: floating-point operations for one image, a multiply-add counted as two; convolutions and
            matrix products only.
        pool: of an unpooling, the row of the pooling whose switches it takes.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    windows: tuple[Window, Window] | None = (Window(), Window())
    parameters: int = 0
    flops: int = 0
    pool: int | None = None


@dataclass
class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records one row for each tensor operation that runs under it."""

    layers: list[Layer] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    # Tensors are kept alive, since an id may be used again once its tensor is gone.
    rows: dict[int, tuple[int, Tensor]] = field(default_factory=dict)
    switches: dict[int, tuple[int, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        """Note that the innermost module has returned."""
        self.paths.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensor = out[0] if isinstance(out, tuple | list) and out else out
        if isinstance(tensor, Tensor):
            sources = tuple(dict.fromkeys(self.rows[id(t)][0] for t in _tensors(args) if id(t) in self.rows))
            if sources and func.overloadpacket is aten.alias:  # a crop that changes nothing
                self.rows[id(tensor)] = (sources[0], tensor)
            elif sources:
                row = _read_operation(func, args, tensor)
                pool = next((self.switches[id(t)][0] for t in _tensors(args) if id(t) in self.switches), None)
                self.layers.append(replace(row, name=self.paths[-1] if self.paths else "", inputs=sources, pool=pool))
                self.rows[id(tensor)] = (len(self.layers) - 1, tensor)
                if func.overloadpacket is aten.max_pool2d_with_indices:
                    self.switches[id(out[1])] = (len(self.layers) - 1, out[1])
        return out


def _tensors(args: Sequence[Any]) -> Iterator[Tensor]:
    for arg in args:
        if isinstance(arg, Tensor):
            yield arg
        elif isinstance(arg, list | tuple):
            yield from _tensors(arg)


def _pair(value: Sequence[int], default: int) -> tuple[int, int]:
    """Read a (height, width) argument of an operation, which may be one number or left out."""
    if not value:
        return default, default
    return (value[0], value[-1])


def _windows(
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    transposed: bool = False,
) -> tuple[Window, Window]:
    size = _pair(kernel, 1)
    step = _pair(stride, 0)
    pads, rates = _pair(padding, 0), _pair(dilation, 1)
    height, width = (
        Window(
            kernel=size[axis],
            stride=step[axis] or size[axis],
            padding=pads[axis],
            dilation=rates[axis],
            transposed=transposed,
        )
        for axis in (0, 1)
    )
    return height, width


def _read_convolution(args: tuple[Any, ...], out: Tensor) -> Layer:
    image, weight, _, stride, padding, dilation, transposed = args[:7]
    windows = _windows(weight.shape[2:], stride, padding, dilation, transposed=transposed)
    # Each weight is used once per position of the grid that it slides over: the output's, or the input's when
    # transposed.
    positions = math.prod((image if transposed else out).shape[2:])
    return Layer(
        name="",
        inputs=(),
        kind="up-convolution" if transposed else "convolution",
        shape=tuple(out.shape[1:]),
        windows=windows,
        flops=2 * positions * weight.numel(),
    )


def _read_pool(args: tuple[Any, ...], out: Tensor) -> Layer:
    defaults: tuple[Any, ...] = ([], [0], [1])
    kernel, stride, padding, dilation = (args[1:] + defaults[len(args) - 2 :])[:4] if len(args) < 5 else args[1:5]
    windows = _windows(kernel, stride, padding, dilation)
    return Layer(name="", inputs=(), kind="max pool", shape=tuple(out.shape[1:]), windows=windows)


def _read_average_pool(args: tuple[Any, ...], out: Tensor) -> Layer:
    windows = _windows(args[1], args[2] if len(args) > 2 else [], args[3] if len(args) > 3 else [0], [1])
    return Layer(name="", inputs=(), kind="average pool", shape=tuple(out.shape[1:]), windows=windows)


def _read_slice(args: tuple[Any, ...], out: Tensor) -> Layer:
    dim = args[1] if len(args) > 1 else 0
    start = (args[2] if len(args) > 2 else 0) or 0
    crop, whole = Window(padding=-start), Window()
    windows = (crop if dim in (2, -2) else whole, crop if dim in (3, -1) else whole)
    return Layer(name="", inputs=(), kind="crop", shape=tuple(out.shape[1:]), windows=windows)


def _read_pad(args: tuple[Any, ...], out: Tensor) -> Layer:
    left, _, top = (*args[1], 0, 0)[:3]
    windows = (Window(padding=top), Window(padding=left))
    return Layer(name="", inputs=(), kind="pad", shape=_shape(out), windows=windows)


def _read_unpool(args: tuple[Any, ...], out: Tensor) -> Layer:
    """Read an unpooling of 2x2 windows: each output depends on the unit of its window.

    It depends on the switches too, so on the window of the pooling; but that the unit has seen already, wherever
    the path between pooling and unpooling keeps what lies under a unit.
    """
    before = args[0].shape[2:]
    halved = all(-(-after // 2) == side for side, after in zip(before, out.shape[2:], strict=True))
    window = Window(kernel=2, stride=2, transposed=True)
    windows = (window, window) if halved else None
    return Layer(name="", inputs=(), kind="unpool", shape=tuple(out.shape[1:]), windows=windows)


def _read_bilinear(args: tuple[Any, ...], out: Tensor) -> Layer:
    return _read_resize(args[0], out, scales=args[3:5], linear=True, align_corners=args[2])


def _read_nearest(args: tuple[Any, ...], out: Tensor) -> Layer:
    return _read_resize(args[0], out, scales=args[2:4], linear=False, align_corners=False)


def _read_resize(
    before: Tensor, out: Tensor, *, scales: Sequence[float | None], linear: bool, align_corners: bool
) -> Layer:
    factors = (*scales, None, None)[:2]  # as the caller gave them; PyTorch then samples with them, not with the sizes
    height, width = (
        _resize(before.shape[axis], out.shape[axis], factor, linear=linear, align_corners=align_corners)
        for axis, factor in zip((2, 3), factors, strict=True)
    )
    return Layer(name="", inputs=(), kind="resize", shape=tuple(out.shape[1:]), windows=(height, width))


def _resize(inputs: int, outputs: int, factor: float | None, *, linear: bool, align_corners: bool) -> Resize:
    scale = 1 / Fraction(factor).limit_denominator(10_000) if factor else Fraction(inputs, outputs)
    if align_corners:
        scale = Fraction(inputs - 1, outputs - 1) if outputs > 1 else Fraction(0)
    return Resize(
        kernel=2 if linear else 1,
        stride=max(1, round(max(scale, 1 / scale if scale else 1))),
        transposed=scale < 1,
        scale=scale,
        shift=scale / 2 - Fraction(1, 2) if linear and not align_corners else Fraction(0),
        linear=linear,
    )


def _read_adaptive_pool(args: tuple[Any, ...], out: Tensor) -> Layer:
    """Read an adaptive pooling; one whose single bin is the whole map has no window."""
    bins = [
        Bins(kernel=-(-inputs // outputs), stride=max(1, round(inputs / outputs)), inputs=inputs, outputs=outputs)
        for inputs, outputs in zip(args[0].shape[2:], out.shape[2:], strict=True)
    ]
    windows = None if 1 in out.shape[2:] else (bins[0], bins[1])
    return Layer(name="", inputs=(), kind="adaptive pool", shape=tuple(out.shape[1:]), windows=windows)


def _read_channel_pool(args: tuple[Any, ...], out: Tensor) -> Layer:
    """Read the three-dimensional pooling that PyTorch normalises across channels with."""
    kernel, stride, padding = (*args[1:4], [], [0])[:3]
    windows = _windows(kernel[1:], stride[1:], padding[1:], [1])
    return Layer(name="", inputs=(), kind="average pool", shape=_shape(out), windows=windows)


def _shape(out: Tensor) -> tuple[int, ...]:
    """Return (C, H, W), also of the (N, 1, C, H, W) on which PyTorch normalises across channels."""
    return tuple(out.shape[2:] if out.ndim == 5 and out.shape[1] == 1 else out.shape[1:])


_READERS: dict[Any, Callable[[tuple[Any, ...], Tensor], Layer]] = {
    aten.convolution: _read_convolution,
    aten.max_pool2d_with_indices: _read_pool,
    aten.avg_pool2d: _read_average_pool,
    aten.slice: _read_slice,
    aten.constant_pad_nd: _read_pad,
    aten.reflection_pad2d: _read_pad,
    aten.replication_pad2d: _read_pad,
    aten.max_unpool2d: _read_unpool,
    aten.upsample_bilinear2d: _read_bilinear,
    aten.upsample_nearest2d: _read_nearest,
    aten._adaptive_avg_pool2d: _read_adaptive_pool,
    aten.adaptive_max_pool2d: _read_adaptive_pool,
    aten.avg_pool3d: _read_channel_pool,
}
_KINDS = {
    aten.cat: "concatenate",
    aten.relu: "relu",
    aten.relu_: "relu",
    aten.add: "sum",
    aten.add_: "sum",
    aten.native_batch_norm: "batch norm",
    aten._native_batch_norm_legit_no_training: "batch norm",
    aten.native_dropout: "dropout",
}
_OURS = {"pixelwise.crf_rnn": "dense CRF"}  # operations of our own, at which every pixel sees all others


def _read_operation(func: Any, args: tuple[Any, ...], out: Tensor) -> Layer:
    packet = func.overloadpacket
    if packet in _READERS:
        return _READERS[packet](args, out)
    if str(packet) in _OURS:
        return Layer(name="", inputs=(), kind=_OURS[str(packet)], shape=_shape(out), windows=None)
    kind = _KINDS.get(packet, str(packet).removeprefix("aten.").strip("_"))
    before = next(_tensors(args))
    grid = -2 if min(before.ndim, out.ndim) >= 4 else 2  # a view may put an axis of length 1 before the channels
    same_grid = before.shape[grid:] == out.shape[grid:]
    windows = (Window(), Window()) if same_grid else None  # an operation of unknown reach sees everything
    return Layer(name="", inputs=(), kind=kind, shape=_shape(out), windows=windows)


def layer_table(model: nn.Module, *, in_channels: int, input_size: tuple[int, int]) -> list[Layer]:
    """Run a model on the meta device and return its layers in order.

    Args:
        model: built under `torch.device("meta")`; put into evaluation mode by this call.
        in_channels: C of the image.
        input_size: (H, W), legal for the model.

    Returns:
        A row per tensor operation that depends on the image; crops that change nothing are left out.
    """
    recorder = _Recorder()
    owners = {module: name for name, module in model.named_modules()}
    handles = []
    for module in owners:
        handles.append(module.register_forward_pre_hook(lambda m, _: recorder.paths.append(owners[m])))
        handles.append(module.register_forward_hook(lambda *_: recorder.leave()))
    image = torch.zeros(1, in_channels, *input_size, device="meta")
    recorder.rows[id(image)] = (-1, image)
    model.eval()
    try:
        with torch.no_grad(), recorder:
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return _count_parameters(model, recorder.layers)


def _count_parameters(model: nn.Module, layers: list[Layer]) -> list[Layer]:
    """Enter parameters at their module's first row; where it has none, at that of the module around it.

    What evaluation leaves out, such as an auxiliary classifier, has no row at all.
    """
    rows = {layer.name for layer in layers}
    counts: dict[str, int] = {}
    for name, module in model.named_modules():
        place = name
        while place and place not in rows:
            place = place.rpartition(".")[0]
        if place or not name:
            counts[place] = counts.get(place, 0) + sum(p.numel() for p in module.parameters(recurse=False))
    return [replace(layer, parameters=counts.pop(layer.name, 0)) for layer in layers]


def input_span(layers: Sequence[Layer], position: int, axis: int) -> Interval | None:
    """Return the input positions that one output position depends on, along an axis (0 height, 1 width).

    Positions are counted from the top left pixel of the input; the span may reach beyond the image. None means
    that the output depends on the whole image.
    """
    needed: dict[int, Interval] = {len(layers) - 1: (position, position)}
    for index in range(len(layers) - 1, -1, -1):
        if index not in needed:
            continue
        windows = layers[index].windows
        if windows is None:
            return None
        span = windows[axis].reads(needed[index])
        for source in layers[index].inputs:
            known = needed.get(source, span)
            needed[source] = (min(known[0], span[0]), max(known[1], span[1]))
    return needed.get(-1)


def receptive_fields(layers: Sequence[Layer], *, axis: int, period: int) -> list[int] | None:
    """Return the receptive field in pixels of `period` neighbouring outputs; None where it is the whole image.

    Strided layers make the field depend on the position of the output in the pooling grid; the list has one
    entry per phase.
    """
    spans = [input_span(layers, position, axis) for position in range(period)]
    if any(span is None for span in spans):
        return None
    return [span[1] - span[0] + 1 for span in spans if span is not None]


def output_stride(layers: Sequence[Layer]) -> int:
    """Return the step, in input pixels, of the grid on which the last layer with weights computes; at least 1."""
    stride = {-1: 1.0}
    last = 1.0
    for index, layer in enumerate(layers):
        window = layer.windows[0] if layer.windows else Window()
        stride[index] = max(stride[source] for source in layer.inputs) * window.step
        if layer.parameters:
            last = stride[index]
    return max(1, round(last))
