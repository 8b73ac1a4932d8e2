"""Frozen batch normalisation: the same function in both modes, and nothing to train."""

from __future__ import annotations

import torch
from torch import nn

from pixelwise.layers.frozen_batch_norm import FrozenBatchNorm2d, freeze_batch_norm


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.BatchNorm2d(4))
    for layer in (model[1][0], model[2]):
        nn.init.normal_(layer.running_mean)
        nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return model


def test_training_changes_neither_output_nor_state() -> None:
    model, images = network().eval(), torch.randn(2, 3, 8, 8)
    wanted, before = model(images), {key: value.clone() for key, value in model.state_dict().items()}
    assert freeze_batch_norm(model) == 2
    model.train()
    torch.testing.assert_close(model(images), wanted, rtol=0, atol=0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not isinstance(model[0], FrozenBatchNorm2d)
    assert model[0].training


def test_only_other_layers_are_trained() -> None:
    model = network()
    freeze_batch_norm(model)
    model.train()(torch.randn(1, 3, 8, 8)).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["0.weight", "0.bias"]
    assert model[0].weight.grad is not None
    assert model[2].weight.grad is None


def test_freezing_twice_changes_nothing() -> None:
    model = network()
    freeze_batch_norm(model)
    assert freeze_batch_norm(model) == 0
