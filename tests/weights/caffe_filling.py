"""Fills layers of Caffe's definitions by the formula, and lists them so that they can be made again."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from caffe_writer import LayerToWrite
from formula import numbers, weight
from numpy.typing import NDArray

CONVOLUTIONS = ("Convolution", "Deconvolution")
NORMALISATIONS = ("BatchNorm", "Scale", "BN")


def is_copy(name: str, copies: Sequence[str]) -> bool:
    """Say whether a layer's name has one of the marks of copies."""
    return any(mark in name for mark in copies)


def marked(name: str, mark: str) -> str:
    """Return a copy's name: the mark stands at the end, or before the number of DeepLab's branch.

    >>> marked("bn_conv1", "_res05"), marked("fc1_voc12_c0", "_res05")
    ('bn_conv1_res05', 'fc1_voc12_res05_c0')
    """
    return re.sub(r"(_c\d)?$", rf"{mark}\g<0>", name, count=1)


def make_layer(
    name: str, kind: str, shape: tuple[int, ...], extra: float | None, copies: Sequence[str] = ()
) -> LayerToWrite:
    """Fill a layer by the formula; a dense deconvolution only on its diagonal, as those of the originals.

    `extra` is the size of a convolution's bias, or the constant of a layer "Scale". A copy has the original's numbers.
    """
    key = name
    for mark in copies:
        key = key.replace(mark, "")
    if kind == "BatchNorm":
        blobs = statistics(key, shape[0])
    elif kind == "BN":  # PSPNet's: all of it in one layer
        mean, variance, factor = statistics(key, shape[0])
        blobs = [*affine(key, shape[0]), mean / factor, variance / factor]
    elif kind == "Scale":
        blobs = affine(key, shape[0]) if extra is None else [np.full(shape, extra, np.float32)]
    else:
        blob = diagonal(key, shape) if kind == "Deconvolution" else weight(key, shape)
        assert extra is not None
        blobs = [blob, *([numbers(f"{key} bias", (int(extra),)) * np.float32(0.1)] if extra else [])]
    return LayerToWrite(name=name, type=kind, blobs=blobs)


def diagonal(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    kernels = numbers(key, (shape[0], *shape[2:])) * 0.5 + 0.5
    blob: NDArray[np.float32] = np.zeros(shape, np.float32)
    channel = range(shape[0])
    blob[channel, channel if shape[1] > 1 else 0] = kernels / np.float32(math.sqrt(shape[-1]))
    return blob


def statistics(key: str, channels: int) -> list[NDArray[np.float32]]:
    """Return mean and variance as sums, and the factor by which Caffe divides them; maps are of the image's size."""
    factor = np.float32(0.5)
    mean = numbers(f"{key} mean", (channels,)) * np.float32(20)
    variance = numbers(f"{key} variance", (channels,)) * np.float32(0.5) + np.float32(1)
    return [mean * factor, variance * factor, np.full(1, factor, np.float32)]


def affine(key: str, channels: int) -> list[NDArray[np.float32]]:
    """Return scale and shift; the scale keeps a sum of many residual units from growing."""
    scale = numbers(f"{key} scale", (channels,)) * np.float32(0.25) + np.float32(0.5)
    return [scale, numbers(f"{key} shift", (channels,)) * np.float32(10)]


def listed(layer: LayerToWrite) -> list[Any]:
    """Say what is needed to make a layer again: name, type, shape, and what `make_layer` calls extra."""
    row = [layer.name, layer.type, list(layer.blobs[0].shape)]
    if layer.type in CONVOLUTIONS:
        return [*row, layer.blobs[1].size if len(layer.blobs) > 1 else 0]
    return [*row, None if len(layer.blobs) > 1 else round(float(layer.blobs[0][0]), 6)]


def rebuild(layers: list[list[Any]], copies: Sequence[str] = ()) -> list[LayerToWrite]:
    """Make the layers again that a golden file lists, and the copies of each."""
    return [
        make_layer(marked(name, mark), kind, tuple(shape), extra, copies)
        for mark in ("", *copies)
        for name, kind, shape, extra in layers
    ]


def in_two(layer: LayerToWrite) -> list[LayerToWrite]:
    """Return a layer "BN" as the two layers that Caffe itself has for it, others as they are."""
    if layer.type != "BN":
        return [layer]
    scale, shift, mean, variance = layer.blobs
    return [
        LayerToWrite(name=layer.name, type="BatchNorm", blobs=[mean, variance, np.ones(1, np.float32)]),
        LayerToWrite(name=f"{layer.name}/scale", type="Scale", blobs=[scale, shift]),
    ]
