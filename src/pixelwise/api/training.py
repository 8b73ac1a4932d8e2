"""Training: from a folder of images and masks to a run folder with its report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelwise.api.reports import report
from pixelwise.engine.config import TrainConfig, build_config, read_config
from pixelwise.engine.run_folder import RunFolder
from pixelwise.engine.session import Listener
from pixelwise.engine.train import TrainResult
from pixelwise.engine.train import train as train_model
from pixelwise.errors import RequestError


def train(
    data: str | Path,
    *,
    out: str | Path,
    model: str | None = None,
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

    Args:
        data: dataset folder.
        out: run folder, new or empty.
        model: public name; None takes `unet_small`.
        minutes: wall-clock budget. At most one budget may be given; without one it is 10 minutes.
        cpu_minutes: budget of process CPU time, all threads added.
        epochs: passes over the training images.
        iterations: optimiser steps.
        val_list: file that names the validation items, where the data has no val split.
        test_list: file that names items to hold out of training and validation, as the split "test".
        weights: safetensors file to start from.
        seed: of weights, sampling and augmentation.
        settings: "key=value" for any other key of the configuration.
        resume: go on with the run in `out`. Arguments that are given must agree with its configuration.
        listener: hears how it goes.

    Returns:
        The run folder, its length and the scores of its best model.

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
        ("weights", None if weights is None else _absolute(weights)),
        ("seed", seed),
        ("budget", given),
    ):
        if value not in (None, {}):
            values[key] = value
    run = RunFolder(Path(out))
    config = build_config(values, settings)
    if resume:
        if not run.config.exists():
            raise RequestError(
                f"--resume: {out} holds no run (no config.yaml); accepted: the --out folder of a run that had begun. "
                "Leave --resume out to begin one."
            )
        _check_unchanged(read_config(run.config), values, settings)
    elif config.iterations is not None and any(config.budget.model_dump().values()):
        raise RequestError(
            f"iterations={config.iterations} is set beside a budget ({_shown_budget(config)}), which would have no "
            "effect; accepted: one of them. Leave one out."
        )
    result = train_model(config, run.root, resume=resume, listener=listener)
    report(run.root)
    return result


def _absolute(path: str | Path) -> str:
    """Return a path that still holds when the run is resumed or reported from another folder."""
    return os.path.abspath(path)


def _shown_budget(config: TrainConfig) -> str:
    return ", ".join(f"{key}={value:g}" for key, value in config.budget.model_dump().items() if value is not None)


def _check_unchanged(stored: TrainConfig, values: dict[str, Any], settings: Sequence[str]) -> None:
    """Refuse to resume under another configuration than the run's own."""
    kept = stored.model_dump(mode="json")
    merged = {**kept, **values, "data": {**kept["data"], **values["data"]}}
    asked = build_config(merged, settings).model_dump(mode="json")
    differences = [
        f"{key}: {before!r} in the run, {after!r} asked for" for key, before, after in _differences(kept, asked)
    ]
    if differences:
        raise RequestError(
            f"--resume goes on with the run's own config.yaml, but it differs in {'; '.join(differences)}. "
            "Leave these out, or train into a new folder."
        )


def _differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for key in before.keys() | after.keys():
        one, other = before.get(key), after.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append((prefix + key, one, other))
    return sorted(found, key=lambda difference: difference[0])
