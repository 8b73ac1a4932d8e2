"""One coordinate map that says where each pixel of a crop is read in the source image, and how it is read.

Outside the image a map reads its mirror image (`np.pad(mode="reflect")`, repeated as often as needed).

Axes: h, w = size in pixels, C = channels; maps hold x (column) and y (row) of the source image, in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import RequestError

Pixels = TypeVar("Pixels", bound=np.generic)
Interpolation = Literal["linear", "cubic"]
Size = tuple[int, int]

# cv2.remap keeps coordinates in 16 signed bits.
_CV2_SIDE_LIMIT = 32767
_CV2_CHANNEL_LIMIT = 4
IMAGE_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
_LABEL_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16))
_CV2_FLAGS: dict[str, int] = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Warp:
    """Where each pixel of a crop is read in the source image.

    Attributes:
        map_x: (h', w') float32, source column of each output pixel, pixels; may lie outside the image.
        map_y: (h', w') float32, source row, pixels.
        image_size: (h, w) of the source image the maps were made for.
        interpolation: How images are read between pixels.
    """

    map_x: NDArray[np.float32]
    map_y: NDArray[np.float32]
    image_size: Size
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        assert self.map_x.shape == self.map_y.shape
        assert self.map_x.dtype == self.map_y.dtype == np.float32
        # OpenCV 5.0.0 reads past the end when both maps start at the same address.
        assert not np.may_share_memory(self.map_x, self.map_y)

    def image(self, image: NDArray[Pixels]) -> NDArray[Pixels]:
        """Return the warped image.

        Args:
            image: (h, w, C) uint8, uint16 or float32, any number of channels.

        Returns:
            (h', w', C) of the same dtype.

        Raises:
            RequestError: The shape or dtype is another one.
        """
        self._check(image, "image", ndim=3, dtypes=IMAGE_DTYPES)
        if image.shape[2] <= _CV2_CHANNEL_LIMIT:
            return self._read(image, self.interpolation)
        result = np.empty((*self.map_x.shape, image.shape[2]), image.dtype)  # (h', w', C)
        for first in range(0, image.shape[2], _CV2_CHANNEL_LIMIT):
            part = slice(first, first + _CV2_CHANNEL_LIMIT)
            result[..., part] = self._read(np.ascontiguousarray(image[..., part]), self.interpolation)
        return result

    def labels(self, labels: NDArray[Pixels]) -> NDArray[Pixels]:
        """Return the warped label map; each output pixel is the nearest source pixel, never a mixture.

        Args:
            labels: (h, w) uint8 or uint16 class or instance ids.

        Returns:
            (h', w') of the same dtype. Halfway between two pixels the even coordinate wins.

        Raises:
            RequestError: The shape or dtype is another one.
        """
        self._check(labels, "labels", ndim=2, dtypes=_LABEL_DTYPES)
        return self._read(labels, "nearest")

    def weights(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a warped map of pixel weights, (h, w) float32 to (h', w') float32, read linearly.

        Raises:
            RequestError: The shape or dtype is another one.
        """
        self._check(weights, "weights", ndim=2, dtypes=IMAGE_DTYPES[2:])
        return self._read(weights, "linear")

    def inside(self) -> NDArray[np.bool_]:
        """Return which pixels of the crop show the image itself and not its mirror image, (h', w')."""
        height, width = self.image_size
        on_rows = (self.map_y >= -0.5) & (self.map_y <= height - 0.5)
        found: NDArray[np.bool_] = on_rows & (self.map_x >= -0.5) & (self.map_x <= width - 0.5)
        return found

    def centre(self, margin: int) -> Warp:
        """Return the warp of the central part, `margin` pixels less on every side.

        A network of valid convolutions predicts the centre of its tile only: warp the image with the whole
        map and the labels with `centre((n - output) // 2)` of it (92 for U-Net). Labels are never resized.

        Raises:
            RequestError: The margin is negative or leaves nothing.
        """
        height, width = self.map_x.shape
        largest = (min(height, width) - 1) // 2
        if not 0 <= margin <= largest:
            raise RequestError(
                f"margin={margin} on a crop of {height}x{width}: accepted are 0 to {largest}; "
                f"take a smaller margin or a larger crop"
            )
        inner = np.s_[margin : height - margin, margin : width - margin]
        return Warp(
            map_x=self.map_x[inner],
            map_y=self.map_y[inner],
            image_size=self.image_size,
            interpolation=self.interpolation,
        )

    def _check(self, array: NDArray[Pixels], name: str, *, ndim: int, dtypes: tuple[np.dtype[np.generic], ...]) -> None:
        if array.ndim != ndim or array.shape[:2] != self.image_size or array.dtype not in dtypes:
            height, width = self.image_size
            wanted = f"({height}, {width}{', C' if ndim == 3 else ''})"
            raise RequestError(
                f"{name}: shape {array.shape}, {array.dtype}; this warp takes shape {wanted}, "
                f"{' or '.join(map(str, dtypes))}; convert the array, or sample a warp with its image_size"
            )

    def _read(self, source: NDArray[Pixels], interpolation: str) -> NDArray[Pixels]:
        flag = _CV2_FLAGS[interpolation]
        shape = self.map_x.shape + source.shape[2:]
        if interpolation == "cubic" and 1 in source.shape[:2]:
            # OpenCV 5.0.0 never returns from a cubic remap of a single row; its mirror image is a copy.
            source = np.repeat(source, 2, axis=0) if source.shape[0] == 1 else source
            source = np.repeat(source, 2, axis=1) if source.shape[1] == 1 else source
        if max(*source.shape[:2], *self.map_x.shape) >= _CV2_SIDE_LIMIT:
            return _remap_huge(source, self.map_x, self.map_y, flag).reshape(shape)
        return _remap(source, self.map_x, self.map_y, flag).reshape(shape)


def _remap(
    source: NDArray[Pixels], map_x: NDArray[np.float32], map_y: NDArray[np.float32], flag: int
) -> NDArray[Pixels]:
    """Read `source` at the maps, mirrored outside; all sides below cv2's limit."""
    pixels = cast(NDArray[np.uint8], source)
    pad = _pad_width(source, map_x, map_y) if flag != cv2.INTER_NEAREST else None
    # OpenCV 5 reads four bytes in half the time of three; the results are equal to the bit.
    as_four = pad is not None and source.dtype == np.uint8 and source.shape[2:] == (3,)
    if as_four:
        pixels = cast(NDArray[np.uint8], cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA))
    if pad:
        border = cv2.copyMakeBorder(pixels, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
        pixels = cast(NDArray[np.uint8], border)
        map_x, map_y = map_x + np.float32(pad), map_y + np.float32(pad)
    read = cv2.remap(pixels, map_x, map_y, flag, borderMode=cv2.BORDER_REFLECT_101)
    return cast(NDArray[Pixels], cv2.cvtColor(read, cv2.COLOR_RGBA2RGB) if as_four else read)


def _pad_width(source: NDArray[Pixels], map_x: NDArray[np.float32], map_y: NDArray[np.float32]) -> int | None:
    """Return how far the maps reach over the border, pixels; None where a mirrored copy would not pay.

    cv2 interpolates outside the image three times slower than inside, so a border is added first, unless
    the source is much larger than the crop.
    """
    height, width = source.shape[:2]
    over = max(-map_x.min(), -map_y.min(), map_x.max() - (width - 1), map_y.max() - (height - 1))
    pad = math.ceil(over) + 2 if over > 0 else 0
    return pad if (height + 2 * pad) * (width + 2 * pad) <= 4 * map_x.size else None


def _remap_huge(
    source: NDArray[Pixels], map_x: NDArray[np.float32], map_y: NDArray[np.float32], flag: int
) -> NDArray[Pixels]:
    """Read `source` at the maps where a side is over cv2's limit: fold the maps into the image, read the
    window they touch, and halve the maps while window or maps are too large.
    """
    x, y = _fold(map_x, source.shape[1]), _fold(map_y, source.shape[0])
    (left, right), (top, bottom) = _reach(x, source.shape[1]), _reach(y, source.shape[0])
    if max(right - left, bottom - top, *x.shape) < _CV2_SIDE_LIMIT:
        window = np.ascontiguousarray(source[top:bottom, left:right])
        return _remap(window, x - np.float32(left), y - np.float32(top), flag)
    axis = int(np.argmax(x.shape))
    halves = zip(np.array_split(map_x, 2, axis), np.array_split(map_y, 2, axis), strict=True)
    return np.concatenate([_remap_huge(source, *half, flag) for half in halves], axis)


def _fold(coordinate: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return where in [0, side - 1] the mirrored image is read."""
    if side == 1:
        return np.zeros_like(coordinate)
    period = np.float32(2 * (side - 1))
    folded = np.fmod(np.abs(coordinate), period)
    return np.minimum(folded, period - folded)


def _reach(coordinate: NDArray[np.float32], side: int) -> tuple[int, int]:
    """Return the first pixel and the end of those that a cubic interpolation at the coordinates reads."""
    # An even first pixel: halfway between two pixels the nearest one is the even one.
    return max(int(coordinate.min()) - 1, 0) // 2 * 2, min(int(coordinate.max()) + 4, side)
