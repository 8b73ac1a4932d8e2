"""Writes `.caffemodel` and `.binaryproto` files, in every form that Caffe has written them, for tests."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Form = Literal["2015", "2014", "2013"]
Numbers = Literal["packed", "unpacked", "double", "chunks"]
TYPE_NUMBERS = {"Convolution": 4, "InnerProduct": 14, "Deconvolution": 39, "BN": 43, "ReLU": 18, "Pooling": 17}
TYPE_WORDS = {"Convolution": "conv", "InnerProduct": "innerproduct", "ReLU": "relu"}


@dataclass(frozen=True, kw_only=True)
class LayerToWrite:
    name: str
    type: str
    blobs: Sequence[NDArray[Any]] = ()
    tops: Sequence[str] = ()
    bn_mode: int | None = None


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def tag(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


def message(number: int, content: bytes) -> bytes:
    return tag(number, 2) + varint(len(content)) + content


def text(number: int, content: str) -> bytes:
    return message(number, content.encode())


def number(field: int, value: int) -> bytes:
    return tag(field, 0) + varint(value)


def blob(values: NDArray[Any], *, old_shape: bool = False, numbers: Numbers = "packed", diff: bool = False) -> bytes:
    """Encode a BlobProto; an old shape has four dimensions, ones in front."""
    if old_shape:
        sides = (1,) * (4 - values.ndim) + values.shape
        out = b"".join(number(index + 1, side) for index, side in enumerate(sides))
    else:
        out = message(7, message(1, b"".join(map(varint, values.shape))))
    flat = values.ravel()
    if numbers == "packed":
        out += message(5, flat.astype("<f4").tobytes())
    elif numbers == "unpacked":
        out += b"".join(tag(5, 5) + struct.pack("<f", value) for value in flat)
    elif numbers == "double":
        out += message(8, flat.astype("<f8").tobytes())
    else:
        out += b"".join(message(5, part.astype("<f4").tobytes()) for part in np.array_split(flat, 3))
    return out + (message(6, np.ones(flat.size, "<f4").tobytes()) if diff else b"")


def layer(given: LayerToWrite, form: Form = "2015", **how: Any) -> bytes:
    """Encode a layer as a field of the network."""
    old = form != "2015"
    blobs = [blob(values, old_shape=old, **how) for values in given.blobs]
    extra = b"" if given.bn_mode is None else message(45, number(3, given.bn_mode))
    if form == "2013":
        inner = text(1, given.name) + text(2, TYPE_WORDS.get(given.type, given.type.lower()))
        inner += number(3, 7) + b"".join(message(50, content) for content in blobs) + tag(12, 5) + struct.pack("<f", 1)
        return message(2, message(1, inner) + text(2, "in") + text(3, given.name))
    if form == "2014":
        out = text(2, "in") + b"".join(text(3, top) for top in given.tops or (given.name,)) + text(4, given.name)
        out += number(5, TYPE_NUMBERS[given.type]) + b"".join(message(6, content) for content in blobs)
        return message(2, out + extra + tag(7, 5) + struct.pack("<f", 2))
    out = text(1, given.name) + text(2, given.type) + text(3, "in")
    out += b"".join(text(4, top) for top in given.tops or (given.name,))
    out += b"".join(message(7, content) for content in blobs) + extra
    return message(100, out + message(106, number(1, 64)))


def caffemodel(layers: Sequence[LayerToWrite], *, form: Form = "2015", name: str = "net", **how: Any) -> bytes:
    """Encode a whole network."""
    return text(1, name) + number(5, 0) + b"".join(layer(given, form, **how) for given in layers)


def convolutions(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> list[LayerToWrite]:
    """Make convolutions with random weights and biases, scaled so that values neither vanish nor grow."""
    draw = np.random.default_rng(seed)
    layers = []
    for name, shape in shapes.items():
        weight = draw.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        bias = draw.normal(0, 0.1, shape[0]).astype(np.float32)
        layers.append(LayerToWrite(name=name, type="Convolution", blobs=(weight, bias)))
    return layers
