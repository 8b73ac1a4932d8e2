"""Other libraries' files, made with their names, become our models with equal logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.backbones.resnet import ResNet
from pixelwise.data.known import VOC_CLASSES
from pixelwise.engine.import_state import import_state
from pixelwise.engine.model_file import load_model
from pixelwise.errors import RequestError
from pixelwise.models import create_model, model_info


def randomised(model: nn.Module) -> nn.Module:
    """Give a network statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def imported(name: str, state: dict[str, Tensor] | Any, folder: Path, **given: Any) -> Any:
    torch.save(state, folder / "w.pth")
    done = import_state(name, folder / "w.pth", out=folder / "m.safetensors", **given)
    return done, load_model(folder / "m.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_resnet101"])
@pytest.mark.parametrize("aux", [True, False])
def test_torchvisions_segmenters(name: str, aux: bool, tmp_path: Path) -> None:
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    theirs = randomised(getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=21, aux_loss=aux))
    done, (ours, card) = imported(name, theirs.state_dict(), tmp_path)
    assert card.classes == VOC_CLASSES
    assert card.options["aux"] is aux
    assert done.conversion.left_out == {}
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        wanted = theirs(images)["out"]
        torch.testing.assert_close(ours(images).logits, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def a_sixteenth_as_wide(weights: Tensor) -> Tensor:
    """Return random weights for a layer whose widths, all from 64 on, are divided by 16."""
    return torch.rand([side // 16 if side >= 64 else side for side in weights.shape]).to(weights.dtype)


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "deeplabv3_cascade_resnet50", "drnseg_a_50", "fcn_resnet50"])
def test_torchvisions_resnet_as_a_trunk(name: str, tmp_path: Path) -> None:
    resnet = pytest.importorskip("torchvision.models.resnet")
    with torch.device("meta"):
        wide = resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=10).state_dict()
    theirs = {key: a_sixteenth_as_wide(value) for key, value in wide.items()}
    given = {"num_classes": 4, "trunk": True, "options": {"blocks": (1, 1, 1, 1), "base_channels": 4}}
    assert given["options"].keys() <= model_info(name).debug.keys()
    done, (ours, _) = imported(name, theirs, tmp_path, **given)
    stem = ours.state_dict()["base.0.weight" if name.startswith("drnseg") else "backbone.conv1.weight"]
    assert torch.equal(stem, theirs["conv1.weight"])
    assert set(done.conversion.left_out) == {"fc.weight", "fc.bias"}
    assert len(done.conversion.taken) == len(theirs) - 2


@pytest.mark.parametrize("name", ["drn_a_18", "drn_c_26", "drn_c_58", "drn_d_22", "drn_d_54"])
def test_drns_classifiers(name: str, tmp_path: Path) -> None:
    debug = dict(model_info(name).debug)
    theirs = randomised(create_model(name, num_classes=10, **debug)).state_dict()
    done, (ours, card) = imported(
        name, {f"module.{key}": value for key, value in theirs.items()}, tmp_path, options=debug
    )
    assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())
    assert card.num_classes == 10
    assert done.within == "prefix 'module.' taken off"


@pytest.mark.parametrize("name", ["drnseg_a_50", "drnseg_c_26", "drnseg_d_22"])
def test_drns_segmenters(name: str, tmp_path: Path) -> None:
    debug = dict(model_info(name).debug)
    state = randomised(create_model(name, num_classes=19, **debug)).state_dict()
    # Files of PyTorch before 0.4.1 have no batch counters.
    theirs = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    done, (ours, card) = imported(name, {"state_dict": theirs, "epoch": 3, "best_prec1": 0.5}, tmp_path, options=debug)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items() if key in theirs)
    assert done.conversion.counters == len(state) - len(theirs)
    assert card.classes[0] == "road"
    assert card.normalisation.mean == (0.29010095, 0.32808145, 0.28696394)


@pytest.mark.parametrize("name", ["drnseg_c_26", "drnseg_d_22"])
def test_a_drn_classifier_starts_the_segmenter(name: str, tmp_path: Path) -> None:
    debug = dict(model_info(name).debug)
    classifier = create_model(name.replace("drnseg", "drn"), num_classes=10, **debug).state_dict()
    done, (ours, _) = imported(name, classifier, tmp_path, options=debug, trunk=True, num_classes=3)
    assert set(done.conversion.left_out) == {"fc.weight", "fc.bias"}
    assert set(done.conversion.own) == {key for key in ours.state_dict() if key.startswith(("seg.", "up."))}


def test_another_depth_is_refused_with_the_first_layer_that_has_no_place(tmp_path: Path) -> None:
    debug = dict(model_info("drn_d_22").debug)
    deeper = create_model("drn_d_38", num_classes=10, **{**debug, "blocks": (1, 1, 2, 2, 1, 1, 1, 1)}).state_dict()
    with pytest.raises(RequestError, match=r"looks like fyu/drn's and holds 'layer3\.1\..*for which drn_d_22 has no"):
        imported("drn_d_22", deeper, tmp_path, options={**debug, "blocks": (1, 1, 1, 1, 1, 1, 1, 1)})


@pytest.mark.parametrize("aux", [True, False])
def test_semsegs_pspnet(aux: bool, tmp_path: Path) -> None:
    debug = dict(model_info("pspnet_resnet50").debug)
    theirs = randomised(create_model("pspnet_resnet50", num_classes=21, **debug)).state_dict()
    file = {f"module.{key}": value for key, value in theirs.items() if aux or not key.startswith("aux.")}
    done, (ours, card) = imported("pspnet_resnet50", {"epoch": 50, "state_dict": file}, tmp_path, options=debug)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())
    assert len(ours.state_dict()) == len(file) == len(done.conversion.taken)
    assert card.classes == VOC_CLASSES
    assert card.normalisation.mean == (0.485, 0.456, 0.406)


def test_semsegs_classifier_starts_pspnet(tmp_path: Path) -> None:
    debug = dict(model_info("pspnet_resnet50").debug)
    theirs = ResNet(stem="deep", num_classes=10, **debug).state_dict()
    given = {"options": debug, "trunk": True, "num_classes": 3}
    done, (ours, card) = imported("pspnet_resnet50", theirs, tmp_path, **given)
    state = ours.state_dict()
    for index, name in enumerate(("conv1", "conv2", "conv3")):
        assert torch.equal(state[f"layer0.{3 * index}.weight"], theirs[f"{name}.weight"])
        assert torch.equal(state[f"layer0.{3 * index + 1}.bias"], theirs[f"bn{index + 1}.bias"])
    assert torch.equal(state["layer1.0.bn3.weight"], theirs["layer1.0.bn3.weight"])
    assert set(done.conversion.left_out) == {"fc.weight", "fc.bias"}
    assert {key.partition(".")[0] for key in done.conversion.own} == {"ppm", "cls", "aux"}
    assert "stem" not in card.options


@pytest.mark.parametrize("name", ["pspnet_resnet50", "gcn_resnet50"])
def test_torchvisions_names_start_pspnet_with_its_stem_and_the_gcn(name: str, tmp_path: Path) -> None:
    debug = dict(model_info(name).debug)
    theirs = ResNet(num_classes=10, **debug).state_dict()
    done, (ours, card) = imported(name, theirs, tmp_path, options=debug, trunk=True, num_classes=3)
    stem = ours.state_dict()["layer0.0.weight" if name.startswith("pspnet") else "conv1.weight"]
    assert torch.equal(stem, theirs["conv1.weight"])
    assert len(done.conversion.taken) == len(theirs) - 2
    assert card.options.get("stem") == ("7x7" if name.startswith("pspnet") else None)


def mmsegmentations_pspnet(num_classes: int) -> nn.ModuleDict:
    """Return mmsegmentation's pspnet_r50-d8, with fewer units, from its configuration: its names, torchvision's parts.

    Source: configs/_base_/models/pspnet_r50-d8.py, decode_heads/psp_head.py and backbones/resnet.py (ResNetV1c).
    """
    resnet = pytest.importorskip("torchvision.models.resnet")
    trunk = resnet.ResNet(resnet.Bottleneck, [1, 2, 2, 2], replace_stride_with_dilation=[False, True, True])
    stem = [layer for source, width, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1)) for layer in
            (nn.Conv2d(source, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())]  # fmt: skip

    def unit(source: int, width: int, kernel: int) -> nn.ModuleDict:
        layers = {
            "conv": nn.Conv2d(source, width, kernel, padding=kernel // 2, bias=False),
            "bn": nn.BatchNorm2d(width),
        }
        return nn.ModuleDict(layers)

    stages = {f"layer{index}": trunk.get_submodule(f"layer{index}") for index in range(1, 5)}
    decoder = {
        "psp_modules": nn.ModuleList(
            nn.ModuleList([nn.AdaptiveAvgPool2d(side), unit(2048, 512, 1)]) for side in (1, 2, 3, 6)
        ),
        "bottleneck": unit(4096, 512, 3),
        "conv_seg": nn.Conv2d(512, num_classes, 1),
    }
    auxiliary = {"convs": nn.ModuleList([unit(1024, 256, 3)]), "conv_seg": nn.Conv2d(256, num_classes, 1)}
    return nn.ModuleDict(
        {
            "backbone": nn.ModuleDict({"stem": nn.Sequential(*stem), **stages}),
            "decode_head": nn.ModuleDict(decoder),
            "auxiliary_head": nn.ModuleDict(auxiliary),
        }
    )


def run_mmsegmentations(net: Any, images: Tensor) -> Tensor:
    def convolve(unit: Any, x: Tensor) -> Tensor:
        return functional.relu(unit["bn"](unit["conv"](x)))

    x = functional.max_pool2d(net["backbone"]["stem"](images), 3, 2, 1)
    for index in range(1, 5):
        x = net["backbone"][f"layer{index}"](x)
    head = net["decode_head"]
    levels = [convolve(unit, pool(x)) for pool, unit in head["psp_modules"]]
    levels = [functional.interpolate(level, x.shape[2:], mode="bilinear", align_corners=False) for level in levels]
    scores = head["conv_seg"](convolve(head["bottleneck"], torch.cat([x, *levels], dim=1)))
    return functional.interpolate(scores, images.shape[2:], mode="bilinear", align_corners=False)


def test_mmsegmentations_pspnet(tmp_path: Path) -> None:
    theirs = randomised(mmsegmentations_pspnet(19))
    state = {"meta": {"epoch": 3}, "state_dict": theirs.state_dict()}
    done, (ours, card) = imported("pspnet_resnet50", state, tmp_path, options={"blocks": (1, 2, 2, 2)})
    assert done.conversion.left_out == {}
    assert card.classes[0] == "road"
    assert card.options["variant"] == "mmsegmentation"
    images = torch.randn(1, 3, 64, 100)  # no 8 n + 1
    with torch.no_grad():
        wanted = run_mmsegmentations(theirs, images)
        torch.testing.assert_close(ours(images).logits, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def smps_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our DeepLab v3 with the head "smp" as segmentation_models.pytorch names its own."""
    rules = {"backbone.": "encoder.", "classifier.0.": "decoder.aspp.", "classifier.1.": "decoder.conv."}
    rules |= {"classifier.2.": "decoder.bn.", "classifier.4.": "segmentation_head.0."}
    renamed = {}
    for key, value in state.items():
        old = next(prefix for prefix in rules if key.startswith(prefix))
        renamed[rules[old] + key.removeprefix(old)] = value
    return renamed


def test_smps_deeplabv3(tmp_path: Path) -> None:
    debug = {"base_channels": 4, "blocks": (1, 1, 1, 1)}
    theirs = randomised(create_model("deeplabv3_resnet50", num_classes=5, head="smp", **debug)).state_dict()
    _, (ours, card) = imported("deeplabv3_resnet50", smps_names(theirs), tmp_path, options=debug)
    assert card.options["head"] == "smp"
    assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())
