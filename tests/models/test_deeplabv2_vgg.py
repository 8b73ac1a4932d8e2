"""DeepLab v2 on VGG-16 held to the numbers of its paper and to the copy of its definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.engine.layer_table import input_span, layer_table
from pixelwise.errors import RequestError
from pixelwise.models.deeplabv1 import deeplabv1_vgg16_largefov
from pixelwise.models.deeplabv2_vgg import (
    ASPP,
    deeplabv2_vgg16_aspp_l,
    deeplabv2_vgg16_aspp_s,
    deeplabv2_vgg16_largefov,
)

PYRAMIDS = {deeplabv2_vgg16_aspp_s: (2, 4, 8, 12), deeplabv2_vgg16_aspp_l: (6, 12, 18, 24)}


def meta(build: type, **options: object) -> ASPP:
    with torch.device("meta"):
        return build(**{"num_classes": 21, **options}).eval()


def awake(build: type) -> ASPP:
    """Build at debug width with biases and scores that are not near zero, in double precision."""
    torch.manual_seed(0)
    model = build(num_classes=3, base_channels=2).eval().double()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or name.startswith("fc8"):
            nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (deeplabv2_vgg16_largefov, 20_505_429),
        (deeplabv2_vgg16_aspp_s, 37_877_652),
        (deeplabv2_vgg16_aspp_l, 37_877_652),
    ],
)
def test_parameter_counts(build: type, parameters: int) -> None:
    assert sum(p.numel() for p in meta(build).parameters()) == parameters


def test_a_branch_holds_5790741_parameters() -> None:
    model = meta(deeplabv2_vgg16_aspp_l)
    for branch in range(1, 5):
        names = tuple(f"{layer}_{branch}." for layer in ("fc6", "fc7", "fc8"))
        assert sum(p.numel() for name, p in model.named_parameters() if name.startswith(names)) == 5_790_741


@pytest.mark.parametrize("build", list(PYRAMIDS))
def test_sizes(build: type) -> None:
    """41 cells for 321, 65 for 513; any size comes out as it went in."""
    model = meta(build, base_channels=1)
    for side, cells in ((321, 41), (513, 65), (1, 1), (10, 2)):
        images = torch.zeros(1, 3, side, 321, device="meta")
        assert model.scores(images).shape == (1, 21, cells, 41)
        assert model(images).logits.shape == (1, 21, side, 321)


@pytest.mark.parametrize("build", list(PYRAMIDS))
def test_fields_of_the_branches(build: type) -> None:
    """227 pixels at pool5 and 16 for each unit of the rate: 259 to 419 for ASPP-S, 323 to 611 for ASPP-L."""
    table = layer_table(meta(build, base_channels=1), in_channels=3, input_size=(321, 321))
    for branch, rate in enumerate(PYRAMIDS[build], 1):
        row = next(index for index, layer in enumerate(table) if layer.name == f"fc6_{branch}")
        span = input_span([*table[:row], table[row]], 20, 0)
        assert span is not None
        assert (span[1] - span[0] + 1, (span[0] + span[1]) / 2) == (227 + 16 * rate, 160)


@pytest.mark.parametrize("build", list(PYRAMIDS))
def test_forward_is_the_sum_of_four_branches(build: type) -> None:
    model = awake(build)
    state = model.state_dict()
    image = torch.randn(1, 3, 33, 57, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def convolve(x: Tensor, name: str, rate: int = 1, margin: int = 1) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.conv2d(x, weight, bias, padding=margin * rate, dilation=rate)

    x = image
    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        for layer in range(1, depth + 1):
            x = convolve(x, f"conv{block}_{layer}", 2 if block == 5 else 1).clamp(min=0)
        x = functional.max_pool2d(x, 3, 2 if block < 4 else 1, 1, ceil_mode=True)
    scores = torch.zeros(1, 3, 5, 8, dtype=torch.float64)
    for branch, rate in enumerate(PYRAMIDS[build], 1):
        hidden = convolve(x, f"fc6_{branch}", rate).clamp(min=0)
        hidden = convolve(hidden, f"fc7_{branch}", margin=0).clamp(min=0)
        scores += convolve(hidden, f"fc8_{branch}", margin=0)
    with torch.no_grad():
        torch.testing.assert_close(model.scores(image), scores)
        zoomed = functional.interpolate(scores, size=(33, 57), mode="bilinear", align_corners=True)
        torch.testing.assert_close(model(image).logits, zoomed)


@pytest.mark.parametrize("build", list(PYRAMIDS))
@pytest.mark.parametrize("size", [(30, 47), (8, 5)])
def test_every_eighth_pixel_is_a_cell_that_training_sees(build: type, size: tuple[int, int]) -> None:
    model, image = awake(build), torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(image).logits[:, :, ::8, ::8], model.scores(image))


def test_rates_leave_the_state_dict_alone() -> None:
    torch.manual_seed(0)
    small = deeplabv2_vgg16_aspp_s(num_classes=2, base_channels=1)
    large = deeplabv2_vgg16_aspp_l(num_classes=2, base_channels=1)
    assert list(small.state_dict()) == list(large.state_dict())
    large.load_state_dict(small.state_dict())


def test_largefov_is_the_network_of_v1() -> None:
    torch.manual_seed(0)
    new, old = deeplabv2_vgg16_largefov(num_classes=2, base_channels=1), deeplabv1_vgg16_largefov(num_classes=2)
    assert type(new) is type(old)
    assert list(new.state_dict()) == list(old.state_dict())


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = deeplabv2_vgg16_aspp_l(num_classes=50, base_channels=4)
    for branch in range(1, 5):
        assert model.get_parameter(f"fc8_{branch}.weight").std().item() == pytest.approx(0.01, rel=0.05)
        fc6 = model.get_parameter(f"fc6_{branch}.weight")
        assert fc6.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.03)
    assert not any(p.count_nonzero() for name, p in model.named_parameters() if name.endswith("bias"))


def test_impossible_requests() -> None:
    for build in PYRAMIDS:
        with pytest.raises(RequestError, match=r"dropout=-0\.1; accepted: 0 up to, not including, 1"):
            build(num_classes=2, dropout=-0.1)
        model = meta(build, base_channels=1)
        for entry in (model, model.scores):
            with pytest.raises(RequestError, match=r"1 channels, shape \(1, 1, 9, 9\); this model was built for 3"):
                entry(torch.zeros(1, 1, 9, 9, device="meta"))
