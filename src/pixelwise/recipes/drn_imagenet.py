"""Dilated Residual Networks as classifiers of ImageNet: F. Yu, V. Koltun, T. Funkhouser, CVPR 2017
(https://arxiv.org/abs/1705.09914); the numbers are those of the release (fyu/drn, d75db2e: README, classify.py).

Command: pixelwise train IMAGENET --recipe drn_c_26 --out RUN, with a folder of images for each class in
IMAGENET/train and IMAGENET/val.
Data: ILSVRC 2012, 1,281,167 training images; errors are those of the 50,000 of val, on the central 224 x 224 pixels of
images whose shorter side was resized to 256.
Hardware and hours: not stated.

From random weights. A random part of the image, of 8 to 100 % of its area and of an aspect of 3/4 to 4/3, is resized to
224 x 224; half of them are mirrored. The rate falls to a tenth every 30 epochs. Weight decay takes everything. Batch
statistics are those of each process, as in the original's data parallelism.

The paper has A-18, A-34, A-50, B-26, C-26 and C-42, the README the others. It compares A with ResNets of as many
parameters, whose errors are 0.3043 / 0.1076 (18), 0.2773 / 0.0874 (34) and 0.2401 / 0.0702 (50): what maps of 28 x 28
instead of 7 x 7 cells do for classification.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pixelwise.recipes.recipe import Recipe, Stage

SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "augment.area": (0.08, 1.0),
        "augment.aspect": (3 / 4, 4 / 3),
        "augment.horizontal_flip": True,
        "optimizer.name": "sgd",
        "optimizer.lr": 0.1,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 1e-4,
        "optimizer.bias_decay": 1.0,
        "optimizer.norm_decay": "all",
        "optimizer.schedule": "step",
        "optimizer.step": 30,
        "optimizer.unit": "epoch",
        "optimizer.warmup": 0.0,
        "optimizer.clip_norm": 0.0,
        "loss.label_smoothing": 0.0,
        "data.crop": 224,
        "data.batch_size": 256,
        "data.mean": (123.675, 116.28, 103.53),
        "data.std": (58.395, 57.12, 57.375),
        "batch_norm": "batch",
        "budget.epochs": 120,
        "ema": False,
        "precision": "float32",
    }
)


def from_scratch(model: str) -> Recipe:
    """Return the training of a model, the same for all."""
    stage = Stage(name=model, settings={**SETTINGS, "model": model})
    return Recipe(summary=f"{model.replace('_', '-').upper()} for ImageNet, from random weights", stages=(stage,))


def drn_a_18() -> Recipe:
    """DRN-A-18. Expected: top-1 error 0.2800, top-5 0.0950. Measured: not measured."""
    return from_scratch("drn_a_18")


def drn_a_34() -> Recipe:
    """DRN-A-34. Expected: top-1 error 0.2481, top-5 0.0754. Measured: not measured."""
    return from_scratch("drn_a_34")


def drn_a_50() -> Recipe:
    """DRN-A-50. Expected: top-1 error 0.2294, top-5 0.0657. Measured: not measured."""
    return from_scratch("drn_a_50")


def drn_b_26() -> Recipe:
    """DRN-B-26. Expected: top-1 error 0.2519, top-5 0.0791 (from a secondary source). Measured: not measured."""
    return from_scratch("drn_b_26")


def drn_c_26() -> Recipe:
    """DRN-C-26. Expected: top-1 error 0.2486, top-5 0.0755 (from a secondary source). Measured: not measured."""
    return from_scratch("drn_c_26")


def drn_c_42() -> Recipe:
    """DRN-C-42. Expected: top-1 error 0.2294, top-5 0.0657. Measured: not measured."""
    return from_scratch("drn_c_42")


def drn_c_58() -> Recipe:
    """DRN-C-58. Expected: top-1 error 0.217, top-5 0.060. Measured: not measured."""
    return from_scratch("drn_c_58")


def drn_d_22() -> Recipe:
    """DRN-D-22. Expected: top-1 error 0.258, top-5 0.082. Measured: not measured."""
    return from_scratch("drn_d_22")


def drn_d_38() -> Recipe:
    """DRN-D-38. Expected: top-1 error 0.238, top-5 0.069. Measured: not measured."""
    return from_scratch("drn_d_38")


def drn_d_54() -> Recipe:
    """DRN-D-54. Expected: top-1 error 0.212, top-5 0.059. Measured: not measured."""
    return from_scratch("drn_d_54")


def drn_d_105() -> Recipe:
    """DRN-D-105. Expected: top-1 error 0.206, top-5 0.055. Measured: not measured."""
    return from_scratch("drn_d_105")
