"""Membranes as lines: thinning to a width of one pixel, and warping without a change of topology.

Both are steps of the ranking of the ISBI 2012 challenge (Arganda-Carreras et al., "Crowdsourcing the creation
of image segmentation algorithms for connectomics", Frontiers in Neuroanatomy 2015). Facts are held to the
organisers' Java, fiji/Trainable_Segmentation at 41c7083: `utils/WatershedTransform2D.java` and
`metrics/WarpingError.java`; the results are equal pixel by pixel.

Cells are 4-connected, membranes 8-connected. Where the original's order of visiting matters, it goes column
by column; so do the loops here, on transposed maps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from pixelwise.errors import RequestError
from pixelwise.metrics.compiled import compile_loop

Mask = npt.NDArray[np.bool_]
Regions = npt.NDArray[np.int32]
_Bytes = npt.NDArray[np.uint8]


def connected_cells(interior: Mask) -> Regions:
    """Number the 4-connected areas of a mask (H, W); 0 = membrane, 1... = cells, in no promised order."""
    _, regions = cv2.connectedComponents(interior.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    return np.asarray(regions, np.int32)


def thin_membranes(interior: npt.ArrayLike) -> Regions:
    """Grow the cells until only lines of one pixel part them, by the watershed of the ISBI 2012 ranking.

    Cells grow pixel by pixel in the order of distance (4-connected); a pixel that two cells reach becomes
    line, and so does a pixel that only lines reach, so that lines are wider in a few places.

    Args:
        interior: (H, W) bool, True inside of cells.

    Returns:
        (H, W) int32, 0 = line, 1... = cells. Without any interior pixel the whole map is one cell, as there.

    Raises:
        RequestError: The mask is not a bool map.

    Source: P. Soille, L. Vincent, "Determining watersheds in digital pictures via flooding simulations",
    1990, as in `WatershedTransform2D.java` with connectivity 4.

    >>> thin_membranes(np.array([[True, False, False, False, True]])).tolist()
    [[1, 1, 0, 2, 2]]
    """
    mask = cell_mask("interior", interior)
    return grown_cells(connected_cells(np.ascontiguousarray(mask.T))).T


def grown_cells(regions: Regions) -> Regions:
    """Thin the membranes of a transposed map: (W, H) connected cells -> (W, H) int32, 0 = line."""
    padded = np.full((regions.shape[0] + 2, regions.shape[1] + 2), -1, np.int32)
    padded[1:-1, 1:-1] = regions
    if _compiled_flood()(padded.reshape(-1), padded.shape[1]) == 0:
        padded[1:-1, 1:-1] = 1
    return np.maximum(padded[1:-1, 1:-1], 0)


def cell_mask(name: str, mask: npt.ArrayLike) -> Mask:
    """Return the mask as an array, or say why it is none: (H, W) bool with at least one pixel is accepted."""
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype != np.bool_ or array.size == 0:
        raise RequestError(
            f"{name} has shape {array.shape} and dtype {array.dtype}. Accepted is a bool map (H, W) with at least "
            "one pixel, True inside of cells. Give for instance labels == 0 where 0 is the class of cells."
        )
    return array


def checked_slice(
    interior_probability: npt.ArrayLike, truth_interior: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], Mask]:
    """Return probabilities as float32 and truth, (H, W) each, or say what is wrong with them."""
    name, array = "interior_probability", np.asarray(interior_probability)
    if array.ndim != 2 or array.dtype.kind not in "fiub" or array.size == 0:
        raise RequestError(
            f"{name} has shape {array.shape} and dtype {array.dtype}. Accepted is one map (H, W) of probabilities with "
            "at least one pixel. Give the probability of cell interior, slice by slice."
        )
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):
        raise RequestError(
            f"{name} holds values from {low:g} to {high:g}. Accepted are probabilities from 0 to 1, none of them nan. "
            "Divide 8-bit maps by 255, and apply softmax or sigmoid to logits."
        )
    truth = cell_mask("truth_interior", truth_interior)
    if array.shape != truth.shape:
        raise RequestError(
            f"{name} has shape {array.shape} and truth_interior has shape {truth.shape}. Both must be equal. Predict "
            "at the size of the labels."
        )
    return array.astype(np.float32), truth


@functools.cache
def _compiled_flood() -> Callable[[Regions, int], int]:
    import numba

    return compile_loop(_flood, [numba.int64(numba.int32[::1], numba.int64)])


def _flood(regions: Regions, stride: int) -> int:
    """Grow the cells in place; regions is flat and padded with -1, lines become -1. Return the cells' pixels."""
    unseen, queued, line = 0, -2, -1
    around = (-stride, -1, stride, 1)
    queue = np.empty(regions.size, np.int32)
    length = num_cell_pixels = 0
    for pixel in range(regions.size):
        if regions[pixel] == unseen:
            for step in around:
                if regions[pixel + step] > 0:
                    regions[pixel] = queued
                    queue[length] = pixel
                    length += 1
                    break
        elif regions[pixel] > 0:
            num_cell_pixels += 1
    done = 0
    while done < length:
        pixel = queue[done]
        done += 1
        cell, meets = line, False
        for step in around:
            other = regions[pixel + step]
            if other > 0:
                meets |= cell > 0 and other != cell
                cell = other
            elif other == unseen:
                regions[pixel + step] = queued
                queue[length] = pixel + step
                length += 1
        regions[pixel] = line if meets else cell
    return num_cell_pixels


def warping_error(interior_probability: npt.ArrayLike, truth_interior: npt.ArrayLike, threshold: float) -> float:
    """Return the share of pixels that still differ after the truth is warped towards the prediction.

    The true map is flipped at differing pixels that are simple: cells (4-connected) and membranes (8-connected)
    stay as many and as connected as they were. The surest pixels come first, those furthest from the threshold;
    passes repeat until nothing changes. What remains are errors of topology: splits, mergers, lost cells.
    Outside of the image is membrane.

    Args:
        interior_probability: (H, W) in [0, 1], taken as float32; above the threshold is cell.
        truth_interior: (H, W) bool, True inside of cells.
        threshold: in [0, 1].

    Raises:
        RequestError: An array is not of that kind, the shapes differ, or the threshold is out of range.

    Source: V. Jain et al., "Boundary learning by optimization with topological constraints", CVPR 2010;
    `WarpingError.java`, `simplePointWarp2d`.
    """
    probability, interior = checked_slice(interior_probability, truth_interior)
    if not 0 <= threshold <= 1:
        raise RequestError(
            f"threshold is {threshold:g}. Accepted are probabilities from 0 to 1. Give for instance 0.5."
        )
    predicted = probability.T.astype(np.float64)  # (W, H)
    truth = np.pad(interior.T.view(np.uint8), 1)  # (W + 2, H + 2)
    differing = np.flatnonzero((predicted > threshold) != interior.T)
    sureness = np.abs(predicted.reshape(-1)[differing] - threshold).astype(np.float32)
    differing = differing[np.argsort(-sureness, kind="stable")]
    column, row = np.divmod(differing, predicted.shape[1])
    order = (column + 1) * truth.shape[1] + row + 1
    return _compiled_warp()(truth.reshape(-1), order, truth.shape[1], _simple_patterns()) / predicted.size


@functools.cache
def _simple_patterns() -> _Bytes:
    """Say of each of the 256 neighbourhoods whether its centre is simple; bit k is neighbour k around it.

    By Yokoi's number of 4-connected areas of cells that touch the centre: it must be 1. Neighbours 0, 2, 4
    and 6 share an edge with the centre.
    """
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1  # (256, 8)
    edge, corner, after = bits[:, ::2], bits[:, 1::2], np.roll(bits[:, ::2], -1, axis=1)
    return np.asarray((edge * (1 - corner * after)).sum(axis=1) == 1, np.uint8)


@functools.cache
def _compiled_warp() -> Callable[[_Bytes, npt.NDArray[np.int64], int, _Bytes], int]:
    import numba

    signature = numba.int64(numba.uint8[::1], numba.int64[::1], numba.int64, numba.uint8[::1])
    return compile_loop(_warp, [signature])


def _warp(truth: _Bytes, differing: npt.NDArray[np.int64], stride: int, simple: _Bytes) -> int:
    """Flip simple pixels of the flat, padded truth in the order of `differing`; return how many remain."""
    around = (1, 1 - stride, -stride, -1 - stride, -1, stride - 1, stride, stride + 1)
    remaining, before = differing.size, -1
    while remaining != before:
        before, remaining = remaining, 0
        for pixel in differing[:before]:
            pattern = 0
            for bit in range(8):
                pattern |= truth[pixel + around[bit]] << bit
            if simple[pattern]:
                truth[pixel] ^= 1
            else:
                differing[remaining] = pixel
                remaining += 1
    return remaining
