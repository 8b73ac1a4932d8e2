"""U-Net held to the numbers of its paper and release, and to an independent spelling of the figure."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pixelwise.errors import RequestError
from pixelwise.models import create_model
from pixelwise.models.unet import UNet, centre_crop, size_rule
from pixelwise.structures import size_rule_of


def meta(name: str = "unet", **keywords: object) -> UNet:
    with torch.device("meta"):
        model = create_model(name, **keywords)
    assert isinstance(model, UNet)
    return model


@pytest.mark.parametrize(
    ("keywords", "parameters"),
    [
        ({"in_channels": 1, "num_classes": 2}, 31_030_658),
        ({"in_channels": 1, "num_classes": 1}, 31_030_593),
        ({"in_channels": 3, "num_classes": 2}, 31_031_810),
        ({"in_channels": 3, "num_classes": 21}, 31_033_045),
        ({"in_channels": 1, "num_classes": 2, "release": "phseg_v5"}, 31_100_354),
        ({"in_channels": 1, "num_classes": 1, "base_channels": 32}, 7_759_521),
    ],
)
def test_parameter_counts(keywords: dict[str, object], parameters: int) -> None:
    assert sum(p.numel() for p in meta(**keywords).parameters()) == parameters


def test_padded_variant_is_as_wide_as_the_paper() -> None:
    padded = meta("unet_padded", in_channels=1, num_classes=2)
    assert sum(p.numel() for p in padded.parameters()) == 31_030_658


def test_23_convolutions() -> None:
    model = meta(in_channels=1, num_classes=2)
    up = [m for m in model.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
    flat = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert (len(flat), len(up)) == (19, 4)
    assert [m.kernel_size for m in flat].count((3, 3)) == 18
    assert {m.kernel_size for m in up} == {(2, 2)} == {m.stride for m in up}


@pytest.mark.parametrize(
    ("side", "output"),
    [
        (188, 4),
        (252, 68),
        (316, 132),
        (380, 196),
        (444, 260),
        (508, 324),
        (540, 356),
        (572, 388),
        (636, 452),
        (700, 516),
    ],
)
def test_size_arithmetic_of_the_fact_sheet(side: int, output: int) -> None:
    rule = size_rule(4, 0)
    assert rule.is_legal(side)
    assert rule.output(side) == output
    assert rule.covering(output) == side


def test_572_gives_388_through_the_network() -> None:
    model = meta(in_channels=1, num_classes=2)
    logits, aux = model(torch.zeros(1, 1, 572, 572, device="meta"))
    assert logits.shape == (1, 2, 388, 388)
    assert aux == ()


def test_height_and_width_are_independent() -> None:
    model = create_model("unet", in_channels=2, num_classes=3, base_channels=2).eval()
    assert model(torch.zeros(2, 2, 188, 220)).logits.shape == (2, 3, 4, 36)


def test_spatial_sizes_of_the_figure() -> None:
    """The layer table of Fig. 1: each stage's channels and side."""
    model, seen = meta(in_channels=1, num_classes=2), []
    for module in (*model.down, *model.up, *model.merge):
        module.register_forward_hook(lambda m, a, out: seen.append((out.shape[1], out.shape[2])))
    model(torch.zeros(1, 1, 572, 572, device="meta"))
    contracting = [(64, 568), (128, 280), (256, 136), (512, 64), (1024, 28)]
    expanding = [(512, 56), (512, 52), (256, 104), (256, 100), (128, 200), (128, 196), (64, 392), (64, 388)]
    assert seen == contracting + expanding


def test_crops_of_4_16_40_88() -> None:
    cropped = []
    for skip, up in ((64, 56), (136, 104), (280, 200), (568, 392)):
        ramp = torch.arange(float(skip)).expand(1, 1, skip, skip)
        cropped.append(int(centre_crop(ramp, torch.empty(1, 1, up, up))[0, 0, 0, 0]))
    assert cropped == [4, 16, 40, 88]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_size_rule_is_what_the_network_does(depth: int) -> None:
    """Every legal size runs, loses the margin, and the smallest one leaves the least."""
    model = meta(in_channels=1, num_classes=2, base_channels=1, depth=depth)
    rule = size_rule_of(model)
    assert rule.margin * 2 == 8 * (2**depth - 1) + 4 * 2**depth
    for k in range(3):
        side = rule.minimum + k * rule.step
        assert model(torch.zeros(1, 1, side, side, device="meta")).logits.shape[2] == side - 2 * rule.margin
    assert 0 < rule.output(rule.minimum) <= rule.step


def test_illegal_size_names_the_nearest_legal_ones() -> None:
    model = meta(in_channels=1, num_classes=2)
    with pytest.raises(
        RequestError, match=r"512 x 696 is not legal: height 512 \(nearest legal: 508 or 524\)"
    ) as error:
        model(torch.zeros(1, 1, 512, 696, device="meta"))
    assert "width 696 (nearest legal: 684 or 700)" in str(error.value)
    with pytest.raises(RequestError, match=r"height 100 \(nearest legal: 188\)"):
        model(torch.zeros(1, 1, 100, 572, device="meta"))


def test_wrong_channels_and_axes_are_named() -> None:
    model = meta(in_channels=1, num_classes=2)
    with pytest.raises(RequestError, match=r"3 channels, shape \(1, 3, 572, 572\); this model was built for 1"):
        model(torch.zeros(1, 3, 572, 572, device="meta"))
    with pytest.raises(RequestError, match=r"shape \(1, 572, 572\)"):
        model(torch.zeros(1, 572, 572, device="meta"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"depth": 0}, "depth=0"),
        ({"base_channels": 0}, "base_channels=0"),
        ({"release": "v6"}, "release='v6'"),
    ],
)
def test_impossible_options(options: dict[str, object], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        create_model("unet", num_classes=2, **options)


def test_initialisation_is_sqrt_2_over_n() -> None:
    """Section 3: a 3x3 convolution over 64 channels has N = 576, std 0.0589."""
    torch.manual_seed(0)
    model = create_model("unet", in_channels=1, num_classes=2)
    assert isinstance(model, UNet)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            assert module.bias is not None
            assert torch.count_nonzero(module.bias) == 0
            fan_in = module.weight[0].numel()
            if module.weight.numel() > 20_000:
                assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.02)
    second = model.down[0][2]
    assert second.weight[0].numel() == 576
    assert second.weight.std().item() == pytest.approx(0.0589, rel=0.02)


def figure(model: UNet, x: Tensor, *, drop: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Fig. 1 once more, box by box, from the state dict alone: an independent spelling of `forward`."""
    state = model.state_dict()

    def double(x: Tensor, name: str) -> Tensor:
        x = functional.relu(functional.conv2d(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"]))
        return functional.relu(functional.conv2d(x, state[f"{name}.2.weight"], state[f"{name}.2.bias"]))

    d0 = double(x, "down.0")
    d1 = double(functional.max_pool2d(d0, 2), "down.1")
    d2 = double(functional.max_pool2d(d1, 2), "down.2")
    d3 = double(functional.max_pool2d(d2, 2), "down.3")
    d3 = d3 if drop is None else d3 * drop[0]
    d4 = double(functional.max_pool2d(d3, 2), "down.4")
    x = d4 if drop is None else d4 * drop[1]
    for index, (skip, crop) in enumerate(((d3, 4), (d2, 16), (d1, 40), (d0, 88))):
        x = functional.conv_transpose2d(x, state[f"up.{index}.weight"], state[f"up.{index}.bias"], stride=2)
        skip = skip[:, :, crop:-crop, crop:-crop]
        if model.released:
            x = torch.cat([functional.relu(x), skip], dim=1)
        else:
            x = torch.cat([skip, x], dim=1)
        x = double(x, f"merge.{index}")
    return functional.conv2d(x, state["head.weight"], state["head.bias"])


@pytest.mark.parametrize("release", ["paper", "phseg_v5"])
def test_forward_is_the_figure(release: str) -> None:
    torch.manual_seed(1)
    model = create_model("unet", in_channels=2, num_classes=3, base_channels=4, release=release).eval()
    assert isinstance(model, UNet)
    for parameter in model.parameters():  # biases too, which start at 0
        torch.nn.init.normal_(parameter, std=0.2)
    images = torch.randn(1, 2, 204, 220)
    with torch.no_grad():
        torch.testing.assert_close(model(images).logits, figure(model, images), rtol=1e-5, atol=1e-5)


def test_dropout_acts_at_the_two_deepest_levels_before_pool_and_skip() -> None:
    model = create_model("unet", in_channels=1, num_classes=2, base_channels=2)
    assert isinstance(model, UNet)
    masks: list[Tensor] = []

    def record(module: torch.nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        masks.append(torch.where(args[0] != 0, out / args[0], torch.zeros_like(out)))

    model.dropout.register_forward_hook(record)
    torch.manual_seed(2)
    images = torch.randn(1, 1, 188, 188)
    with torch.no_grad():
        logits = model.train()(images).logits
        assert len(masks) == 2
        assert {round(v, 3) for mask in masks for v in mask.unique().tolist()} <= {0.0, 2.0}
        torch.testing.assert_close(logits, figure(model, images, drop=(masks[0], masks[1])))
    assert model.dropout.p == 0.5


def test_no_normalisation_in_the_paper_network_and_batch_norm_in_the_small_one() -> None:
    paper = meta(in_channels=1, num_classes=2)
    small = meta("unet_small", in_channels=1, num_classes=2)
    assert not [m for m in paper.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len([m for m in small.modules() if isinstance(m, torch.nn.BatchNorm2d)]) == 18
