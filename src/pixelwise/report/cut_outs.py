"""Confusions as pictures: the part of an image where one class is taken for another, outlined."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.pictures import LabelMap, Picture, colorize, shrink_image, shrink_labels, to_display
from pixelwise.report.confusions import Confusion
from pixelwise.report.examples import Example, InlinePicture, label_picture, labels_seen, photo
from pixelwise.report.tables import Classes

SIDE = 300  # pixels of the longer side of a picture
SMALLEST = 64  # pixels of a window's side: below, nothing can be recognised
ROOM = 1.8  # side of the window for one confused pixel on the side of a square of all
LARGEST = 0.6  # of the longer side of the image
MOST_COVERED = 0.1  # of a picture by outlines
GAPS = (7, 13, 25)  # pixels between the parts of a scattered area that are closed where outlines cover more
INNER, OUTER = (255, 255, 255), (0, 0, 0)  # two lines, so that the outline shows on every colour


@dataclass(frozen=True, kw_only=True)
class CutOut:
    """Image, truth and prediction around the place of a confusion.

    Attributes:
        image: name of the image.
        place: where the window lies in it, in words.
        pictures: with the confused pixels outlined.
        seen: labels in the pictures.
    """

    image: str
    place: str
    pictures: list[InlinePicture]
    seen: set[int]


def cut_out(example: Example, confusion: Confusion, classes: Classes) -> CutOut | None:
    """Cut out where most pixels of a confusion lie; None where the prediction does not hold it any more."""
    truth, prediction = classes.names.index(confusion.truth), classes.names.index(confusion.prediction)
    confused: NDArray[np.bool_] = (example.truth == truth) & (example.prediction == prediction)
    if not confused.any():
        return None
    rows, columns = densest_window(confused)
    part = example.truth[rows, columns], example.prediction[rows, columns]
    size = _shown_size(*part[0].shape)
    outlines = _Outlines.of(shrink_labels(confused[rows, columns].astype(np.uint8), size))
    image = _resized(to_display(example.image)[rows, columns], size)
    painted = [colorize(shrink_labels(labels, size), classes.palette, outside=classes.outside) for labels in part]
    place = f"rows {rows.start} to {rows.stop - 1}, columns {columns.start} to {columns.stop - 1}"
    words = f"{example.name}, {place}, outlined where {confusion.truth} is taken for {confusion.prediction}"
    return CutOut(
        image=example.name,
        place=place,
        pictures=[
            photo(outlines.drawn_on(image), "Image", f"Image {words}"),
            label_picture(outlines.drawn_on(painted[0]), "Truth", f"True classes of {words}"),
            label_picture(outlines.drawn_on(painted[1]), "Prediction", f"Predicted classes of {words}"),
        ],
        seen=labels_seen(*part),
    )


def densest_window(marked: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns of the window that holds most marked pixels.

    Args:
        marked: (H, W), at least one is.

    Returns:
        A square, or as much of it as the image has. Its side grows with the number of marked pixels, so that they can
        be seen. Of equal windows it is one in the middle, so that its marked pixels do not touch the edge.
    """
    height, width = marked.shape
    side = round(min(ROOM * math.sqrt(np.count_nonzero(marked)), LARGEST * max(height, width)))
    tall, wide = (min(max(side, SMALLEST), length) for length in (height, width))
    sums = cv2.integral(marked.astype(np.uint8))  # (H + 1, W + 1)
    held = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    best = held == held.max()
    tops = np.flatnonzero(best.any(axis=1))
    top = int(tops[len(tops) // 2])
    lefts = np.flatnonzero(best[top])
    left = int(lefts[len(lefts) // 2])
    return slice(top, top + tall), slice(left, left + wide)


def _shown_size(height: int, width: int) -> tuple[int, int]:
    """Return the size at which a window is shown, enlarged or made smaller."""
    scale = SIDE / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(image: Picture, size: tuple[int, int]) -> Picture:
    if image.shape[0] >= size[0]:
        return shrink_image(image, size)
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC), dtype=np.uint8)


@dataclass(frozen=True, kw_only=True)
class _Outlines:
    """Two lines of two pixels along the edge of an area: one inside, one outside."""

    inner: NDArray[np.bool_]
    outer: NDArray[np.bool_]

    @classmethod
    def of(cls, area: LabelMap) -> _Outlines:
        """Outline an area; the gaps of a scattered one are closed first, lest its lines hide everything."""
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
        for side in (1, *GAPS):
            gaps = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
            closed = cv2.morphologyEx(area, cv2.MORPH_CLOSE, gaps)
            inner = (closed > 0) & (cv2.erode(closed, disc) == 0)
            outer = (closed == 0) & (cv2.dilate(closed, disc) > 0)
            if (inner | outer).mean() <= MOST_COVERED:
                break
        return cls(inner=inner, outer=outer)

    def drawn_on(self, picture: Picture) -> Picture:
        drawn = picture.copy()
        drawn[self.inner] = INNER
        drawn[self.outer] = OUTER
        return drawn
