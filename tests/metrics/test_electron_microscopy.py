"""Goldens named "original" were made with the organisers' Java, fiji/Trainable_Segmentation at 41c7083.

Its classes `RandError`, `VariationOfInformation`, `WarpingError`, `PixelError` and `WatershedTransform2D` ran
unchanged on ImageJ 1.52i with a 4-connected labelling of our own in the place of `FindConnectedRegions`, on
the maps below as float images. They print 12 digits.
"""

from __future__ import annotations

import itertools
import math
from collections import deque

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixelwise.errors import RequestError
from pixelwise.metrics import MembraneTally, PartitionScores, membranes, partition_scores, thin_membranes, warping_error
from pixelwise.metrics.electron_microscopy import THRESHOLDS

Labels = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

patient = settings(deadline=None, max_examples=100 * settings().max_examples // 100)

# threshold, V_rand, V_info, F-score of Rand, warping error, pixel error
ORIGINAL = [
    (0.0, 0.293316698355, 0.0, 0.29860929918, 0.0630208333333, 0.401041666667),
    (0.1, 0.320947581976, 0.222866054512, 0.330261923904, 0.0479166666667, 0.3171875),
    (0.2, 0.700901874984, 0.740228881908, 0.601025595993, 0.0278645833333, 0.24296875),
    (0.3, 0.888646961438, 0.870370535908, 0.838648007953, 0.0166666666667, 0.214583333333),
    (0.4, 0.887883334065, 0.866615406288, 0.790367688005, 0.0151041666667, 0.216927083333),
    (0.5, 0.856807356767, 0.834455534637, 0.727565162688, 0.0135416666667, 0.236979166667),
    (0.6, 0.825988444584, 0.821229156566, 0.669145915692, 0.00963541666667, 0.267447916667),
    (0.7, 0.816214211528, 0.816128034863, 0.59157949264, 0.00885416666667, 0.302083333333),
    (0.8, 0.783551637489, 0.795679581728, 0.536726163325, 0.00442708333333, 0.332291666667),
    (0.9, 0.724251861849, 0.728811854032, 0.483173980614, 0.00520833333333, 0.36640625),
    (1.0, 0.293316698355, 0.0, 0.0107145398542, 0.00520833333333, 0.548958333333),
]
ORIGINAL_INTERIOR = """
##......###
#.........#
....##.....
...####....
....##...##
#........##
##...#.....
###.....###
"""
ORIGINAL_CELLS = """
1111.3.5555
111.333.555
11.33333..5
..333333.7.
22.3333.777
222.3..7777
2222.44....
2222.4.6666
"""
# Bit k is the neighbourhood k of `_simple_patterns`, from `simple2DBertrand(patch, 4)`.
ORIGINAL_SIMPLE = 0x7F8F8F8F80008F8FD505DADAD505DADAD505050500000505D505DADAD505DADA


def stack() -> list[tuple[Floats, Mask]]:
    """Make two slices (40, 48) of 12 Voronoi cells in whole numbers: predictions of moved cells, and truth."""
    height, width, num_cells, state = 40, 48, 12, 1
    y, x = np.mgrid[:height, :width]
    slices = []
    for _ in range(2):
        drawn = []
        for _ in range(4 * num_cells):
            state = (1103515245 * state + 12345) % 2**31
            drawn.append(state >> 16)
        points = np.array(drawn, np.int64).reshape(num_cells, 4)
        gaps = []
        for shift in (0, 1):
            rows = points[:, 0] % height + shift * (points[:, 2] % 5 - 2)
            columns = points[:, 1] % width + shift * (points[:, 3] % 5 - 2)
            distance = np.sort((y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2, axis=2)
            gaps.append(distance[..., 1] - distance[..., 0])
        noise = (x * x * 7 + y * y * 11 + x * y * 5) % 61 - 30
        slices.append(((np.clip(2 * gaps[1] + noise, 0, 230) / 255).astype(np.float32), gaps[0] > 40))
    return slices


def strip(text: str) -> Labels:
    return np.array([[int(c) for c in text]])


def scored(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> PartitionScores:
    scores = partition_scores(prediction, truth)
    assert scores is not None
    return scores


@st.composite
def partitions(draw: st.DrawFn) -> tuple[Labels, Labels]:
    shape = draw(st.sampled_from(((1, 1), (1, 6), (4, 5), (6, 3))))
    size = shape[0] * shape[1]
    maps = st.lists(st.integers(0, 4), min_size=size, max_size=size)
    return tuple(np.array(draw(maps)).reshape(shape) for _ in range(2))  # type: ignore[return-value]


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    shape = draw(st.sampled_from(((1, 1), (1, 8), (5, 6), (9, 7), (12, 12))))
    seed, share = draw(st.integers(0, 2**32)), draw(st.sampled_from((0.0, 0.3, 0.6, 0.9, 1.0)))
    return np.random.default_rng(seed).random(shape) < share


# Golden 6: 1-D strips against 1111 0 2222.
@pytest.mark.parametrize(
    ("prediction", "merge", "split", "vrand", "vinfo"),
    [
        ("111102222", 1, 1, 1, 1),
        ("112203333", 1, 0.75, 0.857143, 0.800000),
        ("111111111", 0.5, 1, 0.666667, 0),
        ("111002222", 1, 0.8125, 0.896552, 0.831380),
    ],
)
def test_golden_strips(prediction: str, merge: float, split: float, vrand: float, vinfo: float) -> None:
    scores = scored(strip(prediction), strip("111102222"))
    assert scores.vrand_merge == pytest.approx(merge, abs=5e-7)
    assert scores.vrand_split == pytest.approx(split, abs=5e-7)
    assert scores.vrand == pytest.approx(vrand, abs=5e-7)
    assert scores.vinfo == pytest.approx(vinfo, abs=5e-7)
    assert scores.num_pixels == 8


@pytest.mark.parametrize(("prediction", "rand_index"), [("112203333", 0.857143), ("111111111", 0.428571)])
def test_golden_rand_index(prediction: str, rand_index: float) -> None:
    assert scored(strip(prediction), strip("111102222")).rand_index == pytest.approx(rand_index, abs=5e-7)


@pytest.mark.parametrize(
    ("prediction", "truth", "vinfo", "split", "merge", "vrand"),
    [
        ("1111", "2222", 0, 0, 1, 1),  # one cell each: perfect, and V_info 0 all the same
        ("1122", "3333", 0, 1, 0, 2 / 3),  # a single true cell
        ("1111", "2233", 0, 0, 1, 2 / 3),  # a single predicted cell
        ("0", "1", 0, 0, 1, 1),
    ],
)
def test_single_cells_follow_the_original(
    prediction: str, truth: str, vinfo: float, split: float, merge: float, vrand: float
) -> None:
    scores = scored(strip(prediction), strip(truth))
    assert (scores.vinfo, scores.vinfo_split, scores.vinfo_merge) == (vinfo, split, merge)
    assert scores.vrand == pytest.approx(vrand)


def test_without_true_cells_nothing_is_defined() -> None:
    assert partition_scores([[1, 2]], [[0, 0]]) is None
    assert partition_scores(np.zeros((0, 3), int), np.zeros((0, 3), int)) is None


def test_unrelated_maps_share_no_information() -> None:
    scores = scored([[1, 2], [1, 2]], [[1, 1], [2, 2]])
    assert scores.vinfo == scores.vinfo_split == scores.vinfo_merge == 0


@patient
@given(partitions())
def test_equals_the_definitions_pair_by_pair(maps: tuple[Labels, Labels]) -> None:
    prediction, truth = (labels.ravel().tolist() for labels in maps)
    # Each pixel of the membrane becomes a segment of its own.
    pixels = [(t, p if p else -k) for k, (t, p) in enumerate(zip(truth, prediction, strict=True), 1) if t]
    scores = partition_scores(*maps)
    if not pixels:
        assert scores is None
        return
    assert scores is not None
    n = len(pixels)
    pairs = [(a[0] == b[0], a[1] == b[1]) for a, b in itertools.product(pixels, pixels)]
    both, of_truth = sum(t and p for t, p in pairs), sum(t for t, _ in pairs)
    of_prediction = sum(p for _, p in pairs)
    assert scores.vrand == pytest.approx(both / (of_truth / 2 + of_prediction / 2), abs=1e-12)
    assert (scores.vrand_split, scores.vrand_merge) == pytest.approx((both / of_truth, both / of_prediction))
    if n > 1:
        agree = sum(t == p for t, p in pairs) - n
        assert scores.rand_index == pytest.approx(agree / (n * (n - 1)), abs=1e-12)

    def entropy(values: list[object]) -> float:
        return -sum(values.count(v) / n * math.log(values.count(v) / n) for v in set(values))

    ha, hb = entropy([t for t, _ in pixels]), entropy([p for _, p in pixels])
    if ha > 0 and hb > 0:
        shared = ha + hb - entropy(list(pixels))
        assert scores.vinfo == pytest.approx(2 * shared / (ha + hb), abs=1e-12)
        assert (scores.vinfo_split, scores.vinfo_merge) == pytest.approx((shared / hb, shared / ha), abs=1e-12)
    else:
        assert scores.vinfo == 0


@patient
@given(partitions(), st.permutations(range(1, 5)))
def test_names_and_orientation_do_not_matter(maps: tuple[Labels, Labels], names: list[int]) -> None:
    renamed = [np.array([0, *names])[labels].T * factor for labels, factor in zip(maps, (1, 2**40), strict=True)]
    before, after = partition_scores(*maps), partition_scores(*renamed)
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert vars(before) == pytest.approx(vars(after), abs=1e-12)
        assert all(0 <= value <= 1 + 1e-12 for name, value in vars(before).items() if name != "num_pixels")


@patient
@given(partitions())
def test_perfect_prediction_scores_one(maps: tuple[Labels, Labels]) -> None:
    scores = partition_scores(maps[0], maps[0])
    if scores is not None:
        assert scores.vrand == scores.rand_index == 1
        assert scores.vinfo == pytest.approx(1 if len(set(maps[0][maps[0] > 0].tolist())) > 1 else 0)


def test_equals_scikit_image_with_lines_of_single_pixels() -> None:
    from skimage.metrics import adapted_rand_error, variation_of_information

    rng = np.random.default_rng(0)
    truth, prediction = (np.kron(rng.integers(0, 9, (8, 8)), np.ones((6, 6), int)) for _ in range(2))
    prediction = np.roll(prediction, 2, axis=(0, 1))
    single = np.where(prediction > 0, prediction, 100 + np.arange(prediction.size).reshape(prediction.shape))
    _, precision, recall = adapted_rand_error(truth, single, ignore_labels=(0,))  # type: ignore[no-untyped-call]
    entropies = variation_of_information(truth, single, ignore_labels=(0,))  # type: ignore[no-untyped-call]
    given_truth, given_prediction = entropies
    areas = np.bincount(truth[truth > 0])[1:].astype(float)
    n = areas.sum()
    # There pairs are of different pixels, here a pixel pairs with itself too; entropies are in bits there.
    both = precision * (areas @ areas - n)
    scores = scored(prediction, truth)
    assert scores.vrand_split == pytest.approx((both + n) / (areas @ areas), abs=1e-12)
    assert scores.vrand_merge == pytest.approx((both + n) / (both / recall + n), abs=1e-12)
    entropy = -(areas / n) @ np.log2(areas / n)
    shared = entropy - given_prediction
    assert scores.vinfo == pytest.approx(2 * shared / (entropy + shared + given_truth), abs=1e-12)


def slow_thinning(interior: Mask) -> Labels:
    """Grow cells from a queue, column by column, as the rule says; without interior all is one cell."""
    if not interior.any():
        return np.ones(interior.shape, int)
    cells: Labels = ndimage.label(interior)[0]

    def around(pixel: tuple[int, int]) -> list[tuple[int, int]]:
        y, x = pixel
        near = [(y, x - 1), (y - 1, x), (y, x + 1), (y + 1, x)]
        return [(v, u) for v, u in near if 0 <= v < cells.shape[0] and 0 <= u < cells.shape[1]]

    pixels = [(y, x) for x in range(cells.shape[1]) for y in range(cells.shape[0])]
    queue = deque(pixel for pixel in pixels if not cells[pixel] and any(interior[other] for other in around(pixel)))
    waiting = {pixel for pixel in pixels if not cells[pixel]} - set(queue)
    while queue:
        pixel = queue.popleft()
        met = {int(cells[other]) for other in around(pixel)} - {0}
        cells[pixel] = met.pop() if len(met) == 1 else 0
        for other in around(pixel):
            if other in waiting:
                waiting.remove(other)
                queue.append(other)
    return cells


def same_partition(first: Labels, second: Labels) -> bool:
    pairs = set(zip(first.ravel().tolist(), second.ravel().tolist(), strict=True))
    one_to_one = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    return one_to_one and all((a == 0) == (b == 0) for a, b in pairs)


def test_thinning_is_the_original() -> None:
    interior = np.array([[c == "#" for c in row] for row in ORIGINAL_INTERIOR.split()])
    cells = np.array([[0 if c == "." else int(c) for c in row] for row in ORIGINAL_CELLS.split()])
    assert same_partition(thin_membranes(interior), cells)


@patient
@given(masks())
def test_thinning_equals_a_slow_one(interior: Mask) -> None:
    cells = thin_membranes(interior)
    assert same_partition(cells, slow_thinning(interior))
    assert (cells > 0)[interior].all()


def test_thinning_of_maps_without_cells_or_membranes() -> None:
    assert thin_membranes(np.zeros((2, 3), bool)).tolist() == [[1, 1, 1], [1, 1, 1]]
    assert thin_membranes(np.ones((2, 3), bool)).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_simple_points_are_the_original() -> None:
    assert sum(1 << k for k, simple in enumerate(membranes._simple_patterns()) if simple) == ORIGINAL_SIMPLE


def slow_warping(probability: Floats, truth: Mask, threshold: float) -> float:
    """Warp with counted components in each neighbourhood."""
    target = probability.astype(float) > threshold
    warped = np.pad(truth, 1)
    sureness = np.abs(probability.astype(float) - threshold).astype(np.float32)
    pixels = [(y, x) for x in range(truth.shape[1]) for y in range(truth.shape[0])]
    pixels.sort(key=lambda pixel: -sureness[pixel])
    changed = True
    while changed:
        changed = False
        for y, x in pixels:
            patch = warped[y : y + 3, x : x + 3]
            if patch[1, 1] == target[y, x]:
                continue
            ring = np.ones((3, 3), bool)
            ring[1, 1] = False
            cells, _ = ndimage.label(patch & ring)
            touching = {int(cells[p]) for p in ((0, 1), (1, 0), (1, 2), (2, 1))} - {0}
            _, num_membranes = ndimage.label(~patch & ring, np.ones((3, 3)))
            if len(touching) == num_membranes == 1:
                patch[1, 1] = target[y, x]
                changed = True
    return float((warped[1:-1, 1:-1] != target).mean())


@settings(deadline=None, max_examples=40)
@given(masks(), st.integers(0, 2**32), st.sampled_from((0.0, 0.3, 0.55)))
def test_warping_equals_a_slow_one(truth: Mask, seed: int, threshold: float) -> None:
    probability = np.random.default_rng(seed).random(truth.shape).astype(np.float32)
    assert warping_error(probability, truth, threshold) == slow_warping(probability, truth, threshold)


def test_outlines_cost_nothing_but_splits_do() -> None:
    truth = np.zeros((7, 12), bool)
    truth[2:5, 2:10] = True
    thicker, cut = truth.copy(), truth.copy()
    thicker[1:6, 1:11] = True
    cut[:, 6] = False
    assert warping_error(thicker.astype(np.float32), truth, 0.5) == 0
    assert warping_error(cut.astype(np.float32), truth, 0.5) == 1 / truth.size


def test_stack_scores_are_the_original() -> None:
    tally = MembraneTally(with_warping_error=True)
    for probability, truth in stack():
        tally.add(probability, truth)
    scores = tally.result()
    for row, golden in zip(scores.per_threshold, ORIGINAL, strict=True):
        assert row.rand_error is not None
        values = (row.threshold, row.vrand, row.vinfo, 1 - row.rand_error, row.warping_error, row.pixel_error)
        assert values == pytest.approx(golden, abs=1e-11)
    best = {measure: round(row.threshold, 1) for measure, row in scores.best.items()}
    assert best == {"vrand": 0.3, "vinfo": 0.3, "rand_error": 0.3, "pixel_error": 0.3, "warping_error": 0.8}
    assert (scores.num_slices, scores.num_slices_with_cells) == (2, 2)


def test_json_holds_the_best_values() -> None:
    tally = MembraneTally()
    for probability, truth in stack():
        tally.add(probability, truth)
    scores = tally.result().to_json()
    metrics = scores["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["vrand"] == pytest.approx(0.888646961438)
    assert metrics["rand_error"] == pytest.approx(1 - 0.838648007953)
    assert metrics["warping_error"] is None
    assert metrics["vrand_split"] * metrics["vrand_merge"] > 0
    assert scores["num_slices"] == 2


def test_thresholds_are_summed_as_the_original_does() -> None:
    assert THRESHOLDS[:4] == (0.0, 0.1, 0.2, 0.30000000000000004)
    assert THRESHOLDS[10] == 0.9999999999999999


def test_only_probability_one_is_cell_at_the_last_threshold() -> None:
    tally = MembraneTally()
    tally.add(np.array([[1.0, 0.99, 1.0]]), np.array([[True, False, True]]))
    last, before = tally.result().per_threshold[-1], tally.result().per_threshold[-2]
    assert (last.pixel_error, last.vrand) == (0, 1)
    assert before.pixel_error == pytest.approx(1 / 3)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64])
def test_maps_of_zero_and_one_score_the_same_at_all_thresholds(dtype: type) -> None:
    tally = MembraneTally()
    for probability, truth in stack():
        tally.add((probability > 0.5).astype(dtype), truth)
    rows = [vars(row) | {"threshold": 0} for row in tally.result().per_threshold]
    assert rows == [rows[0]] * 11
    assert rows[0]["vrand"] == pytest.approx(ORIGINAL[5][1])
    assert tally.result().best["vrand"].threshold == 0


def test_slices_without_a_true_cell_count_in_pixel_error_only() -> None:
    alone, both = MembraneTally(), MembraneTally(with_warping_error=True)
    prediction, truth = np.array([[1.0, 0.0, 1.0]]), np.array([[True, False, True]])
    alone.add(prediction, truth)
    both.add(prediction, truth)
    both.add(np.array([[0.0, 1.0]]), np.array([[False, False]]))
    first, second = alone.result(), both.result()
    assert second.best["vrand"].vrand == first.best["vrand"].vrand == 1
    assert second.best["rand_error"].rand_error == 0
    assert second.best["pixel_error"].pixel_error == pytest.approx(0.25)
    assert (second.num_slices, second.num_slices_with_cells) == (2, 1)


def test_nothing_is_defined_without_slices_or_cells() -> None:
    empty = MembraneTally(with_warping_error=True).result()
    assert empty.best == {}
    assert set(empty.to_json()["metrics"].values()) == {None}  # type: ignore[attr-defined]
    tally = MembraneTally()
    tally.add(np.zeros((2, 2)), np.zeros((2, 2), bool))
    assert set(tally.result().best) == {"pixel_error"}


@pytest.mark.parametrize(
    ("probability", "truth", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2), bool), r"interior_probability has shape \(2, 3\) and.*shape \(3, 2\)"),
        (np.full((2, 2), 1.5), np.zeros((2, 2), bool), r"values from 1.5 to 1.5. Accepted are probabilities from 0"),
        (np.array([[0, 255]]), np.zeros((1, 2), bool), r"values from 0 to 255.*\n?.*Divide 8-bit maps by 255"),
        (np.array([[np.nan, 0.5]]), np.zeros((1, 2), bool), r"values from nan to nan"),
        (np.array([[-0.1]]), np.zeros((1, 1), bool), r"values from -0.1 to -0.1"),
        (np.zeros((1, 2, 2)), np.zeros((2, 2), bool), r"interior_probability has shape \(1, 2, 2\) and dtype float64"),
        (np.zeros((2, 2), complex), np.zeros((2, 2), bool), r"interior_probability has shape \(2, 2\) and dtype compl"),
        (np.zeros((0, 2)), np.zeros((0, 2), bool), r"interior_probability has shape \(0, 2\).*at least one pixel"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), r"truth_interior has shape \(2, 2\) and dtype int64.*labels == 0"),
    ],
)
def test_says_what_is_wrong(probability: Floats, truth: Mask, message: str) -> None:
    tally = MembraneTally()
    with pytest.raises(RequestError, match=message):
        tally.add(probability, truth)
    assert tally.result().num_slices == 0


def test_thinning_says_what_is_wrong() -> None:
    with pytest.raises(RequestError, match=r"interior has shape \(3,\) and dtype bool. Accepted is a bool map"):
        thin_membranes(np.zeros(3, bool))


def test_warping_says_what_is_wrong() -> None:
    with pytest.raises(RequestError, match=r"threshold is 1.5. Accepted are probabilities from 0 to 1"):
        warping_error(np.zeros((1, 1)), np.zeros((1, 1), bool), 1.5)
    with pytest.raises(RequestError, match=r"interior_probability has shape \(1, 2\).*shape \(2, 1\)"):
        warping_error(np.zeros((1, 2)), np.zeros((2, 1), bool), 0.5)
