"""What was seen of files, kept under the user's cache folder by the bytes of the files.

A changed file has other bytes, so it is looked at again. Without a usable folder nothing is kept, and nothing fails.

The folder takes `LIMIT` bytes of disk at most, about: what was not used for longest goes first. A note takes a block
of 4 kB, so that notes on 250,000 images stay.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pixelwise.data.items import ImageItem
from pixelwise.errors import WorkError
from pixelwise.files import write_atomically

LIMIT = 2**30  # bytes of all notes
KEPT = 0.75  # share of the limit that stays when notes are thrown away, so that this is seldom
WRITES = 10_000  # notes written between two looks at the folder's size
BLOCK = 4096  # bytes in which file systems keep small files
USED_AFTER = 24 * 3600.0  # seconds after which the use of a note is written down again

VERSION = 1  # of what is noted of a pair; a change makes older notes unknown, as another release does
_Note = TypeVar("_Note", bound=BaseModel)


def cache_folder() -> Path:
    """Return the folder for what can be made again: $PIXELWISE_CACHE, or the platform's place for such files."""
    own = os.environ.get("PIXELWISE_CACHE")
    if own:
        return Path(own)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "pixelwise/Cache"
    usual = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "pixelwise"


class Memory:
    """Notes on items from this and earlier passes."""

    def __init__(self) -> None:
        self._hashes: dict[Path, bytes] = {}
        self._version = f"{VERSION} {version('pixelwise')}"
        self._written = 0
        try:
            self._folder: Path | None = cache_folder() / "seen"
        except RuntimeError:  # no home folder
            self._folder = None

    def recall(self, item: ImageItem, kind: type[_Note], look: Callable[[], _Note]) -> _Note:
        """Return the note on an item, by looking at it where there is none."""
        if self._folder is None:
            return look()
        try:
            path = self._folder / self._name(item)
        except OSError:  # looking at it says what is wrong
            return look()
        try:
            note = kind.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            note = look()
        else:
            _note_use(path)
            return note
        try:
            write_atomically(path, note.model_dump_json())
        except WorkError:
            self._folder = None
        else:
            self._count_write(self._folder)
        return note

    def _count_write(self, folder: Path) -> None:
        """Look at the folder's size at the first note of a pass, and now and then."""
        if self._written % WRITES == 0:
            forget_oldest(folder, limit=LIMIT)
        self._written += 1

    def _name(self, item: ImageItem) -> str:
        digest = hashlib.blake2b(digest_size=20)
        digest.update(f"{self._version} {item.page}".encode())
        for path in item.files:
            digest.update(b"-" if path is None else self._hash(path))
        name = digest.hexdigest()
        return f"{name[:2]}/{name[2:]}.json"

    def _hash(self, path: Path) -> bytes:
        if path not in self._hashes:
            self._hashes[path] = _hash_of_file(path)
        return self._hashes[path]


def forget_oldest(folder: Path, *, limit: int) -> int:
    """Remove the files below a folder that were not used for longest, if all take more than `limit` bytes.

    Files that are there no longer, or that cannot be removed, are passed over: another process may do the same.

    Returns:
        The number of files removed.
    """
    files = []
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            files.append((status.st_mtime, -(-status.st_size // BLOCK) * BLOCK, path))
    total, removed = sum(size for _, size, _ in files), 0
    if total <= limit:
        return 0
    for _, size, path in sorted(files):
        if total <= KEPT * limit:
            break
        try:
            path.unlink()
        except OSError:
            continue
        total -= size
        removed += 1
    return removed


def _note_use(path: Path) -> None:
    """Make a note the youngest, at most once a day."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > USED_AFTER:
            path.touch()


def _hash_of_file(path: Path) -> bytes:
    """Return a hash of a file's ending, by which it is read, and bytes; of a folder, of all files in it."""
    if path.is_dir():
        inside = [name.encode() + _hash_of_file(path / name) for name in sorted(os.listdir(path))]
        return hashlib.blake2b(b"".join(inside), digest_size=20).digest()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20))
    digest.update(path.suffix.lower().encode())
    return digest.digest()
