"""The authors' library's divergence: its own numbers, and the definition by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from pixelwise.crf.divergence import kl_divergence
from pixelwise.crf.exact import gaussian_matrix
from pixelwise.crf.mean_field import MeanField, Normalization
from pixelwise.errors import RequestError

from .test_mean_field import GOLDEN, NORMS, kernels_of, toy

WEIGHTS = (3.0, 10.0)


def test_toy_divergences_are_the_librarys() -> None:
    """`klDivergence` of the C++ library in pydensecrf (2723c7f) after 0, 1 and 5 iterations; 1e-3 is its print."""
    probabilities, kernels = toy()
    field = MeanField([kernel.features for kernel in kernels])
    found = [
        kl_divergence(field, probabilities, beliefs, WEIGHTS)
        for beliefs in field.infer_each(probabilities, WEIGHTS, iterations=(0, 1, 5))
    ]
    np.testing.assert_allclose(found, [-148.042, -214.278, -338.608], atol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden beliefs are not beside the checkout")
@pytest.mark.parametrize("norm", NORMS)
def test_photograph_divergences_are_the_librarys(norm: Normalization) -> None:
    golden = np.load(GOLDEN)
    given = golden["prob_f16"].astype(np.float32)
    probabilities = np.clip(given / given.sum(axis=0), 1e-5, 1).reshape(len(given), -1)
    field = MeanField([kernel.features for kernel in kernels_of(golden["img"], norm)], norm)
    found = [
        kl_divergence(field, probabilities, beliefs, WEIGHTS)
        for beliefs in field.infer_each(probabilities, WEIGHTS, iterations=range(11))
    ]
    np.testing.assert_allclose(found, golden[f"KL_{norm}"], rtol=1e-4)  # the library adds in float32


@pytest.mark.parametrize("norm", NORMS)
def test_a_filter_is_the_normalised_gaussian_about(norm: Normalization) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 2)).astype(np.float32)
    field, values = MeanField([features], norm), rng.random((200, 3)).astype(np.float32)
    matrix = gaussian_matrix(features)
    n = matrix.sum(axis=1, keepdims=True)
    wanted = {
        "none": matrix @ values,
        "before": matrix @ (values / n),
        "after": (matrix @ values) / n,
        "symmetric": (matrix @ (values / np.sqrt(n))) / np.sqrt(n),
    }[norm]
    assert np.abs(field.filter(0, values) - wanted).max() < 0.25 * wanted.max()  # the lattice of so few points is rough


def test_a_compatibility_is_a_number_a_row_or_a_matrix() -> None:
    probabilities, kernels = toy()
    field = MeanField([kernel.features for kernel in kernels])
    beliefs = field.infer(probabilities, WEIGHTS, iterations=2)
    wanted = kl_divergence(field, probabilities, beliefs, WEIGHTS)
    for given in (np.full(3, 10.0), 10.0 * np.eye(3)):
        assert kl_divergence(field, probabilities, beliefs, (3.0, given)) == pytest.approx(wanted)


def test_beliefs_of_other_points_are_refused() -> None:
    probabilities, kernels = toy()
    field = MeanField([kernel.features for kernel in kernels])
    with pytest.raises(RequestError, match=r"beliefs \(3, 29\), there are 30 points; accepted: \(K, 30\) both"):
        kl_divergence(field, probabilities, probabilities[:, :29], WEIGHTS)
