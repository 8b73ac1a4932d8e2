"""`import-weights` of PyTorch files: whole, strict, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from pixelwise.backbones.vgg import VGG16
from pixelwise.cli.import_weights import command
from pixelwise.engine.import_state import import_state
from pixelwise.engine.model_file import load_model
from pixelwise.errors import RequestError
from pixelwise.weights import torchvision

NARROW = {"base_channels": 2}


def vgg16(tmp_path: Path, **change: Tensor | None) -> Path:
    torch.manual_seed(0)
    state = {
        **VGG16(base_channels=2, num_classes=10).state_dict(),
        **{k.replace("__", "."): v for k, v in change.items()},
    }
    torch.save({key: value for key, value in state.items() if value is not None}, tmp_path / "vgg16.pth")
    return tmp_path / "vgg16.pth"


def start(tmp_path: Path, file: Path, name: str = "fcn8s_vgg16", **given: Any) -> Any:
    given = {"trunk": True, "num_classes": 4, "options": NARROW, **given}
    return import_state(name, file, out=tmp_path / "m.safetensors", **given)


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(command, [str(word) for word in words])
    return done.exit_code, done.stdout if done.exception is None else str(done.exception)


def test_a_classifier_becomes_the_trunk(tmp_path: Path) -> None:
    file = vgg16(tmp_path)
    done = start(tmp_path, file)
    model, card = load_model(tmp_path / "m.safetensors")
    theirs = torch.load(file, weights_only=True)
    assert torch.equal(model.get_parameter("conv1_1.weight"), theirs["features.0.weight"])
    assert torch.equal(model.get_parameter("conv5_3.bias"), theirs["features.28.bias"])
    assert torch.equal(model.get_parameter("fc6.weight").flatten(1), theirs["classifier.0.weight"])
    assert done.conversion.left_out == dict.fromkeys(
        ("classifier.6.weight", "classifier.6.bias"), "the class layer of ImageNet"
    )
    assert len(done.conversion.taken) == 30
    assert "score_fr.weight" in done.conversion.own
    assert card.normalisation.mean == (0.485, 0.456, 0.406)
    assert card.normalisation.std == (0.229, 0.224, 0.225)
    assert card.normalisation.intensity_range == (0.0, 255.0)
    assert card.num_classes == 4


def test_command_reports_in_both_forms(tmp_path: Path) -> None:
    words = ("fcn8s_vgg16", vgg16(tmp_path), "--out", tmp_path / "m.safetensors", "--trunk", "--set", "base_channels=2")
    code, said = run(*words, "--num-classes", 4)
    assert code == 0, said
    assert "features.0.weight" in said
    assert "left out: classifier.6.weight: the class layer of ImageNet" in said
    assert "images      R, G, B of 0..1, less 0.485, 0.456, 0.406, divided by 0.229, 0.224, 0.225" in said
    code, said = run(*words, "--num-classes", 4, "--json")
    assert code == 0, said
    found = json.loads(said)
    assert found["source"] == "torchvision's vgg16"
    first = {"name": "features.0.weight", "goes_to": "conv1_1.weight", "shape": [2, 3, 3, 3], "note": ""}
    assert found["used"][0] == first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trunk": False}, r"It is a classifier: give --trunk"),
        ({"num_classes": None}, r"--trunk says nothing of the number of classes; accepted: --num-classes K"),
        ({"options": {"base_channels": 4}}, r"'features\.0\.weight' of 2 x 3 x 3 x 3, and fcn8s_vgg16 wants 4 x 3 x 3"),
        ({"name": "unet"}, r"no PyTorch weights of 'unet' are known"),
    ],
)
def test_requests_that_do_not_fit(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        start(tmp_path, vgg16(tmp_path), **given)
    assert not (tmp_path / "m.safetensors").exists()


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(RequestError, match=r"its 1 tensors are encoder\.weight; accepted with --trunk: torchvision's"):
        start(tmp_path, tmp_path / "other.pth")


def test_a_model_file_of_ours_is_sent_to_train(tmp_path: Path) -> None:
    start(tmp_path, vgg16(tmp_path))
    with pytest.raises(RequestError, match=r"is a model file of pixelwise already \(fcn8s_vgg16\)"):
        start(tmp_path, tmp_path / "m.safetensors")


@pytest.mark.parametrize("option", [("--folded",), ("--mean", "1,2,3")])
def test_caffe_options_are_refused(option: tuple[str, ...], tmp_path: Path) -> None:
    code, said = run("fcn8s_vgg16", vgg16(tmp_path), "--out", tmp_path / "m.safetensors", *option)
    assert code != 0
    assert f"{option[0]} has no effect on a PyTorch file" in said


@pytest.mark.parametrize("name", [name for name, forms in torchvision.FORMATS.items() if torchvision.VGG16 in forms])
def test_vgg16_starts_every_system_that_began_so(name: str, tmp_path: Path) -> None:
    done = start(tmp_path, vgg16(tmp_path), name=name)
    taken = {use.ours for use in done.conversion.taken}
    assert {"conv1_1.weight", "conv5_3.weight"} <= taken
