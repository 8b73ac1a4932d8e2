"""Edges, EdgeBoxes and box files, on images whose outlines are known."""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.engine import edges as edges_module
from pixelwise.engine import proposals
from pixelwise.engine.edge_boxes import EdgeBoxSettings, edge_boxes, group_edges, sliding_windows, tabulate
from pixelwise.engine.edges import Edges, directions, edges_of_map, gradient_edges, structured_edges
from pixelwise.engine.proposals import Boxes, opencv_edge_boxes, propose, read_boxes
from pixelwise.errors import RequestError

NAMES = ("x1", "y1", "x2", "y2", "score")


def scene(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (240, 320)) -> NDArray[np.uint8]:
    """Rectangles x1, y1, x2, y2 of different greys on a dark ground."""
    image = np.full((*size, 3), 40, np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2] = 200 - 40 * number
    return image


def overlaps(boxes: NDArray[np.float64], box: tuple[float, ...]) -> NDArray[np.float64]:
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    return shared / ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2] - box[0]) * (box[3] - box[1]) - shared)


def test_gradient_edges_are_thin_lines_along_the_border_of_a_rectangle() -> None:
    found = gradient_edges(scene((100, 60, 220, 180)))
    strong = found.strength > 0.1
    assert found.strength.max() == 1
    assert strong[80:160, 90:110].sum(axis=1).max() <= 2  # the left side, row by row
    assert strong[:, :95].sum() == strong[70:170, 110:210].sum() == 0
    vertical, horizontal = found.direction[100, 100], found.direction[60, 150]
    assert min(vertical, np.pi - vertical) < 0.01  # the normal points along x
    assert abs(horizontal - np.pi / 2) < 0.01


def test_flat_images_have_no_edges_and_no_boxes() -> None:
    found = gradient_edges(np.full((60, 80), 7, np.uint16))
    assert found.strength.max() == 0
    corners, scores = edge_boxes(found)
    assert corners.shape == (0, 4)
    assert scores.shape == (0,)


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 4, 1.2, np.pi / 2, 2.0, 3 * np.pi / 4, 2.9])
def test_directions_are_the_normals_of_ridges(angle: float) -> None:
    y, x = np.mgrid[-40:41, -40:41]
    ridge = np.exp(-((x * np.cos(angle) + y * np.sin(angle)) ** 2) / 18).astype(np.float32)
    found = float(directions(ridge)[40, 40])
    rule = np.arctan(np.tan(angle) ** 2 * np.sign(np.tan(angle)))  # the second derivatives are f'' cos^2 and f'' sin^2
    for expected, tolerance in ((angle, 0.26), (rule, 0.02)):
        apart = abs(found - expected) % np.pi
        assert min(apart, np.pi - apart) < tolerance


def test_groups_are_the_sides_of_a_rectangle_and_corners_hardly_join_them() -> None:
    groups = group_edges(gradient_edges(scene((100, 60, 220, 180))))
    sides = np.sort(groups.weight)[::-1][:4]
    assert sides.min() > 60
    assert sides.sum() > 0.85 * groups.weight.sum()
    assert 0 <= groups.affinity.min() <= groups.affinity.max() <= 1
    assert (groups.pairs[:, 0] < groups.pairs[:, 1]).all()
    anchors = groups.ids[groups.anchor[1:, 1], groups.anchor[1:, 0]]
    assert (anchors == np.arange(1, groups.weight.size)).all()


def test_affinities_of_two_pieces_of_a_line_and_of_a_line_across_by_hand() -> None:
    strength = np.zeros((60, 60), np.float32)
    strength[30, 5:25] = strength[30, 26:50] = 1  # two pieces, a pixel between them
    strength[5:29, 25] = 1
    direction = np.full((60, 60), np.pi / 2, np.float32)
    direction[5:29, 25] = 0
    groups = group_edges(Edges(strength=strength, direction=direction))
    left, right, across = groups.ids[30, 10], groups.ids[30, 40], groups.ids[10, 25]
    assert len({left, right, across}) == 3
    affinity = {tuple(pair): value for pair, value in zip(groups.pairs.tolist(), groups.affinity, strict=True)}
    assert affinity[min(left, right), max(left, right)] == pytest.approx(1)
    # Centres (14.5, 30) and (25, 16.5): cos and sin of the line between them, squared.
    assert affinity[min(left, across), max(left, across)] == pytest.approx((10.5 * 13.5 / (10.5**2 + 13.5**2)) ** 2)


def test_score_of_a_box_around_a_square_by_hand() -> None:
    from pixelwise.engine.edge_box_loops import score

    strength = np.zeros((100, 100), np.float32)
    strength[30, 30:70] = strength[69, 30:70] = strength[30:70, 30] = strength[30:70, 69] = 1
    direction = np.full((100, 100), np.pi / 2, np.float32)
    direction[31:69, [30, 69]] = 0
    edges = Edges(strength=strength, direction=direction)
    tables, work = tabulate(edges, group_edges(edges))
    # 156 pixels of strength 1 in a box of half sides 24 and 24; nothing crosses, nothing lies in the middle.
    assert score((25, 74, 25, 74), tables, work) == pytest.approx(156 / 48**1.5)
    assert score((30, 60, 30, 60), tables, work) == 0  # all of the outline crosses the border
    assert score((0, 99, 0, 99), tables, work) == 0  # the middle holds as much as the box


def drawn() -> Edges:
    """Three outlines that overlap, and a slope through all of them."""
    strength, direction = np.zeros((120, 160), np.float32), np.zeros((120, 160), np.float32)
    for x1, y1, x2, y2, value in ((20, 15, 75, 90, 0.9), (60, 40, 140, 105, 0.6), (95, 55, 125, 85, 0.8)):
        for rows, columns, angle in (
            (slice(y1, y1 + 1), slice(x1, x2), np.pi / 2),
            (slice(y2, y2 + 1), slice(x1, x2), np.pi / 2),
            (slice(y1, y2), slice(x1, x1 + 1), 0.0),
            (slice(y1, y2), slice(x2, x2 + 1), 0.0),
        ):
            strength[rows, columns] = value
            direction[rows, columns] = angle
    slope = np.arange(90)
    strength[10 + slope, 15 + slope] = 0.5
    direction[10 + slope, 15 + slope] = 3 * np.pi / 4
    return Edges(strength=strength, direction=direction)


# cv2.ximgproc.createEdgeBoxes(maxBoxes=2000) of opencv-contrib-python-headless 5.0.0.93 on `drawn`: x, y, width,
# height in its own count, and score.
OPENCV = [
    (93, 53, 35, 35, 0.480194),
    (94, 55, 43, 32, 0.422991),
    (95, 46, 32, 46, 0.390874),
    (95, 55, 32, 46, 0.335036),
    (82, 55, 46, 32, 0.335034),
    (15, 10, 129, 98, 0.323591),
    (88, 46, 48, 45, 0.305138),
    (95, 34, 32, 55, 0.289393),
    (82, 46, 45, 45, 0.263134),
    (55, 40, 89, 70, 0.260303),
    (85, 55, 62, 33, 0.253245),
    (60, 13, 82, 95, 0.251572),
]


def test_boxes_and_scores_are_opencvs() -> None:
    corners, scores = edge_boxes(drawn(), count=12)
    x, y, width, height, score = np.array(OPENCV).T
    assert corners.tolist() == np.stack([x - 1, y - 1, x + width, y + height], axis=1).tolist()
    np.testing.assert_allclose(scores, score, rtol=0, atol=1e-5)


@pytest.mark.parametrize("box", [(100, 60, 220, 180), (30, 40, 130, 200), (150, 20, 290, 90)])
def test_the_best_boxes_hold_a_lone_rectangle(box: tuple[int, int, int, int]) -> None:
    assert overlaps(propose(scene(box)).corners[:5], box).max() > 0.85


def test_each_of_three_rectangles_has_its_box() -> None:
    boxes = [(20, 20, 110, 100), (150, 30, 300, 120), (60, 140, 250, 220)]
    found = propose(scene(*boxes))
    assert all(overlaps(found.corners[:50], box).max() > 0.75 for box in boxes)


def test_boxes_are_sorted_apart_inside_and_the_same_each_time() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = noise.repeat(20, axis=0).repeat(20, axis=1)
    found, again = propose(image, count=60), propose(image, count=60)
    assert len(found.corners) == 60
    assert np.array_equal(found.corners, again.corners)
    assert found.scores is not None
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.min() >= 0.01
    assert found.corners.min() >= 0
    assert (found.corners[:, 2:] <= [320, 240]).all()
    for number, box in enumerate(found.corners[1:], start=1):
        inner = (*box[:2], *(box[2:] - 1))  # suppression counts sides from pixel centre to pixel centre
        others = found.corners[:number] - [0, 0, 1, 1]
        assert overlaps(others, inner).max() <= 0.75


def test_large_images_are_searched_at_500_pixels() -> None:
    box = (100, 60, 220, 180)
    image = scene(box).repeat(4, axis=0).repeat(4, axis=1)
    found = propose(image)
    assert overlaps(found.corners[:5], tuple(4 * side for side in box)).max() > 0.85


def test_neighbouring_windows_overlap_by_alpha() -> None:
    windows = sliding_windows(375, 500)
    assert len(windows) == len(np.unique(windows, axis=0))
    first, second = windows[0], windows[1]  # one step down
    high, step = first[3] - first[2], second[2] - first[2]
    assert (high - step) / (high + step) == pytest.approx(0.65, abs=0.06)
    areas = (windows[:, 1] - windows[:, 0]) * (windows[:, 3] - windows[:, 2])
    assert areas.min() > 900
    with pytest.raises(RequestError, match=r"alpha is 1.0; accepted: an IoU above 0 and below 1"):
        EdgeBoxSettings(alpha=1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_map_gives_legal_boxes(height: int, width: int, seed: int) -> None:
    strength = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    corners, scores = edge_boxes(edges_of_map(strength), settings=EdgeBoxSettings(least_area=16))
    assert len(corners) == len(scores)
    assert (corners[:, :2] < corners[:, 2:]).all()
    assert (corners >= 0).all()
    assert (corners[:, 2:] <= [width, height]).all()


def test_maps_that_are_none_are_refused() -> None:
    with pytest.raises(RequestError, match=r"shape \(2, 2\) and values from -1 to 0; accepted: \(H, W\), finite"):
        edges_of_map(np.array([[0.0, -1.0], [0.0, 0.0]]))
    with pytest.raises(RequestError, match=r"shapes \(2, 2\) and \(2, 3\); accepted: \(H, W\) twice"):
        Edges(strength=np.zeros((2, 2), np.float32), direction=np.zeros((2, 3), np.float32))


def write(path: Path, content: object) -> Path:
    if path.suffix == ".npy":
        np.save(path, content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.json", [[1, 2, 30, 40, 0.5], [5, 6, 70, 80, 0.9]]),
        (
            "b.json",
            [dict(zip(NAMES, (1, 2, 30, 40, 0.5), strict=True)), dict(zip(NAMES, (5, 6, 70, 80, 0.9), strict=True))],
        ),
        ("b.csv", "x1, y1, x2, y2, score\n1,2,30,40,0.5\n5,6,70,80,0.9\n"),
        ("b.csv", "score,y2,x2,y1,x1\n0.5,40,30,2,1\n0.9,80,70,6,5\n"),
        ("b.NPY", np.array([[1, 2, 30, 40, 0.5], [5, 6, 70, 80, 0.9]])),
    ],
)
def test_box_files_are_read_best_first(tmp_path: Path, name: str, content: object) -> None:
    path = write(tmp_path / name.lower(), content)
    boxes = read_boxes(path.rename(tmp_path / name))
    assert boxes.corners.tolist() == [[5, 6, 70, 80], [1, 2, 30, 40]]
    assert boxes.scores is not None
    assert boxes.scores.tolist() == [0.9, 0.5]


def test_boxes_without_scores_keep_their_order_and_none_are_none(tmp_path: Path) -> None:
    boxes = read_boxes(write(tmp_path / "b.json", [[1, 2, 30, 40], [5, 6, 70, 80]]))
    assert boxes.corners.tolist() == [[1, 2, 30, 40], [5, 6, 70, 80]]
    assert boxes.scores is None
    for name, content in (("e.json", []), ("e.csv", "x1,y1,x2,y2\n"), ("e.npy", np.empty((0, 4)))):
        assert read_boxes(write(tmp_path / name, content)).corners.shape == (0, 4)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("b.txt", "1 2 3 4", r"b\.txt: it has another ending; accepted: \.json, \.csv, \.npy files"),
        ("b.json", "[1", r"b\.json cannot be read \(JSONDecodeError.*accepted: rows of x1, y1, x2, y2"),
        ("b.json", {"boxes": []}, r"cannot be read \(ValueError: not a list of boxes\)"),
        ("b.json", [[1, 2, 3, 4], [1, 2, 3]], r"cannot be read \(ValueError.*equally long"),
        ("b.json", [{"x1": 1, "y1": 2, "w": 3, "h": 4}], r"cannot be read \(KeyError: 'x2'\)"),
        ("b.json", [[1, 2, 3]], r"rows of 3 numbers; accepted: 4 \(x1, y1, x2, y2\) or 5"),
        ("b.json", [[0, 0, 9, 9], [10, 20, 5, 40]], r"box 2 of 2 is 10, 20, 5, 40; accepted: finite numbers, x1 < x2"),
        ("b.csv", "x1,y1,x2,y2\n0,0,nan,4\n", r"box 1 of 1 is 0, 0, nan, 4"),
        ("b.csv", "x1,y1,x2,y2\n0,0,wide,4\n", r"cannot be read \(ValueError: could not convert string to float"),
        ("b.csv", "x1,y1,x2,y2\n0,0,4\n", r"cannot be read \(TypeError|is 0, 0, 4, nan"),
        ("b.npy", np.zeros(4), r"cannot be read \(ValueError: an array of shape \(4,\)\)"),
    ],
)
def test_wrong_box_files_are_answered(tmp_path: Path, name: str, content: object, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        read_boxes(write(tmp_path / name, content))


def test_missing_box_files_are_answered(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.json: it is no file; accepted: \.json"):
        read_boxes(tmp_path / "none.json")


def test_without_contributed_modules_opencv_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = types.SimpleNamespace(__version__="4.9.0")
    monkeypatch.setattr(edges_module, "cv2", bare)
    monkeypatch.setattr(proposals, "cv2", bare)
    with pytest.raises(RequestError, match=r"OpenCV 4\.9\.0 has no module ximgproc, which structured edges need"):
        structured_edges(scene(), "model.yml.gz")
    with pytest.raises(RequestError, match=r"OpenCV 4\.9\.0 has no module ximgproc; accepted: a build with"):
        opencv_edge_boxes(gradient_edges(scene()))


def test_structured_edges_want_trees_and_a_colour_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(edges_module, "cv2", types.SimpleNamespace(ximgproc=object()))
    with pytest.raises(RequestError, match=r"shape \(4, 4\), uint8; accepted: \(H, W, 3\), uint8"):
        structured_edges(np.zeros((4, 4), np.uint8), tmp_path / "model.yml.gz")
    with pytest.raises(RequestError, match=r"model\.yml\.gz is no file; accepted: trained trees"):
        structured_edges(scene(), tmp_path / "model.yml.gz")


def test_opencv_boxes_count_pixels_as_ours_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub:
        def getBoundingBoxes(self, strength: object, direction: object) -> tuple[object, object]:  # noqa: N802
            return ((11, 21, 30, 40),), (0.25,)

    stub = types.SimpleNamespace(createEdgeBoxes=lambda **_: Stub())
    monkeypatch.setattr(proposals, "cv2", types.SimpleNamespace(ximgproc=stub))
    boxes = opencv_edge_boxes(gradient_edges(scene()))
    assert isinstance(boxes, Boxes)
    assert boxes.corners.tolist() == [[10, 20, 41, 61]]
