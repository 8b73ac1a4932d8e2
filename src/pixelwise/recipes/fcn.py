"""FCN: J. Long, E. Shelhamer, T. Darrell, CVPR 2015 (https://arxiv.org/abs/1411.4038) and PAMI 2017.

Two trainings exist. The released one ("heavy", shelhamer/fcn.berkeleyvision.org, 1305c73) takes one whole image a step,
a loss that is summed over its pixels and momentum 0.99; the CVPR paper's takes 20 images and a mean. A learning rate of
one with the loss of the other learns nothing, or diverges.

Command: pixelwise train VOC --recipe fcn8s_staged --weights vgg16.safetensors --out RUN, with the weights made by
pixelwise import-weights fcn32s_vgg16 VGG_ILSVRC_16_layers.caffemodel --trunk --num-classes 21 --out vgg16.safetensors.
Data: 8498 images of SBD's train list; scores on the 736 images of VOC 2011 val that are not among them.
Hardware and hours: not stated by the originals.

Departures: a stage goes on from the best state of the one before by validation, not from its last.
"""

from __future__ import annotations

from typing import Any

from pixelwise.recipes.recipe import CAFFE, CAFFENET, UNCHANGED, VGG16, VGG_MEAN, Recipe, Stage

IMAGES = {**CAFFE, **UNCHANGED, "data.whole_images": True, "data.batch_size": 1, "data.mean": VGG_MEAN}


def heavy(model: str, lr: float, iterations: int) -> dict[str, Any]:
    """Return a solver of the release: one image drawn with replacement, summed loss, momentum 0.99."""
    return {
        **IMAGES,
        "model": model,
        "loss.normalise": "sum",
        "optimizer.lr": lr,
        "optimizer.momentum": 0.99,
        "data.replacement": True,
        "budget.iterations": iterations,
        "val_every": 4000,
    }


def light(model: str, lr: float) -> dict[str, Any]:
    """Return the CVPR paper's training: 20 images a step, mean loss, momentum 0.9; each image counts the same."""
    return {
        **IMAGES,
        "model": model,
        "options.learn_upsampling": True,
        "optimizer.lr": lr,
        "optimizer.accumulate": 20,
        "budget.epochs": 175,
    }


def fcn32s() -> Recipe:
    """FCN-32s as released. Expected: mIoU 0.636 (seg11valid). Measured: not measured."""
    stage = Stage(name="fcn32s", settings=heavy("fcn32s_vgg16", 1e-10, 100_000))
    return Recipe(summary="FCN-32s as released: summed loss, one image a step", stages=(stage,), weights=VGG16)


def fcn8s_staged() -> Recipe:
    """FCN-8s in three stages as released. Expected: mIoU 0.636, 0.650, 0.655 (seg11valid). Measured: not measured."""
    stages = (
        *fcn32s().stages,
        Stage(name="fcn16s", settings=heavy("fcn16s_vgg16", 1e-12, 100_000), start="transplant"),
        Stage(name="fcn8s", settings=heavy("fcn8s_vgg16", 1e-14, 100_000), start="transplant"),
    )
    return Recipe(summary="FCN-32s, then 16s, then 8s, as released", stages=stages, weights=VGG16)


def fcn8s_atonce() -> Recipe:
    """FCN-8s trained all at once, as released. Expected: mIoU 0.654 (seg11valid). Measured: not measured."""
    stage = Stage(name="fcn8s_atonce", settings=heavy("fcn8s_vgg16_atonce", 1e-10, 300_000))
    return Recipe(summary="FCN-8s all at once, as released", stages=(stage,), weights=VGG16)


def fcn_alexnet() -> Recipe:
    """FCN-AlexNet as released, with a mean loss. Expected: mIoU 0.480 (seg11valid). Measured: not measured.

    Biases of the base network learn and decay as its weights do; those of the score layer as everywhere.
    """
    settings = {
        **heavy("fcn_alexnet", 1e-4, 100_000),
        "loss.normalise": "pixels",
        "optimizer.momentum": 0.9,
        "optimizer.accumulate": 20,
        "optimizer.layers": {
            "*": {"lr": 1.0, "bias_lr": 1.0, "bias_decay": 1.0},
            "score_fr": {"lr": 1.0, "bias_lr": 2.0, "bias_decay": 0.0},
        },
    }
    stage = Stage(name="fcn_alexnet", settings=settings)
    return Recipe(summary="FCN-AlexNet as released", stages=(stage,), weights=CAFFENET)


def fcn8s_cvpr() -> Recipe:
    """FCN-8s as in the CVPR paper. Expected: mIoU 0.594, 0.624, 0.627 (VOC 2011 val). Measured: not measured.

    The upsampling between the skips is learnt, the last one fixed (in FCN-32s, whose only one is the last, none is).
    The length, 175 epochs, was not verified. The paper's weight decay is 5e-4 or 2e-4; here it is 5e-4.
    """
    first = {**light("fcn32s_vgg16", 1e-4), "options.learn_upsampling": False}
    second = {**light("fcn16s_vgg16", 1e-6), "options.fixed_final": True}
    third = {**light("fcn8s_vgg16", 1e-8), "options.fixed_final": True}
    stages = (
        Stage(name="fcn32s", settings=first),
        Stage(name="fcn16s", settings=second, start="transplant"),
        Stage(name="fcn8s", settings=third, start="transplant"),
    )
    return Recipe(summary="FCN-32s, then 16s, then 8s, as in the CVPR paper", stages=stages, weights=VGG16)
