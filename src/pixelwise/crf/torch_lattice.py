"""The permutohedral lattice of `lattice.py` in plain PyTorch: on any device, in float32 or float64, with gradients.

A. Adams, J. Baek, A. Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010.

Vertices are found by sorting their packed keys instead of hashing them, and every step of a filtering is a gather:
splatting sums the points of each vertex, blurring a vertex and its two neighbours, slicing the vertices of each point.
`Sums` does all three with `embedding_bag`, one kernel each, without a table of products in between. Nothing is
scattered with atomics, whose order, and so the last digits, would change from run to run on a GPU; nor are sparse
matrix products taken, whose order is the vendor's library's choice. Both are slower on the CPU: on one thread, for 21
channels on both lattices of the usual CRF at 500 x 375, splatting took 25 ms, as a sparse product 53 ms, with
`index_add_` 324 ms; slicing took 10, 49 and, by indexing, 713 ms (`benchmarks/dense_crf_gpu.py --forms`). None of this
has been run on a GPU yet.

Axes: N points, d features, R = d + 1 vertices of a simplex, B sets of points, P = B N points of all sets, M vertices of
all lattices, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.crf.lattice import MOST_FEATURES
from pixelwise.crf.loops import embedding, layout
from pixelwise.errors import RequestError

CHUNK = 32  # rows that are added up one after the other; longer sums are cut and shared out
DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Sums:
    """Weighted sums of rows of a table: a sparse matrix, row by row, times the table.

    On a GPU, one thread makes one sum for one channel, in the order of its rows: the same digits in every run.

    Attributes:
        rows: int32 or int64 (E,), rows of the table, those of one sum after the other.
        starts: the same type (S,), where each sum's rows begin; none is empty.
        weights: float (E,); None counts every row once.
    """

    rows: Tensor
    starts: Tensor
    weights: Tensor | None = None

    def __call__(self, table: Tensor) -> Tensor:
        """Return the sums (S, C) of a table (rows, C)."""
        return F.embedding_bag(self.rows, table, self.starts, mode="sum", per_sample_weights=self.weights)


class TorchLattice:
    """The lattice of a set of points, built once and used for any number of filterings.

    Building reads a few numbers back from the device; filtering reads none, so that nothing waits.

    Args:
        features: float32 or float64 (N, d), d from 1 to 8, divided by the kernel's standard deviations; or (B, N, d),
            of which each set is filtered by itself. No gradient reaches them.

    Attributes:
        num_vertices: M.
        ids: (P, R), the vertices around each point.
        weights: (P, R), how much each counts; summing to 1.
        entries: (P R,), the entries of `ids`, counted in reading order, vertex by vertex.
        counts: int64 (M,), how many entries each vertex has.
        splats: from values of points (P, C) to vertices (M, C), one after the other.
        blurs: of values of vertices along each of the R axes, in the order of the filter.
        slice: from vertices to points.

    Raises:
        RequestError: if the features have another shape or type, are not finite, or lie so far apart that their lattice
            cannot be numbered.

    >>> lattice = TorchLattice(torch.zeros(1, 2))
    >>> lattice.filter(torch.ones(1, 1))
    tensor([[0.9000]])
    """

    def __init__(self, features: Tensor) -> None:
        _check(features)
        self.shape, self.d = tuple(features.shape[:-1]), features.shape[-1]
        keys, self.weights = _embed(features.detach().reshape(-1, self.d))
        packed, vertices = _number(keys, math.prod(self.shape[:-1]))
        self.num_vertices = len(vertices.values)
        self.entries, self.counts = vertices.order, vertices.counts
        self.splats = splatting(self.entries // (self.d + 1), self.weights.flatten()[self.entries], self.counts)
        self.blurs = _blurring(packed, vertices.values, self.d, self.weights.dtype)
        self.slice = slicing(vertices.ids.view_as(keys), self.weights)
        self.ids = self.slice.rows.view_as(keys)

    @property
    def gain(self) -> float:
        """Factor that the slicing is multiplied by: 1 / (1 + 2^-d)."""
        return 1 / (1 + math.pow(2, -self.d))

    @property
    def norms(self) -> Tensor:
        """What the filter makes of ones, (N,) or (B, N): the sum of the kernel over all points, for each of them."""
        return self.filter(self.weights.new_ones(*self.shape, 1))[..., 0]

    def filter(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """Filter values of the points. Their gradient is the transposed filter of the result's; nothing is kept for it.

        Args:
            values: (N, C), or (B, N, C) where the features had sets; of the features' type and on their device.
            transposed: blur along the axes in the reverse order, which is the transposed filter.

        Returns:
            Of the values' shape.

        Raises:
            RequestError: if shape, type or device do not fit.
        """
        own, given = (f"{_name(each.dtype)} on {each.device}" for each in (self.weights, values))
        if values.ndim != len(self.shape) + 1 or values.shape[:-1] != self.shape or given != own:
            wanted = ", ".join(map(str, self.shape))
            raise RequestError(
                f"values have shape {tuple(values.shape)} and are {given}; accepted: ({wanted}, C), {own}, as the "
                "features. Give one row per point, of that type and there."
            )
        flat = values.reshape(-1, values.shape[-1])  # (P, C)
        return cast(Tensor, _Filter.apply(flat, self, transposed)).view_as(values)

    def filter_points(self, values: Tensor, transposed: bool) -> Tensor:
        """Filter values (P, C) of the points of all sets, without gradients."""
        table = values
        for splat in self.splats:
            table = splat(table)  # (M, C), after the last
        for blur in reversed(self.blurs) if transposed else self.blurs:
            table = blur(table)
        return self.slice(table.mul_(self.gain))  # (P, C)


class _Filter(torch.autograd.Function):
    """The filter, whose derivative is the transposed filter."""

    @staticmethod
    def forward(context: Any, values: Tensor, lattice: TorchLattice, transposed: bool) -> Tensor:
        context.lattice, context.transposed = lattice, transposed
        return lattice.filter_points(values, transposed)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        turned = _Filter.apply(gradients[0], context.lattice, not context.transposed)
        return cast(Tensor, turned), None, None


def slicing(ids: Tensor, weights: Tensor) -> Sums:
    """Return how points read their vertices: ids and weights (P, V)."""
    rows = ids.flatten()
    return Sums(*_indices(rows, torch.arange(0, len(rows), ids.shape[1], device=ids.device)), weights.flatten())


def splatting(points: Tensor, weights: Tensor, counts: Tensor) -> list[Sums]:
    """Return how vertices sum their points, one step after the other.

    A vertex of a large plain surface has tens of thousands of points. Steps of `CHUNK` rows, then of `CHUNK` of such
    sums, share them out, and keep the digits that one long sum would lose.

    Args:
        points: int64 (E,), those of one vertex after the other.
        weights: float (E,).
        counts: int64 (M,), points of each vertex, from 1.
    """
    steps: list[Sums] = []
    longest, total = int(counts.max()), len(points)
    while True:
        starts = counts.cumsum(0) - counts
        if longest > CHUNK:
            counts = (counts + CHUNK - 1) // CHUNK  # pieces of each vertex
            owner = torch.repeat_interleave(counts)
            piece = torch.arange(len(owner), device=points.device) - (counts.cumsum(0) - counts)[owner]
            starts = starts[owner] + CHUNK * piece
        rows = torch.arange(total, device=points.device) if steps else points
        steps.append(Sums(*_indices(rows, starts), None if steps else weights))
        if longest <= CHUNK:
            return steps
        longest, total = -(-longest // CHUNK), len(starts)


def _indices(rows: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in 32 bits where those suffice."""
    kind = torch.int32 if rows.numel() < 2**31 else torch.int64
    return rows.to(kind), starts.to(kind)


class _Runs(NamedTuple):
    """The distinct values among many, ascending, and who has them."""

    values: Tensor  # int64 (M,)
    ids: Tensor  # int64 (E,), the place of each entry's value in them
    order: Tensor  # int64 (E,), the entries by value, then by place
    counts: Tensor  # int64 (M,)


def _runs(entries: Tensor) -> _Runs:
    """Find the distinct values of int64 (E,)."""
    ascending, order = torch.sort(entries, stable=True)
    new = torch.ones_like(ascending, dtype=torch.bool)
    torch.ne(ascending[1:], ascending[:-1], out=new[1:])
    starts = new.nonzero()[:, 0]
    ids = torch.empty_like(order).scatter_(0, order, new.cumsum(0) - 1)
    return _Runs(ascending[starts], ids, order, torch.diff(starts, append=starts.new_tensor([len(entries)])))


def _embed(features: Tensor) -> tuple[Tensor, Tensor]:
    """Find the simplex of each point of (P, d): its vertices, packed as in `loops.py`, int64 (P, R), and their weights.

    Every operation is that of `loops.embed`, on all points at once; where that goes by coordinates, this goes by ranks.
    """
    d, device = features.shape[1], features.device
    scale, steps, limit = embedding(d)
    scaled = features * torch.as_tensor(scale, dtype=features.dtype, device=device)
    total, elevated = torch.zeros_like(scaled[:, 0]), []
    for j in range(d, 0, -1):
        elevated.append(torch.sub(total, scaled[:, j - 1], alpha=j))
        total = total + scaled[:, j - 1]
    corner = torch.stack([total, *reversed(elevated)], dim=1)  # (P, R)
    nearest = torch.round(corner * (1 / (d + 1)))
    distance, by_rank = torch.sort(corner - nearest * (d + 1), dim=1, descending=True, stable=True)
    whole = nearest.long()
    excess = whole.sum(dim=1, keepdim=True)
    places = torch.arange(d + 1, device=device)
    wrap = (places + excess < 0).long() - (places + excess > d).long()
    quotients = whole.gather(1, by_rank) + wrap
    if max(float(nearest.abs().max()), float(quotients.abs().max())) > limit:
        raise RequestError(
            f"features reach {float(features.abs().max()):.4g} standard deviations; accepted for {d} features: about "
            f"{(limit + 2) / 2:.4g}. Give larger standard deviations."
        )
    coordinate_steps = torch.as_tensor(steps, device=device)
    first = ((quotients + (limit + 2)) * coordinate_steps[by_rank]).sum(dim=1, keepdim=True)
    turned = (d - places - excess).remainder(d + 1)  # from the last rank to the first
    moves = 1 - coordinate_steps[by_rank.gather(1, turned)[:, :d]]
    keys = torch.cat([first, first + moves.cumsum(dim=1)], dim=1)
    upper = (distance - wrap * (d + 1)).gather(1, turned) * (1 / (d + 1))
    lower = upper.roll(1, dims=1)
    upper[:, 0] += 1
    return keys, upper - lower


def _number(keys: Tensor, groups: int) -> tuple[Tensor, _Runs]:
    """Number the vertices of all sets of points.

    Returns:
        Packed vertices, int64 (U,), without repetition, ascending; the vertices of all sets, whose value is the place
        of their packed vertex in these, plus U for each set before.
    """
    packed, ids, order, counts = _runs(keys.flatten())
    if groups == 1:
        return packed, _Runs(torch.arange(len(packed), device=keys.device), ids, order, counts)
    own = torch.arange(groups, device=keys.device).repeat_interleave(len(ids) // groups) * len(packed)
    return packed, _runs(ids + own)


def _blurring(packed: Tensor, vertices: Tensor, d: int, dtype: torch.dtype) -> list[Sums]:
    """Return how vertices are blurred along each axis: itself, and half of both neighbours, where there are any.

    Along axis j a vertex's neighbour below has every coordinate one less, and coordinate j d more; see `lattice.py`.
    """
    r_bits, q_bits = layout(d)
    steps = torch.as_tensor(embedding(d)[1], device=packed.device)[:, None]  # (R, 1)
    every = sum(1 << (r_bits + q_bits * j) for j in range(d))
    keys = packed[vertices % len(packed)]
    remainder = keys & ((1 << r_bits) - 1)
    below = torch.where(remainder == 0, keys + (d - every), keys - 1) + steps
    above = torch.where(remainder == d, keys - (d - every), keys + 1) - steps
    wanted = torch.stack([below, above], dim=-1)  # (R, M, 2)
    neighbours, there = _find(wanted, packed, vertices[:, None])
    own = torch.arange(len(keys), device=keys.device)
    alone = own.expand(d + 1, -1)[..., None]  # (R, M, 1)
    rows = torch.cat([alone, torch.where(there, neighbours, alone)], dim=-1)  # (R, M, 3)
    weights = torch.cat([torch.ones_like(alone, dtype=dtype), 0.5 * there.to(dtype)], dim=-1)
    rows, starts = _indices(rows.flatten(1), 3 * own)
    return [Sums(rows[axis], starts, weights[axis].flatten()) for axis in range(d + 1)]


def _find(wanted: Tensor, packed: Tensor, vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Find wanted neighbours, int64 (R, M, 2), of vertices (M, 1), each in its set: their numbers, and who is there."""
    place = torch.searchsorted(packed, wanted).clamp_(max=len(packed) - 1)
    there = packed[place] == wanted
    place += vertices - vertices % len(packed)  # in its own set
    number = torch.searchsorted(vertices[:, 0], place).clamp_(max=len(vertices) - 1)
    return number, there & (vertices[number, 0] == place)


def _check(features: Tensor) -> None:
    """Refuse features that are none."""
    shape = tuple(features.shape)
    if features.ndim not in (2, 3) or not 1 <= shape[-1] <= MOST_FEATURES or not features.numel():
        raise RequestError(
            f"features have shape {shape}; accepted: (N, d) or (B, N, d) with B and N from 1 and d from 1 to "
            f"{MOST_FEATURES}. Give one row per point."
        )
    if features.dtype not in DTYPES:
        raise RequestError(
            f"features have type {_name(features.dtype)}; accepted: {' and '.join(map(_name, DTYPES))}. Convert them."
        )
    if not bool(features.isfinite().all()):
        raise RequestError("features hold NaN or infinite values; accepted: finite numbers. Remove or replace them.")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
