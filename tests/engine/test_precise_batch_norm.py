"""Statistics measured over batches, as the Caffe systems did after training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pixelwise.engine.batch_norm import renormalise
from pixelwise.engine.precise_batch_norm import measure_statistics
from pixelwise.errors import RequestError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3, eps=1e-9),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(3, 2, 1),
        nn.BatchNorm2d(2),
    )


def batches(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 2, 6, 5, generator=generator) * (1 + i) + i for i in range(count)]


def test_statistics_are_the_means_of_those_of_the_batches() -> None:
    model = network()
    assert measure_statistics(model, batches(3)) == 3
    first: list[tuple[Tensor, Tensor]] = []
    second: list[tuple[Tensor, Tensor]] = []
    for batch in batches(3):
        x = model[0](batch)
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        first.append((mean, variance))
        x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-9).sqrt()
        x = model[4](x.relu())  # without dropout
        second.append((x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)))
    for layer, seen in ((model[1], first), (model[5], second)):
        torch.testing.assert_close(layer.running_mean, torch.stack([mean for mean, _ in seen]).mean(0))
        torch.testing.assert_close(layer.running_var, torch.stack([var for _, var in seen]).mean(0))


def test_evaluation_on_the_only_batch_is_training_on_it() -> None:
    model = network()
    (batch,) = batches(1)
    measure_statistics(model, [batch])
    model[3].p = 0.0
    with torch.no_grad():
        expected = model.train()(batch)
        measure_statistics(model, [batch])
        torch.testing.assert_close(model.eval()(batch), expected)


def test_renormalised_layers_are_measured_too() -> None:
    plain, renormalised = network(), network()
    renormalise(renormalised)
    for model in (plain, renormalised):
        measure_statistics(model, batches(2))
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(renormalised.state_dict()[key], value)


def test_everything_else_stays_as_it_was() -> None:
    model = network()
    model[3].eval()
    modes = [module.training for module in model.modules()]
    momentum, tracked = model[1].momentum, model[1].num_batches_tracked.clone()
    weights = {key: value.clone() for key, value in model.named_parameters()}
    keys = list(model.state_dict())
    measure_statistics(model, batches(2))
    assert [module.training for module in model.modules()] == modes
    assert model[1].momentum == momentum
    assert torch.equal(model[1].num_batches_tracked, tracked)
    assert list(model.state_dict()) == keys
    assert all(torch.equal(value, weights[key]) for key, value in model.named_parameters())


def test_no_batch_is_refused_and_leaves_the_statistics() -> None:
    model = network()
    with pytest.raises(RequestError, match="0 batches to measure statistics on; accepted: one or more"):
        measure_statistics(model, [])
    assert torch.equal(model[1].running_mean, torch.zeros(3))
