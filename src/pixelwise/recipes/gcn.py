"""GCN: C. Peng, X. Zhang, G. Yu, G. Luo, J. Sun, "Large Kernel Matters", CVPR 2017
(https://arxiv.org/abs/1703.02719).

Command: pixelwise train VOC --recipe gcn_voc --weights resnet152.safetensors --epochs 30 --out RUN, with the weights
made by pixelwise import-weights gcn_resnet152 resnet152.pth --trunk --num-classes 21 --out resnet152.safetensors of
torchvision's ImageNet weights.
Data: VOC 2012 with SBD, 10,582 training images, scores on the 1449 of VOC 2012 val; Cityscapes, 2975 and 500.
Hardware and hours: not stated by the sources at hand.

Published are momentum 0.99, weight decay 5e-4, batches of one image, mean subtraction and mirroring. Not stated by the
sources at hand, so that a budget must be given and these are ours: the length; the learning rate, 2e-5, which is that
of FCN's heavy training, with the same momentum and batch, per pixel; its constancy; frozen normalisations, since a
batch of one image says little about them, and not to be had without ImageNet weights.

Departures: the original trains first on COCO's twenty classes, SBD and VOC together (109,892 images), then on SBD and
VOC, then on VOC alone, or on Cityscapes' coarse and fine labels (22,973 images), then on the fine ones; here one stage
takes the data that is given. It pads images with their mean to 512 x 512; here they are mirrored, and what lies beyond
them does not count in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pixelwise.recipes.recipe import MIRRORED, Recipe, Stage

IMAGENET = "torchvision's ResNet-152 for ImageNet"
SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        **MIRRORED,
        "model": "gcn_resnet152",
        "optimizer.name": "sgd_caffe",
        "optimizer.lr": 2e-5,
        "optimizer.momentum": 0.99,
        "optimizer.weight_decay": 5e-4,
        "optimizer.schedule": "constant",
        "optimizer.warmup": 0.0,
        "optimizer.clip_norm": 0.0,
        "loss.dice": 0.0,
        "loss.class_weights": "none",
        "loss.normalise": "pixels",
        "data.scale": 1.0,
        "data.batch_size": 1,
        "data.foreground_crops": 0.0,
        "data.ignore_beyond": True,
        "data.mean": (123.675, 116.28, 103.53),  # torchvision's, whose ImageNet weights the training starts from
        "data.std": (58.395, 57.12, 57.375),
        "batch_norm": "frozen",
        "ema": False,
        "precision": "float32",
    }
)


def gcn_voc() -> Recipe:
    """GCN with boundary refinement, k = 15. Measured: not measured.

    Expected: mIoU 0.747 without COCO (0.745 without boundary refinement), 0.803 after all three stages.
    """
    settings = {**SETTINGS, "data.crop": (512, 512)}
    return Recipe(
        summary="GCN with k = 15 on VOC 2012; learning rate and length are not published",
        stages=(Stage(name="gcn", settings=settings),),
        weights=IMAGENET,
    )


def gcn_cityscapes() -> Recipe:
    """GCN with k = 25 for maps of 25 x 25. Expected: mIoU 0.769 with coarse labels. Measured: not measured."""
    settings = {**SETTINGS, "options.k": 25, "data.crop": (800, 800)}
    return Recipe(
        summary="GCN with k = 25 on Cityscapes; learning rate and length are not published",
        stages=(Stage(name="gcn", settings=settings),),
        weights=IMAGENET,
    )
