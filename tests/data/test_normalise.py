"""Network input follows its formula; resizing keeps types, channels and label values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixelwise.data.dataset import open_dataset
from pixelwise.data.normalise import Normalisation, resize_image, resize_labels, scaled_size
from pixelwise.data.scan import scan
from pixelwise.errors import RequestError

PLAIN = Normalisation(intensity_range=(0.0, 255.0), mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))


def test_unit_and_standardise_follow_the_formula() -> None:
    image = np.array([[[0, 255, 51], [255, 0, 102]]], np.uint8)
    unit = PLAIN.unit(image)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [[[0, 1, 0.2], [1, 0, 0.4]]], rtol=1e-6)
    expected = [[[-1, 0.75, 0.1], [1, -0.25, 0.2]]]
    np.testing.assert_allclose(PLAIN.standardise(unit), expected, rtol=1e-6)
    np.testing.assert_allclose(PLAIN(image), expected, rtol=1e-6)
    assert PLAIN(image).dtype == np.float32
    np.testing.assert_allclose(unit, image / 255, rtol=1e-6)  # standardise must not write into its argument


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_shifted_range(dtype: type) -> None:
    normalisation = Normalisation(intensity_range=(100.0, 200.0), mean=(0.5,), std=(0.25,))
    image = np.array([100, 125, 200, 250], dtype).reshape(2, 2, 1)
    np.testing.assert_allclose(normalisation.unit(image).ravel(), [0, 0.25, 1, 1.5], rtol=1e-6)
    np.testing.assert_allclose(normalisation(image).ravel(), [-2, -1, 2, 4], rtol=1e-6)
    assert image.ravel().tolist() == [100, 125, 200, 250]


def test_a_float_image_from_0_to_1_is_not_copied() -> None:
    image = np.random.default_rng(0).random((3, 4, 1), dtype=np.float32)
    assert Normalisation(intensity_range=(0.0, 1.0), mean=(0.0,), std=(1.0,)).unit(image) is image


def test_statistics_of_each_image() -> None:
    each = Normalisation(intensity_range=(0.0, 255.0), mean=(0.5, 0.5), std=(9.0, 9.0), per_image=True)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 2), dtype=np.uint8)
    image[:, :, 1] = 51  # no contrast: only shifted
    own = each.for_image(image)
    assert (own.per_image, own.intensity_range) == (False, (0.0, 255.0))
    np.testing.assert_allclose(own.mean, [image[:, :, 0].mean() / 255, 0.2], rtol=1e-6)
    np.testing.assert_allclose(own.std, [image[:, :, 0].std() / 255, 1.0], rtol=1e-6)
    np.testing.assert_allclose(each(image).mean(axis=(0, 1)), [0, 0], atol=1e-5)
    np.testing.assert_allclose(each(image).std(axis=(0, 1)), [1, 0], atol=1e-5)
    assert PLAIN.for_image(image) is PLAIN


def test_other_channels_than_those_of_the_statistics_are_refused() -> None:
    with pytest.raises(
        RequestError, match=r"^an image of shape \(2, 4, 1\) meets statistics of 3 channels; accepted: \(H, W, 3\)\. Gi"
    ):
        PLAIN(np.zeros((2, 4, 1), np.uint8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_resizing_keeps_type_and_channels(dtype: type, channels: int, scale: float) -> None:
    rng = np.random.default_rng(channels)
    image = (rng.random((10, 14, channels)) * 200).astype(dtype)
    found = resize_image(image, scale)
    assert found.shape == (10 * scale, 14 * scale, channels)
    assert found.dtype == dtype
    for channel in range(channels):  # a channel does not see the others
        alone = resize_image(np.ascontiguousarray(image[:, :, channel : channel + 1]), scale)
        np.testing.assert_allclose(found[:, :, channel], alone[:, :, 0], rtol=1e-6 if dtype is np.float32 else 0)


def test_shrinking_takes_the_mean_of_the_pixels() -> None:
    image = np.random.default_rng(0).random((8, 6, 7), dtype=np.float32)
    mean = image.reshape(4, 2, 3, 2, 7).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_image(image, 0.5), mean, rtol=1e-6)


def test_scale_one_copies_nothing() -> None:
    image, labels = np.zeros((3, 4, 1), np.uint8), np.zeros((3, 4), np.uint8)
    assert resize_image(image, 1.0) is image
    assert resize_labels(labels, 1.0) is labels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resized_labels_are_labels_of_the_map(dtype: type) -> None:
    labels = np.random.default_rng(0).choice(np.array([0, 3, 255], dtype), (9, 13))
    for scale in (0.3, 0.5, 1.7, 3.0):
        found = resize_labels(labels, scale)
        assert found.dtype == dtype
        assert found.shape == scaled_size((9, 13), scale)
        assert set(np.unique(found)) <= {0, 3, 255}
    np.testing.assert_array_equal(resize_labels(labels, 3.0), labels.repeat(3, axis=0).repeat(3, axis=1))
    np.testing.assert_array_equal(resize_labels(resize_labels(labels, 3.0), 1 / 3), labels)


def test_sizes_are_rounded_halves_to_the_even_side() -> None:
    assert scaled_size((5, 7), 0.5) == (2, 4)
    assert scaled_size((10, 11), 0.25) == (2, 3)
    assert scaled_size((1, 1000), 0.1) == (1, 100)
    assert resize_image(np.zeros((5, 7, 1), np.uint8), 0.5).shape == (2, 4, 1)


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(0.05, 4))
def test_no_side_vanishes(height: int, width: int, scale: float) -> None:
    size = scaled_size((height, width), scale)
    assert min(size) >= 1
    assert all(abs(new - old * scale) <= 1 for new, old in zip(size, (height, width), strict=True))


def test_images_are_normalised_by_themselves_where_they_differ(tmp_path: Path) -> None:
    """Dark and bright exposures of the same scene: the scan says so, and both become the same network input."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    scene = np.random.default_rng(0).integers(0, 40, (24, 32), dtype=np.uint8)
    for index in range(5):
        Image.fromarray(scene + np.uint8(50 * (index % 5))).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray((scene > 20).astype(np.uint8)).save(tmp_path / "masks" / f"{index}.png")
    folder = open_dataset(tmp_path)
    normalisation = scan(folder, folder.items).card.normalisation
    assert normalisation.per_image
    dark, bright = (normalisation((scene + np.uint8(shift))[:, :, None]) for shift in (0, 200))
    np.testing.assert_allclose(dark, bright, atol=1e-4)
    assert abs(float(dark.mean())) < 1e-5
    assert float(dark.std()) == pytest.approx(1, abs=1e-4)


def test_flat_image_normalised_by_itself_is_zero() -> None:
    normalisation = Normalisation(intensity_range=(0, 255), mean=(0.5,), std=(0.1,), per_image=True)
    assert not normalisation(np.full((3, 4, 1), 77, dtype=np.uint8)).any()
