"""FusionNet: T. M. Quan, D. G. C. Hildebrand, W.-K. Jeong, 2016 (https://arxiv.org/abs/1612.05360).

Command: pixelwise train isbi2012-em --recipe fusionnet --iterations 50000 --out RUN, then pixelwise evaluate RUN
isbi2012-em --metrics vrand,vinfo --boundary-class membrane.
Data: ISBI 2012, 30 slices of 512 x 512; the published scores are of the organisers' 30 test slices.
Hardware and hours: not verified; in float32 a window of 640 x 640 takes about 10 GB (an estimate).

Published are windows of 640, the slice and 64 mirrored pixels on each side; eight orientations; an elastic field of
12 x 12 nodes; Gaussian noise on the image. Not verified, since the paper's text was not available, and so ours: Adam's
learning rate of 2e-4 (of ports) and its decay, batches of one slice, normalised by its own statistics in training and
by the running ones in use, cross entropy instead of a regression, and the widths of field and noise, 5 pixels and 0.1
of the full range. The length is not known: a budget must be given.

Departures: the field is new for every window, where the original has one for each epoch; widths of the noise are even
between none and 0.1.
"""

from __future__ import annotations

from pixelwise.recipes.recipe import UNCHANGED, Recipe, Stage


def fusionnet() -> Recipe:
    """FusionNet on ISBI 2012. Expected: V_rand 0.978, V_info 0.990 (leader board, Nov 2016). Measured: not measured."""
    settings = {
        **UNCHANGED,
        "model": "fusionnet",
        "augment.horizontal_flip": True,
        "augment.quarter_turns": True,
        "augment.elastic_grid": 12,
        "augment.elastic_fades": True,
        "augment.elastic_sigma": 5.0,
        "augment.noise": 0.1,
        "augment.noise_probability": 1.0,
        "optimizer.lr": 2e-4,
        "optimizer.weight_decay": 0.0,
        "optimizer.warmup": 0.0,
        "optimizer.clip_norm": 0.0,
        "loss.dice": 0.0,
        "loss.class_weights": "none",
        "loss.normalise": "pixels",
        "data.scale": 1.0,
        "data.crop": (640, 640),
        "data.beyond": 64,
        "data.batch_size": 1,
        "data.foreground_crops": 0.0,
        "batch_norm": "batch",
        "ema": False,
        "precision": "float32",
    }
    return Recipe(
        summary="FusionNet on ISBI 2012; learning rate, length and loss are not verified",
        stages=(Stage(name="fusionnet", settings=settings),),
    )
