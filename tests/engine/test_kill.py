"""A run that is killed at any moment goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

KILLS = 20

# Forks at once when everything is imported, so that twenty lives cost little more than one; the child trains, the
# parent kills it after a random time and begins the next life, which resumes where there is something to resume.
DRIVER = """
import os, random, signal, sys, time
import cv2, torch
from pixelwise.engine.config import build_config
from pixelwise.engine.train import train
from pathlib import Path

data, whole, killed, workers, kills = sys.argv[1:6]
torch.set_num_threads(1)
cv2.setNumThreads(1)
settings = ("options.base_channels=4", "options.depth=3", "options.dropout=0.3", "data.crop=[32,48]",
            "data.batch_size=2", "val_every=2", "threads=1", f"data.num_workers={workers}")
config = build_config({"data": {"path": data}, "budget": {"iterations": 60}}, settings)

def life(out, seconds):
    child = os.fork()
    if child == 0:
        try:
            train(config, Path(out), resume=(Path(out) / "config.yaml").exists())
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

begun = time.perf_counter()
assert life(whole, None) == 0
duration = time.perf_counter() - begun
moments = random.Random(os.getpid())
cut = 0
for _ in range(int(kills)):
    code = life(killed, moments.uniform(0.02, 0.4) * duration)
    assert code in (0, -signal.SIGKILL), code
    cut += code != 0
print(cut)
assert life(killed, None) == 0
"""


def events(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_at_twenty_random_moments_ends_in_the_same_bits(cells: Path, tmp_path: Path, workers: int) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    driver = [sys.executable, "-c", DRIVER, str(cells), str(whole), str(killed), str(workers), str(KILLS)]
    done = subprocess.run(
        driver, capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= KILLS // 4, "most lives ended before they were killed"
    for name in ("best.safetensors", "last/checkpoint.safetensors"):
        first, second = load_file(whole / name), load_file(killed / name)
        assert first.keys() == second.keys()
        assert all(value.equal(second[key]) for key, value in first.items()), name
    assert events(whole) == events(killed)
    assert (whole / "metrics.json").read_text() == (killed / "metrics.json").read_text()
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}
