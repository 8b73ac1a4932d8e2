"""Pictures of examples: exact colours, bounded size, words for those who cannot see them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.pictures import colorize, default_palette
from pixelwise.errors import RequestError
from pixelwise.report.examples import (
    MAX_LABEL_BYTES,
    MAX_PHOTO_BYTES,
    Example,
    InlinePicture,
    class_legend,
    example_row,
    label_picture,
    labels_seen,
    photo,
)
from pixelwise.report.tables import Classes


def classes_of(count: int) -> Classes:
    names = [f"class {index}" for index in range(count)]
    return Classes(names=names, palette=default_palette(count), outside=[1, 2, 3], ignore_index=255)


def decoded(picture: InlinePicture) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture.source.partition("base64,")[2])))


def size_of(picture: InlinePicture) -> int:
    return len(base64.b64decode(picture.source.partition("base64,")[2]))


def make_example(count: int = 3) -> Example:
    truth = np.repeat(np.arange(64) * count // 64, 48).reshape(64, 48).T.astype(np.uint8)
    prediction = np.roll(truth, 3, axis=1)
    truth = truth.copy()
    truth[:4] = 255
    return Example(
        name="x", image=np.zeros((48, 64, 3), np.uint8), truth=truth, prediction=prediction, score=float("nan")
    )


def test_label_maps_keep_their_exact_colours() -> None:
    example = make_example(11)
    row = example_row(example, classes_of(11))
    image = decoded(row.pictures[1])
    assert image.mode == "P"
    expected = colorize(example.truth, default_palette(11), outside=(1, 2, 3))
    assert np.array_equal(np.asarray(image.convert("RGB")), expected)


def test_words_say_what_the_pictures_show() -> None:
    row = example_row(make_example(2), classes_of(2))
    assert row.score == "–"
    _, truth, prediction, errors = row.pictures
    assert truth.alternative == "True classes of x: class 0 46 %, class 1 46 %, ignored 8 %"
    assert prediction.alternative == "Predicted classes of x: class 0 50 %, class 1 50 %"
    assert errors.caption == "Errors: 9.4 % of the pixels wrong"  # 6 of 64 columns, in the rows that are scored


def test_an_image_of_ignored_pixels_has_no_share() -> None:
    example = make_example()
    ignored = np.full_like(example.truth, 255)
    row = example_row(
        Example(name="x", image=example.image, truth=ignored, prediction=example.prediction, score=0), classes_of(3)
    )
    assert row.pictures[3].caption == "Errors: no labelled pixels"


def test_noise_stays_within_the_bytes_of_a_picture() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (720, 480, 3), dtype=np.uint8)
    assert size_of(photo(noise, "", "")) < MAX_PHOTO_BYTES
    labels = colorize(rng.integers(0, 133, (720, 480)), default_palette(133))
    picture = label_picture(labels, "", "")
    assert size_of(picture) < MAX_LABEL_BYTES
    assert (picture.height, picture.width) == (720, 480)
    shown = np.asarray(decoded(picture).convert("RGB"))
    assert np.array_equal(shown, labels[::2, ::2])


def test_more_than_256_colours_are_kept_too() -> None:
    labels = np.arange(400).reshape(20, 20)
    palette = [[index % 256, index // 256, 7] for index in range(400)]
    shown = np.asarray(decoded(label_picture(colorize(labels, palette), "", "")))
    assert np.array_equal(shown, colorize(labels, palette))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_labels_too_small_to_be_seen_are_left_out_of_the_legend(dtype: type) -> None:
    labels = np.zeros((100, 100), dtype)
    labels[:3, :10] = 7
    labels[99, :2] = 9
    assert labels_seen(labels) == {0, 7}


def test_the_legend_of_many_classes_holds_those_to_be_seen() -> None:
    assert [entry.name for entry in class_legend({1, 255}, classes_of(3))] == [
        "class 0",
        "class 1",
        "class 2",
        "ignored",
    ]
    assert [entry.name for entry in class_legend({30, 4}, classes_of(40))] == ["class 4", "class 30"]


def test_examples_of_unequal_sizes_are_refused() -> None:
    labels = np.zeros((4, 4), dtype=np.uint8)
    with pytest.raises(RequestError, match=r"image \(4, 5\), truth \(4, 4\) and prediction \(4, 4\)"):
        Example(name="x", image=np.zeros((4, 5, 3), dtype=np.uint8), truth=labels, prediction=labels, score=0)
