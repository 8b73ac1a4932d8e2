from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pixelwise.errors import RequestError
from pixelwise.losses.cross_entropy import cross_entropy
from pixelwise.losses.dice import soft_dice
from pixelwise.losses.segmentation import (
    CAMVID11,
    LossConfig,
    SegmentationLoss,
    class_weights,
    suitable_class_weights,
)

seeds = st.integers(0, 2**31)


def case(seed: int, ignore: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    labels = torch.randint(0, 3, (2, 4, 5), generator=generator)
    if ignore is not None:
        labels[torch.rand(labels.shape, generator=generator) < 0.3] = ignore
    return logits, labels, torch.rand(3, generator=generator) + 0.1, torch.rand(2, 4, 5, generator=generator) + 0.1


@settings(deadline=None)
@given(seeds, st.sampled_from([None, 255, -1]), st.booleans(), st.booleans())
def test_cross_entropy_is_the_weighted_mean_pixel_by_pixel(
    seed: int, ignore: int | None, by_class: bool, by_pixel: bool
) -> None:
    logits, labels, class_weight, pixel_weight = case(seed, ignore)
    total = weights = 0.0
    for n in range(2):
        for y in range(4):
            for x in range(5):
                k = int(labels[n, y, x])
                if k == ignore:
                    continue
                w = (float(class_weight[k]) if by_class else 1.0) * (float(pixel_weight[n, y, x]) if by_pixel else 1.0)
                scores = [math.exp(float(v)) for v in logits[n, :, y, x]]
                total -= w * math.log(scores[k] / sum(scores))
                weights += w
    loss = cross_entropy(
        logits,
        labels,
        ignore_index=ignore,
        class_weights=class_weight if by_class else None,
        pixel_weights=pixel_weight if by_pixel else None,
    )
    assert float(loss) == pytest.approx(total / weights if weights else 0, rel=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_batch_without_a_counted_pixel_gives_zero_and_a_gradient(weighted: bool) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    weights = torch.ones(3) if weighted else None
    loss = cross_entropy(logits, labels, ignore_index=255, class_weights=weights)
    loss = loss + soft_dice(logits, labels, ignore_index=255)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("normalise", "divisor"), [("pixels", 3), ("sum", 1), (None, None)])
def test_divisors_of_the_originals_on_a_2x2_map(weighted: bool, normalise: str | None, divisor: int | None) -> None:
    """SegNet's release: the sum of w * nll over the number of pixels that count; FCN: the sum itself."""
    logits = torch.tensor([[[[0.0, 1.0], [2.0, 0.0]], [[1.0, 1.0], [0.0, 3.0]]]])
    labels = torch.tensor([[[0, 1], [1, 255]]])
    losses = [math.log(1 + math.e), math.log(2), math.log(1 + math.e**2)]  # 0 against 1, 1 against 1, 2 against 0
    weights = torch.tensor([0.25, 4.0]) if weighted else torch.ones(2)
    total = weights[0] * losses[0] + weights[1] * (losses[1] + losses[2])
    given = {} if normalise is None else {"normalise": normalise}
    loss = cross_entropy(logits, labels, ignore_index=255, class_weights=weights if weighted else None, **given)
    expected = total / (divisor or weights[0] + 2 * weights[1])
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("normalise", ["weights", "pixels", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_all_void_map_gives_zero_without_nan(normalise: str, weighted: bool) -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    weights = torch.ones(3) if weighted else None
    loss = cross_entropy(logits, torch.full((1, 2, 2), 11), ignore_index=11, class_weights=weights, normalise=normalise)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


@settings(deadline=None)
@given(seeds, st.sampled_from([0, 2, 255]))
def test_ignored_pixels_never_matter(seed: int, ignore: int) -> None:
    logits, labels, _, _ = case(seed, ignore)
    noisy = logits + 100 * torch.randn(logits.shape) * (labels == ignore)[:, None]
    for loss in (cross_entropy, soft_dice):
        torch.testing.assert_close(loss(noisy, labels, ignore_index=ignore), loss(logits, labels, ignore_index=ignore))


def test_dice_of_perfect_half_and_opposite_predictions() -> None:
    labels = torch.tensor([[[0, 0, 1, 1]]])
    perfect = torch.stack([1 - labels, labels], dim=1) * 200.0 - 100
    assert float(soft_dice(perfect, labels)) == pytest.approx(0, abs=1e-6)
    assert float(soft_dice(-perfect, labels)) == pytest.approx(1, abs=1e-6)
    assert float(soft_dice(torch.zeros(1, 2, 1, 4), labels)) == pytest.approx(0.5)


def test_class_weights_by_hand() -> None:
    counts = {"a": 800, "b": 100, "c": 25, "absent": 0, "(ignored)": 7}
    names = ["a", "b", "c", "absent"]
    assert class_weights("none", counts, names) is None
    median = class_weights("median_frequency", counts, names)
    root = class_weights("root_frequency", counts, names)
    assert median is not None
    assert root is not None
    assert median.tolist() == pytest.approx([0.125, 1, 4, 1])
    assert root.tolist() == pytest.approx([0.125**0.5, 1, 2, 1])


def test_weights_of_camvid_are_segnets_constants() -> None:
    """In the order of the training definitions; median / frequency cannot give them, since none is 1."""
    definition = [0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614]
    names = [
        "Sky",
        "Building",
        "Pole",
        "Road",
        "Pavement",
        "Tree",
        "SignSymbol",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    ]
    weights = class_weights("camvid11", {}, names)
    assert weights is not None
    assert weights.tolist() == pytest.approx(definition)
    assert torch.equal(class_weights("camvid11", {}, list(CAMVID11)), weights)
    with pytest.raises(RequestError, match=r"no weight for class 'Wall'; accepted: sky, .* bicyclist"):
        class_weights("camvid11", {}, ["Sky", "Wall"])


def test_automatic_class_weights_depend_on_the_rarest_class() -> None:
    kind, reason = suitable_class_weights({"a": 985, "b": 15, "absent": 0}, ["a", "b", "absent"])
    assert (kind, reason) == ("root_frequency", "the rarest class, b, holds 1.50% of the pixels")
    assert suitable_class_weights({"a": 80, "b": 20}, ["a", "b"])[0] == "none"
    assert suitable_class_weights({"a": 0}, ["a"])[0] == "none"


def test_configured_loss_is_the_sum_of_its_terms() -> None:
    logits, labels, weights, pixels = case(5, 255)
    config = LossConfig(cross_entropy=0.5, dice=2.0)
    loss = SegmentationLoss(config, ignore_index=255, weights=weights)
    expected = 0.5 * cross_entropy(
        logits, labels, ignore_index=255, class_weights=weights, pixel_weights=pixels
    ) + 2 * soft_dice(logits, labels, ignore_index=255)
    torch.testing.assert_close(loss(logits, labels, pixels), expected)


def test_divisor_without_a_cross_entropy_is_refused() -> None:
    with pytest.raises(ValueError, match="normalise=sum divides the cross entropy, whose factor is 0"):
        LossConfig(cross_entropy=0, normalise="sum")


def test_configured_divisor_reaches_the_cross_entropy() -> None:
    logits, labels, weights, _ = case(6, 255)
    config = LossConfig(dice=0, normalise="sum")
    loss = SegmentationLoss(config, ignore_index=255, weights=weights)
    expected = cross_entropy(logits, labels, ignore_index=255, class_weights=weights, normalise="sum")
    assert torch.equal(loss(logits, labels), expected)
    assert float(expected) > 3 * float(cross_entropy(logits, labels, ignore_index=255, class_weights=weights))
