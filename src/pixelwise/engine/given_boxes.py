"""Boxes that a user gives for images, in place of proposals: from other detectors, by hand, from a cache.

One file for many images, or a folder of files. Images are named by their file names, with or without ending.

- CSV: `image,x1,y1,x2,y2` and perhaps `score`, a line for each box; `NAME,,,,` says that an image has no box
- JSON: `{"NAME": [[x1, y1, x2, y2], ...], ...}`, each box a list of four or five numbers or an object with these keys
- a folder of `NAME.csv`, `NAME.json` or `NAME.npy`, as `proposals.read_boxes` reads them

Corners are in pixels from the outer corner of the image's first pixel (a box of all pixels is 0, 0, W, H). Boxes with
scores are sorted, best first; others are taken in their order.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.data.images import IMAGE_SUFFIXES
from pixelwise.engine.proposals import COLUMNS, SUFFIXES, Boxes, boxes_of_rows, named_row, read_boxes
from pixelwise.errors import RequestError, closest

FORMS = (
    "a .csv file with the columns image, x1, y1, x2, y2 and perhaps score; a .json file of an object from image names "
    "to lists of boxes; a folder of NAME.csv, NAME.json or NAME.npy"
)


@dataclass(frozen=True, kw_only=True)
class GivenBoxes:
    """Boxes for images.

    Attributes:
        source: file or folder that they are from.
        by_name: boxes by the name of their image, without the ending of its file.
    """

    source: Path
    by_name: Mapping[str, Boxes]

    def of(self, image: str) -> Boxes:
        """Return the boxes of an image by its file name, with or without ending.

        Raises:
            RequestError: if none are given for it.
        """
        self.check_names([image])
        return self.by_name[_without_ending(image)]

    def check_names(self, images: Iterable[str]) -> None:
        """Refuse a set of images of which one is not named here."""
        missing = [image for image in images if _without_ending(image) not in self.by_name]
        if missing:
            more = f" (and for {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise RequestError(
                f"boxes {self.source} names {len(self.by_name)} images, but not {missing[0]}{more}; closest: "
                f"{closest(missing[0], self.by_name) or 'none'}.\nAccepted: boxes for every image; one without any is "
                "NAME,,,, in CSV and an empty list in JSON. Add it, or give fewer images."
            )


def read_given_boxes(path: Path | str) -> GivenBoxes:
    """Read boxes of many images; see the head of this file.

    Raises:
        RequestError: if the file or folder is none of these, names no image, or a box is not one.
    """
    place = Path(path)
    if place.is_dir():
        files = [file for file in sorted(place.iterdir()) if file.suffix.lower() in SUFFIXES and file.name[0] != "."]
        _check_unique(place, [file.stem for file in files])  # NAME.csv beside NAME.json
        return _given(place, {file.stem: read_boxes(file) for file in files})
    if not place.is_file() or place.suffix.lower() not in (".csv", ".json"):
        what = "has another ending" if place.is_file() else "does not exist"
        raise RequestError(f"boxes {place}: it {what}; accepted: {FORMS}. Give one of these.")
    try:
        text = place.read_bytes().decode("utf-8-sig")
        rows = _csv_rows(place, text) if place.suffix.lower() == ".csv" else _json_rows(place, text)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error, KeyError, OSError) as error:
        raise RequestError(
            f"boxes {place} cannot be read ({type(error).__name__}: {error}); accepted: {FORMS}. Correct the file."
        ) from error
    return _given(place, {name: boxes_of_rows(given, f"{place}, {name}") for name, given in rows.items()})


def _without_ending(image: str) -> str:
    """Return an image's name; a dot in it is no ending unless that of an image file.

    >>> _without_ending("scan.1.png"), _without_ending("scan.1")
    ('scan.1', 'scan.1')
    """
    stem, dot, ending = image.rpartition(".")
    return stem if f"{dot}{ending}".lower() in IMAGE_SUFFIXES else image


def _given(place: Path, boxes: dict[str, Boxes]) -> GivenBoxes:
    _check_unique(place, [_without_ending(name) for name in boxes])
    by_name = {_without_ending(name): found for name, found in boxes.items()}
    if not by_name:
        raise RequestError(f"boxes {place} names no image; accepted: {FORMS}. Give boxes for every image.")
    return GivenBoxes(source=place, by_name=by_name)


def _check_unique(place: Path, names: Sequence[str]) -> None:
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise RequestError(f"boxes {place} names {twice} twice; accepted: each image once. Join the two.")


def _csv_rows(place: Path, text: str) -> dict[str, list[list[str]]]:
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    columns = list(reader.fieldnames or [])
    if sorted(columns) not in (sorted(("image", *COLUMNS)), sorted(("image", *COLUMNS, "score"))):
        raise RequestError(
            f"boxes {place} has the columns {', '.join(map(str, columns)) or 'none'}; accepted: image, x1, y1, x2, y2 "
            "and perhaps score, in any order, named in the first line. Correct the first line."
        )
    rows: dict[str, list[list[str]]] = {}
    for row in reader:
        image = row.pop("image")
        if not image or None in row or None in row.values():
            raise RequestError(
                f"boxes {place}, line {reader.line_num}: it has other columns than the first line, or no image; "
                f"accepted: {', '.join(columns)}. Correct the line."
            )
        boxes = rows.setdefault(image, [])
        if any(row.values()):
            boxes.append(named_row(row))
    return rows


def _json_rows(place: Path, text: str) -> dict[str, list[Any]]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _check_unique(place, [name for name, _ in pairs])
        return dict(pairs)

    given = json.loads(text, object_pairs_hook=once)
    if not isinstance(given, dict) or not all(isinstance(boxes, list) for boxes in given.values()):
        raise RequestError(
            f"boxes {place} holds no object from image names to lists of boxes; accepted: "
            '{"NAME": [[x1, y1, x2, y2], ...], ...}. Correct the file.'
        )
    return {name: [named_row(box) if isinstance(box, dict) else box for box in given[name]] for name in given}
