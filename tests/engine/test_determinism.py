"""`deterministic`: equal bits, no clock, and no operation that could differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pixelwise.engine import train as training
from pixelwise.engine.config import TrainConfig, build_config
from pixelwise.engine.determinism import deterministic_algorithms
from pixelwise.engine.train import train
from pixelwise.errors import RequestError

TINY = (
    "options.base_channels=2",
    "options.depth=2",
    "data.crop=[32,48]",
    "data.batch_size=2",
    "threads=2",
    "deterministic=true",
)


def config(cells: Path, *settings: str, **budget: Any) -> TrainConfig:
    return build_config({"data": {"path": str(cells)}, "budget": budget}, (*TINY, *settings))


def test_two_runs_end_in_the_same_bits(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    go_on = training.go_on

    def watched(*args: Any) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        go_on(*args)

    monkeypatch.setattr(training, "go_on", watched)
    for name in ("one", "other"):
        train(config(cells, "options.dropout=0.3", iterations=4), tmp_path / name)
    first, second = (load_file(tmp_path / name / "best.safetensors") for name in ("one", "other"))
    assert all(value.equal(second[key]) for key, value in first.items())
    assert seen == [True, True]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("budget", "said"), [({"minutes": 1}, "a time budget"), ({}, "no length")])
def test_a_clock_is_refused(cells: Path, tmp_path: Path, budget: dict[str, float], said: str) -> None:
    with pytest.raises(RequestError, match=rf"deterministic=true with {said}.*accepted: --epochs or --iterations"):
        train(config(cells, **budget), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_operation_without_a_deterministic_form_says_its_name() -> None:
    unpooled = torch.nn.functional.max_unpool2d
    values, places = torch.nn.functional.max_pool2d(torch.randn(1, 1, 4, 4), 2, return_indices=True)
    with (
        deterministic_algorithms(True),
        pytest.raises(RuntimeError, match=r"max_unpool.* does not have a deterministic"),
    ):
        unpooled(values, places, 2)
    with deterministic_algorithms(False):
        unpooled(values, places, 2)
