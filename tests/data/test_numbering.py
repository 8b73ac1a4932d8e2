"""Object ids are told from class numbers by how they are given out and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.items import Item
from pixelwise.data.numbering import numbers_objects
from pixelwise.data.pairs import look_at

Array = NDArray[Any]


def squares(count: int, start: int = 1) -> Array:
    """Return `count` squares of 3 pixels a side, numbered in rows."""
    values = np.zeros((40, 40), np.uint16)
    for number in range(count):
        row, column = divmod(number, 10)
        values[4 * row : 4 * row + 3, 4 * column : 4 * column + 3] = start + number
    return values


def scattered(count: int) -> Array:
    """Return values 1 to `count` in many places each, as classes are."""
    return np.random.default_rng(count).integers(0, count + 1, (40, 40)).astype(np.uint16)


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., bool | None]:
    def tell(masks: Sequence[Array], dtype: type = np.uint8) -> bool | None:
        image = tmp_path / "image.png"
        Image.fromarray(np.arange(1600, dtype=np.uint8).reshape(40, 40)).save(image)
        items = []
        for number, mask in enumerate(masks):
            path = tmp_path / f"{number}.png"
            Image.fromarray(mask.astype(dtype)).save(path)
            items.append(Item(name=str(number), split="all", image=image, mask=path))
        pairs, findings = look_at(items)
        assert not findings
        return numbers_objects(pairs)

    return tell


@pytest.mark.parametrize(
    ("masks", "dtype", "expected"),
    [
        ([squares(20), squares(7), squares(0)], np.uint8, True),
        ([squares(20), squares(7)], np.uint16, True),
        ([squares(6), squares(4)], np.uint16, True),
        ([squares(6), squares(4)], np.uint8, None),
        ([squares(15), squares(14)], np.uint8, None),
        ([squares(3), squares(2)], np.uint16, None),
        ([squares(3), squares(2)], np.uint8, False),  # an organ and what is in it
        ([squares(20)] * 4, np.uint16, False),  # the same number everywhere
        ([scattered(20), scattered(9)], np.uint8, False),
        ([scattered(20), scattered(9)], np.uint16, False),
        ([squares(20), squares(9, start=12)], np.uint8, False),  # gaps, as where a class is missing
        ([squares(20), squares(9, start=12)], np.uint16, False),
        ([squares(20), squares(9, start=5)], np.uint16, True),  # objects that were taken out again
        ([squares(0)] * 3, np.uint8, False),
    ],
)
def test_objects_and_classes(
    masks: Sequence[Array], dtype: type, expected: bool | None, told: Callable[..., bool | None]
) -> None:
    assert told(masks, dtype) is expected


def cut(values: Array, count: int) -> Array:
    """Take the middle row out of the first squares, so that they are in two pieces."""
    values = values.copy()
    for number in range(1, count + 1):
        row = int(np.nonzero(values == number)[0].min()) + 1
        values[row][values[row] == number] = 0
    return values


def test_some_objects_may_be_in_two_pieces(told: Callable[..., bool | None]) -> None:
    assert told([cut(squares(20), 9), squares(30)]) is True  # 41 of 50 areas are whole
    assert told([cut(squares(20), 11), squares(30)]) is False  # 39 of 50
