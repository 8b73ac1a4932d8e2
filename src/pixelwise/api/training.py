"""Training: from a folder of images and masks to a run folder with its report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelwise.api.recipes import train_recipe
from pixelwise.api.stages import train_values
from pixelwise.engine import processes
from pixelwise.engine.config import START_WORDS
from pixelwise.engine.listener import Listener
from pixelwise.engine.train import TrainResult


def train(
    data: str | Path,
    *,
    out: str | Path,
    model: str | None = None,
    recipe: str | None = None,
    minutes: float | None = None,
    cpu_minutes: float | None = None,
    epochs: float | None = None,
    iterations: int | None = None,
    val_list: str | Path | None = None,
    test_list: str | Path | None = None,
    weights: str | Path | None = None,
    seed: int | None = None,
    settings: Sequence[str] = (),
    resume: bool = False,
    listener: Listener | None = None,
) -> TrainResult:
    """Train a model on a folder of images and masks, and write the report.

    In a script that `torchrun` starts in several processes, each takes its share of every batch; the first one alone
    writes, and tells the listener.

    Args:
        data: dataset folder; for an image classifier one with a folder for each class.
        out: run folder, new or empty.
        model: public name, or an alias, for which the run notes the public name; None takes `unet_small`.
        recipe: name of a published training, whose stages are trained one after the other, each in a folder of its own
            below `out`; `settings` apply to all of them, `weights` to the first.
        minutes: wall-clock budget. At most one budget may be given; without one it is 10 minutes.
        cpu_minutes: budget of process CPU time, all threads added.
        epochs: passes over the training images.
        iterations: optimiser steps.
        val_list: file that names the validation items, where the data has no val split.
        test_list: file that names items to hold out of training and validation, as the split "test".
        weights: safetensors file or run folder to start from: of the same model, taken strictly, or of the classifier
            that is its trunk; "pretrained" takes what an installed package brings for the model's
            encoder (the default where the model has it), "random" the model's initialisation.
        seed: of weights, sampling and augmentation.
        settings: "key=value" for any other key of the configuration.
        resume: go on with the run in `out`. Arguments that are given must agree with its configuration.
        listener: hears how it goes.

    Returns:
        The run folder, its length and the scores of its best model; a recipe's are those of its last stage.

    Raises:
        RequestError: if data, names, values or the folder are wrong; before any training.
        WorkError: if the loss is not finite any more, or files cannot be written.
    """
    budget = {"minutes": minutes, "cpu_minutes": cpu_minutes, "epochs": epochs, "iterations": iterations}
    given = {key: value for key, value in budget.items() if value is not None}
    values: dict[str, Any] = {"data": {"path": _absolute(data)}}
    for key, path in (("val_list", val_list), ("test_list", test_list)):
        if path is not None:
            values["data"][key] = _absolute(path)
    for key, value in (
        ("model", model),
        ("weights", weights if weights is None or str(weights) in START_WORDS else _absolute(weights)),
        ("seed", seed),
        ("budget", given),
    ):
        if value not in (None, {}):
            values[key] = str(value) if key == "weights" else value
    with processes.joined():
        heard = listener if processes.rank() == 0 else None
        if recipe is not None:
            return train_recipe(recipe, values, Path(out), settings=settings, resume=resume, listener=heard)
        return train_values(values, settings, Path(out), resume=resume, listener=heard)


def _absolute(path: str | Path) -> str:
    """Return a path that still holds when the run is resumed or reported from another folder."""
    return os.path.abspath(path)
