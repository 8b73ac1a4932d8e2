"""Every kind of file is read to the number, turned as a viewer shows it, or refused with the reason."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.images import as_channels, read_image, read_mask, read_orientation, unpack_colour
from pixelwise.data.tiff import turned, whole_pages
from pixelwise.errors import RequestError

Array = NDArray[Any]
HEIGHT, WIDTH = 5, 7
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = RGB[:, :, 0].copy()
DEEP = GREY.astype(np.uint16) * 250 + 3
DEEP_RGB = RGB.astype(np.uint16) * 250 + 3
ALPHA = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
LABELS = (np.arange(HEIGHT * WIDTH, dtype=np.uint8) % 3).reshape(HEIGHT, WIDTH)


def pillow(array: Array | Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def opencv(array: Array, suffix: str, *options: int) -> bytes:
    """Encode with OpenCV, which takes colour as BGR(A)."""
    if array.ndim == 3:
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    return bytes(cv2.imencode(suffix, array, options)[1])


def palette_image(indices: Array, colours: list[int]) -> Image.Image:
    image = Image.fromarray(indices)
    image.putpalette(colours)
    return image


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(path: Path, read: Callable[[Path], Any] = read_image) -> str:
    """Return the text of the refusal, which must name the file, and say what is accepted and what to do."""
    with pytest.raises(RequestError) as caught:
        read(path)
    text = str(caught.value)
    assert re.fullmatch(rf"{re.escape(str(path))}[: ].+; accepted: .+\. [A-Z].+\.", text, re.DOTALL), text
    return text


COLOURS = [10, 20, 30, 40, 50, 60, 70, 80, 90]
PAINTED = np.array(COLOURS, np.uint8).reshape(3, 3)[LABELS]
LZW = (cv2.IMWRITE_TIFF_COMPRESSION, 5)
DEFLATE = (cv2.IMWRITE_TIFF_COMPRESSION, 8)
PLANES = np.random.default_rng(1).integers(0, 256, (6, HEIGHT, WIDTH), dtype=np.uint8)
LOSSLESS: dict[str, tuple[str, bytes, Array]] = {
    "png grey": (".png", pillow(GREY, "PNG"), GREY),
    "png colour": (".png", pillow(RGB, "PNG"), RGB),
    "png colour and alpha": (".png", pillow(np.dstack([RGB, ALPHA]), "PNG"), RGB),
    "png grey and alpha": (".png", pillow(np.dstack([GREY, ALPHA]), "PNG"), GREY),
    "png palette": (".png", pillow(palette_image(LABELS, COLOURS), "PNG"), PAINTED),
    "png palette, transparent": (
        ".png",
        pillow(palette_image(LABELS, COLOURS), "PNG", transparency=b"\0\x80"),
        PAINTED,
    ),
    "png 1 bit": (".png", pillow(Image.fromarray(LABELS > 1), "PNG"), (LABELS > 1).astype(np.uint8) * 255),
    "png 16 bit": (".png", pillow(DEEP, "PNG"), DEEP),
    "png 16 bit colour": (".png", opencv(DEEP_RGB, ".png"), DEEP_RGB),
    "png 16 bit alpha": (".png", opencv(np.dstack([DEEP_RGB, DEEP]), ".png"), DEEP_RGB),
    "bmp grey": (".bmp", pillow(GREY, "BMP"), GREY),
    "bmp colour": (".bmp", pillow(RGB, "BMP"), RGB),
    "webp": (".webp", pillow(RGB, "WEBP", lossless=True), RGB),
    "capital ending": (".PNG", pillow(RGB, "PNG"), RGB),
    "png named jpg": (".jpg", pillow(RGB, "PNG"), RGB),
    "tiff grey": (".tif", tiff(GREY), GREY),
    "tiff 16 bit": (".tiff", tiff(DEEP), DEEP),
    "tiff big-endian": (".tif", tiff(DEEP, byteorder=">"), DEEP),
    "tiff signed": (".tif", tiff(DEEP.astype(np.int32)), DEEP),
    "tiff float": (".tif", tiff(GREY.astype(np.float32) / 7 - 3), GREY.astype(np.float32) / 7 - 3),
    "tiff double": (".tif", tiff(GREY.astype(np.float64) / 4), GREY.astype(np.float32) / 4),
    "tiff half": (".tif", tiff(GREY.astype(np.float16)), GREY.astype(np.float32)),
    "tiff colour": (".tif", tiff(RGB, photometric="rgb"), RGB),
    "tiff colour and alpha": (".tif", pillow(np.dstack([RGB, ALPHA]), "TIFF"), np.dstack([RGB, ALPHA])),
    "tiff planar": (
        ".tif",
        tiff(np.moveaxis(RGB, -1, 0).copy(), photometric="rgb", planarconfig="separate"),
        RGB,
    ),
    "tiff 6 channels": (
        ".tif",
        tiff(np.moveaxis(PLANES, 0, -1).copy(), photometric="minisblack", planarconfig="contig"),
        np.moveaxis(PLANES, 0, -1),
    ),
    "tiff 6 planes": (
        ".tif",
        tiff(PLANES, photometric="minisblack", planarconfig="separate"),
        np.moveaxis(PLANES, 0, -1),
    ),
    "tiff white is zero": (".tif", tiff(GREY, photometric="miniswhite"), 255 - GREY),
    "tiff 1 bit": (".tif", tiff(LABELS > 1, photometric="minisblack"), (LABELS > 1).astype(np.uint8) * 255),
    "tiff 1 bit white is zero": (
        ".tif",
        tiff(LABELS > 1, photometric="miniswhite"),
        (LABELS <= 1).astype(np.uint8) * 255,
    ),
    "tiff palette": (".tif", pillow(palette_image(LABELS, COLOURS), "TIFF"), PAINTED),
    "tiff deflate": (".tif", tiff(RGB, photometric="rgb", compression="zlib", predictor=True), RGB),
    "tiff deflate 16 bit": (".tif", opencv(DEEP_RGB, ".tif", *DEFLATE), DEEP_RGB),
    "tiff deflate float": (".tif", opencv(GREY.astype(np.float32), ".tif", *DEFLATE), GREY.astype(np.float32)),
    "tiff packbits": (".tif", pillow(RGB, "TIFF", compression="packbits"), RGB),
    "tiff lzw grey": (".tif", pillow(GREY, "TIFF", compression="tiff_lzw"), GREY),
    "tiff lzw 16 bit": (".tif", pillow(DEEP, "TIFF", compression="tiff_lzw"), DEEP),
    "tiff lzw float": (".tif", opencv(GREY.astype(np.float32), ".tif", *LZW), GREY.astype(np.float32)),
    "tiff lzw colour": (".tif", opencv(RGB, ".tif", *LZW), RGB),
    "tiff lzw colour and alpha": (
        ".tif",
        pillow(np.dstack([RGB, ALPHA]), "TIFF", compression="tiff_lzw"),
        np.dstack([RGB, ALPHA]),
    ),
    "tiff lzw palette": (".tif", pillow(palette_image(LABELS, COLOURS), "TIFF", compression="tiff_lzw"), PAINTED),
    "tiff lzw 1 bit": (
        ".tif",
        pillow(Image.fromarray(LABELS > 1), "TIFF", compression="tiff_lzw"),
        (LABELS > 1).astype(np.uint8) * 255,
    ),
    "tiff fax": (
        ".tif",
        pillow(Image.fromarray(LABELS > 1), "TIFF", compression="group4"),
        (LABELS > 1).astype(np.uint8) * 255,
    ),
    "tiff lzw 16 bit colour": (".tif", opencv(DEEP_RGB, ".tif", *LZW), DEEP_RGB),
    "tiff tiles": (".tif", tiff(np.tile(RGB, (5, 5, 1)), photometric="rgb", tile=(16, 16)), np.tile(RGB, (5, 5, 1))),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_lossless_kind_is_read_to_the_number(kind: str, tmp_path: Path) -> None:
    suffix, data, expected = LOSSLESS[kind]
    found = read_image(write(tmp_path, f"a{suffix}", data))
    expected = expected if expected.ndim == 3 else expected[:, :, None]
    assert found.dtype == expected.dtype
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


SMOOTH = np.add.outer(np.arange(24), 3 * np.arange(32)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jpg", pillow(np.dstack([SMOOTH] * 3), "JPEG", quality=98)),
        ("a.webp", pillow(np.dstack([SMOOTH] * 3), "WEBP", quality=98)),
        ("a.tif", pillow(np.dstack([SMOOTH] * 3), "TIFF", compression="jpeg", quality=98)),
        ("b.jpg", pillow(Image.fromarray(np.dstack([SMOOTH] * 3)).convert("CMYK"), "JPEG", quality=98)),
        ("b.tif", pillow(Image.fromarray(np.dstack([SMOOTH] * 3)).convert("CMYK"), "TIFF")),
    ],
)
def test_lossy_and_cmyk_images_come_out_as_rgb(name: str, data: bytes, tmp_path: Path) -> None:
    found = read_image(write(tmp_path, name, data))
    assert (found.dtype, found.shape) == (np.uint8, (24, 32, 3))
    assert np.abs(found.astype(int) - SMOOTH[:, :, None]).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "LZW", "16-bit PNG"])
def test_images_are_turned_as_a_viewer_shows_them(kind: str, orientation: int, tmp_path: Path) -> None:
    """The eight layouts as arrays, by their definition: where row 0 and column 0 of the stored pixels belong."""
    base = np.zeros((16, 24), np.uint8)
    base[:8, :8] = 200  # the picture as shown: bright at the top left
    stored = {
        1: base,
        2: base[:, ::-1],
        3: base[::-1, ::-1],
        4: base[::-1],
        5: base.T,
        6: np.rot90(base, 1),
        7: base[::-1, ::-1].T,
        8: np.rot90(base, -1),
    }[orientation]
    colour = np.dstack([stored] * 3)
    exif = Image.Exif()
    exif[274] = orientation
    if kind == "TIFF":
        path = write(tmp_path, "a.tif", tiff(colour, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]))
    elif kind == "LZW":
        path = write(tmp_path, "a.tif", pillow(colour, "TIFF", compression="tiff_lzw", tiffinfo={274: orientation}))
    elif kind == "16-bit PNG":
        chunk = b"eXIf" + exif.tobytes()[6:]
        deep = opencv(colour.astype(np.uint16), ".png")
        length, checksum = struct.pack(">I", len(chunk) - 4), struct.pack(">I", __import__("zlib").crc32(chunk))
        path = write(tmp_path, "a.png", deep[:33] + length + chunk + checksum + deep[33:])
    else:
        options = {"lossless": True} if kind == "WEBP" else {}
        path = write(tmp_path, f"a.{kind.lower()}", pillow(colour, kind, exif=exif, **options))
    found = read_image(path)
    assert read_orientation(path) == orientation
    assert found.shape == (16, 24, 3)
    assert np.abs(found.astype(int) - base[:, :, None]).max() <= (8 if kind == "JPEG" else 0)
    np.testing.assert_array_equal(turned(stored, orientation), base)


def test_masks_of_every_kind_keep_their_values(tmp_path: Path) -> None:
    binary = (LABELS > 1).astype(np.uint8) * 255
    ids = LABELS.astype(np.uint16) * 1000
    kinds: dict[str, tuple[bytes, Array]] = {
        "index.png": (pillow(LABELS, "PNG"), LABELS),
        "index.bmp": (pillow(LABELS, "BMP"), LABELS),
        "binary.png": (pillow(binary, "PNG"), binary),
        "ids.png": (pillow(ids, "PNG"), ids),
        "rgb.png": (pillow(np.dstack([LABELS] * 3), "PNG"), LABELS),
        "rgba.png": (pillow(np.dstack([LABELS] * 3 + [np.full_like(LABELS, 255)]), "PNG"), LABELS),
        "la.png": (pillow(np.dstack([LABELS, np.full_like(LABELS, 255)]), "PNG"), LABELS),
        "clear.png": (pillow(np.dstack([binary, binary]), "PNG"), binary),  # the background is transparent
        "deep.png": (opencv(np.dstack([ids] * 3), ".png"), ids),
        "index.tif": (tiff(LABELS), LABELS),
        "lzw.tif": (pillow(LABELS, "TIFF", compression="tiff_lzw"), LABELS),
        "white.tif": (tiff(LABELS, photometric="miniswhite"), LABELS),
        "ids.tif": (tiff(ids.astype(np.uint32)), ids),
        "long.tif": (tiff(LABELS.astype(np.int64)), LABELS.astype(np.uint16)),
    }
    for name, (data, expected) in kinds.items():
        found = read_mask(write(tmp_path, name, data))
        assert (found.palette, found.bilevel, found.values.dtype) == (None, False, expected.dtype), name
        np.testing.assert_array_equal(found.values, expected, err_msg=name)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_palette_masks_are_indices_with_colours(suffix: str, tmp_path: Path) -> None:
    kind = {".png": "PNG", ".tif": "TIFF"}[suffix]
    found = read_mask(write(tmp_path, f"a{suffix}", pillow(palette_image(LABELS, COLOURS), kind)))
    np.testing.assert_array_equal(found.values, LABELS)
    assert found.palette is not None
    assert found.palette[:3] == ((10, 20, 30), (40, 50, 60), (70, 80, 90))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "fax.tif"])
def test_white_of_a_black_and_white_mask_is_255(name: str, tmp_path: Path) -> None:
    options = {"compression": "group4"} if name == "fax.tif" else {}
    kind = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF"}[Path(name).suffix]
    found = read_mask(write(tmp_path, name, pillow(Image.fromarray(LABELS > 1), kind, **options)))
    np.testing.assert_array_equal(found.values, (LABELS > 1) * 255)
    assert found.bilevel


def test_masks_that_are_no_label_maps_are_refused(tmp_path: Path) -> None:
    jpeg = pillow(LABELS, "JPEG")
    for path in (write(tmp_path, "a.jpg", jpeg), write(tmp_path, "jpeg.png", jpeg)):
        assert "is compressed as JPEG or WebP, which changes label values" in refusal(path, read_mask)
    path = write(tmp_path, "a.webp", pillow(LABELS, "WEBP", lossless=True))
    assert "is compressed as JPEG or WebP" in refusal(path, read_mask)
    path = write(tmp_path, "jpeg.tif", pillow(LABELS, "TIFF", compression="jpeg"))
    assert "is compressed as JPEG or WebP" in refusal(path, read_mask)
    path = write(tmp_path, "planes.tif", tiff(PLANES, photometric="minisblack", planarconfig="separate"))
    assert "holds pixels of shape (5, 7, 6), uint8, which are no map of classes" in refusal(path, read_mask)
    path = write(tmp_path, "deep.png", opencv(DEEP_RGB, ".png"))
    assert "holds pixels of shape (5, 7, 3), uint16, which are no map of classes" in refusal(path, read_mask)
    path = write(tmp_path, "float.tif", tiff(LABELS.astype(np.float32)))
    assert "has values of type float32 from 0.0 to 2.0" in refusal(path, read_mask)
    path = write(tmp_path, "negative.tif", tiff(LABELS.astype(np.int16) - 1))
    assert "has values of type int16 from -1 to 1; accepted: whole numbers from 0 to 65535" in refusal(path, read_mask)
    path = write(tmp_path, "large.tif", tiff(LABELS.astype(np.uint32) * 40000))
    assert "has values of type uint32 from 0 to 80000" in refusal(path, read_mask)
    path = write(tmp_path, "white.tif", tiff(LABELS > 1, photometric="miniswhite"))
    assert "is a 1-bit TIFF in which white is stored as zero" in refusal(path, read_mask)
    drawn = np.dstack([np.full_like(LABELS, 255), (LABELS > 0).astype(np.uint8) * 255])  # white, the rest cut away
    path = write(tmp_path, "cut.png", pillow(drawn, "PNG"))
    assert f"{(LABELS == 0).sum()} of 35 pixels are transparent" in refusal(path, read_mask)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_masks_in_colour_are_read_as_packed_colours(name: str, tmp_path: Path) -> None:
    """Each value is 65536 red + 256 green + blue; LABELS are painted in COLOURS."""
    expected = np.array([0x0A141E, 0x28323C, 0x46505A])[LABELS]
    kind = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF"}[Path(name).suffix]
    found = read_mask(write(tmp_path, name, pillow(PAINTED, kind)))
    assert (found.coloured, found.channels, found.palette, found.values.dtype) == (True, 3, None, np.uint32)
    np.testing.assert_array_equal(found.values, expected)
    np.testing.assert_array_equal(found.colours, expected)
    assert [unpack_colour(int(value)) for value in np.unique(found.values)] == [
        (10, 20, 30),
        (40, 50, 60),
        (70, 80, 90),
    ]
    painted = read_mask(write(tmp_path, f"p{name}", pillow(palette_image(LABELS, COLOURS), kind)))
    np.testing.assert_array_equal(painted.colours, expected)
    grey = read_mask(write(tmp_path, f"g{name}", pillow(np.dstack([LABELS] * 3), kind)))
    assert (grey.coloured, grey.channels) == (False, 3)
    np.testing.assert_array_equal(grey.colours, LABELS.astype(int) * 0x010101)


def test_a_folder_with_a_mask_for_each_object(tmp_path: Path) -> None:
    assert "holds no masks; accepted: one PNG for each object" in refusal(tmp_path, read_mask)
    for value, name in ((2, "b.png"), (1, "a.png")):
        write(tmp_path, name, pillow((value == LABELS).astype(np.uint8) * 255, "PNG"))
    (tmp_path / "notes.txt").write_text("x")
    found = read_mask(tmp_path)
    assert found.values.dtype == np.uint16
    np.testing.assert_array_equal(found.values, LABELS)
    overlap = LABELS == 2
    overlap[0, 0] = overlap[0, 1] = True  # class 0 and class 1
    path = write(tmp_path, "b.png", pillow(overlap.astype(np.uint8), "PNG"))
    with pytest.raises(RequestError, match=rf"^{re.escape(str(path))}: shares 1 pixel with other objects of its fol"):
        read_mask(tmp_path)
    path = write(tmp_path, "c.png", pillow(LABELS[:3], "PNG"))
    write(tmp_path, "b.png", pillow(LABELS * 0, "PNG"))
    with pytest.raises(RequestError, match=rf"^{re.escape(str(path))}: does not go with a\.png"):
        read_mask(tmp_path)


def test_a_png_whose_pixels_are_damaged_is_refused(tmp_path: Path) -> None:
    """Decoders do not look at the checksums, and let about one in ten such files pass with wrong pixels."""
    labels = np.tile(np.tile(LABELS, (20, 20)), (4, 4))
    data = pillow(labels, "PNG")
    passing = 0
    for place in range(data.index(b"IDAT") + 4, len(data) - 16):
        damaged = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
        try:
            with Image.open(io.BytesIO(damaged)) as image:
                found = np.array(image)
        except Exception:
            continue
        passing += not np.array_equal(found, labels)
        text = refusal(write(tmp_path, "a.png", damaged), read_mask)
        assert re.search(r"\(damaged: the checksum of the bytes from \d+ to \d+ is wrong\)", text)
    assert passing
    assert "(cut off: the end mark is missing)" in refusal(write(tmp_path, "b.png", LOSSLESS["png grey"][1][:-12]))


def test_masks_in_printing_colours_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tif", pillow(Image.fromarray(PAINTED).convert("CMYK"), "TIFF"))
    assert "is stored in colours such as CMYK, which cannot be turned into RGB without rounding" in refusal(
        path, read_mask
    )


STACK = np.random.default_rng(2).integers(0, 256, (4, HEIGHT, WIDTH), dtype=np.uint8)


@pytest.mark.parametrize("compression", [None, "zlib", "tiff_lzw", "packbits", "group4"])
@pytest.mark.parametrize("big", [False, True])
def test_pages_of_a_stack_are_read_to_the_number(compression: str | None, big: bool, tmp_path: Path) -> None:
    stack = STACK // 128 * 255 if compression == "group4" else STACK
    path = tmp_path / "a.tif"
    if compression in (None, "zlib"):
        tifffile.imwrite(path, stack, photometric="minisblack", compression=compression, bigtiff=big)
    else:
        pages = [Image.fromarray(page > 0 if compression == "group4" else page) for page in stack]
        pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression, big_tiff=big)
    assert whole_pages(path) == (0, 1, 2, 3)
    for number, page in enumerate(stack):
        np.testing.assert_array_equal(read_image(path, page=number)[:, :, 0], page)
        np.testing.assert_array_equal(read_mask(path, page=number).values, page)
        assert read_orientation(path, page=number) == 1
    assert "holds 4 images (pages)" in refusal(path)


def test_previews_are_no_pages_and_a_page_may_be_turned(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GREY)
        file.write(GREY[::2, ::2], subfiletype=1)
        file.write(GREY[::-1], extratags=[(274, 3, 1, 4, True)])
    assert whole_pages(tmp_path / "a.tif") == (0, 2)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", page=2)[:, :, 0], GREY)
    assert read_orientation(tmp_path / "a.tif", page=2) == 4


def test_a_stack_that_lost_pages_is_refused(tmp_path: Path) -> None:
    """The chain of pages then leads out of the file, or in a circle; readers take what comes before for all."""
    data = tiff(STACK, photometric="minisblack")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        last, before = file.pages[3].offset, file.pages[2].offset
    path = write(tmp_path, "a.tif", data[:last])
    with pytest.raises(ValueError, match="page 4 is not where the page before it says"):
        whole_pages(path)
    assert "(damaged or cut off: page 4 is not where" in refusal(path)
    circle = bytearray(data)
    (count,) = struct.unpack_from("<H", circle, last)
    struct.pack_into("<I", circle, last + 2 + 12 * count, before)
    assert "(damaged or cut off: page 5 is not where" in refusal(write(tmp_path, "b.tif", bytes(circle)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_what_is_no_image_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    assert "no such file" in refusal(path)
    path.mkdir()
    assert "is a folder" in refusal(path)
    path.rmdir()
    path.write_bytes(b"")
    assert "cannot be read as an image (" in refusal(path)
    path.write_text("name,area\ncell,3\n")
    assert "cannot be read as an image (" in refusal(path)
    if suffix not in (".jpg", ".webp"):
        assert "cannot be read as an image (" in refusal(path, read_mask)
    assert not list(tmp_path.glob("*.tmp"))


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "pages.tif", tiff(np.zeros((10, 4, 5), np.uint8), photometric="minisblack"))
    assert "holds 10 images (pages)" in refusal(path)
    path = write(tmp_path, "imagej.tif", tiff(np.zeros((3, 4, 5), np.uint8), imagej=True))
    assert "holds 3 images (pages)" in refusal(path)
    frames = [Image.new("L", (4, 5), value) for value in (0, 9, 99)]
    path = write(tmp_path, "film.png", pillow(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    assert "holds 3 images" in refusal(path)
    path = write(tmp_path, "negative.tif", tiff(GREY.astype(np.int16) - 300))
    assert f"has values of type int16 from {int(GREY.min()) - 300} to {int(GREY.max()) - 300}" in refusal(path)
    path = write(tmp_path, "large.tif", tiff(GREY.astype(np.uint32) * 1000))
    assert f"has values of type uint32 from {int(GREY.min()) * 1000} to {int(GREY.max()) * 1000}" in refusal(path)
    path = write(tmp_path, "complex.tif", tiff(GREY.astype(np.complex64)))
    assert "has values of type complex64" in refusal(path)
    holes = GREY.astype(np.float32)
    holes[0, :3] = np.nan, np.inf, -np.inf
    path = write(tmp_path, "holes.tif", tiff(holes))
    assert "3 of 35 values are NaN or infinite" in refusal(path)
    path = write(tmp_path, "huge.tif", tiff(GREY.astype(np.float64) * 1e300 + 1e300))
    assert "35 of 35 values are NaN or infinite" in refusal(path)


def test_a_preview_after_the_image_is_no_second_image(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GREY)
        file.write(GREY[::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[:, :, 0], GREY)


def test_a_compression_without_decoder_is_refused_by_name(tmp_path: Path) -> None:
    data = tiff(np.moveaxis(PLANES, 0, -1).copy(), photometric="minisblack", planarconfig="contig", compression="zlib")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages.first.tags["Compression"].valueoffset
    path = write(tmp_path, "a.tif", data[:place] + struct.pack("<H", 34887) + data[place + 2 :])  # LERC
    assert "has 8-bit MINISBLACK pixels of shape (5, 7, 6) in the compression LERC" in refusal(path)


WHOLE: dict[str, bytes] = {
    "a.png": LOSSLESS["png colour"][1],
    "deep.png": LOSSLESS["png 16 bit colour"][1],
    "palette.png": LOSSLESS["png palette"][1],
    "a.jpg": pillow(SMOOTH, "JPEG"),
    "progressive.jpg": pillow(SMOOTH, "JPEG", progressive=True),
    "a.bmp": LOSSLESS["bmp colour"][1],
    "a.webp": pillow(RGB, "WEBP"),
    "a.tif": LOSSLESS["tiff colour"][1],
    "strips.tif": tiff(RGB, photometric="rgb", rowsperstrip=2),
    "tiles.tif": LOSSLESS["tiff tiles"][1],
    "first.tif": pillow(RGB, "TIFF"),  # the tags come before the pixels
    "packbits.tif": LOSSLESS["tiff packbits"][1],
    "deflate.tif": LOSSLESS["tiff deflate"][1],
    "lzw.tif": LOSSLESS["tiff lzw colour"][1],
    "last.tif": opencv(RGB, ".tif", cv2.IMWRITE_TIFF_COMPRESSION, 1),  # the tags come after the pixels
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_cut_off_file_is_never_read_as_whole(name: str, tmp_path: Path) -> None:
    data = WHOLE[name]
    path = write(tmp_path, name, data)
    whole = read_image(path)
    step = max(1, len(data) // 60)
    cuts = {*range(0, len(data), step), *range(max(0, len(data) - 20), len(data))}
    if name == "tiles.tif":  # between two tiles nothing of a tile is missing, but all of the next
        with tifffile.TiffFile(path) as file:
            cuts |= set(file.pages.first.dataoffsets)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cut in sorted(cuts):
            path.write_bytes(data[:cut])
            try:
                # Only what follows the pixels may be missing.
                np.testing.assert_array_equal(read_image(path), whole, err_msg=f"cut at {cut}")
            except RequestError:
                refused += 1
    assert refused >= 0.6 * len(cuts)


def test_a_tiff_with_too_few_tiles_is_refused(tmp_path: Path) -> None:
    """Readers fill the missing ones with zeros."""
    data = bytearray(WHOLE["tiles.tif"])
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        place = file.pages.first.tags["ImageLength"].valueoffset
    struct.pack_into("<H", data, place, 48)
    text = refusal(write(tmp_path, "a.tif", bytes(data)))
    assert "cannot be read as an image (damaged: 6 of 9 strips or tiles)" in text


def test_a_damaged_size_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    data = bytearray(WHOLE["a.bmp"])
    struct.pack_into("<ii", data, 18, 10**6, 10**6)
    text = refusal(write(tmp_path, "a.bmp", bytes(data)))
    assert f"(damaged: {len(data)} bytes cannot hold 1000000 x 1000000 pixels)" in text
    blank = np.zeros((3000, 4000), np.uint8)
    path = write(tmp_path, "blank.png", pillow(Image.fromarray(blank > 0), "PNG", optimize=True))
    np.testing.assert_array_equal(read_image(path)[:, :, 0], blank)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), suffix=st.sampled_from([".png", ".jpg", ".tif", ".bmp", ".webp"]))
def test_random_bytes_are_refused(data: bytes, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"random{suffix}", data)
    for read in (read_image, read_mask):
        with pytest.raises(RequestError, match=re.escape(str(path))):
            read(path)


@settings(
    max_examples=200 * settings().max_examples // 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    suffix=st.sampled_from(["", "", "", ".tif", ".png"]),
)
def test_damaged_files_are_refused_or_read_as_arrays(
    name: str, changes: list[tuple[float, int]], suffix: str, tmp_path: Path
) -> None:
    data = bytearray(WHOLE[name])
    for place, value in changes:
        # Half of the changes in the first 100 bytes, where the structure is.
        data[int(place * 2 * 100) % len(data) if place < 0.5 else int((2 * place - 1) * len(data))] = value
    path = write(tmp_path, f"{name}{suffix}", bytes(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(path)
            assert image.ndim == 3
            assert image.size
            assert image.dtype in (np.uint8, np.uint16, np.float32)
        except RequestError as error:
            assert str(path) in str(error)  # noqa: PT017
        try:
            mask = read_mask(path)
            assert mask.values.ndim == 2
            assert mask.values.dtype in (np.uint8, np.uint16, np.uint32)
        except RequestError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_as_channels_repeats_grey_only() -> None:
    grey = GREY[:, :, None]
    assert as_channels(grey, 1) is grey
    np.testing.assert_array_equal(as_channels(grey, 3), np.dstack([GREY] * 3))
    with pytest.raises(RequestError, match=r"^a\.png has 3 channels where 1 is wanted; accepted: 1\. Convert"):
        as_channels(RGB, 1, "a.png")
    with pytest.raises(RequestError, match=r"^an image has 6 channels where 3 are wanted; accepted: 3, or 1\. Conv"):
        as_channels(np.moveaxis(PLANES, 0, -1), 3)
