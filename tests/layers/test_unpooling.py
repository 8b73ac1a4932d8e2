"""Pooling with switches and unpooling, against a reading of the definition window by window."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pixelwise.engine.determinism import deterministic_algorithms
from pixelwise.errors import RequestError
from pixelwise.layers.unpooling import MaxPool2x2, MaxUnpool2x2

pool, unpool = MaxPool2x2(), MaxUnpool2x2()
sides = st.integers(1, 13)


def slow_round_trip(x: Tensor) -> Tensor:
    """Keep the first largest value of each 2x2 window, cut at the border."""
    kept = torch.zeros(x.shape)
    _, _, height, width = x.shape
    for plane, out in zip(x.flatten(0, 1), kept.flatten(0, 1), strict=True):
        for top in range(0, height, 2):
            for left in range(0, width, 2):
                window = [
                    (-float(plane[y, z]), y, z)
                    for y in range(top, min(top + 2, height))
                    for z in range(left, min(left + 2, width))
                ]
                _, y, z = min(window)
                out[y, z] = plane[y, z]
    return kept


@settings(deadline=None, max_examples=40)
@given(sides, sides, st.integers(0, 2**31), st.booleans(), st.booleans())
def test_round_trip_keeps_the_maxima_and_nothing_else(
    height: int, width: int, seed: int, ties: bool, deterministic: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, height, width, generator=generator)
    if ties:
        x = x.round()
    with deterministic_algorithms(deterministic):
        pooled, switches = pool(x)
        back = unpool(pooled, switches)
    assert pooled.shape == (2, 3, -(-height // 2), -(-width // 2))
    assert switches.size == (height, width)
    assert torch.equal(back, slow_round_trip(x))
    assert torch.equal(pool(back)[0].clamp(min=0), pooled.clamp(min=0))


def test_sizes_of_the_camvid_frame() -> None:
    """SegNet's prototxt: 360x480 pools to 12x15 and is unpooled to 23x30, 45x60, ..."""
    x = torch.zeros(1, 1, 360, 480)
    seen = []
    for _ in range(5):
        x, switches = pool(x)
        seen.append((*x.shape[2:], *switches.size))
    assert seen == [
        (180, 240, 360, 480),
        (90, 120, 180, 240),
        (45, 60, 90, 120),
        (23, 30, 45, 60),
        (12, 15, 23, 30),
    ]


@pytest.mark.parametrize("deterministic", [False, True])
def test_gradient_flows_through_the_switch_positions_only(deterministic: bool) -> None:
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    pooled, switches = pool(x)
    value = torch.rand(pooled.shape, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(x.shape, dtype=torch.float64)
    with deterministic_algorithms(deterministic):
        (unpool(value, switches) * weight).sum().backward()
    assert value.grad is not None
    assert torch.equal(value.grad, weight.flatten(2).gather(2, switches.indices.flatten(2)).view_as(value))


def test_other_values_go_to_the_same_places_in_any_memory_format() -> None:
    x = torch.randn(2, 8, 9, 6).to(memory_format=torch.channels_last)
    pooled, switches = pool(x)
    other = torch.randn(pooled.shape)
    expected = unpool(other, pool(x.contiguous())[1])
    assert torch.equal(unpool(other.to(memory_format=torch.channels_last), switches), expected)
    assert torch.equal(expected != 0, slow_round_trip(x) != 0)


def test_wrong_level_is_refused() -> None:
    _, switches = pool(torch.zeros(1, 2, 8, 8))
    with pytest.raises(RequestError, match=r"shape \(1, 2, 8, 8\) meets switches of shape \(1, 2, 4, 4\)"):
        unpool(torch.zeros(1, 2, 8, 8), switches)
