"""`dense_crf`: presets, and every wrong input answered in a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pixelwise as pw
from pixelwise.crf.dense import PRESETS, CRFParameters, crf_preset, dense_crf, refine
from pixelwise.errors import RequestError

HEIGHT, WIDTH, LABELS = 9, 14, 3


def picture() -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = np.full((HEIGHT, WIDTH, 3), 30, dtype=np.uint8)
    image[:, WIDTH // 2 :] = 220
    return image


def maps(seed: int = 0, labels: int = LABELS) -> np.ndarray[Any, np.dtype[np.float64]]:
    raw = np.random.default_rng(seed).random((labels, HEIGHT, WIDTH)) + 0.1
    return raw / raw.sum(axis=0)


def test_it_is_public() -> None:
    assert pw.dense_crf is dense_crf


def test_noise_within_a_colour_goes_and_edges_stay() -> None:
    truth = np.zeros((HEIGHT, WIDTH), dtype=int)
    truth[:, WIDTH // 2 :] = 1
    noisy = np.where(np.random.default_rng(0).random(truth.shape) < 0.2, 1 - truth, truth)
    probabilities = np.stack([np.where(noisy == label, 0.6, 0.4) for label in (0, 1)])
    found = dense_crf(picture(), probabilities, preset="pydensecrf_default")
    assert (noisy != truth).sum() > 10
    assert (found.argmax(axis=0) == truth).all()


def test_presets_hold_the_published_values() -> None:
    default = PRESETS["pydensecrf_default"]
    assert (default.spatial_sigma, default.spatial_weight) == (3, 3)
    assert (default.bilateral_spatial_sigma, default.bilateral_color_sigma, default.bilateral_weight) == (80, 13, 10)
    assert (default.iterations, default.normalization) == (10, "symmetric")
    resnet = PRESETS["deeplab_resnet101"]
    assert (resnet.bilateral_weight, resnet.bilateral_spatial_sigma, resnet.bilateral_color_sigma) == (4, 67, 3)
    assert (resnet.spatial_weight, resnet.spatial_sigma, resnet.normalization) == (3, 1, "after")


def test_what_is_given_beats_the_preset() -> None:
    image, probabilities = picture(), maps()
    alone = dense_crf(image, probabilities, preset="crfrnn", iterations=0)
    np.testing.assert_allclose(alone, probabilities, atol=1e-6)
    by_hand = dense_crf(
        image,
        probabilities,
        spatial_sigma=3,
        spatial_weight=3,
        bilateral_spatial_sigma=160,
        bilateral_color_sigma=3,
        bilateral_weight=5,
        normalization="after",
    )
    np.testing.assert_array_equal(by_hand, dense_crf(image, probabilities, preset="crfrnn"))


def test_one_label_and_one_pixel() -> None:
    np.testing.assert_allclose(dense_crf(picture(), maps(labels=1)), 1, atol=1e-6)
    found = dense_crf(np.zeros((1, 1, 3), np.uint8), np.array([[[0.3]], [[0.7]]]))
    assert found.shape == (2, 1, 1)
    assert found[1, 0, 0] > 0.6


def test_memory_order_and_type_do_not_matter() -> None:
    image, probabilities = picture(), maps()
    wanted = dense_crf(image, probabilities)
    assert wanted.dtype == np.float32
    turned = np.asfortranarray(probabilities.astype(np.float32))
    np.testing.assert_allclose(dense_crf(np.asfortranarray(image), turned), wanted, atol=1e-6)
    before = probabilities.copy()
    dense_crf(image, probabilities)
    np.testing.assert_array_equal(probabilities, before)


def test_sums_a_little_off_are_normalised_and_zeros_raised() -> None:
    probabilities = maps()
    np.testing.assert_allclose(
        dense_crf(picture(), probabilities * 1.009), dense_crf(picture(), probabilities), atol=1e-5
    )
    hard = np.zeros((2, HEIGHT, WIDTH))
    hard[0] = 1
    assert np.isfinite(dense_crf(picture(), hard)).all()


@pytest.mark.parametrize(
    ("image", "probabilities", "message"),
    [
        (picture(), maps() * 1.02, r"sums from 1\.02 to 1\.02 over the labels; accepted: .* within 0\.01"),
        (picture(), np.full((3, HEIGHT, WIDTH), np.nan), "NaN or infinite values"),
        (picture(), maps() * 3 - np.array([0.0, 0.5, 1.5])[:, None, None], r"values down to -"),
        (picture(), maps().transpose(1, 2, 0), r"probabilities have shape \(9, 14, 3\).*Move the last axis"),
        (picture(), maps().transpose(0, 2, 1), r"shape \(3, 14, 9\), the image is 9 x 14; accepted: \(K, 9, 14\)"),
        (picture(), maps()[0], r"shape \(9, 14\)"),
        (picture(), np.ones((3, HEIGHT, WIDTH), np.uint8), r"type uint8; accepted: floating point"),
        (picture().astype(np.float32), maps(), r"image has shape \(9, 14, 3\) and type float32; accepted: uint8"),
        (picture()[:, :, 0], maps(), r"image has shape \(9, 14\) and type uint8.*repeat a grey image"),
        (picture()[:0], maps()[:, :0], r"image has shape \(0, 14, 3\)"),
        (picture(), maps()[:0], r"probabilities have no label; accepted: one or more"),
        (None, maps(), r"image is NoneType; accepted: NumPy arrays"),
        (picture(), [[1.0, 2.0], [3.0]], r"probabilities cannot be read as an array"),
        (picture(), torch.from_numpy(maps()).requires_grad_(), r"cannot be read as an array .*\.detach\(\)\.cpu\(\)"),
    ],
)
def test_inputs_of_another_kind(image: Any, probabilities: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        dense_crf(image, probabilities)


def test_what_predict_returns_can_be_refined() -> None:
    """A prediction's probabilities are a tensor."""
    refined = dense_crf(picture(), torch.from_numpy(maps()))
    assert np.array_equal(refined, dense_crf(picture(), maps()))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"spatial_sigma": 0}, "spatial_sigma is 0; accepted: a number above 0"),
        ({"bilateral_color_sigma": -3}, "bilateral_color_sigma is -3"),
        ({"bilateral_spatial_sigma": float("nan")}, "bilateral_spatial_sigma is nan"),
        ({"bilateral_weight": -1}, "bilateral_weight is -1; accepted: 0, which leaves the kernel out"),
        ({"iterations": -1}, "iterations is -1; accepted: whole numbers from 0"),
        ({"iterations": 2.5}, "iterations is 2.5"),
        ({"normalization": "both"}, "normalization is 'both'; accepted: none, before, after, symmetric"),
        ({"tolerance": -1e-3}, "tolerance is -0.001; accepted: a number from 0 on, or None"),
        ({"preset": "deeplab"}, "unknown preset 'deeplab'; closest: deeplab_"),
    ],
)
def test_impossible_parameters(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        dense_crf(picture(), maps(), **given)


def test_weights_of_nothing_leave_the_probabilities() -> None:
    found = dense_crf(picture(), maps(), spatial_weight=0, bilateral_weight=0)
    np.testing.assert_allclose(found, maps(), atol=1e-6)


def test_a_colour_sigma_too_small_for_the_lattice_is_named() -> None:
    with pytest.raises(RequestError, match="standard deviations; accepted for 5 features"):
        dense_crf(picture(), maps(), bilateral_color_sigma=0.001)


def test_parameters_are_checked_where_they_are_made() -> None:
    assert crf_preset("pydensecrf_default") == CRFParameters()
    with pytest.raises(RequestError, match="spatial_weight is '3'"):
        CRFParameters(spatial_weight="3")  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_is_its_images_one_by_one(count: int, threads: int) -> None:
    images = np.stack([np.roll(picture(), index, axis=1) for index in range(count)])
    probabilities = np.stack([maps(seed) for seed in range(count)])
    found = refine(images, probabilities, CRFParameters(), num_threads=threads)
    assert found.shape == probabilities.shape
    for image, given, beliefs in zip(images, probabilities, found, strict=True):
        np.testing.assert_array_equal(beliefs, dense_crf(image, given))


@pytest.mark.parametrize(
    ("images", "probabilities", "message"),
    [
        (
            picture()[None],
            maps(),
            r"image has shape \(1, 9, 14, 3\), probabilities \(3, 9, 14\); accepted: \(H, W, 3\)",
        ),
        (picture(), maps()[None], r"image has shape \(9, 14, 3\), probabilities \(1, 3, 9, 14\)"),
        (np.stack([picture()] * 2), maps()[None], "both for the same B"),
        (np.stack([picture()] * 2), np.stack([maps(), maps() * 2]), r"image 1 of the batch: probabilities have sums"),
        (picture()[None][:0], maps()[None][:0], r"image has shape \(0, 9, 14, 3\)"),
    ],
)
def test_batches_of_another_kind(images: Any, probabilities: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        dense_crf(images, probabilities)


def test_views_and_arrays_that_cannot_be_written() -> None:
    image, probabilities = picture(), maps().astype(np.float32)
    wanted = dense_crf(image, probabilities)
    fixed = probabilities.copy()
    fixed.flags.writeable = False
    wide = np.zeros((HEIGHT, 2 * WIDTH, 3), dtype=np.uint8)
    wide[:, ::2] = image
    np.testing.assert_array_equal(dense_crf(wide[:, ::2], fixed), wanted)
    layers = np.ascontiguousarray(probabilities.transpose(1, 2, 0))
    np.testing.assert_array_equal(dense_crf(image, layers.transpose(2, 0, 1)), wanted)
    np.testing.assert_array_equal(dense_crf(image, probabilities), wanted)  # none of them was written to


def test_the_result_may_go_where_the_probabilities_are() -> None:
    probabilities = maps().astype(np.float32)
    wanted = dense_crf(picture(), probabilities)
    found = refine(picture(), probabilities, CRFParameters(), out=probabilities)
    assert found is probabilities
    np.testing.assert_array_equal(found, wanted)


def test_a_tolerance_stops_where_beliefs_stay() -> None:
    image, probabilities = picture(), maps()
    done = dense_crf(image, probabilities, iterations=60)
    np.testing.assert_allclose(dense_crf(image, probabilities, iterations=60, tolerance=1e-12), done, atol=1e-5)
    np.testing.assert_array_equal(
        dense_crf(image, probabilities, iterations=60, tolerance=1e9), dense_crf(image, probabilities, iterations=1)
    )


@pytest.mark.parametrize(
    "out",
    [
        np.empty((LABELS, HEIGHT, WIDTH)),
        np.empty((LABELS, WIDTH, HEIGHT), np.float32),
        np.empty((LABELS, HEIGHT, 2 * WIDTH), np.float32)[..., ::2],
    ],
)
def test_a_place_for_the_result_that_does_not_fit(out: Any) -> None:
    message = r"out has shape .* and type float.*; accepted: float32 \(3, 9, 14\), contiguous"
    with pytest.raises(RequestError, match=message):
        refine(picture(), maps(), CRFParameters(), out=out)
    with pytest.raises(RequestError, match=r"accepted: float32 \(2, 3, 9, 14\), contiguous"):
        refine(np.stack([picture()] * 2), np.stack([maps()] * 2), CRFParameters(), out=out)
