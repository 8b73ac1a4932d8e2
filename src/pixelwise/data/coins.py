"""The coins photograph that scikit-image carries, with our annotation of its 24 coins.

The photograph: Greek coins from Pompeii, Brooklyn Museum Collection, "no known copyright restrictions"
(docstring of `skimage.data.coins`). The outlines are ours: `coins.json`, one ellipse per coin, or a polygon
where the coin is not an ellipse to half a pixel.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, PositiveFloat

from pixelwise.data.folder import FolderItem, write_dataset_folder
from pixelwise.errors import WorkError

CLASSES = ("background", "coin")
PALETTE = ((0, 0, 0), (230, 180, 40))
TERMS = (
    "Photograph: scikit-image's `coins`, from the Brooklyn Museum Collection "
    "(https://www.brooklynmuseum.org/opencollection/archives/image/51611); no known copyright restrictions. "
    "Annotation: pixelwise, Apache-2.0."
)

_SHAPE = (303, 384)
_PIXELS_SHA256 = "e080cc03805f1fa70516c3cb84883d4633bda2a1b51841da7c22f3d14c072451"

# Between the third and the fourth row of coins: 18 coins above to train on, 6 below to test on. The columns
# of coins are staggered, so no upright cut comes near two thirds; the next higher cut leaves half.
_CUT_ROW = 225

Point = tuple[float, float]


class Ellipse(BaseModel):
    """An outline by numbers, in pixels, with pixel centres at whole numbers.

    Attributes:
        center: (x, y).
        axes: The two half axes.
        angle: Degrees by which the first axis is turned from x towards y.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    center: Point
    axes: tuple[PositiveFloat, PositiveFloat]
    angle: float

    def contains(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say which points lie inside or on the outline; x and y broadcast."""
        turn = np.deg2rad(self.angle)
        dx, dy = x - self.center[0], y - self.center[1]
        along = dx * np.cos(turn) + dy * np.sin(turn)
        across = dy * np.cos(turn) - dx * np.sin(turn)
        inside: NDArray[np.bool_] = (along / self.axes[0]) ** 2 + (across / self.axes[1]) ** 2 <= 1
        return inside


class Polygon(BaseModel):
    """An outline by corners, closed from the last to the first.

    Attributes:
        polygon: (x, y) per corner, in pixels, with pixel centres at whole numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    polygon: tuple[Point, ...]

    def contains(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say which points lie inside by the even-odd rule; x and y broadcast.

        A point on an outline counts for the side to its right or below, so two polygons that share an edge
        neither share a point nor miss one.
        """
        inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.bool_)
        corners = self.polygon
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if y0 != y1:
                inside ^= ((y0 <= y) != (y1 <= y)) & (x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x)
        return inside


class _Annotation(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    picture: str
    convention: str
    method: str
    coins: tuple[Ellipse | Polygon, ...]


def coins_image() -> NDArray[np.uint8]:
    """Read the photograph from the installed scikit-image; nothing is downloaded.

    Returns:
        Grey values, uint8 (303, 384).

    Raises:
        WorkError: This scikit-image has no such picture, or another one, which our outlines would not fit.

    >>> coins_image().shape
    (303, 384)
    """
    source = files("skimage.data") / "coins.png"
    try:
        with source.open("rb") as stream:
            image: NDArray[np.uint8] = np.array(Image.open(stream))
    except OSError as error:
        raise WorkError(f"{source} cannot be read: {error}; reinstall scikit-image") from error
    if hashlib.sha256(image.tobytes()).hexdigest() != _PIXELS_SHA256:
        raise WorkError(
            f"{source} ({image.dtype} {image.shape}) is not the picture that our outlines were drawn on; "
            "install a scikit-image whose data.coins() is the uint8 (303, 384) one, such as 0.24 to 0.26"
        )
    return image


def coins_instances() -> NDArray[np.uint16]:
    """Draw the annotation: a pixel belongs to the coin that its centre lies in.

    Returns:
        0 for background and 1..24 for the coins, rows from the top, left to right; uint16 (303, 384).

    >>> int(coins_instances().max())
    24
    """
    instances = np.zeros(_SHAPE, dtype=np.uint16)
    y, x = np.ogrid[: _SHAPE[0], : _SHAPE[1]]
    for number, outline in enumerate(coins_outlines(), start=1):
        instances[outline.contains(x.astype(np.float64), y.astype(np.float64))] = number
    return instances


def coins_outlines() -> tuple[Ellipse | Polygon, ...]:
    """Return the 24 outlines of `coins.json`, in the order of their numbers in `coins_instances`."""
    text = (files("pixelwise.data") / "coins.json").read_text(encoding="utf-8")
    return _Annotation.model_validate(json.loads(text)).coins


def write_coins(folder: Path) -> Path:
    """Write the photograph and its annotation as a dataset folder with the splits `train` and `val`.

    `train` is the upper part, 225 of 303 pixel rows with three rows of coins (18); `val` is the rest, with
    the last row of coins (6). The two share no pixel and cut no coin. Object ids stay those of the whole
    picture.



    Args:
        folder: The folder to make; files of an earlier call are replaced with equal ones.

    Returns:
        The folder, as given.

    Raises:
        RequestError: `folder` is a file.
        WorkError: The photograph cannot be read or the folder cannot be written.
    """
    image, instances = coins_image(), coins_instances()
    parts = {"train": slice(0, _CUT_ROW), "val": slice(_CUT_ROW, _SHAPE[0])}
    items = [
        FolderItem(
            split=split,
            name=f"coins-{split}",
            image=image[rows],
            labels=(instances[rows] > 0).astype(np.uint8),
            instances=instances[rows],
        )
        for split, rows in parts.items()
    ]
    return write_dataset_folder(folder, items, name="coins", classes=CLASSES, palette=PALETTE, terms=TERMS)
