"""Folding batch normalisation: which layers, and what stays; that results agree is in the contract of all models."""

from __future__ import annotations

import torch
from torch import nn

from pixelwise.backbones.resnet import BLOCKS, ResNet
from pixelwise.engine.fold import fold_batch_norm
from pixelwise.models import create_model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_every_normalisation_of_a_resnet_is_folded() -> None:
    for stem in ("7x7", "deep"):
        model = ResNet(blocks=BLOCKS[50], base_channels=2, stem=stem).eval()
        there = norms(model)
        assert fold_batch_norm(model) == there == (53 if stem == "7x7" else 55)
        assert norms(model) == 0


def test_systems_fold_wholly() -> None:
    for name in ("pspnet_resnet50", "segnet_basic", "unet_small", "drnseg_d_22", "deeplabv3_resnet50"):
        options = {"base_channels": 4} | ({"blocks": (1, 1, 1, 1)} if "resnet" in name else {})
        model = create_model(name, num_classes=2, **options).eval()
        fold_batch_norm(model)
        assert norms(model) == 0, name


def test_bias_and_missing_parameters() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False), nn.ReLU(), nn.BatchNorm2d(3)).eval()
    nn.init.normal_(model[1].running_mean)
    nn.init.uniform_(model[1].running_var, 0.5, 2)
    images = torch.randn(1, 2, 5, 5)
    wanted = model(images)
    assert fold_batch_norm(model) == 1
    assert isinstance(model[3], nn.BatchNorm2d)  # no convolution before it
    torch.testing.assert_close(model(images), wanted)


def test_training_statistics_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).train()
    assert fold_batch_norm(model) == 0
    other = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    assert fold_batch_norm(other) == 0
