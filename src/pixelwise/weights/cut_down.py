"""Smaller layers out of VGG-16's: how DeepLab's fc6 and fc7 start from an ImageNet classifier.

Of the seven taps of fc6's window, in either direction, 4x4 networks keep 0, 2, 4, 6 and 3x3 networks 0, 3, 6: evenly
spaced and with both ends, so that 4x4 at rate 8 and 3x3 at rate 12 look at cells at which 7x7 at rate 4 looks. Of the
4096 filters of either layer a random subset stays, drawn from a seed; the inputs of fc7 are the filters of fc6 that
stayed. The four branches of DeepLab v2's ASPP get a subset each, one drawn after the other; that is ours, since the
paper does not say how they differ.

Source: section 3.2 of DeepLab v1: decimation of the window, and 1024 filters by a random subset. Which taps and which
filters the authors kept is not published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from pixelwise.backbones.state_file import StateFile
from pixelwise.errors import RequestError
from pixelwise.weights.caffemodel import CaffeNet
from pixelwise.weights.convert import Conversion, Use
from pixelwise.weights.convert_state import StateConversion, Taken
from pixelwise.weights.state_format import StateFormat

LAYERS = ("fc6", "fc7")
KINDS = ("weight", "bias")


@dataclass(kw_only=True)
class Cut:
    """What was cut out of a classifier.

    Attributes:
        tensors: of the model, by name.
        notes: what was kept, a sentence for each layer of the model.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def cut_classifier(
    classifier: Mapping[str, Tensor], wanted: Mapping[str, Tensor], branches: Sequence[str], *, seed: int
) -> Cut:
    """Fill the smaller fc6 and fc7 of a DeepLab network.

    Args:
        classifier: weight and bias of fc6 and fc7, weights as rows or as convolutions.
        wanted: the model's state dict, for its shapes.
        branches: endings of the model's layer names: "" for one fc6, "_1" to "_4" for ASPP.
        seed: of the subsets.

    Returns:
        A cut; an empty one where the classifier has not both layers, or they fit the model as they are or not at all.
    """
    cut = Cut()
    if any(f"{layer}.{kind}" not in classifier for layer in LAYERS for kind in KINDS):
        return cut
    generator = torch.Generator().manual_seed(seed)
    for branch in branches:
        filters, channels, kernel, _ = wanted[f"fc6{branch}.weight"].shape
        state = _as_convolutions(classifier, channels)
        if state is None:
            return cut
        every, _, side, _ = state["fc6.weight"].shape
        if (kernel, filters) == (side, every):
            continue
        smaller = cut_down(state, kernel=kernel, channels=filters, generator=generator)
        changed = LAYERS if filters < every else LAYERS[:1]
        cut.tensors |= {f"{layer}{branch}.{kind}": smaller[f"{layer}.{kind}"] for layer in changed for kind in KINDS}
        drawn = f"{filters} of {every} filters, drawn with seed {seed}" if filters < every else f"all {every} filters"
        taps = ", ".join(map(str, kept_taps(side, kernel).tolist()))
        cut.notes.append(f"fc6{branch}: taps {taps} of the {side} of fc6's window in either direction; {drawn}")
        if filters < every:
            cut.notes.append(f"fc7{branch}: {drawn}, on the filters that fc6{branch} keeps")
    return cut


def cut_caffe(
    net: CaffeNet, done: Conversion, branches: Sequence[str], wanted: Mapping[str, Tensor], *, seed: int
) -> Cut:
    """Fill what a conversion of a `.caffemodel` left to the model's own initialisation, and note it there."""
    layers = [net.layers[name] for name in LAYERS if name in net.layers and len(net.layers[name].blobs) == len(KINDS)]
    classifier = {
        f"{layer.name}.{kind}": torch.tensor(blob.numbers())
        for layer in (layers if branches else ())
        for kind, blob in zip(KINDS, layer.blobs, strict=True)
    }
    cut = cut_classifier(classifier, wanted, branches, seed=seed)
    for layer in layers:
        modules = [f"{layer.name}{branch}" for branch in branches if f"{layer.name}{branch}.weight" in cut.tensors]
        if modules:
            del done.left_out[layer.name]
            done.used.append(
                Use(
                    layer=layer.name,
                    type=layer.type,
                    module=", ".join(modules),
                    shape=layer.blobs[0].shape,
                    note="cut down",
                )
            )
    _enter(cut, done)
    return cut


def cut_state(
    file: StateFile,
    form: StateFormat,
    done: StateConversion,
    branches: Sequence[str],
    wanted: Mapping[str, Tensor],
    *,
    seed: int,
) -> Cut:
    """Fill what a conversion of a state dict left to the model's own initialisation, and note it there."""
    keys = [f"{layer}.{kind}" for layer in LAYERS for kind in KINDS]
    theirs = {form.name(name): name for name in file.tensors if form.name(name) in keys} if branches else {}
    cut = cut_classifier({key: file.tensors[name] for key, name in theirs.items()}, wanted, branches, seed=seed)
    for key, name in theirs.items():
        layer, _, kind = key.partition(".")
        for ours in (f"{layer}{branch}.{kind}" for branch in branches):
            if ours in cut.tensors:
                done.left_out.pop(name, None)
                done.taken.append(Taken(theirs=name, ours=ours, shape=tuple(file.tensors[name].shape)))
    _enter(cut, done)
    return cut


def _enter(cut: Cut, done: Conversion | StateConversion) -> None:
    done.tensors.update(cut.tensors)
    done.own = tuple(key for key in done.own if key not in cut.tensors)


def _as_convolutions(classifier: Mapping[str, Tensor], channels: int) -> dict[str, Tensor] | None:
    """Return fc6 as (O, C, k, k) and fc7 as (P, O, 1, 1); None if they see another number of channels."""
    state = {key: value.flatten() for key, value in classifier.items()}
    filters, outputs = len(state["fc6.bias"]), len(state["fc7.bias"])
    side = math.isqrt(state["fc6.weight"].numel() // (filters * channels))
    if state["fc6.weight"].numel() != filters * channels * side**2:
        return None
    state["fc6.weight"] = state["fc6.weight"].reshape(filters, channels, side, side)
    state["fc7.weight"] = state["fc7.weight"].reshape(outputs, filters, 1, 1)
    return state


def kept_taps(taps: int, kernel: int) -> Tensor:
    """Return which taps of a window stay, evenly spaced from the first to the last.

    >>> [kept_taps(7, kernel).tolist() for kernel in (4, 3)]
    [[0, 2, 4, 6], [0, 3, 6]]
    """
    return torch.linspace(0, taps - 1, kernel).round().long()


def cut_down(
    state: Mapping[str, Tensor], *, kernel: int, channels: int, generator: Generator | None = None
) -> dict[str, Tensor]:
    """Make fc6 and fc7 of VGG-16 smaller, to start a DeepLab network from them.

    Args:
        state: VGG-16 as `backbones.vgg.by_layer_name` names it, fc6 (4096, 512, 7, 7) and fc7 (4096, 4096, 1, 1).
        kernel: side k of the new fc6; of 7 taps every second stays for 4, every third for 3.
        channels: filters that stay in either layer, a random subset.
        generator: for the subset.

    Returns:
        `state` with new fc6 and fc7; the inputs of fc7 are the filters of fc6 that stayed.

    Raises:
        RequestError: if the layers have not so many taps or filters.
    """
    weight = state["fc6.weight"]
    filters, _, taps, _ = weight.shape
    if not 2 <= kernel <= taps or not 1 <= channels <= filters:
        raise RequestError(
            f"kernel={kernel}, channels={channels} of a fc6 with {taps} x {taps} taps and {filters} filters; "
            f"accepted: kernel from 2 to {taps}, channels from 1 to {filters}. Give less."
        )
    kept = kept_taps(taps, kernel)
    first, second = (torch.randperm(filters, generator=generator)[:channels].sort().values for _ in range(2))
    return {
        **state,
        "fc6.weight": weight[first][:, :, kept][:, :, :, kept],
        "fc6.bias": state["fc6.bias"][first],
        "fc7.weight": state["fc7.weight"][second][:, first],
        "fc7.bias": state["fc7.bias"][second],
    }
