"""Banks of filters whose responses describe the texture around a pixel.

- "textonboost17": J. Winn, A. Criminisi, T. Minka, "Object Categorization by Learned Universal Visual Dictionary", ICCV
  2005, and TextonBoost (see `textonboost.py`): 17 filters on CIELab.
- "mr8": M. Varma, A. Zisserman, "A Statistical Approach to Texture Classification from Single Images", IJCV 62, 2005:
  38 kernels, of which the strongest of each six orientations is kept: 8 responses.
- "lm": T. Leung, J. Malik, "Representing and Recognizing the Visual Appearance of Materials using Three-dimensional
  Textons", IJCV 43, 2001: 48 kernels.
- "schmid": C. Schmid, "Constructing models for content-based image retrieval", CVPR 2001: 13 kernels.

Filters are the analytic functions at the pixels' centres, as far as 5 standard deviations (the last three: in a window
of 49x49). Images are convolved, borders reflected with the edge pixel repeated, so the response to a single bright
pixel is the kernel itself, and an edge that gets brighter to the right or downwards has a positive derivative.

Where implementations of the 17 differ (DARWIN and STAIR take kernels of 2 int(kappa sigma) + 1 pixels, derivatives of
3 pixels and 8-bit Lab), ours is the paper's; the order of the filters and the derivatives' 1:3 elongation are theirs.
The other three work on L, the lightness, where their authors had grey images.

Axes: H, W image; F filters; R responses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import RequestError, closest

Float = NDArray[np.float32]

TRUNCATE = 5.0  # standard deviations at which a Gaussian ends
WINDOW = 24  # pixels from the centre to the border of the 49x49 kernels
ORIENTATIONS = 6

# sRGB (IEC 61966-2-1) to XYZ over the white point D65, in the digits of scikit-image's rgb2lab.
TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = np.array([0.95047, 1.0, 1.08883])


@dataclass(frozen=True, kw_only=True, eq=False)
class Filter:
    """One filter, of one channel of Lab.

    Attributes:
        channel: 0, 1, 2: L, a or b.
        terms: pairs of kernels along the columns and along the rows, float32 of odd lengths; the filter is the sum of
            their outer products. Empty if it isn't separable.
        window: the kernel, float32 of odd sides, if it isn't separable.
    """

    channel: int
    terms: tuple[tuple[Float, Float], ...] = ()
    window: Float | None = None

    @property
    def kernel(self) -> Float:
        """The kernel, float32 of odd sides."""
        if self.window is not None:
            return self.window
        products: Float = np.stack([np.outer(y, x) for y, x in self.terms])
        return np.asarray(products.sum(axis=0), np.float32)

    def response(self, plane: Float) -> Float:
        """Convolve a channel (H, W)."""
        if self.window is not None:
            # OpenCV correlates: the kernel is turned by 180 degrees.
            turned = np.ascontiguousarray(self.window[::-1, ::-1])
            return np.asarray(cv2.filter2D(plane, cv2.CV_32F, turned, borderType=cv2.BORDER_REFLECT), np.float32)
        total = np.zeros_like(plane)
        for y, x in self.terms:
            total += cv2.sepFilter2D(plane, cv2.CV_32F, x[::-1], y[::-1], borderType=cv2.BORDER_REFLECT)
        return total


@dataclass(frozen=True, kw_only=True, eq=False)
class FilterBank:
    """Filters, and which of their responses are kept.

    Attributes:
        name: public name.
        filters: F filters.
        groups: how many filters in a row share a response, their maximum; R numbers that add up to F.
    """

    name: str
    filters: tuple[Filter, ...]
    groups: tuple[int, ...]

    @property
    def num_responses(self) -> int:
        """R."""
        return len(self.groups)

    def responses(self, image: NDArray[np.uint8]) -> Float:
        """Filter an image.

        Args:
            image: uint8 (H, W, 3), RGB.

        Returns:
            float32 (R, H, W), in units of Lab (L from 0 to 100), per pixel and pixel squared for derivatives of the
            first and second order.

        Raises:
            RequestError: if the image has another form.
        """
        planes = lab(image)
        out = np.empty((self.num_responses, *planes.shape[1:]), dtype=np.float32)
        first = 0
        for response, size in zip(out, self.groups, strict=True):
            group = self.filters[first : first + size]
            response[...] = group[0].response(planes[group[0].channel])
            for other in group[1:]:
                np.maximum(response, other.response(planes[other.channel]), out=response)
            first += size
        return out


def lab(image: NDArray[np.uint8]) -> Float:
    """Convert an image to CIELab over D65.

    Args:
        image: uint8 (H, W, 3), sRGB.

    Returns:
        float32 (3, H, W): L from 0 to 100, a and b about from -110 to 110.

    Raises:
        RequestError: if the image has another form.

    >>> lab(np.full((1, 1, 3), 255, np.uint8)).round(1).ravel().tolist()
    [100.0, -0.0, 0.0]
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise RequestError(
            f"image has shape {image.shape} and type {image.dtype}; accepted: (H, W, 3) of uint8 with at least one "
            "pixel. Convert it to RGB of 8 bits."
        )
    linear: Float = LINEAR[image].reshape(-1, 3)  # (H * W, 3)
    relative = (TO_XYZ / WHITE[:, None]).astype(np.float32) @ linear.T  # (3, H * W)
    bent = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + np.float32(16 / 116))
    out: Float = np.empty_like(bent)
    out[0] = 116 * bent[1] - 16
    out[1] = 500 * (bent[0] - bent[1])
    out[2] = 200 * (bent[1] - bent[2])
    planes: Float = out.reshape(3, *image.shape[:2])
    return planes


def _linear() -> Float:
    """Return the linear light of each 8-bit value of sRGB, float32 (256,)."""
    value = np.arange(256) / 255
    return np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92).astype(np.float32)


LINEAR = _linear()


def gaussian(sigma: float, order: int = 0) -> Float:
    """Sample a Gaussian or its first or second derivative, with the sums of the analytic function: 1, 0 and 0.

    Args:
        sigma: standard deviation in pixels, above 0.
        order: of the derivative, 0, 1 or 2.

    Returns:
        float32 (2 n + 1,), n the next whole number from 5 sigma on.
    """
    radius = max(1, math.ceil(TRUNCATE * sigma))
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    density = np.exp(-0.5 * (x / sigma) ** 2)
    density /= density.sum()
    if order == 1:
        density = -x / sigma**2 * density
    elif order == 2:
        curve = (x**2 / sigma**4 - 1 / sigma**2) * density
        density = curve - curve.sum() * density  # what was cut off
    return density.astype(np.float32)


def _laplacian(channel: int, sigma: float) -> Filter:
    smooth, curve = gaussian(sigma), gaussian(sigma, 2)
    return Filter(channel=channel, terms=((smooth, curve), (curve, smooth)))


def _textonboost17(kappa: float) -> FilterBank:
    """Gaussians of all channels, then x and y derivatives and Laplacians of L."""
    smooth = [
        Filter(channel=channel, terms=((gaussian(kappa * sigma), gaussian(kappa * sigma)),))
        for sigma in (1, 2, 4)
        for channel in range(3)
    ]
    slopes = [
        Filter(channel=0, terms=(pair,))
        for sigma in (2, 4)
        for slope, along in [(gaussian(kappa * sigma, 1), gaussian(3 * kappa * sigma))]
        for pair in ((along, slope), (slope, along))
    ]
    filters = (*smooth, *slopes, *(_laplacian(0, kappa * sigma) for sigma in (1, 2, 4, 8)))
    return FilterBank(name="textonboost17", filters=filters, groups=(1,) * len(filters))


def _mr8(kappa: float) -> FilterBank:
    """Edges and bars in 3 sizes and 6 orientations, a Gaussian and a Laplacian."""
    sizes = [kappa * size for size in (1, 2, 4)]
    oriented = [
        _window(_oriented(size, order, angle, kappa)) for order in (1, 2) for size in sizes for angle in _angles()
    ]
    x, y = _grid(kappa)
    blob = np.exp(-(x**2 + y**2) / (2 * (10 * kappa) ** 2))
    filters = (*oriented, _window(blob, balanced=False), _window(_hat(10 * kappa, kappa)))
    return FilterBank(name="mr8", filters=filters, groups=(ORIENTATIONS,) * 6 + (1, 1))


def _lm(kappa: float) -> FilterBank:
    """Edges and bars in 3 sizes and 6 orientations, 8 Laplacians, 4 Gaussians."""
    sizes = [kappa * math.sqrt(2) ** power for power in (1, 2, 3, 4)]
    oriented = [
        _window(_oriented(size, order, angle, kappa)) for order in (1, 2) for size in sizes[:3] for angle in _angles()
    ]
    hats = [_window(_hat(factor * size, kappa)) for factor in (1, 3) for size in sizes]
    x, y = _grid(kappa)
    blobs = [_window(np.exp(-(x**2 + y**2) / (2 * size**2)), balanced=False) for size in sizes]
    filters = (*oriented, *hats, *blobs)
    return FilterBank(name="lm", filters=filters, groups=(1,) * len(filters))


def _schmid(kappa: float) -> FilterBank:
    """Rings: cos(pi tau r / sigma) exp(-r^2 / 2 sigma^2)."""
    x, y = _grid(kappa)
    radius = np.hypot(x, y)
    pairs = [
        (2, 1),
        (4, 1),
        (4, 2),
        *((s, tau) for s in (6, 8) for tau in (1, 2, 3)),
        *((10, tau) for tau in (1, 2, 3, 4)),
    ]
    filters = tuple(
        _window(np.cos(math.pi * tau * radius / (kappa * s)) * np.exp(-(radius**2) / (2 * (kappa * s) ** 2)))
        for s, tau in pairs
    )
    return FilterBank(name="schmid", filters=filters, groups=(1,) * len(filters))


def _grid(kappa: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the x and the y of each pixel of a window, from its centre."""
    half = max(1, round(WINDOW * kappa))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    return x, y


def _angles() -> list[float]:
    return [math.pi * step / ORIENTATIONS for step in range(ORIENTATIONS)]


def _oriented(sigma: float, order: int, angle: float, kappa: float) -> NDArray[np.float64]:
    """Return a derivative of a Gaussian, three times as long as wide, turned from the horizontal bar or edge."""
    x, y = _grid(kappa)
    along = math.cos(angle) * x - math.sin(angle) * y
    across = math.sin(angle) * x + math.cos(angle) * y
    bell = np.exp(-0.5 * ((along / (3 * sigma)) ** 2 + (across / sigma) ** 2))
    return bell * (-across / sigma**2 if order == 1 else (across**2 - sigma**2) / sigma**4)


def _hat(sigma: float, kappa: float) -> NDArray[np.float64]:
    """Return a Laplacian of a Gaussian."""
    x, y = _grid(kappa)
    squared = x**2 + y**2
    return (squared - 2 * sigma**2) / sigma**4 * np.exp(-squared / (2 * sigma**2))


def _window(kernel: NDArray[np.float64], *, balanced: bool = True) -> Filter:
    """Make a filter of L whose absolute values sum to 1, and whose values sum to 0 if balanced."""
    if balanced:
        kernel = kernel - kernel.mean()
    return Filter(channel=0, window=(kernel / np.abs(kernel).sum()).astype(np.float32))


BANKS: MappingProxyType[str, Callable[[float], FilterBank]] = MappingProxyType(
    {"textonboost17": _textonboost17, "mr8": _mr8, "lm": _lm, "schmid": _schmid}
)


def filter_bank(name: str = "textonboost17", *, kappa: float = 1.0) -> FilterBank:
    """Make a bank.

    Args:
        name: "textonboost17", "mr8", "lm" or "schmid".
        kappa: factor of all standard deviations, above 0; the windows of the last three grow with it.

    Raises:
        RequestError: if the name is unknown or kappa isn't above 0.

    >>> [filter_bank(name).num_responses for name in BANKS]
    [17, 8, 48, 13]
    """
    if name not in BANKS:
        raise RequestError(f"filter bank {name!r} is unknown; accepted: {', '.join(BANKS)}. Did you mean: "
                           f"{closest(name, BANKS, 1)}?")  # fmt: skip
    if not 0 < kappa < math.inf:
        raise RequestError(f"kappa is {kappa!r}; accepted: a number above 0. Give for example 1.")
    return BANKS[name](kappa)
