"""DeepLab v3: L.-C. Chen, G. Papandreou, F. Schroff, H. Adam, 2017 (https://arxiv.org/abs/1706.05587).

Command: pixelwise train VOC --recipe deeplabv3_resnet101 --weights resnet101.safetensors --out RUN, with the weights
made by pixelwise import-weights deeplabv3_resnet101 resnet101.pth --trunk --num-classes 21 --out resnet101.safetensors
of torchvision's ImageNet weights. Then pixelwise evaluate RUN/os16 VOC --set output_stride=8 --scales
0.5,0.75,1,1.25,1.5,1.75 --flip.
Data: VOC 2012 with SBD, 10,582 training images; scores on the 1449 of VOC 2012 val.
Hardware and hours: not stated by the original; a batch of 16 windows of 513 x 513 needs several GPUs of its time.

A first phase at output stride 16 trains the normalisations, which takes batches of 16 (under torchrun those of all
processes): with 4, 8 and 12 the paper has 0.6443, 0.7576 and 0.7649 for 0.7721. A second at output stride 8 keeps them
and learns more slowly. The loss is the mean over all pixels, since scores are upsampled before it: without that the
paper has 0.7601.

Departures: the original's second phase takes trainval, for the test server; here both take the data that is given, and
its score is not published. Running statistics are means over the last hundred steps or so, where the original's have
a decay of 0.9997. Images that are smaller than a window are mirrored, where the original fills them with the mean
colour; in both what lies beyond an image does not count. Weight decay and the random scales, 0.5 to 2 in steps of a
quarter, are those of the authors' code (tensorflow/models, research/deeplab, 0307688).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pixelwise.recipes.recipe import MIRRORED, Recipe, Stage

IMAGENET = "torchvision's ResNet for ImageNet"
SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        **MIRRORED,
        "augment.scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 1e-4,
        "optimizer.schedule": "poly",
        "optimizer.power": 0.9,
        "optimizer.warmup": 0.0,
        "optimizer.clip_norm": 0.0,
        "loss.dice": 0.0,
        "loss.class_weights": "none",
        "loss.normalise": "pixels",
        "data.scale": 1.0,
        "data.crop": (513, 513),
        "data.batch_size": 16,
        "data.foreground_crops": 0.0,
        "data.ignore_beyond": True,
        "data.mean": (123.675, 116.28, 103.53),  # torchvision's, whose ImageNet weights the training starts from
        "data.std": (58.395, 57.12, 57.375),
        "budget.iterations": 30_000,
        "ema": False,
        "precision": "float32",
    }
)


def phases(model: str) -> tuple[Stage, Stage]:
    """Return both phases for a model."""
    first = {**SETTINGS, "model": model, "options.output_stride": 16, "optimizer.lr": 0.007, "batch_norm": "sync"}
    second = {**first, "options.output_stride": 8, "optimizer.lr": 0.001, "batch_norm": "frozen"}
    return Stage(name="os16", settings=first), Stage(name="os8", settings=second, start="previous")


def deeplabv3_resnet50() -> Recipe:
    """DeepLab v3 on ResNet-50 in two phases. Expected: not published. Measured: not measured."""
    return Recipe(
        summary="DeepLab v3 on ResNet-50: output stride 16, then 8",
        stages=phases("deeplabv3_resnet50"),
        weights=IMAGENET,
    )


def deeplabv3_resnet101() -> Recipe:
    """DeepLab v3 on ResNet-101 in two phases. Measured: not measured.

    Expected after the first: mIoU 0.7721, 0.7851 at output stride 8, 0.7945 at six scales, 0.7977 mirrored as well.
    """
    return Recipe(
        summary="DeepLab v3 on ResNet-101: output stride 16, then 8",
        stages=phases("deeplabv3_resnet101"),
        weights=IMAGENET,
    )


def deeplabv3_cascade_resnet101() -> Recipe:
    """DeepLab v3's cascade on ResNet-101 in two phases. Measured: not measured.

    Expected after the first: mIoU 0.7666, 0.7805 at output stride 8, 0.7893 at six scales, 0.7935 mirrored as well.
    """
    return Recipe(
        summary="DeepLab v3 in cascade on ResNet-101: output stride 16, then 8",
        stages=phases("deeplabv3_cascade_resnet101"),
        weights=IMAGENET,
    )
