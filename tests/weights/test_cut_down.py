"""DeepLab's smaller fc6 and fc7, cut out of VGG-16's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from caffe_writer import caffemodel
from click.testing import CliRunner
from test_convert import fully_connected, original_layers
from torch import Tensor

from pixelwise.backbones.vgg import VGG16
from pixelwise.cli.import_weights import command
from pixelwise.engine.import_state import import_state
from pixelwise.engine.import_weights import import_weights
from pixelwise.engine.model_file import load_model
from pixelwise.errors import RequestError
from pixelwise.models import create_model
from pixelwise.models.deeplabv1 import deeplabv1_vgg16_largefov
from pixelwise.weights.cut_down import cut_classifier, cut_down


def vgg(filters: int, channels: int) -> dict[str, Tensor]:
    """fc6 and fc7 whose numbers say where they come from."""
    index = torch.arange(filters, dtype=torch.float64)
    taps = torch.arange(7, dtype=torch.float64)
    fc6 = index[:, None, None, None] * 100 + 10 * taps[:, None] + taps
    return {
        "conv1_1.weight": torch.zeros(1),
        "fc6.weight": fc6.expand(filters, channels, 7, 7).clone(),
        "fc6.bias": index.clone(),
        "fc7.weight": (index[:, None] * 1000 + index)[:, :, None, None].clone(),
        "fc7.bias": index.clone(),
    }


@pytest.mark.parametrize(("kernel", "taps"), [(7, [0, 1, 2, 3, 4, 5, 6]), (4, [0, 2, 4, 6]), (3, [0, 3, 6])])
def test_windows_are_decimated_and_filters_drawn(kernel: int, taps: list[int]) -> None:
    cut = cut_down(vgg(64, 3), kernel=kernel, channels=16, generator=torch.Generator().manual_seed(0))
    assert cut["fc6.weight"].shape == (16, 3, kernel, kernel)
    first, second = cut["fc6.bias"], cut["fc7.bias"]
    assert len(first.unique()) == len(second.unique()) == 16
    assert first.tolist() != second.tolist()
    rows = (first * 100)[:, None, None] + 10 * torch.tensor(taps)[:, None] + torch.tensor(taps)
    assert torch.equal(cut["fc6.weight"][:, 1], rows)
    assert torch.equal(cut["fc7.weight"][:, :, 0, 0], second[:, None] * 1000 + first)
    assert "conv1_1.weight" in cut
    again = cut_down(vgg(64, 3), kernel=kernel, channels=16, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(cut[key], again[key]) for key in cut)


def test_nothing_changes_without_a_cut_and_the_result_fits_the_network() -> None:
    state = vgg(64, 8)
    assert all(torch.equal(state[key], kept) for key, kept in cut_down(state, kernel=7, channels=64).items())
    model = deeplabv1_vgg16_largefov(num_classes=2, base_channels=1)
    cut = cut_down(state, kernel=3, channels=16)
    for name in ("fc6", "fc7"):
        model.get_submodule(name).load_state_dict({kind: cut[f"{name}.{kind}"] for kind in ("weight", "bias")})


@pytest.mark.parametrize(("kernel", "channels"), [(8, 16), (1, 16), (4, 65), (4, 0)])
def test_cuts_that_cannot_be_made(kernel: int, channels: int) -> None:
    text = (
        rf"kernel={kernel}, channels={channels} of a fc6 with 7 x 7 taps and 64 filters; accepted: kernel from 2 to 7"
    )
    with pytest.raises(RequestError, match=text):
        cut_down(vgg(64, 3), kernel=kernel, channels=channels)


NARROW = {"base_channels": 2}
LARGE_FOV = ["deeplabv1_vgg16_largefov", "deeplabv1_vgg16_msc_largefov", "deeplabv2_vgg16_largefov"]


@pytest.fixture
def classifier(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A narrow VGG-16 as the Caffe model of its authors, and its fc6 (128, 16, 7, 7) and fc7."""
    model = create_model("fcn32s_vgg16", num_classes=4, **NARROW)
    layers = original_layers("fcn32s_vgg16", model)
    path = tmp_path / "vgg.caffemodel"
    path.write_bytes(caffemodel(fully_connected(layers), form="2014"))
    kinds = ("weight", "bias")
    return path, {
        f"{layer.name}.{kind}": torch.from_numpy(blob)
        for layer in layers
        if layer.name in ("fc6", "fc7")
        for kind, blob in zip(kinds, layer.blobs, strict=True)
    }


def started(name: str, file: Path, **given: Any) -> tuple[Any, dict[str, Tensor]]:
    out = file.parent / "m.safetensors"
    read = import_weights if file.suffix == ".caffemodel" else import_state
    done = read(name, file, out=out, num_classes=5, trunk=True, options=NARROW, **given)
    model, card = load_model(out)
    assert card == done.card
    return done, model.state_dict()


def drawn(found: Tensor, among: Tensor) -> list[int]:
    """Say which rows of a tensor were taken."""
    rows = [int(index) for row in found for index in (among == row).all(dim=1).nonzero()]
    assert len(rows) == len(set(rows)) == len(found)
    return rows


@pytest.mark.parametrize("name", LARGE_FOV)
def test_a_caffe_classifier_fills_smaller_layers(name: str, classifier: tuple[Path, dict[str, Tensor]]) -> None:
    file, vgg16 = classifier
    done, state = started(name, file, seed=3)
    first = drawn(state["fc6.weight"].flatten(1), vgg16["fc6.weight"][:, :, ::3, ::3].flatten(1))
    assert torch.equal(state["fc6.bias"], vgg16["fc6.bias"][first])
    second = drawn(state["fc7.weight"].flatten(1), vgg16["fc7.weight"][:, first].flatten(1))
    assert torch.equal(state["fc7.bias"], vgg16["fc7.bias"][second])
    assert first != second
    assert done.cut == [
        "fc6: taps 0, 3, 6 of the 7 of fc6's window in either direction; 32 of 128 filters, drawn with seed 3",
        "fc7: 32 of 128 filters, drawn with seed 3, on the filters that fc6 keeps",
    ]
    assert done.card.origin == "; ".join(["vgg.caffemodel (ImageNet)", *done.cut])
    assert set(done.conversion.left_out) == {"fc8"}
    assert [use.module for use in done.conversion.used if use.note == "cut down"] == ["fc6", "fc7"]
    assert not [key for key in done.conversion.own if key.startswith(("conv", "fc6", "fc7"))]
    trunk = sum(value.numel() for key, value in state.items() if key.startswith("conv"))
    assert done.parameters == trunk + 32 * (16 * 9 + 1) + 32 * 33
    assert torch.equal(started(name, file, seed=3)[1]["fc6.weight"], state["fc6.weight"])
    assert not torch.equal(started(name, file, seed=4)[1]["fc6.bias"], state["fc6.bias"])


def test_four_by_four_keeps_every_filter_and_seven_by_seven_everything(classifier) -> None:
    file, vgg16 = classifier
    for name in ("deeplabv1_vgg16_4x4_r4", "deeplabv1_vgg16_4x4_r8"):
        done, state = started(name, file)
        assert torch.equal(state["fc6.weight"], vgg16["fc6.weight"][:, :, ::2, ::2])
        assert done.cut == ["fc6: taps 0, 2, 4, 6 of the 7 of fc6's window in either direction; all 128 filters"]
        assert torch.equal(state["fc7.weight"], vgg16["fc7.weight"])
    done, state = started("deeplabv1_vgg16_7x7", file)
    assert done.cut == []
    assert done.card.origin == "vgg.caffemodel (ImageNet)"
    assert all(torch.equal(state[key], vgg16[key]) for key in ("fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"))


def test_each_branch_of_aspp_draws_its_own_filters(classifier) -> None:
    file, vgg16 = classifier
    done, state = started("deeplabv2_vgg16_aspp_l", file)
    subsets = [drawn(state[f"fc6_{i}.bias"][:, None], vgg16["fc6.bias"][:, None]) for i in (1, 2, 3, 4)]
    assert len({tuple(subset) for subset in subsets}) == 4
    assert len(done.cut) == 8
    used = {use.layer: use.module for use in done.conversion.used}
    assert used["fc7"] == "fc7_1, fc7_2, fc7_3, fc7_4"
    assert not [key for key in done.conversion.own if "fc8" not in key]


@pytest.mark.parametrize("name", [LARGE_FOV[0], "deeplabv1_vgg16_4x4_r8", "deeplabv2_vgg16_aspp_s"])
def test_torchvisions_classifier_is_cut_in_the_same_way(name: str, classifier) -> None:
    file, vgg16 = classifier
    theirs = VGG16(base_channels=2, num_classes=10)
    for index, layer in ((0, "fc6"), (3, "fc7")):
        theirs.classifier[index].weight.data = vgg16[f"{layer}.weight"].flatten(1)
        theirs.classifier[index].bias.data = vgg16[f"{layer}.bias"]
    torch.save(theirs.state_dict(), file.with_suffix(".pth"))
    done, state = started(name, file.with_suffix(".pth"), seed=1)
    same, caffe = started(name, file, seed=1)
    assert done.cut == same.cut
    assert all(torch.equal(state[key], caffe[key]) for key in state if key.startswith(("fc6", "fc7")))
    assert set(done.conversion.left_out) == {"classifier.6.weight", "classifier.6.bias"}
    assert not [key for key in done.conversion.own if key.startswith(("fc6", "fc7"))]
    assert {taken.theirs for taken in done.conversion.taken} == set(theirs.state_dict()) - set(done.conversion.left_out)
    assert [f"cut down: {note}" for note in done.cut] == done.notes()


def test_the_command_says_what_stays(classifier) -> None:
    out = classifier[0].parent / "m.safetensors"
    words = ("deeplab_largefov", classifier[0], "--out", out, "--trunk", "--set", "base_channels=2", "--seed", 7)
    said = CliRunner().invoke(command, [str(word) for word in (*words, "--num-classes", 5)], catch_exceptions=False)
    assert "cut down: fc6: taps 0, 3, 6 of the 7 of fc6's window in either direction; 32 of 128" in said.output
    assert "drawn with seed 7" in said.output
    assert "model       deeplabv1_vgg16_largefov, 5 classes (ImageNet)" in said.output


def test_a_classifier_without_fc7_or_of_another_width_is_not_cut(classifier) -> None:
    state = vgg(64, 8)
    wanted = deeplabv1_vgg16_largefov(num_classes=2, base_channels=1).state_dict()
    assert cut_classifier(state, wanted, [""], seed=0).notes
    assert not cut_classifier({**state, "fc6.weight": state["fc6.weight"][:, :3]}, wanted, [""], seed=0).tensors
    assert not cut_classifier({k: v for k, v in state.items() if "fc7" not in k}, wanted, [""], seed=0).tensors
