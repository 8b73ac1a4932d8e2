"""Bayesian SegNet: where it drops, and what sampling gives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from pixelwise.errors import RequestError
from pixelwise.models.bayesian_segnet import bayesian_segnet_basic, bayesian_segnet_vgg16, sample
from pixelwise.models.segnet import segnet_vgg16

both = pytest.mark.parametrize("build", [bayesian_segnet_vgg16, bayesian_segnet_basic])
images = torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(3))


def narrow(build: Callable[..., nn.Module], **options: object) -> nn.Module:
    torch.manual_seed(0)
    return build(num_classes=3, base_channels=4, **options).eval()


def dropouts(model: nn.Module) -> list[str]:
    """Each dropout and the layer before it, in the order of the forward pass."""
    order: list[str] = []
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, args, out, name=name: order.append(name))
    model(images)
    drops = {name for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    computing = [name for name in order if name in drops or not isinstance(model.get_submodule(name), nn.Identity)]
    return [f"{before} {name}" for before, name in pairwise(computing) if name in drops]


def test_places_of_the_dropout_are_those_of_the_definitions() -> None:
    """bayesian_segnet_train, bayesian_segnet_pascal and bayesian_segnet_basic_train of SegNet-Tutorial bb68b64."""
    central = ["pool3 encdrop3", "pool4 encdrop4", "pool5 encdrop5"]
    central += ["conv5_1_D_bn decdrop5", "conv4_1_D_bn decdrop4", "conv3_1_D_bn decdrop3"]
    every = ["conv1_2_bn pool1_drop", "conv2_2_bn pool2_drop", "conv3_3_bn pool3_drop", "conv4_3_bn pool4_drop"]
    every += ["conv5_3_bn pool5_drop", "pool5 encdrop5", *central[3:], "conv2_1_D_bn decdrop2"]
    assert dropouts(narrow(bayesian_segnet_vgg16)) == central
    assert dropouts(narrow(bayesian_segnet_vgg16, dropout_places="every")) == every
    assert dropouts(narrow(segnet_vgg16, dropout=0.5)) == central
    basic = ["pool3 encdrop3", "pool4 encdrop4", "conv_decode4_bn decdrop4", "conv_decode3_bn decdrop3"]
    assert dropouts(narrow(bayesian_segnet_basic)) == basic
    rates = {m.p for m in narrow(bayesian_segnet_vgg16).modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.5}


def test_shift_starts_at_zero_in_the_large_network_only() -> None:
    for build, shift in ((bayesian_segnet_vgg16, 0.0), (bayesian_segnet_basic, 0.001), (segnet_vgg16, 0.001)):
        shifts = [m.bias.detach() for m in narrow(build).modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(float(value) == pytest.approx(shift) for value in torch.cat(shifts).unique())


@both
def test_evaluation_without_sampling_is_deterministic_and_two_samples_differ(build: Callable[..., nn.Module]) -> None:
    model = narrow(build)
    assert torch.equal(model(images).logits, model(images).logits)
    first = sample(model, images, num_samples=2, seed=1)
    second = sample(model, images, num_samples=2, seed=2)
    assert not torch.equal(first.probabilities, second.probabilities)
    assert float(first.uncertainty.max()) > 0
    assert torch.equal(model(images).logits, model(images).logits)


@both
def test_sampling_is_mean_and_variance_of_the_softmax_over_passes(build: Callable[..., nn.Module]) -> None:
    """The release: np.mean and np.var over the samples, the variance averaged over classes."""
    model = narrow(build)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(7)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.train()
        passes = np.stack([model(images).logits.softmax(dim=1).numpy() for _ in range(6)])
        model.eval()
    sampled = sample(model, images, num_samples=6, seed=7)
    assert sampled.probabilities.shape == sampled.class_uncertainty.shape == (2, 3, 33, 47)
    assert sampled.uncertainty.shape == (2, 33, 47)
    np.testing.assert_allclose(sampled.probabilities, passes.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(sampled.class_uncertainty, passes.var(axis=0), rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(sampled.uncertainty, passes.var(axis=0).mean(axis=1), rtol=1e-3, atol=1e-8)
    torch.testing.assert_close(sampled.probabilities.sum(dim=1), torch.ones(2, 33, 47))


def test_seed_decides_and_the_program_is_left_as_it_was() -> None:
    model = narrow(bayesian_segnet_basic).train()
    model.conv1.eval()
    modes = [module.training for module in model.modules()]
    statistics = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = sample(model, images, num_samples=3, seed=11)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, statistics[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(first, sample(model, images, num_samples=3, seed=11), strict=True))


def test_mean_settles_with_the_number_of_passes() -> None:
    model = narrow(bayesian_segnet_basic)
    few = [sample(model, images, num_samples=4, seed=seed).probabilities for seed in (1, 2)]
    many = [sample(model, images, num_samples=64, seed=seed).probabilities for seed in (1, 2)]
    assert float((many[0] - many[1]).abs().mean()) < 0.4 * float((few[0] - few[1]).abs().mean())


def test_impossible_sampling_is_refused() -> None:
    with pytest.raises(RequestError, match="num_samples=1; accepted: whole numbers from 2"):
        sample(narrow(bayesian_segnet_basic), images, num_samples=1)
    with pytest.raises(RequestError, match=r"SegNet has no dropout layer that drops; accepted: .* dropout above 0"):
        sample(narrow(segnet_vgg16), images)
