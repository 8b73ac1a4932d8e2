"""Reading PNG where Pillow does not suffice: checksums, and 16 bits a channel in colour."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from pixelwise.data.tiff import Stored, turned

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _GREY_ALPHA = 0, 4


def check_chunks(path: Path) -> None:
    """Check the checksum of each part of a file, which decoders let pass where only pixels are damaged.

    Raises:
        ValueError: if a part is damaged, or missing at the end.
    """
    data = memoryview(path.read_bytes())
    place = len(_SIGNATURE)
    while True:
        if place + 12 > len(data):
            raise ValueError("cut off: the end mark is missing")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise ValueError(f"cut off: a part ends at byte {end}, the file at byte {len(data)}")
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(data[place + 4 : end - 4]) != checksum:
            raise ValueError(f"damaged: the checksum of the bytes from {place} to {end} is wrong")
        if kind == b"IEND":
            return
        place = end


def is_deep(path: Path) -> bool:
    """Say whether a PNG has 16 bits a channel and colour or alpha, which Pillow would cut to 8 bits."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[: len(_SIGNATURE)] == _SIGNATURE and head[24] == 16 and head[25] != _GREY


def read_deep(path: Path, orientation: int) -> Stored:
    """Read a PNG with 16 bits a channel and colour or alpha, turned by its EXIF orientation."""
    import cv2

    data = np.fromfile(path, dtype=np.uint8)
    array = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16 or array.ndim != 3:
        raise ValueError("16-bit PNG does not decode")
    array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    if data[25] == _GREY_ALPHA:
        array = array[:, :, [0, -1]]
    # OpenCV makes a channel of a colour that is noted as transparent, too.
    return Stored(turned(array, orientation), has_alpha=array.shape[2] in (2, 4))
