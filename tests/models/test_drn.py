"""DRN held to the numbers of its paper and release, and to torchvision's ResNet; see weights/test_drn_parity.py too."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet

from pixelwise.backbones.drn import BasicBlock
from pixelwise.engine.describe import describe
from pixelwise.engine.layer_table import layer_table, receptive_fields
from pixelwise.errors import RequestError
from pixelwise.models import create_model, list_models, model_info
from pixelwise.models.drn import DRN
from pixelwise.models.drnseg import DRNSeg

TWO_MORE = {"drn_d_22": 24, "drn_d_38": 40, "drn_d_54": 56, "drn_d_105": 107}
BLOCKS = {
    "drn_d_22": (1, 1, 2, 2, 2, 2, 2, 2),
    "drn_d_38": (1, 1, 3, 4, 6, 3, 2, 2),
    "drn_d_54": (1, 1, 3, 4, 6, 3, 2, 2),
    "drn_d_105": (1, 1, 3, 4, 23, 3, 2, 2),
}


def classifier(name: str, **options: object) -> DRN:
    model = create_model(name, **{"num_classes": 1000, **options})
    assert isinstance(model, DRN)
    return model


def segmenter(name: str, **options: object) -> DRNSeg:
    model = create_model(name, **{"num_classes": 19, **options})
    assert isinstance(model, DRNSeg)
    return model


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "options", "whole", "backbone", "head"),
    [
        ("drn_a_18", {}, 11_689_512, 11_176_512, 11_186_259),
        ("drn_a_34", {}, 21_797_672, 21_284_672, 21_294_419),
        ("drn_a_50", {}, 25_557_032, 23_508_032, 23_546_963),
        ("drn_b_26", {}, 21_126_584, 20_613_584, 20_623_331),
        ("drn_c_26", {}, 21_126_584, 20_613_584, 20_623_331),
        ("drn_c_42", {}, 31_234_744, 30_721_744, 30_731_491),
        ("drn_c_58", {}, 41_591_608, 41_078_608, 41_088_355),
        ("drn_d_22", {}, 16_393_752, 15_880_752, 15_890_499),
        ("drn_d_38", {}, 26_501_912, 25_988_912, 25_998_659),
        ("drn_d_54", {}, 35_809_176, 35_296_176, 35_305_923),
        ("drn_d_105", {}, 54_801_304, 54_288_304, 54_298_051),
        ("drn_d_22", {"blocks": BLOCKS["drn_d_22"]}, 21_114_392, 20_601_392, 20_611_139),
        ("drn_d_38", {"blocks": BLOCKS["drn_d_38"]}, 31_222_552, 30_709_552, 30_719_299),
        ("drn_d_54", {"blocks": BLOCKS["drn_d_54"]}, 40_529_816, 40_016_816, 40_026_563),
        pytest.param(
            "drn_d_105",
            {"blocks": BLOCKS["drn_d_105"]},
            59_521_944,
            59_008_944,
            59_018_691,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_parameter_counts(name: str, options: dict[str, object], whole: int, backbone: int, head: int) -> None:
    with torch.device("meta"):
        model = classifier(name, **options)
        assert count(model) == whole
        assert count(model) - count(model.fc) == backbone
        assert count(classifier(name, **options, num_classes=19)) == head  # 1x1 or linear, the same number
        if name.replace("drn", "drnseg") in list_models():
            twin = segmenter(name.replace("drn", "drnseg"), **options)
            assert count(twin) == head
            assert dict(twin.named_buffers())["up.weight"].numel() == 256 * 19


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("drn_b_26", 581),
        ("drn_c_26", 581),
        ("drn_c_42", 1045),
        ("drn_c_58", 573),
        ("drn_d_22", 527),
        ("drn_d_38", 991),
        ("drn_d_54", 519),
        ("drn_d_105", 1063),
    ],
)
def test_receptive_field_and_layers(name: str, field: int) -> None:
    with torch.device("meta"):
        model = classifier(name)
        trunk = nn.Sequential(*(model.get_submodule(level) for level in model.levels))
    assert receptive_fields(layer_table(trunk, in_channels=3, input_size=(224, 224)), axis=0, period=1) == [field]
    assert convolutions(model) == int(name.split("_")[-1])


def test_a_classifier_sees_the_whole_image() -> None:
    about = describe("drn_a_18", num_classes=1000)
    assert (about.receptive_field, about.output_stride) == (None, 8)


@pytest.mark.parametrize("name", ["drn_a_18", "drn_a_34", "drn_a_50"])
def test_layers_of_a(name: str) -> None:
    with torch.device("meta"):
        assert convolutions(classifier(name)) == int(name[-2:]) - 1  # and the linear one


@pytest.mark.parametrize("name", TWO_MORE)
def test_names_of_the_release_count_layers(name: str) -> None:
    with torch.device("meta"):
        assert convolutions(classifier(name, blocks=BLOCKS[name])) == TWO_MORE[name]


def convolutions(model: nn.Module) -> int:
    """Count the convolutions but for those on shortcuts, which give the networks their numbers."""
    return sum(isinstance(m, nn.Conv2d) and "downsample" not in key for key, m in model.named_modules())


def test_plan_of_the_levels() -> None:
    with torch.device("meta"):
        maps = classifier("drn_c_26").level_maps(torch.zeros(1, 3, 224, 224))
        assert [tuple(level.shape[1:]) for level in maps] == [
            (16, 224, 224),
            (32, 112, 112),
            (64, 56, 56),
            (128, 28, 28),
            (256, 28, 28),
            (512, 28, 28),
            (512, 28, 28),
            (512, 28, 28),
        ]
        maps = classifier("drn_d_54").level_maps(torch.zeros(1, 3, 224, 224))
        assert [level.shape[1] for level in maps] == [16, 32, 256, 512, 1024, 2048, 512, 512]
        maps = classifier("drn_a_50").level_maps(torch.zeros(1, 3, 224, 224))
        assert [tuple(level.shape[1:]) for level in maps] == [
            (256, 56, 56),
            (512, 28, 28),
            (1024, 28, 28),
            (2048, 28, 28),
        ]


def dilations(model: DRN, level: str) -> list[int]:
    layers = model.get_submodule(level).named_modules()
    return [m.dilation[0] for key, m in layers if isinstance(m, nn.Conv2d) and m.kernel_size[0] == 3]


def test_dilations() -> None:
    with torch.device("meta"):
        for name in ("drn_b_26", "drn_c_26"):
            model = classifier(name)
            assert [set(dilations(model, f"layer{level}")) for level in range(4, 9)] == [{1}, {2}, {4}, {2}, {1}]
        code, paper = classifier("drn_a_18"), classifier("drn_a_18", first_dilation="paper")
        assert (dilations(code, "layer3"), dilations(code, "layer4")) == ([1, 1, 2, 2], [1, 1, 4, 4])
        assert (dilations(paper, "layer3"), dilations(paper, "layer4")) == ([1, 2, 2, 2], [2, 4, 4, 4])
        code, paper = classifier("drn_a_50"), classifier("drn_a_50", first_dilation="paper")
        assert (dilations(code, "layer3"), dilations(code, "layer4")) == ([1, 2, 2, 2, 2, 2], [1, 4, 4])
        assert (dilations(paper, "layer3"), dilations(paper, "layer4")) == ([1, 2, 2, 2, 2, 2], [2, 4, 4])


@pytest.mark.parametrize(("name", "block"), [("drn_a_18", resnet.BasicBlock), ("drn_a_50", resnet.Bottleneck)])
def test_a_as_the_paper_says_is_resnet_on_a_finer_grid(
    name: str, block: type[resnet.BasicBlock | resnet.Bottleneck]
) -> None:
    torch.manual_seed(0)
    blocks = (1, 1, 2, 2)
    strided = resnet.ResNet(block, list(blocks), num_classes=4).eval()
    with torch.device("meta"):
        model = classifier(name, num_classes=4, blocks=blocks, first_dilation="paper").eval()
    model.load_state_dict(strided.state_dict(), assign=True)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        coarse = nn.Sequential(*list(strided.children())[:-2])(image)  # (1, channels, 3, 2)
        fine = model.level_maps(image)[-1]  # (1, channels, 12, 8)
    torch.testing.assert_close(fine[:, :, ::4, ::4], coarse, rtol=1e-5, atol=1e-5 * float(coarse.abs().max()))


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = segmenter("drnseg_d_22", num_classes=200, base_channels=8)
    for key, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            out, _, height, width = module.weight.shape
            assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / (height * width * out)), rel=0.05)
            assert (module.bias is None) == (key != "seg")
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert not module.bias.any()
    assert model.seg.bias is not None
    assert not model.seg.bias.any()


def narrow(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, **{"num_classes": 3, **model_info(name).debug, **options}).eval()


@pytest.mark.parametrize("name", ["drn_a_18", "drn_c_26", "drn_d_22"])
@pytest.mark.parametrize("size", [(217, 224), (40, 72), (9, 33)])
def test_logits_are_the_mean_of_the_class_maps(name: str, size: tuple[int, int]) -> None:
    model = narrow(name)
    image = torch.randn(2, 3, *size)
    maps = model.class_maps(image)
    assert maps.shape == (2, 3, math.ceil(size[0] / 8), math.ceil(size[1] / 8))
    torch.testing.assert_close(model(image).logits, maps.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_a_small_image_is_refused() -> None:
    with pytest.raises(RequestError, match=r"height 8 \(nearest legal: 9\).*any side, from 9"):
        narrow("drn_c_26")(torch.zeros(1, 3, 8, 16))


@pytest.mark.parametrize("upsampling", ["deconvolution", "bilinear"])
def test_sizes_that_are_no_multiples_of_8_are_cut(upsampling: str) -> None:
    model = narrow("drnseg_c_26", upsampling=upsampling)
    image = torch.randn(1, 3, 37, 50)
    with torch.no_grad():
        pixels = model.up(model.cells(image))
        assert pixels.shape == (1, 3, 40, 56)
        assert torch.equal(model(image).logits, pixels[:, :, :37, :50])


def test_upsampling() -> None:
    cells = torch.zeros(1, 3, 4, 4)
    cells[0, 1, 1, 2] = 1
    fixed: Tensor = narrow("drnseg_c_26").up(cells)
    profile = 1 - (torch.arange(32) - (8 + 3.5)).abs() / 8  # cell 1 lies at 11.5
    torch.testing.assert_close(fixed[0, 1, :, 19], profile.clamp(min=0) * fixed[0, 1, 11, 19] / profile[11])
    assert not fixed[0, (0, 2)].any()
    spread: Tensor = narrow("drnseg_c_26", upsampling="bilinear").up(torch.arange(4.0).view(1, 1, 1, 4))
    torch.testing.assert_close(spread[0, 0, 0], torch.linspace(0, 3, 32))


def test_a_projection_that_does_not_run_is_kept_and_fixed() -> None:
    model = narrow("drn_c_58")
    block = model.layer7[0]
    assert isinstance(block, BasicBlock)
    before = model(torch.ones(1, 3, 32, 32)).logits
    with torch.no_grad():
        for parameter in block.downsample.parameters():
            assert not parameter.requires_grad
            parameter.add_(1)
    assert torch.equal(model(torch.ones(1, 3, 32, 32)).logits, before)


def test_b_is_c_with_all_its_shortcuts() -> None:
    b, c = narrow("drn_b_26"), narrow("drn_c_26")
    c.load_state_dict(b.state_dict())
    image = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        assert not torch.equal(b(image).logits, c(image).logits)
        for level in (c.layer7, c.layer8):
            for block in level:
                block.residual = True
        assert torch.equal(b(image).logits, c(image).logits)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("drn_c_26", {"blocks": (1, 1, 2)}, r"blocks=\[1, 1, 2\]; accepted: 8 whole numbers from 1"),
        ("drn_a_18", {"blocks": (1, 1, 2, 0)}, r"blocks=\[1, 1, 2, 0\]; accepted: 4 whole numbers from 1"),
        ("drn_a_18", {"blocks": (1, 1, 2, 1.5)}, r"blocks=\[1, 1, 2, 1.5\]; accepted: 4 whole numbers from 1"),
        ("drn_d_22", {"base_channels": 0}, "base_channels=0; accepted: whole numbers from 1"),
        ("drn_a_18", {"first_dilation": "both"}, "first_dilation='both'; accepted: 'code' or 'paper'"),
        ("drnseg_d_22", {"upsampling": "nearest"}, "upsampling='nearest'; accepted: 'deconvolution' or 'bilinear'"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        create_model(name, num_classes=2, **options)
