"""What was seen of files, kept under the user's cache folder by the bytes of the files.

A changed file has other bytes, so it is looked at again. Without a usable folder nothing is kept, and nothing fails.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pixelwise.data.items import ImageItem
from pixelwise.errors import WorkError
from pixelwise.files import write_atomically

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
            return kind.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            note = look()
        try:
            write_atomically(path, note.model_dump_json())
        except WorkError:
            self._folder = None
        return note

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


def _hash_of_file(path: Path) -> bytes:
    """Return a hash of a file's ending, by which it is read, and bytes; of a folder, of all files in it."""
    if path.is_dir():
        inside = [name.encode() + _hash_of_file(path / name) for name in sorted(os.listdir(path))]
        return hashlib.blake2b(b"".join(inside), digest_size=20).digest()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20))
    digest.update(path.suffix.lower().encode())
    return digest.digest()
