"""Gaussian filters over the pixels of an image, divided by their own sums, through which gradients flow.

The filter is linear in its values, so that its derivative is the transposed filter, which the lattice has as its blur
in the reverse order. Positions and colours get no gradients, as in CRF-RNN's release.

Axes: P pixels in reading order, d features, K channels of the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pixelwise.crf.lattice import Float, Lattice, each, shares
from pixelwise.crf.mean_field import FEWEST_POINTS, TINY
from pixelwise.crf.torch_lattice import TorchLattice
from pixelwise.errors import RequestError

Method = Literal["lattice", "exact"]
MOST_EXACT = 10_000  # pixels whose matrix is held: 0.8 GB in double precision
SIZES_KEPT = 8  # of images, whose positions' lattices are used again


class Filter(Protocol):
    """A sum over pixels, weighted by a Gaussian of the distance of their features."""

    def filter(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """Filter values (P, K), or apply the transposed filter."""


class LatticeFilter:
    """The permutohedral lattice on the processor, in float32; threads share the channels."""

    def __init__(self, features: Tensor) -> None:
        points = np.ascontiguousarray(features.numpy())
        with _threads(len(points)) as (pool, count):
            self.lattice = Lattice(points, pool=pool, num_threads=count)

    def filter(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """Filter values, float32 (P, K)."""
        given: Float = values.numpy()
        out = np.empty(given.shape, dtype=np.float32)

        def work(part: tuple[int, int]) -> None:
            columns = slice(*part)
            out[:, columns] = self.lattice.filter(given[:, columns], transposed=transposed)

        with _threads(len(given)) as (pool, count):
            each(pool, work, shares(given.shape[1], count))
        return torch.from_numpy(out)


@contextmanager
def _threads(points: int) -> Iterator[tuple[ThreadPoolExecutor | None, int]]:
    """Open PyTorch's number of threads: a pool, or None where one thread is enough, and how many there are."""
    count = min(torch.get_num_threads(), max(1, points // FEWEST_POINTS))
    if count == 1:
        yield None, 1
        return
    with ThreadPoolExecutor(count) as pool:
        yield pool, count


class ExactFilter:
    """The Gaussian matrix itself, for tests and tiny images."""

    def __init__(self, features: Tensor) -> None:
        if len(features) > MOST_EXACT:
            raise RequestError(
                f"method='exact' for {len(features)} pixels, whose matrix has the square of that; accepted: up to "
                f"{MOST_EXACT} pixels. Use method='lattice'."
            )
        distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
        self.matrix = torch.exp(-distances.square() / 2)  # symmetric

    def filter(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """Filter values (P, K); the transposed filter is the same."""
        return self.matrix @ values


class NormalizedFilter:
    """A filter whose results are divided by what it makes of ones, the normalisation "after" of the dense CRF.

    Args:
        features: (P, d) over the kernel's standard deviations, in the type and on the device of the values.
        method: "lattice", compiled for float32 on the processor and in plain PyTorch else; or "exact" for tiny images.
    """

    def __init__(self, features: Tensor, method: Method) -> None:
        self.base = _base(features, method)
        self.inverse = 1 / (self.base.filter(features.new_ones(len(features), 1)) + TINY)  # (P, 1)

    def __call__(self, values: Tensor) -> Tensor:
        """Filter values (P, K); gradients flow to them."""
        filtered: Tensor = _Filtering.apply(values, self, False)
        return filtered

    def compute(self, values: Tensor, *, transposed: bool) -> Tensor:
        """Filter, then divide; or transposed, divide and then apply the transposed filter."""
        if transposed:
            return self.base.filter(values * self.inverse, transposed=True)
        return self.base.filter(values) * self.inverse


def _base(features: Tensor, method: Method) -> Filter:
    if method == "exact":
        return ExactFilter(features)
    on_processor = features.device.type == "cpu" and features.dtype == torch.float32
    return LatticeFilter(features) if on_processor else TorchLattice(features)


class _Filtering(torch.autograd.Function):
    """A filter of values and, backwards, its transpose; which is a filter again, so that it has all derivatives."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kernel: NormalizedFilter, transposed: bool) -> Tensor:
        ctx.kernel, ctx.transposed = kernel, transposed
        return kernel.compute(values.detach(), transposed=transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Filtering.apply(gradients[0], ctx.kernel, not ctx.transposed), None, None


def spatial_filter(image: Tensor, sigma: float, method: Method) -> NormalizedFilter:
    """Return the filter over positions of an image (C, H, W); that of the last few sizes is built once."""
    _, height, width = image.shape
    return _spatial_filter(height, width, sigma, method, image.dtype, image.device)


@lru_cache(maxsize=SIZES_KEPT)
def _spatial_filter(
    height: int, width: int, sigma: float, method: Method, dtype: torch.dtype, device: torch.device
) -> NormalizedFilter:
    like = torch.empty(0, height, width, dtype=dtype, device=device)
    return NormalizedFilter(pixel_features(like, sigma, 1.0), method)


def bilateral_filter(image: Tensor, spatial_sigma: float, color_sigma: float, method: Method) -> NormalizedFilter:
    """Return the filter over positions and colours of an image (C, H, W)."""
    return NormalizedFilter(pixel_features(image, spatial_sigma, color_sigma), method)


def pixel_features(image: Tensor, spatial_sigma: float, color_sigma: float) -> Tensor:
    """Return (x, y, colours) of each pixel of an image (C, H, W), divided by their sigmas, (P, 2 + C)."""
    _, height, width = image.shape
    rows, columns = (torch.arange(side, dtype=image.dtype, device=image.device) for side in (height, width))
    places = torch.stack([columns.repeat(height), rows.repeat_interleave(width)], dim=1)
    return torch.cat([places / spatial_sigma, image.flatten(1).T / color_sigma], dim=1)
