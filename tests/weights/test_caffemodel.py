"""The reader of Caffe's files, against a writer of every form that Caffe has written."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe_writer import LayerToWrite, blob, caffemodel, convolutions, layer, message, number, tag, text, varint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pixelwise.errors import RequestError
from pixelwise.weights.caffemodel import read_caffemodel, read_mean

SHAPES = {"conv1_1": (4, 3, 3, 3), "fc6": (5, 4, 2, 2)}
anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def written(path: Path, content: bytes) -> Path:
    file = path / "net.caffemodel"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("form", ["2015", "2014", "2013"])
@pytest.mark.parametrize("numbers", ["packed", "unpacked", "double", "chunks"])
def test_every_form_gives_the_same_numbers(form: Any, numbers: Any, tmp_path: Path) -> None:
    layers = [*convolutions(SHAPES), LayerToWrite(name="relu", type="ReLU")]
    file = written(tmp_path, caffemodel(layers, form=form, numbers=numbers, diff=numbers == "packed"))
    net = read_caffemodel(file)
    assert net.name == "net"
    assert list(net.layers) == ["conv1_1", "fc6"]  # without the layer that owns no weights
    for wanted in layers[:2]:
        found = net.layers[wanted.name]
        assert found.type == "Convolution"
        weight, bias = (one.numbers() for one in found.blobs)
        np.testing.assert_array_equal(weight, wanted.blobs[0])
        np.testing.assert_array_equal(bias.ravel(), wanted.blobs[1])
        assert bias.shape == (wanted.blobs[1].shape if form == "2015" else (1, 1, 1, len(wanted.blobs[1])))


@anywhere
@given(
    values=st.lists(
        arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)), max_size=3
    ),
    form=st.sampled_from(["2015", "2014", "2013"]),
    numbers=st.sampled_from(["packed", "unpacked", "double", "chunks"]),
    name=st.text(max_size=8),
)
def test_round_trip(values: list[Any], form: Any, numbers: Any, name: str, tmp_path: Path) -> None:
    if form != "2015":
        values = [value for value in values if value.ndim]
    layers = [LayerToWrite(name="first", type="Convolution", blobs=[np.float32([1])])]
    layers += [LayerToWrite(name=name + str(i), type="Deconvolution", blobs=values) for i in range(2)]
    net = read_caffemodel(written(tmp_path, caffemodel(layers, form=form, numbers=numbers)))
    for i in range(2 if values else 0):
        blobs = net.layers[name + str(i)].blobs
        for found, wanted in zip(blobs, values, strict=True):
            np.testing.assert_array_equal(found.numbers().ravel(), wanted.ravel())
            if form == "2015":
                assert found.shape == wanted.shape


def test_numbers_are_not_copied_until_they_are_wanted(tmp_path: Path) -> None:
    net = read_caffemodel(written(tmp_path, caffemodel(convolutions(SHAPES))))
    weight = net.layers["fc6"].blobs[0].numbers()
    assert not weight.flags.owndata
    assert not weight.flags.writeable


def test_batch_norm_says_whether_its_blobs_are_folded_statistics(tmp_path: Path) -> None:
    values = [np.float32([1, 2]), np.float32([3, 4])]
    layers = [
        LayerToWrite(name="learning", type="BN", blobs=values),
        LayerToWrite(name="counting", type="BN", blobs=values, tops=("x", "mean", "var"), bn_mode=0),
        LayerToWrite(name="inference", type="BN", blobs=values, bn_mode=1),
    ]
    for form in ("2015", "2014"):
        net = read_caffemodel(written(tmp_path, caffemodel(layers, form=form)))
        assert [one.type for one in net.layers.values()] == ["BN"] * 3
        assert [one.inference for one in net.layers.values()] == [False, False, True]
        assert [len(one.tops) for one in net.layers.values()] == [1, 3, 1]


def test_a_file_cut_off_anywhere_is_refused_or_has_whole_layers_only(tmp_path: Path) -> None:
    layers = convolutions({"conv1_1": (2, 3, 1, 1), "fc6": (3, 2, 1, 1)})
    whole = caffemodel(layers, form="2014")
    ends = {len(caffemodel(layers[:count], form="2014")) for count in (1, 2)}
    for length in range(1, len(whole)):
        file = written(tmp_path, whole[:length])
        if length in ends:  # nothing in the file tells that more should follow; the network that wants it does
            assert len(read_caffemodel(file).layers) < 2
            continue
        with pytest.raises(RequestError, match=rf"net.caffemodel cannot .* of {length}: .*Download it again"):
            read_caffemodel(file)


def test_a_cut_names_layer_blob_and_byte(tmp_path: Path) -> None:
    whole = caffemodel(convolutions(SHAPES))
    first = len(caffemodel(convolutions(SHAPES)[:1]))
    with pytest.raises(
        RequestError, match=rf"in layer 'fc6', blob 0, byte \d+ of {first + 60}: 320 bytes .* \d\d are there"
    ):
        read_caffemodel(written(tmp_path, whole[: first + 60]))
    with pytest.raises(RequestError, match=rf"in layer number 2, byte {first + 5} of {first + 5}: a number is cut"):
        read_caffemodel(written(tmp_path, whole[: first + 5]))


@anywhere
@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_changed_byte_never_does_more_than_a_refusal(position: int, value: int, tmp_path: Path) -> None:
    content = bytearray(caffemodel(convolutions({"conv1_1": (2, 3, 1, 1)}), form="2014"))
    content[position % len(content)] = value
    with contextlib.suppress(RequestError):
        for one in read_caffemodel(written(tmp_path, bytes(content))).layers.values():
            [each.numbers() for each in one.blobs]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'name: "VGG_ILSVRC_16_layers"\nlayers {', "byte 0 of 37: no field of a Caffe file starts with 0x6e"),
        (b"<!DOCTYPE html><html>", "no field of a Caffe file starts with 0x3c"),
        (b"version https://git-lfs.github.com/spec/v1", "no field of a Caffe file starts with 0x76"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "is an HDF5 file; accepted: the binary form .* `snapshot_format"),
        (text(1, "net"), "byte 5 of 5: no layer with weights up to the end"),
        (b"\xff" * 20, "byte 0 of 20: a number of more than ten bytes"),
        (b"\x0a", "byte 1 of 1: a number is cut off"),
        (
            message(100, text(1, "a") + message(7, message(7, message(1, varint(3))) + message(5, bytes(8)))),
            "layer 'a', blob 0, byte 8 of 23: a blob of 3 with 2 numbers",
        ),
        (message(100, text(1, "a") + message(7, number(5, 3))), "layer 'a', blob 0, .* no whole number of 4-byte"),
        (message(100, text(1, "a") + message(7, message(8, bytes(9)))), "9 bytes are no whole number of 8-byte values"),
    ],
)
def test_foreign_and_damaged_files_are_told_apart(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=said):
        read_caffemodel(written(tmp_path, content))


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = convolutions({"fc6": (1, 1, 1, 1)}) * 2
    with pytest.raises(RequestError, match="a second layer 'fc6' with weights"):
        read_caffemodel(written(tmp_path, caffemodel(twice)))
    data = layer(LayerToWrite(name="data", type="Data"))
    assert list(read_caffemodel(written(tmp_path, data * 2 + caffemodel(twice[:1]))).layers) == ["fc6"]


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no.caffemodel is not a file; accepted: a .caffemodel file"):
        read_caffemodel(tmp_path / "no.caffemodel")
    with pytest.raises(RequestError, match=r"net.caffemodel is empty; accepted: a whole .caffemodel file"):
        read_caffemodel(written(tmp_path, b""))


@pytest.mark.parametrize("old_shape", [True, False])
def test_mean_image(old_shape: bool, tmp_path: Path) -> None:
    image = np.stack([np.full((5, 7), 104.0), np.full((5, 7), 116.5), np.arange(35).reshape(5, 7)])[None]
    file = written(tmp_path, blob(image, old_shape=old_shape))
    np.testing.assert_allclose(read_mean(file), [104.0, 116.5, 17.0])


def test_what_is_no_mean_image(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="holds a blob of shape 2 x 3 x 1 x 1; accepted: one mean image, 1 x C"):
        read_mean(written(tmp_path, blob(np.zeros((2, 3, 1, 1)))))
    with pytest.raises(RequestError, match="cannot be read as a Caffe file"):
        read_mean(written(tmp_path, tag(1, 3)))
