"""A strided network and its dilated twin agree on the coarse grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pixelwise.errors import RequestError
from pixelwise.layers.dilate import dilate

DOUBLE = torch.float64


def agree(network: nn.Module, twin: nn.Module, rate: int, height: int, width: int) -> None:
    x = torch.randn(2, 2, height, width, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    coarse, fine = network.eval()(x), twin.eval()(x)
    torch.testing.assert_close(fine[:, :, ::rate, ::rate], coarse, rtol=0, atol=1e-5)


def convolution(kernel: int, stride: int, padding: int, dilation: int = 1) -> nn.Module:
    return nn.Conv2d(2, 2, kernel, stride=stride, padding=padding, dilation=dilation)


def max_pool(kernel: int, stride: int, padding: int) -> nn.Module:
    return nn.MaxPool2d(kernel, stride, min(padding, kernel // 2))


def ceil_pool(kernel: int, stride: int, padding: int) -> nn.Module:
    return nn.MaxPool2d(kernel, stride, min(padding, kernel // 2), ceil_mode=True)


def average_pool(kernel: int, stride: int, padding: int) -> nn.Module:
    return nn.AvgPool2d(kernel, stride, min(padding, kernel // 2), count_include_pad=stride == 2)


layers = st.builds(
    lambda make, kernel, stride, padding: make(kernel, stride, padding),
    st.sampled_from([convolution, max_pool, ceil_pool, average_pool]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 2),
)


@settings(deadline=None, max_examples=150 * settings().max_examples // 100)
@given(st.lists(layers, min_size=1, max_size=5), st.integers(1, 8), st.integers(20, 60), st.integers(20, 60))
def test_any_stack_of_layers_agrees(stack: list[nn.Module], output_stride: int, height: int, width: int) -> None:
    network = nn.Sequential(*stack).to(DOUBLE)
    try:
        network(torch.zeros(1, 2, height, width, dtype=DOUBLE))
    except RuntimeError:  # the map has become smaller than a window
        return
    twin, rate = dilate(network, output_stride=output_stride)
    agree(network, twin, rate, height, width)


@pytest.mark.parametrize("output_stride", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize(("height", "width"), [(64, 65), (71, 97), (96, 33)])
def test_vgg_blocks_at_every_output_stride(output_stride: int, height: int, width: int) -> None:
    """Five blocks of convolution, normalisation, ReLU and ceil-mode pool, nested as networks nest them."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(
            nn.Sequential(convolution(3, 1, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True))
            for _ in range(5)
        )
    ).to(DOUBLE)
    twin, rate = dilate(network, output_stride=output_stride)
    assert rate == 32 // output_stride
    agree(network, twin, rate, height, width)


def test_rates_of_dilation_and_deeplab() -> None:
    """Without the strides of pool4 and pool5, conv5 is dilated by 2 and fc6 by 4."""
    network = nn.Sequential(
        *(nn.MaxPool2d(2) for _ in range(3)),
        nn.MaxPool2d(2),
        convolution(3, 1, 1),
        nn.MaxPool2d(2),
        convolution(7, 1, 0),
    )
    twin, rate = dilate(network, output_stride=8)
    assert rate == 4
    conv5, fc6 = twin[4], twin[6]
    assert isinstance(conv5, nn.Conv2d)
    assert isinstance(fc6, nn.Conv2d)
    assert (conv5.dilation, conv5.padding, fc6.dilation) == ((2, 2), (2, 2), (4, 4))
    assert twin[0] is network[0]


def test_twin_shares_weights_and_names() -> None:
    network = nn.Sequential(convolution(3, 2, 1), nn.Sequential(nn.ReLU(), convolution(3, 2, 1)))
    twin, _ = dilate(network)
    assert list(twin.state_dict()) == list(network.state_dict())
    assert all(a is b for a, b in zip(twin.parameters(), network.parameters(), strict=True))


def test_parts_in_succession_are_the_whole() -> None:
    first, second = nn.Sequential(convolution(3, 2, 1)), nn.ModuleList([convolution(3, 2, 1, 2), nn.ReLU()])
    near, rate = dilate(first)
    far, rate = dilate(second, rate=rate)
    assert rate == 4
    agree(nn.Sequential(*first, *second).to(DOUBLE), nn.Sequential(near, far).to(DOUBLE), rate, 37, 41)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.ConvTranspose2d(2, 2, 2, stride=2), r"layer 1\.0 is a ConvTranspose2d; accepted: convolutions, max and"),
        (nn.Conv2d(2, 2, 3, stride=(2, 1)), r"layer 1\.0 has stride \(2, 1\); accepted: one stride for both"),
        (nn.Conv2d(2, 2, 3, padding="same"), r"layer 1\.0 has padding='same', padding_mode='zeros'; accepted: zeros"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'; accepted: zeros, in numbers"),
        (nn.AvgPool2d(2, ceil_mode=True), r"layer 1\.0 is an average pool with ceil_mode=True, divisor_override=None"),
    ],
)
def test_layers_without_a_twin_are_named(layer: nn.Module, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        dilate(nn.Sequential(nn.MaxPool2d(2), nn.Sequential(layer)))
