"""Batch statistics: steady ones, and normalisation that holds for batches of one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pixelwise.engine.batch_norm import (
    LARGEST_D,
    LARGEST_R,
    BatchRenorm2d,
    fewest_values,
    renormalise,
    set_batch_norm,
    set_momentum,
)
from pixelwise.layers.frozen_batch_norm import FrozenBatchNorm2d


def normalised(layer: nn.BatchNorm2d, **state: Tensor) -> BatchRenorm2d:
    model = nn.Sequential(layer)
    renormalise(model)
    assert isinstance(layer, BatchRenorm2d)
    for name, value in state.items():
        getattr(layer, name).data.copy_(value)
    return layer.train()


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


def test_renormalised_training_is_batch_normalisation_at_first() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, 6) * 2 + 1
    plain, corrected = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    renormalise(nn.Sequential(corrected))
    for layer in (plain, corrected):
        nn.init.uniform_(layer.weight)
        layer.bias.data.copy_(torch.arange(4))
    corrected.weight.data.copy_(plain.weight.data)
    grads = []
    for layer in (plain, corrected):
        given = x.clone().requires_grad_()
        torch.testing.assert_close(layer(given), plain(x), atol=1e-5, rtol=1e-5)
        layer(given).square().mul(torch.arange(6)).sum().backward()
        grads.append(given.grad)
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


def test_within_its_limits_training_gives_what_evaluation_gives() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 4, 4) * 1.5 + 0.5
    layer = normalised(nn.BatchNorm2d(3), running_mean=torch.tensor([0.3, -0.1, 0.8]), running_var=torch.ones(3) * 2)
    layer.r_max, layer.d_max, layer.momentum = LARGEST_R, LARGEST_D, 0.0
    trained = layer(x)
    torch.testing.assert_close(trained, layer.eval()(x), atol=1e-5, rtol=1e-5)


def test_corrections_are_limited() -> None:
    x = torch.tensor([9.0, 11.0]).view(1, 1, 1, 2)  # mean 10, deviation 1
    layer = normalised(nn.BatchNorm2d(1, eps=0.0), running_mean=torch.zeros(1), running_var=torch.full((1,), 0.04))
    layer.r_max, layer.d_max = 3.0, 5.0
    # r = 1 / 0.2 = 5, limited to 3; d = 10 / 0.2 = 50, limited to 5
    torch.testing.assert_close(layer(x).flatten(), torch.tensor([-1.0 * 3 + 5, 1.0 * 3 + 5]))


def test_running_variance_counts_how_far_images_lie_apart() -> None:
    """In batches of one, images that are flat but differ have a variance, which the mean of batch variances misses."""
    values = torch.tensor([1.0, 5.0, 3.0, 7.0])
    layer = normalised(nn.BatchNorm2d(1))
    for iteration, value in enumerate(values):
        layer.momentum = 1 / (iteration + 1)
        layer(value.expand(1, 1, 2, 2))
    torch.testing.assert_close(layer.running_mean[0], values.mean())
    torch.testing.assert_close(layer.running_var[0], values.var(correction=0))
    assert layer.num_batches_tracked == 4


def test_a_single_value_per_channel_trains() -> None:
    """As behind a global pooling in a batch of one, where batch normalisation raises."""
    x = torch.full((1, 2, 1, 1), 3.0, requires_grad=True)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm2d(2).train()(x)
    layer = normalised(nn.BatchNorm2d(2), running_mean=torch.ones(2), running_var=torch.full((2,), 4.0))
    layer.r_max, layer.d_max = LARGEST_R, LARGEST_D
    out = layer(x)
    torch.testing.assert_close(out, torch.full((1, 2, 1, 1), 1.0), atol=1e-4, rtol=0)
    out.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(layer.running_var).all()


def test_names_values_and_evaluation_stay() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    x = torch.randn(2, 3, 8, 8)
    before, state = model(x), {key: value.clone() for key, value in model.state_dict().items()}
    renormalise(model)
    assert torch.equal(model(x), before)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_limits_widen_on_the_schedule() -> None:
    layer = normalised(nn.BatchNorm2d(1))
    seen = []
    for share in (0, 0.03, 0.095, 0.14, 0.25, 1):
        set_momentum(layer, int(1000 * share), 1000)
        seen.append((round(layer.r_max, 3), round(layer.d_max, 3)))
    assert seen == [(1.0, 0.0), (1.0, 0.0), (1.591, 2.5), (2.0, 4.231), (3.0, 5.0), (3.0, 5.0)]


def test_gradients_pass_a_single_value_within_the_limits() -> None:
    """A layer before the normalisation of a global pooling learns in batches of one, which batch statistics forbid."""
    layer = normalised(nn.BatchNorm2d(2), running_mean=torch.ones(2), running_var=torch.full((2,), 4.0))
    layer.weight.data.fill_(3.0)
    for r_max, d_max, expected in ((1.0, 0.0, [0.0, 0.0]), (LARGEST_R, LARGEST_D, [1.5, 0.0])):
        layer.r_max, layer.d_max, layer.momentum = r_max, d_max, 0.0
        x = torch.tensor([2.0, 99.0]).view(1, 2, 1, 1).requires_grad_()
        layer(x).sum().backward()
        torch.testing.assert_close(x.grad.flatten(), torch.tensor(expected), atol=1e-4, rtol=1e-4)


class Pooled(nn.Module):
    """Two normalised maps: of the image's size, and of its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4))
        self.far = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def forward(self, images: Tensor) -> Tensor:
        return self.near(images) + self.far(images)


def test_the_layer_that_sees_fewest_values_is_found() -> None:
    with torch.device("meta"):
        model, plain = Pooled(), nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Dropout())
    assert fewest_values(model, in_channels=3, input_size=(9, 7)) == ("far.2", 1)
    assert fewest_values(plain, in_channels=3, input_size=(9, 7)) == ("1", 4 * 3)
    assert fewest_values(plain[:1], in_channels=3, input_size=(9, 7)) is None


def test_each_kind_of_the_configuration() -> None:
    kinds = {"batch": nn.BatchNorm2d, "renorm": BatchRenorm2d, "frozen": FrozenBatchNorm2d}
    for kind, layer in kinds.items():
        model = nn.Sequential(nn.BatchNorm2d(1))
        set_batch_norm(model, kind)
        assert type(model[0]) is layer
