"""DeconvNet: H. Noh, S. Hong, B. Han, ICCV 2015 (https://arxiv.org/abs/1505.04366); solvers and data layer of the
release (HyeonwooNoh/DeconvNet, 87dd133).

Command: pixelwise train VOC --recipe deconvnet --weights vgg16.safetensors --out RUN, with the weights made by
pixelwise import-weights deconvnet_vgg16 VGG_ILSVRC_16_layers.caffemodel --trunk --num-classes 21 --out
vgg16.safetensors.
Data: VOC 2012 trainval with SBD; about 0.2 million crops in stage 1, 2.7 million in stage 2.
Expected: mIoU 0.696 (VOC 2012 test, with the proposals of instance-wise inference). Measured: not measured.
Hardware and hours: not verified.

Stage 1 trains on crops around each object, in which only the class of that object is kept; stage 2 on crops of
proposals with all their classes. Crops are written into the run folder, see `deconvnet_crops`. Each step averages eight
batches of eight; the statistics of batch normalisation are those of eight, and in the end of 501 batches.

Departures: proposals are our own, from the edges of the image (`engine.proposals`), not the original EdgeBoxes; rare
classes are not repeated; objects are numbered ones, or connected areas of a class where the data number none.
"""

from __future__ import annotations

from typing import Any

from pixelwise.recipes.deconvnet_crops import write_stage1, write_stage2
from pixelwise.recipes.recipe import CAFFE, DEEPLAB_MEAN, MIRRORED, VGG16, Recipe, Stage


def solver(step: int, iterations: int) -> dict[str, Any]:
    """Return a solver of the release: 224 x 224 windows of crops of 250 x 250, the rate lowered in steps."""
    return {
        **CAFFE,
        **MIRRORED,
        "model": "deconvnet_vgg16",
        "optimizer.lr": 0.01,
        "optimizer.schedule": "step",
        "optimizer.step": step,
        "optimizer.norm_decay": "all",
        "optimizer.accumulate": 8,
        "data.crop": (224, 224),
        "data.batch_size": 8,
        "data.mean": DEEPLAB_MEAN,
        "precise_batch_norm": 501,
        "budget.iterations": iterations,
    }


def deconvnet() -> Recipe:
    """Train DeconvNet in its two stages. Expected: mIoU 0.696 (VOC 2012 test). Measured: not measured."""
    stages = (
        Stage(name="stage1", settings=solver(9000, 20_000), make_data=write_stage1),
        Stage(name="stage2", settings=solver(10_000, 40_000), start="previous", make_data=write_stage2),
    )
    return Recipe(summary="DeconvNet in two stages: objects, then proposals", stages=stages, weights=VGG16)
