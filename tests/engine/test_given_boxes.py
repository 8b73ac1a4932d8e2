"""Boxes that a user gives for images: every accepted form, and an answer to every other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pixelwise.engine.given_boxes import read_given_boxes
from pixelwise.engine.proposals import Boxes, check_inside
from pixelwise.errors import RequestError

CSV = "image,x1,y1,x2,y2\na.png,1,2,30,40\nb,5,6,70,80\na.png,3,4,31,41\nnone.tif,,,,\n"
JSON = json.dumps(
    {"a": [[1, 2, 30, 40], {"x1": 3, "y1": 4, "x2": 31, "y2": 41}], "b.jpg": [[5, 6, 70, 80]], "none": []}
)


def as_csv(folder: Path) -> Path:
    (folder / "boxes.csv").write_text(CSV)
    return folder / "boxes.csv"


def as_json(folder: Path) -> Path:
    (folder / "boxes.JSON").write_text(JSON)
    return folder / "boxes.JSON"


def as_folder(folder: Path) -> Path:
    (folder / "boxes").mkdir()
    np.save(folder / "boxes/a.npy", np.array([[1, 2, 30, 40], [3, 4, 31, 41]]))
    (folder / "boxes/b.csv").write_text("x1,y1,x2,y2\n5,6,70,80\n")
    (folder / "boxes/none.json").write_text("[]")
    (folder / "boxes/notes.txt").write_text("by hand")
    return folder / "boxes"


@pytest.mark.parametrize("form", [as_csv, as_json, as_folder])
def test_boxes_are_found_by_the_names_of_images(form: Callable[[Path], Path], tmp_path: Path) -> None:
    given = read_given_boxes(form(tmp_path))
    assert given.of("a.tif").corners.tolist() == [[1, 2, 30, 40], [3, 4, 31, 41]]
    assert given.of("b").corners.tolist() == [[5, 6, 70, 80]]
    assert given.of("none.png").corners.shape == (0, 4)
    given.check_names(["a", "b.PNG", "none"])
    with pytest.raises(RequestError, match=r"names 3 images, but not c\.png \(and for 1 more\); closest: \w"):
        given.check_names(["a.png", "c.png", "d.png"])
    with pytest.raises(RequestError, match=r"but not a\.b; .*\nAccepted: boxes for every image"):
        given.of("a.b")  # a dot in a name is no ending


def test_boxes_with_scores_are_sorted(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("score,image,x1,y1,x2,y2\n0.5,a,1,2,30,40\n0.9,a,5,6,70,80\n")
    found = read_given_boxes(tmp_path / "b.csv").of("a")
    assert found.corners.tolist() == [[5, 6, 70, 80], [1, 2, 30, 40]]
    assert found.scores is not None
    assert found.scores.tolist() == [0.9, 0.5]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("b.csv", "x1,y1,x2,y2\n1,2,3,4\n", r"has the columns x1, y1, x2, y2; accepted: image, x1, y1, x2, y2 and"),
        ("b.csv", "image,x1,y1,x2,y2,class\na,1,2,3,4,5\n", r"has the columns image, x1, y1, x2, y2, class; accepted"),
        ("b.csv", "", r"has the columns none; accepted: image"),
        ("b.csv", "image,x1,y1,x2,y2\na,1,2,3\n", r"line 2: it has other columns than the first line"),
        ("b.csv", "image,x1,y1,x2,y2\na,1,2,3,4,5\n", r"line 2: it has other columns than the first line"),
        ("b.csv", "image,x1,y1,x2,y2\n,1,2,3,4\n", r"line 2: .*or no image; accepted: image, x1, y1, x2, y2"),
        ("b.csv", "image,x1,y1,x2,y2\na,1,2,wide,4\n", r"b\.csv, a cannot be read \(ValueError: could not convert"),
        ("b.csv", "image,x1,y1,x2,y2\na,9,2,3,4\n", r"b\.csv, a: box 1 of 1 is 9, 2, 3, 4; accepted: finite numbers"),
        ("b.csv", "image,x1,y1,x2,y2\na.png,1,2,3,4\na.jpg,1,2,3,4\n", r"names a twice; accepted: each image once"),
        ("b.csv", "image,x1,y1,x2,y2\n", r"names no image; accepted: a \.csv file"),
        ("b.json", "[[1, 2, 3, 4]]", r"holds no object from image names to lists of boxes; accepted: \{\"NAME\""),
        ("b.json", '{"a": {"x1": 1}}', r"holds no object from image names"),
        ("b.json", '{"a": [{"x1": 1}]}', r"cannot be read \(KeyError: 'y1'\)"),
        ("b.json", '{"a": [[1, 2, 3]]}', r"b\.json, a has rows of 3 numbers"),
        ("b.json", '{"a": [], "a": []}', r"names a twice"),
        ("b.json", "{", r"cannot be read \(JSONDecodeError"),
        ("b.npy", "", r"b\.npy: it has another ending; accepted: a \.csv file with the columns image"),
    ],
)
def test_other_files_are_answered(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RequestError, match=words):
        read_given_boxes(tmp_path / name)


def test_folders_of_none_or_of_two_files_for_an_image_are_answered(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="names no image"):
        read_given_boxes(tmp_path)
    for name in ("a.json", "a.csv"):
        (tmp_path / name).write_text("[]")
    with pytest.raises(RequestError, match="names a twice"):
        read_given_boxes(tmp_path)
    with pytest.raises(RequestError, match=r"nowhere\.csv: it does not exist; accepted"):
        read_given_boxes(tmp_path / "nowhere.csv")


def test_boxes_may_touch_the_border_but_not_leave_the_image() -> None:
    check_inside(Boxes(corners=np.array([[0.0, 0, 60, 40]])), (40, 60), "a.png")
    for corners in ([0.0, 0, 60.5, 40], [0, 0, 60, 41], [-1, 0, 60, 40], [0, -0.5, 60, 40]):
        boxes = Boxes(corners=np.array([[1.0, 1, 2, 2], corners]))
        with pytest.raises(
            RequestError, match=r"box .* is not inside a\.png, 40 x 60 pixels; accepted: x1 and y1 from"
        ):
            check_inside(boxes, (40, 60), "a.png")
