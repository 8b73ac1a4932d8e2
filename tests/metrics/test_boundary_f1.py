"""BF against worked examples, slow versions and counts of the Berkeley benchmark."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from pixelwise.errors import RequestError
from pixelwise.metrics import BoundaryF1, confusion_matrix, semantic_scores

Map = npt.NDArray[np.integer]
Points = npt.NDArray[np.integer]
VOID = 255
VARIANTS = ("one_to_one", "distance")

# The first example pays for the compilation.
patient = settings(
    deadline=None,
    max_examples=80 * settings().max_examples // 100,
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Map, Map, int]:
    """Draw prediction, truth with ignored pixels, and K: blocks of a few labels with single odd pixels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    num_classes = draw(st.integers(1, 4))
    coarse = rng.integers(0, num_classes, (8, 8))
    truth = coarse[np.ix_(np.arange(shape[0]) // 3, np.arange(shape[1]) // 3)]
    moved = rng.integers(-2, 3, 2)
    prediction = np.roll(truth, moved, axis=(0, 1))
    for labels, value in ((prediction, num_classes - 1), (truth, 0), (truth, VOID)):
        labels[rng.random(shape) < rng.choice((0, 0.05, 0.4))] = value
    return prediction, truth, num_classes


def score(prediction: Map, truth: Map, num_classes: int, variant: str, **options: float) -> BoundaryF1:
    scored = BoundaryF1(num_classes, ignore_index=VOID, matching=variant, **options)  # type: ignore[arg-type]
    scored.add(prediction, truth)
    return scored


# --- worked examples -------------------------------------------------------------------------------------


def square(shift: int) -> Map:
    labels = np.zeros((32, 32), np.uint8)
    labels[10:22, 8 + shift : 20 + shift] = 1
    return labels


@pytest.mark.parametrize(
    ("shift", "iou", "within_1", "within_2"),
    [(1, 0.846154, 1.0, None), (2, 0.714286, 0.545455, 1.0), (3, 0.6, 0.5, 0.590909)],
)
def test_golden_5(shift: int, iou: float, within_1: float, within_2: float | None) -> None:
    matrix = confusion_matrix(square(shift), square(0), 2)
    assert semantic_scores(matrix, ["a", "b"]).per_class[1].iou == pytest.approx(iou, abs=5e-7)
    # Between the pixel distances 1 and sqrt(2), and between 2 and sqrt(5).
    for pixels, expected in ((1.2, within_1), (2.1, within_2)):
        scored = score(square(shift), square(0), 2, "distance", max_distance=pixels / math.hypot(32, 32))
        if expected is not None:
            assert scored.result().per_class[1] == pytest.approx(expected, abs=5e-7)


def rings(row: int, column: int, width: int) -> Map:
    """Three classes in elliptic rings, 120 x 160, with flat pieces at the edge of the image."""
    y, x = np.mgrid[:120, :160]
    return (2 * (y - row) ** 2 + (x - column) ** 2) // width % 3


@pytest.mark.parametrize(
    ("max_distance", "pairs", "most_pairs"),
    [(0.0075, [975, 981, 946], [977, 986, 946]), (0.02, [1525, 1579, 1521], [1525, 1580, 1521])],
)
def test_counts_of_the_berkeley_benchmark(max_distance: float, pairs: list[int], most_pairs: list[int]) -> None:
    # pairs: correspondPixels of the BSDS benchmark (Britefury/py-bsds500, commit 79da036, src/match.cc compiled with
    # g++ -O2 -DNOBLAS), outlier cost 100, on the outlines of SegNet's script. It thins its graph at random and may
    # miss some; most_pairs is the maximum, by scipy's maximum_bipartite_matching.
    prediction, truth = rings(43, 64, 1500), rings(40, 60, 1600)
    prediction[90:97, 100:120] = 2
    scores = score(prediction, truth, 3, "one_to_one", max_distance=max_distance).result()
    of_prediction, of_truth = (np.array([len(slow_blocks(m, k)) for k in range(3)]) for m in (prediction, truth))
    assert of_prediction.tolist() == [1718, 1804, 1708]
    assert of_truth.tolist() == [1632, 1785, 1653]
    found = np.array(scores.per_class, float) * (of_prediction + of_truth) / 2
    assert found == pytest.approx(most_pairs, abs=1e-6)
    assert (found > np.array(pairs) - 0.5).all()
    assert found == pytest.approx(pairs, rel=6e-3)


def test_one_pixel_serves_one_other() -> None:
    # Truth: a thin line of class 1; prediction: a bar of it, two outlines near the one line.
    truth, prediction = np.zeros((12, 40), int), np.zeros((12, 40), int)
    truth[6, 4:36] = 1
    prediction[5:8, 4:36] = 1
    one, any_other = (score(prediction, truth, 2, v, max_distance=0.05).result().per_class[1] for v in VARIANTS)
    assert any_other == 1
    # Blocks: two lines of 33 pixels in the truth; lines 3 apart with 3 pixels at each end in the prediction.
    assert one == 2 * 66 / (66 + 70)


# --- slow versions ---------------------------------------------------------------------------------------


def slow_blocks(labels: Map, k: int) -> Points:
    """Find the pixels whose block with the ones below and to the right is partly of class k."""
    height, width = labels.shape
    found = []
    for i, j in np.ndindex(height, width):
        block = labels[i : min(i + 2, height), j : min(j + 2, width)] == k
        if block.any() and not block.all():
            found.append((i, j))
    return np.array(found, int).reshape(-1, 2)


def slow_inner(labels: Map, k: int) -> Points:
    """Find the pixels of class k with a 4-neighbour that is not."""
    height, width = labels.shape
    found = []
    for i, j in np.ndindex(height, width):
        around = [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
        inside = [(y, x) for y, x in around if 0 <= y < height and 0 <= x < width]
        if labels[i, j] == k and any(labels[place] != k for place in inside):
            found.append((i, j))
    return np.array(found, int).reshape(-1, 2)


def slow_f1(prediction: Map, truth: Map, k: int, variant: str, max_distance: float) -> float | None:
    find = slow_blocks if variant == "one_to_one" else slow_inner
    ours, theirs = find(prediction, k), find(truth, k)
    if not len(ours) and not len(theirs):
        return None
    squares = ((ours[:, None] - theirs[None]) ** 2).sum(axis=2)
    near = squares <= max_distance**2 * (truth.shape[0] ** 2 + truth.shape[1] ** 2)
    if variant == "one_to_one":
        pairs = np.count_nonzero(maximum_bipartite_matching(csr_array(near)) >= 0) if near.any() else 0
        precision, recall = pairs / max(1, len(ours)), pairs / max(1, len(theirs))
    else:
        precision = np.count_nonzero(near.any(axis=1)) / max(1, len(ours))
        recall = np.count_nonzero(near.any(axis=0)) / max(1, len(theirs))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("score_ignored", [False, True])
@patient
@given(case=cases(), max_distance=st.sampled_from((0.001, 0.0701, 0.1203, 0.3, 1.0)))
def test_equals_slow_version(
    variant: str, score_ignored: bool, case: tuple[Map, Map, int], max_distance: float
) -> None:
    prediction, truth, num_classes = case
    scores = score(*case, variant, max_distance=max_distance, score_ignored=score_ignored).result()
    if not score_ignored:
        prediction = np.where(truth == VOID, VOID, prediction)
    expected = [slow_f1(prediction, truth, k, variant, max_distance) for k in range(num_classes)]
    assert scores.per_class == pytest.approx(expected)
    defined = [value for value in expected if value is not None]
    assert scores.bf == (pytest.approx(np.mean(defined)) if defined else None)
    assert scores.per_image == (scores.bf,)


# --- means -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_means_over_classes_and_images(variant: str) -> None:
    scored = BoundaryF1(4, matching=variant)  # type: ignore[arg-type]
    blank, dotted = np.zeros((9, 9), int), np.zeros((9, 9), int)
    dotted[4, 4] = 2
    scored.add(blank, blank)  # no outline: left out
    scored.add(dotted, dotted)
    scored.add(blank, dotted)  # classes 0 and 2 have an outline in the truth alone
    scored.add(np.where(dotted == 2, 1, 0), dotted)  # 0 right, 1 in the prediction alone, 2 in the truth alone
    scores = scored.result()
    assert scores.per_image == (None, 1.0, 0.0, pytest.approx(1 / 3))
    assert scores.bf == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert scores.per_class == (pytest.approx(2 / 3), 0.0, pytest.approx(1 / 3), None)
    assert BoundaryF1(2).result().bf is None


# --- properties ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@patient
@given(case=cases())
def test_perfect_prediction_scores_one(variant: str, case: tuple[Map, Map, int]) -> None:
    _, truth, num_classes = case
    scores = score(np.where(truth == VOID, 0, truth), truth, num_classes, variant).result()
    assert scores.bf in (1, None)
    assert set(scores.per_class) <= {1.0, None}


@pytest.mark.parametrize("variant", VARIANTS)
@patient
@given(case=cases(), how=st.sampled_from(("flip", "flip up", "transpose")))
def test_flips_change_nothing(variant: str, case: tuple[Map, Map, int], how: str) -> None:
    turn = {"flip": np.fliplr, "flip up": np.flipud, "transpose": np.transpose}[how]
    # The outlines of SegNet's script differ at the lower and right edges: keep clear of them.
    prediction, truth = (np.pad(labels, 2) for labels in case[:2])
    straight, turned = (
        score(p, t, case[2], variant, max_distance=0.1).result()
        for p, t in ((prediction, truth), (turn(prediction), turn(truth)))
    )
    assert turned == straight


@pytest.mark.parametrize("variant", VARIANTS)
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.lists(cases(), min_size=2, max_size=4))
def test_order_of_images_changes_nothing(variant: str, drawn: list[tuple[Map, Map, int]]) -> None:
    there, back = (BoundaryF1(4, ignore_index=VOID, matching=variant) for _ in range(2))  # type: ignore[arg-type]
    for (prediction, truth, _), (last_prediction, last_truth, _) in zip(drawn, drawn[::-1], strict=True):
        there.add(prediction, truth)
        back.add(last_prediction, last_truth)
    assert there.result().bf == back.result().bf
    assert there.result().per_class == back.result().per_class
    assert there.result().per_image == back.result().per_image[::-1]


@pytest.mark.parametrize("variant", VARIANTS)
@patient
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_prediction_is_free_on_ignored_pixels(variant: str, case: tuple[Map, Map, int], seed: int) -> None:
    prediction, truth, num_classes = case
    anything = np.random.default_rng(seed).integers(-300, 300, truth.shape)
    free = np.where(truth == VOID, anything, prediction)
    assert score(free, truth, num_classes, variant).result() == score(*case, variant).result()


@pytest.mark.parametrize("variant", VARIANTS)
def test_prediction_on_ignored_pixels_can_be_scored(variant: str) -> None:
    # Class 1 begins in the middle of a wide strip of ignored pixels, 4 pixels from where its truth begins.
    truth, prediction = np.zeros((9, 24), int), np.zeros((9, 24), int)
    truth[:, 8:16], truth[:, 16:], prediction[:, 12:] = VOID, 1, 1
    assert score(prediction, truth, 2, variant).result().bf == 1
    assert score(prediction, truth, 2, variant, score_ignored=True).result().bf == 0
    wide = score(prediction, truth, 2, variant, score_ignored=True, max_distance=5 / math.hypot(9, 24))
    assert wide.result().bf == 1


@pytest.mark.parametrize("shift", [251, 252, 253, 300])
@pytest.mark.parametrize("variant", VARIANTS)
def test_many_classes(variant: str, shift: int) -> None:
    prediction, truth = rings(43, 64, 1500), rings(40, 60, 1600)
    few, many = BoundaryF1(3, matching=variant), BoundaryF1(shift + 3, matching=variant)  # type: ignore[arg-type]
    few.add(prediction, truth)
    many.add(prediction + shift, truth + shift)
    assert many.result().per_class == (None,) * shift + few.result().per_class


# --- refusals --------------------------------------------------------------------------------------------


def test_images_refused() -> None:
    image = np.zeros((4, 5), int)
    scored = BoundaryF1(2)
    with pytest.raises(RequestError, match=r"prediction has shape \(4, 4\) and truth has shape \(4, 5\)"):
        scored.add(image[:, :4], image)
    with pytest.raises(RequestError, match=r"truth has shape \(20,\)\. Accepted is one image \(H, W\)"):
        scored.add(image.ravel(), image.ravel())
    with pytest.raises(RequestError, match=r"prediction holds 2 \(20 pixels\) on counted pixels"):
        scored.add(image + 2, image)
    assert scored.result().per_image == ()


def test_arguments_refused() -> None:
    with pytest.raises(RequestError, match=r"matching is 'nearest'\. Accepted are 'one_to_one' .* and 'distance'"):
        BoundaryF1(2, matching="nearest")  # type: ignore[arg-type]
    for max_distance in (0, -1, 1.5, float("nan")):
        with pytest.raises(RequestError, match=f"max_distance is {max_distance}. Accepted are shares of the image"):
            BoundaryF1(2, max_distance=max_distance)
    with pytest.raises(RequestError, match=r"num_classes is 0\. Accepted are 1 to 65535"):
        BoundaryF1(0)
