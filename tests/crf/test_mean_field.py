"""Mean field: the beliefs of the authors' library, the exact twin, and what any such inference owes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.crf.dense import color_features, position_features
from pixelwise.crf.exact import exact_mean_field, gaussian_matrix
from pixelwise.crf.mean_field import FEWEST_POINTS, Kernel, MeanField, Normalization, mean_field
from pixelwise.errors import RequestError

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "crf" / "crf_240x180x5.npz"
Array = NDArray[np.float32]

NORMS: tuple[Normalization, ...] = ("symmetric", "after", "before", "none")


def toy() -> tuple[Array, list[Kernel]]:
    """Return probabilities (3, 30) and kernels of a picture of 6 x 5 pixels with three labels."""
    height, width, labels = 5, 6, 3
    y, x, c = np.mgrid[:height, :width, :3]
    image = (np.where(x < 3, 40, 200) + (5 * x + 7 * y + 11 * c) % 13).astype(np.uint8)
    label, y, x = np.mgrid[:labels, :height, :width]
    unary = 0.1 * ((3 * x + 5 * y + 7 * label) % 11) + 0.5 * ((label == 0) != (x < 3))
    return np.exp(-unary).reshape(labels, -1).astype(np.float32), kernels_of(image, "symmetric")


def kernels_of(image: NDArray[np.uint8], norm: Normalization) -> list[Kernel]:
    height, width = image.shape[:2]
    return [
        Kernel(features=position_features(height, width, 3), compatibility=3.0, normalization=norm),
        Kernel(features=color_features(image, 80, 13), compatibility=10.0, normalization=norm),
    ]


def with_norm(kernels: list[Kernel], norm: Normalization) -> list[Kernel]:
    return [
        Kernel(features=kernel.features, compatibility=kernel.compatibility, normalization=norm) for kernel in kernels
    ]


# Beliefs of pixels 0, 14 and 29 from the C++ library in pydensecrf (2723c7f); 1e-5 is its float32.
LIBRARY = {
    ("symmetric", 0): [[0.571258, 0.172060, 0.256683], [0.424779, 0.384356, 0.190865], [0.328933, 0.269307, 0.401760]],
    ("symmetric", 1): [[0.880847, 0.049329, 0.069824], [0.781645, 0.155526, 0.062830], [0.102683, 0.279854, 0.617463]],
    ("symmetric", 5): [[0.999986, 0.000003, 0.000011], [0.999972, 0.000008, 0.000020], [0.000033, 0.000011, 0.999956]],
    ("after", 1): [[0.888116, 0.046422, 0.065462], [0.786856, 0.152385, 0.060759], [0.090358, 0.270075, 0.639567]],
    ("before", 1): [[0.873773, 0.052135, 0.074092], [0.776990, 0.158204, 0.064806], [0.114855, 0.288020, 0.597125]],
    ("none", 1): [[0.999997, 0.000001, 0.000002], [0.999980, 0.000017, 0.000003], [0.000011, 0.030292, 0.969697]],
}
# The same by brute force.
EXACT = {
    ("symmetric", 1): [[0.884763, 0.048610, 0.066627], [0.790310, 0.149739, 0.059951], [0.094919, 0.276730, 0.628352]],
    ("after", 1): [[0.894074, 0.045197, 0.060729], [0.789136, 0.151444, 0.059420], [0.089701, 0.269476, 0.640822]],
    ("before", 1): [[0.875547, 0.051913, 0.072540], [0.791903, 0.147686, 0.060411], [0.099967, 0.283411, 0.616622]],
}


@pytest.mark.parametrize(("norm", "iterations"), LIBRARY)
def test_toy_beliefs_are_the_librarys(norm: Normalization, iterations: int) -> None:
    probabilities, kernels = toy()
    found = mean_field(probabilities, with_norm(kernels, norm), iterations=iterations)
    np.testing.assert_allclose(found[:, [0, 14, 29]].T, LIBRARY[norm, iterations], atol=2e-5)


@pytest.mark.parametrize(("norm", "iterations"), EXACT)
def test_exact_beliefs_are_brute_forces(norm: Normalization, iterations: int) -> None:
    probabilities, kernels = toy()
    found = exact_mean_field(probabilities, with_norm(kernels, norm), iterations=iterations)
    np.testing.assert_allclose(found[:, [0, 14, 29]].T, EXACT[norm, iterations], atol=1e-6)


@pytest.mark.parametrize("norm", ["symmetric", "after", "before"])
def test_the_lattice_is_near_the_exact_sums(norm: Normalization) -> None:
    probabilities, kernels = toy()
    kernels = with_norm(kernels, norm)
    fast, slow = (infer(probabilities, kernels, iterations=1) for infer in (mean_field, exact_mean_field))
    assert np.abs(fast - slow).max() < 0.02


@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden beliefs are not beside the checkout")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("norm", NORMS)
def test_photograph_beliefs_are_the_librarys(norm: Normalization, threads: int) -> None:
    golden = np.load(GOLDEN)
    probabilities = golden["prob_f16"].astype(np.float32)
    probabilities = np.clip(probabilities / probabilities.sum(axis=0), 1e-5, 1)
    labels, height, width = probabilities.shape
    for iterations in (1, 5, 10):
        found = mean_field(
            probabilities.reshape(labels, -1),
            kernels_of(golden["img"], norm),
            iterations=iterations,
            num_threads=threads,
        ).reshape(labels, height, width)
        error = np.abs(found - golden[f"Q_{norm}_{iterations}"])
        assert (error > 1e-4).mean() <= 1e-4
        assert error.max() < 1e-2
        assert (found.argmax(axis=0) == golden[f"map_{norm}_{iterations}"]).mean() > 0.999


def test_without_iterations_the_probabilities_come_back() -> None:
    probabilities, kernels = toy()
    wanted = probabilities / probabilities.sum(axis=0)
    np.testing.assert_allclose(mean_field(probabilities, kernels, iterations=0), wanted, atol=1e-6)
    np.testing.assert_allclose(mean_field(probabilities, [], iterations=3), wanted, atol=1e-6)


def test_compatibilities_of_weight_nothing_change_nothing() -> None:
    probabilities, kernels = toy()
    nothing = [Kernel(features=kernel.features, compatibility=0.0) for kernel in kernels]
    wanted = mean_field(probabilities, kernels, iterations=0)
    np.testing.assert_allclose(mean_field(probabilities, nothing, iterations=4), wanted, atol=1e-6)


@pytest.mark.parametrize("num_labels", [1, 2, 7, 8, 9, 21])
def test_number_vector_and_matrix_say_the_same(num_labels: int) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((num_labels, 60)).astype(np.float32) + 0.1
    features = rng.normal(size=(60, 2)).astype(np.float32)
    weight, ones = 2.5, np.eye(num_labels)
    given_as = (weight, np.full(num_labels, weight), weight * ones, weight * (ones - 1))
    found = [
        mean_field(probabilities, [Kernel(features=features, compatibility=each)], iterations=3) for each in given_as
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=2e-6)


def test_a_matrix_row_is_what_is_said_to_its_label() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.random((3, 12)).astype(np.float32) + 0.1
    matrix = rng.normal(size=(3, 3))
    features = np.zeros((12, 2), dtype=np.float32)  # all alike: the filter is known
    found = mean_field(probabilities, [Kernel(features=features, compatibility=matrix)], iterations=1)
    beliefs = probabilities / probabilities.sum(axis=0)
    scores = probabilities * np.exp(matrix @ beliefs.mean(axis=1))[:, None]
    np.testing.assert_allclose(found, scores / scores.sum(axis=0), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    labels=st.integers(1, 8),
    count=st.integers(1, 80),
    d=st.sampled_from((2, 5)),  # each number of features is compiled
    norm=st.sampled_from(NORMS),
)
def test_beliefs_are_probabilities_and_follow_the_labels(
    seed: int, labels: int, count: int, d: int, norm: Normalization
) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.random((labels, count)).astype(np.float32) + 1e-3
    kernel = Kernel(features=rng.normal(size=(count, d)).astype(np.float32), compatibility=1.5, normalization=norm)
    found = mean_field(probabilities, [kernel], iterations=3)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    order = rng.permutation(labels)
    turned = mean_field(np.ascontiguousarray(probabilities[order]), [kernel], iterations=3)
    np.testing.assert_allclose(turned, found[order], atol=1e-4)


def test_strong_weights_do_not_overflow() -> None:
    probabilities = np.array([[1.0, 1e-5], [1e-5, 1.0]], dtype=np.float32)
    kernel = Kernel(features=np.zeros((2, 2), dtype=np.float32), compatibility=-1e4, normalization="none")
    found = mean_field(probabilities, [kernel], iterations=2)
    assert np.isfinite(found).all()


def test_compatibility_of_another_size_is_refused() -> None:
    probabilities, kernels = toy()
    wrong = Kernel(features=kernels[0].features, compatibility=np.ones(4))
    with pytest.raises(RequestError, match=r"compatibility has shape \(4,\); accepted: a number, \(3,\) or \(3, 3\)"):
        mean_field(probabilities, [wrong], iterations=1)


def test_exact_matrix_counts_each_point_itself() -> None:
    matrix = gaussian_matrix(np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(matrix, [[1, np.exp(-0.5)], [np.exp(-0.5), 1]])


def test_one_field_serves_many_inferences() -> None:
    probabilities, kernels = toy()
    field = MeanField([kernel.features for kernel in kernels], "after")
    other = np.ascontiguousarray(probabilities[::-1])
    for maps, weights, iterations in (
        (probabilities, (3.0, 10.0), 2),
        (other, (1.0, 4.0), 1),
        (probabilities, (3.0, 10.0), 2),
    ):
        alone = [
            Kernel(features=kernel.features, compatibility=weight, normalization="after")
            for kernel, weight in zip(kernels, weights, strict=True)
        ]
        np.testing.assert_array_equal(
            field.infer(maps, weights, iterations=iterations), mean_field(maps, alone, iterations=iterations)
        )


def test_each_number_of_iterations_is_the_run_of_its_own() -> None:
    probabilities, kernels = toy()
    field = MeanField([kernel.features for kernel in kernels])
    found = list(field.infer_each(probabilities, (3.0, 10.0), iterations=(0, 1, 5)))
    for beliefs, iterations in zip(found, (0, 1, 5), strict=True):
        np.testing.assert_array_equal(beliefs, mean_field(probabilities, kernels, iterations=iterations))


def test_what_a_field_refuses() -> None:
    probabilities, kernels = toy()
    features = [kernel.features for kernel in kernels]
    field = MeanField(features)
    with pytest.raises(RequestError, match=r"features of kernel 1 have 29 points, there are 30; accepted: one row"):
        MeanField([features[0], features[1][:29]])
    with pytest.raises(RequestError, match=r"normalizations are 'both' for 2 kernels; accepted: none, before, after"):
        MeanField(features, "both")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"normalizations are \('after',\) for 2 kernels"):
        MeanField(features, ("after",))
    with pytest.raises(RequestError, match="there are 1 compatibilities and 2 kernels; accepted: one for each"):
        field.infer(probabilities, [3.0], iterations=1)
    with pytest.raises(RequestError, match=r"probabilities have shape \(3, 29\), there are 30 points"):
        field.infer(probabilities[:, :29], (3.0, 10.0), iterations=1)
    for iterations in ((5, 3), (-1,), ()):
        with pytest.raises(RequestError, match="accepted: whole numbers from 0 on, each above the one before"):
            next(field.infer_each(probabilities, (3.0, 10.0), iterations=iterations))


@pytest.mark.parametrize("norm", NORMS)
def test_other_normalizations_need_no_other_lattices(norm: Normalization) -> None:
    probabilities, kernels = toy()
    features = [kernel.features for kernel in kernels]
    wanted = MeanField(features, norm).infer(probabilities, (1.0, 2.0), iterations=3)
    for before in NORMS:
        field = MeanField(features, before)
        kept = field.infer(probabilities, (1.0, 2.0), iterations=3)
        found = field.with_normalizations(norm).infer(probabilities, (1.0, 2.0), iterations=3)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        np.testing.assert_array_equal(field.infer(probabilities, (1.0, 2.0), iterations=3), kept)


@pytest.mark.parametrize("count", [1, 7, 8, 67])
@pytest.mark.parametrize("norm", ["symmetric", "after"])
def test_a_tolerance_is_the_mean_divergence_of_an_iteration(norm: Normalization, count: int) -> None:
    rng = np.random.default_rng(count)
    probabilities = rng.random((5, count)).astype(np.float32) + 0.05
    field = MeanField([rng.normal(size=(count, 2)).astype(np.float32)], norm)
    steps = list(field.infer_each(probabilities, [2.0], iterations=range(8)))
    divergences = [float((b * np.log(b / a)).sum() / count) for a, b in pairwise(steps)]
    assert divergences == sorted(divergences, reverse=True)
    for number, divergence in enumerate(divergences[:5], start=1):
        found = field.infer(probabilities, [2.0], iterations=7, tolerance=divergence * 1.01)
        np.testing.assert_allclose(found, steps[number], atol=1e-6)
        later = field.infer(probabilities, [2.0], iterations=number, tolerance=divergence * 0.99)
        np.testing.assert_allclose(later, steps[number], atol=1e-6)
    with pytest.raises(RequestError, match="tolerance is nan; accepted: a number from 0 on, or None"):
        field.infer(probabilities, [2.0], iterations=1, tolerance=float("nan"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e-3])
def test_probabilities_that_are_none(value: float) -> None:
    probabilities, kernels = toy()
    probabilities[1, 7] = value
    with pytest.raises(RequestError, match=r"probabilities go from .*; accepted: positive, finite numbers"):
        mean_field(probabilities, kernels, iterations=1)


@pytest.mark.parametrize("lattices", [1, 2])
def test_threads_agree_and_each_number_of_them_repeats_itself(lattices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    count = 3 * FEWEST_POINTS + 5
    probabilities = rng.random((9, count)).astype(np.float32) + 0.1
    features = [rng.normal(size=(count, d)).astype(np.float32) * 3 for d in (5, 2)[:lattices]]
    weights = [np.float32(2), rng.normal(size=(9, 9))][:lattices]
    alone = MeanField(features, num_threads=1).infer(probabilities, weights, iterations=4, num_threads=1)
    for many in (0, 1 << 30):  # threads share axes, or lattices
        monkeypatch.setattr("pixelwise.crf.inference.MANY_VALUES", many)
        for threads in (2, 3):
            field = MeanField(features, num_threads=threads)
            found = [field.infer(probabilities, weights, iterations=4, num_threads=threads) for _ in range(2)]
            np.testing.assert_array_equal(found[0], found[1])
            np.testing.assert_allclose(found[0], alone, atol=1e-5)


def test_threads_may_share_a_field() -> None:
    probabilities, kernels = toy()
    field = MeanField([kernel.features for kernel in kernels])
    given = [np.ascontiguousarray(np.roll(probabilities, index, axis=0)) for index in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: field.infer(each, (3.0, 10.0), iterations=5), given))
    for each, beliefs in zip(given, found, strict=True):
        np.testing.assert_array_equal(beliefs, field.infer(each, (3.0, 10.0), iterations=5))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    labels=st.integers(1, 11),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    norm=st.sampled_from(("symmetric", "after", "before")),
    iterations=st.integers(0, 2),
)
def test_images_of_any_shape_are_near_the_exact_sums(
    seed: int, labels: int, size: tuple[int, int], norm: Normalization, iterations: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    probabilities = rng.random((labels, size[0] * size[1])).astype(np.float32) + 0.2
    kernels = [
        Kernel(features=position_features(*size, 3), compatibility=0.7, normalization=norm),
        Kernel(features=color_features(image, 30, 40), compatibility=0.7, normalization=norm),
    ]
    fast, slow = (infer(probabilities, kernels, iterations=iterations) for infer in (mean_field, exact_mean_field))
    assert np.abs(fast - slow).max() < 0.05
