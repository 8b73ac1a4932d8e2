"""DeepLab v1 and v2: L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy, A. Yuille, ICLR 2015
(https://arxiv.org/abs/1412.7062) and PAMI 2018 (https://arxiv.org/abs/1606.00915).

Command: pixelwise train VOC --recipe deeplabv1_largefov --weights vgg16.safetensors --out RUN, with the weights made by
pixelwise import-weights deeplabv1_vgg16_largefov VGG_ILSVRC_16_layers.caffemodel --trunk --num-classes 21 --out
vgg16.safetensors.
Data: VOC 2012 with SBD, 10,582 training images; scores on the 1449 of VOC 2012 val, before the CRF.
Hardware and hours: not verified.

On ResNet-101: --recipe deeplabv2_resnet101, with the weights made by pixelwise import-weights deeplabv2_resnet101_msc
FILE.caffemodel --out coco.safetensors: the authors start from a network that they had trained on MS-COCO.

The loss is the mean over every eighth pixel's label; the last layer learns ten times as fast, its bias twenty times.
The first paper lowers the rate in steps, the second as a polynomial. On ResNet-101 normalisations stay as they were,
ten images make a step, images are enlarged by one of five factors, and four losses count the same: of the fused scores
and of each of three scales.

Departures: the originals fill images that are smaller than a window with the mean colour; here they are mirrored, in
both what lies beyond an image does not count. The released definition of LargeFOV has batches of 30 for the paper's 20
(--set data.batch_size=30). Smaller fc6 and fc7 are cut out of VGG-16's as in the paper, but which taps and filters the
authors kept is not published; `weights.cut_down` says which stay here.
"""

from __future__ import annotations

from typing import Any

from pixelwise.recipes.recipe import CAFFE, DEEPLAB_MEAN, MIRRORED, VGG16, Recipe, Stage

STEPS = {"optimizer.schedule": "step", "optimizer.step": 2000, "data.batch_size": 20, "budget.iterations": 6000}
POLY = {"optimizer.schedule": "poly", "optimizer.power": 0.9, "data.batch_size": 10, "budget.iterations": 20_000}
COCO = "DeepLab's ResNet-101 for MS-COCO"
BRANCHES_ALONE = {"*": {"lr": 0.0}, "data_*": {"lr": 1.0}, "pool?_*": {"lr": 1.0}}


def settings(model: str, *, crop: int = 321) -> dict[str, Any]:
    """Return what all of them have in common."""
    return {
        **CAFFE,
        **MIRRORED,
        "model": model,
        "train_on": "scores",
        "optimizer.lr": 1e-3,
        "optimizer.layers": {"fc8*": {"lr": 10.0, "bias_lr": 20.0}},
        "data.crop": (crop, crop),
        "data.mean": DEEPLAB_MEAN,
        "data.ignore_beyond": True,
    }


def deeplabv1() -> Recipe:
    """DeepLab with a 4x4 fc6 at rate 4. Expected: mIoU 0.598. Measured: not measured."""
    stage = Stage(name="deeplab", settings={**settings("deeplabv1_vgg16_4x4_r4", crop=306), **STEPS})
    return Recipe(summary="DeepLab v1 with a 4x4 fc6 at rate 4, step policy", stages=(stage,), weights=VGG16)


def deeplabv1_largefov() -> Recipe:
    """DeepLab-LargeFOV. Expected: mIoU 0.6225. Measured: not measured."""
    stage = Stage(name="largefov", settings={**settings("deeplabv1_vgg16_largefov"), **STEPS})
    return Recipe(summary="DeepLab-LargeFOV, step policy", stages=(stage,), weights=VGG16)


def deeplabv1_msc_largefov() -> Recipe:
    """DeepLab-LargeFOV, then its multi-scale branches alone. Expected: mIoU 0.6421. Measured: not measured.

    The rates of the second stage were not verified; they are those of the first.
    """
    branches = {
        **settings("deeplabv1_vgg16_msc_largefov"),
        **STEPS,
        "optimizer.layers": BRANCHES_ALONE,
    }
    stages = (*deeplabv1_largefov().stages, Stage(name="branches", settings=branches, start="transplant"))
    return Recipe(summary="DeepLab-LargeFOV, then its multi-scale branches", stages=stages, weights=VGG16)


def deeplabv2_largefov() -> Recipe:
    """DeepLab v2's policy on LargeFOV. Expected: mIoU 0.6588 (Table 1). Measured: not measured.

    The base rate was not verified.
    """
    stage = Stage(name="largefov", settings={**settings("deeplabv2_vgg16_largefov"), **POLY})
    return Recipe(summary="DeepLab v2 LargeFOV on VGG-16, poly policy", stages=(stage,), weights=VGG16)


def deeplabv2_aspp_s() -> Recipe:
    """DeepLab v2 with rates 2, 4, 8, 12. Expected: mIoU 0.6698. Measured: not measured."""
    stage = Stage(name="aspp_s", settings={**settings("deeplabv2_vgg16_aspp_s"), **POLY})
    return Recipe(summary="DeepLab v2 ASPP-S on VGG-16, poly policy", stages=(stage,), weights=VGG16)


def deeplabv2_aspp_l() -> Recipe:
    """DeepLab v2 with rates 6, 12, 18, 24. Expected: mIoU 0.6896. Measured: not measured."""
    stage = Stage(name="aspp_l", settings={**settings("deeplabv2_vgg16_aspp_l"), **POLY})
    return Recipe(summary="DeepLab v2 ASPP-L on VGG-16, poly policy", stages=(stage,), weights=VGG16)


def resnet101(head: str) -> dict[str, Any]:
    """Return the solver of the release on ResNet-101: one image of ten a step, at one of five scales."""
    return {
        **settings("deeplabv2_resnet101_msc"),
        **POLY,
        "options.head": head,
        "optimizer.lr": 2.5e-4,
        "optimizer.layers": {"classifier.*": {"lr": 10.0, "bias_lr": 20.0}},
        "optimizer.accumulate": 10,
        "data.batch_size": 1,
        "augment.scales": (0.5, 0.75, 1.0, 1.25, 1.5),
    }


def deeplabv2_resnet101() -> Recipe:
    """DeepLab v2 on ResNet-101 with ASPP at three scales. Expected: mIoU 0.7635. Measured: not measured.

    Without MS-COCO and the random scales the paper has 0.7127 for three scales, and 0.6872 for one.
    """
    stage = Stage(name="aspp", settings=resnet101("aspp"))
    return Recipe(summary="DeepLab v2 on ResNet-101, ASPP, three scales, poly policy", stages=(stage,), weights=COCO)


def deeplabv2_resnet101_largefov() -> Recipe:
    """DeepLab v2 on ResNet-101 with LargeFOV at three scales. Expected: mIoU 0.7554. Measured: not measured."""
    stage = Stage(name="largefov", settings=resnet101("largefov"))
    return Recipe(
        summary="DeepLab v2 on ResNet-101, LargeFOV, three scales, poly policy", stages=(stage,), weights=COCO
    )
