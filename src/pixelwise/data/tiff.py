"""Reading TIFF, whose tags say much that decoders differ on: pages, planes, palettes, orientation, white is zero."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pixelwise.errors import RequestError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

# What tifffile logs about a broken file is said in our error; without a handler it would go to the terminal as well.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

EXIF_ORIENTATION = 274
_PHOTOMETRIC, _EXTRA_SAMPLES, _SUBFILE = 262, 338, 254
# Size, type and layout of the pixels, and how they are stored.
_DESCRIBING = frozenset({*range(256, 260), 262, 273, 274, 277, 278, 279, 284, 317, 320, *range(322, 326), 338, 339})
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _TRANSPARENCY = 0, 1, 2, 3, 4
_PLAIN = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _TRANSPARENCY)
_LOSSY = (6, 7, 33007, 34892)  # JPEG in its four numbers
_UNASSOCIATED_ALPHA = 2
_SUBFILE_REDUCED, _SUBFILE_MASK = 1, 4
_PLANAR = 2
_SHORT = 3

AnyArray = NDArray[Any]
Palette = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Stored:
    """Pixels of a file, turned as a viewer shows them.

    Attributes:
        array: (H, W) or (H, W, C); palette images hold indices, bilevel ones bool.
        palette: colours of the indices.
        lossy: the format changes values.
        has_alpha: the last of the 2 or 4 channels says how to draw the image, and is no measurement.
        converted: the file has other colours than grey or RGB, such as CMYK.
    """

    array: AnyArray
    palette: Palette | None = None
    lossy: bool = False
    has_alpha: bool = False
    converted: bool = False


def turned(array: AnyArray, orientation: int) -> AnyArray:
    """Turn stored rows and columns as the EXIF orientation says (TIFF tag 274)."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def several(path: Path, what: str) -> RequestError:
    """Return the error for a file with more than one image."""
    return RequestError(f"{path}: holds {what}; accepted: one image a file. Save each as a file of its own.")


def read_orientation_tag(path: Path, number: int | None = None) -> int:
    """Return the orientation that a TIFF, or a page of it, notes; 1 where it does not."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        return _tag(_page(file, number or 0), EXIF_ORIENTATION, 1)


def whole_pages(path: Path) -> tuple[int, ...]:
    """Return the numbers of the pages that are images of their own; previews and transparency masks are not."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        return _whole_pages(file)


def read_tiff(path: Path, *, white_is_zero: bool, number: int | None = None) -> Stored:
    """Read the one image of a TIFF, or one page of a stack.

    Args:
        path: the file.
        white_is_zero: turn images over in which white is zero, which must not happen to labels.
        number: of the page, counted from 0 with the previews; None for a file with one image.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = _page(file, number or 0)
        _check_tags(file, page)
        if number is None:
            _check_one_image(path, file, page)
        _check_not_cut(page, path.stat().st_size)
        lossy = int(page.compression) in _LOSSY
        orientation = _tag(page, EXIF_ORIENTATION, 1)
        photometric = int(page.photometric)
        if photometric not in _PLAIN:
            return Stored(turned(_via_rgb(path, page), orientation), lossy=lossy, converted=True)
        array = _tiff_pixels(path, page)
        colours = page.colormap
    if photometric == _WHITE_IS_ZERO and array.dtype == np.bool_ and not white_is_zero:
        raise RequestError(
            f"{path}: is a 1-bit TIFF in which white is stored as zero, so that programs disagree on which pixels are "
            "set; accepted: masks with 8 bits, or with black as zero. Save it as PNG."
        )
    if photometric == _WHITE_IS_ZERO and white_is_zero and array.dtype.kind in "ub":
        array = ~array
    palette = None
    if photometric == _PALETTE:
        if colours is None:
            raise ValueError("the palette is missing")
        palette = tuple((int(r), int(g), int(b)) for r, g, b in zip(*(colours >> 8), strict=True))
        array = array.astype(np.uint8) if array.dtype == np.bool_ else array
    return Stored(turned(array, orientation), palette, lossy)


def _tag(page: TiffPage, code: int, default: int) -> int:
    tag = page.tags.get(code)
    return default if tag is None else int(tag.value)


def _check_tags(file: TiffFile, page: TiffPage) -> None:
    """tifffile leaves out tags it cannot read and takes defaults: a cut-off file could look like a 1-bit image."""
    form = file.tiff
    file.filehandle.seek(page.offset)
    (count,) = struct.unpack(form.tagnoformat, file.filehandle.read(form.tagnosize))
    entries = file.filehandle.read(count * form.tagsize)
    codes = {struct.unpack_from(f"{form.byteorder}H", entries, i)[0] for i in range(0, len(entries) - 1, form.tagsize)}
    lost = sorted(code for code in codes & _DESCRIBING if code not in page.tags)
    if lost:
        raise ValueError(f"damaged or cut off: tag {lost[0]} has no value")


def _page(file: TiffFile, number: int) -> TiffPage:
    return cast("TiffPage", file.pages.get(number))


def _whole_pages(file: TiffFile) -> tuple[int, ...]:
    small = _SUBFILE_REDUCED | _SUBFILE_MASK
    others = range(1, _count_pages(file))
    return (0, *(number for number in others if not _tag(_page(file, number), _SUBFILE, 0) & small))


def _count_pages(file: TiffFile) -> int:
    """Follow the chain of pages to its end; tifffile stops without a word where it is broken."""
    form, handle, offsets = file.tiff, file.filehandle, list[int]()
    offset = file.pages.first.offset
    while offset:
        offsets.append(offset)
        handle.seek(offset)
        head = handle.read(form.tagnosize)
        (count,) = struct.unpack(form.tagnoformat, head) if len(head) == form.tagnosize else (0,)
        handle.seek(offset + form.tagnosize + count * form.tagsize)
        following = handle.read(form.offsetsize)
        if not count or len(following) < form.offsetsize or offset in offsets[:-1]:
            raise ValueError(f"damaged or cut off: page {len(offsets)} is not where the page before it says")
        (offset,) = struct.unpack(form.offsetformat, following)
    return len(offsets)


def _check_one_image(path: Path, file: TiffFile, page: TiffPage) -> None:
    images = len(_whole_pages(file))
    if images > 1:
        raise several(path, f"{images} images (pages)")
    stack = file.series[0].shape
    if math.prod(stack) != math.prod(page.shape):
        raise several(path, f"a stack of shape {tuple(stack)}")


def _check_not_cut(page: TiffPage, size: int) -> None:
    """tifffile fills missing strips and tiles with zeros; a count of 0 is a tile left out on purpose."""
    parts, wanted = list(zip(page.dataoffsets, page.databytecounts, strict=False)), math.prod(page.chunked)
    if len(parts) < wanted:
        raise ValueError(f"damaged: {len(parts)} of {wanted} strips or tiles")
    end = max((offset + count for offset, count in parts if count), default=0)
    if end > size:
        raise ValueError(f"cut off: pixels end at byte {end}, the file at byte {size}")


def _tiff_pixels(path: Path, page: TiffPage) -> AnyArray:
    """Return the page as stored, (H, W) or (H, W, C), by tifffile or by the decoder that knows its compression."""
    if page.bitspersample in (2, 4):
        array = None  # Pillow stretches grey to 0..255, as in PNG
    else:
        try:
            array = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            array = None
    if array is None:
        return _by_other_decoders(path, page)
    return np.moveaxis(array, 0, -1) if page.planarconfig == _PLANAR and array.ndim == 3 else array


def _by_other_decoders(path: Path, page: TiffPage) -> AnyArray:
    """Decode LZW, JPEG and the like with Pillow or OpenCV, which bring libtiff.

    What does not come out in the size and type that the file declares is refused.
    """
    import cv2

    data = _with_plain_tags(path, page)
    wanted = page.shape
    if page.planarconfig == _PLANAR and len(wanted) == 3:
        wanted = (*wanted[1:], wanted[0])
    with contextlib.suppress(UnidentifiedImageError), Image.open(io.BytesIO(data)) as image:
        array: AnyArray = np.asarray(image)
        if array.shape == wanted and array.dtype == page.dtype:
            return array
    if page.dtype in (np.uint8, np.uint16, np.float32) and page.samplesperpixel in (1, 3, 4):
        decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is not None and decoded.shape == wanted and decoded.dtype == page.dtype:
            return decoded if decoded.ndim == 2 else decoded[:, :, [2, 1, 0, 3][: decoded.shape[2]]]
    raise _undecodable(path, page)


def _via_rgb(path: Path, page: TiffPage) -> AnyArray:
    """Return a page in CMYK or YCbCr as RGB (H, W, 3)."""
    with Image.open(io.BytesIO(_with_plain_tags(path, page))) as image:
        if page.dtype != np.uint8 or image.mode not in ("RGB", "CMYK"):
            raise _undecodable(path, page)
        return np.asarray(image.convert("RGB"))


def _with_plain_tags(path: Path, page: TiffPage) -> bytes:
    """Return the file with this page first, and "plain" in tags by which decoders turn, invert or blend."""
    data = bytearray(path.read_bytes())
    form = page.parent.tiff
    struct.pack_into(form.offsetformat, data, form.offsetsize, page.offset)  # where the header names the first page
    plain = {EXIF_ORIENTATION: 1, _EXTRA_SAMPLES: _UNASSOCIATED_ALPHA}
    if page.photometric == _WHITE_IS_ZERO:
        plain[_PHOTOMETRIC] = _BLACK_IS_ZERO
    for code, value in plain.items():
        tag = page.tags.get(code)
        if tag is not None and tag.count == 1 and tag.dtype == _SHORT:
            struct.pack_into(f"{page.parent.byteorder}H", data, tag.valueoffset, value)
    return bytes(data)


def _undecodable(path: Path, page: TiffPage) -> RequestError:
    compression = getattr(page.compression, "name", page.compression)
    colours = getattr(page.photometric, "name", page.photometric)
    return RequestError(
        f"{path}: has {page.bitspersample}-bit {colours} pixels of shape {page.shape} in the compression "
        f"{compression}, which cannot be decoded here; accepted: grey, RGB or palette TIFF without compression, with "
        "Deflate or LZW. Save it so."
    )
