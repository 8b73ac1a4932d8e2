"""A thousand generated files, a quarter of them in the fast tier: good ones are read to the number, bad ones refused.

The encoders of PNG and TIFF below are written from the specifications (PNG second edition; TIFF revision 6.0), apart
from those libraries that read the files.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.check import check_dataset
from pixelwise.data.dataset import open_dataset, read_names
from pixelwise.data.dataset_file import DatasetFile, read_dataset_file
from pixelwise.data.images import read_image, read_mask
from pixelwise.data.scan import scan
from pixelwise.errors import RequestError

Array = NDArray[Any]
Expected: TypeAlias = "Array | EllipsisType | None"
SUFFIXES = (".png", ".jpg", ".tif", ".bmp", ".webp")


def many(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=count * settings().max_examples // 100,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Made:
    """A file as it was generated.

    Attributes:
        suffix: its ending.
        data: its bytes.
        image: what `read_image` must return, (H, W) or (H, W, C); None if it must refuse, ... if anything goes.
        mask: the same for `read_mask`.
        may_refuse: both may refuse as well.
    """

    suffix: str
    data: bytes
    image: Expected
    mask: Expected
    may_refuse: bool = False


# --- encoders


def png(
    rows: Array, depth: int, kind: int, *, interlaced: bool = False, extra: bytes = b"", filtered: int = 0
) -> bytes:
    """Encode samples (H, W, S), each below 2^depth, as PNG of colour type `kind`."""
    height, width, _ = rows.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    body = b"".join(_scanlines(rows[top::down, left::right], depth, filtered) for top, left, down, right in passes)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    packed = zlib.compress(body)
    half = len(packed) // 2  # pixels may come in several parts
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", packed[half:])
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _scanlines(rows: Array, depth: int, filtered: int) -> bytes:
    if rows.size == 0:
        return b""
    lines, before = [], None
    step = max(1, rows.shape[2] * depth // 8)
    for row in rows:
        line = pack(row.ravel(), depth)
        zeros = np.zeros_like(line)
        up = zeros if before is None else before
        left = np.concatenate([zeros[:step], line[:-step]]) if len(line) > step else zeros[: len(line)]
        lines.append(bytes([filtered]) + (line - {0: zeros, 1: left, 2: up}[filtered]).tobytes())
        before = line
    return b"".join(lines)


def pack(samples: Array, depth: int, order: str = ">") -> NDArray[np.uint8]:
    """Pack a row of samples into bytes, the first in the highest bits."""
    if depth == 16:
        return np.frombuffer(samples.astype(f"{order}u2").tobytes(), np.uint8)
    bits = (samples.astype(np.uint8)[:, None] >> np.arange(depth)[::-1]) & 1
    return np.packbits(bits.ravel())


def tiff(samples: Array, depth: int, photometric: int, order: str, *, tags: dict[int, int] | None = None) -> bytes:
    """Encode samples (H, W) as an uncompressed TIFF of one strip; a palette of greys goes with photometric 3."""
    height, width = samples.shape
    pixels = b"".join(pack(row, depth, order).tobytes() for row in samples)
    colours = struct.pack(f"{order}{3 * 2**depth}H", *([257 * (i % 256) for i in range(2**depth)] * 3))
    entries = {256: width, 257: height, 258: depth, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    entries |= {279: len(pixels)} | (tags or {})
    body, directory = pixels + b"\0" * (len(pixels) % 2), b""
    if photometric == 3:
        entries[320], body = 8 + len(body), body + colours
    for code, value in sorted(entries.items()):
        count, form = (3 * 2**depth, 4) if code == 320 else (1, 4 if code in (256, 257, 273, 278, 279) else 3)
        number = 3 if code == 320 else form
        place = struct.pack(f"{order}I", value) if form == 4 else struct.pack(f"{order}HH", value, 0)
        directory += struct.pack(f"{order}HHI", code, number, count) + place
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}I", 8 + len(body))
    return head + body + struct.pack(f"{order}H", len(entries)) + directory + struct.pack(f"{order}I", 0)


def pillow(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# --- good files, some of them odd


@st.composite
def samples(draw: st.DrawFn, depth: int, channels: int) -> Array:
    shape = (draw(st.integers(1, 19)), draw(st.integers(1, 19)), channels)
    few = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(0, min(3, 2**depth) if few else 2**depth, shape).astype(np.uint16)


@st.composite
def pngs(draw: st.DrawFn) -> Made:
    kind = draw(st.sampled_from([0, 2, 3, 4, 6]))
    depth = draw(st.sampled_from({0: [1, 2, 4, 8, 16], 3: [1, 2, 4, 8]}.get(kind, [8, 16])))
    rows = draw(samples(depth, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]))
    extra, palette = b"", np.zeros((0, 3), np.uint8)
    if kind == 3:
        palette = np.random.default_rng(7).integers(0, 256, (int(rows.max()) + 1, 3), dtype=np.uint8)
        extra = chunk(b"PLTE", palette.tobytes())
    if kind in (0, 2, 3) and draw(st.booleans()):  # which colour is transparent
        levels = (
            bytes(range(0, 200, 9))[: len(palette)] if kind == 3 else struct.pack(">H", 1) * (1 if kind == 0 else 3)
        )
        extra += chunk(b"tRNS", levels)
    extra += chunk(b"tEXt", b"Title\0something") if draw(st.booleans()) else b""
    options = {"interlaced": draw(st.booleans()), "filtered": draw(st.sampled_from([0, 1, 2]))}
    data = png(rows, depth, kind, extra=extra, **options)
    values = rows.astype(np.uint16 if depth == 16 else np.uint8)
    if kind == 3:
        return Made(".png", data, palette[values[:, :, 0]], values[:, :, 0])
    if depth < 8:  # samples are scaled to the full range, by the specification
        values = values * np.uint8(255 // (2**depth - 1))
    image = values[:, :, :-1] if kind in (4, 6) else values
    return Made(".png", data, image, as_mask(values, alpha=kind in (4, 6)), may_refuse=kind in (4, 6))


def as_mask(values: Array, *, alpha: bool = False) -> Array | None:
    """Return class numbers or packed colours; None for what is no mask."""
    if alpha:
        values = values[:, :, :-1]
    if (values == values[:, :, :1]).all():
        return values[:, :, 0]
    if values.dtype != np.uint8 or values.shape[2] != 3:
        return None
    return values.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)


@st.composite
def small_tiffs(draw: st.DrawFn) -> Made:
    """Uncompressed TIFFs of 1 to 16 bits in grey, white is zero, or with a palette."""
    depth, photometric = draw(st.sampled_from([1, 2, 4, 8, 16])), draw(st.sampled_from([0, 1, 3]))
    rows = draw(samples(depth, 1))[:, :, 0]
    order = draw(st.sampled_from("<>"))
    orientation = draw(st.sampled_from([1, 1, 2, 4, 6]))
    data = tiff(rows, depth, photometric, order, tags={274: orientation} if orientation > 1 else None)
    shown = {1: rows, 2: rows[:, ::-1], 4: rows[::-1], 6: np.rot90(rows, -1)}[orientation]
    values = shown.astype(np.uint16 if depth == 16 else np.uint8)
    if photometric == 3:
        grey = (values.astype(int) % 256).astype(np.uint8)
        may_refuse = depth in (1, 2, 4, 16)  # unusual with a palette
        return Made(".tif", data, np.dstack([grey] * 3), values, may_refuse)
    full = values * np.uint8(255 // (2**depth - 1)) if depth < 8 else values
    top = full.dtype.type(65535 if depth == 16 else 255)
    image = top - full if photometric == 0 else full
    mask = full
    return Made(".tif", data, image, mask, may_refuse=photometric == 0 or depth in (2, 4))


@st.composite
def large_tiffs(draw: st.DrawFn) -> Made:
    """TIFFs of tifffile: all types, planes, tiles, strips, Deflate, BigTIFF."""
    dtype = np.dtype(draw(st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "f2", "f4", "f8", "c8", "c16"])))
    channels, planar = draw(st.sampled_from([1, 1, 2, 3, 4, 5, 12])), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    low = draw(st.sampled_from([0, 0, 0, -3])) if dtype.kind in "if" else 0
    high = draw(st.sampled_from([3, 120, 70000 if dtype.itemsize >= 4 and dtype.kind != "f" else 100]))
    values = rng.integers(low, high, (height, width, channels)).astype(dtype)
    if dtype.kind == "f" and draw(st.integers(0, 5)) == 0:
        values[0, 0, 0] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    options: dict[str, Any] = {"photometric": "rgb" if channels == 3 else "minisblack"}
    if draw(st.booleans()):
        options["tile"] = (16, 32)
    elif draw(st.booleans()):
        options["rowsperstrip"] = draw(st.integers(1, 8))
    options["compression"] = draw(st.sampled_from([None, "zlib"]))
    options["bigtiff"], options["byteorder"] = draw(st.booleans()), draw(st.sampled_from("<>"))
    stored = values[:, :, 0]
    if channels > 1:
        options["planarconfig"] = "separate" if planar else "contig"
        stored = np.moveaxis(values, -1, 0).copy() if planar else values
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, stored, metadata=None, **options)
    transparency = channels in (2, 4)  # the last channel of a mask, which may say something of its own
    return Made(".tif", buffer.getvalue(), _as_image(values), _as_labels(values), may_refuse=transparency)


def _as_image(values: Array) -> Array | None:
    if values.dtype.kind == "c" or (values.dtype.kind == "f" and not np.isfinite(values).all()):
        return None
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.min() < 0 or values.max() > 65535:
        return None
    return values if values.dtype == np.uint8 else values.astype(np.uint16)


def _as_labels(values: Array) -> Array | None:
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 65535:
        return None
    labels = values if values.dtype == np.uint8 else values.astype(np.uint16)
    return as_mask(labels, alpha=values.shape[2] in (2, 4))


@st.composite
def by_pillow(draw: st.DrawFn) -> Made:
    """What Pillow writes: LZW, PackBits, fax, BMP, WebP, GIF, animations, CMYK, LAB, JPEG; endings are often wrong."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grey = rng.integers(0, 256, (draw(st.integers(1, 30)), draw(st.integers(1, 30))), dtype=np.uint8)
    colour = rng.integers(0, 256, (*grey.shape, 3), dtype=np.uint8)
    table, indices, black = rng.integers(0, 256, (5, 3), dtype=np.uint8), grey % 5, grey > 127
    picture, whole, painted = Image.fromarray(grey), Image.fromarray(colour), Image.fromarray(indices)
    painted.putpalette(table.ravel().tolist())
    film = {"save_all": True, "append_images": [Image.fromarray(255 - grey)]}
    white = black * np.uint8(255)
    made: list[tuple[Callable[[], bytes], Expected, Expected]] = [
        (lambda: pillow(picture, "TIFF", compression="tiff_lzw"), grey, grey),
        (lambda: pillow(whole, "TIFF", compression="tiff_lzw"), colour, as_mask(colour)),
        (lambda: pillow(picture, "TIFF", compression="packbits"), grey, grey),
        (lambda: pillow(Image.fromarray(black), "TIFF", compression="group4"), white, white),
        (lambda: pillow(picture, "BMP"), grey, grey),
        (lambda: pillow(whole, "BMP"), colour, as_mask(colour)),
        (lambda: pillow(Image.fromarray(black), "BMP"), white, white),
        (lambda: pillow(painted, "PNG"), table[indices], indices),
        (lambda: pillow(whole, "WEBP", lossless=True, exact=True), colour, None),
        (lambda: pillow(painted, "GIF"), table[indices], ...),  # GIF may number its colours anew
        (lambda: pillow(picture, "GIF", **film), ..., ...),
        (lambda: pillow(picture, "PNG", **film), ..., ...),
        (lambda: pillow(whole.convert("CMYK"), "TIFF"), ..., None),
        (lambda: pillow(whole.convert("CMYK"), "JPEG"), ..., None),
        (lambda: pillow(Image.merge("LAB", whole.split()), "TIFF"), None, None),
        (lambda: pillow(picture, "JPEG"), ..., None),
        (lambda: pillow(picture, "TIFF", compression="jpeg"), ..., None),
    ]
    encode, image, mask = draw(st.sampled_from(made))
    data = encode()
    suffix = ".tif" if data[:2] in (b"II", b"MM") else draw(st.sampled_from([".png", ".png", ".bmp", ".PNG"]))
    return Made(suffix, data, image, mask)


# --- what must hold


@contextmanager
def file_of(data: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd files
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


def is_clear(error: RequestError, path: Path) -> bool:
    text = str(error)
    return 1 <= len(text.splitlines()) <= 3 and str(path) in text and "ccepted" in text


def read_both(path: Path) -> tuple[Array | None, Array | None]:
    """Return image and mask, None for what is refused with a clear word; any other exception fails the test."""
    found: list[Array | None] = []
    for read in (read_image, lambda path: read_mask(path).values):
        try:
            found.append(read(path))
        except RequestError as error:
            assert is_clear(error, path), str(error)  # noqa: PT017
            found.append(None)
    image, mask = found
    assert image is None or (image.ndim == 3 and image.size and image.dtype in (np.uint8, np.uint16, np.float32))
    assert mask is None or (mask.ndim == 2 and mask.size and mask.dtype in (np.uint8, np.uint16, np.uint32))
    return image, mask


def assert_read(found: Array | None, expected: Expected, may_refuse: bool) -> None:
    if expected is ... or (found is None and may_refuse):
        return
    if expected is None:
        assert found is None, "was read, but means something else"
        return
    assert found is not None, "was refused"
    if expected.ndim == 2 and found.ndim == 3:
        expected = expected[:, :, None]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


GOOD = st.one_of(pngs(), small_tiffs(), large_tiffs(), by_pillow())


@many(450)
@given(made=GOOD)
def test_odd_but_good_files_are_read_to_the_number(made: Made) -> None:
    with file_of(made.data, f"a{made.suffix}") as path:
        image, mask = read_both(path)
    assert_read(image, made.image, made.may_refuse)
    assert_read(mask, made.mask, made.may_refuse)


def cut(data: bytes, share: float) -> bytes:
    return data[: int(share * len(data))]


def flip(data: bytes, share: float, bit: int) -> bytes:
    place = int(share * len(data))
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


SHARE = st.floats(0, 1, exclude_max=True)


@many(150)
@given(made=GOOD, share=SHARE)
def test_a_cut_off_file_is_read_as_whole_or_not_at_all(made: Made, share: float) -> None:
    with file_of(made.data, f"a{made.suffix}") as path:
        whole = read_both(path)
        path.write_bytes(cut(made.data, share))
        for found, expected in zip(read_both(path), whole, strict=True):
            if found is not None:
                assert expected is not None
                np.testing.assert_array_equal(found, expected)


@many(150)
@given(made=GOOD, flips=st.lists(st.tuples(SHARE, st.integers(0, 7)), min_size=1, max_size=3))
def test_damaged_files_are_refused_or_read_as_arrays(made: Made, flips: list[tuple[float, int]]) -> None:
    """PNG has checksums, so that its pixels are never read otherwise than they were written."""
    data = made.data
    for share, bit in flips:
        data = flip(data, share, bit)
    with file_of(made.data, f"a{made.suffix}") as path:
        whole = read_both(path)
        path.write_bytes(data)
        for found, expected in zip(read_both(path), whole, strict=True):
            if made.data[:4] == b"\x89PNG" and found is not None and expected is not None:
                np.testing.assert_array_equal(found, expected)


@many(150)
@given(
    head=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"MM\0+\0\x08\0\0", b"BM", b"\xff\xd8\xff\xe0"]
    ),
    body=st.binary(max_size=300),
    suffix=st.sampled_from(SUFFIXES),
)
def test_random_bytes_are_refused(head: bytes, body: bytes, suffix: str) -> None:
    with file_of(head + body, f"a{suffix}") as path:
        assert read_both(path) == (None, None)


HUGE = st.sampled_from([0, 1, 2, 3, 0x7FFF, 0xFFFF, 0x10000, 10**6, 2**31 - 1, 2**32 - 1])


@st.composite
def absurd(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return files whose sizes, depths or offsets say what cannot be."""
    rows = np.arange(64, dtype=np.uint8).reshape(8, 8)
    if draw(st.booleans()):
        head = struct.pack(">IIBBBBB", draw(HUGE), draw(HUGE), 8, 0, 0, 0, 0)
        return ".png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + png(rows[:, :, None], 8, 0)[33:]
    if draw(st.booleans()):
        data = bytearray(pillow(Image.fromarray(rows), "BMP"))
        struct.pack_into("<II", data, 18, draw(HUGE), draw(HUGE))
        return ".bmp", bytes(data)
    codes = draw(
        st.lists(
            st.sampled_from([256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 338]),
            min_size=1,
            max_size=3,
        )
    )
    tags = {code: draw(HUGE) if code in (256, 257, 273, 278, 279) else draw(HUGE) % 65536 for code in codes}
    return ".tif", tiff(rows, 8, 1, "<", tags=tags)


@many(150)
@given(made=absurd())
def test_absurd_sizes_fill_no_memory(made: tuple[str, bytes]) -> None:
    suffix, data = made
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    with file_of(data, f"a{suffix}") as path:
        for found in read_both(path):
            assert found is None or found.size <= 64 * 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
CLASSES = st.lists(st.sampled_from(["sky", "tree", "car", "cell"]), max_size=4)
LIKELY = {
    "name": st.text(max_size=4) | VALUES,
    "classes": CLASSES | VALUES,
    "ignore_index": st.sampled_from([None, 0, 255, 65535, 65536, -1]) | VALUES,
    "palette": st.lists(st.lists(st.integers(-1, 256), min_size=2, max_size=4), max_size=5) | VALUES,
    "boundary_class": st.sampled_from([None, 0, 1, 9, "sky", "sk"]) | VALUES,
    "mask_encoding": st.sampled_from([None, "index", "objects", "binary", "colours", "rgb"]) | VALUES,
}


@many(150)
@given(
    content=st.fixed_dictionaries({}, optional=LIKELY) | VALUES, damage=st.none() | st.tuples(SHARE, st.integers(0, 7))
)
def test_any_dataset_file_is_read_or_refused(content: object, damage: tuple[float, int] | None) -> None:
    data = json.dumps(content).encode()
    data = data if damage is None else flip(data, *damage)
    with file_of(data, "dataset.json") as path:
        try:
            file = read_dataset_file(path)
        except RequestError as error:
            assert is_clear(error, path) or "Required" in str(error), str(error)  # noqa: PT017
        else:
            assert isinstance(file, DatasetFile)
            assert len(set(file.classes)) == len(file.classes) > 0
            assert file.palette is None or len(file.palette) - len(file.classes) in (0, 1)
            assert file.boundary_index() in (None, *range(len(file.classes)))


@many(100)
@given(data=st.binary(max_size=60) | st.text("abc_01\n\r \ufeff", max_size=40).map(str.encode))
def test_any_list_of_names_is_read_or_refused(data: bytes) -> None:
    known = ["a", "b", "c", "a_0", "a_1"]
    with file_of(data, "names.txt") as path:
        try:
            names = read_names(path, known)
        except RequestError as error:
            assert is_clear(error, path), str(error)  # noqa: PT017
        else:
            lines = {line.strip() for line in data.decode("utf-8-sig").splitlines()}
            assert names == lines - {""} <= set(known)


@many(100)
@given(
    pages=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    compression=st.sampled_from([None, "zlib"]),
    damage=st.none() | st.tuples(st.booleans(), SHARE, st.integers(-1, 7)),
)
def test_stacks_are_read_page_by_page_or_refused(
    pages: tuple[int, int], compression: str | None, damage: tuple[bool, float, int] | None
) -> None:
    stacks = {
        kind: np.random.default_rng(number).integers(0, below, (count, 5, 6), dtype=np.uint8)
        for number, (kind, count, below) in enumerate(zip(("images", "masks"), pages, (256, 3), strict=True))
    }
    with file_of(b"", "nothing") as path:
        root = path.parent
        path.unlink()
        for kind, stack in stacks.items():
            (root / kind).mkdir()
            tifffile.imwrite(root / kind / "s.tif", stack, photometric="minisblack", compression=compression)
        if damage is not None:
            hit = root / ("masks" if damage[0] else "images") / "s.tif"
            data = hit.read_bytes()
            hit.write_bytes(cut(data, damage[1]) if damage[2] < 0 else flip(data, *damage[1:]))
        check = check_dataset(root)
        assert all(len(problem.problem.splitlines()) == 1 for problem in check.problems)
        try:
            folder = open_dataset(root)
            dataset = scan(folder, folder.items)
        except RequestError as error:
            assert 1 <= len(str(error).splitlines()) <= 3  # noqa: PT017
            assert not check.ready
            return
        assert check.ready
        assert len(folder.items) == pages[0] == pages[1] or damage is not None
        for item in folder.items if damage is None or damage[2] < 0 else ():
            assert item.page is not None
            np.testing.assert_array_equal(dataset.image(item)[:, :, 0], stacks["images"][item.page])
            np.testing.assert_array_equal(dataset.labels(item), stacks["masks"][item.page])
