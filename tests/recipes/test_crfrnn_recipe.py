"""CRF-RNN's recipe puts the CRF behind a trained FCN-8s, and both learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixelwise import api
from pixelwise.data.folder import FolderItem, write_dataset_folder
from pixelwise.engine.listener import Silent
from pixelwise.models import create_model

CLASSES = ("left", "right")
SETTINGS = ("options.base_channels=1", "options.iterations=2", "options.test_iterations=2", "threads=1")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images of two halves, of different sizes."""
    rng = np.random.default_rng(0)
    items = []
    for split, width in (("train", 40), ("val", 36)):
        labels = np.repeat((np.arange(width) >= width // 2)[None].astype(np.uint8), 30, axis=0)
        image = (60 + 90 * labels[..., None] + rng.integers(0, 6, (30, width, 3))).astype(np.uint8)
        items.append(FolderItem(split=split, name=split, image=image, labels=labels))
    return write_dataset_folder(
        tmp_path / "data", items, name="halves", classes=CLASSES, palette=[(0, 0, 0), (9, 9, 9)], terms="ours"
    )


@pytest.fixture
def fcn8s(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state: dict[str, Tensor] = create_model("fcn8s_vgg16", num_classes=2, base_channels=1).state_dict()
    for name, tensor in state.items():
        if name.startswith("score"):
            tensor.uniform_(-0.5, 0.5)
    save_file(state, tmp_path / "fcn8s.safetensors")
    return tmp_path / "fcn8s.safetensors"


class Listens(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_it_starts_from_fcn8s_and_the_crf_learns_fastest(data: Path, fcn8s: Path, tmp_path: Path) -> None:
    listener = Listens()
    settings = (*SETTINGS, "budget.iterations=2", "val_every=2", "optimizer.lr=1e-11", "optimizer.weight_decay=0")
    result = api.train(data, recipe="crfrnn", weights=fcn8s, out=tmp_path / "run", settings=settings, listener=listener)
    before, after = load_file(fcn8s), load_file(result.run / "best.safetensors")
    assert any("tensors taken, 4 are new" in line for line in listener.lines)  # the bias, two weights, compatibility
    assert not any("random weights" in line for line in listener.lines)
    torch.testing.assert_close(after["fc6.weight"], before["fc6.weight"], rtol=1e-3, atol=1e-5)
    assert after["upscore2.weight"].shape == (2, 2, 4, 4)
    torch.testing.assert_close(after["upscore2.weight"][1, 1], before["upscore2.weight"][1, 0], rtol=1e-3, atol=1e-4)
    start = {"spatial": 3.0, "bilateral": 5.0, "compatibility": -1.0}
    moved = {
        name: float((after[f"crf.{name}.weight"] - value * torch.eye(2)).abs().max()) for name, value in start.items()
    }
    assert all(distance > 0 for distance in moved.values())
    assert min(moved.values()) > float((after["conv1_2.weight"] - before["conv1_2.weight"]).abs().max())


def test_without_weights_it_says_what_the_original_starts_from(data: Path, tmp_path: Path) -> None:
    listener = Listens()
    api.train(
        data, recipe="crfrnn", out=tmp_path / "run", settings=(*SETTINGS, "budget.iterations=1"), listener=listener
    )
    assert any("from random weights, the original from FCN-8s for the same classes" in line for line in listener.lines)
