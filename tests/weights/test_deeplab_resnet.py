"""Files of DeepLab v2 on ResNet-101: three copies of each layer, a start from the ImageNet classifier, all names."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_filling import make_layer, rebuild
from caffe_parity import GOLDEN
from caffe_writer import LayerToWrite, caffemodel

from pixelwise.backbones.resnet import BLOCKS, ResNet
from pixelwise.engine.import_weights import Import, import_weights
from pixelwise.engine.model_file import load_model
from pixelwise.errors import RequestError
from pixelwise.weights.caffe_resnet import resnet_modules
from pixelwise.weights.deeplab import RESNET

NARROW = {"base_channels": 4}


@cache
def all_layers() -> tuple[LayerToWrite, ...]:
    about = json.loads((GOLDEN / "deeplabv2_resnet101_msc.json").read_text(encoding="utf-8"))
    return tuple(rebuild(about["layers"], about["copies"]))


def layers() -> list[LayerToWrite]:
    return list(all_layers())


def start(tmp_path: Path, given: list[LayerToWrite], **how: object) -> Import:
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(given))
    how = {"options": NARROW, **how}
    return import_weights("deeplabv2_resnet101", tmp_path / "net.caffemodel", out=tmp_path / "m.safetensors", **how)


def test_one_scale_takes_the_file_of_three(tmp_path: Path) -> None:
    """The released files hold three scales; the copies are compared and left out."""
    done = start(tmp_path, layers())
    assert len(done.conversion.used) == 108 + 2 * 104
    assert len(done.conversion.left_out) == 2 * 316
    assert done.conversion.left_out["bn4b22_branch2a_res075"] == (
        "the same numbers as bn4b22_branch2a, with which it shares them"
    )
    model, card = load_model(tmp_path / "m.safetensors")
    wanted = {layer.name: layer.blobs for layer in layers()}
    state = model.state_dict()
    for name, key in (
        ("res2c_branch2b", "backbone.layer1.2.conv2.weight"),
        ("res3a_branch1", "backbone.layer2.0.downsample.0.weight"),
        ("scale4b22_branch2c", "backbone.layer3.22.bn3.weight"),
        ("res5c_branch2a", "backbone.layer4.2.conv1.weight"),
        ("fc1_voc12_c3", "classifier.3.weight"),
    ):
        np.testing.assert_array_equal(state[key].numpy(), wanted[name][0])
    mean, variance, factor = wanted["bn_conv1"]
    np.testing.assert_allclose(state["backbone.bn1.running_mean"].numpy(), mean / factor)
    np.testing.assert_allclose(state["backbone.bn1.running_var"].numpy(), variance / factor)
    assert card.classes[1] == "aeroplane"
    assert card.normalisation.mean[0] == pytest.approx(122.675 / 255)


def test_a_copy_with_other_numbers_is_refused(tmp_path: Path) -> None:
    given = layers()
    index = next(i for i, layer in enumerate(given) if layer.name == "res4b7_branch2b_res05")
    given[index] = replace(given[index], blobs=[given[index].blobs[0] * np.float32(1.01)])
    with pytest.raises(RequestError, match=r"other numbers in layer 'res4b7_branch2b_res05' than in 'res4b7_branch2b'"):
        start(tmp_path, given)
    with pytest.raises(RequestError, match=r"in layer 'conv1_res05' than in 'conv1', whose parameters it shares"):
        start(tmp_path, [layer for layer in layers() if layer.name != "conv1"])


def test_a_start_from_the_imagenet_classifier(tmp_path: Path) -> None:
    trunk = [layer for layer in layers() if "res0" not in layer.name and not layer.name.startswith("fc1")]
    given = [*trunk, make_layer("fc1000", "Convolution", (10, 128, 1, 1), 10)]
    done = start(tmp_path, given, trunk=True, num_classes=5)
    assert done.conversion.left_out == {"fc1000": "part of the ImageNet classifier only"}
    assert {key.rpartition(".")[0] for key in done.conversion.own if "classifier" in key} == {
        f"classifier.{index}" for index in range(4)
    }
    with pytest.raises(RequestError, match=r"lacks 1 tensors.*backbone\.layer3\.5\.conv2\.weight"):
        start(tmp_path, [layer for layer in given if layer.name != "res4b5_branch2b"], trunk=True, num_classes=5)


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_every_module_of_a_trunk_has_a_name(depth: int) -> None:
    with torch.device("meta"):
        trunk = ResNet(blocks=BLOCKS[depth])
    modules = {key.rpartition(".")[0] for key in trunk.state_dict()}
    assert set(resnet_modules(BLOCKS[depth], prefix="")) == modules
    assert RESNET.module("res3b3_branch2a") == "backbone.layer2.3.conv1"
    assert RESNET.module("res3d_branch2a") == "backbone.layer2.3.conv1"  # ResNet-50's names
    assert RESNET.module("bn2b_branch2c") == RESNET.module("scale2b_branch2c") == "backbone.layer1.1.bn3"
