"""All recipes are built, and their stages run one after the other at tiny size."""

from __future__ import annotations

import importlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pixelwise import api
from pixelwise.data.folder import FolderItem, write_dataset_folder
from pixelwise.engine.config import build_config
from pixelwise.engine.listener import Silent
from pixelwise.engine.schedule import freeze, learning_rate, parameter_factors
from pixelwise.errors import RequestError
from pixelwise.recipes import RECIPES, find_recipe
from pixelwise.registry import create_model, list_models, model_info
from pixelwise.structures import size_rule_of

CAMVID = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign_symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)


class Listens(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def write(folder: Path, classes: tuple[str, ...], size: tuple[int, int] = (40, 48)) -> Path:
    """Write four colour images of stripes, one class each, with an ignored column."""
    rng = np.random.default_rng(0)
    items = []
    for index in range(4):
        labels = (np.arange(size[0])[:, None] * len(classes) // size[0] + np.zeros(size[1], int)).astype(np.uint8)
        labels[:, 0] = 255
        image = np.clip(labels[..., None] % 7 * 30 + rng.normal(20, 5, (*size, 3)), 0, 255).astype(np.uint8)
        items.append(FolderItem(split="train" if index < 3 else "val", name=f"im{index}", image=image, labels=labels))
    palette = [(index, 2 * index, 3 * index) for index in range(len(classes) + 1)]
    return write_dataset_folder(
        folder, items, name="stripes", classes=classes, palette=palette, ignore_index=255, terms="ours"
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "camvid", CAMVID)


STAGES = [
    pytest.param(name, stage, id=f"{name}-{stage.name}") for name, build in RECIPES.items() for stage in build().stages
]


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_every_stage_is_a_configuration_of_a_model_that_fits(name: str, stage: Any) -> None:
    """Keys are known, the model exists, its options and the window are legal, patterns of layers fit."""
    config = build_config({"model": "unet_small", **stage.values(), "data": {**stage.values()["data"], "path": "."}})
    assert stage.settings.get("optimizer.lr") == config.optimizer.lr
    debug = dict(model_info(config.model).debug)
    model = create_model(config.model, num_classes=3, **{**debug, **config.options})
    freeze(config.optimizer, model)
    assert any(parameter.requires_grad for parameter in model.parameters())
    if config.data.crop is not None:
        crop = config.data.crop
        size_rule_of(model).check(*(crop if isinstance(crop, tuple) else (crop, crop)))
    assert (getattr(config, "train_on", "logits") == "scores") <= hasattr(model, "scores")


@pytest.mark.parametrize("name", RECIPES)
def test_docstrings_open_with_what_must_be_known(name: str) -> None:
    module = importlib.import_module(RECIPES[name].__module__).__doc__ or ""
    own = RECIPES[name].__doc__ or ""
    assert "pixelwise train" in module
    assert "easured: " in own
    assert "xpected" in own + module


def test_fcn_numbers() -> None:
    """training_recipes.md: 1e-10, 1e-12, 1e-14; momentum 0.99; decay 5e-4 without biases, which learn twice as fast."""
    recipe = find_recipe("fcn8s_staged")
    assert [stage.settings["optimizer.lr"] for stage in recipe.stages] == [1e-10, 1e-12, 1e-14]
    assert [stage.start for stage in recipe.stages] == ["given", "transplant", "transplant"]
    for stage in recipe.stages:
        config = build_config({**stage.values(), "data": {**stage.values()["data"], "path": "."}})
        assert (config.optimizer.momentum, config.optimizer.weight_decay, config.optimizer.bias_lr) == (0.99, 5e-4, 2)
        assert (config.loss.normalise, config.loss.dice, config.budget.iterations) == ("sum", 0, 100_000)
        assert (config.data.whole_images, config.data.batch_size, config.data.replacement) == (True, 1, True)
    assert find_recipe("fcn8s_atonce").stages[0].settings["budget.iterations"] == 300_000
    assert find_recipe("fcn_alexnet").stages[0].settings["optimizer.accumulate"] == 20


def test_deeplab_on_resnet_numbers() -> None:
    """training_recipes.md: 2.5e-4, ten images a step, five scales; 0.007 with batches of 16, then 0.001 at stride 8."""
    (v2,) = find_recipe("deeplabv2_resnet101").stages
    config = build_config({**v2.values(), "data": {**v2.values()["data"], "path": "."}})
    assert (config.optimizer.lr, config.optimizer.schedule, config.optimizer.power) == (2.5e-4, "poly", 0.9)
    assert (config.data.batch_size, config.optimizer.accumulate, config.budget.iterations) == (1, 10, 20_000)
    assert (config.data.crop, config.train_on) == ((321, 321), "scores")
    assert config.augment.scales == (0.5, 0.75, 1.0, 1.25, 1.5)
    with torch.device("meta"):
        model = create_model("deeplabv2_resnet101_msc", num_classes=21)
    assert parameter_factors(config.optimizer, model, "classifier.3.weight") == (10, 1)
    assert parameter_factors(config.optimizer, model, "classifier.0.bias") == (20, 0)
    assert parameter_factors(config.optimizer, model, "backbone.layer4.2.conv2.weight") == (1, 1)
    first, second = (stage.settings for stage in find_recipe("deeplabv3_resnet101").stages)
    assert (first["optimizer.lr"], first["options.output_stride"], first["batch_norm"]) == (0.007, 16, "sync")
    assert (second["optimizer.lr"], second["options.output_stride"], second["batch_norm"]) == (0.001, 8, "frozen")
    assert (first["data.batch_size"], first["data.crop"], first["budget.iterations"]) == (16, (513, 513), 30_000)
    assert find_recipe("deeplabv3_resnet101").stages[1].start == "previous"


def test_drn_numbers() -> None:
    """drn.md (f): windows of 896 and 840, batches of 32 and 16, 250 and 500 epochs, Cityscapes' own normalisation."""
    for name in ("drnseg_d_22", "drnseg_d_105"):
        (stage,) = find_recipe(name).stages
        config = build_config({**stage.values(), "data": {**stage.values()["data"], "path": "."}})
        optimizer, data = config.optimizer, config.data
        assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay, optimizer.unit) == (0.01, 0.9, 1e-4, "epoch")
        assert data.mean == pytest.approx((73.9757, 83.6608, 73.1758), abs=1e-3)
        assert data.std == pytest.approx((46.6533, 47.5742, 47.0411), abs=1e-3)
        assert data.ignore_beyond
        large = name == "drnseg_d_105"
        assert (data.crop, data.batch_size) == (((840, 840), 16) if large else ((896, 896), 32))
        assert config.budget.epochs == (500 if large else 250)
        assert (optimizer.schedule, optimizer.step) == (("poly", None) if large else ("step", 100))
        assert (config.augment.rotation, config.augment.scale) == ((10, (0.5, 2)) if large else (0, (1, 1)))
        assert config.batch_norm == ("sync" if large else "batch")
    rates = [learning_rate(optimizer, i, 92_500, per_epoch=Fraction(185)) for i in (0, 184, 185, 92_499)]
    assert rates == pytest.approx([0.01, 0.01, 0.01 * (499 / 500) ** 0.9, 0.01 * (1 / 500) ** 0.9])


def test_drn_for_imagenet_numbers() -> None:
    """drn.md (f): batches of 256, 120 epochs, 0.1 and a tenth of it every 30 epochs."""
    for name in list_models("classification"):
        if name.startswith("drn_"):
            (stage,) = find_recipe(name).stages
            config = build_config({**stage.values(), "data": {**stage.values()["data"], "path": "."}})
            assert (config.model, config.data.crop, config.data.batch_size, config.budget.epochs) == (
                name,
                224,
                256,
                120,
            )
            optimizer = config.optimizer
            assert (optimizer.momentum, optimizer.weight_decay, optimizer.norm_decay) == (0.9, 1e-4, "all")
            rates = [learning_rate(optimizer, i, 1200, per_epoch=Fraction(10)) for i in (0, 299, 300, 600, 1199)]
            assert rates == pytest.approx([0.1, 0.1, 0.01, 1e-3, 1e-4])


@pytest.mark.slow
def test_drn_at_tiny_size(data: Path, tmp_path: Path) -> None:
    """Turned and shrunken images that are smaller than their window, the rest of which is ignored."""
    tiny = ["options.base_channels=4", "options.blocks=[1,1,1,1,1,1,1,1]", "data.crop=[64,64]", "data.batch_size=2"]
    budget = ["budget.epochs=2", "val_every=3", "threads=1"]
    result = api.train(data, recipe="drnseg_d_105", out=tmp_path / "run", settings=[*tiny, *budget])
    assert result.iterations == 3
    log = [json.loads(line) for line in (result.run / "log.jsonl").read_text().splitlines()]
    rates = [event["lr"] for event in log if "lr" in event]
    assert rates == pytest.approx([0.01, 0.01, 0.01 * 0.5**0.9])  # one and a half steps an epoch


def test_staged_fcn_at_tiny_size(data: Path, tmp_path: Path) -> None:
    """Each stage takes what it can from the one before; a finished stage is skipped, an interrupted one resumed."""
    tiny = ["options.base_channels=1", "budget.iterations=2", "val_every=1", "threads=1", "loss.class_weights=none"]
    listener = Listens()
    result = api.train(data, recipe="fcn8s_staged", out=tmp_path / "run", settings=tiny, listener=listener)
    assert result.run == tmp_path / "run/fcn8s"
    assert "stage 1 of 3: fcn32s" in listener.lines
    assert any("starts from random weights, the original from VGG-16" in line for line in listener.lines)
    assert any("tensors taken, 4 are new" in line for line in listener.lines)
    assert json.loads((tmp_path / "run/recipe.json").read_text())["recipe"] == "fcn8s_staged"
    before = load_file(tmp_path / "run/fcn16s/best.safetensors")
    after = load_file(tmp_path / "run/fcn8s/best.safetensors")
    torch.testing.assert_close(before["conv1_1.weight"], after["conv1_1.weight"])  # 1e-14: nothing moves
    (tmp_path / "run/fcn8s/report.html").unlink()
    again = Listens()
    resumed = api.train(data, recipe="fcn8s_staged", out=tmp_path / "run", settings=tiny, resume=True, listener=again)
    assert [line for line in again.lines if "finished already" in line] == [
        "fcn32s is finished already",
        "fcn16s is finished already",
    ]
    assert "resuming after iteration 2" in again.lines
    assert resumed.iterations == 2
    done = api.train(data, recipe="fcn8s_staged", out=tmp_path / "run", settings=tiny, resume=True)
    assert (done.run, done.iterations) == (resumed.run, 2)
    with pytest.raises(RequestError, match=r"was begun with recipe 'fcn8s_staged', not 'fcn32s'"):
        api.train(data, recipe="fcn32s", out=tmp_path / "run", resume=True)
    with pytest.raises(RequestError, match=r"already holds a recipe's runs.*--resume"):
        api.train(data, recipe="fcn8s_staged", out=tmp_path / "run", settings=tiny)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("fcn_alexnet", ["options.base_channels=6", "optimizer.accumulate=2"]),
        ("segnet_basic", ["options.base_channels=2", "precise_batch_norm=1"]),
        ("dilation10_cityscapes", ["options.base_channels=1", "optimizer.accumulate=1"]),
        ("deeplabv1_msc_largefov", ["options.base_channels=1", "data.crop=[33,33]", "data.batch_size=2"]),
        (
            "deeplabv2_resnet101",
            ["options.base_channels=1", "options.blocks=[1,1,1,1]", "data.crop=[33,33]", "optimizer.accumulate=2"],
        ),
        (
            "deeplabv3_resnet101",
            ["options.base_channels=1", "options.blocks=[1,1,1,1]", "data.crop=[33,33]", "data.batch_size=2"],
        ),
        (
            "pspnet50_ade20k_paper",
            ["options.base_channels=2", "options.blocks=[1,1,1,1]", "data.crop=[33,33]", "data.batch_size=2"],
        ),
        ("gcn_voc", ["options.base_channels=1", "options.blocks=[1,1,1,1]", "options.k=3", "data.crop=[64,64]"]),
        (
            "fusionnet",
            [
                *("options.base_channels=1", "options.depth=1"),
                *("data.crop=[32,32]", "data.beyond=4", "augment.elastic_sigma=0.5"),
            ],
        ),
        ("modern", ["model=deeplabv2_vgg16_aspp_s", "options.base_channels=1", "data.crop=[32,32]"]),
    ],
)
def test_recipes_run_at_tiny_size(name: str, extra: list[str], data: Path, tmp_path: Path) -> None:
    settings = ["budget.iterations=1", "threads=1", *extra]
    if name.startswith("dilation"):  # whole images where the recipe takes windows of 628 and 1396
        settings += ["data.whole_images=true", "data.crop=null", "data.beyond=0", "data.batch_size=1"]
        settings += ["options.padding=reflect"]
    result = api.train(data, recipe=name, out=tmp_path / "run", settings=settings)
    assert result.iterations == 1
    assert [(tmp_path / "run" / stage.name / "report.html").exists() for stage in find_recipe(name).stages]


def test_context_stage_leaves_the_front_end_as_it_was(data: Path, tmp_path: Path) -> None:
    settings = ["budget.iterations=1", "threads=1", "options.base_channels=1", "optimizer.lr=0.1", "data.crop=null"]
    settings += ["data.whole_images=true", "data.beyond=0", "data.batch_size=1", "options.padding=reflect"]
    api.train(data, recipe="dilation8_voc", out=tmp_path / "run", settings=[*settings, "optimizer.accumulate=1"])
    front = load_file(tmp_path / "run/frontend/best.safetensors")
    context = load_file(tmp_path / "run/context/best.safetensors")
    assert all(torch.equal(value, context[key]) for key, value in front.items())
    assert all(key.startswith("ctx_") for key in context.keys() - front.keys())


def test_what_contradicts_a_recipe_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(
        RequestError, match=r"unknown recipe 'fcn8s_stage'; closest: fcn8s_staged.*\n.*deeplabv1_largefov"
    ):
        api.train(data, recipe="fcn8s_stage", out=out)
    with pytest.raises(RequestError, match="trains fcn32s_vgg16, and unet_small is given"):
        api.train(data, recipe="fcn32s", model="unet_small", out=out)
    with pytest.raises(RequestError, match="trains fcn32s_vgg16, and model=unet is given"):
        api.train(data, recipe="fcn32s", settings=["model=unet"], out=out)
    with pytest.raises(
        RequestError, match=r"says how long to train, and minutes=3 is given.*--set budget.iterations=N"
    ):
        api.train(data, recipe="fcn32s", minutes=3, out=out)
    with pytest.raises(RequestError, match="modern trains any model, and none is given; accepted: --model NAME"):
        api.train(data, recipe="modern", out=out)
    with pytest.raises(RequestError, match="holds no recipe's runs"):
        api.train(data, recipe="fcn32s", out=out, resume=True)
    assert not out.exists()


def test_greyscale_data_are_told_about_the_mean(tmp_path: Path) -> None:
    from pixelwise.data.microscopy import write_microscopy

    grey = write_microscopy(tmp_path / "grey", num_train=2, num_val=1, size=(64, 64))
    with pytest.raises(RequestError, match=r"data.mean has 3 values and the images have 1 channels.*data.mean=\[0\]"):
        api.train(grey, recipe="fcn32s", out=tmp_path / "run", settings=["options.base_channels=1"])


@pytest.mark.slow
def test_deconvnet_trains_on_crops_of_its_own(tmp_path: Path) -> None:
    from pixelwise.data.microscopy import write_microscopy

    cells = write_microscopy(tmp_path / "cells", num_train=1, num_val=1, size=(64, 64), seed=1)
    settings = ["options.base_channels=1", "options.fc_channels=2", "budget.iterations=1", "threads=1", "data.mean=[0]"]
    settings += ["data.batch_size=2", "optimizer.accumulate=1", "precise_batch_norm=1"]
    result = api.train(cells, recipe="deconvnet", out=tmp_path / "run", settings=settings)
    assert result.run == tmp_path / "run/stage2"
    for number, kind in ((1, "objects"), (2, "proposals")):
        card = json.loads((tmp_path / f"run/stage{number}/data_card.json").read_text())
        assert card["name"] == f"microscopy-{kind}"
        assert {tuple(size[:2]) for size in card["image_sizes"]} == {(250, 250)}
