"""Edge maps for object proposals: thin lines with a strength and a direction, from an image or from any detector.

EdgeBoxes was published on the edges of Structured Forests, whose trained trees are not part of this package. The
default here, `gradient_edges`, is the plain gradient, which finds texture as well as outlines: on 36 COCO pictures the
average recall of objects above 32 x 32 pixels is 0.17 at 50 boxes and 0.46 at 1000. `structured_edges` runs the
original forest where OpenCV's contributed modules and the trees are at hand; `edges_of_map` takes any other detector's
map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.data.images import AnyArray
from pixelwise.errors import RequestError

Map = NDArray[np.float32]

SMOOTHING = 2.5  # pixels, deviation of the Gaussian whose derivatives are the gradient
THINNING_RADIUS = 2
TRIANGLE = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25  # radius 4, as the original smooths before it takes directions


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Thinned edges.

    Attributes:
        strength: float32 (H, W), from 0 (none) to 1.
        direction: float32 (H, W), the angle of the edge's normal in radians, from 0 to pi; x to the right, y down.
    """

    strength: Map
    direction: Map

    def __post_init__(self) -> None:
        shapes = self.strength.shape, self.direction.shape
        if self.strength.ndim != 2 or shapes[0] != shapes[1]:
            raise RequestError(f"edges have shapes {shapes[0]} and {shapes[1]}; accepted: (H, W) twice. Give one map.")


def gradient_edges(image: AnyArray) -> Edges:
    """Return the edges of an image (H, W, C), or (H, W), by its gradient.

    The gradients of all channels make one tensor for each pixel (Di Zenzo 1986); its larger eigenvalue is the squared
    strength and its eigenvector the direction. The strongest edge of the image has strength 1.
    """
    channels = image[:, :, None] if image.ndim == 2 else image
    xx, xy, yy = (np.zeros(channels.shape[:2], np.float32) for _ in range(3))
    for channel in np.moveaxis(channels.astype(np.float32), 2, 0):
        dx = ndimage.gaussian_filter(channel, SMOOTHING, order=(0, 1), mode="nearest")
        dy = ndimage.gaussian_filter(channel, SMOOTHING, order=(1, 0), mode="nearest")
        xx, xy, yy = xx + dx * dx, xy + dx * dy, yy + dy * dy
    larger = (xx + yy + np.hypot(xx - yy, 2 * xy)) / 2
    direction = np.mod(np.arctan2(2 * xy, xx - yy) / 2, np.pi).astype(np.float32)
    return _thinned(np.sqrt(larger), direction)


def edges_of_map(strength: AnyArray) -> Edges:
    """Return thinned edges of a map of edge strengths (H, W), such as another detector's; the strongest becomes 1.

    Directions come from the second derivatives of the smoothed map, as in the original.

    Raises:
        RequestError: if the map has other axes or holds negative or undefined strengths.
    """
    if strength.ndim != 2 or not np.isfinite(strength).all() or (strength < 0).any():
        raise RequestError(
            f"the edge map has shape {strength.shape} and values from {np.min(strength):g} to {np.max(strength):g}; "
            "accepted: (H, W), finite, from 0. Give one strength for each pixel."
        )
    return _thinned(strength.astype(np.float32), directions(strength.astype(np.float32)))


def directions(strength: Map) -> Map:
    """Return the angles of the normals of a map's ridges, float32 (H, W), from 0 to pi.

    The original's rule: exact along the axes and diagonals, up to a quarter radian off between. Where the mixed
    derivative is exactly 0, its sign counts as negative; the original's 0 would turn ridges along x by a right angle.
    """
    smooth = ndimage.convolve1d(ndimage.convolve1d(strength, TRIANGLE, axis=0), TRIANGLE, axis=1)
    dy, dx = (_difference(smooth, axis) for axis in (0, 1))
    yy, xy, xx = _difference(dy, 0), _difference(dx, 0), _difference(dx, 1)
    angle: Map = np.mod(np.arctan(np.where(xy > 0, -yy, yy) / (xx + np.float32(1e-5))), np.float32(np.pi))
    return angle


def structured_edges(image: AnyArray, forest: str | Path) -> Edges:
    """Return the edges of an 8-bit colour image (H, W, 3) by Structured Forests, run by OpenCV.

    Args:
        image: RGB.
        forest: the trained trees in OpenCV's format ("model.yml.gz").

    Raises:
        RequestError: if OpenCV lacks its contributed modules, or cannot read the trees.
    """
    contributed = getattr(cv2, "ximgproc", None)
    if contributed is None:
        raise RequestError(
            f"OpenCV {cv2.__version__} has no module ximgproc, which structured edges need; accepted: a build with the "
            "contributed modules. Install opencv-contrib-python-headless in its place, or use gradient edges."
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise RequestError(
            f"structured edges of an image of shape {image.shape}, {image.dtype}; accepted: (H, W, 3), uint8. Convert "
            "it, or use gradient edges."
        )
    if not Path(forest).is_file():
        raise RequestError(
            f"{forest} is no file; accepted: trained trees such as OpenCV's model.yml.gz. Give its path, or use "
            "gradient edges."
        )
    detector: Any = contributed.createStructuredEdgeDetection(str(forest))
    strength: Map = detector.detectEdges(image.astype(np.float32) / 255)
    direction = detector.computeOrientation(strength)
    return Edges(strength=detector.edgesNms(strength, direction, THINNING_RADIUS, 0, 1, True), direction=direction)


def _difference(values: Map, axis: int) -> Map:
    """Return central differences along an axis, one-sided ones at the borders, zeros along an axis of one pixel."""
    if values.shape[axis] == 1:
        return np.zeros_like(values)
    slope: Map = np.gradient(values, axis=axis).astype(np.float32)
    return slope


def _thinned(strength: Map, direction: Map) -> Edges:
    """Drop what is weaker than a neighbour along the normal, up to two pixels away, and scale the strongest to 1."""
    rows, columns = np.indices(strength.shape, dtype=np.float32)
    keep = np.ones(strength.shape, dtype=bool)
    for step in (*range(-THINNING_RADIUS, 0), *range(1, THINNING_RADIUS + 1)):
        place = np.stack([rows + step * np.sin(direction), columns + step * np.cos(direction)])
        keep &= strength >= ndimage.map_coordinates(strength, place, order=1, mode="nearest")
    strongest = strength.max(initial=0)
    thin = np.where(keep, strength / strongest if strongest > 0 else 0, 0).astype(np.float32)
    return Edges(strength=thin, direction=direction)
