"""The permutohedral filter: the numbers of the authors' library, and what any such filter owes.

Golden numbers were printed by the C++ library in pydensecrf (2723c7f) in float32; 1e-5 is its rounding.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.crf.lattice import Float, Lattice, shares
from pixelwise.errors import RequestError


def points(seed: int, count: int, d: int, *, spread: float = 3.0) -> Float:
    return (np.random.default_rng(seed).normal(size=(count, d)) * spread).astype(np.float32)


def values(seed: int, count: int, channels: int = 2) -> Float:
    return np.random.default_rng(seed).normal(size=(count, channels)).astype(np.float32)


# The loops are compiled anew for every number of features; the fast tests have 1, 2, 5 and 8.
@pytest.mark.parametrize(
    ("d", "wanted"),
    [
        *[(1, 0.8333334), (2, 0.9000000), (5, 0.9848485)],
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(3, 0.9444445), (4, 0.9705883), (6, 0.9923077)]),
    ],
)
def test_a_point_alone_sees_itself(d: int, wanted: float) -> None:
    found = Lattice(np.zeros((1, d), dtype=np.float32)).filter(np.ones((1, 1), dtype=np.float32))
    assert found[0, 0] == pytest.approx(wanted, abs=2e-7)
    assert found[0, 0] == pytest.approx((1 + 2.0 ** -(d + 1)) / (1 + 2.0**-d), abs=2e-7)


def line(d: int) -> tuple[Float, Float]:
    features = np.zeros((21, d), dtype=np.float32)
    features[:, 0] = np.arange(21)
    impulse = np.zeros((21, 1), dtype=np.float32)
    impulse[10] = 1
    return features, impulse


def test_impulse_on_a_line() -> None:
    features, impulse = line(1)
    lattice = Lattice(features)
    wanted = [0.00626, 0.15098, 0.55970, 0.83481, 0.56212, 0.14128]
    np.testing.assert_allclose(lattice.filter(impulse)[7:13, 0], wanted, atol=1e-5)
    ones = lattice.filter(np.ones_like(impulse))[:, 0]
    np.testing.assert_allclose(ones[[10, 0]], [2.25514, 1.53775], atol=1e-5)


def test_impulse_on_a_line_in_two_dimensions() -> None:
    features, impulse = line(2)
    wanted = [0.00282, 0.09495, 0.43864, 0.64107, 0.43873, 0.14570]
    np.testing.assert_allclose(Lattice(features).filter(impulse)[7:13, 0], wanted, atol=1e-5)


@pytest.mark.parametrize(("d", "centre", "corner"), [(2, 49.8627, 13.9316), (5, 29.5339, 8.9919)])
def test_sums_over_a_picture(d: int, centre: float, corner: float) -> None:
    rows, columns = np.mgrid[:60, :60].astype(np.float32)
    features = np.zeros((3600, d), dtype=np.float32)
    features[:, 0], features[:, 1] = columns.ravel() / 3, rows.ravel() / 3
    features[:, 2:] = 100 / 13  # a constant colour; the lattice is not the same everywhere
    found = Lattice(features).filter(np.ones((3600, 1), dtype=np.float32)).reshape(60, 60)
    assert found[30, 30] == pytest.approx(centre, abs=1e-3)
    assert found[0, 0] == pytest.approx(corner, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), d=st.sampled_from((1, 2, 5, 8)), count=st.integers(1, 60))
def test_weights_are_barycentric_and_place_each_point(seed: int, d: int, count: int) -> None:
    lattice = Lattice(points(seed, count, d))
    assert lattice.weights.min() > -1e-5
    np.testing.assert_allclose(lattice.weights.sum(axis=1), 1, atol=1e-5)
    assert lattice.ids.min() >= 0
    assert lattice.ids.max() == lattice.num_vertices - 1
    assert len(np.unique(lattice.ids)) == lattice.num_vertices


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), d=st.sampled_from((1, 2, 5)), count=st.integers(2, 60))
def test_reversed_blur_is_the_transposed_filter(seed: int, d: int, count: int) -> None:
    lattice = Lattice(points(seed, count, d))
    a, b = values(seed, count), values(seed + 1, count)
    left = float((a * lattice.filter(b)).sum())
    right = float((lattice.filter(a, transposed=True) * b).sum())
    assert left == pytest.approx(right, rel=1e-4, abs=1e-4)


def test_the_filter_is_linear() -> None:
    lattice = Lattice(points(0, 50, 2))
    a, b = values(1, 50), values(2, 50)
    np.testing.assert_allclose(lattice.filter(a + 2 * b), lattice.filter(a) + 2 * lattice.filter(b), atol=1e-4)


@pytest.mark.parametrize("d", [1, 2, 5, 8])
def test_threads_change_nothing(d: int) -> None:
    features = points(3, 257, d)
    alone = Lattice(features)
    with ThreadPoolExecutor(3) as pool:
        shared = Lattice(features, pool=pool, num_threads=3)
    assert shared.num_vertices == alone.num_vertices
    np.testing.assert_array_equal(shared.weights, alone.weights)
    q = values(4, 257)
    np.testing.assert_allclose(shared.filter(q), alone.filter(q), atol=1e-5)


def test_neighbours_know_each_other() -> None:
    lattice = Lattice(points(5, 200, 5))
    for below, above in lattice.neighbours:
        there = np.flatnonzero(below < lattice.num_vertices)
        assert len(there)
        np.testing.assert_array_equal(above[below[there]], there)
        assert (above < lattice.num_vertices).sum() == len(there)


def test_points_are_shared_out() -> None:
    assert shares(7, 2) == [(0, 3), (3, 7)]
    assert shares(1, 4) == [(0, 1)]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((0, 2), np.float32), r"features have shape \(0, 2\); accepted: \(N, d\)"),
        (np.zeros((3, 9), np.float32), r"features have shape \(3, 9\).* d from 1 to 8"),
        (np.full((3, 2), np.nan, np.float32), "features hold NaN"),
        (np.full((3, 5), 1e6, np.float32), r"features reach 1e\+06 standard deviations; accepted for 5 features"),
    ],
)
def test_impossible_features(features: Float, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Lattice(features)
