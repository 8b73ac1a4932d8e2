from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.errors import WorkError
from pixelwise.files import cannot_write, check_writable, npy, picture_png, write_atomically


def test_text_and_bytes_are_written_and_folders_made(tmp_path) -> None:
    write_atomically(tmp_path / "a/b/note.txt", "größe\n")
    write_atomically(tmp_path / "a/b/data.bin", b"\0\1")
    assert (tmp_path / "a/b/note.txt").read_bytes() == "größe\n".encode()
    assert (tmp_path / "a/b/data.bin").read_bytes() == b"\0\1"
    assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == ["data.bin", "note.txt"]


def test_a_file_is_replaced_whole(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_text("a longer text that was there before")
    write_atomically(path, "short")
    assert path.read_text() == "short"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        write(self, content[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WorkError, match=r"file cannot be written: No space left on device. Free space there"):
        write_atomically(path, "new and long")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_files_place_is_refused(tmp_path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(WorkError, match="Is a directory"):
        write_atomically(tmp_path / "file", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_checking_a_folder_leaves_no_trace(tmp_path) -> None:
    check_writable(tmp_path / "a/b/c")
    assert not list(tmp_path.iterdir())
    (tmp_path / "kept").mkdir()
    check_writable(tmp_path / "kept")
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


def test_checking_a_folder_below_a_file(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkError, match=r"file/a cannot be written: Not a directory"):
        check_writable(tmp_path / "file/a")


def test_checking_a_full_disk_leaves_no_trace(tmp_path, monkeypatch) -> None:
    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WorkError, match=r"a/b cannot be written: No space left on device"):
        check_writable(tmp_path / "a/b")
    assert not list(tmp_path.iterdir())


def test_an_error_without_a_number_is_told_in_its_own_words(tmp_path) -> None:
    assert "cannot be written: odd." in str(cannot_write(tmp_path, OSError("odd")))


def test_pictures_and_arrays_come_back_equal() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert (np.asarray(Image.open(io.BytesIO(picture_png(picture)))) == picture).all()
    array = np.linspace(0, 1, 6, dtype=np.float16).reshape(2, 3)
    assert (np.load(io.BytesIO(npy(array)), allow_pickle=False) == array).all()
