"""DeepLab v3 held to the numbers of its paper, and to torchvision's network where the two share an architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelwise.engine.describe import describe
from pixelwise.errors import RequestError
from pixelwise.models.deeplabv3 import ASPP, DeepLabV3, deeplabv3_resnet50, deeplabv3_resnet101
from pixelwise.models.deeplabv3_cascade import cascade_plan, deeplabv3_cascade_resnet50, deeplabv3_cascade_resnet101

NARROW = {"base_channels": 2, "blocks": (1, 1, 2, 3)}


def meta(build: type, **options: object) -> nn.Module:
    with torch.device("meta"):
        return build(**{"num_classes": 21, **options}).eval()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def awake(model: nn.Module) -> nn.Module:
    """Give normalisations statistics that are not those of a fresh network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def rates(stage: nn.Module) -> list[int]:
    return [unit.conv2.dilation[0] for unit in stage]


def pyramid_of(model: nn.Module) -> ASPP:
    pyramid = model.get_submodule("classifier.0")
    assert isinstance(pyramid, ASPP)
    return pyramid


@pytest.mark.parametrize(("build", "parameters"), [(deeplabv3_resnet50, 39_048_533), (deeplabv3_resnet101, 58_040_661)])
def test_parameter_counts(build: type, parameters: int) -> None:
    model = meta(build)
    assert count(model) == parameters
    assert count(pyramid_of(model)) == 15_535_104
    assert count(model.get_submodule("classifier.1")) == 5_397


@pytest.mark.parametrize(("side", "stride", "cells"), [(513, 16, 33), (513, 8, 65), (769, 16, 49), (769, 8, 97)])
def test_cells_of_the_published_crops(side: int, stride: int, cells: int) -> None:
    model = meta(deeplabv3_resnet50, output_stride=stride, **NARROW)
    seen: list[torch.Size] = []
    model.classifier.register_forward_hook(lambda _module, _given, scores: seen.append(scores.shape))
    assert model(torch.zeros(1, 3, side, side, device="meta")).logits.shape == (1, 21, side, side)
    assert seen == [(1, 21, cells, cells)]


@pytest.mark.parametrize(
    ("stride", "layer3", "layer4", "pyramid"),
    [
        (16, [1] * 6, [2, 4, 8], [6, 12, 18]),
        (8, [2] * 6, [4, 8, 16], [12, 24, 36]),
        (32, [1] * 6, [1, 2, 4], [3, 6, 9]),
    ],
)
def test_rates_follow_the_output_stride(stride: int, layer3: list[int], layer4: list[int], pyramid: list[int]) -> None:
    model = meta(deeplabv3_resnet50, output_stride=stride)
    assert rates(model.backbone.layer3) == layer3
    assert rates(model.backbone.layer4) == layer4
    assert [branch[0].dilation[0] for branch in list(pyramid_of(model).convs)[1:4]] == pyramid


def test_another_output_stride_has_the_same_weights() -> None:
    """Trained at 16 and tested at 8: same names and shapes, and almost the same scores where both have cells."""
    torch.manual_seed(0)
    coarse = awake(deeplabv3_resnet50(num_classes=3, **NARROW))
    fine = deeplabv3_resnet50(num_classes=3, output_stride=8, **NARROW).eval()
    fine.load_state_dict(coarse.state_dict())
    image = torch.randn(1, 3, 97, 129)
    with torch.no_grad():
        first, second = coarse(image).logits, fine(image).logits
    assert first.shape == second.shape
    assert not torch.equal(first, second)
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert correlation > 0.5


def test_doubled_rates_see_the_same_cells() -> None:
    """A trunk of output stride 8 has that of 16 on every second cell, where multi-grid and pyramid look as far."""
    torch.manual_seed(0)
    options = {**NARROW, "multi_grid": (1, 1, 1), "dropout": 0.0}
    coarse = awake(deeplabv3_resnet50(num_classes=3, **options))
    fine = deeplabv3_resnet50(num_classes=3, output_stride=8, **options).eval()
    fine.load_state_dict(coarse.state_dict())
    x = torch.randn(1, 64, 33, 41)
    with torch.no_grad():
        wide, narrow = (pyramid_of(model).convs[1](y) for model, y in ((fine, x), (coarse, x[:, :, ::2, ::2])))
    torch.testing.assert_close(wide[:, :, ::2, ::2], narrow, rtol=1e-4, atol=1e-5)


def test_the_pyramid_concatenates_five_branches() -> None:
    torch.manual_seed(0)
    pyramid = awake(ASPP(8, 4, rates=(1, 2, 3), dropout=0.1))
    x = torch.randn(2, 8, 9, 11)
    with torch.no_grad():
        branches = [branch(x) for branch in pyramid.convs]
        torch.testing.assert_close(pyramid(x), pyramid.project(torch.cat(branches, dim=1)))
    assert [branch.shape for branch in branches] == [(2, 4, 9, 11)] * 5
    assert torch.equal(branches[4][:, :, :1, :1].expand(-1, -1, 9, 11), branches[4])


@pytest.mark.parametrize("build", [deeplabv3_resnet50, deeplabv3_resnet101])
def test_names_are_torchvisions(build: type) -> None:
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    with torch.device("meta"):
        theirs = getattr(segmentation, build.__name__)(weights=None, weights_backbone=None, aux_loss=True)
    assert {key: value.shape for key, value in meta(build, head="torchvision").state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


def peer(blocks: tuple[int, ...]) -> nn.Module:
    """Build torchvision's network with other numbers of units and statistics of a trained one."""
    deeplabv3 = pytest.importorskip("torchvision.models.segmentation.deeplabv3")
    torch.manual_seed(0)
    dilated = [False, True, True]
    resnet = pytest.importorskip("torchvision.models.resnet")
    trunk = resnet.ResNet(resnet.Bottleneck, list(blocks), replace_stride_with_dilation=dilated)
    backbone = deeplabv3.IntermediateLayerGetter(trunk, return_layers={"layer4": "out", "layer3": "aux"})
    head, aux = deeplabv3.DeepLabHead(2048, 5), deeplabv3.FCNHead(1024, 5)
    return awake(deeplabv3.DeepLabV3(backbone, head, aux))


@pytest.mark.parametrize("blocks", [(1, 1, 2, 2), pytest.param((3, 4, 6, 3), marks=pytest.mark.slow)])
def test_logits_are_torchvisions(blocks: tuple[int, ...]) -> None:
    """The whole network with random weights, names unchanged; 1e-5 of the largest logit."""
    theirs = peer(blocks)
    with torch.device("meta"):
        ours = deeplabv3_resnet50(num_classes=5, head="torchvision", blocks=blocks)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    image = torch.randn(1, 3, 60, 75)
    with torch.no_grad():
        wanted = theirs(image)
        ours.eval().training = True  # for the auxiliary logits; its layers stay in evaluation
        found = ours(image)
    assert (found.logits - wanted["out"]).abs().max() < 1e-5 * wanted["out"].abs().max()
    assert (found.aux[0] - wanted["aux"]).abs().max() < 1e-5 * wanted["aux"].abs().max()
    assert ours.aux_weights == (0.5,)


def test_initialisation() -> None:
    """The trunk from N(0, 2 / fan_out); pyramid and classifier as PyTorch's layers, evenly within 1 / sqrt(fan_in)."""
    torch.manual_seed(0)
    model = deeplabv3_resnet50(num_classes=30, base_channels=16, blocks=(1, 1, 1, 1))
    trunk = model.get_parameter("backbone.layer4.0.conv2.weight")
    assert trunk.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    pyramid = pyramid_of(model)
    for weight in (pyramid.convs[1][0].weight, pyramid.project[0].weight, model.get_parameter("classifier.1.weight")):
        bound = weight[0].numel() ** -0.5
        assert 0.95 * bound < weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_torchvisions_head_is_one_convolution_more() -> None:
    assert count(meta(deeplabv3_resnet101, head="torchvision", aux=False)) == 58_630_997 == 58_040_661 + 590_336


def test_receptive_field_is_the_whole_image() -> None:
    facts = describe("deeplabv3_resnet50", num_classes=21, **NARROW)
    assert facts.receptive_field is None
    assert facts.output_stride == 16
    assert facts.output_size == [513, 513]


@pytest.mark.parametrize(
    ("build", "parameters"),
    [(deeplabv3_cascade_resnet50, 63_714_389), (deeplabv3_cascade_resnet101, 82_706_517)],
)
def test_cascade_counts(build: type, parameters: int) -> None:
    model = meta(build)
    assert count(model) == parameters
    assert [count(model.get_submodule(f"block{number}")) for number in (5, 6, 7)] == [13_387_776] * 3
    projected = meta(build, projection=True, last_block=5, blocks=(1, 1, 1, 3))
    assert count(projected.get_submodule("block5")) == 17_586_176
    assert not [name for name, _ in meta(build, last_block=4, blocks=(1, 1, 1, 3)).named_children() if "block" in name]


@pytest.mark.parametrize(
    ("stride", "grid", "wanted"),
    [
        (16, (1, 1, 1), {"backbone.layer4": [2, 2, 2], "block5": [4] * 3, "block6": [8] * 3, "block7": [16] * 3}),
        (16, (1, 2, 1), {"backbone.layer4": [2, 4, 2], "block5": [4, 8, 4], "block7": [16, 32, 16]}),
        (8, (1, 2, 1), {"backbone.layer3": [2] * 6, "backbone.layer4": [4, 8, 4], "block7": [32, 64, 32]}),
        (32, (1, 1, 1), {"backbone.layer4": [1] * 3, "block5": [2] * 3, "block7": [8] * 3}),
        (256, (1, 1, 1), {"backbone.layer4": [1] * 3, "block5": [1] * 3, "block7": [1] * 3}),
    ],
)
def test_cascade_rates(stride: int, grid: tuple[int, ...], wanted: dict[str, list[int]]) -> None:
    model = meta(deeplabv3_cascade_resnet50, output_stride=stride, multi_grid=grid)
    assert {name: rates(model.get_submodule(name)) for name in wanted} == wanted


@pytest.mark.parametrize("stride", [8, 16, 32, 64, 128, 256])
def test_cascade_strides_leave_the_state_alone(stride: int) -> None:
    """The paper's study of output strides, one set of weights for all."""
    model = meta(deeplabv3_cascade_resnet50, output_stride=stride, **NARROW)
    reference = meta(deeplabv3_cascade_resnet50, **NARROW)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in reference.state_dict().items()
    }
    seen: list[torch.Size] = []
    model.classifier.register_forward_hook(lambda _module, _given, scores: seen.append(scores.shape))
    assert model(torch.zeros(1, 3, 513, 257, device="meta")).logits.shape == (1, 21, 513, 257)
    assert seen == [(1, 21, 512 // stride + 1, 256 // stride + 1)]


def test_a_coarser_shortcut_takes_every_second_cell() -> None:
    torch.manual_seed(0)
    strided = awake(deeplabv3_cascade_resnet50(num_classes=2, output_stride=64, last_block=5, **NARROW))
    dense = deeplabv3_cascade_resnet50(num_classes=2, output_stride=32, last_block=5, **NARROW).eval()
    dense.load_state_dict(strided.state_dict())
    x = torch.randn(1, 64, 9, 9)
    with torch.no_grad():
        one, other = strided.get_submodule("block5.0"), dense.get_submodule("block5.0")
        assert torch.equal(one.downsample(x), x[:, :, ::2, ::2])
        other.conv2.dilation, other.conv2.padding = (1, 1), (1, 1)
        torch.testing.assert_close(one(x), other(x)[:, :, ::2, ::2])


def test_cascade_plan_ends_where_it_is_told() -> None:
    assert cascade_plan(8, 7) == [(1, 8), (1, 16), (1, 32)]
    assert cascade_plan(128, 7) == [(2, 1), (2, 1), (1, 2)]
    assert cascade_plan(16, 4) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "aspp"}, "head='aspp'; accepted: 'paper', 'torchvision', 'smp'"),
        ({"rates": ()}, r"rates=\[\]; accepted: whole numbers from 1"),
        ({"rates": (6, 0.5)}, r"rates=\[6, 0\.5\]; accepted"),
        ({"dropout": 1.0}, "dropout=1.0; accepted: 0 up to"),
        ({"output_stride": 4}, "output_stride=4; accepted: 8, 16, 32"),
        ({"multi_grid": (0,)}, r"multi_grid=\[0\]; accepted"),
    ],
)
def test_impossible_values(options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        meta(deeplabv3_resnet50, **NARROW, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last_block": 8}, "last_block=8; accepted: 4 to 7"),
        ({"output_stride": 4}, "output_stride=4 with last_block=7; accepted: 8, 16, 32, 64, 128, 256"),
        ({"output_stride": 128, "last_block": 5}, "output_stride=128 with last_block=5; accepted: 8, 16, 32, 64. "),
    ],
)
def test_impossible_cascades(options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        meta(deeplabv3_cascade_resnet50, **NARROW, **options)


def test_wrong_channels() -> None:
    for build in (deeplabv3_resnet50, deeplabv3_cascade_resnet50):
        model = meta(build, **NARROW)
        assert isinstance(model, DeepLabV3) == (build is deeplabv3_resnet50)
        with pytest.raises(RequestError, match=r"1 channels, shape \(1, 1, 9, 9\); this model was built for 3"):
            model(torch.zeros(1, 1, 9, 9, device="meta"))
