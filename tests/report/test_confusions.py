"""Confusions: which are named, of what share, and how they are cut out of images."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixelwise.engine.evaluate import Confusions
from pixelwise.report.confusions import confusion_matrix, largest_confusions
from pixelwise.report.cut_outs import INNER, OUTER, SIDE, SMALLEST, cut_out, densest_window
from pixelwise.report.examples import Example, InlinePicture
from pixelwise.report.tables import Classes

NAMES = ["road", "car", "sky"]
PALETTE = [[128, 64, 128], [0, 0, 142], [70, 130, 180]]
CLASSES = Classes(names=NAMES, palette=PALETTE, outside=[1, 2, 3], ignore_index=255)


def pixels_of(picture: InlinePicture) -> np.ndarray:
    data = base64.b64decode(picture.source.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_by_pixels_and_by_share_are_two_orders() -> None:
    metrics = {"confusion_matrix": [[80, 15, 5], [4, 0, 0], [10, 0, 90]]}
    found = largest_confusions(metrics, CLASSES)
    assert [(one.truth, one.prediction, one.pixels, one.share) for one in found] == [
        ("road", "car", "15", "15.0 %"),
        ("sky", "road", "10", "10.0 %"),
        ("road", "sky", "5", "5.0 %"),
        ("car", "road", "4", "100.0 %"),
    ]
    assert [one.of_wrong for one in found] == pytest.approx([15 / 34, 10 / 34, 5 / 34, 4 / 34])
    assert {one.image for one in found} == {""}
    matrix = confusion_matrix(metrics, CLASSES)
    assert matrix is not None
    assert [(one.truth, one.share) for one in matrix.worst][:2] == [("car", "100.0 %"), ("road", "15.0 %")]


def test_the_images_are_those_that_the_scorer_found() -> None:
    scorer = Confusions(NAMES)
    one = np.array([[5, 3, 0], [0, 2, 0], [0, 1, 1]])
    other = np.array([[5, 1, 0], [0, 2, 0], [0, 4, 1]])
    scorer.add("first", one)
    scorer.add("second", other)
    metrics = {"confusion_matrix": (one + other).tolist(), "confusions": scorer.largest(one + other)}
    found = [(one.truth, one.prediction, one.image) for one in largest_confusions(metrics, CLASSES)]
    assert found == [("sky", "car", "second"), ("road", "car", "first")]


@pytest.mark.parametrize("matrix", [None, 3, [], [[1, 2]], [[1, 2], [3]]])
def test_no_square_matrix_is_no_confusion(matrix: object) -> None:
    assert confusion_matrix({"confusion_matrix": matrix}, CLASSES) is None
    assert largest_confusions({"confusion_matrix": matrix}, CLASSES) == []


def test_a_perfect_matrix_has_no_confusion() -> None:
    assert largest_confusions({"confusion_matrix": np.diag([3, 2, 1]).tolist()}, CLASSES) == []


@pytest.mark.parametrize(("count", "numbered"), [(3, True), (30, True), (31, False), (200, False)])
def test_cells_of_large_matrices_are_those_that_can_be_seen(count: int, numbered: bool) -> None:
    matrix = np.full((count, count), 1) + np.diag(np.full(count, 1000 * count))
    names = [f"c{index}" for index in range(count)]
    classes = Classes(names=names, palette=[[0, 0, 0]] * count, outside=[0, 0, 0], ignore_index=None)
    found = confusion_matrix({"confusion_matrix": matrix.tolist()}, classes)
    assert found is not None
    assert found.numbered == numbered
    assert found.smallest == ("0.5 %" if count < 150 else "2.0 %")
    assert {len(row.cells) for row in found.rows} == {count if numbered else 1}


def scene() -> Example:
    """Return 200 x 300 pixels of road, whose rows 120 to 139 and columns 220 to 249 are taken for car."""
    truth = np.zeros((200, 300), np.uint8)
    truth[:, :40] = 2
    truth[0, 0] = 255
    prediction = truth.copy()
    prediction[0, 0] = 2
    prediction[120:140, 220:250] = 1
    prediction[10, 60] = 1
    image = np.full((200, 300, 3), 100, np.uint8)
    return Example(name="one", image=image, truth=truth, prediction=prediction, score=0.9)


def confusion_of(example: Example) -> list[object]:
    matrix = np.zeros((3, 3), int)
    counted = example.truth != 255
    np.add.at(matrix, (example.truth[counted], example.prediction[counted]), 1)
    return list(largest_confusions({"confusion_matrix": matrix.tolist()}, CLASSES))


def test_a_cut_out_shows_the_place_and_outlines_it() -> None:
    example = scene()
    (confusion,) = confusion_of(example)
    found = cut_out(example, confusion, CLASSES)
    assert found is not None
    assert found.seen == {0, 1}
    assert "columns" in found.place
    image, truth, prediction = found.pictures
    assert [picture.caption for picture in found.pictures] == ["Image", "Truth", "Prediction"]
    assert {(picture.height, picture.width) for picture in found.pictures} == {(SIDE, SIDE)}
    assert "one, rows" in image.alternative
    assert "road is taken for car" in image.alternative
    shown, true = pixels_of(prediction), pixels_of(truth)
    assert {tuple(color) for color in shown.reshape(-1, 3).tolist()} == {
        tuple(PALETTE[0]),
        tuple(PALETTE[1]),
        INNER,
        OUTER,
    }
    assert {tuple(color) for color in true.reshape(-1, 3).tolist()} == {tuple(PALETTE[0]), INNER, OUTER}
    # the 20 x 30 confused pixels, less the line inside their edge, at the scale of the window
    area = (shown == PALETTE[1]).all(axis=-1).sum() + (shown == INNER).all(axis=-1).sum()
    rows, _ = densest_window((example.truth == 0) & (example.prediction == 1))
    assert area == pytest.approx(600 * (SIDE / (rows.stop - rows.start)) ** 2, rel=0.05)


def test_a_prediction_that_is_another_by_now_gives_no_cut_out() -> None:
    example = scene()
    (confusion,) = confusion_of(example)
    right = Example(name="one", image=example.image, truth=example.truth, prediction=example.truth, score=1)
    assert cut_out(right, confusion, CLASSES) is None


def test_scattered_pixels_are_outlined_together() -> None:
    truth = np.zeros((128, 128), np.uint8)
    prediction = truth.copy()
    prediction[30:90:2, 30:90:2] = 1
    image = np.full((128, 128, 3), 100, np.uint8)
    example = Example(name="one", image=image, truth=truth, prediction=prediction, score=0.5)
    (confusion,) = confusion_of(example)
    found = cut_out(example, confusion, CLASSES)
    assert found is not None
    shown = pixels_of(found.pictures[1])
    assert (shown == PALETTE[0]).all(axis=-1).mean() > 0.85


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_no_window_holds_more(height: int, width: int, seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    marked = np.zeros((height, width), bool)
    marked[rng.integers(0, height, number), rng.integers(0, width, number)] = True
    rows, columns = densest_window(marked)
    tall, wide = rows.stop - rows.start, columns.stop - columns.start
    assert (tall, wide) == (min(height, max(tall, SMALLEST)), min(width, max(wide, SMALLEST)))
    windows = np.lib.stride_tricks.sliding_window_view(marked, (tall, wide))
    assert marked[rows, columns].sum() == windows.sum(axis=(2, 3)).max()
