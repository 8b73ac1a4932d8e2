"""Boxes that may hold objects, from the image itself, from OpenCV or from a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelwise.data.images import AnyArray
from pixelwise.data.normalise import resize_image
from pixelwise.engine.edge_boxes import DEFAULT, EdgeBoxSettings, edge_boxes
from pixelwise.engine.edges import Edges, gradient_edges
from pixelwise.errors import RequestError

LONGEST = 500  # pixels of the longer side, VOC's images; the method's sizes are meant for them
COLUMNS = ("x1", "y1", "x2", "y2")
SUFFIXES = (".json", ".csv", ".npy")


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Boxes in an image, best first where they have scores.

    Attributes:
        corners: float64 (N, 4), x1, y1, x2, y2 in pixels from the outer corner of the first pixel, so that a box of
            all pixels is 0, 0, W, H.
        scores: float64 (N); None where they are not known.
    """

    corners: NDArray[np.float64]
    scores: NDArray[np.float64] | None = None


def propose(
    image: AnyArray,
    *,
    count: int = 2000,
    edges: Callable[[AnyArray], Edges] = gradient_edges,
    settings: EdgeBoxSettings = DEFAULT,
) -> Boxes:
    """Propose boxes for an image (H, W, C) by EdgeBoxes.

    Args:
        image: stored values; one whose longer side has more than 500 pixels is searched at that size.
        count: boxes at most.
        edges: from an image to its edges.
        settings: of the method.
    """
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    small = resize_image(image, scale)
    corners, scores = edge_boxes(edges(small), count=count, settings=settings)
    across, down = image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]
    return Boxes(corners=corners * [across, down, across, down], scores=scores)


def opencv_edge_boxes(edges: Edges, *, count: int = 2000, settings: EdgeBoxSettings = DEFAULT) -> Boxes:
    """Propose boxes by OpenCV's EdgeBoxes, for those who have a build with the contributed modules.

    Raises:
        RequestError: if OpenCV has no such module.
    """
    contributed = getattr(cv2, "ximgproc", None)
    if contributed is None:
        raise RequestError(
            f"OpenCV {cv2.__version__} has no module ximgproc; accepted: a build with the contributed modules. Install "
            "opencv-contrib-python-headless in its place, or use `propose`."
        )
    method: Any = contributed.createEdgeBoxes(
        alpha=settings.alpha,
        beta=settings.beta,
        minScore=settings.least_score,
        maxBoxes=count,
        edgeMinMag=settings.least_edge,
        edgeMergeThr=settings.most_turn,
        clusterMinMag=settings.least_group,
        maxAspectRatio=settings.most_aspect,
        minBoxArea=settings.least_area,
        gamma=settings.gamma,
        kappa=settings.kappa,
    )
    boxes, scores = method.getBoundingBoxes(edges.strength, edges.direction)
    rows = np.asarray(boxes, np.float64).reshape(-1, 4)
    left, top = rows[:, 0] - 1, rows[:, 1] - 1  # it counts pixels from 1, and the last pixel out
    corners = np.stack([left, top, left + rows[:, 2] + 1, top + rows[:, 3] + 1], axis=1)
    return Boxes(corners=corners, scores=np.asarray(scores, np.float64).reshape(-1))


def read_boxes(path: Path | str) -> Boxes:
    """Read boxes of one image from a file.

    Accepted: JSON, a list of objects with x1, y1, x2, y2 and perhaps score, or of lists of these four or five
    numbers; CSV with a line of these names; NPY, (N, 4) or (N, 5). Boxes with scores are sorted, best first.

    Raises:
        RequestError: if the file is none of these, or a box is not one.
    """
    place = Path(path)
    if not place.is_file() or place.suffix.lower() not in SUFFIXES:
        what = "has another ending" if place.is_file() else "is no file"
        raise RequestError(f"boxes {place}: it {what}; accepted: {', '.join(SUFFIXES)} files. Give the path of one.")
    try:
        rows = _READERS[place.suffix.lower()](place.read_bytes())
    except (KeyError, TypeError, ValueError, EOFError, OSError) as error:
        raise _unreadable(str(place), error) from error
    return boxes_of_rows(rows, str(place))


def boxes_of_rows(rows: Sequence[Any] | NDArray[Any], place: str) -> Boxes:
    """Return boxes from rows of four or five numbers, x1, y1, x2, y2 and perhaps score, best first where scored.

    Raises:
        RequestError: if the rows are none; it names `place`.
    """
    try:
        table = np.asarray(rows, np.float64).reshape(len(rows), -1) if len(rows) else np.empty((0, 4))
    except (TypeError, ValueError) as error:
        raise _unreadable(place, error) from error
    if table.shape[1] not in (4, 5):
        raise RequestError(
            f"boxes {place} has rows of {table.shape[1]} numbers; accepted: 4 (x1, y1, x2, y2) or 5 (and score). "
            "Correct them."
        )
    _check(place, table)
    if table.shape[1] == 4:
        return Boxes(corners=table)
    table = table[np.argsort(-table[:, 4], kind="stable")]
    return Boxes(corners=table[:, :4], scores=table[:, 4])


def check_inside(boxes: Boxes, size: tuple[int, int], image: str) -> None:
    """Refuse boxes that leave an image of (height, width) pixels."""
    corners, (height, width) = boxes.corners, size
    outside = (corners[:, :2] < 0).any(axis=1) | (corners[:, 2] > width) | (corners[:, 3] > height)
    if outside.any():
        row = int(np.argmax(outside))
        numbers = ", ".join(f"{value:g}" for value in corners[row])
        raise RequestError(
            f"box {numbers} is not inside {image}, {height} x {width} pixels; accepted: x1 and y1 from 0, x2 up to "
            f"{width}, y2 up to {height}. Cut it at the image's border, or give the boxes of this image."
        )


def _unreadable(place: str, error: Exception) -> RequestError:
    return RequestError(
        f"boxes {place} cannot be read ({type(error).__name__}: {error}); accepted: rows of x1, y1, x2, y2 and "
        "perhaps score, equally long. Correct them."
    )


def _check(place: str, table: NDArray[np.float64]) -> None:
    """Refuse rows with numbers that are not finite, or without area."""
    wrong = ~np.isfinite(table).all(axis=1) | (table[:, 2] <= table[:, 0]) | (table[:, 3] <= table[:, 1])
    if wrong.any():
        row = int(np.argmax(wrong))
        numbers = ", ".join(f"{value:g}" for value in table[row])
        raise RequestError(
            f"boxes {place}: box {row + 1} of {len(table)} is {numbers}; accepted: finite numbers, x1 < x2, y1 < y2 "
            "(corners, not width and height). Correct it."
        )


def _json_rows(content: bytes) -> list[list[Any]]:
    given = json.loads(content)
    if not isinstance(given, list):
        raise ValueError("not a list of boxes")
    return [named_row(row) if isinstance(row, dict) else row for row in given]


def _csv_rows(content: bytes) -> list[list[Any]]:
    return [named_row(row) for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig")), skipinitialspace=True)]


def _npy_rows(content: bytes) -> list[Any]:
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.ndim != 2:
        raise ValueError(f"an array of shape {array.shape}")
    return list(array)


def named_row(row: Mapping[str, Any]) -> list[Any]:
    """Return the numbers of a row with names."""
    return [row[name] for name in COLUMNS] + ([row["score"]] if "score" in row else [])


_READERS: dict[str, Callable[[bytes], list[Any]]] = {".json": _json_rows, ".csv": _csv_rows, ".npy": _npy_rows}
