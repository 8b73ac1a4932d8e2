"""From a Caffe network to the state dict of one of our models, strictly.

Every blob of the file is used, or listed as left out with a reason; every tensor of the model is filled, or the file
is refused. What Caffe keeps otherwise than PyTorch:

- fully connected layers, which become convolutions by reading their rows as (C, h, w);
- bilinear deconvolutions, stored dense (C, C, k, k) with zeros off the diagonal, which ours store per channel;
- the first convolution, which expects B, G, R: its input channels are turned, so that the model takes R, G, B as all
  others do. That is a permutation of weights, and exact;
- batch normalisation, in four forms: statistics with a moving-average factor, followed by a layer "Scale" (Caffe);
  scale, shift, mean and variance in one layer (PSPNet's Caffe); statistics folded into one scale and shift
  (caffe-segnet); folded further into the convolution, with zeros or nothing left in its place (BN-absorber). The last
  two become a normalisation with mean 0 and variance 1.
- maps that a network joins in another order than ours: the weights that read them are put into our order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.weights.caffemodel import CaffeNet, Layer, shape_text
from pixelwise.weights.published import Published

ChannelOrder = Literal["rgb", "bgr"]
CLASSIFIER = "part of the ImageNet classifier only"
ABSORBED = "zeros: absorbed into the convolution before it"


@dataclass(frozen=True, kw_only=True)
class Use:
    """A layer of the file whose blobs went into the model: where, and what was done to them."""

    layer: str
    type: str
    module: str
    shape: tuple[int, ...]
    note: str = ""


@dataclass(kw_only=True)
class Conversion:
    """A state dict and how it came about.

    Attributes:
        tensors: complete, in the model's order.
        used: layers of the file that went in.
        left_out: layers of the file that did not, with the reason.
        identities: normalisations that do nothing, since the file has them absorbed into the convolutions.
        own: keys that keep the model's own initialisation; only of a start from a classifier.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    used: list[Use] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    identities: list[str] = field(default_factory=list)
    own: tuple[str, ...] = ()


def convert(
    net: CaffeNet,
    model: nn.Module,
    published: Published,
    *,
    name: str,
    trunk: bool = False,
    folded: bool = False,
    channel_order: ChannelOrder = "rgb",
) -> Conversion:
    """Turn a Caffe network into the state dict of a model.

    Args:
        net: the file.
        model: the model, for its shapes; it may stand on the meta device, unless `trunk` is set.
        published: the names.
        name: of the model, for messages.
        trunk: the file is an ImageNet classifier to start from: what it lacks keeps the model's initialisation.
        folded: take layers "BN" for folded scale and shift although the file describes a network in training.
        channel_order: of the images that the model will see; "bgr" keeps the first convolution as it is.

    Raises:
        RequestError: naming the layer, what was found and what is wanted.
    """
    return _Converter(
        net=net,
        model=model,
        published=published,
        name=name,
        trunk=trunk,
        folded=folded,
        channel_order=channel_order,
    ).run()


@dataclass(kw_only=True)
class _Converter:
    """One conversion; see `convert` for the fields that are given."""

    net: CaffeNet
    model: nn.Module
    published: Published
    name: str
    trunk: bool
    folded: bool
    channel_order: ChannelOrder
    done: Conversion = field(default_factory=Conversion)
    extra: dict[str, Tensor] = field(default_factory=dict)  # biases that are added to others at the end

    def __post_init__(self) -> None:
        self.modules = dict(self.model.named_modules())
        self.wanted = self.model.state_dict()

    def run(self) -> Conversion:
        for layer in self.net.layers.values():
            self._place(layer)
        for source, target in self.published.fold.items():
            if source in self.extra:
                self.done.tensors[target] = self._filled(target) + self.extra.pop(source)
        self._complete()
        order = {key: self.done.tensors[key] for key in self.wanted}
        self.done.tensors = order
        return self.done

    def _place(self, layer: Layer) -> None:
        if layer.name in self.published.constants:
            self._check_constant(layer, self.published.constants[layer.name])
            return
        if (original := self.published.original(layer.name)) is not None:
            self._check_copy(layer, original)
            return
        if (modules := self.published.parts.get(layer.name)) is not None:
            self._take_apart(layer, modules)
            return
        module = self.published.module(layer.name)
        if module not in self.modules:
            reason = self.published.reason_to_leave_out(layer.name) or (CLASSIFIER if self.trunk else None)
            if reason is None:
                raise self._refusal(
                    f"holds a layer {layer.name!r} ({layer.type}, {_shapes(layer)}), for which {self.name} has no place"
                )
            self.done.left_out[layer.name] = reason
            return
        if self.trunk and module not in self.published.trunk and (misfit := self._misfit(layer, module)):
            self.done.left_out[layer.name] = misfit
            return
        fill = {"BN": self._fold, "BatchNorm": self._statistics, "Scale": self._weights}.get(layer.type, self._weights)
        note = fill(layer, module)
        self.done.used.append(
            Use(layer=layer.name, type=layer.type, module=module, shape=layer.blobs[0].shape, note=note)
        )

    def _take_apart(self, layer: Layer, modules: Sequence[str]) -> None:
        """Fill the weights of several modules from the blobs of one layer."""
        if len(layer.blobs) != len(modules):
            raise self._refusal(
                f"has {len(layer.blobs)} blobs in layer {layer.name!r}; known are those of {', '.join(modules)}"
            )
        for index, module in enumerate(modules):
            note = self._fill(layer, index, f"{module}.weight")
            shape = layer.blobs[index].shape
            self.done.used.append(Use(layer=layer.name, type=layer.type, module=module, shape=shape, note=note))

    def _check_constant(self, layer: Layer, value: float) -> None:
        for blob in layer.blobs:
            numbers = blob.numbers()
            if not np.allclose(numbers, value, rtol=1e-6, atol=0):
                raise self._refusal(
                    f"holds other numbers than {value:g} in layer {layer.name!r} ({numbers.min():g} to "
                    f"{numbers.max():g}), which {self.name} has as a constant"
                )
        self.done.left_out[layer.name] = f"the constant {value:g}, which the model has in its code"

    def _check_copy(self, layer: Layer, original: str) -> None:
        """Leave out a layer that shares the parameters of another, if it does."""
        other = self.net.layers.get(original)
        pairs = () if other is None else zip(layer.blobs, other.blobs, strict=False)
        if (
            other is None
            or len(layer.blobs) != len(other.blobs)
            or not all(np.array_equal(one.numbers(), two.numbers()) for one, two in pairs)
        ):
            raise self._refusal(
                f"holds other numbers in layer {layer.name!r} than in {original!r}, whose parameters it shares"
            )
        self.done.left_out[layer.name] = f"the same numbers as {original}, with which it shares them"

    def _misfit(self, layer: Layer, module: str) -> str | None:
        """Say in which shape a layer differs, None if it fits."""
        wanted = self.wanted.get(f"{module}.weight")
        if wanted is None or _view(layer, layer.blobs[0].shape, tuple(wanted.shape)) is not None:
            return None
        return f"{shape_text(layer.blobs[0].shape)} in the file, {shape_text(wanted.shape)} in the model"

    def _weights(self, layer: Layer, module: str) -> str:
        """Fill weight and bias; return what was done to them."""
        notes = [self._fill(layer, 0, f"{module}.weight")]
        if len(layer.blobs) > 2:
            raise self._refusal(f"has {len(layer.blobs)} blobs in layer {layer.name!r}; weight and bias are known")
        if len(layer.blobs) == 2:
            key = f"{module}.bias"
            if key not in self.wanted and key in self.published.fold:
                self.extra[key] = torch.tensor(layer.blobs[1].numbers()).flatten()
                notes.append(f"bias added to {self.published.fold[key]}")
            else:
                self._fill(layer, 1, key)
        return "; ".join(note for note in notes if note)

    def _fold(self, layer: Layer, module: str) -> str:
        """Fill a normalisation from scale, shift, mean and variance, or from scale and shift with these folded in."""
        if len(layer.blobs) == 4:
            for index, key in enumerate(("weight", "bias", "running_mean", "running_var")):
                self._fill(layer, index, f"{module}.{key}")
            return ""
        if len(layer.blobs) != 2:
            raise self._refusal(
                f"has {len(layer.blobs)} blobs in layer {layer.name!r}; scale and shift are known, with mean and "
                "variance or without"
            )
        if not any(blob.numbers().any() for blob in layer.blobs):
            self._identity(module)
            self.done.identities.append(module)
            return ABSORBED
        if not (layer.inference or len(layer.tops) > 1 or self.folded):
            raise self._refusal(
                f"is a network in training: layer {layer.name!r} holds no statistics. Fold them first (the originals "
                "do so with compute_bn_statistics.py and BN_make_INFERENCE_script.py)",
                "Give --folded if that was done and the file does not say so.",
            )
        self._fill(layer, 0, f"{module}.weight")
        self._fill(layer, 1, f"{module}.bias")
        self._identity(module)
        return "folded scale and shift; mean 0, variance 1"

    def _identity(self, module: str) -> None:
        """Let a normalisation do nothing, but for what is filled already."""
        eps = float(getattr(self.modules[module], "eps", 0.0))
        for key, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0 - eps)):
            if (like := self.wanted.get(f"{module}.{key}")) is not None:
                self.done.tensors.setdefault(f"{module}.{key}", torch.full(like.shape, value))

    def _statistics(self, layer: Layer, module: str) -> str:
        """Fill running mean and variance, which Caffe stores as sums with one factor."""
        if len(layer.blobs) != 3 or math.prod(layer.blobs[2].shape) != 1:
            raise self._refusal(
                f"has blobs of {_shapes(layer)} in layer {layer.name!r}; mean, variance and one factor are known"
            )
        factor = float(layer.blobs[2].numbers().ravel()[0])
        for index, key in enumerate(("running_mean", "running_var")):
            self._fill(layer, index, f"{module}.{key}")
            self.done.tensors[f"{module}.{key}"] /= factor or 1.0  # zero: no batch was ever seen
        return f"divided by the moving-average factor {factor:g}"

    def _fill(self, layer: Layer, index: int, key: str) -> str:
        """Put a blob where it belongs; return what was done to it."""
        what = "weights" if index == 0 else f"blob {index}"
        if key not in self.wanted:
            raise self._refusal(f"holds {what} in layer {layer.name!r}, for which {self.name} has no {key!r}")
        if key in self.done.tensors:
            raise self._refusal(f"fills {key!r} twice, the second time from layer {layer.name!r}")
        found, wanted = layer.blobs[index].shape, tuple(self.wanted[key].shape)
        view = _view(layer, found, wanted)
        if view is None:
            raise self._refusal(
                f"holds {what} of {shape_text(found)} in layer {layer.name!r}; {self.name} wants {shape_text(wanted)}"
            )
        tensor = torch.from_numpy(np.array(layer.blobs[index].numbers())).reshape(view)
        note = ""
        if view != wanted:
            tensor, note = self._diagonal(layer, tensor), "one kernel per channel; zero elsewhere"
        elif layer.type == "InnerProduct" and len(wanted) == 4:
            note = f"rows of {found[-1]} read as {shape_text(wanted[1:])}"
        if key.removesuffix(".weight") in self.published.images and self.channel_order == "rgb" and wanted[1] >= 3:
            tensor, note = tensor[:, [2, 1, 0, *range(3, wanted[1])]], "input channels turned from B, G, R to R, G, B"
        if order := self.published.orders.get(key.removesuffix(".weight")):
            parts = tensor.chunk(len(order), dim=1)
            tensor, note = torch.cat([parts[part] for part in order], dim=1), "input channels put into our order"
        self.done.tensors[key] = tensor
        return note

    def _diagonal(self, layer: Layer, dense: Tensor) -> Tensor:
        channels = range(len(dense))
        kernels = dense[channels, channels][:, None].clone()
        dense[channels, channels] = 0
        if dense.any():
            raise self._refusal(
                f"mixes channels in layer {layer.name!r} (weights up to {dense.abs().max():g} off the diagonal); "
                f"{self.name} has one fixed kernel per channel here",
                "Give --set learn_upsampling=true.",
            )
        return kernels

    def _complete(self) -> None:
        """Fill what no file has, and refuse a file that lacks what others have."""
        if not self.trunk:
            self._absorbed()
        for key, like in self.wanted.items():
            if key.endswith(".num_batches_tracked"):
                self.done.tensors[key] = torch.zeros(like.shape, dtype=like.dtype)
        missing = [key for key in self.wanted if key not in self.done.tensors]
        if self.trunk:
            self.done.own = tuple(missing)
            self.done.tensors |= {key: self.wanted[key] for key in missing}
            missing = [key for key in missing if key.rpartition(".")[0] in self.published.trunk]
        if missing:
            raise self._missing(missing)

    def _absorbed(self) -> None:
        """Let normalisations be the identity if the file has none at all; every constant must be there."""
        if not any(layer.type in ("BN", "BatchNorm") for layer in self.net.layers.values()):
            for module in [name for name, each in self.modules.items() if hasattr(each, "running_var")]:
                self._identity(module)
                self.done.identities.append(module)
        for layer, value in self.published.constants.items():
            if layer not in self.net.layers:
                raise self._refusal(f"lacks layer {layer!r}, the constant {value:g}")

    def _missing(self, missing: Sequence[str]) -> RequestError:
        first = missing[0]
        shown = ", ".join(list(self.net.layers)[:4] + ["..."] * (len(self.net.layers) > 4))
        return self._refusal(
            f"lacks {len(missing)} tensors of {self.name}, first {first!r} ({shape_text(self.wanted[first].shape)}); "
            f"it has {len(self.net.layers)} layers with weights: {shown}",
            "Give the network's own .caffemodel, whole"
            + ("." if self.trunk else ", or --trunk to start from a trunk."),
        )

    def _filled(self, key: str) -> Tensor:
        if key not in self.done.tensors:
            raise self._missing([key])
        return self.done.tensors[key]

    def _refusal(self, found: str, advice: str = "") -> RequestError:
        advice = advice or f"Accepted: {self.published.source}. Give the file of this network, or its name."
        return RequestError(f"{self.net.path} {found}. {advice}")


def _shapes(layer: Layer) -> str:
    return ", ".join(shape_text(blob.shape) for blob in layer.blobs)


def _view(layer: Layer, found: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape in which a blob can be read for a tensor of a wanted shape; None if it is another tensor."""
    if len(wanted) == 1:  # stored as (C), (1, 1, 1, C) or (1, C, 1, 1)
        return wanted if max(found, default=1) == math.prod(found) == wanted[0] else None
    short = _without_leading_ones(found)
    if short == _without_leading_ones(wanted):
        return wanted
    if layer.type == "InnerProduct" and len(short) <= 2 and math.prod(found) == math.prod(wanted):
        return wanted if found[-2:] == (wanted[0], math.prod(wanted[1:])) else None
    dense = (wanted[0], wanted[0], *wanted[2:])
    return dense if layer.type == "Deconvolution" and len(wanted) == 4 and wanted[1] == 1 and found == dense else None


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    first = next((index for index, side in enumerate(shape) if side != 1), len(shape))
    return shape[first:]
