from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.color import rgb2lab

from pixelwise.classical.filter_bank import BANKS, Float, filter_bank, gaussian, lab
from pixelwise.errors import RequestError

SIZE = 129  # of the image with one bright pixel: wider than the widest kernel

GRID = np.arange(SIZE) - SIZE // 2
X, Y = np.meshgrid(GRID, GRID)

Function = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def bell(sigma_x: float, sigma_y: float) -> Function:
    density: Function = np.exp(-0.5 * ((X / sigma_x) ** 2 + (Y / sigma_y) ** 2)) / (2 * math.pi * sigma_x * sigma_y)
    return density


def laplacian(sigma: float) -> Function:
    return ((X**2 + Y**2) / sigma**4 - 2 / sigma**2) * bell(sigma, sigma)


def analytic(kappa: float) -> list[tuple[int, Function]]:
    """The 17 filters in the order of the published implementations: channel and function."""
    smooth = [(channel, bell(kappa * s, kappa * s)) for s in (1, 2, 4) for channel in range(3)]
    slopes = []
    for s in (2 * kappa, 4 * kappa):
        slopes += [(0, -X / s**2 * bell(s, 3 * s)), (0, -Y / s**2 * bell(3 * s, s))]
    return [*smooth, *slopes, *((0, laplacian(kappa * s)) for s in (1, 2, 4, 8))]


def off(found: Float, wanted: Function) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("kappa", [1.0, 1.5])
def test_impulse_responses_of_the_17_are_the_analytic_functions(kappa: float) -> None:
    peak = np.zeros((SIZE, SIZE), np.float32)
    peak[SIZE // 2, SIZE // 2] = 1
    filters = filter_bank("textonboost17", kappa=kappa).filters
    assert len(filters) == 17
    for number, (one, (channel, wanted)) in enumerate(zip(filters, analytic(kappa), strict=True)):
        assert one.channel == channel
        # Kernels end at 5 standard deviations.
        assert off(one.response(peak), wanted) < 1e-3, number


def test_gaussians_of_a_peak() -> None:
    peaks = [float(np.outer(gaussian(s), gaussian(s)).max()) for s in (1, 2, 4)]
    assert peaks == pytest.approx([0.15915, 0.03979, 0.00995], abs=1e-4)


def test_sums_are_those_of_the_analytic_functions() -> None:
    for number, one in enumerate(filter_bank("textonboost17").filters):
        assert float(one.kernel.sum(dtype=np.float64)) == pytest.approx(1.0 if number < 9 else 0.0, abs=1e-6)


@pytest.mark.parametrize(("name", "filters", "responses"), [("mr8", 38, 8), ("lm", 48, 48), ("schmid", 13, 13)])
def test_other_banks(name: str, filters: int, responses: int) -> None:
    bank = filter_bank(name)
    assert (len(bank.filters), bank.num_responses) == (filters, responses)
    blobs = {"mr8": (36,), "lm": (44, 45, 46, 47), "schmid": ()}[name]
    for number, one in enumerate(bank.filters):
        kernel = one.kernel.astype(np.float64)
        assert kernel.shape == (49, 49)
        assert np.abs(kernel).sum() == pytest.approx(1)
        assert kernel.sum() == pytest.approx(1 if number in blobs else 0, abs=1e-5)
    peak = np.zeros((SIZE, SIZE), np.float32)
    peak[SIZE // 2, SIZE // 2] = 1
    found = bank.filters[1].response(peak)
    assert found[SIZE // 2 - 24 : SIZE // 2 + 25, SIZE // 2 - 24 : SIZE // 2 + 25] == pytest.approx(
        bank.filters[1].kernel, abs=1e-6
    )


def test_the_strongest_orientation_is_kept() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    bank = filter_bank("mr8")
    single = [one.response(lab(image)[0]) for one in bank.filters]
    found = bank.responses(image)
    assert found.shape == (8, 20, 24)
    assert np.array_equal(found[2], np.max(single[12:18], axis=0))
    assert np.array_equal(found[7], single[37])


def test_kappa_scales_the_windows() -> None:
    assert filter_bank("schmid", kappa=0.5).filters[0].kernel.shape == (25, 25)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_image_has_mirrored_responses(axis: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 31, 3), dtype=np.uint8)
    bank = filter_bank()
    found, mirrored = bank.responses(image), np.flip(bank.responses(np.flip(image, axis)), axis + 1)
    turned = {0: (10, 12), 1: (9, 11)}[axis]  # derivatives along the axis
    for number in range(17):
        sign = -1 if number in turned else 1
        np.testing.assert_allclose(mirrored[number], sign * found[number], atol=2e-4)


def test_brighter_to_the_right_is_positive() -> None:
    image = np.repeat(np.linspace(0, 255, 60).astype(np.uint8)[None, :, None], 50, axis=0).repeat(3, axis=2)
    responses = filter_bank().responses(image)
    assert (responses[9, :, 20:40] > 0).all()
    assert np.abs(responses[10]).max() < 1e-4


def test_lab_is_that_of_scikit_image() -> None:
    image = np.random.default_rng(2).integers(0, 256, (16, 17, 3), dtype=np.uint8)
    image[0, 0] = 0
    assert lab(image).transpose(1, 2, 0) == pytest.approx(rgb2lab(image), abs=2e-4)


def test_tiny_images() -> None:
    flat = np.full((1, 1, 3), 119, np.uint8)
    responses = filter_bank().responses(flat)
    assert responses[:9:3].ravel() == pytest.approx([50.0344] * 3, abs=1e-3)
    assert np.abs(responses[9:]).max() < 1e-3


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_other_images_are_refused(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    with pytest.raises(RequestError, match=r"image has shape \((4|0), 4.*accepted: \(H, W, 3\) of uint8"):
        lab(image)


def test_unknown_requests() -> None:
    with pytest.raises(RequestError, match="filter bank 'mr9' is unknown; accepted: textonboost17, mr8, lm, schmid"):
        filter_bank("mr9")
    for name in BANKS:
        with pytest.raises(RequestError, match=r"kappa is 0; accepted: a number above 0"):
            filter_bank(name, kappa=0)
