"""Goldens 1 to 3 are worked examples whose numbers were computed outside this package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import numba
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelwise.errors import RequestError, WorkError
from pixelwise.metrics import SemanticScores, confusion_matrix, semantic, semantic_scores

DTYPES = ("bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i2", ">u4")
# 254 is the last size of the compiled loop, 32/33 and 160/161 change its number of tables.
SIZES = (1, 2, 3, 11, 21, 32, 33, 150, 160, 161, 253, 254, 255, 256, 300)

Matrix = npt.NDArray[np.int64]
Labels = npt.NDArray[np.integer]
Case = tuple[Labels, Labels, int, int | None]

# The first example pays for the compilation.
patient = settings(
    deadline=None,
    max_examples=200 * settings().max_examples // 100,
    suppress_health_check=[HealthCheck.too_slow],
)


def slow_matrix(prediction: Labels, truth: Labels, num_classes: int, ignore_index: int | None) -> Matrix | None:
    """Count pixel by pixel with Python integers; None where a counted pixel is no class."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if ignore_index is not None and int(t) == ignore_index:
            continue
        if not (0 <= t < num_classes and 0 <= p < num_classes):
            return None
        matrix[int(t), int(p)] += 1
    return matrix


def limits(dtype: str) -> tuple[int, int]:
    if dtype == "bool":
        return 0, 1
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


@st.composite
def label_cases(draw: st.DrawFn, valid: bool) -> Case:
    """Draw (prediction, truth, num_classes, ignore_index); invalid ones may hold any value of the dtype."""
    num_classes = draw(st.sampled_from(SIZES))
    ignore_index = draw(st.sampled_from((None, 0, num_classes - 1, num_classes, 255, -1, -100, 65535, 2**40)))
    shape = draw(st.sampled_from(((0,), (), (1,), (7,), (8,), (3, 5), (2, 3, 4), (0, 4), (5, 11))))

    def array(extra: tuple[int, ...]) -> Labels:
        dtype = draw(st.sampled_from(DTYPES))
        low, high = limits(dtype)
        values = st.integers(0, min(num_classes - 1, high))
        inside = [v for v in extra if low <= v <= high]
        if inside:
            values = st.one_of(values, st.sampled_from(inside))
        size = int(np.prod(shape))
        drawn = draw(st.lists(values, min_size=size, max_size=size))
        return np.array(drawn, dtype).reshape(shape)

    wrong = () if valid else (num_classes, num_classes + 1, 255, 256, -1, 2**31 - 1, 2**63)
    truth = array(wrong + (() if ignore_index is None else (ignore_index,)))
    prediction = array(wrong)
    return prediction, truth, num_classes, ignore_index


@st.composite
def confusions(draw: st.DrawFn) -> Matrix:
    num_classes = draw(st.integers(1, 6))
    cells = st.sampled_from((0, 0, 0, 1, 2, 5, 1000, 2**40))
    drawn = draw(st.lists(cells, min_size=num_classes**2, max_size=num_classes**2))
    return np.array(drawn, np.int64).reshape(num_classes, num_classes)


def names(count: int) -> list[str]:
    return [f"class {k}" for k in range(count)]


def ious(scores: SemanticScores) -> list[float | None]:
    return [c.iou for c in scores.per_class]


# --- goldens ---------------------------------------------------------------------------------------------


def test_golden_1() -> None:
    scores = semantic_scores([[50, 3, 2], [5, 20, 5], [0, 5, 10]], ["a", "b", "c"])
    assert scores.pixel_accuracy == pytest.approx(0.8)
    assert [c.accuracy for c in scores.per_class] == pytest.approx([0.909091, 0.666667, 0.666667], abs=5e-7)
    assert scores.mean_accuracy == pytest.approx(0.747475, abs=5e-7)
    assert ious(scores) == pytest.approx([0.833333, 0.526316, 0.454545], abs=5e-7)
    assert scores.miou == pytest.approx(0.604732, abs=5e-7)
    assert scores.fwiou == pytest.approx(0.684410, abs=5e-7)
    assert [c.dice for c in scores.per_class] == pytest.approx([100 / 110, 40 / 58, 20 / 32])
    assert [(c.truth_pixels, c.predicted_pixels, c.note) for c in scores.per_class] == [
        (55, 55, ""),
        (30, 28, ""),
        (15, 17, ""),
    ]


def test_golden_2_class_absent_from_truth_and_prediction() -> None:
    matrix = [[6, 2, 0], [1, 7, 0], [0, 0, 0]]
    skip = semantic_scores(matrix, ["a", "b", "c"])
    zero = semantic_scores(matrix, ["a", "b", "c"], absent="zero")
    assert ious(skip) == [pytest.approx(2 / 3), pytest.approx(0.7), None]
    assert ious(zero) == [pytest.approx(2 / 3), pytest.approx(0.7), 0.0]
    assert skip.miou == pytest.approx(0.683333, abs=5e-7)
    assert zero.miou == pytest.approx(0.455556, abs=5e-7)
    assert skip.mean_accuracy == zero.mean_accuracy == pytest.approx((6 / 8 + 7 / 8) / 2)
    assert [c.per_class[2].note for c in (skip, zero)] == ["absent from the truth"] * 2
    assert (skip.per_class[2].dice, zero.per_class[2].dice) == (None, 0.0)


def test_golden_3_data_set_against_mean_of_images() -> None:
    first = confusion_matrix([1, 1, 0], [1, 0, 0], 2)  # class 1: intersection 1, union 2
    second = np.array([[0, 4], [6, 90]])  # class 1: intersection 90, union 100
    both = semantic_scores(first + second, ["background", "object"]).per_class[1].iou
    single = [semantic_scores(m, ["background", "object"]).per_class[1].iou for m in (first, second)]
    assert both == pytest.approx(0.892157, abs=5e-7)
    assert np.mean(np.array(single, float)) == pytest.approx(0.7)


# --- counting --------------------------------------------------------------------------------------------


@patient
@given(label_cases(valid=True))
def test_equals_slow_version(case: Case) -> None:
    expected = slow_matrix(*case)
    matrix = confusion_matrix(*case)
    assert matrix.dtype == np.int64
    assert expected is not None
    np.testing.assert_array_equal(matrix, expected)


@patient
@given(label_cases(valid=False))
def test_refuses_exactly_what_the_slow_version_refuses(case: Case) -> None:
    expected = slow_matrix(*case)
    if expected is None:
        with pytest.raises(RequestError, match="on counted pixels"):
            confusion_matrix(*case)
    else:
        np.testing.assert_array_equal(confusion_matrix(*case), expected)


@pytest.mark.parametrize("num_classes", [2, 11, 33, 161, 254, 255])
@pytest.mark.parametrize("size", [4095, 4096, 4097, 8192 + 13])
def test_equals_slow_version_across_blocks(num_classes: int, size: int) -> None:
    rng = np.random.default_rng(size)
    truth = rng.integers(0, num_classes, size).astype(np.uint8)
    prediction = rng.integers(0, num_classes, size).astype(np.uint8)
    truth[rng.random(size) < 0.1] = 255
    expected = slow_matrix(prediction, truth, num_classes, 255)
    np.testing.assert_array_equal(confusion_matrix(prediction, truth, num_classes, 255), expected)


def test_uncompiled_loop_equals_compiled() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 256, (2, 4099), dtype=np.uint8)
    for num_classes, ignored, tables in ((1, 0, 8), (11, 255, 8), (254, 254, 2)):
        arguments = (truth, prediction, num_classes, ignored, tables)
        np.testing.assert_array_equal(semantic._tally(*arguments), semantic._compiled_tally()(*arguments))


def test_arrays_that_are_not_contiguous() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 5, (2, 40, 60), dtype=np.uint8)
    expected = slow_matrix(prediction[::2, ::-3], truth[::2, ::-3], 5, 3)
    np.testing.assert_array_equal(confusion_matrix(prediction[::2, ::-3], truth[::2, ::-3], 5, 3), expected)
    # One in row order and one in column order: pixels must still meet their own partner.
    mixed = confusion_matrix(np.asfortranarray(prediction), truth, 5, 3)
    np.testing.assert_array_equal(mixed, slow_matrix(prediction, truth, 5, 3))


def test_read_only_arrays_lists_and_broadcasts() -> None:
    truth = np.array([[0, 1], [1, 1]], np.uint8)
    truth.setflags(write=False)
    expected = [[1, 0], [3, 0]]
    assert confusion_matrix(np.broadcast_to(np.uint8(0), (2, 2)), truth, 2).tolist() == expected
    assert confusion_matrix([[0, 0], [0, 0]], truth.tolist(), 2).tolist() == expected
    assert not truth.flags.writeable


def test_ignored_pixels_never_matter() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 6, 500)
    prediction = rng.integers(0, 6, 500)
    for ignore_index in (3, 255, -1):
        truth[::7] = ignore_index
        changed = prediction.copy()
        changed[truth == ignore_index] = 10_000
        expected = confusion_matrix(prediction, truth, 6, ignore_index)
        np.testing.assert_array_equal(confusion_matrix(changed, truth, 6, ignore_index), expected)
        assert expected.sum() == np.count_nonzero(truth != ignore_index)
        truth[truth == ignore_index] = 0


@patient
@given(label_cases(valid=True), st.randoms())
def test_matrices_add_up_in_any_split_and_order(case: Case, random: object) -> None:
    prediction, truth, num_classes, ignore_index = case
    p, t = prediction.reshape(-1), truth.reshape(-1)
    order = np.random.default_rng(random.getrandbits(32)).permutation(p.size)  # type: ignore[attr-defined]
    parts = np.array_split(order, 3)
    total = sum(confusion_matrix(p[part], t[part], num_classes, ignore_index) for part in parts)
    np.testing.assert_array_equal(total, confusion_matrix(prediction, truth, num_classes, ignore_index))


def test_no_pixels() -> None:
    empty = np.zeros((0, 5), np.uint8)
    for num_classes in (3, 254, 1000):
        matrix = confusion_matrix(empty, empty, num_classes)
        assert matrix.shape == (num_classes, num_classes)
        assert matrix.dtype == np.int64
        assert not matrix.any()


def test_thousands_of_classes() -> None:
    truth = np.array([65534, 3000, 0, 9999, 9999], np.uint16)
    prediction = np.array([7, 3000, 9999, 0, 9999], np.uint16)
    matrix = confusion_matrix(prediction, truth, 10_000, ignore_index=65534)
    rows, columns = np.nonzero(matrix)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [
        (0, 9999),
        (3000, 3000),
        (9999, 0),
        (9999, 9999),
    ]
    assert matrix.sum() == 4


def test_more_pixels_than_one_call_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    truth, prediction = rng.integers(0, 4, (2, 1001))
    expected = confusion_matrix(prediction, truth, 4)
    monkeypatch.setattr(semantic, "_PIXELS_PER_CALL", 100)
    np.testing.assert_array_equal(confusion_matrix(prediction, truth, 4), expected)


def test_result_is_the_callers_own() -> None:
    label = np.zeros(9, np.uint8)
    first = confusion_matrix(label, label, 2)
    first += 100
    assert confusion_matrix(label, label, 2).tolist() == [[9, 0], [0, 0]]
    assert first.flags.c_contiguous
    assert first.base is None


# --- refusals of confusion_matrix ------------------------------------------------------------------------


def test_shapes_differ() -> None:
    with pytest.raises(RequestError, match=r"prediction has shape \(4, 6\) and truth has shape \(4, 5\)"):
        confusion_matrix(np.zeros((4, 6), int), np.zeros((4, 5), int), 2)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(RequestError, match=r"shape \(1, 4\) and truth has shape \(4,\)"):
        confusion_matrix(np.zeros((1, 4), int), np.zeros(4, int), 2)


@pytest.mark.parametrize("dtype", ["u1", "i8", "u2"])
@pytest.mark.parametrize("num_classes", [11, 21])
def test_truth_value_that_is_no_class(dtype: str, num_classes: int) -> None:
    truth = np.zeros(20, dtype)
    truth[:5] = 200
    truth[5] = 77
    message = (
        rf"truth holds 200 \(5 pixels\), 77 \(1 pixel\) on counted pixels. Accepted are 0 to "
        rf"{num_classes - 1} \(num_classes={num_classes}\) and ignore_index=255"
    )
    with pytest.raises(RequestError, match=message):
        confusion_matrix(np.zeros(20, dtype), truth, num_classes, 255)


def test_truth_value_without_ignore_index() -> None:
    with pytest.raises(RequestError, match=r"255 \(3 pixels\).*0 to 1 .* ignore_index=None. .*pass as ignore_index"):
        confusion_matrix(np.zeros(3, np.uint8), np.full(3, 255, np.uint8), 2)


@pytest.mark.parametrize("num_classes", [11, 400])
def test_prediction_value_that_is_no_class(num_classes: int) -> None:
    truth = np.array([0, 0, 0, 255, 255])
    prediction = np.array([num_classes, -3, num_classes, 9999, 0])
    message = (
        rf"prediction holds {num_classes} \(2 pixels\), -3 \(1 pixel\) on counted pixels. "
        rf"Accepted are 0 to {num_classes - 1} \(num_classes={num_classes}\)\. Predict"
    )
    with pytest.raises(RequestError, match=message):
        confusion_matrix(prediction, truth, num_classes, 255)


def test_many_wrong_values_are_summed_up() -> None:
    with pytest.raises(RequestError, match=r"truth holds 2 \(1 pixel\), 3 .*, 4 .* and 5 more values on"):
        confusion_matrix(np.zeros(10, int), np.arange(10), 2)


def test_float_labels() -> None:
    with pytest.raises(RequestError, match=r"prediction has dtype float32\. Accepted are integer"):
        confusion_matrix(np.zeros(3, np.float32), np.zeros(3, int), 2)


@pytest.mark.parametrize("num_classes", [0, -1, 65536])
def test_num_classes_out_of_range(num_classes: int) -> None:
    with pytest.raises(RequestError, match=rf"num_classes is {num_classes}. Accepted are 1 to 65535"):
        confusion_matrix(np.zeros(3, int), np.zeros(3, int), num_classes)


def test_matrix_that_does_not_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.zeros(3, np.uint16)

    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "zeros", no_memory)
    with pytest.raises(WorkError, match=r"num_classes=65535 takes 32\.0 GiB"):
        confusion_matrix(label, label, 65535)


# --- compilation -----------------------------------------------------------------------------------------


def test_import_does_not_load_numba() -> None:
    code = "import sys, pixelwise.metrics; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def fresh_compilation() -> Iterator[None]:
    semantic._compiled_tally.cache_clear()
    yield
    semantic._compiled_tally.cache_clear()


@pytest.mark.usefixtures("fresh_compilation")
def test_works_without_a_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def njit(*arguments: object, cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(*arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(numba, "njit", njit)
    assert confusion_matrix([0, 1], [1, 1], 2).tolist() == [[0, 0], [1, 1]]


# --- scores ----------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_perfect_prediction_scores_one(num_classes: int, seed: int) -> None:
    truth = np.random.default_rng(seed).integers(0, num_classes, (9, 9))
    scores = semantic_scores(confusion_matrix(truth, truth, num_classes), names(num_classes))
    assert (scores.miou, scores.pixel_accuracy, scores.mean_accuracy, scores.fwiou) == (1, 1, 1, 1)
    assert set(ious(scores)) <= {1.0, None}


@given(confusions(), st.randoms(), st.sampled_from(("skip", "zero")))
def test_relabelling_permutes_scores(matrix: Matrix, random: object, absent: str) -> None:
    order = np.random.default_rng(random.getrandbits(32)).permutation(len(matrix))  # type: ignore[attr-defined]
    labels = names(len(matrix))
    scores = semantic_scores(matrix, labels, absent=absent)  # type: ignore[arg-type]
    moved = semantic_scores(matrix[np.ix_(order, order)], [labels[k] for k in order], absent=absent)  # type: ignore[arg-type]
    assert moved.per_class == tuple(scores.per_class[k] for k in order)
    assert moved.to_json()["metrics"] == scores.to_json()["metrics"]


@given(confusions())
def test_scores_equal_numpy_formulas(matrix: Matrix) -> None:
    scores = semantic_scores(matrix, names(len(matrix)))
    n = matrix.astype(np.float64)
    with np.errstate(invalid="ignore"):
        union = n.sum(1) + n.sum(0) - np.diag(n)
        iou, accuracy = np.diag(n) / union, np.diag(n) / n.sum(1)
        dice = 2 * np.diag(n) / (n.sum(1) + n.sum(0))
    for name, expected in (("iou", iou), ("accuracy", accuracy), ("dice", dice)):
        found = [getattr(c, name) for c in scores.per_class]
        np.testing.assert_allclose(np.array(found, float), expected, rtol=1e-12)
    if n.sum():
        assert scores.miou == pytest.approx(np.nanmean(iou), rel=1e-12)
        assert scores.mean_accuracy == pytest.approx(np.nanmean(accuracy), rel=1e-12)
        assert scores.fwiou == pytest.approx(np.nansum(n.sum(1) * iou) / n.sum(), rel=1e-12)
        assert scores.pixel_accuracy == pytest.approx(np.trace(n) / n.sum(), rel=1e-12)


@given(confusions())
def test_policies_agree_where_every_class_is_present(matrix: Matrix) -> None:
    present = matrix + np.eye(len(matrix), dtype=np.int64)
    skip, zero = (semantic_scores(present, names(len(matrix)), absent=a) for a in ("skip", "zero"))
    assert skip.to_json() == zero.to_json()


def test_notes() -> None:
    # Class 0 is right, 1 never predicted, 2 predicted but never right, 3 absent but predicted, 4 absent.
    matrix = [[5, 0, 1, 0, 0], [2, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    scores = semantic_scores(matrix, names(5))
    assert [c.note for c in scores.per_class] == [
        "",
        "never predicted",
        "predicted but never right",
        "absent from the truth",
        "absent from the truth",
    ]
    assert ious(scores) == [5 / 9, 0.0, 0.0, 0.0, None]
    assert [c.accuracy for c in scores.per_class] == [5 / 6, 0.0, 0.0, None, None]
    assert [c.predicted_pixels for c in scores.per_class] == [8, 0, 1, 1, 0]
    assert scores.miou == pytest.approx(5 / 9 / 4)
    assert scores.mean_accuracy == pytest.approx(5 / 6 / 3)
    zero = semantic_scores(matrix, names(5), absent="zero")
    assert zero.miou == pytest.approx(5 / 9 / 5)
    assert zero.mean_accuracy == scores.mean_accuracy


@pytest.mark.parametrize("absent", ["skip", "zero"])
def test_no_labelled_pixel(absent: str) -> None:
    scores = semantic_scores(np.zeros((3, 3), np.int64), names(3), absent=absent)  # type: ignore[arg-type]
    assert (scores.miou, scores.pixel_accuracy, scores.mean_accuracy, scores.fwiou) == (None,) * 4
    assert ious(scores) == [None] * 3


def test_counts_beyond_float_precision() -> None:
    large = 2**60 + 1
    scores = semantic_scores(np.array([[large, 1], [0, 2**53 + 1]]), names(2))
    assert [(c.truth_pixels, c.predicted_pixels) for c in scores.per_class] == [
        (large + 1, large),
        (2**53 + 1, 2**53 + 2),
    ]
    assert json.loads(json.dumps(scores.to_json()))["confusion_matrix"][0][0] == large


def test_json() -> None:
    scores = semantic_scores([[6, 2, 0], [1, 7, 0], [0, 0, 0]], ["sky", "road", "car"])
    written = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert set(written) == {"metrics", "per_class", "confusion_matrix"}
    assert list(written["metrics"]) == ["miou", "pixel_accuracy", "mean_accuracy", "fwiou"]
    assert list(written["per_class"]) == ["sky", "road", "car"]
    assert written["per_class"]["car"] == {
        "iou": None,
        "accuracy": None,
        "dice": None,
        "truth_pixels": 0,
        "predicted_pixels": 0,
        "note": "absent from the truth",
    }
    assert written["confusion_matrix"] == [[6, 2, 0], [1, 7, 0], [0, 0, 0]]
    assert written["metrics"]["pixel_accuracy"] == pytest.approx(13 / 16)


def test_scores_keep_their_own_matrix() -> None:
    matrix = np.array([[3, 1], [0, 2]])
    scores = semantic_scores(matrix, names(2))
    matrix[:] = 0
    assert scores.confusion.tolist() == [[3, 1], [0, 2]]


# --- refusals of semantic_scores -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "class_names", "absent", "message"),
    [
        (np.zeros((2, 3), int), ["a", "b"], "skip", r"confusion has shape \(2, 3\) and dtype int64"),
        (
            np.zeros((2, 2)),
            ["a", "b"],
            "skip",
            r"shape \(2, 2\) and dtype float64. Accepted is a square integer",
        ),
        (np.array([[1, -4], [0, 1]]), ["a", "b"], "skip", "confusion holds the count -4"),
        (np.eye(3, dtype=int), ["a", "b"], "skip", "class_names has 2 names and confusion has 3 classes"),
        (np.eye(3, dtype=int), ["a", "b", "a"], "skip", "class_names holds 'a' more than once"),
        (np.eye(1, dtype=int), ["a"], "drop", "absent is 'drop'. Accepted are 'skip' and 'zero'"),
    ],
)
def test_arguments_refused(matrix: Matrix, class_names: list[str], absent: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        semantic_scores(matrix, class_names, absent=absent)  # type: ignore[arg-type]
