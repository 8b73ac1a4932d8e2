"""Places that take no file, damaged runs, foreign model files. `refused` checks that no file changed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pixelwise import files


@pytest.mark.parametrize("command", ["train", "predict", "demo"])
def test_folder_below_a_file(refused, trained, data, quick, tmp_path, command) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file/run"
    words = {
        "train": ("train", data, *quick),
        "predict": ("predict", trained, data / "images/val"),
        "demo": ("demo",),
    }[command]
    message = refused(*words, "--out", out, code=1).err
    assert f"{out} cannot be written: Not a directory. Free space there, change its rights" in message


@pytest.mark.parametrize("command", ["train", "predict"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_folder_that_takes_no_file(refused, trained, data, quick, tmp_path, monkeypatch, command, number) -> None:
    def no(self: Path, content: bytes) -> int:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "write_bytes", no)
    out = tmp_path / "run"
    words = ("train", data, *quick) if command == "train" else ("predict", trained, data / "images/val")
    message = refused(*words, "--out", out, code=1).err
    assert f"{out} cannot be written: {os.strerror(number)}." in message


def test_disk_that_fills_up_during_training_leaves_whole_files(pixelwise, data, quick, tmp_path, monkeypatch) -> None:
    """The second model file does not fit; what was there stays, and training goes on once there is space."""
    write, sizes = files.Path.write_bytes, []

    def full(self: Path, content: bytes) -> int:
        if self.name.startswith(".checkpoint"):
            sizes.append(len(content))
            if len(sizes) == 2:
                write(self, content[:1000])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, content)

    monkeypatch.setattr(files.Path, "write_bytes", full)
    run = tmp_path / "run"
    stopped = pixelwise("train", data, "--out", run, *quick, "--set", "val_every=1")
    assert stopped.code == 1
    assert f"error: {run / 'last/checkpoint.safetensors'} cannot be written: No space left on device." in stopped.err
    assert not [path for path in run.rglob("*") if path.name.startswith(".")]
    assert pixelwise("evaluate", run, data).code == 0
    monkeypatch.undo()
    resumed = pixelwise("train", data, "--out", run, "--resume")
    assert resumed.code == 0
    assert "resuming after iteration 1" in resumed.out


def test_really_full_disk(pixelwise, trained, data, quick, tmp_path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs the right to mount a small file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", place], check=False, timeout=600)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        images = trained.parent / "data/images/val"
        for words in (("train", data, *quick), ("predict", trained, images)):
            outcome = pixelwise(*words, "--out", place / "out")
            assert outcome.code == 1
            assert f"{place / 'out'} cannot be written: No space left on device." in outcome.err
            assert not list(place.iterdir())
    finally:
        subprocess.run(["umount", place], check=True, timeout=600)


def test_run_folder_that_is_a_file(refused, data, quick, tmp_path) -> None:
    (tmp_path / "run").write_text("")
    message = refused("train", data, "--out", tmp_path / "run", *quick).err
    assert "is a file; accepted: a new or empty folder" in message


def test_run_folder_that_was_used(refused, data, quick, trained, tmp_path) -> None:
    message = refused("train", data, "--out", trained, *quick).err
    assert f"--out {trained} already holds a run" in message
    assert "or go on with --resume" in message
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/todo.txt").write_text("mine")
    assert "already holds other files" in refused("train", data, "--out", tmp_path / "notes", *quick).err
    assert "already holds other files" in refused("demo", "--out", tmp_path / "notes").err


def test_resume_with_other_settings(refused, trained) -> None:
    data = trained.parent / "data"
    words = ("--seed", "3", "--iterations", "9", "--set", "optimizer.lr=0.5", "--model", "unet")
    message = refused("train", data, "--out", trained, "--resume", *words).err
    for difference in (
        "seed: 0 in the run, 3 asked for",
        "budget.iterations: 2 in the run, 9 asked for",
        "optimizer.lr: 0.003 in the run, 0.5 asked for",
        "model: 'unet_small' in the run, 'unet' asked for",
    ):
        assert difference in message
    assert "Leave these out, or train into a new folder" in message


def test_resume_on_other_data(refused, trained, data) -> None:
    message = refused("train", data, "--out", trained, "--resume").err
    assert f"data.path: '{trained.parent / 'data'}' in the run, '{data}' asked for" in message


def test_resume_without_a_run(refused, data, tmp_path) -> None:
    for out in (tmp_path / "nothing", data):
        message = refused("train", data, "--out", out, "--resume").err
        assert f"--resume: {out} holds no run" in message
        assert "Leave --resume out to begin one" in message


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A run folder that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "copied"))


def test_resume_from_a_damaged_state(refused, trained, copied) -> None:
    path = copied / "last/checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    message = refused("train", trained.parent / "data", "--out", copied, "--resume").err
    assert f"{path} cannot be read as a safetensors file" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "cannot be read"),
        ("- 1", "holds no mapping"),
        ("seed: 1", "data is missing"),
        ("{data: {path: x}, sed: 1}", "closest: seed"),
    ],
)
def test_damaged_config(refused, trained, copied, text, words) -> None:
    (copied / "config.yaml").write_text(text)
    message = refused("train", trained.parent / "data", "--out", copied, "--resume").err
    assert str(copied / "config.yaml") in message
    assert words in message


@pytest.mark.parametrize("text", ["", "{}", "[1]", "7"])
def test_damaged_metrics(refused, copied, text) -> None:
    (copied / "metrics.json").write_text(text)
    message = refused("report", copied).err
    assert str(copied / "metrics.json") in message
    assert "Restore" in message


def test_report_of_no_run(refused, data, tmp_path) -> None:
    assert "does not exist. Give the --out folder" in refused("report", tmp_path / "nothing").err
    assert f"{data / 'config.yaml'} does not exist" in refused("report", data).err


def test_report_of_a_run_without_scores(refused, copied) -> None:
    (copied / "metrics.json").unlink()
    assert "holds no metrics.json; accepted: a run that was validated" in refused("report", copied).err


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="cut off"),
        pytest.param(lambda content: content[:4], id="cut off early"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: np.random.default_rng(0).bytes(5000), id="random bytes"),
    ],
)
def test_corrupt_checkpoint(refused, copied, trained, tmp_path, damage) -> None:
    path = copied / "best.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    data = trained.parent / "data"
    for words in (("predict", copied, data / "images/val", "--out", tmp_path / "out"), ("evaluate", path, data)):
        message = refused(*words).err
        assert f"{path} cannot be read as a safetensors file" in message
        assert "Copy it again, or give another file" in message


def test_foreign_checkpoint(refused, trained, tmp_path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    message = refused("predict", path, trained.parent / "data/images/val", "--out", tmp_path / "out").err
    assert f"{path} is a safetensors file of another program" in message
    assert "accepted: best.safetensors of a pixelwise run" in message


def test_pickle_is_never_opened(refused, trained, tmp_path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(3)}, path)
    message = refused("predict", path, trained.parent / "data/images/val", "--out", tmp_path / "out").err
    assert f"{path} cannot be read as a safetensors file" in message
    assert "pickle files (.pt, .pth) never" in message


def test_weights_that_do_not_fit(refused, data, quick, trained, tmp_path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    message = refused("train", data, "--weights", path, "--out", tmp_path / "run", *quick).err
    assert "do not fit this model" in message
    assert "missing down.0.0.weight" in message
    wider = ("--set", "options.base_channels=3")
    best = trained / "best.safetensors"
    message = refused("train", data, "--weights", best, "--out", tmp_path / "run", *quick, *wider).err
    assert "down.0.0.weight is (2, 1, 3, 3), model wants (3, 1, 3, 3)" in message
    missing = tmp_path / "nothing.safetensors"
    message = refused("train", data, "--weights", missing, "--out", tmp_path / "run", *quick).err
    assert f"weights {missing} is not a file" in message


def test_run_that_is_none(refused, data, tmp_path) -> None:
    message = refused("evaluate", tmp_path / "nothing", data).err
    assert f"run {tmp_path / 'nothing'} does not exist" in message
    assert "holds no best.safetensors" in refused("evaluate", data, data).err
