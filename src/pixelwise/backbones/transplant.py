"""Copying weights from one network to another, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelwise.backbones.state_file import read_state_file
from pixelwise.errors import RequestError
from pixelwise.layers.bilinear import BilinearUpsampling


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

    A fully connected weight (out, C * k * k) fills a convolution (out, C, k, k) in the order of its numbers. Kernels of
    an upsampling of each channel (C, 1, k, k) fill one of all channels (C, C, k, k), with zeros off the diagonal.

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
        if _fitted(source[name], wanted[name], _is_upsampling(target, name)) is None:
            raise RequestError(
                f"{name} is {tuple(given)}, the network wants {tuple(place)}. Build it with the widths, classes and "
                "options that the weights were made with, or leave this layer out of the source."
            )
    with torch.no_grad():
        for name in copied:
            fitted = _fitted(source[name], wanted[name], _is_upsampling(target, name))
            assert fitted is not None
            wanted[name].copy_(fitted)
    return Transplant(
        copied=tuple(copied),
        new=tuple(sorted(wanted.keys() - source.keys())),
        unused=tuple(sorted(source.keys() - wanted.keys())),
    )


def _is_upsampling(target: nn.Module, name: str) -> bool:
    return isinstance(target.get_submodule(name.rpartition(".")[0]), BilinearUpsampling)


def _fitted(tensor: Tensor, place: Tensor, upsampling: bool) -> Tensor | None:
    """Return a tensor in the shape of its place, where it is the same layer; else None."""
    if tensor.shape == place.shape:
        return tensor
    if tensor.ndim == 2 and place.ndim == 4 and tensor.shape == (place.shape[0], place.shape[1:].numel()):
        return tensor.reshape(place.shape)
    channels = place.shape[0]
    if upsampling and tensor.shape == (channels, 1, *place.shape[2:]) and place.shape[1] == channels:
        return torch.eye(channels, dtype=tensor.dtype)[:, :, None, None] * tensor
    return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors` or `.pth` file by name; `read_state_file` says which are accepted."""
    return read_state_file(path).tensors


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
