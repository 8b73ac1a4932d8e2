"""Reading Caffe's binary files: networks with weights (`.caffemodel`) and mean images (`.binaryproto`).

Both are protocol buffers; this file reads as much of that wire format as they use, without Caffe and without the
protobuf package. A file is mapped into memory and only its structure is parsed: the numbers of a blob are read when
they are asked for, so that half a gigabyte of weights costs its own size once.

Three generations of the format are read: `layer` (since 2015), `layers` (2014, numbered layer types) and the layers
inside `layers` (2013).

Source: field numbers from caffe.proto of BVLC/caffe (9b89154), and of the layer "BN" from alexgkendall/caffe-segnet
and HyeonwooNoh/caffe.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import RequestError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 (groups) do not occur in Caffe's files
# Numbered types of the 2014 form that own weights; 43 is "BN" in the form's fork that DeconvNet was trained with.
NUMBERED_TYPES = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution", 43: "BN"}
WORDED_TYPES = {"conv": "Convolution", "innerproduct": "InnerProduct"}  # of the 2013 form


class Run(NamedTuple):
    """Numbers that lie one after another in the file: `length` of `dtype`, the first at `offset`, `stride` apart."""

    offset: int
    length: int
    stride: int
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A tensor of the file, read when it is asked for.

    Attributes:
        shape: as the file states it; blobs from before 2015 have four dimensions, a bias being (1, 1, 1, C).
        runs: where its numbers lie.
        content: the file.
    """

    shape: tuple[int, ...]
    runs: tuple[Run, ...]
    content: mmap.mmap

    def numbers(self) -> NDArray[np.float32]:
        """Return the values, float32 in the blob's shape; read-only, and without a copy where they lie in one run."""
        views = [
            np.ndarray(run.length, run.dtype, self.content, run.offset, (run.stride,)).astype(np.float32, copy=False)
            for run in self.runs
        ]
        flat = views[0] if len(views) == 1 else np.concatenate([np.empty(0, np.float32), *views])
        return flat.reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer with its blobs.

    Attributes:
        name: as in the network's definition.
        type: in the words of the 2015 form, such as "Convolution"; "type 18" for a numbered one without weights.
        blobs: weights first.
        tops: names of the outputs.
        inference: a layer "BN" whose blobs are marked as folded scale and shift.
    """

    name: str
    type: str
    blobs: tuple[Blob, ...] = ()
    tops: tuple[str, ...] = ()
    inference: bool = False


@dataclass(frozen=True, kw_only=True)
class CaffeNet:
    """A network of a `.caffemodel`.

    Attributes:
        path: the file.
        name: the network's own name, often empty.
        layers: those with blobs, by name, in the file's order.
    """

    path: Path
    name: str
    layers: dict[str, Layer]


class Field(NamedTuple):
    """A field of a message: number, wire type, its bytes from `start` to `end`, a varint's value; whole or cut off."""

    number: int
    wire: int
    start: int
    end: int
    value: int
    whole: bool


class DamageError(Exception):
    """What is wrong with the file, and at which byte; becomes a `RequestError` that names file and layer."""

    def __init__(self, position: int, reason: str, place: str = "") -> None:
        super().__init__(reason)
        self.position, self.reason, self.place = position, reason, place


def read_caffemodel(path: Path) -> CaffeNet:
    """Read the structure of a `.caffemodel`; its numbers are read when they are asked for.

    Raises:
        RequestError: if the file is missing, is not a Caffe network, ends early or is damaged; the message names the
            layer and the byte.
    """
    content = _map(path, ".caffemodel")
    name, layers, count = "", {}, 0
    try:
        for field in fields(content, 0, len(content)):
            if field.number == 1 and field.wire == BYTES:
                name = _text(content, field)
            if field.number in (2, 100) and field.wire == BYTES:
                count += 1
                layer = _layer(content, field, f"layer number {count}")
                if layer.name in layers and layer.blobs:
                    raise DamageError(field.start, f"a second layer {layer.name!r} with weights")
                if layer.blobs:
                    layers[layer.name] = layer
        if not layers:
            raise DamageError(len(content), "no layer with weights up to the end")
    except DamageError as damage:
        raise _refusal(path, damage, content) from damage
    return CaffeNet(path=path, name=name, layers=layers)


def read_mean(path: Path) -> NDArray[np.float64]:
    """Read a mean image (`.binaryproto`) and return the mean of each channel, float64 (C,), in the file's order: BGR.

    Raises:
        RequestError: as for `read_caffemodel`; also if the image is not (1, C, H, W).
    """
    content = _map(path, ".binaryproto")
    try:
        blob = _blob(content, 0, len(content))
    except DamageError as damage:
        raise _refusal(path, damage, content) from damage
    if len(blob.shape) not in (3, 4) or (len(blob.shape) == 4 and blob.shape[0] != 1) or 0 in blob.shape:
        raise RequestError(
            f"{path} holds a blob of shape {shape_text(blob.shape)}; accepted: one mean image, 1 x C x H x W. "
            "Give the mean that the network was trained with."
        )
    means: NDArray[np.float64] = blob.numbers().reshape(-1, *blob.shape[-2:]).mean(axis=(1, 2), dtype=np.float64)
    return means


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape for people.

    >>> shape_text((64, 3, 3, 3)), shape_text(())
    ('64 x 3 x 3 x 3', 'one number')
    """
    return " x ".join(map(str, shape)) or "one number"


def _map(path: Path, ending: str) -> mmap.mmap:
    if not path.is_file():
        raise RequestError(f"{path} is not a file; accepted: a {ending} file. Give the path of the downloaded weights.")
    if path.stat().st_size == 0:
        raise RequestError(f"{path} is empty; accepted: a whole {ending} file. Download it again.")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _refusal(path: Path, damage: DamageError, content: mmap.mmap) -> RequestError:
    if content[:8] == b"\x89HDF\r\n\x1a\n":
        return RequestError(
            f"{path} is an HDF5 file; accepted: the binary form of .caffemodel. Load it with Caffe and save it again "
            "with `snapshot_format: BINARYPROTO`."
        )
    place = f"in {damage.place}, " if damage.place else ""
    return RequestError(
        f"{path} cannot be read as a Caffe file: {place}byte {damage.position} of {len(content)}: {damage.reason}. "
        "Accepted: a whole binary .caffemodel or .binaryproto. Download it again, or check which file it is."
    )


def fields(content: mmap.mmap, start: int, end: int) -> Iterator[Field]:
    """Walk over the fields of a message that lies from `start` to `end`.

    A field that is longer than its message is given as far as it goes, so that what is inside can be named, and then
    answered with `DamageError`.
    """
    position = start
    while position < end:
        at = position
        tag, position = _varint(content, position, end)
        number, wire = tag >> 3, tag & 7
        if number == 0 or wire not in (VARINT, FIXED64, BYTES, FIXED32):
            raise DamageError(at, f"no field of a Caffe file starts with {content[at]:#04x}")
        value = 0
        if wire in (VARINT, BYTES):
            value, position = _varint(content, position, end)
        length = {VARINT: 0, FIXED64: 8, FIXED32: 4, BYTES: value}[wire]
        whole = position + length <= end
        yield Field(number, wire, position, min(position + length, end), value, whole)
        if not whole:
            raise DamageError(position, f"{length} bytes are announced and {end - position} are there")
        position += length


def _varint(content: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, low bits first; return it and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position + shift // 7 >= end:
            raise DamageError(position, "a number is cut off")
        byte = content[position + shift // 7]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position + shift // 7 + 1
    raise DamageError(position, "a number of more than ten bytes")


def _text(content: mmap.mmap, field: Field) -> str:
    return content[field.start : field.end].decode("utf-8", errors="backslashreplace")


def _layer(content: mmap.mmap, message: Field, place: str) -> Layer:
    """Read a layer: field 100 of the network is the 2015 form, field 2 that of 2014."""
    name_field, top_field, blobs_field = (1, 4, 7) if message.number == 100 else (4, 3, 6)
    layer = Layer(name="", type="")
    try:
        for field in fields(content, message.start, message.end):
            if message.number == 2 and field.number == 1 and field.wire == BYTES:
                layer = _layer_2013(content, field, layer)
            elif field.number == name_field and field.wire == BYTES:
                layer = replace(layer, name=_text(content, field))
                place = f"layer {layer.name!r}"
            elif field.number == 2 and message.number == 100 and field.wire == BYTES:
                layer = replace(layer, type=_text(content, field))
            elif field.number == 5 and message.number == 2 and field.wire == VARINT:
                layer = replace(layer, type=NUMBERED_TYPES.get(field.value, f"type {field.value}"))
            elif field.number == top_field and field.wire == BYTES:
                layer = replace(layer, tops=(*layer.tops, _text(content, field)))
            elif field.number == 45 and field.wire == BYTES:  # bn_param; its field 3 is bn_mode, 1 is INFERENCE
                modes = [mode.value for mode in fields(content, field.start, field.end) if mode.number == 3]
                layer = replace(layer, inference=modes[-1:] == [1])
            elif field.number == blobs_field and field.wire == BYTES:
                layer = _with_blob(content, field, layer)
    except DamageError as damage:
        damage.place = ", ".join(part for part in (place, damage.place) if part)
        raise
    return layer


def _layer_2013(content: mmap.mmap, message: Field, layer: Layer) -> Layer:
    for field in fields(content, message.start, message.end):
        if field.number == 1 and field.wire == BYTES:
            layer = replace(layer, name=_text(content, field))
        elif field.number == 2 and field.wire == BYTES:
            word = _text(content, field)
            layer = replace(layer, type=WORDED_TYPES.get(word, word))
        elif field.number == 50 and field.wire == BYTES:
            layer = _with_blob(content, field, layer)
    return layer


def _with_blob(content: mmap.mmap, field: Field, layer: Layer) -> Layer:
    try:
        return replace(layer, blobs=(*layer.blobs, _blob(content, field.start, field.end)))
    except DamageError as damage:
        damage.place = f"blob {len(layer.blobs)}"
        raise


def _blob(content: mmap.mmap, start: int, end: int) -> Blob:
    """Read a BlobProto; float64 values (`double_data`), where there are any, count instead of the float32 ones."""
    runs: dict[int, list[Run]] = {5: [], 8: []}
    shape: tuple[int, ...] | None = None
    sides = [0, 0, 0, 0]
    old = False
    for field in fields(content, start, end):
        if field.number == 7 and field.wire == BYTES:
            shape = _dimensions(content, field)
        elif field.number in (1, 2, 3, 4) and field.wire == VARINT:
            sides[field.number - 1], old = field.value, True
        elif field.number in runs and field.whole:
            _add(runs[field.number], field)
    found = tuple(runs[8] or runs[5])
    count = sum(run.length for run in found)
    shape = tuple(sides) if shape is None and old else shape or ()
    if math.prod(shape) != count:
        raise DamageError(start, f"a blob of {shape_text(shape)} with {count} numbers")
    return Blob(shape=shape, runs=found or (Run(start, 0, 4, "<f4"),), content=content)


def _add(runs: list[Run], field: Field) -> None:
    """Add the numbers of a field: many, packed, or one, which joins the run of those before it."""
    size, dtype = (4, "<f4") if field.number == 5 else (8, "<f8")
    length = field.end - field.start
    if field.wire == VARINT or length % size:
        raise DamageError(field.start, f"{length} bytes are no whole number of {size}-byte values")
    if field.wire == BYTES:
        runs.append(Run(field.start, length // size, size, dtype))
    elif runs and runs[-1].stride == size + 1 and field.start == runs[-1].offset + runs[-1].length * (size + 1):
        runs[-1] = runs[-1]._replace(length=runs[-1].length + 1)
    else:
        runs.append(Run(field.start, 1, size + 1, dtype))


def _dimensions(content: mmap.mmap, message: Field) -> tuple[int, ...]:
    sides: list[int] = []
    for field in fields(content, message.start, message.end):
        if field.number == 1 and field.wire == VARINT:
            sides.append(field.value)
        elif field.number == 1 and field.wire == BYTES:
            position = field.start
            while position < field.end:
                side, position = _varint(content, position, field.end)
                sides.append(side)
    return tuple(sides)
