from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.engine.schedule import OptimizerConfig, build_optimizer, learning_rate
from pixelwise.models import create_model


def test_poly_goldens() -> None:
    """training_recipes.md: poly(.9) is 0.535887 of the base at N/2, 0.125893 at 0.9 N, 0 at N."""
    config = OptimizerConfig(lr=2.0, power=0.9, warmup=0.0)
    rates = [learning_rate(config, i, 1000) / 2 for i in (0, 500, 900, 1000)]
    assert rates == pytest.approx([1, 0.535887, 0.125893, 0], abs=1e-6)


def test_epochs_as_unit() -> None:
    """DRN: 0.01 * 0.1 ** (epoch // 100), and 0.01 * (1 - epoch / epochs) ** 0.9; here an epoch has 92 31/32 steps."""
    per_epoch = Fraction(2975, 32)
    steps = OptimizerConfig(lr=0.01, warmup=0, schedule="step", step=100, unit="epoch")
    poly = OptimizerConfig(lr=0.01, warmup=0, schedule="poly", unit="epoch")
    for iteration in (0, 92, 93, 9296, 9297, 18_593, 18_594, 23_242):
        epoch = int(iteration / (2975 / 32))
        found = learning_rate(steps, iteration, 23_243, per_epoch=per_epoch)
        assert found == pytest.approx(0.01 * 0.1 ** (epoch // 100))
        found = learning_rate(poly, iteration, 23_243, per_epoch=per_epoch)
        assert found == pytest.approx(0.01 * (1 - epoch / 250) ** 0.9, rel=1e-2)


@given(st.integers(1, 3000), st.floats(0, 0.5), st.sampled_from(["poly", "constant"]), st.floats(0.5, 2))
def test_rate_is_never_zero_in_training_nor_above_the_peak(n: int, warmup: float, schedule: str, power: float) -> None:
    config = OptimizerConfig(lr=0.1, warmup=warmup, schedule=schedule, power=power)
    rates = [learning_rate(config, i, n) for i in range(n)]
    assert all(0 < rate <= 0.1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert learning_rate(config, 10 * n, n) >= 0  # beyond the end: clamped, never complex


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_biases_and_norms_have_no_weight_decay(name: str) -> None:
    model = create_model("unet_small", num_classes=2, base_channels=2)
    optimizer = build_optimizer(OptimizerConfig(name=name, weight_decay=0.3), model)
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in decayed["params"]} == {4}
    assert {p.ndim for p in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))
    assert isinstance(optimizer, torch.optim.AdamW if name == "adamw" else torch.optim.SGD)
