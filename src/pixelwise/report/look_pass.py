"""One pass of a network over an image with its layers watched, and one pass back from an output pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from pixelwise.data.images import AnyArray
from pixelwise.engine.layer_table import Interval, Layer
from pixelwise.engine.predict import Prediction, Segmenter
from pixelwise.structures import SegmentationOutput, SizeRule, size_rule_of

MAX_GRADIENT_BYTES = 4 * 2**30  # of activations kept for the pass back

Seen = TypeVar("Seen")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A tensor operation as it has just run; the next one may overwrite its tensors.

    Attributes:
        reads: tensors that it took, (1, C, h, w) each.
        gives: tensors that it returned; of a max pooling, the maxima and where they were in their maps, y * w + x.
    """

    reads: tuple[Tensor, ...]
    gives: tuple[Tensor, ...]

    @property
    def output(self) -> Tensor:
        """The output of the layer, float32 (C, h, w) on the CPU."""
        return self.gives[0][0].float().cpu()


Reader = Callable[[Operation], Seen]


@dataclass(frozen=True, kw_only=True)
class Watched(Generic[Seen]):
    """What a pass gave.

    Attributes:
        prediction: as `predict` makes it.
        batch: the network's input (1, C, H, W).
        seen: what the readers made of the layers' outputs, by row of the layer table.
    """

    prediction: Prediction
    batch: Tensor
    seen: dict[int, Seen]


class _Watch(TorchDispatchMode, Generic[Seen]):  # type: ignore[no-untyped-call]
    """Counts tensor operations as the layer table does and hands some of them to readers.

    An output is read at once, since the next operation may work in place. Operations are counted and not modules:
    those that the model computes itself, such as a concatenation, are rows of the table too.
    """

    def __init__(self, batch: Tensor, readers: Mapping[int, Reader[Seen]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.readers = readers
        self.seen: dict[int, Seen] = {}
        self.rows = 0
        # Tensors that depend on the image; weak, so that their memory is freed as usual.
        self._known = WeakTensorKeyDictionary({batch: True})

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensor = out[0] if isinstance(out, tuple | list) and out else out
        if isinstance(tensor, Tensor) and any(source in self._known for source in _tensors(args)):
            self._known[tensor] = True
            if func.overloadpacket is not torch.ops.aten.alias:  # a crop that changes nothing is no row
                self._read(args, out)
        return out

    def _read(self, args: tuple[Any, ...], out: Any) -> None:
        if self.rows in self.readers:
            operation = Operation(reads=tuple(_tensors(args)), gives=tuple(_tensors((out,))))
            self.seen[self.rows] = self.readers[self.rows](operation)
        self.rows += 1


def _tensors(args: Sequence[Any]) -> Iterator[Tensor]:
    for arg in args:
        if isinstance(arg, Tensor):
            yield arg
        elif isinstance(arg, list | tuple):
            yield from _tensors(arg)


class _Watched(nn.Module, Generic[Seen]):
    """A model that is watched at its next pass."""

    def __init__(self, model: nn.Module, readers: Mapping[int, Reader[Seen]]) -> None:
        super().__init__()
        self.model = model
        self.size_rule = size_rule_of(model)
        self.readers = readers
        self.watch: _Watch[Seen] | None = None
        self.batch: Tensor | None = None

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Run the model as the layer table's pass does: inference mode would fuse some operations, and another
        memory format would add copies.
        """
        with torch.inference_mode(False), torch.no_grad():
            self.batch = images.clone(memory_format=torch.contiguous_format)
            with _Watch(self.batch, self.readers) as self.watch:
                output = self.model(self.batch)
        assert isinstance(output, SegmentationOutput)
        return output


def watch(segmenter: Segmenter, image: AnyArray, readers: Mapping[int, Reader[Seen]], *, rows: int) -> Watched[Seen]:
    """Predict an image that needs no tiles, with some layers read on the way.

    Args:
        segmenter: the model.
        image: (H, W, C).
        readers: by row of the layer table, what to make of the operation.
        rows: rows of the layer table, which the pass must have too.
    """
    model = _Watched(segmenter.model, readers)
    prediction = Segmenter(model=model, card=segmenter.card).predict(image)
    assert model.watch is not None
    assert model.batch is not None
    assert model.watch.rows == rows, f"the pass has {model.watch.rows} operations, the layer table {rows}"
    return Watched(prediction=prediction, batch=model.batch, seen=model.watch.seen)


def run_watched(model: nn.Module, batch: Tensor, readers: Mapping[int, Reader[Seen]], *, rows: int) -> dict[int, Seen]:
    """Run any model, of whatever task, with some layers read on the way.

    Args:
        model: in evaluation mode.
        batch: (1, C, H, W).
        readers: see `watch`; a reader may also change what the operation gives, in place, and that goes on.
        rows: rows of the layer table, which the pass must have too.

    Returns:
        What the readers made, by row.
    """
    batch = batch.clone(memory_format=torch.contiguous_format)
    watch = _Watch(batch, readers)
    with torch.no_grad(), watch:
        model(batch)
    assert watch.rows == rows, f"the pass has {watch.rows} operations, the layer table {rows}"
    return watch.seen


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """How much an output pixel depends on the pixels of the input.

    Attributes:
        magnitude: float32 (h, w), the absolute gradient summed over the image's channels.
        top: input row of its first row.
        left: input column of its first column.
        class_index: whose logit was differentiated, the largest one of the pixel.
    """

    magnitude: NDArray[np.float32]
    top: int
    left: int
    class_index: int


def gradient_bytes(layers: Sequence[Layer], batch: Tensor, spans: tuple[Interval, Interval], rule: SizeRule) -> int:
    """Return about how much memory `input_gradient` needs."""
    (_, height), (_, width) = (_cut(span, side, rule) for span, side in zip(spans, batch.shape[2:], strict=True))
    whole = 4 * sum(math.prod(layer.shape) for layer in layers)
    return round(whole * height * width / (batch.shape[2] * batch.shape[3]))


def input_gradient(
    model: nn.Module, batch: Tensor, *, position: tuple[int, int], spans: tuple[Interval, Interval]
) -> Gradient:
    """Differentiate the largest logit of one output pixel by the input.

    Only the part of the input that the pixel sees goes through the network, aligned with the pooling grid, which
    gives the same gradient.

    Args:
        model: a semantic model in evaluation mode.
        batch: (1, C, H, W), as the model saw it.
        position: the output pixel (row, column).
        spans: what it sees, in input pixels per axis; they may reach beyond the input.

    Source: W. Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks",
    NIPS 2016, section 2.
    """
    rule = size_rule_of(model)
    top, height = _cut(spans[0], batch.shape[2], rule)
    left, width = _cut(spans[1], batch.shape[3], rule)
    part = batch[:, :, top : top + height, left : left + width].clone().requires_grad_()
    logits = model(part).logits[0, :, position[0] - top, position[1] - left]  # (K,)
    (gradient,) = torch.autograd.grad(logits.max(), part)
    magnitude = gradient[0].abs().sum(dim=0).float().cpu().numpy()
    return Gradient(magnitude=magnitude, top=top, left=left, class_index=int(logits.argmax()))


def _cut(span: Interval, side: int, rule: SizeRule) -> tuple[int, int]:
    """Return start and length of the shortest legal part of an input side that holds a span and keeps its grid."""
    first = max(span[0], 0) // rule.period * rule.period
    length = rule.at_least(min(span[1], side - 1) + 1 - first)
    start = min(first, side - length) if length <= side else 0
    return (start, length) if length <= side and start % rule.period == 0 else (0, side)
