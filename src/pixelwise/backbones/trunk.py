"""From a trained classifier into the segmentation network that has it as its trunk.

The two name the same layers differently: torchvision's `features.0` is `conv1_1` in the networks of the Caffe age, a
ResNet's `layer1` is `backbone.layer1` in one system and `layer1` in another, DRN's `layer1` is `base.3`, PSPNet's stem
is `layer0`. Which naming is meant follows from names and shapes: all layers of the trunk must be there, and no further
blocks among them, or the networks are not kin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelwise.backbones.vgg import layer_names
from pixelwise.errors import RequestError

Shapes = Mapping[str, torch.Size]
LEAST_SHARE = 0.9  # of the classifier's tensors, its fully connected layers aside, that a trunk holds


class Taken(NamedTuple):
    """What was taken of a classifier, as names of the state dicts, sorted.

    Attributes:
        taken: of the network, filled with the classifier's numbers.
        new: of the network, as they were.
        left: of the classifier, used nowhere.
    """

    taken: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A trained classifier.

    Attributes:
        name: of the model.
        weights: by name.
        head: names of the layers that depend on its classes, which are not part of a trunk.
        network: the network itself, with or without numbers, for what names and shapes do not say.
    """

    name: str
    weights: Mapping[str, Tensor]
    head: Set[str]
    network: nn.Module


def class_layers(few: nn.Module, more: nn.Module) -> frozenset[str]:
    """Return the names whose shapes differ between two networks that differ in the number of classes."""
    shapes = {name: tensor.shape for name, tensor in few.state_dict().items()}
    return frozenset(name for name, tensor in more.state_dict().items() if tensor.shape != shapes.get(name))


def take_trunk(source: Source, target: nn.Module, *, name: str) -> Taken:
    """Fill every copy of the classifier's trunk that a network holds.

    All layers but the fully connected ones must be there with the same shapes; fully connected ones are taken where the
    network has them as convolutions of the same shape (fc6 and fc7 of FCN).

    Args:
        source: the classifier.
        target: the network, which is changed.
        name: of the network, for errors.

    Raises:
        RequestError: if the classifier is not the network's trunk; the network is then unchanged.
    """
    wanted = target.state_dict()
    places = {key: tensor.shape for key, tensor in wanted.items()}
    fits: list[dict[str, str]] = []
    reasons: list[tuple[int, str]] = []
    weights: Mapping[str, Tensor] = source.weights
    for renamed in _namings(source):
        trunk = {key: renamed[key] for key in renamed if key not in source.head}
        needed = [key for key in trunk if _is_needed(key, source.weights)]
        for prefix in _prefixes(trunk, needed, places):
            reason = _misfit(needed, trunk, prefix, weights, places) or _deeper(trunk, prefix, places)
            if reason is None:
                found = {key: prefix + new for key, new in trunk.items()}
                fits.append({key: place for key, place in found.items() if _fits(key, place, weights, places)})
            else:
                reasons.append(reason)
        if fits:
            break
    if not fits:
        raise _no_kin(source.name, name, max(reasons, default=(0, "no layer has a name in common"))[1])
    for mapping in fits:
        _check_form(source, target, mapping, name)
    with torch.no_grad():
        for mapping in fits:
            for key, place in mapping.items():
                wanted[place].copy_(weights[key].reshape(wanted[place].shape))
    taken = {place for mapping in fits for place in mapping.values()}
    used = {key for mapping in fits for key in mapping}
    return Taken(
        taken=tuple(sorted(taken)),
        new=tuple(sorted(wanted.keys() - taken)),
        left=tuple(sorted(weights.keys() - used)),
    )


def _namings(source: Source) -> Iterator[dict[str, str]]:
    """Yield the ways in which a trunk's layers may be called: from the classifier's names to others."""
    yield {key: key for key in source.weights}
    if (names := _vgg_names(source.weights)) is not None:
        yield names
    if any(key.startswith("conv3.") for key in source.weights):  # a deep stem, as PSPNet's release calls it
        yield {key: _of_stem(key) for key in source.weights}
    numbers = {child: str(number) for number, (child, _) in enumerate(source.network.named_children())}
    yield {key: f"{numbers[key.partition('.')[0]]}.{key.partition('.')[2]}" for key in source.weights}


def _of_stem(key: str) -> str:
    layer, _, rest = key.partition(".")
    stem = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
    return f"layer0.{stem[layer]}.{rest}" if layer in stem else key


def _vgg_names(weights: Mapping[str, Tensor]) -> dict[str, str] | None:
    """Return conv1_1 ... fc7 for VGG-16's names, None for another network."""
    names = layer_names()
    layers = {key: key.rpartition(".")[0] for key in weights}
    if not names.keys() <= set(layers.values()):
        return None
    return {key: f"{names[layer]}.{key.rpartition('.')[2]}" for key, layer in layers.items() if layer in names}


def _is_needed(key: str, weights: Mapping[str, Tensor]) -> bool:
    """Say whether a network without this one is no kin: not fully connected layers, and no counters of batches."""
    layer = weights.get(f"{key.rpartition('.')[0]}.weight")
    return not key.endswith("num_batches_tracked") and not (layer is not None and layer.ndim == 2)


def _prefixes(trunk: Mapping[str, str], needed: Sequence[str], places: Shapes) -> list[str]:
    """Return the paths in the network below which the trunk's first layer is found."""
    if not needed:
        return []
    first = trunk[needed[0]]
    return [place[: -len(first)] for place in places if place == first or place.endswith(f".{first}")]


def _fits(key: str, place: str, weights: Mapping[str, Tensor], places: Shapes) -> bool:
    """Say whether a tensor has its place, a fully connected one as a convolution of as many numbers in order."""
    if place not in places:
        return False
    given, wanted = weights[key].shape, places[place]
    return given == wanted or (len(given) == 2 and len(wanted) == 4 and given == (wanted[0], math.prod(wanted[1:])))


def _misfit(
    needed: Sequence[str], trunk: Mapping[str, str], prefix: str, weights: Mapping[str, Tensor], places: Shapes
) -> tuple[int, str] | None:
    """Return how many layers fit and why the first other one does not; None if all do.

    The last few may be missing, where a network ends before the classifier's own head.
    """
    wrong = [key for key in needed if not _fits(key, prefix + trunk[key], weights, places)]
    num_fit = len(needed) - len(wrong)
    at_end = not wrong or list(needed).index(wrong[0]) == num_fit
    if at_end and num_fit >= LEAST_SHARE * len(needed) and not any(prefix + trunk[key] in places for key in wrong):
        return None
    place = prefix + trunk[wrong[0]]
    found = f"is {tuple(places[place])} there" if place in places else "is not there"
    given = tuple(weights[wrong[0]].shape)
    return num_fit, f"{num_fit} of {len(needed)} tensors fit; {place}, {given} in the classifier, {found}"


def _deeper(trunk: Mapping[str, str], prefix: str, places: Shapes) -> tuple[int, str] | None:
    """Return why a network is another one: its stages have blocks that the classifier lacks."""
    stages = tuple({f"{prefix}{new.partition('.')[0]}." for new in trunk.values()})
    known = {prefix + new for new in trunk.values()}
    more = [place for place in places if place.startswith(stages) and place not in known]
    return (len(trunk) - 1, f"{more[0]} is not in the classifier, which has fewer layers") if more else None


def _check_form(source: Source, target: nn.Module, mapping: Mapping[str, str], name: str) -> None:
    """Refuse networks that make another function of the same weights.

    A block's stride may not lie on another of its layers, and its switches (bool attributes, such as whether a shortcut
    is added) must agree. Strides that were given up for dilation, or taken back, are the same function on another grid.
    """
    layers = {key.rpartition(".")[0]: place.rpartition(".")[0] for key, place in mapping.items()}
    blocks = {layer.rpartition(".")[0]: other.rpartition(".")[0] for layer, other in layers.items()}
    for block, other in blocks.items():
        inside = [layer for layer in layers if layer.rpartition(".")[0] == block]
        pairs = [(layer, _stride(source.network, layer), _stride(target, layers[layer])) for layer in inside]
        if any(ours > theirs for _, ours, theirs in pairs) and any(ours < theirs for _, ours, theirs in pairs):
            moved = ", ".join(f"{layer}: {ours} and {theirs}" for layer, ours, theirs in pairs if ours != theirs)
            raise _no_kin(
                source.name,
                name,
                f"the stride of a block lies on another layer in the classifier than in {name}, {moved}; for a ResNet "
                "train it with the network's --set options.stride_on",
            )
        ours, theirs = (_switches(net.get_submodule(path)) for net, path in ((source.network, block), (target, other)))
        if block and ours.keys() == theirs.keys() and ours != theirs:
            differing = next(key for key in ours if ours[key] != theirs[key])
            reason = f"{block} has {differing}={ours[differing]} and {other} {differing}={theirs[differing]}"
            raise _no_kin(source.name, name, reason)


def _stride(network: nn.Module, layer: str) -> int:
    module = network.get_submodule(layer)
    return max(module.stride) if isinstance(module, nn.Conv2d) else 1


def _switches(block: nn.Module) -> dict[str, bool]:
    return {key: value for key, value in vars(block).items() if isinstance(value, bool) and key != "training"}


def _no_kin(source: str, target: str, reason: str) -> RequestError:
    return RequestError(
        f"weights of the classifier {source} do not fit {target} ({reason}); accepted: the classifier that the network "
        "has as its trunk, of the same widths and image channels: vgg16, caffenet, googlenet, a ResNet of the same "
        "depth and stem (options.stem), the DRN of the same name. Train that one, or leave --weights out."
    )
