"""Copying weights from one network to another, layer by layer, and reading the files they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelwise.errors import RequestError


class Transplant(NamedTuple):
    """What a transplant did, as names of the state dicts, sorted.

    Attributes:
        copied: in both networks.
        new: in the target alone; they keep the values that they had.
        unused: in the source alone.
    """

    copied: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]


def transplant(source: Mapping[str, Tensor], target: nn.Module) -> Transplant:
    """Copy every tensor whose name the target also has: FCN-32s into FCN-16s, a classifier into a trunk.

    A fully connected weight (out, C * k * k) fills a convolution (out, C, k, k) in the order of its numbers.

    Raises:
        RequestError: if a name has another shape, or no name fits; the target is then unchanged.
    """
    wanted = target.state_dict()
    copied = sorted(source.keys() & wanted.keys())
    if not copied:
        raise RequestError(
            f"none of the {len(source)} names given ({_some(source)}) is one of the network's ({_some(wanted)}). "
            "Give weights of a network with the same layer names, or map them first."
        )
    for name in copied:
        given, place = source[name].shape, wanted[name].shape
        flattened = len(given) == 2 and len(place) == 4 and given == (place[0], place[1:].numel())
        if given != place and not flattened:
            raise RequestError(
                f"{name} is {tuple(given)}, the network wants {tuple(place)}. Build it with the widths, classes and "
                "options that the weights were made with, or leave this layer out of the source."
            )
    with torch.no_grad():
        for name in copied:
            wanted[name].copy_(source[name].reshape(wanted[name].shape))
    return Transplant(
        copied=tuple(copied),
        new=tuple(sorted(wanted.keys() - source.keys())),
        unused=tuple(sorted(source.keys() - wanted.keys())),
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` file or a `.pth` file as torchvision publishes it.

    A `.pth` file is read with `weights_only=True`, which executes nothing.

    Raises:
        RequestError: if there is no such file, or it holds something else.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise RequestError(f"weights {path} is not a file; give the path of a .safetensors or .pth file.")
    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # bytes that are no weights make the readers fail in many ways
        reason = str(error).partition("\n")[0]
        raise RequestError(
            f"weights {path} cannot be read ({reason}); accepted: a whole .safetensors or .pth file of tensors by "
            "name. Copy or download it again."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise RequestError(
            f"weights {path} holds a {type(found).__name__} that is not a state dict; accepted: tensors by name. "
            "Save `model.state_dict()`."
        )
    return dict(found)


def load_imagenet(model: nn.Module, path: Path, *, skip: Sequence[str] = ()) -> None:
    """Load a classifier's weights from a file with the same names; the network is never asked for them.

    Args:
        model: a classifier of this package.
        path: a file for `read_weights`.
        skip: beginnings of names that may be in the file alone, such as "aux1." of a GoogLeNet built without.

    Raises:
        RequestError: if a name is missing on either side, or a shape differs.
    """
    tensors = {name: tensor for name, tensor in read_weights(path).items() if not name.startswith(tuple(skip))}
    missing = sorted(model.state_dict().keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - model.state_dict().keys())
    if missing or unexpected:
        raise RequestError(
            f"weights {path} do not fit this classifier: {len(missing)} names missing ({_some(missing)}), "
            f"{len(unexpected)} unexpected ({_some(unexpected)}). Build the classifier that the file was made with."
        )
    transplant(tensors, model)


def _some(names: Mapping[str, Tensor] | Sequence[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (", ..." if len(names) > 3 else "") if shown else "none"
