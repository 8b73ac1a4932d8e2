"""The location potential: a table of counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.classical.location import LocationPotential
from pixelwise.errors import RequestError

SKY_OVER_ROAD = np.array([[0, 0, 0, 0], [1, 1, 1, 255]])


def test_the_table_of_a_toy_set() -> None:
    learnt = LocationPotential.fit([SKY_OVER_ROAD, SKY_OVER_ROAD[:, :2]], num_classes=3, side=2)
    assert learnt.counts[0].tolist() == [[3, 3], [0, 0]]
    assert learnt.counts[1].tolist() == [[0, 0], [3, 2]]
    assert not learnt.counts[2].any()
    found = learnt.potential(2, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], 0.1 * np.log([[4 / 4, 4 / 4], [1 / 4, 1 / 3]]), rtol=1e-6)
    np.testing.assert_allclose(found[1], 0.1 * np.log([[1 / 4, 1 / 4], [4 / 4, 3 / 3]]), rtol=1e-6, atol=1e-9)


def test_places_are_relative_to_the_image() -> None:
    learnt = LocationPotential.fit([SKY_OVER_ROAD], num_classes=2, side=2)
    large, small = learnt.potential(6, 12), learnt.potential(2, 4)
    np.testing.assert_array_equal(large, small.repeat(3, axis=1).repeat(3, axis=2))
    mirrored = LocationPotential.fit([SKY_OVER_ROAD[:, ::-1]], num_classes=2, side=2)
    np.testing.assert_array_equal(mirrored.potential(5, 8), learnt.potential(5, 8)[:, :, ::-1])
    assert (learnt.potential(8, 8).argmax(axis=0) == np.arange(8)[:, None] // 4).all()


def test_places_that_were_never_seen_say_nothing() -> None:
    learnt = LocationPotential.fit([np.full((3, 3), 255), np.full((3, 3), -1)], num_classes=2)
    assert not learnt.potential(5, 7).any()
    assert not LocationPotential.fit([SKY_OVER_ROAD], num_classes=2, weight=0).potential(4, 4).any()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 9))
def test_every_counted_pixel_is_in_one_cell(height: int, width: int, side: int, seed: int) -> None:
    truth = np.random.default_rng(seed).integers(-1, 3, (height, width))
    learnt = LocationPotential.fit([truth], num_classes=3, side=side)
    assert [learnt.counts[c].sum() for c in range(3)] == [(truth == c).sum() for c in range(3)]
    assert (learnt.potential(height, width) <= 0).all()


def test_the_state_round_trips() -> None:
    learnt = LocationPotential.fit([SKY_OVER_ROAD], num_classes=2, alpha=2.0, weight=0.5)
    again = LocationPotential.from_state(learnt.state_dict())
    np.testing.assert_array_equal(again.potential(7, 8), learnt.potential(7, 8))
    with pytest.raises(RequestError, match="the state lacks options"):
        LocationPotential.from_state({"counts": learnt.counts})


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([SKY_OVER_ROAD], {"num_classes": 1}, r"label map 0 has shape \(2, 4\) and labels from 0 to 255.*0 to 0"),
        ([SKY_OVER_ROAD[0]], {"num_classes": 2}, r"label map 0 has shape \(4,\)"),
        ([], {"num_classes": 2, "side": 0}, "num_classes is 2 and side 0; accepted: whole numbers from 1"),
        ([], {"num_classes": 2, "alpha": 0.0}, "alpha is 0.0; accepted: a number above 0"),
        ([], {"num_classes": 2, "weight": -1.0}, "weight is -1.0; accepted: a number from 0"),
    ],
)
def test_labels_and_options_of_another_kind(labels: Any, options: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        LocationPotential.fit(labels, **options)


def test_counts_of_another_kind() -> None:
    with pytest.raises(RequestError, match=r"counts have shape \(2, 3, 4\); accepted: numbers from 0, \(K, G, G\)"):
        LocationPotential(counts=np.zeros((2, 3, 4), np.int64))
