"""PSPNet's Caffe layers become our state dict: one layer for each normalisation, pooled maps in another order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from caffe_filling import rebuild
from caffe_parity import GOLDEN
from caffe_writer import LayerToWrite, caffemodel

from pixelwise.engine.import_weights import import_weights
from pixelwise.engine.model_file import load_model
from pixelwise.errors import RequestError

OPTIONS = {"base_channels": 4}


def layers() -> dict[str, LayerToWrite]:
    about = json.loads((GOLDEN / "pspnet_resnet50.json").read_text(encoding="utf-8"))
    return {layer.name: layer for layer in rebuild(about["layers"])}


def imported(given: dict[str, LayerToWrite], folder: Path, **options: Any) -> Any:
    (folder / "net.caffemodel").write_bytes(caffemodel(list(given.values())))
    done = import_weights(
        "pspnet_resnet50", folder / "net.caffemodel", out=folder / "m.safetensors", options={**OPTIONS, **options}
    )
    return done, *load_model(folder / "m.safetensors")


def test_what_the_file_is_decides_the_options_and_the_images(tmp_path: Path) -> None:
    given = layers()
    done, model, card = imported(given, tmp_path)
    assert card.options == {"variant": "caffe", "aux_weight": 0.0, **OPTIONS}
    assert card.num_classes == 150
    assert card.normalisation.mean == pytest.approx((123.68 / 255, 116.779 / 255, 103.939 / 255))
    assert {use.layer for use in done.conversion.used} == given.keys()
    assert model.layer2[0].conv1.stride == (2, 2)


def test_normalisations_and_the_order_of_the_levels(tmp_path: Path) -> None:
    given = layers()
    done, model, _ = imported(given, tmp_path)
    state = model.state_dict()
    for layer, module in (("conv1_2_3x3/bn", "layer0.4"), ("conv5_3_pool6_conv/bn", "ppm.features.3.2")):
        keys = ("weight", "bias", "running_mean", "running_var")
        for blob, key in zip(given[layer].blobs, keys, strict=True):
            np.testing.assert_array_equal(state[f"{module}.{key}"].numpy(), blob)
    joined = torch.from_numpy(given["conv5_4"].blobs[0])
    whole, six, three, two, one = joined.split([128, 32, 32, 32, 32], dim=1)
    assert torch.equal(state["cls.0.weight"], torch.cat([whole, one, two, three, six], dim=1))
    notes = {use.layer: use.note for use in done.conversion.used}
    assert notes["conv5_4"] == "input channels put into our order"


def test_a_normalisation_of_three_blobs_is_refused(tmp_path: Path) -> None:
    given = layers()
    given["conv5_4/bn"] = replace(given["conv5_4/bn"], blobs=given["conv5_4/bn"].blobs[:3])
    with pytest.raises(RequestError, match=r"has 3 blobs in layer 'conv5_4/bn'; scale and shift are known, with mean"):
        imported(given, tmp_path)


def test_an_auxiliary_classifier_is_not_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"lacks 7 tensors of pspnet_resnet50, first 'aux\.0\.weight'"):
        imported(layers(), tmp_path, aux_weight=0.4)
