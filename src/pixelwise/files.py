"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import WorkError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file under a temporary name beside its place and move it there; parent folders are made.

    Args:
        path: the file's place.
        content: the whole file; text is written as UTF-8.

    Raises:
        WorkError: if the system refuses the folder, the file or the move; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):  # the first refusal is the one to tell
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def is_leftover(path: Path) -> bool:
    """Say whether a file is one that `write_atomically` was killed over."""
    return re.fullmatch(r"\..+\.\d+\.tmp", path.name) is not None


def check_writable(folder: Path) -> None:
    """Try to make a folder and to write into it, before work is spent; nothing is left behind.

    Raises:
        WorkError: if the system refuses either.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    probe = folder / f".probe.{os.getpid()}.tmp"
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"\0" * 65536)
        finally:
            with contextlib.suppress(OSError):  # the first refusal is the one to tell
                probe.unlink(missing_ok=True)
                for place in made:
                    if place.is_dir():
                        place.rmdir()
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: OSError) -> WorkError:
    """Return the error for a place that the system refuses to write to."""
    reason = error.strerror or str(error)
    return WorkError(
        f"{path} cannot be written: {reason}. Free space there, change its rights, or choose another place."
    )


def picture_png(picture: NDArray[np.uint8]) -> bytes:
    """Encode a picture, uint8 (H, W, 3), as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    """Encode an array as an .npy file, without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
