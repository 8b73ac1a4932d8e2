"""Tiled prediction equals the whole-image pass, for valid and padded networks, at any size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.engine.layer_table import layer_table, receptive_fields
from pixelwise.engine.passes import predict_logits
from pixelwise.engine.tiles import Span, mirror, plan_spans
from pixelwise.errors import RequestError
from pixelwise.models import create_model
from pixelwise.models.unet import size_rule
from pixelwise.structures import SizeRule, size_rule_of

VALID = size_rule(4, 0)
PADDED = size_rule(4, 1)
ANY = SizeRule(period=16)  # any side, and a pooling grid all the same: FCN and its descendants


@given(
    st.integers(1, 900),
    st.sampled_from(
        [(VALID, 0), (PADDED, 0), (PADDED, 16), (PADDED, 102), (size_rule(2, 0), 0), (SizeRule(), 5), (ANY, 40)]
    ),
    st.integers(0, 12),
)
def test_every_pixel_is_kept_once(side: int, case: tuple[SizeRule, int], extra: int) -> None:
    rule, halo = case
    tile = rule.at_least(2 * halo + 2 * rule.margin + 3 * rule.period + extra * rule.period)
    spans = plan_spans(side, rule, tile=tile, halo=halo)
    kept = [pixel for span in spans for pixel in range(span.first, span.stop)]
    assert kept == list(range(side))
    for span in spans:
        assert rule.is_legal(span.size)
        assert span.start + rule.margin <= span.first
        assert span.stop <= span.start + span.size - rule.margin
        assert (span.start + rule.margin) % rule.period == 0  # the pooling grid's phase


@given(st.integers(1, 30), st.integers(-70, 70), st.integers(1, 60), st.integers(1, 4))
def test_mirror_is_numpys_reflection(side: int, start: int, size: int, channels: int) -> None:
    image = np.random.default_rng(side).integers(0, 255, (side, 3, channels))
    window = mirror(image, Span(start=start, size=size, first=0, stop=side), Span(start=0, size=3, first=0, stop=3))
    before, after = max(0, -start), max(0, start + size - side)
    padded = np.pad(image, ((before, after), (0, 0), (0, 0)), mode="reflect")
    assert np.array_equal(window, padded[start + before : start + before + size])


def image_of(height: int, width: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((height, width, channels)).astype(np.float32)


def random_network(name: str, *, base_channels: int = 4, **options: int) -> torch.nn.Module:
    torch.manual_seed(3)
    model = create_model(name, num_classes=2, in_channels=1, base_channels=base_channels, **options).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
    return model


@pytest.mark.parametrize(("height", "width"), [(131, 257), (1, 1), (16, 400), (300, 205), (92, 93)])
@pytest.mark.parametrize("tile", [204, 220, 252, (316, 252)])
def test_valid_network_tiles_equal_the_whole_pass(height: int, width: int, tile: int | tuple[int, int]) -> None:
    """In float64, where kernels for other widths agree; what is left is the rounding of logits up to 6 to float32."""
    model = random_network("unet", base_channels=2).double()
    image = image_of(height, width).astype(np.float64)
    whole = predict_logits(model, image)
    size = tile if isinstance(tile, tuple) else (tile, tile)
    tiled = predict_logits(model, image, tile=size)
    assert whole.shape == (2, height, width)
    torch.testing.assert_close(tiled, whole, rtol=1.2e-7, atol=1e-12)


def test_unaligned_tiles_would_differ() -> None:
    """The control: tiles whose origins are off the pooling grid by 4 do not reproduce the whole pass."""
    model = random_network("unet")
    image = image_of(160, 160)
    whole = predict_logits(model, image)
    shifted = predict_logits(model, image[4:, 4:])
    assert (shifted[:, 60:80, 60:80] - whole[:, 64:84, 64:84]).abs().max() > 1e-2


@pytest.mark.parametrize(("height", "width"), [(131, 397), (305, 64), (16, 16), (419, 257)])
@pytest.mark.parametrize("name", ["unet_padded", "unet_small"])
def test_padded_network_tiles_equal_the_whole_pass_with_a_full_halo(name: str, height: int, width: int) -> None:
    model = random_network(name, depth=2)
    rule = size_rule_of(model)
    with torch.device("meta"):
        twin = create_model(name, num_classes=2, in_channels=1, base_channels=4, depth=2)
    fields = receptive_fields(layer_table(twin, in_channels=1, input_size=(64, 64)), axis=0, period=rule.period)
    assert fields is not None
    image = image_of(height, width)
    whole = predict_logits(model, image)
    tiled = predict_logits(model, image, tile=(128, 96), halo=-(-max(fields) // 2))
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_whole_pass_is_the_mirrored_image() -> None:
    """A 512 image mirrored by 92 is 696 = 8 mod 16: one shot needs 700."""
    assert plan_spans(512, VALID, tile=None, halo=0) == [Span(start=-92, size=700, first=0, stop=512)]
    assert [(s.start, s.first, s.stop) for s in plan_spans(512, VALID, tile=572, halo=0)] == [
        (-92, 0, 384),
        (292, 384, 512),
    ]


def test_illegal_tiles_name_legal_ones() -> None:
    with pytest.raises(RequestError, match=r"tile 512 is not legal.*Nearest: 508 or 524"):
        plan_spans(2000, VALID, tile=512, halo=0)
    with pytest.raises(
        RequestError, match=r"tile 188 leaves nothing between its borders of 92 pixels; accepted: from 204"
    ):
        plan_spans(2000, VALID, tile=188, halo=0)
    with pytest.raises(
        RequestError, match=r"tile 192 leaves nothing between its borders of 112 pixels; accepted: from 240"
    ):
        plan_spans(2000, PADDED, tile=192, halo=102)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 120), st.integers(1, 120))
def test_any_size_comes_back_at_its_size(height: int, width: int) -> None:
    model = random_network("unet_small", depth=2)
    assert predict_logits(model, image_of(height, width)).shape == (2, height, width)


@pytest.mark.parametrize(("tile", "stride"), [(572, 384), (444, 256), (380, 192), (316, 128)])
def test_exact_strides_of_the_fact_sheet(tile: int, stride: int) -> None:
    """The output side (388 for 572) is no multiple of 16: the stride is the next smaller one that is."""
    spans = plan_spans(2000, VALID, tile=tile, halo=0)
    assert {after.start - span.start for span, after in pairwise(spans)} == {stride}
