"""SegNet: V. Badrinarayanan, A. Kendall, R. Cipolla, PAMI 2017 (https://arxiv.org/abs/1511.00561), and Bayesian SegNet
(A. Kendall, V. Badrinarayanan, R. Cipolla, BMVC 2017, https://arxiv.org/abs/1511.02680), as in the release's tutorial
(alexgkendall/SegNet-Tutorial, bb68b64).

Command: pixelwise train CAMVID --recipe segnet --weights vgg16.safetensors --out RUN, with the weights made by
pixelwise import-weights segnet_vgg16 VGG_ILSVRC_16_layers.caffemodel --trunk --num-classes 11 --out vgg16.safetensors.
Data: CamVid, 367 training images of 360 x 480, 11 classes. For other classes give
--set loss.class_weights=median_frequency.
Hardware and hours: not stated in the tutorial.

Images go in as 0..255 without a mean, whole, four a step, unchanged. Class weights are the release's numbers, and the
weighted loss is divided by the number of pixels. Statistics of batch normalisation are measured over 94 batches.
"""

from __future__ import annotations

from typing import Any

from pixelwise.recipes.recipe import CAFFE, UNCHANGED, VGG16, Recipe, Stage


def tutorial(model: str, lr: float, iterations: int) -> dict[str, Any]:
    """Return a solver of the tutorial."""
    return {
        **CAFFE,
        **UNCHANGED,
        "model": model,
        "optimizer.lr": lr,
        "optimizer.norm_decay": "scale",
        "loss.class_weights": "camvid11",
        "data.whole_images": True,
        "data.batch_size": 4,
        "data.mean": (0.0, 0.0, 0.0),
        "precise_batch_norm": 94,
        "budget.iterations": iterations,
        "val_every": 1000,
    }


def segnet() -> Recipe:
    """SegNet. Expected: pixel accuracy 0.886, mIoU 0.502 (CamVid test, unverified). Measured: not measured."""
    stage = Stage(name="segnet", settings=tutorial("segnet_vgg16", 1e-3, 40_000))
    return Recipe(summary="SegNet as in the release's tutorial", stages=(stage,), weights=VGG16)


def segnet_basic() -> Recipe:
    """SegNet-Basic, from random weights. Expected: pixel accuracy 0.827, mIoU 0.477 (CamVid test, Table 1, with
    batches of 12). Measured: not measured.
    """
    stage = Stage(name="segnet_basic", settings=tutorial("segnet_basic", 0.1, 10_000))
    return Recipe(summary="SegNet-Basic as in the release's tutorial", stages=(stage,))


def bayesian_segnet() -> Recipe:
    """Bayesian SegNet. Expected: pixel accuracy 0.869, mIoU 0.631 (CamVid test, unverified). Measured: not measured."""
    stage = Stage(name="bayesian_segnet", settings=tutorial("bayesian_segnet_vgg16", 1e-3, 60_000))
    return Recipe(summary="Bayesian SegNet as in the release's tutorial", stages=(stage,), weights=VGG16)


def bayesian_segnet_basic() -> Recipe:
    """Bayesian SegNet-Basic, from random weights. Expected: pixel accuracy 0.816, mIoU 0.558 (CamVid test, unverified).
    Measured: not measured.
    """
    stage = Stage(name="bayesian_segnet_basic", settings=tutorial("bayesian_segnet_basic", 0.1, 10_000))
    return Recipe(summary="Bayesian SegNet-Basic as in the release's tutorial", stages=(stage,))
