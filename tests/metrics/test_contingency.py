from __future__ import annotations

import json
import subprocess
import sys

import numba
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.errors import RequestError
from pixelwise.metrics import Contingency, contingency, contingency_table
from pixelwise.metrics.compiled import compile_loop

Labels = npt.NDArray[np.integer]
Table = dict[tuple[int, int], int]

DTYPES = ("bool", "u1", "i1", "u2", "i4", "u4", "i8", "u8", ">i2")
SHAPES = ((1, 1), (1, 7), (3, 5), (4, 1), (0, 4), (2, 31))

# The first example pays for the compilation.
patient = settings(deadline=None, max_examples=150 * settings().max_examples // 100)


def as_dict(table: Contingency) -> Table:
    rows = zip(table.truth.tolist(), table.prediction.tolist(), table.pixels.tolist(), strict=True)
    return {(t, p): n for t, p, n in rows}


def slow_table(prediction: Labels, truth: Labels) -> Table:
    found: Table = {}
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        found[int(t), int(p)] = found.get((int(t), int(p)), 0) + 1
    return found


@st.composite
def label_maps(draw: st.DrawFn) -> tuple[Labels, Labels]:
    shape = draw(st.sampled_from(SHAPES))

    def labels() -> Labels:
        dtype = draw(st.sampled_from(DTYPES))
        high = 1 if dtype == "bool" else min(int(np.iinfo(dtype).max), 2**63 - 1)
        values = st.one_of(st.integers(0, min(3, high)), st.sampled_from((high, high // 2)))
        size = int(np.prod(shape))
        return np.array(draw(st.lists(values, min_size=size, max_size=size)), dtype).reshape(shape)

    return labels(), labels()


@patient
@given(label_maps())
def test_counts_every_pair(maps: tuple[Labels, Labels]) -> None:
    table = contingency_table(*maps)
    assert len(as_dict(table)) == table.pixels.size
    assert as_dict(table) == slow_table(*maps)


@pytest.mark.parametrize("num_pixels", [1, 2, 4095, 4096, 4097, 8192, 8193, 12289])
def test_runs_across_blocks(num_pixels: int) -> None:
    rng = np.random.default_rng(num_pixels)
    for runs in (1, 3, 400):
        truth = np.sort(rng.integers(0, runs, num_pixels))[None]
        prediction = np.sort(rng.integers(0, runs, num_pixels))[None] % 5
        assert as_dict(contingency_table(prediction, truth)) == slow_table(prediction, truth)


def test_many_pairs_grow_the_table() -> None:
    truth = np.arange(40_000).reshape(200, 200)
    table = contingency_table(truth[::-1] * 2**40, truth)
    assert table.pixels.tolist() == [1] * 40_000
    assert np.array_equal(np.sort(table.truth), truth.ravel())
    assert np.array_equal(table.prediction, (39_800 - table.truth // 200 * 400 + table.truth) * 2**40)


def test_equals_scikit_image() -> None:
    from skimage.metrics import contingency_table as peer

    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 30, (2, 40, 50))
    dense = peer(truth, prediction, ignore_labels=(), sparse_type="array").toarray()  # type: ignore[no-untyped-call]
    assert as_dict(contingency_table(prediction, truth)) == {
        (t, p): dense[t, p] for t, p in zip(*np.nonzero(dense), strict=True)
    }


def test_sliced_transposed_and_read_only_maps() -> None:
    whole = np.arange(60).reshape(6, 10) % 7
    whole.flags.writeable = False
    table = contingency_table(whole[::2, ::-3].T, whole[1::2, ::3].T)
    assert as_dict(table) == slow_table(whole[::2, ::-3].T, whole[1::2, ::3].T)


@pytest.mark.parametrize("areas", [[3, 0, 5], [2**40, 2**40, 1]])
def test_label_areas_sums_equal_labels(areas: list[int]) -> None:
    labels, pixels = np.array(areas), np.array([10, 20, 3])
    found, sums = contingency.label_areas(labels, pixels)
    assert dict(zip(found.tolist(), sums.tolist(), strict=True)) == {
        label: int(pixels[labels == label].sum()) for label in areas
    }


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"prediction has shape \(2, 3\) and truth has shape \(3, 2\)"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), r"prediction has shape \(2, 3\) and dtype float64.*\(H, W\)"),
        (np.zeros((2, 3), int), np.zeros((4, 2, 3), int), r"truth has shape \(4, 2, 3\) and dtype int64"),
        (np.array([[0, -3, -3]]), np.zeros((1, 3), int), r"prediction holds the label -3 \(2 pixels out of range\)"),
        (
            np.zeros((1, 1), int),
            np.array([[2**63 + 7]], np.uint64),
            r"truth holds the label 9223372036854775815 \(1 pixel out.*0 \(membrane or background\) to 2\^63 - 1",
        ),
    ],
)
def test_says_what_is_wrong(prediction: Labels, truth: Labels, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        contingency_table(prediction, truth)


def test_compiles_without_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(*args: object, **options: object) -> object:
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda loop: ("compiled", loop)

    monkeypatch.setattr(numba, "njit", njit)
    compiled: object = compile_loop(slow_table, [])
    assert compiled == ("compiled", slow_table)


def test_numba_is_imported_at_the_first_count_only() -> None:
    code = "import sys, json, pixelwise.metrics; print(json.dumps('numba' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
