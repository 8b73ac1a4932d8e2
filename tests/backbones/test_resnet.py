"""ResNet: torchvision's function, published counts, and the dilated forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelwise.backbones.resnet import BLOCKS, BasicBlock, Bottleneck, ResNet
from pixelwise.errors import RequestError


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(**options: object) -> ResNet:
    with torch.device("meta"):
        return ResNet(**options)  # type: ignore[arg-type]


def filled(**options: object) -> ResNet:
    """A narrow network with statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    model = ResNet(base_channels=4, **options)  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_classifiers_have_torchvisions_count_and_names(depth: int, parameters: int) -> None:
    models = pytest.importorskip("torchvision.models")
    unit = BasicBlock if depth < 50 else Bottleneck
    model = on_meta(blocks=BLOCKS[depth], unit=unit, num_classes=1000)
    assert count(model) == parameters
    with torch.device("meta"):
        theirs = getattr(models, f"resnet{depth}")()
    assert {key: value.shape for key, value in model.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


# PSPNet's fact sheet, section e: the deep stem adds 123,776 parameters.
@pytest.mark.parametrize(
    ("depth", "trunk", "classifier"),
    [
        (50, 23_631_808, 25_680_808),
        (101, 42_623_936, None),
        (152, 58_267_584, None),
        (269, 100_148_160, 102_197_160),
    ],
)
def test_deep_stem_counts(depth: int, trunk: int, classifier: int | None) -> None:
    assert count(on_meta(blocks=BLOCKS[depth], stem="deep")) == trunk
    if classifier is not None:
        assert count(on_meta(blocks=BLOCKS[depth], stem="deep", num_classes=1000)) == classifier


@pytest.mark.parametrize(("depth", "trunk"), [(50, 23_508_032), (101, 42_500_160), (152, 58_143_808)])
def test_trunk_counts(depth: int, trunk: int) -> None:
    assert count(on_meta(blocks=BLOCKS[depth])) == trunk


def test_classifier_equals_torchvisions() -> None:
    models = pytest.importorskip("torchvision.models")
    theirs = models.resnet.ResNet(models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=7).eval()
    ours = ResNet(blocks=(1, 2, 1, 1), num_classes=7).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("output_stride", "dilated"), [(16, [False, False, True]), (8, [False, True, True])])
def test_dilated_trunk_equals_torchvisions(output_stride: int, dilated: list[bool]) -> None:
    models = pytest.importorskip("torchvision.models")
    theirs = models.resnet.ResNet(
        models.resnet.Bottleneck, [1, 2, 2, 2], num_classes=7, replace_stride_with_dilation=dilated
    ).eval()
    ours = ResNet(blocks=(1, 2, 2, 2), num_classes=7, output_stride=output_stride).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 65, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stride_on", "first_rate"), [("3x3", "previous"), ("1x1", "own")])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_network_agrees_with_the_strided_one_on_its_grid(
    stride_on: str, first_rate: str, output_stride: int
) -> None:
    strided = filled(blocks=(1, 1, 2, 2), stride_on=stride_on)
    dilated = filled(blocks=(1, 1, 2, 2), stride_on=stride_on, output_stride=output_stride, first_rate=first_rate)
    images = torch.randn(1, 3, 97, 129)
    with torch.no_grad():
        step = 32 // output_stride
        torch.testing.assert_close(dilated(images)[:, :, ::step, ::step], strided(images), rtol=1e-5, atol=1e-5)


def test_initialisation() -> None:
    """Convolutions from N(0, 2 / fan_out); normalisations 1 and 0."""
    torch.manual_seed(0)
    model = ResNet(blocks=(1, 1, 1, 1), base_channels=16, stem="deep")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    for name in ("conv3", "layer2.0.conv1", "layer3.0.conv2", "layer4.0.downsample.0"):
        out, _, height, width = layers[name].weight.shape
        assert layers[name].weight.std().item() == pytest.approx((2 / (out * height * width)) ** 0.5, rel=0.05), name
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(bool((norm.weight == 1).all()) and not norm.bias.any() for norm in norms)
    assert not any(layer.bias is not None for layer in layers.values())


def test_output_stride_and_grid_leave_the_state_alone() -> None:
    states = [
        {key: value.shape for key, value in on_meta(blocks=BLOCKS[50], **options).state_dict().items()}
        for options in ({}, {"output_stride": 8}, {"output_stride": 16, "multi_grid": (1, 2, 4), "first_rate": "own"})
    ]
    assert states[0] == states[1] == states[2]


def rates(model: ResNet, stage: str) -> list[int]:
    return [unit.conv2.dilation[0] for unit in model.get_submodule(stage)]


@pytest.mark.parametrize(
    ("options", "layer3", "layer4"),
    [
        ({"output_stride": 8, "first_rate": "own"}, [2] * 6, [4, 4, 4]),  # PSPNet, DeepLab v2
        ({"output_stride": 8}, [1, 2, 2, 2, 2, 2], [2, 4, 4]),  # torchvision
        ({"output_stride": 16, "first_rate": "own", "multi_grid": (1, 2, 4)}, [1] * 6, [2, 4, 8]),  # DeepLab v3
        ({"output_stride": 8, "first_rate": "own", "multi_grid": (1, 2, 4)}, [2] * 6, [4, 8, 16]),
    ],
)
def test_rates_of_the_published_networks(options: dict[str, object], layer3: list[int], layer4: list[int]) -> None:
    model = on_meta(blocks=BLOCKS[50], **options)
    assert rates(model, "layer3") == layer3
    assert rates(model, "layer4") == layer4


# PSPNet's fact sheet, section c: maps of a 473 and a 713 crop.
@pytest.mark.parametrize(("side", "sides"), [(473, (119, 60, 60, 60)), (713, (179, 90, 90, 90))])
def test_maps_of_the_dilated_network(side: int, sides: tuple[int, ...]) -> None:
    model = on_meta(blocks=(1, 1, 1, 1), stem="deep", output_stride=8)
    maps = model.stages(torch.zeros(1, 3, side, side, device="meta"))
    assert tuple(x.shape[3] for x in maps) == sides
    assert [x.shape[1] for x in maps] == [256, 512, 1024, 2048]


def test_stem_widths() -> None:
    deep, v1c = on_meta(blocks=(1, 1, 1, 1), stem="deep"), on_meta(blocks=(1, 1, 1, 1), stem="v1c")
    assert [deep.get_submodule(f"conv{i}").out_channels for i in (1, 2, 3)] == [64, 64, 128]
    assert [v1c.get_submodule(f"conv{i}").out_channels for i in (1, 2, 3)] == [32, 32, 64]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": (3, 4, 6)}, r"blocks=\[3, 4, 6\]; accepted: four"),
        ({"output_stride": 4}, "output_stride=4; accepted: 8, 16, 32"),
        ({"base_channels": 0}, "base_channels=0; accepted: whole numbers from 1"),
        ({"base_channels": 3, "stem": "deep"}, "base_channels=3; accepted: even numbers"),
        ({"stem": "9x9"}, "stem='9x9'; accepted: '7x7', 'deep', 'v1c'"),
        ({"multi_grid": ()}, r"multi_grid=\[\]; accepted"),
    ],
)
def test_impossible_values(options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        on_meta(**{"blocks": (1, 1, 1, 1), **options})
