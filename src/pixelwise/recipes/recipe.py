"""What a recipe is: the stages of a published training, each a mapping of configuration keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pixelwise.data.dataset import DatasetFolder

Start = Literal["given", "given_transplant", "previous", "transplant"]
MakeData = Callable[[DatasetFolder, Path], Path]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training of a recipe.

    Attributes:
        name: of its run folder.
        settings: configuration keys, dotted, and their values; what is not among them is planned.
        start: "given" (the weights that the user gives, else random ones), "given_transplant" (their layers which have
            the same names here), "previous" (the best state of the stage before, the same network) or "transplant" (the
            layers of that state which have the same names here).
        make_data: writes the data set of this stage, from the user's and into a new folder; None takes the user's.
    """

    name: str
    settings: Mapping[str, Any]
    start: Start = "given"
    make_data: MakeData | None = None

    def values(self) -> dict[str, Any]:
        """Return the settings nested as in config.yaml.

        >>> Stage(name="one", settings={"optimizer.lr": 0.1, "ema": False}).values()
        {'optimizer': {'lr': 0.1}, 'ema': False}
        """
        nested: dict[str, Any] = {}
        for key, value in self.settings.items():
            *parents, last = key.split(".")
            place = nested
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        return nested


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training in one or more stages.

    Attributes:
        summary: in a line.
        stages: in order.
        weights: what the first stage starts from in the original, None for random weights.
    """

    summary: str
    stages: tuple[Stage, ...]
    weights: str | None = None

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        assert names, "a recipe without stages"
        assert len(set(names)) == len(names), "two stages of one name"
        assert self.stages[0].start.startswith("given"), "the first stage has none before it"


VGG16 = "VGG-16 for ImageNet"
CAFFENET = "CaffeNet for ImageNet"

# Caffe's mean colours of ImageNet and VOC, red, green, blue.
VGG_MEAN = (122.67892, 116.66877, 104.00699)
DEEPLAB_MEAN = (122.675, 116.669, 104.008)

UNCHANGED: Mapping[str, Any] = MappingProxyType(
    {
        "augment.scale": (1.0, 1.0),
        "augment.aspect": (1.0, 1.0),
        "augment.rotation": 0.0,
        "augment.horizontal_flip": False,
        "augment.blur": 0.0,
        "augment.brightness": 0.0,
        "augment.contrast": 0.0,
        "augment.noise": 0.0,
    }
)
MIRRORED: Mapping[str, Any] = MappingProxyType({**UNCHANGED, "augment.horizontal_flip": True})

# What the solvers of the Caffe age have in common; the bias of a convolution learns twice as fast, without decay.
CAFFE: Mapping[str, Any] = MappingProxyType(
    {
        "optimizer.name": "sgd_caffe",
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 5e-4,
        "optimizer.schedule": "constant",
        "optimizer.warmup": 0.0,
        "optimizer.clip_norm": 0.0,
        "optimizer.bias_lr": 2.0,
        "loss.dice": 0.0,
        "loss.class_weights": "none",
        "loss.normalise": "pixels",
        "data.scale": 1.0,
        "data.foreground_crops": 0.0,
        "batch_norm": "batch",
        "ema": False,
        "precision": "float32",
    }
)
