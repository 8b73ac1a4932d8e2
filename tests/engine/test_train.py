"""Training runs at tiny size: exact resumption, the run folder, budgets, what is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pixelwise import api
from pixelwise.engine import train as training
from pixelwise.engine.config import TrainConfig, build_config, read_config
from pixelwise.engine.listener import Silent
from pixelwise.engine.model_file import load_model
from pixelwise.engine.run_folder import RunFolder
from pixelwise.engine.train import train
from pixelwise.errors import RequestError, WorkError

TINY = (
    "options.base_channels=2",
    "options.depth=2",
    "data.crop=[32,48]",
    "data.batch_size=2",
    "val_every=3",
    "threads=1",
)


def config(cells: Path, *settings: str, iterations: int = 8) -> TrainConfig:
    return build_config({"data": {"path": str(cells)}, "budget": {"iterations": iterations}}, (*TINY, *settings))


def log_of(run: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in event.items() if key != "seconds"} for event in events]


def assert_same_tensors(one: Path, other: Path) -> None:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key


class StopsAt(Silent):
    """A listener that presses Ctrl-C."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def step(self, iteration: int, iterations: int, loss: float) -> None:
        if iteration == self.iteration:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("optimizer", "ema"), [("adamw", "true"), ("sgd", "true"), ("adamw", "false")])
def test_resume_equals_the_uninterrupted_run(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, ema: str
) -> None:
    settings = ("options.dropout=0.3", f"optimizer.name={optimizer}", "optimizer.lr=0.01", f"ema={ema}")
    monkeypatch.setattr(training, "LOG_POINTS", 2)  # a line for four iterations: losses wait across the interrupts
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config(cells, *settings), whole)
    for stop in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            train(config(cells, *settings), cut, resume=cut.exists(), listener=StopsAt(stop))
    result = train(config(cells), cut, resume=True)
    assert result.iterations == 8
    assert_same_tensors(whole / "last/checkpoint.safetensors", cut / "last/checkpoint.safetensors")
    assert_same_tensors(whole / "best.safetensors", cut / "best.safetensors")
    assert log_of(whole) == log_of(cut)
    assert (whole / "metrics.json").read_text() == (cut / "metrics.json").read_text()


def test_resume_of_a_finished_run_changes_nothing(cells: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = train(config(cells, iterations=3), run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again = train(config(cells, iterations=3), run, resume=True)
    assert again.best == first.best
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_log_lines_after_the_checkpoint_are_written_again(cells: Path, tmp_path: Path) -> None:
    """As after a kill: the log is ahead of the checkpoint, and its last line is cut off."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config(cells), whole)
    with pytest.raises(KeyboardInterrupt):
        train(config(cells), cut, listener=StopsAt(4))
    with (cut / "log.jsonl").open("a") as file:
        file.write('{"event": "train", "iteration": 5, "loss": 99}\n{"event": "tra')
    train(config(cells), cut, resume=True)
    assert log_of(whole) == log_of(cut)


def test_workers_do_not_change_the_result(cells: Path, tmp_path: Path) -> None:
    alone, helped = tmp_path / "alone", tmp_path / "helped"
    train(config(cells, "data.num_workers=0", iterations=4), alone)
    train(config(cells, "data.num_workers=2", iterations=4), helped)
    assert_same_tensors(alone / "best.safetensors", helped / "best.safetensors")


def test_run_folder_holds_what_is_promised(cells: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = api.train(cells, out=run, iterations=4, settings=TINY)
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names == {
        "best.safetensors",
        "config.yaml",
        "data_card.json",
        "environment.json",
        "last/checkpoint.safetensors",
        "log.jsonl",
        "metrics.json",
        "report.html",
    }
    resolved = read_config(run / "config.yaml")
    planned = {**resolved.model_dump(exclude={"budget", "weights", "transplant", "data"}), **resolved.data.model_dump()}
    assert [key for key, value in planned.items() if value is None] == ["val_list", "test_list", "mean", "std"]
    card = json.loads((run / "data_card.json").read_text())
    assert card["classes"] == ["background", "cell", "nucleus"]
    assert card["num_images"] == {"train": 5, "val": 2}
    assert json.loads((run / "environment.json").read_text())["torch"] == torch.__version__
    assert result.best["metrics"] == api.evaluate(run, cells)["metrics"]


def test_best_is_the_best_validation_and_last_the_last_iteration(cells: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config(cells, "optimizer.lr=0.02", iterations=12), run)
    validations = [event for event in log_of(run) if event["event"] == "validation"]
    assert [event["iteration"] for event in validations] == [3, 6, 9, 12]
    best = max(validations, key=lambda event: event["miou"])
    _, card = load_model(run / "best.safetensors")
    assert card.iteration == best["iteration"] == json.loads((run / "metrics.json").read_text())["iteration"]
    assert card.metrics["miou"] == best["miou"]


def test_model_file_knows_its_inputs(cells: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config(cells, iterations=1), run)
    _, card = load_model(run / "best.safetensors")
    assert card.classes == ("background", "cell", "nucleus")
    assert card.palette == ((0, 0, 0), (40, 160, 80), (70, 90, 230))
    assert card.in_channels == 1
    assert card.normalisation.intensity_range == (0, 255)
    assert "sides of 4 k" in card.input_rule
    assert "Synthetic" in (card.licence or "")


def test_valid_network_with_separation_weights(cells: Path, tmp_path: Path) -> None:
    settings = ("model=unet", "options.base_channels=2", "data.crop=[188,204]", "data.batch_size=1")
    values = {"data": {"path": str(cells)}, "budget": {"iterations": 2}}
    settings += ("threads=1",)
    weighted = build_config(values, (*settings, "loss.separation=true", "options.dropout=0"))
    plain = build_config(values, (*settings, "options.dropout=0"))
    train(weighted, tmp_path / "weighted")
    train(plain, tmp_path / "plain")
    losses = [log_of(tmp_path / name)[0]["loss"] for name in ("weighted", "plain")]
    assert losses[0] != losses[1]


def test_loss_that_is_not_finite_stops_with_the_images(cells: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(WorkError, match=r"the loss is (nan|inf) at iteration [2-9], with images cells-\S+") as error:
        train(config(cells, "optimizer.lr=1e30", "optimizer.clip_norm=0"), run)
    assert "Lower optimizer.lr" in str(error.value)


def test_weights_to_start_from(cells: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    train(config(cells, iterations=3), first)
    train(config(cells, f"weights={first / 'best.safetensors'}", "optimizer.lr=1e-12", iterations=1), second)
    one, other = load_file(first / "best.safetensors"), load_file(second / "best.safetensors")
    torch.testing.assert_close(one["head.weight"], other["head.weight"])


def test_checkpoint_of_another_network_is_refused(cells: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config(cells, iterations=1), run)
    text = (run / "config.yaml").read_text().replace("base_channels: 2", "base_channels: 3")
    (run / "config.yaml").write_text(text)
    with pytest.raises(RequestError, match=r"checkpoint\.safetensors does not fit this run's config\.yaml"):
        train(config(cells), run, resume=True)


def test_state_of_another_program_is_refused(cells: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config(cells, iterations=1), run)
    folder = RunFolder(run)
    folder.checkpoint.write_bytes(folder.best.read_bytes())
    with pytest.raises(RequestError, match="is no training state of pixelwise"):
        train(config(cells), run, resume=True)


def test_early_stop_ends_the_run_and_resuming_changes_nothing(cells: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ("optimizer.lr=1e-12", "val_every=2", "early_stop=3", "ema=false", "data.crop=[32,48]")
    lines: list[str] = []
    listener = Silent()
    listener.say = lines.append  # type: ignore[method-assign]
    result = train(config(cells, *settings, iterations=40), run, listener=listener)
    validations = [event for event in log_of(run) if event["event"] == "validation"]
    best = max(event["iteration"] for event in validations if event["best"])
    assert result.iterations == validations[-1]["iteration"] == best + 2 * 3 < 40
    assert lines[-1] == (
        f"stopped early at iteration {best + 6} of 40: no better score in 3 validations, "
        f"the best was at iteration {best}"
    )
    before = (run / "log.jsonl").read_bytes()
    again = train(config(cells), run, resume=True)
    assert again.iterations == result.iterations
    assert (run / "log.jsonl").read_bytes() == before


def test_small_batches_are_planned_with_corrected_statistics(cells: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    listener = Silent()
    listener.say = lines.append  # type: ignore[method-assign]
    train(config(cells, "data.batch_size=1", iterations=2), tmp_path / "one", listener=listener)
    assert read_config(tmp_path / "one/config.yaml").batch_norm == "renorm"
    assert any(line.startswith("planned: batch_norm = renorm (batches of 1 say too little") for line in lines)
    train(config(cells, "data.batch_size=4", iterations=2), tmp_path / "four")
    assert read_config(tmp_path / "four/config.yaml").batch_norm == "batch"
    model, _ = load_model(tmp_path / "one/best.safetensors", device="cpu")
    assert {type(m) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {torch.nn.BatchNorm2d}
