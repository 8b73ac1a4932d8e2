"""Random changes of training images and their masks: one geometric warp, then changes of the grey values.

Scale, aspect, rotation, flips, crop and U-Net's elastic deformation are fused into one coordinate map, so
each pixel of the crop is interpolated once and no pixel outside the crop is computed. Outside the image the
map reads its mirror image (`np.pad(mode="reflect")`, repeated as often as needed).

Sources: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, arXiv 1505.04597, section 3.1 (elastic deformation: vectors drawn from N(0, 10 px) on a coarse
3x3 grid, bicubic interpolation between them - not Simard's smoothed white noise) and section 2 (mirroring); Quan,
Hildebrand, Jeong, "FusionNet", 2016, arXiv 1612.05360 (eight orientations, a finer grid that is still at the border).

Axes: h, w = size in pixels, C = channels; maps hold x (column) and y (row) of the source image, in pixels.
"""

from __future__ import annotations

import functools
import math
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from pixelwise.data.augment_config import AugmentConfig
from pixelwise.data.warp import IMAGE_DTYPES, Pixels, Size, Warp
from pixelwise.errors import RequestError


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random numbers of one sample, the same whichever worker loads it and in whatever order.

    Args:
        seed: Seed of the run, from 0.
        epoch: Number of the pass over the data, from 0.
        index: Position of the sample in the data set, from 0.

    >>> bool(sample_rng(1, 2, 3).random() == sample_rng(1, 2, 3).random())
    True
    """
    if min(seed, epoch, index) < 0:
        raise RequestError(
            f"seed={seed}, epoch={epoch}, index={index}: accepted are whole numbers from 0; "
            f"give a seed that is not negative"
        )
    # PCG64 by name, since default_rng may change its generator between numpy versions.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch, index))))


def sample_warp(
    rng: np.random.Generator,
    config: AugmentConfig,
    *,
    image_size: Size,
    output_size: Size,
    over: tuple[int, int] | None = None,
    margin: int = 0,
    beyond: int = 0,
) -> Warp:
    """Draw one warp: where each pixel of the crop is read.

    The crop lies inside the image along each axis where the scaled and turned image is large enough, at an
    evenly drawn place in whole pixels, and is centred otherwise. Elastic displacements are added after that
    and may reach over the border, where the image is mirrored.

    Args:
        rng: Random numbers of this sample, see `sample_rng`.
        config: How far samples are changed.
        image_size: (h, w) of the source image, pixels.
        output_size: (h', w') of the crop, pixels.
        over: A source pixel (row, column) that the crop, less its margin, shows at an evenly drawn place, as far as the
            crop can stay inside the image; None lays the crop anywhere.
        margin: Pixels at the crop's borders that do not count as showing.
        beyond: Pixels by which a randomly placed crop may reach over each border of the image, where it is mirrored.

    Raises:
        RequestError: A size is below 1, or the displacement would fold the image over itself.
    """
    _check_sizes(config, image_size, output_size)
    matrix = _sample_matrix(rng, config)
    height, width = output_size
    rows = np.arange(height) - (height - 1) / 2
    columns = np.arange(width) - (width - 1) / 2
    # Half the extent of the crop in the source image, x then y.
    extent = np.abs(matrix) @ np.array([(width - 1) / 2, (height - 1) / 2])
    draws = rng.random(2)
    wanted = None
    if over is not None:
        inner = np.array([max(width / 2 - margin - 1, 0), max(height / 2 - margin - 1, 0)])
        wanted = np.array([over[1], over[0]]) - matrix @ (inner * (2 * draws - 1))
    centre_x, centre_y = (
        _place(
            draws[i],
            config,
            side=image_size[1 - i],
            half_extent=extent[i],
            wanted=None if wanted is None else wanted[i],
            beyond=beyond,
        )
        for i in range(2)
    )
    nodes = rng.standard_normal((2, config.elastic_grid, config.elastic_grid)) * config.elastic_sigma
    if config.elastic_fades:
        nodes[:, [0, -1]] = nodes[:, :, [0, -1]] = 0
    basis = None
    if config.elastic_sigma > 0:
        basis = _cubic_basis(height, config.elastic_grid), _cubic_basis(width, config.elastic_grid)
    return Warp(
        map_x=_coordinate_map(rows * matrix[0, 1], columns * matrix[0, 0] + centre_x, nodes[0], basis),
        map_y=_coordinate_map(rows * matrix[1, 1], columns * matrix[1, 0] + centre_y, nodes[1], basis),
        image_size=image_size,
        interpolation=config.interpolation,
    )


def photometric(rng: np.random.Generator, config: AugmentConfig, image: NDArray[Pixels]) -> NDArray[Pixels]:
    """Blur an image, change its brightness and contrast and add noise: optics, exposure, sensor.

    Args:
        rng: Random numbers of this sample, after `sample_warp`.
        config: How far samples are changed.
        image: (h, w, C) uint8, uint16, or float32 in [0, 1].

    Returns:
        (h, w, C) of the same dtype, clipped to its range; the argument is not changed.

    Raises:
        RequestError: The shape or dtype is another one.
    """
    if image.ndim != 3 or image.dtype not in IMAGE_DTYPES:
        raise RequestError(
            f"image: shape {image.shape}, {image.dtype}; accepted is shape (h, w, C), "
            f"{' or '.join(map(str, IMAGE_DTYPES))}; convert the array"
        )
    draws = rng.random(6)
    if config.blur > 0 and draws[0] < config.blur_probability:
        sigma = max(config.blur * draws[1], 1e-3)
        blurred = cv2.GaussianBlur(cast(NDArray[np.uint8], image), (0, 0), sigma)
        image = cast(NDArray[Pixels], blurred.reshape(image.shape))
    gain = 1 + config.brightness * (2 * draws[2] - 1)
    contrast = 1 + config.contrast * (2 * draws[3] - 1)
    if gain != 1 or contrast != 1:
        image = _stretch(image, gain=gain, contrast=contrast)
    if config.noise > 0 and draws[4] < config.noise_probability:
        image = _add_noise(rng, image, config.noise * draws[5])
    return image


def _check_sizes(config: AugmentConfig, image_size: Size, output_size: Size) -> None:
    if min(*image_size, *output_size) < 1:
        raise RequestError(
            f"image_size={image_size}, output_size={output_size}: accepted are sides from 1 px; "
            f"give sizes as (height, width)"
        )
    # From a quarter of the node distance on, neighbouring nodes begin to change places.
    largest = (min(output_size) - 1) / (config.elastic_grid - 1) / 4
    if config.elastic_sigma > largest:
        grid, (height, width) = config.elastic_grid, output_size
        raise RequestError(
            f"elastic_sigma={config.elastic_sigma:g} px on a {grid}x{grid} grid over a crop of "
            f"{height}x{width} folds the image; accepted are 0 to {math.floor(largest * 10) / 10:g} px; "
            f"lower elastic_sigma or take a larger crop"
        )


def _sample_matrix(rng: np.random.Generator, config: AugmentConfig) -> NDArray[np.float64]:
    """Return the (2, 2) matrix from output offsets (x, y) to source offsets, pixels."""
    draws = rng.random(5)
    low, high = config.scale
    scale = (
        _log_uniform(config.scale, draws[0]) if config.scale_draw == "logarithmic" else low + (high - low) * draws[0]
    )
    if config.scales:
        scale *= config.scales[rng.integers(len(config.scales))]
    aspect = _log_uniform(config.aspect, draws[1])
    angle = math.radians(config.rotation * (2 * draws[2] - 1))
    flip_x = -1.0 if config.horizontal_flip and draws[3] < 0.5 else 1.0
    flip_y = -1.0 if config.vertical_flip and draws[4] < 0.5 else 1.0
    cos, sin = math.cos(angle), math.sin(angle)
    stretch = np.array([scale * math.sqrt(aspect), scale / math.sqrt(aspect)])
    turn = np.array([[cos * flip_x, -sin * flip_y], [sin * flip_x, cos * flip_y]])
    if config.quarter_turns:
        turn = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), rng.integers(4)) @ turn
    return cast(NDArray[np.float64], turn / stretch[:, None])


def _log_uniform(limits: tuple[float, float], draw: float) -> float:
    low, high = limits
    return float(low * (high / low) ** draw)


def _place(
    draw: float, config: AugmentConfig, *, side: int, half_extent: float, wanted: float | None, beyond: int
) -> float:
    """Return the source coordinate of the middle of the crop along one axis: drawn, or the nearest to `wanted`.

    The first pixel of the crop falls on a whole source pixel, so that a crop alone copies pixels exactly.
    """
    # The small term absorbs rounding in the extent of a crop as large as the image.
    slack = math.floor(side + 2 * beyond - 1 - 2 * half_extent + 1e-6)
    if not config.random_crop or slack <= 0:
        return float(slack // 2 - beyond + half_extent)
    if wanted is None:
        return float(math.floor(draw * (slack + 1)) - beyond + half_extent)
    return float(min(max(round(wanted - half_extent) + beyond, 0), slack) - beyond + half_extent)


@functools.lru_cache(maxsize=64)
def _cubic_basis(length: int, num_nodes: int) -> NDArray[np.float64]:
    """Return the (length, num_nodes) matrix of bicubic interpolation along one axis.

    The first and last pixel are nodes; beyond the outer nodes their values are repeated.

    Source: Keys, "Cubic convolution interpolation for digital image processing", 1981, eq. 15 (a = -1/2).
    """
    position = np.linspace(0, num_nodes - 1, length)
    first = np.minimum(position.astype(np.int64), num_nodes - 2)
    basis = np.zeros((length, num_nodes))
    for offset in (-1, 0, 1, 2):
        s = np.abs(position - first - offset)
        inner = 1.5 * s**3 - 2.5 * s**2 + 1
        outer = -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2
        node = np.clip(first + offset, 0, num_nodes - 1)
        basis[np.arange(length), node] += np.where(s <= 1, inner, np.where(s < 2, outer, 0.0))
    basis.setflags(write=False)
    return basis


def _coordinate_map(
    by_row: NDArray[np.float64],
    by_column: NDArray[np.float64],
    nodes: NDArray[np.float64],
    basis: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
) -> NDArray[np.float32]:
    """Return by_row[i] + by_column[j] + (basis_rows @ nodes @ basis_columns.T)[i, j], (h', w') float32."""
    left = np.stack([by_row, np.ones_like(by_row)], axis=1)  # (h', 2)
    right = np.stack([np.ones_like(by_column), by_column])  # (2, w')
    if basis is not None:
        left = np.concatenate([left, basis[0] @ nodes], axis=1)  # (h', 2 + nodes)
        right = np.concatenate([right, basis[1].T])  # (2 + nodes, w')
    # In blocks too small for BLAS to start threads: they would compete with the other loader workers, and
    # the rounding may depend on their number.
    length = max(1, 2**17 // right.size)
    blocks = np.zeros((-(-len(left) // length), length, left.shape[1]), np.float32)
    blocks.reshape(-1, left.shape[1])[: len(left)] = left
    product = (blocks @ right.astype(np.float32)).reshape(-1, right.shape[1])[: len(left)]
    return cast(NDArray[np.float32], product)


def _full_range(image: NDArray[Pixels]) -> float:
    if image.dtype == np.uint8:
        return 255.0
    return float(cast(NDArray[np.uint16], image).max()) if image.dtype == np.uint16 else 1.0


def _stretch(image: NDArray[Pixels], *, gain: float, contrast: float) -> NDArray[Pixels]:
    """Return gain * (contrast * (image - mean) + mean)."""
    flat = cast(NDArray[np.uint8], image.reshape(image.shape[0], -1))  # (h, w * C)
    slope, offset = gain * contrast, gain * (1 - contrast) * cv2.mean(flat)[0]
    if image.dtype == np.uint8:
        table = np.clip(np.rint(np.arange(256) * slope + offset), 0, 255).astype(np.uint8)
        return cast(NDArray[Pixels], cv2.LUT(flat, table).reshape(image.shape))
    values = image.astype(np.float32)
    values *= np.float32(slope)
    values += np.float32(offset)
    return _to_dtype(values, image.dtype)


@functools.lru_cache(maxsize=1)
def _normal_quantiles() -> NDArray[np.float32]:
    """Return the 65536 quantiles (i + 1/2) / 65536 of the standard normal distribution, within +-4.3."""
    return cast(NDArray[np.float32], ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32))


def _add_noise(rng: np.random.Generator, image: NDArray[Pixels], fraction: float) -> NDArray[Pixels]:
    """Return the image with Gaussian noise of the given standard deviation, fraction of the full range."""
    # 16 random bits choose a quantile: four times as fast as drawing normal numbers, and as good as those
    # for images, where one step of the range is far wider than the distance of two quantiles.
    words = rng.integers(0, 2**64, size=-(-image.size // 4), dtype=np.uint64)
    chosen = words.view(np.uint16)[: image.size].reshape(image.shape)
    values = np.take(_normal_quantiles() * np.float32(fraction * _full_range(image)), chosen, mode="clip")
    values += cast(NDArray[np.float32], image)
    return _to_dtype(values, image.dtype)


def _to_dtype(values: NDArray[np.float32], dtype: np.dtype[Pixels]) -> NDArray[Pixels]:
    """Return float32 values, which are overwritten, rounded and clipped to the range of an image dtype."""
    if dtype == np.float32:
        return cast(NDArray[Pixels], np.clip(values, 0, 1, out=values))
    np.rint(values, out=values)
    np.clip(values, 0, 255 if dtype == np.uint8 else 65535, out=values)
    return values.astype(dtype)
