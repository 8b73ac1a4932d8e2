"""The minimum cut against scipy's maximum flow, and against what any cut owes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import maximum_flow

from pixelwise.crf.min_cut import LARGEST, STEPS, min_cut
from pixelwise.errors import RequestError

Grid = tuple[NDArray[np.int64], NDArray[np.int64]]


def pairs(height: int, width: int, down: int, right: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    here = slice(0, max(0, height - down)), slice(max(0, -right), width - max(0, right))
    return here, (slice(down, height), slice(max(0, right), width + min(0, right)))


def largest_flow(excess: NDArray[np.int64], links: NDArray[np.int64]) -> int:
    """What scipy sends from the source to the sink of the same graph."""
    count = excess.size
    numbers = np.arange(count).reshape(excess.shape)
    source, sink = np.full(count, count), np.full(count, count + 1)
    edges = [(source, numbers, np.maximum(excess, 0)), (numbers, sink, np.maximum(-excess, 0))]
    for link, step in zip(links, STEPS, strict=False):
        here, there = pairs(*excess.shape, *step)
        edges += [(numbers[here], numbers[there], link[here]), (numbers[there], numbers[here], link[here])]
    start, end, capacity = (np.concatenate([np.ravel(part[i]) for part in edges]) for i in range(3))
    graph = coo_matrix((capacity.astype(np.int32), (start, end)), shape=(count + 2, count + 2)).tocsr()
    return int(maximum_flow(graph, count, count + 1).flow_value)


def cost_of(sink: NDArray[np.bool_], excess: NDArray[np.int64], links: NDArray[np.int64]) -> int:
    cost = np.maximum(excess, 0)[sink].sum() + np.maximum(-excess, 0)[~sink].sum()
    for link, step in zip(links, STEPS, strict=False):
        here, there = pairs(*excess.shape, *step)
        cost += (link[here] * (sink[here] != sink[there])).sum()
    return int(cost)


def random_grid(seed: int, height: int, width: int, pairs_of_directions: int, strength: int) -> Grid:
    rng = np.random.default_rng(seed)
    excess = rng.integers(-20, 21, (height, width))
    return excess, rng.integers(0, strength + 1, (pairs_of_directions, height, width))


grids = st.builds(
    random_grid,
    st.integers(0, 2**32),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([2, 4]),
    st.integers(0, 15),
)


@settings(max_examples=100, deadline=None)
@given(grids)
def test_flow_cut_and_scipys_flow_are_equal(grid: Grid) -> None:
    cost, sink = min_cut(*grid)
    assert cost == cost_of(sink, *grid) == largest_flow(*grid)


@pytest.mark.parametrize("pairs_of_directions", [2, 4])
def test_a_larger_grid_with_strong_links(pairs_of_directions: int) -> None:
    rng = np.random.default_rng(3)
    excess = rng.integers(-1000, 1001, (40, 60)) + np.where(np.arange(60) < 30, 200, -200)
    links = rng.integers(0, 900, (pairs_of_directions, 40, 60))
    cost, sink = min_cut(excess, links)
    assert cost == cost_of(sink, excess, links) == largest_flow(excess, links)
    assert 0.1 < sink.mean() < 0.9


@settings(max_examples=30, deadline=None)
@given(grids)
def test_turned_signs_turn_the_sides(grid: Grid) -> None:
    excess, links = grid
    cost, sink = min_cut(excess, links)
    turned_cost, source = min_cut(-excess, links)
    assert cost == turned_cost
    assert not (sink & source).any()  # both are the smallest of their side; what is free is in neither


@settings(max_examples=30, deadline=None)
@given(grids)
def test_a_mirrored_grid_has_the_mirrored_cut(grid: Grid) -> None:
    excess, links = grid
    mirrored = np.zeros_like(links)
    mirrored[0, :, :-1] = links[0, :, :-1][:, ::-1]
    mirrored[1] = links[1][:, ::-1]
    if len(links) == 4:
        mirrored[2, :, :-1] = links[3, :, 1:][:, ::-1]
        mirrored[3, :, 1:] = links[2, :, :-1][:, ::-1]
    cost, sink = min_cut(excess, links)
    found, turned = min_cut(excess[:, ::-1].copy(), mirrored)
    assert found == cost
    np.testing.assert_array_equal(turned[:, ::-1], sink)


def test_where_cuts_cost_the_same_the_sinks_side_is_the_smallest() -> None:
    cost, sink = min_cut(np.array([[3, 0, -3]]), np.array([[[3, 3, 0]], [[0, 0, 0]]]))
    assert cost == 3
    assert not sink.any()


def test_the_largest_capacities_do_not_overflow() -> None:
    excess = np.full((5, 6), 16 * LARGEST)
    excess[:, 3:] *= -1
    links = np.full((4, 5, 6), LARGEST)
    cost, sink = min_cut(excess, links)
    assert cost == cost_of(sink, excess, links)
    np.testing.assert_array_equal(sink, excess < 0)


def test_memory_order_does_not_matter_and_nothing_is_written() -> None:
    excess, links = random_grid(0, 7, 8, 4, 9)
    before = excess.copy(), links.copy()
    cost, sink = min_cut(excess, links)
    found, same = min_cut(np.asfortranarray(excess), np.asfortranarray(links))
    assert found == cost
    np.testing.assert_array_equal(same, sink)
    np.testing.assert_array_equal(excess, before[0])
    np.testing.assert_array_equal(links, before[1])


@pytest.mark.parametrize(
    ("excess", "links", "message"),
    [
        (np.zeros((3, 4), int), np.zeros((3, 3, 4), int), r"shape \(3, 4\), links \(3, 3, 4\); accepted: \(H, W\) and"),
        (np.zeros(3, int), np.zeros((2, 3), int), r"excess has shape \(3,\)"),
        (np.zeros((3, 4)), np.zeros((2, 3, 4), int), "excess has type float64.*whole numbers"),
        (np.zeros((3, 4), int), np.full((2, 3, 4), -1), r"links go from -1 to -1.*accepted: links of 0\.\.16777216"),
        (np.full((3, 4), -(2**30)), np.ones((2, 3, 4), int), "excess from -1073741824 to -1073741824"),
    ],
)
def test_grids_of_another_kind(excess: Any, links: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        min_cut(excess, links)
