"""Bands and Boundary IoU against worked examples, slow versions and numbers of the original code."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixelwise.errors import RequestError
from pixelwise.metrics import BoundaryBands, BoundaryIoU, BoundaryIoUScores, confusion_matrix

Map = npt.NDArray[np.integer]
VOID = 255

# The first example pays for the compilation.
patient = settings(
    deadline=None,
    max_examples=60 * settings().max_examples // 100,
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def cases(draw: st.DrawFn, min_side: int = 1) -> tuple[Map, Map, int]:
    """Draw prediction, truth with ignored pixels, and K: blocks of a few labels with single odd pixels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(min_side, 14)), draw(st.integers(min_side, 14)))
    num_classes = draw(st.integers(1, 4))

    def blocks() -> Map:
        coarse = rng.integers(0, num_classes, (5, 5))
        return coarse[np.ix_(np.arange(shape[0]) // 3, np.arange(shape[1]) // 3)]

    truth, prediction = blocks(), blocks() if draw(st.booleans()) else None
    prediction = truth.copy() if prediction is None else prediction
    for labels, value in ((prediction, num_classes - 1), (truth, 0), (truth, VOID)):
        labels[rng.random(shape) < rng.choice((0, 0.05, 0.3))] = value
    return prediction, truth, num_classes


def names(count: int) -> list[str]:
    return [f"class {k}" for k in range(count)]


def rings(row: int, column: int, width: int) -> Map:
    """Three classes in elliptic rings, 120 x 160, with flat pieces at the edge of the image."""
    y, x = np.mgrid[:120, :160]
    return (2 * (y - row) ** 2 + (x - column) ** 2) // width % 3


def ring_pair() -> tuple[Map, Map]:
    prediction = rings(43, 64, 1500)
    prediction[90:97, 100:120] = 2
    return prediction, rings(40, 60, 1600)


# --- bands -----------------------------------------------------------------------------------------------


def columns(count: int) -> Map:
    return np.broadcast_to(np.arange(16) < count, (16, 16)).astype(np.uint8)


@pytest.mark.parametrize(
    ("distance", "pixels", "accuracy", "ious", "miou"),
    [
        (1, 64, 0.5, (0, 0.5), 0.25),
        (2, 96, 0.666667, (0.333333, 0.6), 0.466667),
        (4, 160, 0.8, (0.6, 0.714286), 0.657143),
        (16, 256, 0.875, (0.75, 0.8), 0.775),
    ],
)
def test_golden_4(distance: float, pixels: int, accuracy: float, ious: tuple[float, float], miou: float) -> None:
    bands = BoundaryBands(2, distances=[distance])
    bands.add(columns(10), columns(8))
    (scores,) = bands.result(["a", "b"])
    assert scores.distance == distance
    assert scores.within.confusion.sum() == pixels
    assert scores.beyond.confusion.sum() == 256 - pixels
    assert scores.within.pixel_accuracy == pytest.approx(accuracy, abs=5e-7)
    assert [c.iou for c in scores.within.per_class] == pytest.approx(ious, abs=5e-7)
    assert scores.within.miou == pytest.approx(miou, abs=5e-7)
    assert scores.beyond.miou == (None if distance == 16 else 1)


def slow_bands(prediction: Map, truth: Map, num_classes: int, distance: float) -> npt.NDArray[np.int64]:
    """Count pixel by pixel; borders to ignored pixels are borders."""
    height, width = truth.shape
    border = [
        (i, j)
        for i, j in np.ndindex(height, width)
        for k, m in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1))
        if 0 <= k < height and 0 <= m < width and truth[i, j] != truth[k, m]
    ]
    counts = np.zeros((num_classes, num_classes), np.int64)
    for i, j in np.ndindex(height, width):
        if truth[i, j] != VOID and any((i - k) ** 2 + (j - m) ** 2 <= distance**2 for k, m in border):
            counts[truth[i, j], prediction[i, j]] += 1
    return counts


@patient
@given(cases())
def test_bands_equal_slow_version(case: tuple[Map, Map, int]) -> None:
    prediction, truth, num_classes = case
    distances = (0, 1, 1.5, 3, 7, 30)
    bands = BoundaryBands(num_classes, ignore_index=VOID, distances=distances)
    bands.add(prediction, truth)
    total = confusion_matrix(prediction, truth, num_classes, VOID)
    for scores in bands.result(names(num_classes)):
        expected = slow_bands(prediction, truth, num_classes, scores.distance)
        np.testing.assert_array_equal(scores.within.confusion, expected)
        np.testing.assert_array_equal(scores.beyond.confusion, total - expected)


@pytest.mark.parametrize("threads", [1, 2])  # OpenCV rounds square roots differently
def test_distances_are_exact_on_large_images(threads: int) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    truth = np.zeros((700, 900), np.uint8)
    truth[350, 450] = 1
    distances = (5, np.sqrt(50), 65, np.sqrt(4226), 500)
    bands = BoundaryBands(2, distances=distances)
    bands.add(truth, truth)
    cv2.setNumThreads(before)
    cross = np.ones(truth.shape, np.bool_)
    cross[349:352, 450] = cross[350, 449:452] = False
    far = ndimage.distance_transform_edt(cross)
    for scores in bands.result(["a", "b"]):
        assert scores.within.confusion.sum() == np.count_nonzero(far <= scores.distance * (1 + 1e-12))


def test_no_border_is_all_interior() -> None:
    bands = BoundaryBands(2, distances=(0, 1e6))
    bands.add(np.ones((4, 5), int), np.ones((4, 5), int))
    for scores in bands.result(["a", "b"]):
        assert scores.within.miou is None
        assert scores.beyond.confusion.tolist() == [[0, 0], [0, 20]]


def test_border_to_ignored_pixels_counts() -> None:
    truth = np.array([[0, 0, 0, VOID, VOID, 1, 1, 1]])
    bands = BoundaryBands(2, ignore_index=VOID, distances=(0, 1))
    bands.add(np.array([[0, 0, 1, 9, 9, 1, 1, 1]]), truth)
    near, next_to = bands.result(["a", "b"])
    assert near.within.confusion.tolist() == [[0, 1], [0, 1]]
    assert next_to.within.confusion.tolist() == [[1, 1], [0, 2]]


# --- Boundary IoU ----------------------------------------------------------------------------------------


def slow_bands_of_masks(labels: Map, num_classes: int, ratio: float) -> npt.NDArray[np.bool_]:
    """Erode the mask of each class again and again, as the original does; (H, W) -> (K, H, W) bool."""
    width = max(1, round(ratio * float(np.hypot(*labels.shape))))
    masks = np.stack([labels == k for k in range(num_classes)])
    inner = [ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0) for mask in masks]
    return np.asarray(masks & ~np.stack(inner), np.bool_)


@patient
@given(cases(), st.sampled_from((0.001, 0.02, 0.1, 0.25, 1.0)))
def test_boundary_iou_equals_slow_version(case: tuple[Map, Map, int], ratio: float) -> None:
    prediction, truth, num_classes = case
    prediction = np.where(truth == VOID, VOID, prediction)
    ours, theirs = (slow_bands_of_masks(labels, num_classes, ratio) for labels in (prediction, truth))
    scored = BoundaryIoU(num_classes, ignore_index=VOID, dilation_ratio=ratio)
    scored.add(prediction, truth)
    scores = scored.result()
    np.testing.assert_array_equal(scores.intersection, (ours & theirs).sum(axis=(1, 2)))
    np.testing.assert_array_equal(scores.union, (ours | theirs).sum(axis=(1, 2)))


@pytest.mark.parametrize(
    ("ratio", "intersection", "union"),
    [(0.02, [3301, 3525, 3826], [6489, 7649, 6676]), (0.05, [4660, 4929, 4042], [7652, 7966, 6749])],
)
def test_boundary_iou_of_the_original_code(ratio: float, intersection: list[int], union: list[int]) -> None:
    # bowenc0221/boundary-iou-api, commit 37d2558, boundary_iou/utils/boundary_utils.py: mask_to_boundary of the
    # mask of each class, then the pixels in both bands and in either. Exact.
    scored = BoundaryIoU(3, dilation_ratio=ratio)
    scored.add(*ring_pair())
    scores = scored.result()
    assert scores.intersection.tolist() == intersection
    assert scores.union.tolist() == union
    assert scores.per_class == tuple(i / u for i, u in zip(intersection, union, strict=True))
    assert scores.boundary_iou == pytest.approx(np.mean(scores.per_class))


def test_classes_without_a_band_are_left_out() -> None:
    truth = np.zeros((9, 9), int)
    prediction = truth.copy()
    prediction[4, 4] = 2
    scored = BoundaryIoU(4)
    scored.add(prediction, truth)
    scores = scored.result()
    # Class 0: a frame of 32 pixels in both, and the ring of 8 around the false pixel.
    assert scores.per_class == (32 / 40, None, 0, None)
    assert scores.boundary_iou == pytest.approx(0.4)
    assert BoundaryIoU(2).result().boundary_iou is None


# --- properties of both ----------------------------------------------------------------------------------


def both(images: list[tuple[Map, Map]], num_classes: int) -> tuple[list[list[list[int]]], BoundaryIoUScores]:
    bands = BoundaryBands(num_classes, ignore_index=VOID, distances=(0, 2))
    scored = BoundaryIoU(num_classes, ignore_index=VOID, dilation_ratio=0.1)
    for prediction, truth in images:
        bands.add(prediction, truth)
        scored.add(prediction, truth)
    matrices = [s.within.confusion.tolist() for s in bands.result(names(num_classes))]
    return matrices, scored.result()


@patient
@given(cases())
def test_perfect_prediction_scores_one(case: tuple[Map, Map, int]) -> None:
    _, truth, num_classes = case
    _, scores = both([(np.where(truth == VOID, 0, truth), truth)], num_classes)
    assert scores.boundary_iou == (None if (truth == VOID).all() else 1)


@patient
@given(cases(), st.sampled_from(("flip", "flip up", "transpose")))
def test_flips_change_nothing(case: tuple[Map, Map, int], how: str) -> None:
    turn = {"flip": np.fliplr, "flip up": np.flipud, "transpose": np.transpose}[how]
    matrices, scores = both([case[:2]], case[2])
    turned_matrices, turned = both([(turn(case[0]), turn(case[1]))], case[2])
    assert turned_matrices == matrices
    assert turned.per_class == scores.per_class


@given(st.lists(cases(), min_size=2, max_size=4))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_images_add_up_in_any_order(drawn: list[tuple[Map, Map, int]]) -> None:
    images = [case[:2] for case in drawn]
    matrices, scores = both(images, 4)
    reversed_matrices, reversed_scores = both(images[::-1], 4)
    assert reversed_matrices == matrices
    assert reversed_scores.per_class == scores.per_class
    np.testing.assert_array_equal(scores.union, sum(both([image], 4)[1].union for image in images))


@patient
@given(cases(), st.integers(0, 2**32 - 1))
def test_prediction_is_free_on_ignored_pixels(case: tuple[Map, Map, int], seed: int) -> None:
    prediction, truth, num_classes = case
    anything = np.random.default_rng(seed).integers(-300, 300, truth.shape)
    matrices, scores = both([(prediction, truth)], num_classes)
    free_matrices, free = both([(np.where(truth == VOID, anything, prediction), truth)], num_classes)
    assert free_matrices == matrices
    assert free.per_class == scores.per_class


@pytest.mark.parametrize("shift", [251, 252, 253, 300])
def test_many_classes(shift: int) -> None:
    prediction, truth = ring_pair()
    few, many = BoundaryIoU(3), BoundaryIoU(shift + 3, ignore_index=7)
    few.add(prediction, truth)
    many.add(prediction + shift, truth + shift)
    assert many.result().per_class == (None,) * shift + few.result().per_class


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scored", [BoundaryBands(2), BoundaryIoU(2)], ids=["bands", "iou"])
def test_images_refused(scored: BoundaryBands | BoundaryIoU) -> None:
    image = np.zeros((4, 5), int)
    with pytest.raises(RequestError, match=r"prediction has shape \(4, 4\) and truth has shape \(4, 5\)"):
        scored.add(image[:, :4], image)
    with pytest.raises(RequestError, match=r"truth has shape \(1, 4, 5\)\. Accepted is one image \(H, W\)"):
        scored.add(image[None], image[None])
    with pytest.raises(RequestError, match=r"truth has shape \(0, 5\)"):
        scored.add(image[:0], image[:0])
    with pytest.raises(RequestError, match=r"truth holds 2 \(20 pixels\) on counted pixels"):
        scored.add(image, image + 2)


@pytest.mark.parametrize("num_classes", [0, -3, 65536])
def test_num_classes_refused(num_classes: int) -> None:
    for accumulator in (BoundaryBands, BoundaryIoU):
        with pytest.raises(RequestError, match=f"num_classes is {num_classes}. Accepted are 1 to 65535"):
            accumulator(num_classes)


@pytest.mark.parametrize("distances", [(), (3, 3), (4, 2), (-1, 2), (-0.5,), (float("nan"),), (1, float("nan"))])
def test_distances_refused(distances: tuple[float, ...]) -> None:
    with pytest.raises(RequestError, match=r"distances is \(.*\)\. Accepted is at least one distance in pixels"):
        BoundaryBands(2, distances=distances)


@pytest.mark.parametrize("ratio", [0, -0.02, 1.01, float("nan")])
def test_dilation_ratio_refused(ratio: float) -> None:
    with pytest.raises(RequestError, match=f"dilation_ratio is {ratio}. Accepted are shares of the image diagonal"):
        BoundaryIoU(2, dilation_ratio=ratio)
