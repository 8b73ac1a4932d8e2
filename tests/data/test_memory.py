"""What was seen of files is kept by their bytes: never of other bytes, and never needed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pixelwise.data import memory, pairs
from pixelwise.data.check import check_dataset
from pixelwise.data.dataset import open_dataset
from pixelwise.data.items import Item
from pixelwise.data.memory import cache_folder
from pixelwise.data.scan import DataCard, scan

MASK = np.array([[0, 0, 0, 1, 1, 2]] * 4, np.uint8)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the items that are really read."""
    names: list[str] = []
    look = pairs._look_at_one

    def note(item: Item) -> pairs.Seen:
        names.append(item.name)
        return look(item)

    monkeypatch.setattr(pairs, "_look_at_one", note)
    return names


def write(root: Path) -> Path:
    for number, name in enumerate(("train/a", "train/b", "val/c")):
        for kind, array in (
            ("images", np.random.default_rng(number).integers(0, 256, (4, 6), dtype=np.uint8)),
            ("masks", MASK),
            ("instances", MASK.astype(np.uint16)),
        ):
            path = root / f"{kind}/{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return root


def look(root: Path) -> DataCard:
    folder = open_dataset(root)
    return scan(folder, folder.items).card


def notes(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.json"))


def test_the_second_pass_reads_nothing_and_finds_the_same(cache: Path, looked_at: list[str], tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    first = look(root)
    assert looked_at == ["a", "b", "c"]
    assert look(root) == first
    assert check_dataset(root).card == first
    assert len(looked_at) == 3
    assert len(notes(cache)) == 3
    moved = root.rename(tmp_path / "moved")  # the same bytes elsewhere
    assert look(moved).pixel_counts == first.pixel_counts
    assert len(looked_at) == 3


@pytest.mark.parametrize("kind", ["images", "masks", "instances"])
def test_a_changed_file_is_looked_at_again(kind: str, cache: Path, looked_at: list[str], tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    look(root)
    path = root / kind / "train/b.png"
    before = path.stat()
    array = MASK.copy()
    array[0, 0] = 2
    Image.fromarray(array.astype(np.uint16 if kind == "instances" else np.uint8)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the time of change says nothing
    card = look(root)
    assert looked_at == ["a", "b", "c", "b"]
    if kind == "masks":
        assert card.pixel_counts["train"]["class_2"] == 9
    (root / kind / "train/b.png").write_bytes(b"")
    assert len(check_dataset(root).problems) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"{}", b"\xff\x00", b'{"size": [1]}'])
def test_a_damaged_note_is_ignored_and_replaced(
    damage: bytes, cache: Path, looked_at: list[str], tmp_path: Path
) -> None:
    root = write(tmp_path / "data")
    first = look(root)
    for path in notes(cache):
        path.write_bytes(damage)
    assert look(root) == first
    assert len(looked_at) == 6
    assert look(root) == first
    assert len(looked_at) == 6


def test_a_note_with_an_unknown_key_is_of_another_version(cache: Path, looked_at: list[str], tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    look(root)
    for path in notes(cache):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"more": 1}))
    look(root)
    assert len(looked_at) == 6


def test_pages_of_a_stack_are_kept_apart(cache: Path, looked_at: list[str], tmp_path: Path) -> None:
    for kind, stack in (("images", np.arange(96, dtype=np.uint8).reshape(4, 4, 6)), ("masks", np.stack([MASK] * 4))):
        (tmp_path / "data" / kind).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "data" / kind / "s.tif", stack, photometric="minisblack")
    first = look(tmp_path / "data")
    assert first.intensity["min"][0] == min(24 * i for i in range(4) if i != 4) == 0
    assert look(tmp_path / "data") == first
    assert len(looked_at) == len(notes(cache)) == 4


def test_an_object_that_is_added_changes_its_folder(cache: Path, looked_at: list[str], tmp_path: Path) -> None:
    root = tmp_path / "stage1_train"
    for name, factor in (("x", 7), ("y", 9)):
        for path, array in (
            (f"images/{name}.png", MASK * factor),
            ("masks/1.png", MASK // 2),
            ("masks/2.png", MASK % 2),
        ):
            (root / name / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / name / path)
    assert look(root).num_objects == {"train": 2, "val": 2}
    third = MASK * 0
    third[0, 0] = 1
    Image.fromarray(third).save(root / "x/masks/3.png")
    assert sum((look(root).num_objects or {}).values()) == 5
    assert len(looked_at) == 3


def an_old_note(cache: Path, name: str, *, days: float, size: int = 10) -> Path:
    path = cache / "seen" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b" " * size)
    os.utime(path, (time.time() - days * 86400,) * 2)
    return path


def test_the_oldest_notes_go_when_there_are_too_many(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "LIMIT", 8 * memory.BLOCK)
    old = [an_old_note(cache, f"{number:02d}/n.json", days=20 - number, size=1 + 500 * number) for number in range(8)]
    look(write(tmp_path / "data"))  # the first of three notes is the ninth file
    assert [path.exists() for path in old] == [False] * 3 + [True] * 5  # six of eight blocks stay, one of them new
    assert len(notes(cache)) == 5 + 3


def test_notes_within_the_limit_stay(cache: Path, tmp_path: Path) -> None:
    old = an_old_note(cache, "00/n.json", days=400)
    look(write(tmp_path / "data"))
    assert old.exists()
    assert memory.forget_oldest(cache / "seen", limit=4 * memory.BLOCK) == 0
    assert memory.forget_oldest(cache / "nowhere", limit=0) == 0
    assert memory.forget_oldest(cache / "seen", limit=0) == 4


def test_a_note_that_is_used_is_young_again(cache: Path, looked_at: list[str], tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    look(root)
    ages = dict(zip(notes(cache), (3.0, 0.5, 0.0), strict=True))
    for path, days in ages.items():
        os.utime(path, (time.time() - days * 86400,) * 2)
    look(root)
    assert len(looked_at) == 3
    left = [(time.time() - path.stat().st_mtime) / 86400 for path in ages]
    assert left == pytest.approx([0, 0.5, 0], abs=0.01)  # written down once a day


def test_the_size_is_looked_at_now_and_then(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[int] = []
    monkeypatch.setattr(memory, "forget_oldest", lambda folder, *, limit: calls.append(limit))
    monkeypatch.setattr(memory, "WRITES", 2)
    look(write(tmp_path / "data"))
    assert calls == [memory.LIMIT] * 2  # at the first and the third note


def test_without_a_usable_folder_nothing_is_kept(
    looked_at: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "file/below"))
    root = write(tmp_path / "data")
    assert look(root) == look(root)
    assert len(looked_at) == 6


def test_the_place_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("PIXELWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/pixelwise"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/pixelwise"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "home/Library/Caches/pixelwise"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local/pixelwise/Cache"
