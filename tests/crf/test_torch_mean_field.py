"""Mean field in PyTorch: the beliefs of the authors' library and of the compiled loops, batches, and wrong inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pixelwise.crf.exact import exact_mean_field
from pixelwise.crf.mean_field import Kernel, MeanField, Normalization
from pixelwise.crf.torch_dense import pixel_features
from pixelwise.crf.torch_lattice import Sums
from pixelwise.crf.torch_mean_field import TorchMeanField
from pixelwise.errors import RequestError

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "crf" / "crf_240x180x5.npz"
NORMS: tuple[Normalization, ...] = ("symmetric", "after", "before", "none")


def toy() -> tuple[Tensor, list[Tensor]]:
    """Return probabilities (3, 30) and features of both kernels of a picture of 6 x 5 pixels with three labels."""
    y, x, c = np.mgrid[:5, :6, :3]
    image = torch.from_numpy((np.where(x < 3, 40, 200) + (5 * x + 7 * y + 11 * c) % 13).astype(np.uint8))
    label, y, x = np.mgrid[:3, :5, :6]
    unary = 0.1 * ((3 * x + 5 * y + 7 * label) % 11) + 0.5 * ((label == 0) != (x < 3))
    probabilities = torch.from_numpy(np.exp(-unary).reshape(3, -1).astype(np.float32))
    return probabilities, [pixel_features(image, 3), pixel_features(image, 80, 13)]


@pytest.mark.parametrize(
    ("norm", "wanted"),
    [
        ("symmetric", [[0.602659, 0.158196, 0.239145], [0.435217, 0.376259, 0.188524]]),
        ("none", [[0.701276, 0.117638, 0.181086], [0.556152, 0.284948, 0.158900]]),
    ],
)
def test_toy_beliefs_are_the_librarys(norm: Normalization, wanted: list[list[float]]) -> None:
    """Pixels 0 and 14 after 5 iterations of the C++ library in pydensecrf (2723c7f), whose float32 is good to 1e-5."""
    probabilities, (positions, _) = toy()
    found = TorchMeanField([positions * 3], norm).infer(probabilities, [0.5], iterations=5)
    np.testing.assert_allclose(found[:, [0, 14]].T, wanted, atol=2e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_toy_beliefs_are_the_compiled_loops(norm: Normalization) -> None:
    probabilities, features = toy()
    compiled = MeanField([each.numpy() for each in features], norm)
    field = TorchMeanField(features, norm)
    for iterations in (0, 1, 5):
        wanted = compiled.infer(probabilities.numpy(), [3.0, 10.0], iterations=iterations)
        found = field.infer(probabilities, [3.0, 10.0], iterations=iterations)
        np.testing.assert_allclose(found.numpy(), wanted, atol=2e-5)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden beliefs are not beside the checkout")
@pytest.mark.parametrize("norm", NORMS)
def test_photograph_beliefs_are_the_librarys(norm: Normalization) -> None:
    golden = np.load(GOLDEN)
    probabilities = golden["prob_f16"].astype(np.float32)
    probabilities = np.clip(probabilities / probabilities.sum(axis=0), 1e-5, 1)
    image = torch.from_numpy(golden["img"])
    field = TorchMeanField([pixel_features(image, 3), pixel_features(image, 80, 13)], norm)
    steps = (1, 5, 10)
    given_maps = torch.from_numpy(probabilities).flatten(1)
    for iterations, beliefs in zip(steps, field.infer_each(given_maps, [3.0, 10.0], iterations=steps), strict=True):
        found = beliefs.view(probabilities.shape).numpy()
        error = np.abs(found - golden[f"Q_{norm}_{iterations}"])
        assert (error > 1e-4).mean() <= 1e-4
        assert error.max() < 1e-2
        assert (found.argmax(axis=0) == golden[f"map_{norm}_{iterations}"]).mean() > 0.999


def compatibility(rng: np.random.Generator, kind: str, labels: int) -> Any:
    return {
        "number": 2.5,
        "vector": rng.normal(size=labels).astype(np.float32),
        "matrix": rng.normal(size=(labels, labels)).astype(np.float32),
    }[kind]


@pytest.mark.parametrize("labels", [1, 2, 21])
@pytest.mark.parametrize("kind", ["number", "vector", "matrix"])
@pytest.mark.parametrize("norm", NORMS)
def test_beliefs_are_the_compiled_loops(norm: Normalization, kind: str, labels: int) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((labels, 150)).astype(np.float32) + 0.1
    features = [rng.normal(size=(150, d)).astype(np.float32) for d in (2, 5)]
    given_as = [compatibility(rng, kind, labels), 1.5]
    if norm == "none":  # whose sums are large
        given_as = [0.1 * each for each in given_as]
    wanted = MeanField(features, norm).infer(probabilities, given_as, iterations=4)
    field = TorchMeanField([torch.from_numpy(each) for each in features], norm)
    found = field.infer(torch.from_numpy(probabilities), given_as, iterations=4)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4)


def test_kernels_may_be_normalised_differently_and_in_float64() -> None:
    probabilities, features = toy()
    norms: tuple[Normalization, ...] = ("after", "symmetric")
    wanted = MeanField([each.numpy() for each in features], norms).infer(
        probabilities.numpy(), [3.0, 10.0], iterations=5
    )
    double = TorchMeanField([each.double() for each in features], norms)
    found = double.infer(probabilities.double(), [3.0, torch.eye(3) * 10], iterations=5)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_it_is_near_the_exact_sums() -> None:
    probabilities, features = toy()
    kernels = [
        Kernel(features=each.numpy(), compatibility=weight) for each, weight in zip(features, (3.0, 10.0), strict=True)
    ]
    wanted = exact_mean_field(probabilities.numpy(), kernels, iterations=1)
    found = TorchMeanField(features).infer(probabilities, [3.0, 10.0], iterations=1)
    assert np.abs(found.numpy() - wanted).max() < 0.02


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), batch=st.integers(1, 3), count=st.integers(1, 40), norm=st.sampled_from(NORMS))
def test_images_of_a_batch_do_not_know_each_other(seed: int, batch: int, count: int, norm: Normalization) -> None:
    rng = np.random.default_rng(seed)
    probabilities = torch.from_numpy(rng.random((batch, 3, count)).astype(np.float32) + 1e-3)
    features = [torch.from_numpy(rng.normal(size=(batch, count, d)).astype(np.float32)) for d in (2, 3)]
    together = TorchMeanField(features, norm).infer(probabilities, [1.5, 0.5], iterations=3)
    torch.testing.assert_close(together.sum(dim=1), torch.ones(batch, count))
    for index in range(batch):
        alone = TorchMeanField([each[index] for each in features], norm)
        found = alone.infer(probabilities[index], [1.5, 0.5], iterations=3)
        torch.testing.assert_close(found, together[index], atol=1e-5, rtol=1e-4)


def test_without_iterations_or_kernels_the_probabilities_come_back() -> None:
    probabilities, features = toy()
    before = probabilities.clone()
    wanted = probabilities / probabilities.sum(dim=0)
    torch.testing.assert_close(TorchMeanField(features).infer(probabilities, [3, 10], iterations=0), wanted)
    torch.testing.assert_close(TorchMeanField([]).infer(probabilities, [], iterations=3), wanted)
    torch.testing.assert_close(TorchMeanField(features).infer(probabilities, [0, 0], iterations=3), wanted)
    torch.testing.assert_close(probabilities, before)


def test_beliefs_on_the_way_are_those_of_fewer_iterations() -> None:
    probabilities, features = toy()
    field = TorchMeanField(features)
    on_the_way = list(field.infer_each(probabilities, [3.0, 10.0], iterations=(0, 1, 4)))
    for count, found in zip((0, 1, 4), on_the_way, strict=True):
        torch.testing.assert_close(found, field.infer(probabilities, [3.0, 10.0], iterations=count))


def test_inference_repeats_to_the_bit_and_keeps_no_gradient() -> None:
    probabilities, features = toy()
    field = TorchMeanField(features)
    first = field.infer(probabilities.requires_grad_(), [3.0, 10.0], iterations=5)
    assert not first.requires_grad
    assert torch.equal(first, field.infer(probabilities, [3.0, 10.0], iterations=5))


def test_an_iteration_reads_nothing_back_from_a_gpu() -> None:
    """Tensors without values stand for a GPU's: whatever asks for a value, or mixes devices, raises."""
    field = TorchMeanField(toy()[1])
    mode = FakeTensorMode()

    def moved(sums: Sums) -> Sums:
        rows, starts, weights = (
            each if each is None else torch.empty(each.shape, dtype=each.dtype, device="cuda")
            for each in (sums.rows, sums.starts, sums.weights)
        )
        assert rows is not None
        assert starts is not None
        return Sums(rows, starts, weights)

    with mode:
        field._splats = [moved(each) for each in field._splats]
        field._blurs = [[moved(each) for each in blurs] for blurs in field._blurs]
        field._slice, field._kind = moved(field._slice), "torch.float32 on cuda:0"
        compatibilities = [3.0, torch.empty(3, 3, device="cuda")]
        found = field.infer(torch.empty(3, 30, device="cuda"), compatibilities, iterations=2)
    assert found.device.type == "cuda"
    assert found.shape == (3, 30)


def test_strong_weights_do_not_overflow() -> None:
    probabilities = torch.tensor([[1.0, 1e-5], [1e-5, 1.0]])
    found = TorchMeanField([torch.zeros(2, 2)], "none").infer(probabilities, [-1e4], iterations=2)
    assert bool(found.isfinite().all())


def test_kernels_of_other_points_are_refused() -> None:
    with pytest.raises(RequestError, match=r"rows of \(3,\) of torch.float32 on cpu and \(4,\) of .*same points"):
        TorchMeanField([torch.zeros(3, 2), torch.zeros(4, 2)])
    with pytest.raises(RequestError, match=r"'both' for 1 kernels; accepted: none, before, after, symmetric"):
        TorchMeanField([torch.zeros(3, 2)], "both")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("probabilities", "compatibilities", "iterations", "message"),
    [
        (torch.ones(3, 30), [1.0], (1,), "there are 1 compatibilities and 2 kernels"),
        (torch.ones(3, 30), [1.0, np.ones(4)], (1,), r"shape \(4,\); accepted: a number, \(3,\) or \(3, 3\)"),
        (torch.ones(3, 29), [1.0, 1.0], (1,), r"shape \(3, 29\); accepted for these points: \(K, 30\)"),
        (torch.ones(2, 3, 30), [1.0, 1.0], (1,), r"shape \(2, 3, 30\); accepted for these points: \(K, 30\)"),
        (torch.ones(0, 30), [1.0, 1.0], (1,), r"shape \(0, 30\)"),
        (torch.ones(3, 30).double(), [1.0, 1.0], (1,), "are torch.float64 on cpu; accepted: torch.float32 on cpu"),
        (torch.ones(3, 30, device="meta"), [1.0, 1.0], (1,), "are torch.float32 on meta; accepted: torch.float32 on c"),
        (torch.ones(3, 30), [1.0, 1.0], (2, 1), r"iterations are \(2, 1\); accepted: whole numbers"),
        (torch.ones(3, 30), [1.0, 1.0], (), r"iterations are \(\)"),
    ],
)
def test_what_does_not_fit_the_kernels(
    probabilities: Tensor, compatibilities: list[float | NDArray[Any]], iterations: tuple[int, ...], message: str
) -> None:
    field = TorchMeanField(toy()[1])
    with pytest.raises(RequestError, match=message):
        next(field.infer_each(probabilities, compatibilities, iterations=iterations))
