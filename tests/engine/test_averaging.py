from __future__ import annotations

import torch
from torch import nn

from pixelwise.engine.averaging import Average


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
