"""Dilated networks: F. Yu, V. Koltun, ICLR 2016 (https://arxiv.org/abs/1511.07122), section 4 and appendix A; padding,
labels and weight decay are those of the release (fyu/dilation, 0f10574).

Command: pixelwise train CAMVID --recipe dilation8_camvid --weights vgg16.safetensors --out RUN, with the weights made
by pixelwise import-weights dilated_frontend_vgg16 VGG_ILSVRC_16_layers.caffemodel --trunk --num-classes 11 --out
vgg16.safetensors.
Hardware and hours: not stated.

Windows are cut from images that are mirrored by 186 pixels on each side, the network pads nothing, and the loss is
taken on every eighth pixel of the image, nowhere beyond it. The front end is trained first, then the context module on
the frozen front end (without its dropout), then both together.

Departures: the mean colour is ImageNet's for all data, the originals took each data set's own (--set data.mean); a
stage goes on from the best state of the one before by validation. Lengths that the paper does not state are marked.
"""

from __future__ import annotations

from typing import Any

from pixelwise.recipes.recipe import CAFFE, MIRRORED, VGG16, VGG_MEAN, Recipe, Stage

FRONTEND = "dilated_frontend_vgg16"
CONTEXT_ALONE = {"*": {"lr": 0.0}, "ctx_*": {"lr": 1.0}}


def cropped(model: str, *, crop: int, batch_size: int, lr: float, momentum: float, iterations: int) -> dict[str, Any]:
    """Return a training on windows of so many pixels, (crop - 372) / 8 scores a side."""
    assert (crop - 372) % 8 == 0
    return {
        **CAFFE,
        **MIRRORED,
        "model": model,
        "options.padding": "valid",
        "train_on": "scores",
        "optimizer.lr": lr,
        "optimizer.momentum": momentum,
        "data.crop": (crop, crop),
        "data.beyond": 186,
        "data.ignore_beyond": True,
        "data.batch_size": batch_size,
        "data.mean": VGG_MEAN,
        "budget.iterations": iterations,
    }


def context_alone(model: str, *, batch_size: int, lr: float, momentum: float, iterations: int) -> dict[str, Any]:
    """Return a training of the context module on whole images."""
    return {
        **CAFFE,
        **MIRRORED,
        "model": model,
        "options.dropout": 0.0,
        "train_on": "scores",
        "optimizer.lr": lr,
        "optimizer.momentum": momentum,
        "optimizer.layers": CONTEXT_ALONE,
        "optimizer.accumulate": batch_size,
        "data.whole_images": True,
        "data.batch_size": 1,
        "data.mean": VGG_MEAN,
        "budget.iterations": iterations,
    }


def urban(crop: int, iterations: int) -> dict[str, Any]:
    """Return the front end's training of appendix A."""
    return cropped(FRONTEND, crop=crop, batch_size=8, lr=1e-4, momentum=0.99, iterations=iterations)


def dilated_frontend() -> Recipe:
    """The front end alone, for VOC. Expected: mIoU 0.676 (VOC 2012 test). Measured: not measured."""
    settings = cropped(FRONTEND, crop=500, batch_size=14, lr=1e-3, momentum=0.9, iterations=60_000)
    return Recipe(
        summary="the dilated front end for VOC", stages=(Stage(name="frontend", settings=settings),), weights=VGG16
    )


def dilation8_voc() -> Recipe:
    """Front end and large context module for VOC; training both together gave the authors nothing.

    Expected: mIoU 0.721 (VOC 2012 val, with COCO, which is not part of this recipe). Measured: not measured.
    The length of the context stage is not stated; Cityscapes' is taken. Its batch is that of the release's notes.
    """
    context = context_alone("dilation8_voc", batch_size=60, lr=1e-3, momentum=0.9, iterations=24_000)
    stages = (*dilated_frontend().stages, Stage(name="context", settings=context, start="transplant"))
    return Recipe(summary="the dilated front end, then the large context module, for VOC", stages=stages, weights=VGG16)


def dilation8_camvid() -> Recipe:
    """Front end, then everything, for CamVid of 640 x 480. Expected: mIoU 0.653 (CamVid test). Measured: not measured.

    The length of the second stage is not stated; KITTI's is taken.
    """
    joint = cropped("dilation8_camvid", crop=852, batch_size=1, lr=1e-5, momentum=0.9, iterations=20_000)
    stages = (
        Stage(name="frontend", settings=urban(628, 20_000)),
        Stage(name="joint", settings=joint, start="transplant"),
    )
    return Recipe(
        summary="the dilated front end, then with the context module, for CamVid", stages=stages, weights=VGG16
    )


def dilation7_kitti() -> Recipe:
    """Front end, then everything, for KITTI. Expected: mIoU 0.592 (KITTI test). Measured: not measured."""
    joint = cropped("dilation7_kitti", crop=900, batch_size=1, lr=1e-5, momentum=0.99, iterations=20_000)
    stages = (
        Stage(name="frontend", settings=urban(628, 10_000)),
        Stage(name="joint", settings=joint, start="transplant"),
    )
    return Recipe(
        summary="the dilated front end, then with the context module, for KITTI", stages=stages, weights=VGG16
    )


def dilation10_cityscapes() -> Recipe:
    """Front end, context module, then both, for Cityscapes. Expected: mIoU 0.687 (val). Measured: not measured."""
    name = "dilation10_cityscapes"
    context = context_alone(name, batch_size=100, lr=1e-4, momentum=0.99, iterations=24_000)
    joint = cropped(name, crop=1396, batch_size=1, lr=1e-5, momentum=0.99, iterations=60_000)
    stages = (
        Stage(name="frontend", settings=urban(628, 40_000)),
        Stage(name="context", settings=context, start="transplant"),
        Stage(name="joint", settings=joint, start="previous"),
    )
    return Recipe(summary="front end, context module, then both, for Cityscapes", stages=stages, weights=VGG16)
