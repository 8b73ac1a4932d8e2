"""PSPNet: H. Zhao, J. Shi, X. Qi, X. Wang, J. Jia, "Pyramid Scene Parsing Network", CVPR 2017
(https://arxiv.org/abs/1612.01105).

Command: pixelwise train ADE20K --recipe pspnet50_ade20k --weights resnet50.safetensors --out RUN, with the weights made
by pixelwise import-weights pspnet_resnet50 resnet50_v2.pth --trunk --num-classes 150 --out resnet50.safetensors of
hszhao/semseg's classifier with the deep stem. Then pixelwise evaluate RUN ADE20K --window 473 --long-side 512 --flip,
and for six scales with --scales 0.5,0.75,1,1.25,1.5,1.75; on Cityscapes with --window 713 --long-side 2048. The Caffe
release takes a pixel more (513, 2049) and --fusion flip_logit_sum.
Data: ADE20K, 20,210 training images, scores on the 2000 of val; VOC 2012 with SBD, 10,582 and 1449; Cityscapes, 2975
and 500.
Hardware and hours: eight GPUs with shared batch statistics in semseg; hours not verified. Statistics over 16 windows
are part of the method: with a few windows a process, another PSPNet fell from 0.7976 to 0.6913 on Cityscapes.

Scores of semseg come from sliding windows with strides of two thirds and mirrored images, at one scale and at six,
which are shares of the longer side's 512 or 2048 pixels and not of the image's own.
The new layers learn ten times as fast. Everything decays, normalisations and biases too. Under torchrun statistics are
those of all processes' windows. What lies beyond an image does not count in the loss.

Departures: turns of up to 10 degrees reach all samples, there half of them; a blurred sample has a standard deviation
of up to 1.1 pixels, there that of a 5x5 kernel. Beyond an image it is mirrored, there filled with the mean colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pixelwise.recipes.recipe import UNCHANGED, Recipe, Stage

IMAGENET = "hszhao/semseg's ResNet for ImageNet, with the deep stem"
NEW_LAYERS = ("ppm.*", "cls.*", "aux.*")
SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        **UNCHANGED,
        "augment.horizontal_flip": True,
        "augment.scale": (0.5, 2.0),
        "augment.scale_draw": "even",
        "augment.rotation": 10.0,
        "augment.blur": 1.1,
        "augment.blur_probability": 0.5,
        "optimizer.name": "sgd",
        "optimizer.lr": 0.01,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 1e-4,
        "optimizer.bias_decay": 1.0,
        "optimizer.norm_decay": "all",
        "optimizer.layers": {name: {"lr": 10.0} for name in NEW_LAYERS},
        "optimizer.schedule": "poly",
        "optimizer.power": 0.9,
        "optimizer.warmup": 0.0,
        "optimizer.clip_norm": 0.0,
        "loss.dice": 0.0,
        "loss.class_weights": "none",
        "loss.normalise": "pixels",
        "data.scale": 1.0,
        "data.crop": (473, 473),
        "data.batch_size": 16,
        "data.foreground_crops": 0.0,
        "data.ignore_beyond": True,
        "data.mean": (123.675, 116.28, 103.53),
        "data.std": (58.395, 57.12, 57.375),
        "batch_norm": "sync",
        "ema": False,
        "precision": "float32",
    }
)
# The Caffe training: images less their mean alone, no decay of normalisations, biases of the classifiers twenty times.
PAPER: Mapping[str, Any] = MappingProxyType(
    {
        **{key: value for key, value in SETTINGS.items() if key != "data.std"},
        "options.variant": "caffe",
        "data.mean": (123.68, 116.779, 103.939),
        "optimizer.norm_decay": "none",
        "optimizer.layers": {
            **SETTINGS["optimizer.layers"],
            "cls.4": {"lr": 10.0, "bias_lr": 20.0},
            "aux.4": {"lr": 10.0, "bias_lr": 20.0},
        },
    }
)


def single(summary: str, settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe of one stage."""
    return Recipe(summary=summary, stages=(Stage(name="pspnet", settings=settings),), weights=IMAGENET)


def pspnet50_ade20k() -> Recipe:
    """PSPNet-50 as semseg trains it. Measured: not measured.

    Expected: mIoU 0.4189 and pixel accuracy 0.8039, with six scales 0.4284 and 0.8106.
    """
    settings = {**SETTINGS, "model": "pspnet_resnet50", "budget.epochs": 100}
    return single("PSPNet-50 on ADE20K as hszhao/semseg trains it", settings)


def pspnet101_voc() -> Recipe:
    """PSPNet-101 as semseg trains it. Expected: mIoU 0.7907, with six scales 0.7963. Measured: not measured."""
    settings = {**SETTINGS, "model": "pspnet_resnet101", "budget.epochs": 50}
    return single("PSPNet-101 on VOC 2012 as hszhao/semseg trains it", settings)


def pspnet101_cityscapes() -> Recipe:
    """PSPNet-101 as semseg trains it. Expected: mIoU 0.7863, with six scales 0.7929. Measured: not measured."""
    settings = {**SETTINGS, "model": "pspnet_resnet101", "budget.epochs": 200, "data.crop": (713, 713)}
    return single("PSPNet-101 on Cityscapes as hszhao/semseg trains it", settings)


def pspnet50_ade20k_paper() -> Recipe:
    """PSPNet-50 as the paper trains it. Measured: not measured.

    Expected: mIoU 0.4168 and pixel accuracy 0.8004, with six scales 0.4278 and 0.8076. A further departure: the Caffe
    training compares scores with labels at an eighth of the resolution. Its ImageNet weights are not semseg's.
    """
    settings = {**PAPER, "model": "pspnet_resnet50", "budget.iterations": 150_000}
    return single("PSPNet-50 on ADE20K as the paper trains it", settings)
