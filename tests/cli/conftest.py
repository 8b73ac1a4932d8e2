"""A tiny data set, a tiny trained run, and a way to call the command as a user does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.cli import run

# A training of about a tenth of a second.
QUICK = (
    *("--iterations", "2"),
    *("--set", "options.base_channels=2"),
    *("--set", "options.depth=2"),
    *("--set", "data.crop=[32,32]"),
    *("--set", "data.batch_size=2"),
    *("--set", "threads=1"),
)


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code and the two streams."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def quick() -> tuple[str, ...]:
    return QUICK


@pytest.fixture
def pixelwise(capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command in this process; arguments may be paths."""

    def call(*args: object) -> Outcome:
        capsys.readouterr()
        code = run([str(arg) for arg in args])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(pixelwise: Command, tmp_path: Path, trained: Path) -> Command:
    """Call a command that must fail with one clear message and must leave every file as it was."""

    def call(*args: object, code: int = 2) -> Outcome:
        before = contents(tmp_path), contents(trained)
        outcome = pixelwise(*args)
        assert outcome.code == code, outcome.err
        assert outcome.err.startswith("error: ")
        assert 1 <= len(outcome.err.rstrip("\n").split("\n")) <= 3
        assert "Traceback" not in outcome.err
        assert len(outcome.err) > 40
        assert (contents(tmp_path), contents(trained)) == before
        return outcome

    return call


def contents(root: Path) -> dict[str, str]:
    """Map all files and folders below a folder to a hash of what they hold."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of six 64 x 64 images of one disc each, in two splits."""
    return write_discs(tmp_path / "data")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, not to be changed; its data lies beside it, under the name `data`."""
    root = tmp_path_factory.mktemp("trained")
    folder = write_discs(root / "data")
    assert run(["train", str(folder), "--out", str(root / "run"), *QUICK]) == 0
    return root / "run"


def write_discs(folder: Path, *, num_images: int = 6, size: int = 64) -> Path:
    """Write a data set without dataset.json: grey images of a bright disc, masks of 0 and 255."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    for index in range(num_images):
        split = "train" if index < num_images - 2 else "val"
        row, column = rng.integers(size // 4, size - size // 4, 2)
        disc = ((rows - row) ** 2 + (columns - column) ** 2 < (size / 5) ** 2).astype(np.uint8)
        image = np.clip(60 + 120 * disc + rng.normal(0, 10, disc.shape), 0, 255).astype(np.uint8)
        for kind, array in (("images", image), ("masks", disc * 255)):
            place = folder / kind / split
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(place / f"disc{index}.png")
    return folder
