"""What masks mean is recognised from their values, or asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pixelwise.data.encoding import MaskEncoding, recognise_encoding
from pixelwise.errors import RequestError


def recognise(*values: int, **changes: Any) -> MaskEncoding:
    settings: dict[str, Any] = {
        "has_palette": False,
        "num_classes": None,
        "ignore_index": None,
        "example": "masks/a.png",
    }
    return recognise_encoding(values, **(settings | changes))


@pytest.mark.parametrize(
    ("values", "kind", "ignore", "words"),
    [
        ((0, 255), "binary_255", None, "binary 0/255 masks: 0 is background, 255 is foreground"),
        ((0, 1), "binary_01", None, "binary 0/1 masks: 0 is background, 1 is foreground"),
        ((0, 1, 2), "index", None, "values are class numbers: classes 0 to 2"),
        ((0, 1, 2, 255), "index", 255, "values are class numbers: classes 0 to 2, 255 is ignored"),
        ((0, 1, 255), "index", 255, "values are class numbers: classes 0 to 1, 255 is ignored"),
        ((1, 2), "index", None, "values are class numbers: classes 0 to 2"),
        ((0, 1, 4, 5), "index", None, "values are class numbers: classes 0 to 5"),
        (tuple(range(255)), "index", None, "values are class numbers: classes 0 to 254"),
    ],
)
def test_values_that_speak_for_themselves(values: tuple[int, ...], kind: str, ignore: int | None, words: str) -> None:
    found = recognise(*values)
    assert (found.kind, found.ignore_index, found.words) == (kind, ignore, words)


def test_palette_files_hold_class_numbers() -> None:
    found = recognise(0, 1, 2, 255, has_palette=True)
    assert (found.kind, found.ignore_index) == ("palette", 255)
    assert found.words == "palette PNGs, whose indices are class numbers: classes 0 to 2, 255 is ignored"
    found = recognise(0, 15, has_palette=True, num_classes=21)
    assert (found.kind, found.words) == (
        "palette",
        "palette PNGs, whose indices are class numbers, classes named by dataset.json",
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 128, 255), r"hold 3 values: 0, 128, 255, whose meaning"),
        ((0, 85, 170, 255), r"hold 4 values: 0, 85, 170, 255, whose meaning"),
        ((0, 4), r"hold 2 values: 0, 4, whose meaning"),
        ((0, 65535), r"hold 2 values: 0, 65535, whose meaning"),
        (tuple(range(1, 4001)), r"hold 4000 values: 1, 2, 3, 4, 5, 6, 7, 8, \.\.\., whose meaning"),
        (tuple(range(256)), None),
    ],
)
def test_ambiguous_values_are_asked_about(values: tuple[int, ...], words: str | None) -> None:
    if words is None:  # 255 classes and ignored pixels
        assert recognise(*values).ignore_index == 255
        return
    with pytest.raises(
        RequestError, match=rf"^the masks \(such as masks/a\.png\) {words} .*; accepted: .*\. If they .*numbers\.$"
    ):
        recognise(*values)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_masks_with_one_value_tell_nothing_apart(value: int) -> None:
    with pytest.raises(
        RequestError,
        match=rf"^the masks \(such as masks/a\.png\) hold the value {value} only, .*; accepted: .*two values\. Check",
    ):
        recognise(value)
    assert recognise(value, num_classes=2).kind == ("binary_255" if value == 255 else "index")


@pytest.mark.parametrize(
    ("values", "ignore_index", "kind", "found_ignore"),
    [
        ((0, 255), None, "binary_255", None),
        ((0, 255), 128, "binary_255", None),
        ((0, 255), 255, "index", 255),  # 255 is said to be ignored, so it is not the second class
        ((0, 255), 0, "index", 0),  # refused by the scan: 255 is no class
        ((0, 1), None, "index", None),
        ((0, 1, 255), 255, "index", 255),
    ],
)
def test_two_declared_classes(
    values: tuple[int, ...], ignore_index: int | None, kind: str, found_ignore: int | None
) -> None:
    found = recognise(*values, num_classes=2, ignore_index=ignore_index)
    assert (found.kind, found.ignore_index) == (kind, found_ignore)


def test_declared_classes_allow_gaps() -> None:
    found = recognise(0, 128, 255, num_classes=200, ignore_index=255)
    assert (found.kind, found.ignore_index) == ("index", 255)
    assert found.words == "values are class numbers, classes named by dataset.json"


def test_decoding() -> None:
    values = np.array([[0, 255], [255, 0]], np.uint8)
    labels = recognise(0, 255).decode(values)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, [[0, 1], [1, 0]])
    ids = np.array([[0, 300]], np.uint16)
    assert recognise(0, 300, num_classes=301).decode(ids) is ids
