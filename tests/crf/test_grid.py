"""The CRF of 4 or 8 neighbours: its energy, and what alpha-expansion owes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.crf.expansion import _halved, energy_of, expand, iterated_conditional_modes
from pixelwise.crf.grid import GRIDS, GridCRF
from pixelwise.crf.min_cut import STEPS
from pixelwise.errors import RequestError

Problem = tuple[NDArray[np.float32], NDArray[np.float32]]


def random_problem(seed: int, labels: int, height: int, width: int, connectivity: int, strength: float) -> Problem:
    """Random unary energies, and links of a random image."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    crf = GridCRF(connectivity=connectivity, contrast_weight=strength, constant_weight=strength / 4)  # type: ignore[arg-type]
    return rng.random((labels, height, width), dtype=np.float32) * 4, crf.links(image)


def slow_energy(labels: NDArray[np.int64], unary: NDArray[np.float32], links: NDArray[np.float32]) -> float:
    height, width = labels.shape
    total = 0.0
    for y, x in itertools.product(range(height), range(width)):
        total += float(unary[labels[y, x], y, x])
        for link, (down, right) in zip(links, STEPS, strict=False):
            v, u = y + down, x + right
            if v < height and 0 <= u < width:
                total += float(link[y, x]) * (labels[y, x] != labels[v, u])
    return total


def least(unary: NDArray[np.float32], links: NDArray[np.float32]) -> float:
    """The least energy of all labellings there are."""
    count, height, width = unary.shape
    every = (np.array(one).reshape(height, width) for one in itertools.product(range(count), repeat=height * width))
    return min(energy_of(labels, unary, links) for labels in every)


def problems(most_labels: int, most_side: int) -> st.SearchStrategy[Problem]:
    return st.builds(
        random_problem,
        st.integers(0, 2**32),
        st.integers(1, most_labels),
        st.integers(1, most_side),
        st.integers(1, most_side),
        st.sampled_from([4, 8]),
        st.sampled_from([0.0, 0.1, 0.7, 2.0, 10.0]),
    )


@settings(max_examples=40, deadline=None)
@given(problems(2, 3))
def test_two_labels_are_optimal(problem: Problem) -> None:
    assert energy_of(expand(*problem), *problem) == pytest.approx(least(*problem), rel=1e-5)


@settings(max_examples=15, deadline=None)
@given(problems(4, 2))
def test_more_labels_stay_within_twice_the_least_energy(problem: Problem) -> None:
    found, best = energy_of(expand(*problem), *problem), least(*problem)
    assert best - 1e-4 <= found <= 2 * best + 1e-4


@settings(max_examples=40, deadline=None)
@given(problems(5, 12), st.integers(0, 100))
def test_no_start_is_made_worse_and_no_pixel_alone_makes_the_end_better(problem: Problem, seed: int) -> None:
    unary, links = problem
    cheapest = unary.argmin(axis=0)
    random = np.random.default_rng(seed).integers(0, len(unary), cheapest.shape)
    modes = iterated_conditional_modes(unary, links, random)
    for start in (cheapest, random, modes, None):
        before = energy_of(cheapest if start is None else start, unary, links)
        end = expand(unary, links, start)
        after = energy_of(end, unary, links)
        assert after <= before * (1 + 1e-6)
        assert after == pytest.approx(energy_of(iterated_conditional_modes(unary, links, end), unary, links), rel=1e-5)
    assert energy_of(modes, unary, links) <= energy_of(random, unary, links) * (1 + 1e-6)


@settings(max_examples=30, deadline=None)
@given(problems(3, 5))
def test_the_energy_is_the_sum_of_its_terms(problem: Problem) -> None:
    unary, links = problem
    labels = np.random.default_rng(0).integers(0, len(unary), unary.shape[1:])
    assert energy_of(labels, unary, links) == pytest.approx(slow_energy(labels, unary, links), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(problems(5, 12), st.randoms(use_true_random=False))
def test_renumbered_labels_give_renumbered_labels(problem: Problem, random: Any) -> None:
    unary, links = problem
    order = list(range(len(unary)))
    random.shuffle(order)
    turned = expand(np.ascontiguousarray(unary[order]), links)
    np.testing.assert_array_equal(np.array(order)[turned], expand(unary, links))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_blocks_have_the_energy_of_their_pixels(connectivity: int) -> None:
    unary, links = random_problem(1, 3, 7, 9, connectivity, 2.0)
    blocks, block_links = _halved(unary, links)
    assert blocks.shape == (3, 4, 5)
    for seed in range(5):
        labels = np.random.default_rng(seed).integers(0, 3, (4, 5))
        pixels = labels.repeat(2, axis=0).repeat(2, axis=1)[:7, :9]
        assert energy_of(labels, blocks, block_links) == pytest.approx(energy_of(pixels, unary, links), rel=1e-5)


def test_links_follow_the_formula() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1] = (10, 0, 0)
    image[1] = (0, 20, 0)
    squares = np.array([100.0, 0.0, 400.0, 500.0])  # right, right below, down, down
    beta = 1 / (2 * squares.mean())
    wanted = 45 * np.exp(-beta * squares) + 10
    four = GridCRF().links(image)
    np.testing.assert_allclose(four[0], [[wanted[0], 0], [wanted[1], 0]], rtol=1e-6)
    np.testing.assert_allclose(four[1], [[wanted[2], wanted[3]], [0, 0]], rtol=1e-6)
    eight = GridCRF(connectivity=8).links(image)
    beta = 1 / (2 * np.mean([*squares, 400.0, 500.0]))
    diagonal = (45 * np.exp(-beta * np.array([400.0, 500.0])) + 10) / math.sqrt(2)
    np.testing.assert_allclose(eight[2], [[diagonal[0], 0], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(eight[3], [[0, diagonal[1]], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (6, 5)])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_an_image_of_one_colour_and_small_ones(shape: tuple[int, int], connectivity: Any) -> None:
    image = np.full((*shape, 3), 90, np.uint8)
    links = GridCRF(connectivity=connectivity, contrast_weight=3, constant_weight=1).links(image)
    assert set(np.unique(links[:2])) <= {0.0, 4.0}
    raw = np.random.default_rng(0).random((3, *shape)) + 0.1
    found = GridCRF(connectivity=connectivity).map_labels(image, raw / raw.sum(axis=0))
    assert found.shape == shape
    assert found.dtype == np.int64
    assert len(np.unique(found)) == 1  # such links are worth more than any pixel's wish


def test_prices_are_a_metric() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 2, 3)).astype(np.uint8)
    zero = np.zeros((3, 1, 2), np.float32)
    price = [[GridCRF().energy(np.array([[a, b]]), image, zero) for b in range(3)] for a in range(3)]
    for a, b, c in itertools.product(range(3), repeat=3):
        assert (price[a][b] == 0) == (a == b)
        assert price[a][b] == price[b][a] <= price[a][c] + price[c][b]


@pytest.mark.parametrize("name", list(GRIDS))
def test_salt_noise_is_removed(name: str) -> None:
    rng = np.random.default_rng(0)
    truth = (np.add.outer(np.arange(30), np.arange(40)) // 24).astype(np.int64)
    image = np.repeat((40 + 60 * truth)[..., None], 3, axis=2) + rng.integers(-20, 21, (30, 40, 3))
    noisy = np.where(rng.random(truth.shape) < 0.1, rng.integers(0, 3, truth.shape), truth)
    probabilities = np.where(noisy == np.arange(3)[:, None, None], 0.7, 0.15)
    found = GRIDS[name].map_labels(image.astype(np.uint8), probabilities)
    assert (noisy == truth).mean() < 0.96
    assert (found == truth).mean() > 0.995


def test_weights_of_nothing_and_one_label() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    unary = np.random.default_rng(1).random((4, 9, 11))
    crf = GridCRF(contrast_weight=0, constant_weight=0)
    np.testing.assert_array_equal(crf.least_energy(image, unary), unary.argmin(axis=0))
    assert not GridCRF().map_labels(image, np.ones((1, 9, 11))).any()


def test_a_pixel_that_is_sure_keeps_its_label() -> None:
    image = np.full((5, 5, 3), 7, np.uint8)
    unary = np.zeros((2, 5, 5))
    unary[1] = 1
    unary[0, 2, 2] = 1e9
    found = GridCRF(contrast_weight=1, constant_weight=1).least_energy(image, unary)
    assert found.sum() == found[2, 2] == 1


@pytest.mark.parametrize("weight", [1e-40, 1e-9, 1e30])
@pytest.mark.parametrize("reach", [1e-20, 1.0, 1e30])
def test_any_scale_of_energies(weight: float, reach: float) -> None:
    image = np.full((6, 7, 3), 7, np.uint8)
    unary = np.random.default_rng(0).random((3, 6, 7)) * reach
    unary[0] += reach / 10
    found = GridCRF(contrast_weight=weight, constant_weight=0).least_energy(image, unary)
    if weight > reach:
        assert len(np.unique(found)) == 1
        assert found[0, 0] == unary.sum(axis=(1, 2)).argmin()
    elif weight < reach:
        np.testing.assert_array_equal(found, unary.argmin(axis=0))


def test_a_start_of_forbidden_labels_is_left() -> None:
    unary = np.full((3, 5, 6), 1e12)
    unary[2] = np.random.default_rng(0).random((5, 6))
    start = np.random.default_rng(1).integers(0, 2, (5, 6))
    assert (GridCRF().least_energy(np.zeros((5, 6, 3), np.uint8), unary, start=start) == 2).all()


def test_inputs_are_left_and_their_layout_does_not_matter() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 13, 3)).astype(np.uint8)
    unary = np.random.default_rng(1).random((3, 12, 13))
    start = np.zeros((12, 13), np.int64)
    before = unary.copy()
    found = GridCRF(contrast_weight=0.3, constant_weight=0).least_energy(image, unary, start=start)
    turned = GridCRF(contrast_weight=0.3, constant_weight=0).least_energy(
        np.asfortranarray(image), np.asfortranarray(unary), start=start
    )
    np.testing.assert_array_equal(found, turned)
    np.testing.assert_array_equal(unary, before)
    assert not start.any()


def test_probabilities_become_energies() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    raw = np.random.default_rng(1).random((3, 8, 9)) + 0.05
    raw /= raw.sum(axis=0)
    crf = GRIDS["grid8"]
    np.testing.assert_array_equal(crf.map_labels(image, raw), crf.least_energy(image, -np.log(raw)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"connectivity": 6}, "connectivity is 6; accepted: 4, 8"),
        ({"contrast_weight": -1}, "contrast_weight is -1; accepted: a number from 0 to 1e\\+30"),
        ({"constant_weight": float("nan")}, "constant_weight is nan"),
        ({"diagonal_weight": "1"}, "diagonal_weight is '1'"),
    ],
)
def test_impossible_parameters(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        GridCRF(**given)


IMAGE = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "unary", "message"),
    [
        (IMAGE[..., 0], np.zeros((2, 4, 5)), r"image has shape \(4, 5\) and type uint8"),
        (IMAGE, np.zeros((4, 5, 2)), r"unary has shape \(4, 5, 2\), the image is 4 x 5; accepted: \(K, 4, 5\)"),
        (IMAGE, np.zeros((2, 4, 5), int), "unary has type int64"),
        (IMAGE, np.full((2, 4, 5), np.nan), "unary has NaN or infinite values"),
        (IMAGE, np.full((2, 4, 5), np.inf), "unary has NaN or infinite values.*Clip probabilities"),
    ],
)
def test_inputs_of_another_kind(image: Any, unary: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        GridCRF().least_energy(image, unary)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((5, 4), np.int64), r"labels have shape \(5, 4\) and type int64; accepted: int64 \(4, 5\)"),
        (np.zeros((4, 5), np.uint8), r"type uint8"),
        (np.full((4, 5), 2), r"labels go from 2 to 2; accepted: 0\.\.1"),
    ],
)
def test_labels_of_another_kind(labels: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        GridCRF().energy(labels, IMAGE, np.zeros((2, 4, 5)))
    with pytest.raises(RequestError, match=message):
        GridCRF().least_energy(IMAGE, np.zeros((2, 4, 5)), start=labels)


def test_probabilities_with_nan() -> None:
    with pytest.raises(RequestError, match="NaN"):
        GridCRF().map_labels(IMAGE, np.full((2, 4, 5), np.nan))
