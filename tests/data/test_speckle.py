"""Values that compression scattered are told from labels, however fine those are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.speckle import Scatter, scattered

Array = NDArray[Any]


def look(values: Array) -> Scatter | None:
    found, counts = np.unique(values, return_counts=True)
    return scattered(values, dict(zip(found.tolist(), counts.tolist(), strict=True)))


def discs(num_classes: int, seed: int, side: int = 96) -> Array:
    """Return overlapping discs of random classes."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.uint8)
    for _ in range(12):
        row, column, radius = rng.integers(0, side, 3)
        labels[(rows - row) ** 2 + (columns - column) ** 2 < (radius / 5 + 4) ** 2] = rng.integers(num_classes)
    return labels


def through_jpeg(array: Array, quality: int) -> Array:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), num_classes=st.integers(2, 60), step=st.sampled_from([1, 4]))
def test_labels_are_not_taken_for_scattered_ones(seed: int, num_classes: int, step: int) -> None:
    assert look(discs(num_classes, seed) * step) is None


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), quality=st.integers(40, 97), levels=st.sampled_from([(0, 255), (0, 85, 170, 255)]))
def test_compressed_labels_are(seed: int, quality: int, levels: tuple[int, ...]) -> None:
    found = look(through_jpeg(np.array(levels, np.uint8)[discs(len(levels), seed)], quality))
    assert found is not None
    assert found.num_values > len(levels) + 3
    assert sum(share for _, share in found.centres) <= 1


def test_the_centres_and_whether_a_threshold_helps() -> None:
    found = look(through_jpeg(discs(2, 0) * 255, 90))
    assert found is not None
    assert found.two_sided
    assert {value for value, _ in found.centres[:2]} == {0, 255}
    assert found.centres[0][1] == pytest.approx(np.mean(through_jpeg(discs(2, 0) * 255, 90) == found.centres[0][0]))
    found = look(through_jpeg(discs(4, 0) * 40, 90))
    assert found is not None
    assert not found.two_sided


def test_noise_of_a_few_classes_is_not_compression() -> None:
    rng = np.random.default_rng(0)
    assert look(rng.integers(0, 4, (50, 50))) is None
    assert look(rng.integers(0, 20, (50, 50))) is None
    assert look(np.arange(24).reshape(4, 6)) is None
    assert look(np.zeros((1, 1), np.uint8)) is None


def test_thin_lines_are_not_compression() -> None:
    lines = np.zeros((64, 64), np.uint8)
    for number in range(20):
        lines[3 * number + 2] = number + 1
    assert look(lines) is None
