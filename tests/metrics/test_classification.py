"""Top-k accuracy: by hand, with ties, and against sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.errors import RequestError
from pixelwise.metrics.classification import class_accuracies, top_k, true_ranks


def test_ties_go_to_the_lower_index_so_that_k_places_hold_k_classes() -> None:
    tied = np.full((4, 4), 0.25)
    assert true_ranks(tied, np.arange(4)).tolist() == [0, 1, 2, 3]
    assert [top_k(true_ranks(tied, np.arange(4)), k) for k in (1, 2, 5)] == [0.25, 0.5, 1.0]


@given(data=st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=8), seed=st.integers())
@settings(max_examples=50, deadline=None)
def test_ranks_are_those_of_a_stable_sort(data: list[list[int]], seed: int) -> None:
    scores = np.array(data, dtype=np.float64)
    labels = np.random.default_rng(abs(seed)).integers(0, 6, len(scores))
    order = np.argsort(-scores, axis=1, kind="stable")
    expected = [int(np.flatnonzero(row == label)[0]) for row, label in zip(order, labels, strict=True)]
    ranks = true_ranks(scores, labels)
    assert ranks.tolist() == expected
    assert top_k(ranks, 1) == float(np.mean(scores.argmax(axis=1) == labels))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(RequestError, match=r"probabilities are \(2, 3\) and labels \(3,\)"):
        true_ranks(np.zeros((2, 3)), np.zeros(3, dtype=np.int64))
    with pytest.raises(RequestError, match="not finite"):
        true_ranks(np.array([[np.nan, 0.0]]), np.zeros(1, dtype=np.int64))


def test_accuracy_by_class_says_nothing_of_absent_ones() -> None:
    confusion = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    found = class_accuracies(confusion, ["a", "b", "c"])
    assert [found[name]["accuracy"] for name in "abc"] == [0.75, None, 0.5]
    assert [found[name]["truth_images"] for name in "abc"] == [4, 0, 4]
    assert [found[name]["predicted_images"] for name in "abc"] == [5, 1, 2]
