"""U-Net's weight map, which makes the network learn the narrow background between touching cells.

Source: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, arXiv 1505.04597, section 3, eq. 2. The paper gives w0 = 10 and sigma of about 5 px.

The usual order: `label_components` where only classes are labelled, `separate_touching`, then
`separation_weights` of the separated instances. Instance maps hold 0 for background.
"""

from __future__ import annotations

import math
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.errors import RequestError

# Weights are exact to this; terms below it are left out.
_TOLERANCE = 5e-7
# find_objects keeps a list as long as the largest id.
_DENSE_IDS = 1 << 17


def separation_weights(
    instances: NDArray[np.integer],
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_balance: bool = True,
    everywhere: bool = False,
) -> NDArray[np.float32]:
    """Return w = w_c + w0 * exp(-(d1 + d2)^2 / (2 sigma^2)) for each pixel.

    d1 and d2 are the Euclidean distances from the pixel to the nearest and to the second nearest instance,
    0 inside an instance and 1 beside it. With fewer than two instances the second term is 0.

    Args:
        instances: (h, w) instance ids, 0 = background. Ignored pixels count as what they are labelled here;
            the loss leaves them out.
        w0: Height of the ridge between two instances.
        sigma: Width of the ridge, pixels.
        class_balance: w_c of a pixel is num_pixels / (num_classes * num_pixels_of_its_class), where the
            classes are foreground and background as far as present: both get the same total weight and
            the mean of w_c is 1. False: w_c is 1.
        everywhere: Add the second term inside instances too, as eq. 2 is written; by default it is added on
            the background only, as common code does.

    Returns:
        (h, w) float32, exact to 1e-6.

    Raises:
        RequestError: The shape, dtype or a value is not accepted.

    Source: U-Net, eq. 2; w_c, w0 and sigma as there.
    """
    _check_instances(instances)
    if not (w0 >= 0 and sigma > 0):
        raise RequestError(
            f"w0={w0:g}, sigma={sigma:g}: accepted are w0 from 0 and sigma above 0 px; give for instance w0=10, sigma=5"
        )
    foreground = instances > 0
    weights = np.ones(instances.shape, np.float64)
    if class_balance:
        weights = _balance(foreground)
    if w0 > _TOLERANCE:
        nearest, second = _two_distances(instances, reach=sigma * math.sqrt(2 * math.log(w0 / _TOLERANCE)))
        near = np.isfinite(second)
        if not everywhere:
            near &= ~foreground
        weights[near] += _ridge(nearest[near], second[near], w0=w0, sigma=sigma)
    return weights.astype(np.float32)


def label_components(labels: NDArray[np.integer], foreground: int | NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the connected areas of the foreground as instances.

    Args:
        labels: (h, w) class ids.
        foreground: Id of the class whose areas are wanted, or a mask (h, w) of the pixels that belong to any
            instance; in a mask, neighbours of different classes belong to different areas.

    Returns:
        (h, w) int32, 0 = other pixels, 1... = areas; two pixels that meet at a corner only belong to two
        areas (4-connectivity). All 0 where there is no foreground.

    Raises:
        RequestError: `labels` is not a map of whole numbers, or the mask has another shape or dtype.

    >>> label_components(np.array([[2, 0, 2]]), 2).tolist()
    [[1, 0, 2]]
    """
    _check_instances(labels, name="labels")
    if isinstance(foreground, np.ndarray) and (foreground.shape != labels.shape or foreground.dtype != np.bool_):
        raise RequestError(
            f"foreground: shape {foreground.shape}, {foreground.dtype}; accepted is a class id or a mask of shape "
            f"{labels.shape}, bool; give for instance labels > 0"
        )
    components = np.zeros(labels.shape, np.int32)
    num_areas = 0
    classes = np.unique(labels[foreground]) if isinstance(foreground, np.ndarray) else [foreground]
    for class_id in classes:
        mask = labels == class_id
        if isinstance(foreground, np.ndarray):
            mask &= foreground
        num_labels, found = cv2.connectedComponents(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
        components += np.where(mask, found + num_areas, 0).astype(np.int32)
        num_areas += num_labels - 1
    return components


def separate_touching(instances: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return the foreground with a background ridge one pixel thin between touching instances.

    Of two instances that share an edge the larger one gives up its border pixels there (equal areas: the
    one with the larger id), so small instances survive. Afterwards no two instances are 4-connected.

    Args:
        instances: (h, w) instance ids, 0 = background.

    Returns:
        (h, w) uint8, 1 = instance, 0 = background or ridge.

    Raises:
        RequestError: `instances` is not a map of whole numbers.

    Source: U-Net, section 3: the separation border is computed by morphological operations.

    >>> separate_touching(np.array([[1, 1, 2, 2, 2]])).tolist()
    [[1, 1, 0, 1, 1]]
    """
    _check_instances(instances)
    result = (instances > 0).astype(np.uint8)
    dense = _dense(instances)
    # Position of each id when sorted by area, then by id.
    rank = np.argsort(np.argsort(np.bincount(dense.ravel()), kind="stable"), kind="stable")
    for first, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        touching = (dense[first] != dense[other]) & (dense[first] > 0) & (dense[other] > 0)
        row, column = np.nonzero(touching)
        first_larger = rank[dense[first][row, column]] > rank[dense[other][row, column]]
        result[first][row[first_larger], column[first_larger]] = 0
        result[other][row[~first_larger], column[~first_larger]] = 0
    return result


def _check_instances(instances: NDArray[np.integer], name: str = "instances") -> None:
    if instances.ndim != 2 or instances.size == 0 or not np.issubdtype(instances.dtype, np.integer):
        raise RequestError(
            f"{name}: shape {instances.shape}, {instances.dtype}; accepted is a map (h, w) of whole numbers "
            f"with at least one pixel; give ids, not probabilities or a stack of masks"
        )
    if np.issubdtype(instances.dtype, np.signedinteger) and int(instances.min()) < 0:
        raise RequestError(
            f"{name}: the smallest id is {int(instances.min())}; accepted are ids from 0 (background); "
            f"set ignored pixels to 0"
        )


def _dense(instances: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the instances with ids small enough for a table; most maps pass unchanged."""
    if int(instances.max()) < _DENSE_IDS:
        return instances
    ids, dense = np.unique(instances, return_inverse=True)
    # Background stays 0 where the map has none.
    return cast(NDArray[np.integer], dense.reshape(instances.shape) + int(ids[0] > 0))


def _balance(foreground: NDArray[np.bool_]) -> NDArray[np.float64]:
    counts = np.array([foreground.size - np.count_nonzero(foreground), np.count_nonzero(foreground)])
    table = foreground.size / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return cast(NDArray[np.float64], np.where(foreground, table[1], table[0]))


def _two_distances(instances: NDArray[np.integer], *, reach: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the distances to the nearest and second nearest instance, (h, w) each, inf beyond `reach` px.

    Each instance is looked at in its own window, `reach` px wider than the instance on every side: no pixel
    outside it can have this instance as its second nearest within reach.
    """
    nearest = np.full(instances.shape, np.inf, np.float32)
    second = np.full(instances.shape, np.inf, np.float32)
    dense, pad = _dense(instances), math.ceil(reach)
    for index, box in enumerate(ndimage.find_objects(dense), start=1):
        if box is None:
            continue
        window = tuple(slice(max(side.start - pad, 0), side.stop + pad) for side in box)
        outside = (dense[window] != index).view(np.uint8)
        distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        np.minimum(second[window], np.maximum(nearest[window], distance), out=second[window])
        np.minimum(nearest[window], distance, out=nearest[window])
    return nearest, second


def _ridge(d1: NDArray[np.float32], d2: NDArray[np.float32], *, w0: float, sigma: float) -> NDArray[np.float64]:
    """Return w0 * exp(-(d1 + d2)^2 / (2 sigma^2)) of distances in pixels."""
    # Squared distances between pixels are whole numbers, which removes the rounding of float32.
    exact = [np.sqrt(np.rint(np.square(d, dtype=np.float64))) for d in (d1, d2)]
    return cast(NDArray[np.float64], w0 * np.exp(-np.square(exact[0] + exact[1]) / (2 * sigma**2)))
