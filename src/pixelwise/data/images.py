"""Reading images and masks: any common format, the right orientation, never a silent change of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pixelwise.data.png import check_chunks, is_deep, read_deep
from pixelwise.data.tiff import (
    EXIF_ORIENTATION,
    Palette,
    Stored,
    read_orientation_tag,
    read_tiff,
    several,
)
from pixelwise.errors import RequestError

# Pillow refuses images from 179 million pixels as a possible attack; ours are the users' own, and may be huge.
Image.MAX_IMAGE_PIXELS = None

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
TIFF_SUFFIXES = (".tif", ".tiff")
ACCEPTED_IMAGES = "accepted: a whole PNG, JPEG, TIFF, BMP or WebP file"

AnyArray = NDArray[Any]

# No format but WebP, whose sides are limited, packs more; a damaged size must not fill the memory.
_PIXELS_PER_BYTE = 20000
# Pillow's names of formats that change pixel values, or may have.
_LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")


class LossyMaskError(RequestError):
    """A mask is in a format that changes values."""


@dataclass(frozen=True)
class RawMask:
    """A mask as its file has it.

    Attributes:
        values: uint8 or uint16 (H, W); of a picture in colour uint32, 65536 red + 256 green + blue.
        palette: colours [r, g, b] of a palette PNG or TIFF, None otherwise.
        bilevel: the file has one bit a pixel; its white is 255 in `values`, as in other black and white masks.
        channels: of the file, transparency not counted; 3 equal ones are one in `values`.
    """

    values: AnyArray
    palette: Palette | None = None
    bilevel: bool = False
    channels: int = 1

    @property
    def coloured(self) -> bool:
        """Whether the values are colours."""
        return self.values.dtype == np.uint32

    @property
    def colours(self) -> NDArray[np.uint32]:
        """The mask as a picture in colour, packed as in `values`."""
        if self.coloured:
            return self.values
        return colour_table(self.palette)[np.minimum(self.values, np.uint16(256))]


def colour_table(palette: Palette | None) -> NDArray[np.uint32]:
    """Return the packed colour of each index of a palette, of each grey level without one; uint32 (257,).

    The last entry stands for larger values; what has no colour is 2 to the power of 24, which no colour is.
    """
    levels = [(level, level, level) for level in range(256)] if palette is None else list(palette)[:256]
    table = np.full(257, 1 << 24, dtype=np.uint32)
    table[: len(levels)] = [pack_colour(colour) for colour in levels]
    return table


def pack_colour(colour: Sequence[int]) -> int:
    """Return [r, g, b], 0 to 255 each, as one number."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def unpack_colour(value: int) -> tuple[int, int, int]:
    """Return a packed colour as [r, g, b]."""
    return value >> 16, value >> 8 & 255, value & 255


def read_image(path: Path, *, page: int | None = None) -> AnyArray:
    """Read an image in the orientation in which a viewer shows it.

    Args:
        path: the file.
        page: number of a page in a TIFF stack; None for a file of one image.

    Returns:
        uint8, uint16 or float32 (H, W, C); C is 1 for grey, 3 for colour (RGB), or what a TIFF holds. An alpha
        channel of PNG, WebP or BMP is dropped: it says how to draw the image, not what was seen.

    Raises:
        RequestError: if the file is missing, is no image, is cut off, or holds NaN, infinite or negative values.
    """
    path = Path(path)
    stored = _read(path, white_is_zero=True, page=page)
    array = stored.array
    if stored.palette is not None:
        array = _colours(path, array, stored.palette)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if stored.has_alpha:
        array = array[:, :, : array.shape[2] - 1]
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise RequestError(
            f"{path}: holds an array of shape {array.shape}; accepted: one image (H, W) or (H, W, channels). "
            "Save each slice or page as a file of its own."
        )
    return np.ascontiguousarray(_image_values(path, array))


def read_mask(path: Path, *, page: int | None = None) -> RawMask:
    """Read a mask without touching its values.

    Args:
        path: the file; a folder holds one mask for each object, which are numbered by their names' order.
        page: number of a page in a TIFF stack; None for a file of one image.

    Raises:
        RequestError: if the file is unreadable, or holds no map of classes.
        LossyMaskError: if it is a JPEG, whose compression changes label values.
    """
    path = Path(path)
    if path.is_dir():
        return _read_objects(path)
    lossy_name = path.suffix.lower() in (".jpg", ".jpeg", ".webp")
    stored = None if lossy_name else _read(path, white_is_zero=False, page=page)
    if stored is None or stored.lossy:
        raise LossyMaskError(
            f"{path}: is compressed as JPEG or WebP, which changes label values; accepted: masks as PNG, TIFF or "
            "BMP. Export the labels again in such a format; saving this file as PNG does not bring them back."
        )
    if stored.converted:
        raise RequestError(
            f"{path}: is stored in colours such as CMYK, which cannot be turned into RGB without rounding; accepted: "
            "masks in grey, RGB or with a palette. Export the mask so."
        )
    if stored.array.dtype == np.bool_ and stored.array.ndim == 2:
        return RawMask(stored.array.astype(np.uint8) * 255, bilevel=True)
    channels = stored.array.shape[2] if stored.array.ndim == 3 else 1
    values = _label_values(path, stored.array)
    return RawMask(values, stored.palette, channels=3 if channels in (3, 4) else 1)


def _read_objects(folder: Path) -> RawMask:
    """Number the objects of a folder that holds one black and white mask for each."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in MASK_SUFFIXES]
    if not files:
        raise RequestError(f"{folder}: holds no masks; accepted: one PNG for each object. Add them.")
    ids: AnyArray | None = None
    for number, path in enumerate(files, start=1):
        mask = read_mask(path).values
        if len(files) > 65535 or mask.dtype == np.uint32 or (ids is not None and ids.shape != mask.shape):
            raise RequestError(
                f"{path}: does not go with {files[0].name} (size, colour or number of objects); accepted: up to 65535 "
                "black and white masks of one size. Export it again."
            )
        ids = np.zeros(mask.shape, np.uint16) if ids is None else ids
        both = int(np.count_nonzero((mask > 0) & (ids > 0)))
        if both:
            raise RequestError(
                f"{path}: shares {both} pixel{'' if both == 1 else 's'} with other objects of its folder; accepted: "
                "each pixel in one object. Cut the objects apart."
            )
        ids[mask > 0] = number
    assert ids is not None
    return RawMask(ids)


def read_orientation(path: Path, *, page: int | None = None) -> int:
    """Return the EXIF orientation of an image file, 1 to 8; 1 (as stored) where none is noted.

    Raises:
        RequestError: if the file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return 1
    try:
        if path.suffix.lower() in TIFF_SUFFIXES:
            return read_orientation_tag(path, page)
        with Image.open(path) as image:
            return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception as error:  # the same many ways as below
        raise _unreadable(path, error) from error


def as_channels(image: AnyArray, channels: int, what: str = "an image") -> AnyArray:
    """Give an image (H, W, C) so many channels: grey is repeated; anything else must agree already.

    Raises:
        RequestError: if C is neither 1 nor `channels`; `what` names the image in it.
    """
    if image.shape[2] == channels:
        return image
    if image.shape[2] == 1:
        return np.repeat(image, channels, axis=2)
    raise RequestError(
        f"{what} has {image.shape[2]} channels where {channels} {'is' if channels == 1 else 'are'} wanted; accepted: "
        f"{channels}{', or 1' if channels > 1 else ''}. Convert the images to one kind."
    )


def _image_values(path: Path, array: AnyArray) -> AnyArray:
    """Return stored values as uint8, uint16 or float32, or refuse those that do not fit."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # too large for float32: reported as infinite
            array = array.astype(np.float32, copy=False)
        wrong = array.size - int(np.isfinite(array).sum())
        if wrong:
            raise RequestError(
                f"{path}: {wrong} of {array.size} values are NaN or infinite; accepted: finite numbers. Replace "
                "them, for instance by 0 or by the mean of the others."
            )
        return array
    if array.dtype.kind not in "iu":
        raise RequestError(f"{path}: has values of type {array.dtype}; accepted: {_IMAGE_TYPES}.")
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.min() < 0 or array.max() > 65535:
        raise RequestError(
            f"{path}: has values of type {array.dtype} from {array.min()} to {array.max()}; accepted: {_IMAGE_TYPES}."
        )
    return array.astype(np.uint16)


_IMAGE_TYPES = "8-bit, 16-bit (0 to 65535) or float images. Convert it, for instance to 32-bit float TIFF"


def _label_values(path: Path, array: AnyArray) -> AnyArray:
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array = _without_alpha(path, array)
    if array.ndim == 3 and (array == array[:, :, :1]).all():
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
        red, green, blue = (array[:, :, i].astype(np.uint32) for i in range(3))
        return red << 16 | green << 8 | blue
    if array.ndim != 2:
        raise RequestError(
            f"{path}: holds pixels of shape {array.shape}, {array.dtype}, which are no map of classes; accepted: one "
            "channel of class numbers, a palette PNG, 0/255 and 0/1 masks, or 8-bit colours (H, W, 3), one for each "
            "class. Export the mask so."
        )
    if 0 in array.shape:
        raise RequestError(f"{path}: has no pixels (shape {array.shape}); accepted: masks of the image's size.")
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 65535:
        raise RequestError(
            f"{path}: has values of type {array.dtype} from {array.min()} to {array.max()}; accepted: whole "
            "numbers from 0 to 65535. Save the mask as 8-bit or 16-bit PNG."
        )
    return array if array.dtype in (np.uint8, np.uint16) else array.astype(np.uint16)


def _without_alpha(path: Path, array: AnyArray) -> AnyArray:
    """Drop the transparency of a mask (H, W, 2 or 4) that is saved as a picture, if it says nothing of its own."""
    values, alpha = array[:, :, :-1], array[:, :, -1]
    transparent = alpha != alpha.max(initial=0)
    hidden = values[transparent]
    if transparent.any() and (np.unique(hidden).size > 1 or (values[~transparent] == hidden[0]).all(axis=-1).any()):
        raise RequestError(
            f"{path}: {int(transparent.sum())} of {transparent.size} pixels are transparent, and the transparency "
            "separates pixels of equal value; accepted: one channel of class numbers, or a picture of them without "
            "transparency. Draw the mask on an opaque background."
        )
    return values


def _colours(path: Path, indices: AnyArray, palette: Palette) -> AnyArray:
    if indices.max(initial=0) >= len(palette):
        raise RequestError(
            f"{path}: has the palette index {indices.max()}, but a palette of {len(palette)} colours; "
            f"{ACCEPTED_IMAGES}. Export the file again."
        )
    return np.asarray(palette, dtype=np.uint8)[indices]


def _read(path: Path, *, white_is_zero: bool, page: int | None) -> Stored:
    """Read a file; `white_is_zero` turns such TIFFs over, which must not happen to labels."""
    if path.is_dir():
        raise RequestError(f"{path}: is a folder; {ACCEPTED_IMAGES}. Name a file in it, or rename the folder.")
    try:
        if path.suffix.lower() in TIFF_SUFFIXES:
            return read_tiff(path, white_is_zero=white_is_zero, number=page)
        return _read_with_pillow(path)
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file; {ACCEPTED_IMAGES}. Check the path.") from None
    except RequestError:
        raise
    except Exception as error:  # a broken file fails in many ways inside the decoders
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RequestError:
    # Pillow's and tifffile's own words, which may repeat the path.
    reason = str(error).splitlines()[0].replace(f" {str(path)!r}", "") if str(error) else type(error).__name__
    return RequestError(
        f"{path}: cannot be read as an image ({reason}); {ACCEPTED_IMAGES}. Copy or export the file again."
    )


def _read_with_pillow(path: Path) -> Stored:
    with Image.open(path) as file:
        pixels, size = file.width * file.height, path.stat().st_size
        if pixels > _PIXELS_PER_BYTE * size + 2**20 and file.format != "WEBP":
            raise ValueError(f"damaged: {size} bytes cannot hold {file.height} x {file.width} pixels")
        file.load()  # decodes, so that a cut-off file is noticed
        frames = int(getattr(file, "n_frames", 1))
        if frames > 1 and file.format != "MPO":  # phones store previews after the photograph
            raise several(path, f"{frames} images")
        lossy = file.format in _LOSSY_FORMATS
        if file.format == "PNG":
            check_chunks(path)
            if is_deep(path):
                return read_deep(path, int(file.getexif().get(EXIF_ORIENTATION, 1)))
        image = ImageOps.exif_transpose(file)
    if image.mode == "P":
        flat = image.getpalette() or []
        palette = tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3))
        return Stored(np.asarray(image), palette, lossy)
    if image.mode in ("L", "RGB", "F", "1") or image.mode.startswith("I"):
        return Stored(np.asarray(image), lossy=lossy)
    if image.mode in ("LA", "RGBA"):
        return Stored(np.asarray(image), lossy=lossy, has_alpha=True)
    return Stored(np.asarray(image.convert("RGB")), lossy=lossy, converted=True)
