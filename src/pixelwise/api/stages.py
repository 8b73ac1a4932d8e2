"""One training from nested values: built, checked against a run that goes on, trained and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.api.reports import report
from pixelwise.engine import processes
from pixelwise.engine.base_config import RunConfig
from pixelwise.engine.config import build_config, read_config
from pixelwise.engine.listener import Listener
from pixelwise.engine.run_folder import RunFolder
from pixelwise.engine.train import TrainResult
from pixelwise.engine.train import train as train_model
from pixelwise.errors import RequestError
from pixelwise.models import model_info


def train_values(
    values: Mapping[str, Any], settings: Sequence[str], out: Path, *, resume: bool, listener: Listener | None
) -> TrainResult:
    """Train with a configuration and write the report.

    Args:
        values: nested as in config.yaml.
        settings: "key=value", which beat `values`.
        out: run folder.
        resume: go on with the run there, whose configuration must agree.
        listener: hears how it goes.
    """
    run = RunFolder(out)
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
    processes.first(lambda: str(report(run.root)))
    return result


def merge(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values where the others beat the first; a budget is taken whole, since only one may be given.

    >>> merge({"data": {"crop": 64, "scale": 1}, "seed": 0}, {"data": {"crop": 32}})
    {'data': {'crop': 32, 'scale': 1}, 'seed': 0}
    """
    merged = dict(values)
    for key, value in others.items():
        before = merged.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping) and key != "budget"
        merged[key] = merge(before, value) if both else value  # type: ignore[arg-type]
    return merged


def _shown_budget(config: RunConfig) -> str:
    return ", ".join(f"{key}={value:g}" for key, value in config.budget.model_dump().items() if value is not None)


def _check_unchanged(stored: RunConfig, values: Mapping[str, Any], settings: Sequence[str]) -> None:
    """Refuse to resume under another configuration than the run's own."""
    kept = stored.model_dump(mode="json")
    asked = build_config(merge(kept, values), settings).model_dump(mode="json")
    asked["model"] = model_info(asked["model"]).name
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
