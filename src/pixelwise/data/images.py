"""Reading images and masks: any common format, the right orientation, never a silent change of values."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pixelwise.errors import RequestError

# Pillow refuses images from 179 million pixels as a possible attack; ours are the users' own, and may be huge.
Image.MAX_IMAGE_PIXELS = None

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
TIFF_SUFFIXES = (".tif", ".tiff")
EXIF_ORIENTATION = 0x0112

AnyArray = NDArray[Any]


@dataclass(frozen=True)
class RawMask:
    """A mask as its file has it.

    Attributes:
        values: uint8 or uint16 (H, W).
        palette: colours [r, g, b] of a palette PNG, None otherwise.
    """

    values: AnyArray
    palette: tuple[tuple[int, int, int], ...] | None = None


def read_image(path: Path) -> AnyArray:
    """Read an image in the orientation in which a viewer shows it.

    Returns:
        uint8, uint16 or float32 (H, W, C); C is 1 for grey, 3 for colour (RGB), or what a TIFF holds. An alpha
        channel of PNG, WebP or BMP is dropped: it says how to draw the image, not what was seen.

    Raises:
        RequestError: if the file is missing, is no image, or is cut off.
    """
    path = Path(path)
    array = _read_tiff(path) if path.suffix.lower() in TIFF_SUFFIXES else _read_with_pillow(path)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise RequestError(
            f"{path}: holds an array of shape {array.shape}; accepted: one image (H, W) or (H, W, channels). "
            "Save each slice or page as a file of its own."
        )
    return array


def read_mask(path: Path) -> RawMask:
    """Read a mask without touching its values.

    Raises:
        RequestError: if the file is unreadable, a JPEG (compression noise changes label values) or in colour.
    """
    path = Path(path)
    if path.suffix.lower() in (".jpg", ".jpeg", ".webp"):
        raise RequestError(
            f"{path}: lossy compression changes label values, so a mask cannot be JPEG or WebP. "
            "Accepted: PNG, TIFF or BMP. Export the labels again in such a format."
        )
    if path.suffix.lower() in TIFF_SUFFIXES:
        return RawMask(_label_values(path, _read_tiff(path, as_shown=False)))
    with _opened(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode == "P":
            colours = np.asarray(image.getpalette() or [], dtype=np.int64).reshape(-1, 3)
            palette = tuple((int(r), int(g), int(b)) for r, g, b in colours)
            return RawMask(np.asarray(image), palette)
        if image.mode == "1":
            return RawMask(np.asarray(image).astype(np.uint8))
        array = np.asarray(image)
    return RawMask(_label_values(path, array))


def _label_values(path: Path, array: AnyArray) -> AnyArray:
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array = array[:, :, : array.shape[2] - 1]
    if array.ndim == 3 and (array == array[:, :, :1]).all():
        array = array[:, :, 0]
    if array.ndim != 2:
        colours = np.unique(array.reshape(-1, array.shape[-1]), axis=0)[:4].tolist() if array.ndim == 3 else []
        raise RequestError(
            f"{path}: is a colour image (shape {array.shape}, first colours {colours}), not a map of class "
            "numbers. Accepted: one channel whose pixel values are class numbers, a palette PNG, or 0/255 and "
            "0/1 masks. Convert the colours to class numbers."
        )
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype.kind not in "iu" or array.min(initial=0) < 0 or array.max(initial=0) > 65535:
        raise RequestError(
            f"{path}: has values of type {array.dtype} from {array.min()} to {array.max()}; accepted: whole "
            "numbers from 0 to 65535. Save the mask as 8-bit or 16-bit PNG."
        )
    return array if array.dtype in (np.uint8, np.uint16) else array.astype(np.uint16)


def as_channels(image: AnyArray, channels: int) -> AnyArray:
    """Give an image (H, W, C) so many channels: grey is repeated; anything else must agree already.

    Raises:
        RequestError: if C is neither 1 nor `channels`.
    """
    if image.shape[2] == channels:
        return image
    if image.shape[2] == 1:
        return np.repeat(image, channels, axis=2)
    raise RequestError(
        f"an image has {image.shape[2]} channels where {channels} are wanted; accepted: {channels}, or 1. "
        "Convert the images to one kind."
    )


def _opened(path: Path) -> Image.Image:
    """Open and decode a file with Pillow, so that a cut-off file is noticed here."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file. Check the path.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
        raise _unreadable(path, error) from error
    return image


def _unreadable(path: Path, error: Exception) -> RequestError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return RequestError(f"{path}: cannot be read as an image ({reason}). Copy or export the file again.")


def _read_with_pillow(path: Path) -> AnyArray:
    with _opened(path) as image:
        if _is_deep_colour_png(path):
            return _read_deep_png(path)
        image = ImageOps.exif_transpose(image)
        if image.mode in ("L", "RGB", "F"):
            return np.asarray(image)
        if image.mode in ("1", "LA"):
            return np.asarray(image.convert("L"))
        if image.mode.startswith("I"):
            return _integer_image(path, np.asarray(image))
        return np.asarray(image.convert("RGB"))


def _integer_image(path: Path, array: AnyArray) -> AnyArray:
    if array.min(initial=0) < 0 or array.max(initial=0) > 65535:
        raise RequestError(
            f"{path}: has values from {array.min()} to {array.max()}; accepted: 8-bit, 16-bit or float images."
        )
    return array.astype(np.uint16)


def _is_deep_colour_png(path: Path) -> bool:
    """Say whether a PNG has 16 bits a channel and colour or alpha: Pillow would cut those to 8 bits."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24] == 16 and head[25] != 0


def _read_deep_png(path: Path) -> AnyArray:
    import cv2

    array = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise _unreadable(path, ValueError("16-bit PNG does not decode"))
    if array.ndim == 2:
        return np.asarray(array)
    return np.ascontiguousarray(array[:, :, 2::-1]) if array.shape[2] >= 3 else np.asarray(array[:, :, :1])


def _read_tiff(path: Path, *, as_shown: bool = True) -> AnyArray:
    """Read the one page of a TIFF; `as_shown` turns white-is-zero images over, which labels must not be."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            stack = file.series[0].shape
            array = page.asarray()
            planar = page.planarconfig == 2 and array.ndim == 3
            inverted = as_shown and page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
            tag = page.tags.get(EXIF_ORIENTATION)
            orientation = int(tag.value) if tag is not None else 1
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file. Check the path.") from None
    except Exception as error:  # a broken TIFF fails in many ways inside the decoder
        raise _unreadable(path, error) from error
    if stack != array.shape:
        raise RequestError(
            f"{path}: holds a stack of shape {stack}; accepted: one image a file. Save each page as its own file."
        )
    if planar:
        array = np.moveaxis(array, 0, -1)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if inverted and array.dtype.kind == "u":
        array = np.iinfo(array.dtype).max - array
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    elif array.dtype not in (np.uint8, np.uint16):
        array = _integer_image(path, array)
    return _oriented(array, orientation)


def _oriented(array: AnyArray, orientation: int) -> AnyArray:
    """Turn rows and columns as TIFF tag 274 (the EXIF orientation) says."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)
