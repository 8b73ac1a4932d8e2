"""Which classifier fills the trunk of which network, and with which numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pixelwise.backbones.trunk import Source, class_layers, take_trunk
from pixelwise.errors import RequestError
from pixelwise.models import create_model, list_models, model_info

META = torch.device("meta")


def classifier(name: str, **options: Any) -> Source:
    with META:
        few, more = (create_model(name, num_classes=count, **options) for count in (3, 4))
    weights = {key: torch.empty(value.shape, device="meta") for key, value in few.state_dict().items()}
    return Source(name=name, weights=weights, head=class_layers(few, more), network=few)


def target(name: str, **options: Any) -> nn.Module:
    with META:
        return create_model(name, num_classes=5, **options)


def kin(source: Source, names: list[str], networks: dict[str, nn.Module]) -> list[str]:
    found = []
    for name in names:
        try:
            take_trunk(source, networks[name], name=name)
        except RequestError:
            continue
        found.append(name)
    return found


# Networks at full size with the classifiers that are their trunk; all others must be refused.
KIN = {
    "vgg16": {
        *("fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16", "fcn8s_vgg16_atonce", "deconvnet_vgg16", "edeconvnet"),
        *("segnet_vgg16", "bayesian_segnet_vgg16", "dilated_frontend_vgg16", "dilation8_voc", "dilation8_camvid"),
        *("dilation7_kitti", "dilation10_cityscapes", "deeplabv1_vgg16_largefov", "deeplabv1_vgg16_7x7"),
        *("deeplabv1_vgg16_4x4_r4", "deeplabv1_vgg16_4x4_r8", "deeplabv1_vgg16_msc_largefov", "hypercolumn_vgg16"),
        *("deeplabv2_vgg16_largefov", "deeplabv2_vgg16_aspp_s", "deeplabv2_vgg16_aspp_l"),
    },
    "alexnet": set(),
    "caffenet": {"fcn_alexnet"},
    "googlenet": {"fcn_googlenet"},
    "resnet50": {"fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_cascade_resnet50", "gcn_resnet50"},
    "drn_b_26": set(),
    "drn_c_26": {"drnseg_c_26"},
    "drn_d_22": {"drnseg_d_22"},
    "drn_d_54": {"drnseg_d_54"},
    "efficientnet_lite0": {"unet_efficientnet_lite0", "deeplabv3_efficientnet_lite0"},
}
NETWORKS = sorted({*set().union(*KIN.values()), "unet_small", "fusionnet_small", "pspnet_resnet50", "drnseg_a_50"})


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    return {name: target(name) for name in NETWORKS}


@pytest.mark.parametrize("name", KIN)
def test_a_classifier_fits_its_kin_and_no_other(name: str, networks: dict[str, nn.Module]) -> None:
    assert set(kin(classifier(name), NETWORKS, networks)) == KIN[name]


@pytest.mark.parametrize(
    ("name", "options", "network"),
    [
        ("resnet50", {"stem": "deep"}, "pspnet_resnet50"),
        ("resnet101", {"stride_on": "1x1"}, "deeplabv2_resnet101"),
        ("resnet101", {"stride_on": "1x1"}, "deeplabv2_resnet101_msc"),
        ("resnet50", {"output_stride": 8}, "deeplabv3_resnet50"),
        ("drn_a_50", {}, "drnseg_a_50"),
    ],
)
def test_forms_that_only_options_give(name: str, options: dict[str, Any], network: str) -> None:
    taken = take_trunk(classifier(name, **options), target(network), name=network)
    assert taken.left == ("fc.bias", "fc.weight")


@pytest.mark.parametrize(
    ("name", "network", "said"),
    [
        ("resnet101", "deeplabv2_resnet101", r"stride of a block lies on another layer .* layer2\.0\.conv1: 1 and 2"),
        ("resnet50", "deeplabv3_resnet101", r"layer3\.6\..* is not in the classifier, which has fewer layers"),
        ("resnet101", "deeplabv3_resnet50", r"backbone\.layer3\.6\.conv1\.weight, .* is not there"),
        ("drn_b_26", "drnseg_c_26", r"layer7\.0 has residual=True and base\.9\.0 residual=False"),
        ("alexnet", "fcn_alexnet", r"no layer has a name in common.*caffenet"),
    ],
)
def test_what_is_no_trunk_is_told_why(name: str, network: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        take_trunk(classifier(name), target(network), name=network)


def test_numbers_are_the_classifiers_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    vgg, more = (create_model("vgg16", num_classes=count, base_channels=2) for count in (3, 4))
    network = create_model("fcn8s_vgg16", num_classes=5, base_channels=2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    weights = {key: torch.randn_like(value) for key, value in vgg.state_dict().items()}
    source = Source(name="vgg16", weights=weights, head=class_layers(vgg, more), network=vgg)
    taken = take_trunk(source, network, name="fcn8s_vgg16")
    after = network.state_dict()
    assert torch.equal(after["conv1_1.weight"], weights["features.0.weight"])
    assert torch.equal(after["conv5_3.bias"], weights["features.28.bias"])
    assert torch.equal(after["fc6.weight"].flatten(1), weights["classifier.0.weight"])
    assert all(torch.equal(after[key], before[key]) for key in taken.new)
    assert taken.left == ("classifier.6.bias", "classifier.6.weight")
    assert sorted({*taken.taken, *taken.new}) == sorted(after)


def test_a_refused_network_is_unchanged() -> None:
    vgg, more = (create_model("vgg16", num_classes=count, base_channels=2) for count in (3, 4))
    network = create_model("fcn8s_vgg16", num_classes=5, base_channels=4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    source = Source(name="vgg16", weights=vgg.state_dict(), head=class_layers(vgg, more), network=vgg)
    with pytest.raises(RequestError, match=r"0 of 26 tensors fit; conv1_1\.weight, \(2, 3, 3, 3\) .*\(4, 3, 3, 3\)"):
        take_trunk(source, network, name="fcn8s_vgg16")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_head_of_every_classifier_is_its_class_layer() -> None:
    for name in list_models("classification"):
        debug = model_info(name).debug
        with META:
            few, more = (create_model(name, num_classes=count, **debug) for count in (3, 4))
        assert {key.rpartition(".")[2] for key in class_layers(few, more)} == {"weight", "bias"}, name
        assert len(class_layers(few, more)) == 2, name
