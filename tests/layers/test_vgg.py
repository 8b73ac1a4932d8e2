"""The VGG-16 trunk: parameters, sizes, reach, and where the three systems differ."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.layers.vgg import VGG16Trunk, initialise


def run(trunk: VGG16Trunk, x: Tensor) -> list[Tensor]:
    """Return the five blocks' outputs with 2x2 pools between them."""
    outputs = []
    for block in (trunk.block1, trunk.block2, trunk.block3, trunk.block4, trunk.block5):
        x = block(x)
        outputs.append(x)
        x = nn.functional.max_pool2d(x, 2, ceil_mode=True)
    return outputs


def test_parameters_and_names_of_the_paper() -> None:
    with torch.device("meta"):
        trunk = VGG16Trunk(in_channels=3)
    assert sum(p.numel() for p in trunk.parameters()) == 14_714_688
    counts = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
    names = [f"conv{block}_{i}" for block, count in counts.items() for i in range(1, count + 1)]
    assert list(trunk.state_dict()) == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    assert [layer.out_channels for layer in trunk.children()] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6


@pytest.mark.parametrize(
    ("options", "sides"),
    [
        ({}, [500, 250, 125, 63, 32]),
        ({"first_padding": 100}, [698, 349, 175, 88, 44]),
        ({"first_padding": 0, "padding": 0}, [496, 244, 116, 52, 20]),
        ({"conv5_dilation": 2}, [500, 250, 125, 63, 32]),
        ({"first_padding": 0, "padding": 0, "conv5_dilation": 2}, [496, 244, 116, 52, 14]),
    ],
)
def test_sizes(options: dict[str, int], sides: list[int]) -> None:
    with torch.device("meta"):
        outputs = run(VGG16Trunk(in_channels=3, **options), torch.zeros(1, 3, 500, 500))
    assert [tuple(out.shape[1:]) for out in outputs] == [
        (channels, side, side) for channels, side in zip([64, 128, 256, 512, 512], sides, strict=True)
    ]


def test_dilation_changes_no_parameter() -> None:
    plain = VGG16Trunk(in_channels=1, base_channels=2)
    dilated = VGG16Trunk(in_channels=1, base_channels=2, conv5_dilation=2)
    dilated.load_state_dict(plain.state_dict())
    assert dilated.conv5_1.dilation == (2, 2) == dilated.conv5_1.padding
    assert dilated.conv4_3.dilation == (1, 1)


def test_every_block_ends_in_a_relu_and_inputs_stay_as_they_were() -> None:
    torch.manual_seed(0)
    trunk = VGG16Trunk(in_channels=2, base_channels=3)
    x = torch.randn(1, 2, 40, 33)
    kept = x.clone()
    outputs = run(trunk, x)
    assert torch.equal(x, kept)
    assert all((out >= 0).all() and (out == 0).any() for out in outputs)


def test_initialisation_keeps_the_variance() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 64, 3)
    initialise(layer)
    assert float(layer.weight.detach().std()) == pytest.approx((2 / 576) ** 0.5, rel=0.02)
    assert layer.bias is not None
    assert not layer.bias.any()


def test_no_channels_are_refused() -> None:
    with pytest.raises(RequestError, match=r"base_channels=0; accepted: whole numbers from 1 \(the paper's is 64\)"):
        VGG16Trunk(in_channels=3, base_channels=0)
