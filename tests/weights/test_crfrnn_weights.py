"""The release's Caffe model and its authors' port become CRF-RNN: every blob in its place, with its sign."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_writer import LayerToWrite, caffemodel
from click.testing import CliRunner
from crfrnn_parity import build_ours, fill_port
from test_convert import K, build, converted, diagonal, original_layers
from torch import Tensor

from pixelwise.cli import group
from pixelwise.data.known import VOC_CLASSES
from pixelwise.engine.import_state import import_state
from pixelwise.engine.import_weights import import_weights
from pixelwise.engine.model_file import load_model
from pixelwise.errors import RequestError
from pixelwise.models import create_model

NAME = "crfrnn_fcn8s_vgg16"
OPTIONS = {"base_channels": 2, "iterations": 2, "test_iterations": 2}


@pytest.mark.parametrize("form", ["2015", "2014"])
def test_the_three_blobs_of_the_crf(form: str, tmp_path: Path) -> None:
    model = build(NAME)
    layers = original_layers(NAME, model)
    if form == "2014":  # the release's file numbers its layers' types, and the CRF's is unknown
        layers = [replace(each, type="Deconvolution") if each.name == "inference1" else each for each in layers]
    done = converted(layers, model, NAME, tmp_path, form=form)
    wanted = next(layer for layer in layers if layer.name == "inference1").blobs
    for module, blob in zip(("spatial", "bilateral", "compatibility"), wanted, strict=True):
        np.testing.assert_array_equal(done.tensors[f"crf.{module}.weight"].numpy(), blob[0, 0])
    score2 = next(layer for layer in layers if layer.name == "score2").blobs
    np.testing.assert_array_equal(done.tensors["upscore2.weight"].numpy(), score2[0])
    np.testing.assert_array_equal(done.tensors["upscore2.bias"].numpy(), score2[1])
    assert done.tensors["upscore8.weight"].shape == (K, 1, 16, 16)


def test_a_crf_without_its_compatibility_is_refused(tmp_path: Path) -> None:
    model = build(NAME)
    layers = original_layers(NAME, model)
    layers[-1] = replace(layers[-1], blobs=layers[-1].blobs[:2])
    with pytest.raises(RequestError, match=r"has 2 blobs in layer 'inference1'; known are those of crf.spatial, crf"):
        converted(layers, model, NAME, tmp_path)
    with pytest.raises(RequestError, match=r"lacks 3 tensors of crfrnn_fcn8s_vgg16, first 'crf\.spatial\.weight'"):
        converted(layers[:-1], model, NAME, tmp_path)


def test_the_release_becomes_a_model_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model(NAME, num_classes=21, **OPTIONS)
    layers: list[LayerToWrite] = original_layers(NAME, model)
    for index, layer in enumerate(layers):
        if layer.name == "inference1":
            layers[index] = replace(layer, blobs=[np.eye(21, dtype=np.float32)[None, None] * 2 for _ in range(3)])
    (tmp_path / "TVG.caffemodel").write_bytes(caffemodel(layers))
    import_weights(NAME, tmp_path / "TVG.caffemodel", out=tmp_path / "m.safetensors", options=OPTIONS)
    ours, card = load_model(tmp_path / "m.safetensors")
    assert card.classes == VOC_CLASSES
    assert card.licence == "weights: non-commercial (torrvision/crfasrnn)"
    assert card.normalisation.std == (1 / 255,) * 3
    np.testing.assert_allclose(np.array(card.normalisation.mean) * 255, [122.67891434, 116.66876762, 104.00698793])
    assert torch.equal(ours.state_dict()["crf.compatibility.weight"], 2 * torch.eye(21))


def port_state() -> dict[str, Tensor]:
    return fill_port(build_ours(divide=16).state_dict())


def imported(state: dict[str, Tensor], folder: Path) -> torch.nn.Module:
    torch.save(state, folder / "crfasrnn_weights.pth")
    import_state(NAME, folder / "crfasrnn_weights.pth", out=folder / "m.safetensors", options={"base_channels": 4})
    return load_model(folder / "m.safetensors")[0]


def test_the_port_becomes_the_network_that_the_golden_tensors_hold(tmp_path: Path) -> None:
    found, wanted = imported(port_state(), tmp_path).state_dict(), build_ours(divide=16).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    np.testing.assert_array_equal(port_state()["upscore8.weight"].numpy(), diagonal(wanted["upscore8.weight"].numpy()))


def test_what_was_done_to_a_tensor_is_said(tmp_path: Path) -> None:
    torch.save(port_state(), tmp_path / "crfasrnn_weights.pth")
    given = ("--out", str(tmp_path / "m.safetensors"), "--set", "base_channels=4")
    text = CliRunner().invoke(group, ["import-weights", NAME, str(tmp_path / "crfasrnn_weights.pth"), *given]).output
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert lines["conv1_1.weight"].endswith("input channels turned from B, G, R to R, G, B")
    assert lines["upscore8.weight"].endswith("one kernel per channel; zero elsewhere")
    assert lines["crfrnn.compatibility_matrix"].endswith("sign changed")


def test_a_port_whose_last_upsampling_mixes_channels_is_refused(tmp_path: Path) -> None:
    state = port_state()
    state["upscore8.weight"][0, 1] = 1
    with pytest.raises(
        RequestError, match=r"mixes channels in 'upscore8\.weight', for which crfrnn_fcn8s_vgg16 has one"
    ):
        imported(state, tmp_path)


def test_a_classifier_of_divided_images_brings_their_deviation(tmp_path: Path) -> None:
    state = create_model("vgg16", num_classes=10, base_channels=2).state_dict()
    torch.save(state, tmp_path / "vgg16.pth")
    given = {"out": tmp_path / "m.safetensors", "trunk": True, "num_classes": 3}
    import_state(NAME, tmp_path / "vgg16.pth", options={"base_channels": 2}, **given)  # type: ignore[arg-type]
    assert load_model(tmp_path / "m.safetensors")[1].options["color_std"] == (58.395, 57.12, 57.375)
    with pytest.raises(RequestError, match=r"color_std=\[1, 1, 1\], and its images are divided by \[58\.395, 57\.12"):
        import_state(
            NAME,
            tmp_path / "vgg16.pth",
            options={"base_channels": 2, "color_std": (1.0, 1.0, 1.0)},
            **given,  # type: ignore[arg-type]
        )
