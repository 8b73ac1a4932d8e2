"""Bilinear kernels and upsampling, held to the tables of the slides and to `functional.interpolate`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from pixelwise.errors import RequestError
from pixelwise.layers.bilinear import BilinearUpsampling, bilinear_kernel

SQUARE = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])


def test_the_printed_4x4_kernel() -> None:
    rows = [[0.0625, 0.1875, 0.1875, 0.0625], [0.1875, 0.5625, 0.5625, 0.1875]]
    assert bilinear_kernel(4).tolist() == [*rows, *rows[::-1]]


@pytest.mark.parametrize(
    ("size", "first", "second", "total"),
    [
        (4, 0.25, 0.75, 4),
        (16, 0.0625, 0.1875, 64),
        (32, 0.03125, 0.09375, 256),
        (64, 0.015625, 0.046875, 1024),
        (63, 0.03125, 0.0625, 1024),
    ],
)
def test_kernels_of_the_networks(size: int, first: float, second: float, total: float) -> None:
    kernel = bilinear_kernel(size)
    assert kernel.shape == (size, size)
    assert kernel[0, 0] == first**2
    assert kernel[0, 1] == first * second
    assert float(kernel.double().sum()) == total
    assert torch.equal(kernel, kernel.flip(0))
    assert torch.equal(kernel, kernel.T)


def test_the_odd_kernel_peaks_at_one() -> None:
    assert bilinear_kernel(63)[31, 31] == 1
    assert bilinear_kernel(1).tolist() == [[1]]


def test_kernel_without_a_size_is_refused() -> None:
    with pytest.raises(RequestError, match="bilinear kernel of size 0; accepted: whole numbers from 1"):
        bilinear_kernel(0)


def test_2x2_to_4x4_fades_to_zero_at_the_border() -> None:
    """Kernel 4, stride 2, padding 1: the interior is half-pixel bilinear, the border sees zeros."""
    assert BilinearUpsampling(1, kernel_size=4, stride=2, padding=1)(SQUARE)[0, 0].tolist() == [
        [0.5625, 0.9375, 1.3125, 1.125],
        [1.125, 1.75, 2.25, 1.875],
        [1.875, 2.75, 3.25, 2.625],
        [1.6875, 2.4375, 2.8125, 2.25],
    ]


def test_2x2_to_4x4_of_the_slide_is_interpolation_that_clamps() -> None:
    out = functional.interpolate(SQUARE, scale_factor=2, mode="bilinear", align_corners=False)
    assert out[0, 0].tolist() == [
        [1.00, 1.25, 1.75, 2.00],
        [1.50, 1.75, 2.25, 2.50],
        [2.50, 2.75, 3.25, 3.50],
        [3.00, 3.25, 3.75, 4.00],
    ]


def test_3x3_deconvolution_of_the_slide_needs_one_more_row() -> None:
    """Kernel 3, stride 2, padding 1 turns 2x2 into 4x4 with an output padding of 1, else into 3x3."""
    layer = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, output_padding=1, bias=False)
    nn.init.ones_(layer.weight)
    assert layer(SQUARE)[0, 0].tolist() == [[1, 3, 2, 2], [4, 10, 6, 6], [3, 7, 4, 4], [3, 7, 4, 4]]
    layer.output_padding = (0, 0)
    assert layer(SQUARE).shape == (1, 1, 3, 3)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 8), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**31))
def test_interior_is_half_pixel_interpolation(half: int, height: int, width: int, seed: int) -> None:
    """With kernel 2 s and padding s / 2 the two differ only where the kernel leaves the map."""
    stride = 2 * half
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    ours = BilinearUpsampling(3, kernel_size=2 * stride, stride=stride, padding=half)(x)
    theirs = functional.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
    assert ours.shape == theirs.shape
    inner = (..., slice(half, -half), slice(half, -half))
    torch.testing.assert_close(ours[inner], theirs[inner], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "out"), [(64, 32, 544), (32, 16, 304), (63, 32, 543)])
def test_sizes(kernel: int, stride: int, out: int) -> None:
    layer = BilinearUpsampling(2, kernel_size=kernel, stride=stride).to("meta")
    side = (out - kernel) // stride + 1
    assert layer(torch.zeros(1, 2, side, 3, device="meta")).shape == (1, 2, out, 2 * stride + kernel)


def test_fixed_kernel_is_in_the_state_but_not_a_parameter() -> None:
    layer = BilinearUpsampling(3, kernel_size=4, stride=2)
    assert list(layer.state_dict()) == ["weight"]
    assert layer.weight.shape == (3, 1, 4, 4)
    assert not list(layer.parameters())
    assert not layer.weight.requires_grad


def test_learnt_kernel_starts_as_the_fixed_one_and_can_mix_channels() -> None:
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    fixed = BilinearUpsampling(3, kernel_size=4, stride=2, padding=1)
    learnt = BilinearUpsampling(3, kernel_size=4, stride=2, padding=1, learnt=True)
    torch.testing.assert_close(learnt(x), fixed(x), rtol=0, atol=1e-6)
    assert [p.shape for p in learnt.parameters()] == [(3, 3, 4, 4)]
    learnt(x).square().sum().backward()
    assert learnt.weight.grad is not None
    assert learnt.weight.grad[0, 1].abs().sum() > 0


def test_printed_layer_tells_its_numbers() -> None:
    layer = BilinearUpsampling(3, kernel_size=4, stride=2)
    assert repr(layer) == "BilinearUpsampling(kernel_size=4, stride=2, padding=0, learnt=False)"
