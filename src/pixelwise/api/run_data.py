"""How a run's data was divided, for scoring and showing it again."""

from __future__ import annotations

from pathlib import Path

from pixelwise.engine.config import read_config
from pixelwise.engine.run_folder import RunFolder


def lists_of(run: Path, data: Path) -> dict[str, Path | None]:
    """Return the lists of validation and test items that a run was trained with, if it was trained on this data."""
    config = RunFolder(run).config
    if not run.is_dir() or not config.exists():
        return {}
    stored = read_config(config).data
    if Path(stored.path).resolve() != data.resolve():
        return {}
    return {"val_list": _as_path(stored.val_list), "test_list": _as_path(stored.test_list)}


def _as_path(given: str | None) -> Path | None:
    return None if given is None else Path(given)
