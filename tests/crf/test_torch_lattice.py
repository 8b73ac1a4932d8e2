"""The lattice in PyTorch: the vertices, weights and values of the compiled one, gradients, and sets of points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pixelwise.crf.lattice import Lattice
from pixelwise.crf.torch_lattice import CHUNK, TorchLattice, splatting
from pixelwise.errors import RequestError


def points(seed: int, *shape: int, spread: float = 3.0, dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = np.random.default_rng(seed).normal(size=shape) * spread
    return torch.from_numpy(drawn.astype(np.float32)).to(dtype)


def grid(height: int, width: int, step: float) -> Tensor:
    """Points on a grid: many lie where coordinates are equally far, and ranks tie."""
    y, x = torch.meshgrid(torch.arange(height) * step, torch.arange(width) * step, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1).float()


@pytest.mark.parametrize("features", [points(0, 300, d) for d in (1, 2, 5, 8)] + [grid(12, 15, 1 / 3)])
def test_it_is_the_compiled_lattice(features: Tensor) -> None:
    ours, theirs = TorchLattice(features), Lattice(features.numpy())
    assert ours.num_vertices == theirs.num_vertices
    np.testing.assert_allclose(ours.weights.numpy(), theirs.weights, atol=1e-6)
    # The numbers of the vertices differ, but not which points share one.
    pairs = {(int(a), int(b)) for a, b in zip(ours.ids.flatten(), theirs.ids.flatten(), strict=True)}
    assert len(pairs) == ours.num_vertices
    values = points(1, len(features), 3)
    for transposed in (False, True):
        found = ours.filter(values, transposed=transposed)
        np.testing.assert_allclose(
            found.numpy(), theirs.filter(values.numpy(), transposed=transposed), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 6])
def test_a_point_alone_sees_itself(d: int, dtype: torch.dtype) -> None:
    lattice = TorchLattice(torch.zeros(1, d, dtype=dtype))
    found = lattice.filter(torch.ones(1, 1, dtype=dtype))
    assert found.dtype == dtype
    assert found.item() == pytest.approx((1 + 2.0 ** -(d + 1)) / (1 + 2.0**-d), abs=2e-7)
    assert lattice.num_vertices == d + 1


def test_equal_points_share_their_vertices() -> None:
    lattice = TorchLattice(torch.full((70, 2), 0.3))
    assert lattice.num_vertices == 3
    alone = TorchLattice(torch.full((1, 2), 0.3)).norms
    torch.testing.assert_close(lattice.norms, 70 * alone.expand(70))


@pytest.mark.parametrize(("d", "centre", "corner"), [(2, 49.8627, 13.9316), (5, 29.5339, 8.9919)])
def test_norms_are_the_librarys_sums_over_a_picture(d: int, centre: float, corner: float) -> None:
    features = torch.full((3600, d), 100 / 13)  # a constant colour
    features[:, :2] = grid(60, 60, 1) / 3
    norms = TorchLattice(features).norms.view(60, 60)
    assert norms[30, 30] == pytest.approx(centre, abs=1e-3)
    assert norms[0, 0] == pytest.approx(corner, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), d=st.integers(1, 8), count=st.integers(1, 60))
def test_reversed_blur_is_the_transposed_filter(seed: int, d: int, count: int) -> None:
    lattice = TorchLattice(points(seed, count, d, dtype=torch.float64))
    assert lattice.weights.min() > -1e-12
    torch.testing.assert_close(lattice.weights.sum(dim=1), torch.ones(count, dtype=torch.float64))
    a, b = points(seed + 1, count, 2).double(), points(seed + 2, count, 2).double()
    torch.testing.assert_close((a * lattice.filter(b)).sum(), (lattice.filter(a, transposed=True) * b).sum())


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_are_right(transposed: bool) -> None:
    lattice = TorchLattice(points(0, 2, 6, 2, spread=1, dtype=torch.float64))
    values = points(1, 2, 6, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: lattice.filter(v, transposed=transposed), values)
    assert torch.autograd.gradgradcheck(lambda v: lattice.filter(v, transposed=transposed).square(), values)


def test_features_get_no_gradient() -> None:
    features = points(0, 5, 2).requires_grad_()
    assert not TorchLattice(features).filter(torch.ones(5, 1)).requires_grad


def test_each_set_is_filtered_by_itself() -> None:
    features, values = points(0, 3, 40, 2, spread=1), points(1, 3, 40, 2)
    features[2] = features[0]  # whose vertices are not the first set's, though they lie at the same places
    together = TorchLattice(features)
    singles = [TorchLattice(each) for each in features]
    assert together.num_vertices == sum(single.num_vertices for single in singles)
    wanted = torch.stack([single.filter(each) for single, each in zip(singles, values, strict=True)])
    torch.testing.assert_close(together.filter(values), wanted)
    torch.testing.assert_close(together.norms, torch.stack([single.norms for single in singles]))


def test_long_sums_are_cut() -> None:
    counts = torch.tensor([1, CHUNK, CHUNK + 1, 3, CHUNK**2 + CHUNK + 5])
    total = int(counts.sum())
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 50, total))
    weights, values = points(1, total).double(), points(2, 50, 2).double()
    steps = splatting(rows, weights, counts)
    assert len(steps) == 3
    found = values
    for step in steps:
        ends = torch.cat([step.starts[1:], torch.tensor([len(step.rows)])])
        assert 1 <= int((ends - step.starts).min()) <= int((ends - step.starts).max()) <= CHUNK
        found = step(found)
    owner = torch.repeat_interleave(counts)
    wanted = torch.zeros(5, 2, dtype=torch.float64).index_add_(0, owner, values[rows] * weights[:, None])
    torch.testing.assert_close(found, wanted)


def test_values_need_not_be_contiguous() -> None:
    lattice, values = TorchLattice(points(0, 30, 2)), points(1, 30, 4)
    torch.testing.assert_close(lattice.filter(values.T.contiguous().T), lattice.filter(values))
    torch.testing.assert_close(lattice.filter(values)[:, ::2], lattice.filter(values[:, ::2]))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(0, 2), r"features have shape \(0, 2\); accepted: \(N, d\) or \(B, N, d\)"),
        (torch.zeros(3, 9), r"features have shape \(3, 9\).* d from 1 to 8"),
        (torch.zeros(3), r"features have shape \(3,\)"),
        (torch.zeros(3, 2, dtype=torch.float16), "features have type float16; accepted: float32 and float64"),
        (torch.full((3, 2), torch.nan), "features hold NaN"),
        (torch.full((3, 5), 1e6), r"features reach 1e\+06 standard deviations; accepted for 5 features: about 1024"),
        (torch.full((3, 5), 1e30), r"features reach 1e\+30 standard deviations"),
    ],
)
def test_impossible_features(features: Tensor, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        TorchLattice(features)


def test_the_farthest_features_are_the_compiled_lattices() -> None:
    for reach in np.linspace(600, 1100, 26):
        features = np.full((1, 5), reach, dtype=np.float32)
        refused = []
        for build in (lambda each: TorchLattice(torch.from_numpy(each)), Lattice):
            try:
                build(features)
                refused.append(False)
            except RequestError:
                refused.append(True)
        assert refused[0] == refused[1], reach


@pytest.mark.parametrize(
    ("values", "given"),
    [
        (torch.ones(4, 1), r"\(4, 1\) and are float32 on cpu"),
        (torch.ones(5), r"\(5,\) and are float32 on cpu"),
        (torch.ones(5, 1, dtype=torch.float64), "float64 on cpu"),
        (torch.ones(5, 1, device="meta"), "float32 on meta"),
    ],
)
def test_values_of_another_kind(values: Tensor, given: str) -> None:
    with pytest.raises(RequestError, match=rf"values have shape .*{given}; accepted: \(5, C\), float32 on cpu"):
        TorchLattice(points(0, 5, 2)).filter(values)
