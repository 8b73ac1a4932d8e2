"""What every model owes, whichever paper it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pixelwise.engine.describe import describe
from pixelwise.errors import RequestError
from pixelwise.models import create_model, list_models, model_info
from pixelwise.structures import SegmentationOutput, aux_weights_of, size_rule_of

# Counted at full size on the meta device, two classes, three channels.
PARAMETERS = {
    "unet": 31_031_810,
    "unet_padded": 31_031_810,
    "unet_small": 1_942_594,
    "fcn32s_vgg16": 134_268_738,
    "fcn16s_vgg16": 134_269_764,
    "fcn8s_vgg16": 134_270_278,
    "fcn8s_vgg16_atonce": 134_270_278,
    "fcn_alexnet": 56_876_418,
    "fcn_googlenet": 5_975_602,
    "deconvnet_vgg16": 251_804_418,
    "edeconvnet": 386_074_696,
    "segnet_vgg16": 29_444_162,
    "segnet_basic": 1_416_002,
    "bayesian_segnet_vgg16": 29_444_162,
    "bayesian_segnet_basic": 1_416_002,
    "dilated_frontend_vgg16": 134_268_738,
    "dilation8_voc": 134_330_620,
    "dilation8_camvid": 134_269_010,
    "dilation7_kitti": 134_268_972,
    "dilation10_cityscapes": 134_269_086,
    "deeplabv1_vgg16_largefov": 20_485_954,
    "deeplabv1_vgg16_7x7": 134_268_738,
    "deeplabv1_vgg16_4x4_r4": 65_062_722,
    "deeplabv1_vgg16_4x4_r8": 65_062_722,
    "deeplabv1_vgg16_msc_largefov": 21_679_820,
    "deeplabv2_vgg16_largefov": 20_485_954,
    "deeplabv2_vgg16_aspp_s": 37_799_752,
    "deeplabv2_vgg16_aspp_l": 37_799_752,
    "hypercolumn_vgg16": 14_717_634,
}

every_model = pytest.mark.parametrize("name", list_models())


def build(name: str, *, num_classes: int = 3, in_channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    model = create_model(name, num_classes=num_classes, in_channels=in_channels, **model_info(name).debug)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():  # score layers that start at zero hide the rest
            nn.init.normal_(parameter, std=0.1)
    return model


def smallest(model: nn.Module, *, steps: int = 1) -> int:
    rule = size_rule_of(model)
    return rule.at_least(max(rule.minimum + steps * rule.step, 32))


@every_model
def test_output_has_one_type_and_the_promised_size_in_both_modes(name: str) -> None:
    model = build(name)
    rule = size_rule_of(model)
    height, width = smallest(model), smallest(model, steps=2)
    for mode in (model.train(), model.eval()):
        out = mode(torch.randn(2, 3, height, width))
        assert isinstance(out, SegmentationOutput)
        assert out.logits.shape == (2, 3, rule.output(height), rule.output(width))
        assert out.logits.dtype == torch.float32
        assert len(out.aux) == (len(aux_weights_of(model)) if model.training else 0)
        assert all(aux.shape == out.logits.shape for aux in out.aux)


@every_model
def test_gradient_reaches_every_parameter(name: str) -> None:
    model = build(name).train()
    side = smallest(model, steps=2)
    out = model(torch.randn(2, 3, side, side))
    sum(logits.square().mean() for logits in (out.logits, *out.aux)).backward()
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert not [key for key, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0]


@every_model
@pytest.mark.parametrize("side", [97, 101, 127, 193, 251])
def test_odd_sizes_run_or_are_answered_with_sizes_that_run(name: str, side: int) -> None:
    model = build(name).eval()
    rule = size_rule_of(model)
    if rule.is_legal(side):
        assert model(torch.zeros(1, 3, side, side)).logits.shape[2] == rule.output(side)
        return
    with pytest.raises(RequestError, match=rf"height {side} \(nearest legal: .*{rule.at_least(side)}"):
        model(torch.zeros(1, 3, side, side))
    with torch.no_grad():
        for legal in {rule.at_least(side), rule.at_most(side)}:
            assert model(torch.zeros(1, 3, legal, legal)).logits.shape[2] == rule.output(legal)


@every_model
def test_weights_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    model = build(name).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    torch.manual_seed(99)
    given = {"weights": tmp_path / "w.safetensors", **model_info(name).debug}
    twin = create_model(name, num_classes=3, in_channels=3, **given).eval()
    side = smallest(model)
    image = torch.randn(1, 3, side, side)
    with torch.no_grad():
        assert torch.equal(model(image).logits, twin(image).logits)


@every_model
def test_seed_decides_the_initialisation(name: str) -> None:
    first, second = build(name).state_dict(), build(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_model
def test_export_agrees(name: str) -> None:
    model = build(name).eval()
    side = smallest(model)
    image = torch.randn(1, 3, side, side)
    program = torch.export.export(model, (image,)).module()
    with torch.no_grad():
        torch.testing.assert_close(program(image).logits, model(image).logits, rtol=1e-4, atol=1e-5)


@every_model
def test_catalogue_and_parameter_count(name: str) -> None:
    info = model_info(name)
    assert info.family
    assert info.paper
    assert 1990 < info.year < 2030
    assert info.fidelity in ("verified", "reconstructed", "ours")
    assert describe(name, num_classes=2, in_channels=3).parameters == PARAMETERS[name]


@every_model
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_channels_and_classes(name: str, channels: int) -> None:
    model = build(name, num_classes=1, in_channels=channels).eval()
    side = smallest(model)
    assert model(torch.zeros(1, channels, side, side)).logits.shape[1] == 1
