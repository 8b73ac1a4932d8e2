"""Mean field of `mean_field.py` in plain PyTorch: on any device, and for several images at once.

P. Krähenbühl, V. Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011,
https://arxiv.org/abs/1210.5644, algorithm 1. The lattices of all kernels stand in one table of values, so that a point
reads and writes its V vertices of all kernels at once; norms are part of the weights for reading and writing, gains and
compatibilities of the few vertices. An iteration is some twenty operations of fixed shapes, with new memory from
PyTorch's cache alone: nothing is read back from the device, and no shape depends on what the values are.

What bounds an iteration on a GPU: each point reads V rows of K values when slicing, and its own row is read V times
when splatting. At 500 x 375 with 21 labels and kernels of 2 and 5 features, V = 3 + 6, that is 2 x 187,500 x 9 x 84
bytes = 284 MB, nearly all from the second-level cache, since table and beliefs have 3.4 and 16 MB; main memory sees
arrays of the beliefs' size about six times, 95 MB. At the 3.3 TB/s of an H100's memory and about 5 TB/s of its cache
that is 0.1 ms; latency, one row being waited for after the other, makes it more. This has not been run on a GPU, and no
time is claimed for one.

Axes: N points, B images, P = B N points of all images, K labels, V vertices of a point over all kernels, M vertices of
all lattices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.crf.mean_field import ROOTS, TINY, Normalization
from pixelwise.crf.torch_lattice import TorchLattice, slicing, splatting
from pixelwise.errors import RequestError

Compatibility: TypeAlias = float | NDArray[np.floating] | Tensor


class TorchMeanField:
    """The kernels of the points of an image, or of each of a batch, made once, for any number of inferences.

    The counterpart of `mean_field.MeanField`, which explains the terms.

    Args:
        features: (N, d) or (B, N, d) of each kernel, d from 1 to 8, divided by its standard deviations; all float32 or
            all float64, on one device.
        normalizations: one for all kernels, or each kernel's; see `mean_field.Kernel`.

    Raises:
        RequestError: if features are not of the same points, a normalization is unknown, or `TorchLattice` refuses
            them.

    >>> field = TorchMeanField([torch.arange(4.0)[:, None]])
    >>> probabilities = torch.tensor([[0.9, 0.4, 0.9, 0.9], [0.1, 0.6, 0.1, 0.1]])
    >>> [int((field.infer(probabilities, [w], iterations=5)[1] > 0.5).sum()) for w in (0.0, 3.0)]
    [1, 0]
    """

    def __init__(
        self, features: Sequence[Tensor], normalizations: Normalization | Sequence[Normalization] = "symmetric"
    ) -> None:
        kinds = {(tuple(each.shape[:-1]), each.dtype, each.device) for each in features}
        if len(kinds) > 1:
            found = " and ".join(f"{shape} of {dtype} on {device}" for shape, dtype, device in sorted(kinds, key=str))
            raise RequestError(
                f"features have rows of {found}; accepted: the same for all kernels. Give features of the same points."
            )
        several = (normalizations,) * len(features) if isinstance(normalizations, str) else tuple(normalizations)
        if len(several) != len(features) or any(each not in ROOTS for each in several):
            raise RequestError(
                f"normalizations are {normalizations!r} for {len(features)} kernels; accepted: {', '.join(ROOTS)}. "
                "Give one for all kernels, or one for each."
            )
        lattices = [TorchLattice(each) for each in features]
        self._blurs = [lattice.blurs for lattice in lattices]
        self._gains = [lattice.gain for lattice in lattices]
        self._starts = np.cumsum([0, *(lattice.num_vertices for lattice in lattices)]).tolist()
        if lattices:
            self._join(lattices, several)

    def _join(self, lattices: Sequence[TorchLattice], normalizations: Sequence[Normalization]) -> None:
        """Let points read and write the vertices of all lattices at once, with their norms in the weights."""
        ids, read, points, write = [], [], [], []
        for lattice, normalization, start in zip(lattices, normalizations, self._starts, strict=False):
            to_read, to_write = ROOTS[normalization]
            norms = lattice.norms.reshape(-1, 1) if to_read or to_write else lattice.weights.new_ones(1, 1)
            inverse = 1 / (norms + TINY)  # (P, 1)
            ids.append(lattice.ids + start)
            read.append(lattice.weights * inverse ** (to_read / 2))
            points.append(lattice.entries // (lattice.d + 1))
            write.append((lattice.weights * inverse ** (to_write / 2)).flatten()[lattice.entries])
        counts = torch.cat([lattice.counts for lattice in lattices])
        self._slice = slicing(torch.cat(ids, dim=1), torch.cat(read, dim=1))  # (P, V)
        self._splats = splatting(torch.cat(points), torch.cat(write), counts)
        self._shape, self._kind = lattices[0].shape, _kind(lattices[0].weights)

    def infer(self, probabilities: Tensor, compatibilities: Sequence[Compatibility], *, iterations: int) -> Tensor:
        """Infer the beliefs of all points, without gradients.

        Args:
            probabilities: (K, N) or (B, K, N), positive, of the features' type and on their device; their negative
                logarithm is the unary energy.
            compatibilities: of each kernel: a number, (K,) or (K, K); see `mean_field.Kernel`.
            iterations: synchronous updates; 0 returns the normalised probabilities.

        Returns:
            Of the probabilities' shape, type and device, summing to 1 over the labels.
        """
        return next(self.infer_each(probabilities, compatibilities, iterations=(iterations,)))

    @torch.no_grad()
    def infer_each(
        self, probabilities: Tensor, compatibilities: Sequence[Compatibility], *, iterations: Sequence[int]
    ) -> Iterator[Tensor]:
        """Yield the beliefs after several numbers of iterations, all from one run.

        Args:
            probabilities: as `infer` takes them.
            compatibilities: of each kernel.
            iterations: each larger than the one before, from 0 on.

        Yields:
            A tensor of its own for each number of iterations, as `infer` returns them.
        """
        if not iterations or iterations[0] < 0 or any(b <= a for a, b in pairwise(iterations)):
            raise RequestError(
                f"iterations are {tuple(iterations)}; accepted: whole numbers from 0 on, each above the one before. "
                "Sort them."
            )
        self._check(probabilities, compatibilities)
        labels = probabilities.shape[-2]
        rows = probabilities.transpose(-1, -2)  # (B, N, K)
        beliefs = rows.reshape(-1, labels).contiguous()  # (P, K)
        unary = beliefs.log()
        beliefs = beliefs / beliefs.sum(dim=1, keepdim=True)
        factors = [_factor(given, gain, beliefs) for given, gain in zip(compatibilities, self._gains, strict=True)]
        table = beliefs.new_empty(self._starts[-1], labels)
        done = 0
        for count in iterations:
            for _ in range(done, count if factors else done):
                self._update(beliefs, unary, factors, table)
            done = count
            yield beliefs.view(rows.shape).transpose(-1, -2).clone(memory_format=torch.contiguous_format)

    def _update(self, beliefs: Tensor, unary: Tensor, factors: Sequence[Tensor], table: Tensor) -> None:
        """Do one iteration in place: beliefs and unary (P, K); each kernel's factor; room for values (M, K)."""
        values = beliefs
        for splat in self._splats:
            values = splat(values)  # (M, K), after the last
        for index, factor in enumerate(factors):
            own = slice(self._starts[index], self._starts[index + 1])
            blurred = values[own]
            for blur in self._blurs[index]:
                blurred = blur(blurred)
            if factor.ndim < 2:
                torch.mul(blurred, factor, out=table[own])
            else:
                torch.mm(blurred, factor.T, out=table[own])
        scores = self._slice(table)  # (P, K)
        scores += unary
        torch.softmax(scores, dim=1, out=beliefs)

    def _check(self, probabilities: Tensor, compatibilities: Sequence[Compatibility]) -> None:
        """Refuse what does not fit the kernels."""
        if len(compatibilities) != len(self._blurs):
            raise RequestError(
                f"there are {len(compatibilities)} compatibilities and {len(self._blurs)} kernels; accepted: one for "
                "each kernel. Give as many."
            )
        wanted = self._shape if self._blurs else (*probabilities.shape[:-2], *probabilities.shape[-1:])
        shape = tuple(probabilities.shape)
        if len(shape) not in (2, 3) or not shape[-2] or (*shape[:-2], shape[-1]) != wanted:
            sides = ", ".join(map(str, (*wanted[:-1], "K", *wanted[-1:])))
            raise RequestError(
                f"probabilities have shape {shape}; accepted for these points: ({sides}). Give one row for each label."
            )
        given = _kind(probabilities)
        if self._blurs and given != self._kind:
            raise RequestError(
                f"probabilities are {given}; accepted: {self._kind}, as the features. Convert or move them."
            )


def _kind(values: Tensor) -> str:
    return f"{values.dtype} on {values.device}"


def _factor(compatibility: Compatibility, gain: float, beliefs: Tensor) -> Tensor:
    """Return what blurred values are multiplied by: a number, a row (K,) or a matrix (K, K)."""
    factor = torch.as_tensor(compatibility, dtype=beliefs.dtype, device=beliefs.device)
    labels = beliefs.shape[1]
    if factor.shape not in ((), (labels,), (labels, labels)):
        raise RequestError(
            f"compatibility has shape {tuple(factor.shape)}; accepted: a number, ({labels},) or ({labels}, {labels}), "
            "one for each label. Give one of them."
        )
    return factor * gain
