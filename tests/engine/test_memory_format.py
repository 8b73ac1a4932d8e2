"""The order of a network's numbers in training: wide networks on a CPU have their channels one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelwise.engine.memory_format import format_of, training_format
from pixelwise.models import create_model


@pytest.mark.parametrize(
    ("name", "device", "wanted"),
    [
        ("pspnet_resnet50", "cpu", torch.contiguous_format),
        ("unet_padded", "cpu", torch.contiguous_format),
        ("unet_small", "cpu", torch.channels_last),
        ("fusionnet_small", "cpu", torch.channels_last),
        ("pspnet_resnet50", "cuda", torch.channels_last),
    ],
)
def test_wide_networks_train_contiguously_on_a_cpu(name: str, device: str, wanted: torch.memory_format) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=2)
    assert training_format(model, device) == wanted


def test_strided_shortcuts_of_few_channels_never_have_them_last() -> None:
    """oneDNN issue 6035: there the gradient of the weights is wrong, or the process ends."""
    with torch.device("meta"):
        model = create_model("drn_c_26", num_classes=2, base_channels=4, blocks=(1, 1, 1, 1, 1, 1, 1, 1))
    assert training_format(model, "cpu") == torch.contiguous_format
    assert training_format(model, "cuda") == torch.channels_last
    assert training_format(nn.Conv2d(15, 32, 1, stride=2), "cpu") == torch.contiguous_format
    assert training_format(nn.Conv2d(16, 32, 1, stride=2), "cpu") == torch.channels_last
    grouped = nn.Sequential(nn.Conv2d(4, 8, 1, stride=2), nn.Conv2d(8, 8, 3, groups=8))
    assert training_format(grouped, "cpu") == torch.contiguous_format


def test_convolutions_of_single_channels_and_none_at_all() -> None:
    separable = nn.Sequential(nn.Conv2d(256, 256, 3, groups=256), nn.Conv2d(256, 256, 1))
    assert training_format(separable, "cpu") == torch.channels_last
    assert training_format(nn.Linear(2, 2), "cpu") == torch.channels_last


@pytest.mark.parametrize("wanted", [torch.contiguous_format, torch.channels_last])
def test_images_follow_the_weights(wanted: torch.memory_format) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1)).to(memory_format=wanted)
    assert format_of(model) == wanted
