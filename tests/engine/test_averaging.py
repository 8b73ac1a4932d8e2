from __future__ import annotations

import torch
from torch import nn

from pixelwise.engine.averaging import Average, set_momentum


def test_running_statistics_are_averaged_evenly_at_first() -> None:
    """With a momentum of 1/t the running mean is the plain mean over the batches so far, none of the initial 0."""
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1)).train()
    batches = [torch.randn(2, 1, 3, 3) + shift for shift in range(5)]
    for iteration, batch in enumerate(batches):
        set_momentum(model, iteration, 500)
        model(batch)
    expected = torch.stack([batch.mean() for batch in batches]).mean()
    torch.testing.assert_close(model[0].running_mean[0], expected)
    for iterations, batches in ((50, 10), (500, 50), (5000, 100)):
        set_momentum(model, iterations - 1, iterations)
        assert model[0].momentum == 1 / batches


def test_average_of_the_weights_is_their_plain_mean_at_first() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    average = Average(model)
    seen = []
    for iteration in range(6):
        nn.init.normal_(model[0].weight)
        model[1].running_mean.fill_(iteration)
        seen.append(model[0].weight.detach().clone())
        average.update(model, iteration, 1000)
    torch.testing.assert_close(average.model[0].weight, torch.stack(seen).mean(dim=0))
    assert average.model[1].running_mean.item() == 5  # buffers are the latest, not averaged
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    before = average.model[0].weight.clone()
    average.update(model, 999, 1000)
    torch.testing.assert_close(average.model[0].weight, before + (seen[-1] - before) / 100)


def test_a_very_short_run_keeps_its_latest_weights() -> None:
    model = nn.Linear(2, 1)
    average = Average(model)
    for iteration in range(8):
        nn.init.normal_(model.weight)
        average.update(model, iteration, 8)
    assert torch.equal(average.model.weight, model.weight)
