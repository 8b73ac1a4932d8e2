"""`pixelwise train --recipe`: stages in folders of their own, what is said, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pixelwise.engine import train as training

TINY = [f"--set={text}" for text in ("options.base_channels=2", "options.depth=2", "data.crop=[32,32]", "threads=1")]


def test_a_recipe_trains_into_a_folder_for_each_stage(pixelwise: Any, data: Path, tmp_path: Path) -> None:
    words = [
        "train",
        data,
        "--recipe",
        "modern",
        "--model",
        "unet_small",
        "--iterations",
        "2",
        "--out",
        tmp_path / "run",
    ]
    outcome = pixelwise(*words, *TINY, "--json")
    assert outcome.code == 0, outcome.err
    assert "stage 1 of 1: modern" in outcome.err
    assert json.loads(outcome.out)["run"] == str(tmp_path / "run/modern")
    assert (tmp_path / "run/modern/report.html").exists()
    again = pixelwise(*words, *TINY, "--resume")
    assert again.code == 0, again.err
    assert "modern is finished already" in again.out + again.err
    bare = pixelwise("train", data, "--recipe", "modern", "--out", tmp_path / "run", "--resume")
    assert bare.code == 0, bare.err
    changed = pixelwise(*words, *TINY, "--set=optimizer.lr=1", "--seed", "5", "--resume")
    assert changed.code == 2
    assert "was begun without optimizer.lr=1, seed=5; accepted: what was given then, or nothing" in changed.err


def test_an_interrupted_recipe_says_how_to_go_on(
    pixelwise: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    words = [
        "train",
        data,
        "--recipe",
        "modern",
        "--model",
        "unet_small",
        "--iterations",
        "2",
        "--out",
        tmp_path / "run",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(training, "go_on", interrupt)
        outcome = pixelwise(*words, *TINY)
    assert outcome.code == 1
    assert f"--recipe modern --model unet_small --out {tmp_path / 'run'} --resume" in outcome.out + outcome.err
    # As that line says it: what was given at the beginning still counts.
    done = pixelwise("train", data, "--recipe", "modern", "--out", tmp_path / "run", "--resume")
    assert done.code == 0, done.err
    config = (tmp_path / "run/modern/config.yaml").read_text()
    assert "base_channels: 2" in config
    assert "model: unet_small" in config


def test_an_unknown_recipe_is_answered_with_names(refused: Any, data: Path, tmp_path: Path) -> None:
    error = refused("train", data, "--recipe", "segnet_basis", "--out", tmp_path / "run").err
    assert "unknown recipe 'segnet_basis'; closest: segnet_basic" in error
    assert "fcn8s_staged" in error
    error = refused("train", data, "--recipe", "modern", "--out", tmp_path / "run").err
    assert "accepted: --model NAME" in error
