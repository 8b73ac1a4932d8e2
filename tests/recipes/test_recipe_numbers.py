"""Recipes held to the numbers of their papers and releases: shared facts first, then one row for each stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from pixelwise.engine.config import RunConfig, build_config
from pixelwise.engine.schedule import parameter_factors
from pixelwise.recipes import find_recipe
from pixelwise.registry import create_model, model_info

CAFFE = {"optimizer.name": "sgd_caffe", "optimizer.momentum": 0.9, "optimizer.weight_decay": 5e-4}
SGD = {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.weight_decay": 1e-4}
POLY = {"optimizer.schedule": "poly", "optimizer.power": 0.9, "optimizer.unit": "iteration", "optimizer.warmup": 0.0}
PLAIN = {"augment.scale": (1, 1), "augment.scales": (), "augment.rotation": 0, "augment.blur": 0}
MIRROR = {**PLAIN, "augment.horizontal_flip": True}
STILL = {**PLAIN, "augment.horizontal_flip": False}
VGG_MEAN, DEEPLAB_MEAN = (122.67892, 116.66877, 104.00699), (122.675, 116.669, 104.008)

CELLS = {**CAFFE, **MIRROR, "train_on": "scores", "loss.normalise": "pixels"}
DEEPLAB = {**CELLS, "data.mean": DEEPLAB_MEAN, "data.std": None, "data.ignore_beyond": True, "optimizer.lr": 1e-3}
STEPS = {"optimizer.schedule": "step", "optimizer.step": 2000, "optimizer.gamma": 0.1}
DEEPLAB_V1 = {**DEEPLAB, **STEPS, "data.batch_size": 20, "budget.iterations": 6000, "data.crop": (321, 321)}
DEEPLAB_V2 = {**DEEPLAB, **POLY, "data.batch_size": 10, "budget.iterations": 20_000, "data.crop": (321, 321)}
DEEPLAB_V3 = {
    **SGD,
    **POLY,
    **MIRROR,
    "augment.scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
    "data.batch_size": 16,
    "data.crop": (513, 513),
    "data.ignore_beyond": True,
    "budget.iterations": 30_000,
    "train_on": "logits",
}
PHASES = [
    {**DEEPLAB_V3, "optimizer.lr": 0.007, "batch_norm": "sync"},
    {**DEEPLAB_V3, "optimizer.lr": 0.001, "batch_norm": "frozen"},
]
PSPNET = {
    **SGD,
    **POLY,
    "optimizer.lr": 0.01,
    "augment.horizontal_flip": True,
    "augment.scale": (0.5, 2),
    "augment.scale_draw": "even",
    "augment.rotation": 10,
    "augment.blur_probability": 0.5,
    "data.batch_size": 16,
    "data.crop": (473, 473),
    "data.ignore_beyond": True,
    "batch_norm": "sync",
}
SEGNET = {
    **CAFFE,
    **STILL,
    "optimizer.schedule": "constant",
    "data.batch_size": 4,
    "data.whole_images": True,
    "data.mean": (0, 0, 0),
    "data.std": None,
    "loss.class_weights": "camvid11",
    "loss.normalise": "pixels",
    "precise_batch_norm": 367 // 4 + 367 % 4,
}
DECONVNET = {
    **CAFFE,
    **MIRROR,
    "optimizer.schedule": "step",
    "optimizer.lr": 0.01,
    "optimizer.gamma": 0.1,
    "optimizer.accumulate": 8,
    "data.batch_size": 8,
    "data.crop": (224, 224),
    "data.mean": DEEPLAB_MEAN,
    "precise_batch_norm": 501,
}
DILATED = {**CELLS, "optimizer.schedule": "constant", "data.mean": VGG_MEAN}
URBAN = {**DILATED, "optimizer.lr": 1e-4, "optimizer.momentum": 0.99}
URBAN_WINDOWS = {**URBAN, "data.crop": (628, 628), "data.batch_size": 8, "data.ignore_beyond": True}
JOINT = {**DILATED, "optimizer.lr": 1e-5, "data.batch_size": 1, "data.ignore_beyond": True}
VOC_WINDOWS = {**DILATED, "optimizer.lr": 1e-3, "data.crop": (500, 500), "data.batch_size": 14}
GCN = {
    **MIRROR,
    "optimizer.momentum": 0.99,
    "optimizer.weight_decay": 5e-4,
    "data.batch_size": 1,
    "data.ignore_beyond": True,
}
FCN_CVPR = {**CAFFE, **STILL, "optimizer.accumulate": 20, "loss.normalise": "pixels", "data.whole_images": True}

CRFRNN = {
    **CAFFE,
    **STILL,
    "model": "crfrnn_fcn8s_vgg16",
    "options": {"iterations": 5, "test_iterations": 10},
    "optimizer.lr": 1e-13,
    "optimizer.momentum": 0.99,
    "optimizer.schedule": "constant",
    "loss.normalise": "sum",
    "data.batch_size": 1,
    "data.whole_images": True,
    "data.mean": VGG_MEAN,
    "data.std": None,
}

# Fact sheets, sections "training" of each system, and training_recipes.md, tables 1 and 2.
NUMBERS: dict[str, list[dict[str, Any]]] = {
    "fcn8s_cvpr": [{**FCN_CVPR, "optimizer.lr": lr} for lr in (1e-4, 1e-6, 1e-8)],
    "fcn_alexnet": [
        {**CAFFE, **STILL, "optimizer.lr": 1e-4, "optimizer.accumulate": 20, "budget.iterations": 100_000},
    ],
    "crfrnn": [CRFRNN],
    "crfrnn_staged": [{"optimizer.lr": 1e-10}, {"optimizer.lr": 1e-12}, {"optimizer.lr": 1e-14}, CRFRNN],
    "deconvnet": [
        {**DECONVNET, "optimizer.step": 9000, "budget.iterations": 20_000},
        {**DECONVNET, "optimizer.step": 10_000, "budget.iterations": 40_000},
    ],
    "segnet": [{**SEGNET, "optimizer.lr": 1e-3, "budget.iterations": 40_000}],
    "segnet_basic": [{**SEGNET, "optimizer.lr": 0.1, "budget.iterations": 10_000}],
    "bayesian_segnet": [{**SEGNET, "optimizer.lr": 1e-3, "budget.iterations": 60_000}],
    "bayesian_segnet_basic": [{**SEGNET, "optimizer.lr": 0.1, "budget.iterations": 10_000}],
    "dilated_frontend": [{**VOC_WINDOWS, "budget.iterations": 60_000}],
    "dilation8_voc": [VOC_WINDOWS, {**DILATED, "optimizer.lr": 1e-3, "optimizer.accumulate": 60}],
    "dilation8_camvid": [{**URBAN_WINDOWS, "budget.iterations": 20_000}, {**JOINT, "data.crop": (852, 852)}],
    "dilation7_kitti": [
        {**URBAN_WINDOWS, "budget.iterations": 10_000},
        {**JOINT, "optimizer.momentum": 0.99, "data.crop": (900, 900), "budget.iterations": 20_000},
    ],
    "dilation10_cityscapes": [
        {**URBAN_WINDOWS, "budget.iterations": 40_000},
        {**URBAN, "data.whole_images": True, "optimizer.accumulate": 100, "budget.iterations": 24_000},
        {**JOINT, "optimizer.momentum": 0.99, "data.crop": (1396, 1396), "budget.iterations": 60_000},
    ],
    "deeplabv1": [{**DEEPLAB_V1, "data.crop": (306, 306)}],
    "deeplabv1_largefov": [DEEPLAB_V1],
    "deeplabv1_msc_largefov": [DEEPLAB_V1, DEEPLAB_V1],
    "deeplabv2_largefov": [DEEPLAB_V2],
    "deeplabv2_aspp_s": [DEEPLAB_V2],
    "deeplabv2_aspp_l": [DEEPLAB_V2],
    "deeplabv2_resnet101_largefov": [
        {
            **DEEPLAB_V2,
            "optimizer.lr": 2.5e-4,
            "optimizer.accumulate": 10,
            "data.batch_size": 1,
            "augment.scales": (0.5, 0.75, 1.0, 1.25, 1.5),
        }
    ],
    "deeplabv3_resnet50": PHASES,
    "deeplabv3_resnet101": PHASES,
    "deeplabv3_cascade_resnet101": PHASES,
    "pspnet50_ade20k": [{**PSPNET, "budget.epochs": 100}],
    "pspnet101_voc": [{**PSPNET, "budget.epochs": 50}],
    "pspnet101_cityscapes": [{**PSPNET, "budget.epochs": 200, "data.crop": (713, 713)}],
    "pspnet50_ade20k_paper": [
        {**PSPNET, "budget.iterations": 150_000, "data.mean": (123.68, 116.779, 103.939), "data.std": None}
    ],
    "gcn_voc": [{**GCN, "options": {}, "data.crop": (512, 512)}],
    "gcn_cityscapes": [{**GCN, "options": {"k": 25}, "data.crop": (800, 800)}],
    "fusionnet": [
        {
            "optimizer.name": "adamw",
            "optimizer.lr": 2e-4,
            "optimizer.weight_decay": 0,
            "augment.horizontal_flip": True,
            "augment.quarter_turns": True,
            "augment.elastic_grid": 12,
            "augment.elastic_fades": True,
            "augment.scale": (1, 1),
            "data.crop": (640, 640),
            "data.beyond": (640 - 512) // 2,
            "batch_norm": "batch",
        }
    ],
}


def configs(name: str) -> list[RunConfig]:
    """Build the configuration of each stage."""
    stages = [stage.values() for stage in find_recipe(name).stages]
    return [build_config({**values, "data": {**values["data"], "path": "."}}) for values in stages]


def read(config: object, key: str) -> object:
    for part in key.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    stages = configs(name)
    assert len(stages) == len(NUMBERS[name])
    for config, wanted in zip(stages, NUMBERS[name], strict=True):
        assert {key: read(config, key) for key in wanted} == wanted


# Learning rate and weight decay of single parameters, as factors.
FACTORS: list[tuple[str, int, Mapping[str, tuple[float, float]]]] = [
    ("fcn_alexnet", 0, {"conv1.bias": (1, 1), "score_fr.weight": (1, 1), "score_fr.bias": (2, 0)}),
    ("crfrnn", 0, {f"crf.{name}.weight": (10_000, 1) for name in ("spatial", "bilateral")}),
    ("crfrnn", 0, {"crf.compatibility.weight": (1000, 1), "upscore2.weight": (1, 1), "upscore2.bias": (2, 0)}),
    ("deconvnet", 1, {"fc6_deconv.weight": (1, 1), "deconv5_1.bias": (2, 0), "debn5_1.bias": (1, 1)}),
    ("segnet", 0, {"conv1_1.bias": (2, 0), "conv1_1_bn.weight": (1, 1), "conv1_1_bn.bias": (1, 0)}),
    ("dilation8_voc", 1, {"conv1_1.weight": (0, 1), "final.bias": (0, 0), "ctx_conv1_1.bias": (2, 0)}),
    ("deeplabv1_largefov", 0, {"fc8.weight": (10, 1), "fc8.bias": (20, 0), "conv1_1.bias": (2, 0)}),
    ("deeplabv1_msc_largefov", 1, {"fc8.weight": (0, 1), "fc6.weight": (0, 1), "pool4_fc.weight": (1, 1)}),
    ("deeplabv2_aspp_l", 0, {"fc8_4.weight": (10, 1), "fc8_4.bias": (20, 0), "fc6_4.weight": (1, 1)}),
    ("pspnet101_voc", 0, {"layer4.0.bn1.bias": (1, 1), "ppm.features.3.1.weight": (10, 1), "aux.4.bias": (10, 1)}),
    ("pspnet50_ade20k_paper", 0, {"layer4.0.bn1.weight": (1, 0), "cls.4.weight": (10, 1), "cls.0.weight": (10, 1)}),
]


@pytest.mark.parametrize(("name", "stage", "factors"), FACTORS)
def test_factors_of_layers(name: str, stage: int, factors: Mapping[str, tuple[float, float]]) -> None:
    config = configs(name)[stage]
    debug = dict(model_info(config.model).debug)
    with torch.device("meta"):
        model = create_model(config.model, num_classes=3, **{**debug, **config.options})
    assert {key: parameter_factors(config.optimizer, model, key) for key in factors} == factors


def test_the_papers_pspnet_is_caffes_with_fast_biases() -> None:
    (config,) = configs("pspnet50_ade20k_paper")
    with torch.device("meta"):
        model = create_model(config.model, num_classes=150, **config.options)
    assert config.options == {"variant": "caffe"}
    assert parameter_factors(config.optimizer, model, "cls.4.bias")[0] == 20
    assert parameter_factors(config.optimizer, model, "aux.4.bias")[0] == 20
