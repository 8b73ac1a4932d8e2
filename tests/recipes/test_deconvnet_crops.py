"""DeconvNet's crops, on pictures small enough to check by eye; numbers are those of deconvnet.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pixelwise.data.dataset import open_dataset
from pixelwise.data.microscopy import write_microscopy
from pixelwise.errors import RequestError
from pixelwise.recipes.deconvnet_crops import (
    VOID,
    cut,
    enlarge,
    make_stage1_crops,
    make_stage2_crops,
    object_boxes,
    objects_of,
    overlaps,
    write_stage1,
)
from pixelwise.recipes.deconvnet_crops import _write as write


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A 40 x 60 picture: object 1 (class 1) of 20 x 10, object 2 (class 2) beside it, a void pixel in object 1."""
    labels = np.zeros((40, 60), np.uint8)
    instances = np.zeros((40, 60), np.uint16)
    labels[10:30, 20:30], instances[10:30, 20:30] = 1, 1
    labels[12:20, 30:40], instances[12:20, 30:40] = 2, 2
    labels[20, 25] = VOID
    image = np.repeat(labels[:, :, None] * 50, 3, axis=2).astype(np.uint8)
    return image, labels, instances


def test_a_box_of_10_by_20_enlarged_is_12_by_24_around_its_centre() -> None:
    _, _, instances = scene()
    ids, boxes = object_boxes(instances)
    assert ids.tolist() == [1, 2]
    assert boxes[0].tolist() == [20, 10, 30, 30]
    assert enlarge(boxes)[0].tolist() == [19, 8, 31, 32]


def test_stage_1_keeps_the_central_class_and_void_alone() -> None:
    image, labels, instances = scene()
    first, second = make_stage1_crops(image, labels, instances, background=0, side=24)
    assert first[0].shape == (24, 24, 3)
    assert set(np.unique(first[1])) == {0, 1, VOID}
    assert set(np.unique(second[1])) == {0, 2}
    # 12 x 24 to 24 x 24: columns twice, rows as they are; the void pixel becomes two.
    assert (first[1] == VOID).sum() == 2
    assert (first[1][2:22, 2:22] == 0).sum() == 0


def test_stage_2_keeps_all_classes_of_proposals_that_overlap() -> None:
    image, labels, instances = scene()
    boxes = np.array([[20.0, 10, 32, 30], [0, 0, 10, 10], [20, 10, 60, 40]])
    crops = make_stage2_crops(image, labels, instances, boxes, side=24)
    assert len(crops) == 1  # 200 / 240 of object 1; nothing; 200 / 1200
    assert set(np.unique(crops[0][1])) == {0, 1, 2, VOID}
    assert make_stage2_crops(image, labels, instances * 0, boxes) == []


def test_outside_of_the_image_is_black_and_void() -> None:
    image = np.full((10, 10, 3), 200, np.uint8)
    labels = np.ones((10, 10), np.uint8)
    window, truth = cut(image, labels, np.array([-5.0, 5, 5, 15]), side=10)
    inside = np.zeros((10, 10), bool)
    inside[:5, 5:] = True
    np.testing.assert_array_equal(truth, np.where(inside, 1, VOID))
    np.testing.assert_array_equal(window, np.where(inside, 200, 0)[..., None].repeat(3, 2))


def test_overlap_by_hand() -> None:
    boxes = np.array([[0.0, 0, 2, 2]])
    others = np.array([[1.0, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6]])
    assert overlaps(boxes, others).tolist() == [[1 / 3, 1.0, 0.0]]


def test_connected_areas_are_objects_where_none_are_numbered() -> None:
    _, labels, _ = scene()
    objects = objects_of(labels, 0, VOID)
    assert len(np.unique(objects[objects > 0])) == 2
    assert (objects[labels == VOID] == 0).all()


def test_stage_1_as_a_data_set(tmp_path: Path) -> None:
    cells = write_microscopy(tmp_path / "cells", num_train=2, num_val=1, size=(80, 96), seed=1)
    out = write_stage1(open_dataset(cells), tmp_path / "run" / "stage1-data")
    folder = open_dataset(out)
    assert len(folder.split("train")) > 2
    assert folder.file is not None
    assert folder.file.classes == ("background", "cell", "nucleus")
    assert folder.file.ignore_index == VOID
    assert not list((tmp_path / "run").glob("*.partial"))
    assert write_stage1(open_dataset(tmp_path / "cells"), out) == out  # nothing is made twice


def test_data_without_background_or_objects_are_refused(tmp_path: Path) -> None:
    cells = write_microscopy(tmp_path / "cells", num_train=1, num_val=1, size=(80, 96), seed=1)
    with pytest.raises(RequestError, match=r"0 crops of training and 0 of validation images \(none\)"):
        write(open_dataset(cells), tmp_path / "out", lambda *_: [], "none")
    text = (cells / "dataset.json").read_text().replace('"background"', '"glass"')
    (cells / "dataset.json").write_text(text)
    with pytest.raises(RequestError, match="none of the classes glass, cell, nucleus is called background"):
        write_stage1(open_dataset(cells), tmp_path / "out")
    assert not (tmp_path / "out").exists()
