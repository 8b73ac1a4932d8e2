"""Warps are exact where nothing is interpolated, aligned where it is, and the same on every run."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import ndimage

from pixelwise.data.augment import Warp, photometric, sample_rng, sample_warp
from pixelwise.data.augment_config import AugmentConfig, microscopy, mild, no_augmentation
from pixelwise.errors import RequestError

EXACT = no_augmentation()
STRONG = AugmentConfig(scale=(0.5, 2), aspect=(0.8, 1.25), rotation=180, vertical_flip=True, elastic_sigma=4)


def random_image(*shape: int, dtype: type = np.uint8, seed: int = 0) -> NDArray[np.generic]:
    rng = np.random.default_rng(seed)
    if dtype is np.float32:
        return rng.random(shape, dtype=np.float32)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def read_slowly(source: NDArray[np.generic], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.generic]:
    """Nearest pixel of the mirrored source, by indexing."""

    def mirrored(coordinate: NDArray[np.float32], side: int) -> NDArray[np.int64]:
        period = max(2 * side - 2, 1)
        place = np.rint(coordinate).astype(np.int64) % period
        return np.minimum(place, period - place) if side > 1 else place

    return source[mirrored(y, source.shape[0]), mirrored(x, source.shape[1])]


def quiet(**changes: object) -> AugmentConfig:
    return AugmentConfig.model_validate(EXACT.model_dump() | changes)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_identity_copies_the_image(dtype: type, channels: int, interpolation: str) -> None:
    image = random_image(23, 31, channels, dtype=dtype)
    config = quiet(interpolation=interpolation)
    warp = sample_warp(sample_rng(0, 0, 0), config, image_size=(23, 31), output_size=(23, 31))
    warped = warp.image(image)
    assert warped.dtype == dtype
    assert warped.shape == image.shape
    np.testing.assert_array_equal(warped, image)


def test_no_augmentation_takes_the_centre() -> None:
    image = random_image(20, 31, 3)
    warp = sample_warp(sample_rng(0, 0, 0), EXACT, image_size=(20, 31), output_size=(10, 11))
    np.testing.assert_array_equal(warp.image(image), image[5:15, 10:21])
    np.testing.assert_array_equal(warp.labels(image[..., 0].copy()), image[5:15, 10:21, 0])


def test_random_crops_copy_pixels_and_reach_every_place() -> None:
    image = np.arange(6 * 9, dtype=np.uint16).reshape(6, 9, 1)
    seen = set()
    for index in range(400):
        rng = sample_rng(1, 0, index)
        warp = sample_warp(rng, quiet(random_crop=True), image_size=(6, 9), output_size=(4, 6))
        crop = warp.image(image)
        top, left = divmod(int(crop[0, 0, 0]), 9)
        np.testing.assert_array_equal(crop, image[top : top + 4, left : left + 6])
        seen.add((top, left))
    assert seen == {(top, left) for top in range(3) for left in range(4)}


@pytest.mark.parametrize("field", ["horizontal_flip", "vertical_flip"])
def test_flips_are_exact(field: str) -> None:
    image = random_image(12, 17, 3)
    flipped = image[:, ::-1] if field == "horizontal_flip" else image[::-1]
    found = {True: 0, False: 0}
    for index in range(60):
        rng = sample_rng(0, 0, index)
        warp = sample_warp(rng, quiet(**{field: True}), image_size=(12, 17), output_size=(12, 17))
        warped = warp.image(image)
        is_flipped = bool((warped == flipped).all())
        assert is_flipped or (warped == image).all()
        found[is_flipped] += 1
    assert min(found.values()) >= 15


def test_quarter_turns_and_a_flip_give_eight_orientations_exactly() -> None:
    image = random_image(13, 13, 3)
    wanted = {np.rot90(side, turns).tobytes(): 0 for side in (image, image[:, ::-1]) for turns in range(4)}
    config = quiet(quarter_turns=True, horizontal_flip=True)
    for index in range(200):
        warp = sample_warp(sample_rng(0, 0, index), config, image_size=(13, 13), output_size=(13, 13))
        wanted[warp.image(image).tobytes()] += 1
    assert len(wanted) == 8
    assert min(wanted.values()) >= 12


def test_a_quarter_turn_swaps_the_sides_of_a_crop() -> None:
    image = random_image(20, 31, 1)
    places = set()
    for index in range(60):
        rng = sample_rng(0, 0, index)
        warp = sample_warp(rng, quiet(quarter_turns=True), image_size=(20, 31), output_size=(12, 20))
        assert warp.map_x.min() >= 0
        assert warp.map_x.max() <= 30
        assert warp.map_y.min() >= 0
        assert warp.map_y.max() <= 19
        places.add((warp.map_x.max() - warp.map_x.min(), warp.map_y.max() - warp.map_y.min()))
        assert warp.image(image).shape == (12, 20, 1)
    assert places == {(19.0, 11.0), (11.0, 19.0)}


@pytest.mark.parametrize("size", [(7, 9), (2, 3), (5, 1), (1, 1)])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_a_crop_larger_than_the_image_is_mirrored(size: tuple[int, int], interpolation: str) -> None:
    image = random_image(*size, 3)
    pads = [(24 - side) // 2 for side in size]
    padded = np.pad(image, [(p + 1, p + 1) for p in pads] + [(0, 0)], mode="reflect")
    starts = [p + 1 + (side - 24) // 2 for p, side in zip(pads, size, strict=True)]
    expected = padded[starts[0] :, starts[1] :][:24, :24]
    for random_crop in (False, True):
        config = quiet(interpolation=interpolation, random_crop=random_crop)
        warp = sample_warp(sample_rng(0, 0, 0), config, image_size=size, output_size=(24, 24))
        np.testing.assert_array_equal(warp.image(image), expected)
        np.testing.assert_array_equal(warp.labels(image[..., 0].copy()), expected[..., 0])


def test_scaled_crop_lies_in_the_image_and_uses_all_of_it() -> None:
    config = quiet(scale=(0.5, 3.0), rotation=30.0, random_crop=True)
    lows, highs = [], []
    for index in range(300):
        warp = sample_warp(sample_rng(0, 0, index), config, image_size=(300, 200), output_size=(40, 50))
        assert warp.map_x.dtype == np.float32
        assert warp.map_x.shape == (40, 50)
        lows.append((warp.map_x.min(), warp.map_y.min()))
        highs.append((warp.map_x.max() - 199, warp.map_y.max() - 299))
    assert np.min(lows) > -0.01
    assert np.max(highs) < 0.01
    assert np.min(lows) < 3
    assert np.max(highs) > -3


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scale_is_the_magnification(scale: float) -> None:
    warp = sample_warp(sample_rng(0, 0, 0), quiet(scale=(scale, scale)), image_size=(99, 99), output_size=(31, 31))
    np.testing.assert_allclose(np.diff(warp.map_x, axis=1), 1 / scale, rtol=1e-5)
    np.testing.assert_allclose(np.diff(warp.map_y, axis=0), 1 / scale, rtol=1e-5)


def test_scale_is_drawn_evenly_or_in_its_logarithm() -> None:
    for draw, mean in (("even", 1.25), ("logarithmic", 1.5 / np.log(4))):
        config, found = quiet(scale=(0.5, 2.0), scale_draw=draw), []
        for index in range(400):
            warp = sample_warp(sample_rng(0, 0, index), config, image_size=(99, 99), output_size=(3, 3))
            found.append(1 / (warp.map_x[0, 1] - warp.map_x[0, 0]))
        assert 0.5 <= min(found) < 0.52
        assert 1.95 < max(found) <= 2.0001
        assert np.mean(found) == pytest.approx(mean, abs=0.07)


def test_inside_is_what_is_not_mirrored() -> None:
    warp = sample_warp(sample_rng(0, 0, 0), EXACT, image_size=(3, 5), output_size=(5, 5))
    assert warp.inside().tolist() == [[False] * 5, *[[True] * 5] * 3, [False] * 5]
    turned = sample_warp(sample_rng(0, 0, 3), quiet(rotation=45.0), image_size=(20, 20), output_size=(40, 40))
    marked = np.full((20, 20), 7, np.uint8)
    inside = ndimage.map_coordinates(marked, [turned.map_y, turned.map_x], order=0, mode="grid-constant", cval=0) == 7
    np.testing.assert_array_equal(turned.inside(), inside)


def test_aspect_stretches_the_width_and_keeps_the_area() -> None:
    config = quiet(aspect=(1.21, 1.21))
    warp = sample_warp(sample_rng(0, 0, 0), config, image_size=(99, 99), output_size=(31, 31))
    np.testing.assert_allclose(np.diff(warp.map_x, axis=1), 1 / 1.1, rtol=1e-5)
    np.testing.assert_allclose(np.diff(warp.map_y, axis=0), 1.1, rtol=1e-5)


def test_rotation_keeps_lengths_and_stays_within_its_limit() -> None:
    angles = []
    for index in range(200):
        warp = sample_warp(sample_rng(0, 0, index), quiet(rotation=25.0), image_size=(99, 99), output_size=(31, 31))
        dx, dy = np.diff(warp.map_x, axis=1)[3, 4], np.diff(warp.map_y, axis=1)[3, 4]
        assert np.hypot(dx, dy) == pytest.approx(1, abs=1e-4)
        angles.append(np.degrees(np.arctan2(dy, dx)))
    assert -25.1 < min(angles) < -22
    assert 22 < max(angles) < 25.1


@pytest.mark.parametrize("grid", [2, 3, 5])
def test_elastic_displacement_at_the_nodes_is_what_was_drawn(grid: int) -> None:
    config = quiet(elastic_sigma=7.0, elastic_grid=grid)
    sizes = {"image_size": (241, 241), "output_size": (241, 241)}
    rng = sample_rng(3, 1, 4)
    plain = sample_warp(rng, EXACT, **sizes)
    bent = sample_warp(sample_rng(3, 1, 4), config, **sizes)
    twin = sample_rng(3, 1, 4)
    twin.random(7)
    drawn = twin.standard_normal((2, grid, grid)) * 7.0
    step = 240 // (grid - 1)
    for map_bent, map_plain, nodes in (
        (bent.map_x, plain.map_x, drawn[0]),
        (bent.map_y, plain.map_y, drawn[1]),
    ):
        np.testing.assert_allclose((map_bent - map_plain)[::step, ::step], nodes, atol=2e-4)


def test_a_fading_field_is_still_at_the_border_and_moves_within() -> None:
    config = quiet(elastic_sigma=4.0, elastic_grid=12, elastic_fades=True)
    warp = sample_warp(sample_rng(0, 0, 0), config, image_size=(256, 256), output_size=(256, 256))
    field = warp.map_x - np.arange(256, dtype=np.float32)
    for border in (field[0], field[-1], field[:, 0], field[:, -1]):
        np.testing.assert_allclose(border, 0, atol=1e-4)
    assert np.abs(field[24:-24, 24:-24]).max() > 4
    with pytest.raises(ValidationError, match=r"elastic_fades with elastic_grid=2.*accepted are grids from 3"):
        AugmentConfig(elastic_fades=True, elastic_grid=2)


def test_elastic_displacements_have_the_papers_deviation_and_do_not_fold() -> None:
    nodes, slopes = [], []
    for index in range(150):
        warp = sample_warp(
            sample_rng(0, 0, index),
            quiet(elastic_sigma=10.0),
            image_size=(512, 512),
            output_size=(511, 511),
        )
        grid = np.arange(511, dtype=np.float32)
        nodes.append((warp.map_x - grid)[::255, ::255])
        slopes.append(min(np.diff(warp.map_x, axis=1).min(), np.diff(warp.map_y, axis=0).min()))
    assert np.std(nodes) == pytest.approx(10, rel=0.06)
    assert np.mean(nodes) == pytest.approx(0, abs=1)
    assert min(slopes) > 0.5


def test_elastic_field_is_bicubic_between_the_nodes() -> None:
    """Half way between two nodes Keys' kernel weighs its four neighbours -1/16, 9/16, 9/16, -1/16."""
    config = quiet(elastic_sigma=5.0, elastic_grid=5)
    warp = sample_warp(sample_rng(0, 0, 0), config, image_size=(161, 161), output_size=(161, 161))
    field = warp.map_x - np.arange(161, dtype=np.float32)
    neighbours = field[80, [20 * 1, 40, 80, 120, 160]]
    expected = (-neighbours[1] + 9 * neighbours[2] + 9 * neighbours[3] - neighbours[4]) / 16
    assert field[80, 100] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("config", [mild(), microscopy(), STRONG])
def test_same_sample_gives_identical_bits_and_another_index_differs(config: AugmentConfig) -> None:
    image = random_image(120, 90, 3)

    def draw(seed: int, epoch: int, index: int) -> bytes:
        rng = sample_rng(seed, epoch, index)
        warp = sample_warp(rng, config, image_size=(120, 90), output_size=(100, 101))
        return warp.map_x.tobytes() + photometric(rng, config, warp.image(image)).tobytes()

    first = draw(5, 2, 9)
    assert first == draw(5, 2, 9)
    others = {draw(5, 2, 10), draw(5, 3, 9), draw(6, 2, 9), draw(5, 9, 2)}
    assert len(others | {first}) == 5


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    index=st.integers(0, 10**6),
    dtype=st.sampled_from([np.uint8, np.uint16]),
)
def test_labels_never_get_new_values(height: int, width: int, index: int, dtype: type) -> None:
    labels = random_image(height, width, dtype=dtype, seed=index)
    warp = sample_warp(sample_rng(0, 0, index), STRONG, image_size=(height, width), output_size=(37, 50))
    warped = warp.labels(labels)
    assert warped.dtype == dtype
    assert warped.shape == (37, 50)
    assert set(np.unique(warped)) <= set(np.unique(labels))


def test_labels_are_the_nearest_pixel_of_the_mirrored_map() -> None:
    labels = random_image(60, 80, dtype=np.uint16)
    for index in range(20):
        warp = sample_warp(sample_rng(0, 0, index), STRONG, image_size=(60, 80), output_size=(70, 90))
        np.testing.assert_array_equal(warp.labels(labels), read_slowly(labels, warp.map_x, warp.map_y))


@pytest.mark.parametrize(("interpolation", "order"), [("linear", 1), ("cubic", 3)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_image_agrees_with_scipy(interpolation: str, order: int, channels: int) -> None:
    """Linear to 1/64 px, the step to which OpenCV 4 rounds coordinates; cubic on a smooth image."""
    y, x = np.mgrid[:60, :80] / 20
    image = np.stack([0.5 + 0.4 * np.sin(x + k) * np.cos(y - k) for k in range(channels)], -1)
    image = image.astype(np.float32)
    config = STRONG.model_copy(update={"interpolation": interpolation})
    warp = sample_warp(sample_rng(0, 0, 3), config, image_size=(60, 80), output_size=(50, 50))
    warped = warp.image(image)
    for channel in range(channels):
        expected = ndimage.map_coordinates(image[..., channel], [warp.map_y, warp.map_x], order=order, mode="mirror")
        np.testing.assert_allclose(warped[..., channel], expected, atol=1.5e-3)


def test_image_and_labels_stay_aligned() -> None:
    labels = np.zeros((160, 160), np.uint8)
    cv2.circle(labels, (70, 90), 35, 1, -1)
    cv2.rectangle(labels, (110, 20), (150, 60), 1, -1)
    image = np.repeat(labels[..., None] * 255, 3, axis=2)
    for index in range(10):
        warp = sample_warp(sample_rng(0, 0, index), STRONG, image_size=(160, 160), output_size=(150, 150))
        inside, drawn = warp.labels(labels) == 1, warp.image(image)[..., 0] / 255
        # Where the image is clearly inside or outside, the nearest pixel must say the same.
        assert not inside[drawn < 0.25].any()
        assert inside[drawn > 0.75].all()
        assert abs(inside.mean() - drawn.mean()) < 0.002


def test_labels_equal_a_nearest_warp_of_the_image() -> None:
    labels = random_image(64, 64)
    warp = sample_warp(sample_rng(0, 0, 0), STRONG, image_size=(64, 64), output_size=(60, 60))
    as_image = cv2.remap(
        np.repeat(labels[..., None], 3, 2),
        warp.map_x,
        warp.map_y,
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    np.testing.assert_array_equal(warp.labels(labels), as_image[..., 0])


def test_weights_are_read_linearly() -> None:
    ramp = np.tile(np.arange(50, dtype=np.float32), (50, 1))
    warp = sample_warp(sample_rng(0, 0, 0), quiet(scale=(2, 2), rotation=20), image_size=(50, 50), output_size=(40, 40))
    np.testing.assert_allclose(warp.weights(ramp), warp.map_x, atol=0.02)


def test_centre_is_the_central_part_of_the_same_map() -> None:
    labels = random_image(188, 188)
    warp = sample_warp(sample_rng(0, 0, 0), STRONG, image_size=(188, 188), output_size=(188, 188))
    inner = warp.centre(92)
    assert inner.map_x.shape == (4, 4)
    np.testing.assert_array_equal(inner.labels(labels), warp.labels(labels)[92:96, 92:96])
    np.testing.assert_array_equal(warp.centre(0).map_y, warp.map_y)


@pytest.mark.parametrize("shape", [(1, 40000), (40000, 1), (3, 33000)])
def test_images_beyond_the_limit_of_opencv(shape: tuple[int, int]) -> None:
    labels = random_image(*shape, dtype=np.uint16)
    image = np.repeat(labels[..., None], 3, axis=2)
    for index in range(3):
        config = quiet(random_crop=True, rotation=20.0, scale=(0.8, 1.2))
        warp = sample_warp(sample_rng(0, 0, index), config, image_size=shape, output_size=(32, 48))
        expected = read_slowly(labels, warp.map_x, warp.map_y)
        np.testing.assert_array_equal(warp.labels(labels), expected)
    warp = sample_warp(sample_rng(0, 0, 0), EXACT, image_size=shape, output_size=shape)
    np.testing.assert_array_equal(warp.image(image), image)
    np.testing.assert_array_equal(warp.labels(labels), labels)


def test_a_crop_of_a_large_image_costs_no_more_than_the_crop() -> None:
    image = np.zeros((6000, 6000, 3), np.uint8)
    rng = sample_rng(0, 0, 0)
    warp = sample_warp(rng, mild(), image_size=(6000, 6000), output_size=(64, 64))
    warp.image(image)
    tracemalloc.start()
    warp.image(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < image.nbytes / 100


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_photometric_keeps_dtype_shape_range_and_argument(dtype: type, channels: int) -> None:
    image = random_image(20, 30, channels, dtype=dtype)
    before = image.copy()
    config = AugmentConfig(brightness=0.9, contrast=0.9, noise=0.5, blur=3, blur_probability=1)
    top = 1 if dtype is np.float32 else np.iinfo(dtype).max
    changed = 0
    for index in range(30):
        result = photometric(sample_rng(0, 0, index), config, image)
        assert result.dtype == dtype
        assert result.shape == image.shape
        assert result.min() >= 0
        assert result.max() <= top
        changed += int((result != image).any())
    assert changed == 30
    np.testing.assert_array_equal(image, before)


def test_photometric_without_changes_returns_the_image() -> None:
    image = random_image(8, 9, 3)
    np.testing.assert_array_equal(photometric(sample_rng(0, 0, 0), EXACT, image), image)


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255.0), (np.uint16, 4000.0), (np.float32, 1.0)])
def test_noise_is_gaussian_with_the_drawn_deviation(dtype: type, full: float) -> None:
    image: NDArray[np.floating] = np.full((200, 200, 1), full / 2, dtype)
    image[0, 0] = full
    noisy = photometric(sample_rng(0, 0, 1), quiet(noise=0.1, noise_probability=1), image)
    twin = sample_rng(0, 0, 1)
    sigma = 0.1 * twin.random(6)[5]
    error = (noisy.astype(np.float64) - image)[1:].ravel() / full
    assert sigma > 0.01
    assert error.std() == pytest.approx(sigma, rel=0.02)
    assert abs(error.mean()) < 0.02 * sigma
    assert np.mean((error / sigma) ** 4) == pytest.approx(3, abs=0.15)
    assert abs(np.corrcoef(error[:-1], error[1:])[0, 1]) < 0.02


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_brightness_scales_and_contrast_keeps_the_mean(dtype: type) -> None:
    top = 1.0 if dtype is np.float32 else np.iinfo(dtype).max
    image: NDArray[np.generic] = (np.linspace(0.4, 0.6, 400).reshape(20, 20, 1) * top).astype(dtype)
    gains, spreads = [], []
    for index in range(80):
        bright = photometric(sample_rng(0, 0, index), quiet(brightness=0.3), image)
        gains.append(bright.mean(dtype=np.float64) / image.mean(dtype=np.float64))
        spread = photometric(sample_rng(0, 0, index), quiet(contrast=0.3), image)
        assert spread.mean(dtype=np.float64) == pytest.approx(image.mean(dtype=np.float64), abs=2e-3 * top)
        spreads.append(spread.std(dtype=np.float64) / image.std(dtype=np.float64))
    for ratios in (gains, spreads):
        assert 0.69 < min(ratios) < 0.74
        assert 1.26 < max(ratios) < 1.32


def test_blur_smooths_in_its_share_of_samples() -> None:
    image = random_image(60, 60, 3)
    config = quiet(blur=2.0, blur_probability=0.25)
    results = [photometric(sample_rng(0, 0, index), config, image) for index in range(200)]
    touched = [result for result in results if (result != image).any()]
    assert 30 <= len(touched) <= 70
    assert min(result.std() for result in touched) < 0.3 * image.std()


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("scale", (0.01, 1), r"scale=0\.01: accepted are 0\.1 to 10; give a value inside"),
        ("scale", (2, 0.5), r"scale=\(2, 0\.5\): the least value comes first; give \(0\.5, 2\)"),
        ("aspect", (1, 9), r"aspect=9: accepted are 0\.25 to 4;"),
        ("rotation", 270, r"rotation=270: accepted are 0 to 180 degrees;"),
        ("elastic_sigma", -1, r"elastic_sigma=-1: accepted are 0 to 100 px;"),
        ("elastic_grid", 1, r"elastic_grid=1: accepted are 2 to 32 nodes a side;"),
        ("noise", 0.9, r"noise=0\.9: accepted are 0 to 0\.5 of the full range;"),
        ("noise_probability", 2, r"noise_probability=2: accepted are 0 to 1;"),
        ("blur", float("nan"), r"blur=nan: accepted are 0 to 10 px;"),
        ("blur_probability", -0.1, r"blur_probability=-0\.1: accepted are 0 to 1;"),
        ("brightness", 1, r"brightness=1: accepted are 0 to 0\.9;"),
        ("contrast", 1.5, r"contrast=1\.5: accepted are 0 to 0\.9;"),
        ("interpolation", "area", r"Input should be 'linear' or 'cubic'"),
        ("hue", 0.1, r"Extra inputs are not permitted"),
    ],
)
def test_config_refuses_with_value_and_limits(field: str, value: object, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        AugmentConfig.model_validate({field: value})


def test_config_is_frozen_and_survives_json() -> None:
    config = microscopy(crop_side=96)
    assert config.elastic_sigma == 6
    assert AugmentConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="frozen"):
        config.scale = (1, 1)  # type: ignore[misc]


@pytest.mark.parametrize("side", [24, 48, 160, 572])
def test_microscopy_fits_small_crops(side: int) -> None:
    warp = sample_warp(sample_rng(0, 0, 0), microscopy(crop_side=side), image_size=(99, 99), output_size=(side, side))
    assert warp.map_x.shape == (side, side)


def test_errors_name_what_was_given_and_what_to_do() -> None:
    rng = sample_rng(0, 0, 0)
    with pytest.raises(RequestError, match=r"elastic_sigma=10 px on a 3x3 grid over a crop of 64x200 folds"):
        sample_warp(rng, microscopy(), image_size=(99, 99), output_size=(64, 200))
    with pytest.raises(RequestError, match=r"accepted are 0 to 7\.8 px; lower elastic_sigma"):
        sample_warp(rng, microscopy(), image_size=(99, 99), output_size=(64, 200))
    with pytest.raises(RequestError, match=r"image_size=\(0, 5\), output_size=\(3, 3\): accepted are sides"):
        sample_warp(rng, EXACT, image_size=(0, 5), output_size=(3, 3))
    with pytest.raises(RequestError, match=r"seed=-1, epoch=0, index=0: accepted are whole numbers from 0"):
        sample_rng(-1, 0, 0)
    warp = sample_warp(rng, EXACT, image_size=(9, 8), output_size=(9, 8))
    with pytest.raises(RequestError, match=r"image: shape \(9, 7, 3\), uint8; this warp takes shape \(9, 8, C\)"):
        warp.image(np.zeros((9, 7, 3), np.uint8))
    with pytest.raises(RequestError, match=r"labels: shape \(9, 8\), int64; .* uint8 or uint16; convert"):
        warp.labels(np.zeros((9, 8), np.int64))
    with pytest.raises(RequestError, match=r"weights: shape \(9, 8\), float64; .* float32; convert"):
        warp.weights(np.zeros((9, 8)))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"margin=4 on a crop of 9x8: accepted are 0 to 3; take a smaller"):
        warp.centre(4)
    with pytest.raises(RequestError, match=r"image: shape \(9, 8\), uint8; accepted is shape \(h, w, C\)"):
        photometric(rng, EXACT, np.zeros((9, 8), np.uint8))


def test_maps_that_share_memory_are_refused() -> None:
    shared = np.zeros((4, 4), np.float32)
    with pytest.raises(AssertionError):
        Warp(map_x=shared, map_y=shared, image_size=(4, 4))
