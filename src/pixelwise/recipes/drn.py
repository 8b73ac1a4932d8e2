"""Dilated Residual Networks: F. Yu, V. Koltun, T. Funkhouser, CVPR 2017 (https://arxiv.org/abs/1705.09914); the numbers
are those of the release (fyu/drn, d75db2e: README, segment.py, data_transforms.py, datasets/cityscapes/info.json).

Command: pixelwise train CITYSCAPES --recipe drnseg_d_22 --weights drn_d_22.safetensors --out RUN, with the weights made
by pixelwise import-weights drnseg_d_22 drn_d_22.pth --trunk --num-classes 19 --out drn_d_22.safetensors of the
release's ImageNet weights. Then pixelwise evaluate RUN CITYSCAPES, and for drnseg_d_105 with --scales
1,0.5,0.75,1.25,1.5,1.75 --fusion logit_mean: the original adds log-probabilities of all sizes, which ranks the classes
of a pixel as the sum of their logits does.
Data: Cityscapes, 2975 training images of 1024 x 2048 with fine labels, 19 classes; scores on the 500 of val.
Hardware and hours: for D-105 8 GPUs of more than 12 GB each; hours are not stated.

Images are normalised by Cityscapes' own mean and deviation, although the ImageNet weights were trained with ImageNet's.
Weight decay takes everything, normalisations and biases too. The rate falls to a tenth every hundred epochs; for D-105
it follows a polynomial of the epoch, at the beginning of each. D-105 is also trained on turned and resized images, with
statistics of all processes' windows (torchrun); what lies beyond an image is mirrored and ignored. The loss is the mean
over all pixels.

Departures: an epoch of the original leaves out an incomplete batch (92 steps of 32, here 93 on average). It turns by
whole degrees, then resizes, averaging where it shrinks and by cubic interpolation where it grows; here both are one
step of linear interpolation, and windows lie inside the turned image where they fit. Its kept state is the best by the
share of right pixels on random windows of val; here it is the best by mean IoU on whole images.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pixelwise.recipes.recipe import MIRRORED, Recipe, Stage

IMAGENET = "the release's DRN for ImageNet"
SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        **MIRRORED,
        "optimizer.name": "sgd",
        "optimizer.lr": 0.01,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 1e-4,
        "optimizer.bias_decay": 1.0,
        "optimizer.norm_decay": "all",
        "optimizer.unit": "epoch",
        "optimizer.warmup": 0.0,
        "optimizer.clip_norm": 0.0,
        "loss.dice": 0.0,
        "loss.class_weights": "none",
        "loss.normalise": "pixels",
        "data.scale": 1.0,
        "data.foreground_crops": 0.0,
        "data.ignore_beyond": True,
        "data.mean": tuple(255 * value for value in (0.29010095, 0.32808145, 0.28696394)),
        "data.std": tuple(255 * value for value in (0.18295405, 0.18656561, 0.18447509)),
        "ema": False,
        "precision": "float32",
    }
)


def in_steps(model: str) -> Recipe:
    """Return the training of the README's first command, of which its table has all models but D-105."""
    settings = {
        **SETTINGS,
        "model": model,
        "optimizer.schedule": "step",
        "optimizer.step": 100,
        "data.crop": (896, 896),
        "data.batch_size": 32,
        "batch_norm": "batch",
        "budget.epochs": 250,
    }
    name = model.removeprefix("drnseg_").replace("_", "-").upper()
    return Recipe(
        summary=f"DRN-{name} for Cityscapes, step policy",
        stages=(Stage(name=model, settings=settings),),
        weights=IMAGENET,
    )


def drnseg_a_50() -> Recipe:
    """DRN-A-50. Expected: mIoU 0.673 (Cityscapes val). Measured: not measured.

    Its ImageNet weights are torchvision's ResNet-50.
    """
    return in_steps("drnseg_a_50")


def drnseg_c_26() -> Recipe:
    """DRN-C-26. Expected: mIoU 0.680 (Cityscapes val). Measured: not measured."""
    return in_steps("drnseg_c_26")


def drnseg_c_42() -> Recipe:
    """DRN-C-42. Expected: mIoU 0.709 (Cityscapes val). Measured: not measured."""
    return in_steps("drnseg_c_42")


def drnseg_d_22() -> Recipe:
    """DRN-D-22. Expected: mIoU 0.680 (Cityscapes val). Measured: not measured.

    The README says of smaller batches that lr 0.001 with momentum 0.99 does as well; of smaller windows that they hurt.
    """
    return in_steps("drnseg_d_22")


def drnseg_d_38() -> Recipe:
    """DRN-D-38. Expected: mIoU 0.714 (Cityscapes val). Measured: not measured."""
    return in_steps("drnseg_d_38")


def drnseg_d_105() -> Recipe:
    """DRN-D-105. Expected: mIoU 0.756 (Cityscapes val), 0.763 (test, six scales). Measured: not measured."""
    settings = {
        **SETTINGS,
        "model": "drnseg_d_105",
        "augment.scale": (0.5, 2.0),
        "augment.scale_draw": "even",
        "augment.rotation": 10.0,
        "optimizer.schedule": "poly",
        "optimizer.power": 0.9,
        "data.crop": (840, 840),
        "data.batch_size": 16,
        "batch_norm": "sync",
        "budget.epochs": 500,
    }
    stage = Stage(name="drnseg_d_105", settings=settings)
    return Recipe(summary="DRN-D-105 for Cityscapes, poly policy", stages=(stage,), weights=IMAGENET)
