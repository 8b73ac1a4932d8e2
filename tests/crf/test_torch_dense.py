"""`dense_crf_torch`: the beliefs of `dense_crf`, batches, and every wrong input answered in a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pixelwise.crf.dense import PRESETS, CRFParameters, color_features, position_features, refine
from pixelwise.crf.torch_dense import dense_crf_torch, pixel_features
from pixelwise.errors import RequestError

HEIGHT, WIDTH = 18, 28


def picture(seed: int = 0) -> Tensor:
    image = np.full((HEIGHT, WIDTH, 3), 30)
    image[:, WIDTH // 2 :] = 220
    return torch.from_numpy((image + np.random.default_rng(seed).integers(0, 30, image.shape)).astype(np.uint8))


def maps(seed: int = 0, labels: int = 3) -> Tensor:
    raw = np.random.default_rng(seed).random((labels, HEIGHT, WIDTH)) + 0.1
    return torch.from_numpy((raw / raw.sum(axis=0)).astype(np.float32))


@pytest.mark.parametrize("preset", PRESETS)
def test_beliefs_are_the_compiled_ones(preset: str) -> None:
    image, probabilities = picture(), maps()
    found = dense_crf_torch(image, probabilities, PRESETS[preset])
    wanted = refine(image.numpy(), probabilities.numpy(), PRESETS[preset])
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, atol=5e-5)


def test_features_are_the_compiled_ones() -> None:
    image = picture()
    np.testing.assert_array_equal(pixel_features(image, 2.3).numpy(), position_features(HEIGHT, WIDTH, 2.3))
    wanted = color_features(image.numpy(), 81.7, 12.9)
    np.testing.assert_array_equal(pixel_features(image, 81.7, 12.9).numpy(), wanted)


def test_images_of_a_batch_are_refined_alone() -> None:
    images, probabilities = (torch.stack([make(0), make(1)]) for make in (picture, maps))
    found = dense_crf_torch(images, probabilities, CRFParameters())
    for index in range(2):
        alone = dense_crf_torch(images[index], probabilities[index], CRFParameters())
        torch.testing.assert_close(found[index], alone, atol=5e-5, rtol=0)


def test_one_label_one_pixel_and_no_kernel() -> None:
    alone = dense_crf_torch(picture(), maps(labels=1), CRFParameters())
    torch.testing.assert_close(alone, torch.ones_like(alone))
    found = dense_crf_torch(torch.zeros(1, 1, 3, dtype=torch.uint8), torch.tensor([[[0.3]], [[0.7]]]), CRFParameters())
    assert found[1, 0, 0] > 0.6
    nothing = CRFParameters(spatial_weight=0, bilateral_weight=0)
    torch.testing.assert_close(dense_crf_torch(picture(), maps(), nothing), maps())


def test_layout_and_type_do_not_matter() -> None:
    image, probabilities = picture(), maps()
    wanted = dense_crf_torch(image, probabilities, CRFParameters())
    turned = probabilities.permute(1, 2, 0).contiguous().permute(2, 0, 1).double()
    torch.testing.assert_close(dense_crf_torch(image, turned, CRFParameters()), wanted, atol=1e-5, rtol=0)
    flipped = dense_crf_torch(image.permute(2, 0, 1).contiguous().permute(1, 2, 0), probabilities, CRFParameters())
    torch.testing.assert_close(flipped, wanted)
    torch.testing.assert_close(dense_crf_torch(image, probabilities * 1.009, CRFParameters()), wanted)
    hard = torch.zeros(2, HEIGHT, WIDTH)
    hard[0] = 1
    assert bool(dense_crf_torch(image, hard, CRFParameters()).isfinite().all())


@pytest.mark.parametrize(
    ("image", "probabilities", "message"),
    [
        (picture(), maps() * 1.02, r"sums from 1\.02 to 1\.02 over the labels; accepted: .* within 0\.01"),
        (picture(), torch.full((3, HEIGHT, WIDTH), torch.nan), "NaN or infinite values"),
        (picture()[None], maps()[None] * 3, r"sums from 3 to 3"),
        (picture(), maps() * 3 - torch.tensor([0.0, 0.5, 1.5])[:, None, None], "values down to -"),
        (picture(), maps().permute(1, 2, 0), r"probabilities have shape \(18, 28, 3\).*Move the last axis"),
        (picture(), maps()[:, :5], r"shape \(3, 5, 28\), the image \(18, 28, 3\); accepted: \(K, 18, 28\)"),
        (picture()[None], maps(), r"the image \(1, 18, 28, 3\); accepted: \(1, K, 18, 28\)"),
        (picture(), maps()[:0], r"probabilities have shape \(0, 18, 28\)"),
        (picture(), maps().to(torch.uint8), "type torch.uint8; accepted: floating point"),
        (picture().float(), maps(), r"image has shape \(18, 28, 3\) and type torch.float32; accepted: uint8"),
        (picture()[:, :, 0], maps(), r"image has shape \(18, 28\)"),
        (picture()[:0], maps()[:, :0], r"image has shape \(0, 28, 3\)"),
        (picture(), maps().to("meta"), r"image lies on cpu, the probabilities on meta; accepted: one device"),
    ],
)
def test_inputs_of_another_kind(image: Any, probabilities: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        dense_crf_torch(image, probabilities, CRFParameters())
