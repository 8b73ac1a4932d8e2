"""What a run folder holds, read so that a missing or broken file costs one section, not the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, several times as fast, where it is built in
Table: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The contents of a run folder; what could not be read is empty and named in `problems`."""

    config: Table
    config_text: str
    environment: Table
    card: Table
    metrics: Table
    training: list[Table]
    validation: list[Table]
    problems: Mapping[str, str]


def read_run(run: Path) -> RunFiles:
    """Read the files of a run folder.

    Args:
        run: The run folder. Any of its files may be missing or damaged.

    Returns:
        The contents, and one sentence for each file that could not be used (wholly).
    """
    problems: dict[str, str] = {}
    config_text = _read_text(run, "config.yaml", problems)
    events = _read_log(run, problems)
    return RunFiles(
        config=_parse_config(config_text, problems),
        config_text=config_text,
        environment=_read_json(run, "environment.json", problems),
        card=_read_json(run, "data_card.json", problems),
        metrics=_read_json(run, "metrics.json", problems),
        training=_by_iteration(events, "train"),
        validation=_by_iteration(events, "validation"),
        problems=problems,
    )


def _read_text(run: Path, name: str, problems: dict[str, str]) -> str:
    """Return a file's text; empty, with a problem noted, where it cannot be read."""
    try:
        return (run / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        problems[name] = f"{name} is not in the run folder (yet)."
    except (OSError, UnicodeDecodeError) as error:
        problems[name] = f"{name} could not be read: {error}."
    return ""


def _read_json(run: Path, name: str, problems: dict[str, str]) -> Table:
    """Return a JSON object; empty, with a problem noted, where there is none."""
    text = _read_text(run, name, problems)
    if name in problems:
        return {}
    try:
        value: object = json.loads(text)
    except ValueError as error:
        problems[name] = f"{name} is not valid JSON: {error}."
        return {}
    if not isinstance(value, dict):
        problems[name] = f"{name} holds no JSON object, so nothing of it is shown."
    return as_table(value)


def _parse_config(text: str, problems: dict[str, str]) -> Table:
    """Return the configuration; empty, with a problem noted, where it is no mapping."""
    try:
        value: object = yaml.load(text, Loader=FAST_LOADER)
    except yaml.YAMLError as error:
        problems["config.yaml"] = f"config.yaml is not valid YAML: {error}."
        return {}
    if value is not None and not isinstance(value, dict):
        problems["config.yaml"] = "config.yaml holds no mapping; it is shown as it is."
    return as_table(value)


def _read_log(run: Path, problems: dict[str, str]) -> list[Table]:
    """Return the events of the log; lines that are no JSON object are counted in a problem."""
    events: list[Table] = []
    broken = 0
    for line in _read_text(run, "log.jsonl", problems).splitlines():
        if not line.strip():
            continue
        try:
            value: object = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            events.append(as_table(value))
        else:
            broken += 1
    if broken:
        problems["log.jsonl"] = f"{broken} line(s) of log.jsonl could not be read and are left out."
    return events


def _by_iteration(events: list[Table], kind: str) -> list[Table]:
    """Return the events of one kind in order of iteration.

    A run that was resumed logs the iterations after its last checkpoint again: the later entry counts.
    """
    latest: dict[float, Table] = {}
    for event in events:
        iteration = as_number(event.get("iteration"))
        if event.get("event") == kind and iteration is not None:
            latest[iteration] = event
    return [latest[iteration] for iteration in sorted(latest)]


def as_table(value: object) -> Table:
    """Return a mapping with text keys; empty where the value is no mapping."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """Return a list; empty where the value is none."""
    return list(value) if isinstance(value, (list, tuple)) else []


def as_number(value: object) -> float | None:
    """Return a finite number; None for anything else, so that a gap is never drawn as 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def as_numbers(table: Table, *keys: str) -> tuple[float, ...] | None:
    """Return the numbers under some keys; None where one is missing."""
    numbers = [number for key in keys if (number := as_number(table.get(key))) is not None]
    return tuple(numbers) if len(numbers) == len(keys) else None


def as_words(value: object) -> str:
    """Return a setting as text for people.

    >>> as_words({"flip": False, "scales": [0.5, 1.0], "ignored": None})
    'flip: no, scales: 0.5, 1, ignored: none'
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{humanize(str(key))}: {as_words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(as_words(item) for item in value)
    return str(value)


def humanize(key: str) -> str:
    """Return a key as words: `num_images` becomes `number of images`."""
    return key.replace("num_", "number of ").replace("_", " ")
