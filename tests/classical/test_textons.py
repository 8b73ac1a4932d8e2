from __future__ import annotations

import numpy as np
import pytest

from pixelwise.classical.textons import Float, TextonDictionary
from pixelwise.errors import RequestError


def mixed(seed: int, count: int) -> Float:
    """Correlated responses of very different variances."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, 5)) @ rng.normal(size=(5, 5)) * [30, 1, 0.1, 5, 2] + 7).astype(np.float32)


def test_whitened_responses_have_unit_covariance() -> None:
    responses = mixed(0, 3000)
    textons = TextonDictionary.fit(responses, num_textons=7)
    whitened = (responses - textons.mean) @ textons.whitening.T
    assert whitened.mean(axis=0) == pytest.approx(np.zeros(5), abs=1e-4)
    assert np.cov(whitened.T, bias=True) == pytest.approx(np.eye(5), abs=2e-3)


@pytest.mark.parametrize("num_textons", [6, 8])
def test_pixels_get_the_nearest_texton(num_textons: int) -> None:
    responses = mixed(1, 500)
    textons = TextonDictionary.fit(responses, num_textons=num_textons)
    found = textons.assign(np.ascontiguousarray(responses.T).reshape(5, 20, 25))
    whitened = (responses - textons.mean) @ textons.whitening.T
    distances = np.square(whitened[:, None] - textons.centres).sum(axis=2)
    assert (found.dtype, found.shape) == (np.dtype(np.uint16), (20, 25))
    assert np.array_equal(found.ravel(), distances.argmin(axis=1))
    assert len(np.unique(found)) == num_textons


def test_the_same_seed_finds_the_same() -> None:
    one, two, other = (TextonDictionary.fit(mixed(2, 600), num_textons=9, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.centres, two.centres)
    assert not np.array_equal(one.centres, other.centres)


def test_a_grey_images_flat_responses_say_nothing() -> None:
    responses = mixed(3, 400)
    responses[:, 1] = 1e-6 * np.arange(400)
    responses[:, 4] = responses[:, 0]  # not independent either
    textons = TextonDictionary.fit(responses, num_textons=4)
    assert np.isfinite(textons.whitening).all()
    assert not textons.whitening[:, 1].any()
    assert np.abs(textons.centres).max() < 10


def test_too_many_textons() -> None:
    responses = np.tile(mixed(4, 5), (20, 1))
    with pytest.raises(RequestError, match=r"num_textons is 6, but the 100 sampled pixels have 5 different.*1 to 5"):
        TextonDictionary.fit(responses, num_textons=6)
    assert TextonDictionary.fit(responses, num_textons=5).num_textons == 5
    with pytest.raises(RequestError, match="num_textons is 70000; accepted: 1 to 65535"):
        TextonDictionary.fit(responses, num_textons=70_000)
