"""Training by a recipe: its stages one after the other, each a run of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pixelwise.api.stages import merge, train_values
from pixelwise.data.dataset import open_dataset
from pixelwise.engine import processes
from pixelwise.engine.listener import Listener, Silent
from pixelwise.engine.run_folder import RunFolder
from pixelwise.engine.train import TrainResult
from pixelwise.errors import RequestError
from pixelwise.files import write_atomically
from pixelwise.recipes import Recipe, Stage, find_recipe

FILE = "recipe.json"


def train_recipe(
    name: str,
    values: Mapping[str, Any],
    out: Path,
    *,
    settings: Sequence[str],
    resume: bool,
    listener: Listener | None,
) -> TrainResult:
    """Train by a recipe, each stage in a folder of its name below `out`.

    Args:
        name: of the recipe.
        values: what the user gave, nested as in config.yaml: the data, and perhaps weights and seed for the first
            stage, model and budget where the recipe leaves them open.
        out: folder, new or empty.
        settings: "key=value", for all stages.
        resume: leave out the finished stages and go on with the one that was interrupted, with all that was given
            when the recipe began; what is given again must agree.
        listener: hears how it goes.

    Returns:
        The result of the last stage.

    Raises:
        RequestError: if there is no such recipe, or what was given contradicts it; before any training.
    """
    recipe = find_recipe(name)
    if not resume:
        check_conflicts(name, recipe, values, settings)
    listener = listener or Silent()
    given, texts = values, settings
    values, settings = processes.first(lambda: _begin(name, given, texts, out, resume=resume))
    if recipe.weights and "weights" not in values:
        listener.say(
            f"no --weights: {name} starts from random weights, the original from {recipe.weights}; `pixelwise "
            "import-weights` makes such a file"
        )
    previous: Stage | None = None
    result: TrainResult | None = None
    for number, stage in enumerate(recipe.stages, 1):
        listener.say(f"stage {number} of {len(recipe.stages)}: {stage.name}")
        run = RunFolder(out / stage.name)
        finished, begun = processes.first(partial(_state, run))
        if finished:
            listener.say(f"{stage.name} is finished already")
        else:
            wanted = processes.first(partial(_stage_values, stage, previous, values, out))
            result = train_values(wanted, settings, run.root, resume=begun, listener=listener)
        previous = stage
    return result or _finished(RunFolder(out / recipe.stages[-1].name))


def _state(run: RunFolder) -> tuple[bool, bool]:
    """Say whether a run is finished, by its last file, and whether it has begun."""
    return (run.root / "report.html").exists(), run.config.exists()


def check_conflicts(name: str, recipe: Recipe, values: Mapping[str, Any], settings: Sequence[str]) -> None:
    """Refuse a model or a budget where the recipe has its own, and the lack of a model where it has none."""
    models = [stage.settings["model"] for stage in recipe.stages if "model" in stage.settings]
    given = values.get("model") or next((text for text in settings if text.partition("=")[0].strip() == "model"), None)
    if models and given:
        raise RequestError(
            f"--recipe {name} trains {', '.join(dict.fromkeys(models))}, and {given} is given; accepted: one of them. "
            "Leave the model out, or use --recipe modern."
        )
    if not models and not given:
        raise RequestError(f"--recipe {name} trains any model, and none is given; accepted: --model NAME. Add it.")
    budgets = [key for stage in recipe.stages for key in stage.settings if key.startswith("budget.")]
    if budgets and "budget" in values:
        key, number = next(iter(values["budget"].items()))
        raise RequestError(
            f"--recipe {name} says how long to train, and {key}={number:g} is given; accepted: the recipe's length. "
            f"Leave it out, or shorten every stage with --set {budgets[0]}=N."
        )


def _begin(
    name: str, values: Mapping[str, Any], settings: Sequence[str], out: Path, *, resume: bool
) -> tuple[Mapping[str, Any], Sequence[str]]:
    """Check the folder, note the recipe and what was given there, and return what was given when it began."""
    file = out / FILE
    if not resume:
        if file.exists():
            raise RequestError(
                f"--out {out} already holds a recipe's runs; accepted: a new or empty folder. Choose another name, or "
                "go on with --resume."
            )
        RunFolder(out).prepare()
        noted = {"recipe": name, "values": values, "settings": list(settings)}
        write_atomically(file, json.dumps(noted, indent=1, ensure_ascii=False) + "\n")
        return values, settings
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
        begun, first_values, first_settings = noted["recipe"], dict(noted["values"]), list(noted["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RequestError(
            f"--resume: {out} holds no recipe's runs (no readable {FILE}); accepted: the --out folder of a recipe that "
            "had begun. Leave --resume out to begin one."
        ) from None
    if begun != name:
        raise RequestError(
            f"--resume: {out} was begun with recipe {begun!r}, not {name!r}; accepted: the same. Give it."
        )
    new = [text for text in settings if text not in first_settings]
    new += [f"{key}={value}" for key, value in values.items() if first_values.get(key) != value]
    if new:
        raise RequestError(
            f"--resume: {out} was begun without {', '.join(new)}; accepted: what was given then, or nothing. Leave it "
            "out, or train into a new folder."
        )
    return first_values, first_settings


def _stage_values(stage: Stage, previous: Stage | None, values: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Return the configuration of a stage: the recipe's, what the user gave, and where it starts."""
    given = {key: value for key, value in values.items() if key != "weights" or stage.start == "given"}
    wanted = merge(stage.values(), given)
    if stage.start == "given_transplant":
        if "weights" in values:
            wanted["transplant"] = values["weights"]
    elif stage.start != "given":
        assert previous is not None
        key = "weights" if stage.start == "previous" else "transplant"
        wanted[key] = os.path.abspath(RunFolder(out / previous.name).best)
    if stage.make_data is not None:
        data = values["data"]
        lists = {key: Path(data[key]) for key in ("val_list", "test_list") if key in data}
        path = stage.make_data(open_dataset(Path(data["path"]), **lists), out / f"{stage.name}-data")
        wanted["data"] = {
            **{key: value for key, value in wanted["data"].items() if key not in lists},
            "path": str(path),
        }
    return wanted


def _finished(run: RunFolder) -> TrainResult:
    """Return the result of a run that was finished before."""
    events = [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]
    return TrainResult(
        run=run.root, iterations=events[-1]["iteration"], seconds=events[-1]["seconds"], best=run.read_metrics()
    )
