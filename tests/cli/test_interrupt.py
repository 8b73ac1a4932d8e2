"""Ctrl-C leaves a run from which training goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pixelwise.engine.model_file import read_tensors
from pixelwise.engine.run_folder import STATE_KEY

COMMAND = (sys.executable, "-c", "from pixelwise.cli import main; main()")


@pytest.mark.slow
def test_interrupted_training_goes_on_and_ends_as_if_nothing_had_happened(pixelwise, data, quick, tmp_path) -> None:
    length = ("--iterations", "150", "--set", "val_every=50")
    words = [*quick, *length]
    run, whole = tmp_path / "run", tmp_path / "whole"
    command = [*COMMAND, "train", str(data), "--out", str(run), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        watch = threading.Timer(600, process.kill)
        watch.start()
        assert process.stderr is not None
        first = process.stderr.readline()  # the first line of progress
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        watch.cancel()
    assert first.startswith("training 1/150")
    assert process.returncode == 1
    assert err.endswith("stopped.\n")
    assert "Traceback" not in err
    assert f"stopped; go on with: pixelwise train {data} --out {run} --resume\n" in out

    _, metadata = read_tensors(run / "last/checkpoint.safetensors")
    done = json.loads(metadata[STATE_KEY])["progress"]["iteration"]
    assert 1 <= done < 150
    resumed = pixelwise("train", data, "--out", run, "--resume")
    assert resumed.code == 0, resumed.err
    assert f"resuming after iteration {done}" in resumed.out
    assert (run / "report.html").exists()

    assert pixelwise("train", data, "--out", whole, *words).code == 0
    weights, _ = read_tensors(run / "best.safetensors")
    uninterrupted, _ = read_tensors(whole / "best.safetensors")
    assert all(weights[key].equal(value) for key, value in uninterrupted.items())
    assert scores(run) == scores(whole)


def scores(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())["metrics"]


@pytest.mark.parametrize("command", ["train", "demo"])
def test_interrupt_before_training_leaves_nothing(pixelwise, data, quick, tmp_path, monkeypatch, command) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pixelwise.engine.session.scan", interrupt)
    monkeypatch.setattr("pixelwise.demo.write_coins", interrupt)
    out = tmp_path / "run"
    words = ("train", data, *quick) if command == "train" else ("demo",)
    stopped = pixelwise(*words, "--out", out)
    assert stopped.code == 1
    assert stopped.err.strip() == "stopped."
    assert ("nothing was written" if command == "train" else f"remove {out}") in stopped.out
    assert not out.exists()
