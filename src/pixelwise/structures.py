"""Value types that every layer of the package shares, and the one shape check of all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from pixelwise.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn


class SegmentationOutput(NamedTuple):
    """What a semantic model returns, in training and in evaluation alike.

    Attributes:
        logits: float (N, K, H', W'); H' and W' are the input's, less the margins of the model's `size_rule`.
        aux: auxiliary logits of the same batch, (N, K, H', W') each, for a loss weighted by the model's `aux_weights`;
            empty where the model has none, and outside training, where nobody would pay for them.
    """

    logits: Tensor
    aux: tuple[Tensor, ...] = ()


class ClassificationOutput(NamedTuple):
    """What an image classifier returns, in training and in evaluation alike.

    Attributes:
        logits: float (N, K).
    """

    logits: Tensor


class Estimator(Protocol):
    """What a classical pipeline is in place of a module: it learns from whole images, and takes images of any size."""

    @property
    def num_classes(self) -> int:
        """K."""

    def fit(
        self,
        images: Sequence[NDArray[np.uint8]],
        labels: Sequence[NDArray[np.integer[Any]]],
        *,
        num_rounds: int = ...,
        ignore_index: int = ...,
    ) -> Self:
        """Learn from images, uint8 (H, W, 3), and their label maps (H, W)."""

    def predict_probabilities(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the classes' probabilities (K, H, W) at each pixel of an image, uint8 (H, W, 3); they sum to 1."""


@dataclass(frozen=True, kw_only=True)
class SizeRule:
    """Which input sizes a model accepts, and what size comes out. Height and width are independent.

    Legal sides are `offset + step * k`, from `minimum` to `maximum`; an input side n gives n - 2 * margin.

    Attributes:
        step: distance between neighbouring legal sides, in pixels.
        offset: a legal side modulo `step`.
        minimum: smallest legal side.
        maximum: largest legal side, None where there is none.
        margin: pixels that valid convolutions lose on each side.
        period: period of the pooling grid, in pixels: windows whose origins differ by a multiple of it see the
            same grid, so that a tile can reproduce the whole-image pass.
    """

    step: int = 1
    offset: int = 0
    minimum: int = 1
    maximum: int | None = None
    margin: int = 0
    period: int = 1

    def is_legal(self, side: int) -> bool:
        """Say whether an input side of so many pixels is accepted."""
        below_maximum = self.maximum is None or side <= self.maximum
        return side >= self.minimum and below_maximum and (side - self.offset) % self.step == 0

    def at_least(self, side: int) -> int:
        """Return the smallest legal input side that is not below `side` (the largest there is, if none)."""
        side = max(side, self.minimum)
        legal = side + (self.offset - side) % self.step
        return legal if self.maximum is None else min(legal, self.maximum)

    def at_most(self, side: int) -> int:
        """Return the largest legal input side that is not above `side` (the smallest there is, if none)."""
        if self.maximum is not None:
            side = min(side, self.maximum)
        return max(side - (side - self.offset) % self.step, self.at_least(self.minimum))

    def output(self, side: int) -> int:
        """Return the output side that an input side gives."""
        return side - 2 * self.margin

    def covering(self, output_side: int) -> int:
        """Return the smallest legal input side whose output has at least `output_side` pixels."""
        return self.at_least(output_side + 2 * self.margin)

    def describe(self) -> str:
        """Say the rule in words, for error messages and pages.

        >>> SizeRule(step=16, offset=12, minimum=188, margin=92, period=16).describe()
        'sides of 16 k + 12, from 188; each side of the output is 184 smaller'
        """
        sides = "any side" if self.step == 1 else f"sides of {self.step} k"
        sides += f" + {self.offset}" if self.offset else ""
        words = [sides, f"from {self.minimum}"]
        if self.maximum is not None:
            words.append(f"to {self.maximum}")
        text = ", ".join(words)
        return text + (f"; each side of the output is {2 * self.margin} smaller" if self.margin else "")

    def check(self, height: int, width: int) -> None:
        """Raise `RequestError`, naming the nearest legal sizes, if a model cannot take this input."""
        wrong = [
            f"{axis} {side} (nearest legal: {self.nearest(side)})"
            for axis, side in (("height", height), ("width", width))
            if not self.is_legal(side)
        ]
        if wrong:
            raise RequestError(
                f"input size {height} x {width} is not legal: {', '.join(wrong)}. "
                f"Accepted: {self.describe()}. Pad or crop the input, or let `predict` do it."
            )

    def nearest(self, side: int) -> str:
        """Name the legal sides next to a side, such as "96 or 112"."""
        below, above = self.at_most(side), self.at_least(side)
        return str(above) if below == above else f"{below} or {above}"


def size_rule_of(model: nn.Module) -> SizeRule:
    """Return the size rule that every model declares as `size_rule`."""
    rule = model.size_rule
    assert isinstance(rule, SizeRule), f"{type(model).__name__} declares no size_rule"
    return rule


def aux_weights_of(model: nn.Module) -> tuple[float, ...]:
    """Return the weights of a model's auxiliary losses, which a model with `aux` outputs declares as `aux_weights`."""
    weights = getattr(model, "aux_weights", ())
    assert isinstance(weights, tuple), f"{type(model).__name__} declares aux_weights={weights!r}, not a tuple"
    return weights


def classifier_strides_of(model: nn.Module) -> Mapping[str, int]:
    """Return the layers for which a paper states a field of view, with their stride in the classifier they are from.

    Such a layer lies on a denser grid now, but each cell still stands for the pixels that it stood for there. A model
    declares them as `classifier_strides`; most have none.
    """
    strides = getattr(model, "classifier_strides", {})
    assert isinstance(strides, Mapping), f"{type(model).__name__} declares classifier_strides={strides!r}, no mapping"
    return strides


def color_std_of(model: nn.Module) -> tuple[float, ...] | None:
    """Return how images must be brought to a model that compares colours: the deviation of each channel.

    Values of 0..255, of which any mean may be subtracted, are divided by it. A model declares it as `color_std`; None
    of most, which take images as they come.
    """
    std = getattr(model, "color_std", None)
    assert std is None or isinstance(std, tuple), f"{type(model).__name__} declares color_std={std!r}, not a tuple"
    return std


def check_images(images: Tensor, *, in_channels: int, size_rule: SizeRule) -> None:
    """Check a model's input once, at its entry.

    Args:
        images: what should be float (N, C, H, W).
        in_channels: C of the model.
        size_rule: the model's rule for H and W.

    Raises:
        RequestError: if the shape, the number of channels or the size is not accepted.
    """
    if images.ndim != 4:
        raise RequestError(
            f"images has shape {tuple(images.shape)}; accepted: (N, {in_channels}, H, W). "
            "Add the batch axis with images[None]."
        )
    if images.shape[1] != in_channels:
        raise RequestError(
            f"images has {images.shape[1]} channels, shape {tuple(images.shape)}; this model was built for "
            f"{in_channels}. Build it with in_channels={images.shape[1]}, or convert the images."
        )
    size_rule.check(images.shape[2], images.shape[3])
