"""What every model owes, whichever paper it comes from."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pixelwise.engine.describe import describe
from pixelwise.engine.fold import fold_batch_norm
from pixelwise.engine.model_file import build_twin
from pixelwise.errors import RequestError
from pixelwise.models import create_model, list_models, model_info
from pixelwise.structures import ClassificationOutput, SegmentationOutput, aux_weights_of, size_rule_of

# Counted at full size on the meta device, two classes, three channels.
PARAMETERS = {
    "unet": 31_031_810,
    "unet_padded": 31_031_810,
    "unet_small": 1_942_594,
    "unet_efficientnet_lite0": 3_694_530,
    "unet_timm": 12_412_162,
    "deeplabv3_efficientnet_lite0": 4_415_682,
    "efficientnet_lite0": 3_373_570,
    "fcn32s_vgg16": 134_268_738,
    "fcn16s_vgg16": 134_269_764,
    "fcn8s_vgg16": 134_270_278,
    "fcn8s_vgg16_atonce": 134_270_278,
    "fcn_alexnet": 56_876_418,
    "fcn_googlenet": 5_975_602,
    "crfrnn_fcn8s_vgg16": 134_270_420,
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
    "deeplabv2_resnet101": 42_647_624,
    "deeplabv2_resnet101_msc": 42_647_624,
    "deeplabv3_resnet50": 39_043_650,
    "deeplabv3_resnet101": 58_035_778,
    "deeplabv3_cascade_resnet50": 63_675_458,
    "deeplabv3_cascade_resnet101": 82_667_586,
    "drn_a_18": 11_177_538,
    "drn_a_34": 21_285_698,
    "drn_a_50": 23_512_130,
    "drn_b_26": 20_614_610,
    "drn_c_26": 20_614_610,
    "drn_c_42": 30_722_770,
    "drn_c_58": 41_079_634,
    "drn_d_22": 15_881_778,
    "drn_d_38": 25_989_938,
    "drn_d_54": 35_297_202,
    "drn_d_105": 54_289_330,
    "drnseg_a_50": 23_512_130,
    "drnseg_c_26": 20_614_610,
    "drnseg_c_42": 30_722_770,
    "drnseg_d_22": 15_881_778,
    "drnseg_d_38": 25_989_938,
    "drnseg_d_54": 35_297_202,
    "drnseg_d_105": 54_289_330,
    "hypercolumn_vgg16": 14_717_634,
    "alexnet": 57_012_034,
    "caffenet": 56_876_418,
    "vgg16": 134_268_738,
    "googlenet": 5_975_602,
    "resnet50": 23_512_130,
    "resnet101": 42_504_258,
    "resnet152": 58_147_906,
    "fcn_resnet50": 35_307_588,
    "fcn_resnet101": 54_299_716,
    "pspnet_resnet50": 49_066_948,
    "pspnet_resnet101": 68_059_076,
    "pspnet_resnet152": 83_702_724,
    "pspnet_resnet269": 125_583_300,
    "gcn_resnet50": 23_739_916,
    "gcn_resnet101": 42_732_044,
    "gcn_resnet152": 58_375_692,
    "fusionnet": 78_533_378,
    "fusionnet_small": 1_232_546,
}

# At their debug size these are the network of a sibling, which is run in their place.
TWINS = {
    "drn_a_34": "drn_a_18",
    "drn_c_42": "drn_c_26",
    "drn_d_38": "drn_d_22",
    "drn_d_105": "drn_d_54",
    "drnseg_c_42": "drnseg_c_26",
    "drnseg_d_38": "drnseg_d_22",
    "drnseg_d_105": "drnseg_d_54",
    "deeplabv3_resnet101": "deeplabv3_resnet50",
    "deeplabv3_cascade_resnet101": "deeplabv3_cascade_resnet50",
    "fcn_resnet101": "fcn_resnet50",
    "pspnet_resnet101": "pspnet_resnet50",
    "pspnet_resnet152": "pspnet_resnet50",
    "pspnet_resnet269": "pspnet_resnet50",
    "gcn_resnet101": "gcn_resnet50",
    "gcn_resnet152": "gcn_resnet50",
    "fusionnet_small": "fusionnet",
    "resnet101": "resnet50",
    "resnet152": "resnet50",
}

# Exported among the slow tests: of a class, and so with a `forward`, that its sibling exports among the fast ones.
EXPORTED_BY_KIN = {
    "unet": "unet_small",
    "unet_padded": "unet_small",
    "unet_efficientnet_lite0": "unet_timm",  # its encoder is exported in deeplabv3_efficientnet_lite0
    "fcn8s_vgg16_atonce": "fcn8s_vgg16",
    "segnet_vgg16": "bayesian_segnet_vgg16",
    "segnet_basic": "bayesian_segnet_basic",
    "dilated_frontend_vgg16": "dilation10_cityscapes",
    "dilation8_voc": "dilation10_cityscapes",
    "dilation8_camvid": "dilation10_cityscapes",
    "dilation7_kitti": "dilation10_cityscapes",
    "deeplabv1_vgg16_7x7": "deeplabv1_vgg16_4x4_r8",
    "deeplabv1_vgg16_4x4_r4": "deeplabv1_vgg16_4x4_r8",
    "deeplabv2_vgg16_largefov": "deeplabv1_vgg16_largefov",
    "deeplabv2_vgg16_aspp_s": "deeplabv2_vgg16_aspp_l",
    "drn_a_50": "drn_a_18",
    "drn_b_26": "drn_d_22",
    "drn_c_26": "drn_d_22",
    "drn_c_58": "drn_d_22",
    "drn_d_54": "drn_d_22",
    "drnseg_a_50": "drnseg_d_22",
    "drnseg_c_26": "drnseg_d_22",
    "drnseg_d_54": "drnseg_d_22",
}

# Estimators are no modules; what they owe is in test_textonboost.py.
NETWORKS = [name for name in list_models() if name not in list_models("classical")]

every_model = pytest.mark.parametrize("name", NETWORKS)
every_network = pytest.mark.parametrize("name", [name for name in NETWORKS if name not in TWINS])


def build(name: str, *, num_classes: int = 3, in_channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    model = create_model(name, num_classes=num_classes, in_channels=in_channels, **model_info(name).debug)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():  # score layers that start at zero hide the rest
            nn.init.normal_(parameter, std=0.1)
    return model


def promised(name: str, model: nn.Module, images: torch.Tensor) -> tuple[int, ...]:
    """Return the shape that the logits owe."""
    if model_info(name).task == "classification":
        return (len(images), 3)
    return (len(images), 3, *(size_rule_of(model).output(side) for side in images.shape[2:]))


def smallest(model: nn.Module, *, steps: int = 1) -> int:
    rule = size_rule_of(model)
    return rule.at_least(max(rule.minimum + steps * rule.step, 32))


@every_network
def test_output_has_one_type_and_the_promised_size_in_both_modes(name: str) -> None:
    model = build(name)
    images = torch.randn(2, 3, smallest(model), smallest(model, steps=2))
    for mode in (model.train(), model.eval()):
        out = mode(images)
        assert out.logits.shape == promised(name, model, images)
        assert out.logits.dtype == torch.float32
        if model_info(name).task == "classification":
            assert isinstance(out, ClassificationOutput)
            continue
        assert isinstance(out, SegmentationOutput)
        assert len(out.aux) == (len(aux_weights_of(model)) if model.training else 0)
        assert all(aux.shape == out.logits.shape for aux in out.aux)


@every_network
def test_gradient_reaches_every_parameter(name: str) -> None:
    model = build(name).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics of the batch would cancel biases before them
            module.eval()
    side = smallest(model, steps=2)
    out = model(torch.randn(2, 3, side, side))
    sum(logits.square().mean() for logits in (out.logits, *getattr(out, "aux", ()))).backward()
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert not [key for key, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0]


@lru_cache(maxsize=1)
def in_evaluation(name: str) -> nn.Module:
    """Build a model that several tests in a row share; not to be changed."""
    return build(name).eval()


@pytest.mark.parametrize("side", [97, 101, 127, 193, 251])  # the size changes faster than the network
@every_network
def test_odd_sizes_run_or_are_answered_with_sizes_that_run(name: str, side: int) -> None:
    model = in_evaluation(name)
    rule = size_rule_of(model)
    image = torch.zeros(1, 3, side, side)
    with torch.inference_mode():
        if rule.is_legal(side):
            assert model(image).logits.shape == promised(name, model, image)
            return
        with pytest.raises(RequestError, match=rf"height {side} \(nearest legal: .*{rule.at_least(side)}"):
            model(image)
        for legal in {rule.at_least(side), rule.at_most(side)}:
            image = torch.zeros(1, 3, legal, legal)
            assert model(image).logits.shape == promised(name, model, image)


@every_network
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


@every_network
def test_folded_normalisations_leave_the_function(name: str) -> None:
    model = build(name).double().eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    side = smallest(model)
    image = torch.randn(1, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        wanted = model(image).logits
        assert fold_batch_norm(model) <= len(norms)
        torch.testing.assert_close(model(image).logits, wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))


@every_network
def test_seed_decides_the_initialisation(name: str) -> None:
    first, second = build(name).state_dict(), build(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def exported(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.slow) if EXPORTED_BY_KIN.get(name) in list_models() else name


@pytest.mark.parametrize("name", [exported(name) for name in NETWORKS if name not in TWINS])
def test_export_agrees(name: str) -> None:
    model = build(name).eval()
    side = smallest(model)
    image = torch.randn(1, 3, side, side)
    program = torch.export.export(model, (image,)).module()
    with torch.no_grad():
        torch.testing.assert_close(program(image).logits, model(image).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_its_sibling_in_debug_size(name: str) -> None:
    assert str(build(name)) == str(build(TWINS[name]))


@pytest.mark.parametrize("name", EXPORTED_BY_KIN)
def test_what_exports_in_its_place_is_of_the_same_class(name: str) -> None:
    sibling = EXPORTED_BY_KIN[name]
    if model_info(sibling).requires and sibling not in list_models():
        pytest.skip(f"{model_info(sibling).requires} is not installed")
    assert sibling not in EXPORTED_BY_KIN
    assert type(build(name)) is type(build(sibling))


@every_model
def test_catalogue_and_parameter_count(name: str) -> None:
    info = model_info(name)
    assert info.family
    assert info.paper
    assert 1990 < info.year < 2030
    assert info.fidelity in ("verified", "reconstructed", "ours")
    model = build_twin(name, num_classes=2, in_channels=3, options={})
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.slow
@every_model
def test_description_counts_the_same(name: str) -> None:
    assert describe(name, num_classes=2, in_channels=3).parameters == PARAMETERS[name]


@every_network
@pytest.mark.parametrize("channels", [1, pytest.param(3, marks=pytest.mark.slow), 5])
def test_any_number_of_channels_and_classes(name: str, channels: int) -> None:
    model = build(name, num_classes=1, in_channels=channels).eval()
    side = smallest(model)
    with torch.inference_mode():
        assert model(torch.zeros(1, channels, side, side)).logits.shape[1] == 1
