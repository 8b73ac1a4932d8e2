"""What masks mean is recognised from their values, or asked, or said by dataset.json."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pixelwise.data.dataset_file import DatasetFile
from pixelwise.data.encoding import Evidence, MaskEncoding, default_names, recognise_encoding
from pixelwise.data.images import RawMask, pack_colour
from pixelwise.errors import RequestError

RED, GREEN, BLACK = (200, 0, 0), (0, 200, 0), (0, 0, 0)


def recognise(*values: int, file: DatasetFile | None = None, **changes: Any) -> MaskEncoding:
    given: dict[str, Any] = {"coloured": False, "palettes": False, "numbering": lambda: False}
    evidence = Evidence(counts=dict.fromkeys(values, 1), example="masks/a.png", **(given | changes))
    return recognise_encoding(evidence, file)


def declared(num_classes: int, **keys: Any) -> DatasetFile:
    return DatasetFile(name="x", classes=tuple(f"c{i}" for i in range(num_classes)), **keys)


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
    found = recognise(0, 1, 2, 255, palettes=True)
    assert (found.kind, found.ignore_index) == ("palette", 255)
    assert found.words == "palette PNGs, whose indices are class numbers: classes 0 to 2, 255 is ignored"
    found = recognise(0, 15, palettes=True, file=declared(21))
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
        RequestError, match=rf"^the masks \(such as masks/a\.png\) {words} .*; accepted: .*\. If each value is an obj"
    ):
        recognise(*values)


def test_object_ids_are_recognised_asked_about_or_settled() -> None:
    found = recognise(*range(40), numbering=lambda: True)
    assert (found.kind, found.ignore_index, found.declared) == ("objects", None, "objects")
    assert found.words == "values are object ids: 0 is background, every other value is one object"
    with pytest.raises(
        RequestError, match=r"hold 6 values: 0, 1, 2, 3, 4, 5, whose meaning would be a guess"
    ) as caught:
        recognise(*range(6), numbering=lambda: None)
    assert '{"name": "cells", "classes": ["background", "object"], "mask_encoding": "objects"}' in str(caught.value)
    settled = DatasetFile(name="cells", classes=("background", "object"), mask_encoding="objects")
    assert recognise(*range(6), numbering=lambda: None, file=settled).kind == "objects"
    assert recognise(*range(6), numbering=lambda: None, file=declared(6, mask_encoding="index")).kind == "index"
    assert recognise(*range(6), numbering=lambda: True, file=declared(6)).kind == "index"
    assert recognise(*range(6), numbering=lambda: True, file=declared(2)).kind == "objects"
    assert recognise(*range(6), numbering=lambda: None, file=declared(2)).kind == "index"  # refused by the scan
    assert recognise(*range(6), numbering=lambda: True, palettes=True).kind == "palette"


@pytest.mark.parametrize("value", [0, 1, 255])
def test_masks_with_one_value_tell_nothing_apart(value: int) -> None:
    with pytest.raises(
        RequestError,
        match=rf"^the masks \(such as masks/a\.png\) hold the value {value} only, .*; accepted: .*two values\. Check",
    ):
        recognise(value)
    assert recognise(value, file=declared(2)).kind == ("binary_255" if value == 255 else "index")


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
    found = recognise(*values, file=declared(2, ignore_index=ignore_index))
    assert (found.kind, found.ignore_index) == (kind, found_ignore)


def test_declared_classes_allow_gaps() -> None:
    found = recognise(0, 128, 255, file=declared(200, ignore_index=255))
    assert (found.kind, found.ignore_index) == ("index", 255)
    assert found.words == "values are class numbers, classes named by dataset.json"


def test_colours_are_classes_in_the_order_of_red_green_blue() -> None:
    values = [pack_colour(colour) for colour in (RED, BLACK, GREEN)]
    found = recognise(*values, coloured=True)
    assert (found.kind, found.colours, found.ignore_index) == ("colours", (BLACK, GREEN, RED), None)
    assert found.words == (
        "pictures in colour, each colour a class: 3 colours, classes in the order of red, green, blue"
    )
    assert default_names(found, dict.fromkeys(values, 1)) == ("#000000", "#00c800", "#c80000")


def test_a_palette_names_the_colours() -> None:
    values = [pack_colour(colour) for colour in (RED, BLACK, GREEN)]
    found = recognise(*values, coloured=True, file=declared(3, palette=(RED, GREEN, BLACK)))
    assert (found.kind, found.colours, found.ignore_index) == ("colours", (RED, GREEN, BLACK), None)
    found = recognise(*values, coloured=True, file=declared(2, palette=(RED, GREEN, BLACK)))
    assert found.ignore_index == 255  # one colour more than classes
    assert found.labels([*values, 7], 2) == {values[0]: 0, values[1]: 255, values[2]: 1, 7: None}
    found = recognise(*values, coloured=True, file=declared(2, palette=(RED, GREEN, BLACK), ignore_index=9))
    assert found.ignore_index == 9
    with pytest.raises(
        RequestError, match=r"are in colour \(3 colours\), but dataset\.json does not say which"
    ) as caught:
        recognise(*values, coloured=True, file=declared(3))
    assert '"palette": [[0, 0, 0], [0, 200, 0], [200, 0, 0]] to dataset.json' in str(caught.value)
    with pytest.raises(RequestError, match=r"hold 65 colours: \[0, 0, 0\], .*up to 64, each of them a class\. Write"):
        recognise(*range(65), coloured=True)
    assert recognise(*range(64), coloured=True).kind == "colours"


@pytest.mark.parametrize(
    ("said", "values", "options", "kind", "words"),
    [
        ("index", (0, 255), {}, "index", None),
        ("binary", (0, 255), {}, "binary_255", None),
        ("binary", (0, 1), {}, "binary_01", None),
        ("palette", (0, 1), {"palettes": True}, "palette", None),
        ("index", (0, 1), {"palettes": True}, "index", None),
        ("palette", (0, 1), {}, None, r"says mask_encoding 'palette', but masks \(such as masks/a\.png\) have no pal"),
        (
            "index",
            (0, 1),
            {"coloured": True},
            None,
            r"says mask_encoding 'index', but masks .* are in colour; accepted",
        ),
    ],
)
def test_what_dataset_json_says_settles_it(
    said: Any, values: tuple[int, ...], options: dict[str, Any], kind: str | None, words: str | None
) -> None:
    file = declared(2, mask_encoding=said)
    if words is None:
        found = recognise(*values, file=file, **options)
        assert (found.kind, found.declared) == (kind, said)
        assert found.words.endswith("as dataset.json says")
    else:
        with pytest.raises(RequestError, match=words):
            recognise(*values, file=file, **options)


def test_decoding() -> None:
    values = np.array([[0, 255], [255, 0]], np.uint8)
    labels = recognise(0, 255).decode(RawMask(values), 2)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, [[0, 1], [1, 0]])
    ids = np.array([[0, 300]], np.uint16)
    assert recognise(0, 300, file=declared(301)).decode(RawMask(ids), 301) is ids


def test_decoding_objects() -> None:
    ids = np.array([[0, 300, 7, 9]], np.uint16)
    found = recognise(0, 7, 9, 300, file=declared(2, mask_encoding="objects"))
    labels = found.decode(RawMask(ids), 2)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, [[0, 1, 1, 1]])
    assert found.object_ids(RawMask(ids)) is ids
    found = recognise(0, 7, 9, 300, file=declared(2, mask_encoding="objects", ignore_index=300))
    labels = found.decode(RawMask(ids), 2)
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, [[0, 300, 1, 1]])
    np.testing.assert_array_equal(found.object_ids(RawMask(ids)), [[0, 0, 7, 9]])


def test_decoding_colours() -> None:
    found = recognise(0, coloured=True, file=declared(2, palette=(RED, GREEN, BLACK)))
    picture = np.array([[pack_colour(colour) for colour in (GREEN, BLACK, RED, RED)]], np.uint32)
    labels = found.decode(RawMask(picture, channels=3), 2)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, [[1, 255, 0, 0]])
    painted = RawMask(np.array([[0, 1]], np.uint8), palette=(GREEN, RED))
    np.testing.assert_array_equal(found.decode(painted, 2), [[1, 0]])
    np.testing.assert_array_equal(found.decode(RawMask(np.zeros((1, 2), np.uint8), channels=3), 2), [[255, 255]])
    for wrong, told in ((np.array([[7]], np.uint8), "[7, 7, 7]"), (np.array([[300]], np.uint16), "[256, 0, 0]")):
        with pytest.raises(RequestError) as caught:
            found.decode(RawMask(wrong), 2)
        assert f"a mask holds the colour {told}, which means no class; accepted" in str(caught.value)
