"""The average of the weights over the last iterations.

Between two iterations a network trained on small batches changes more than it improves, and the mean over a stretch
of them is better than any one.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

SHARE = 0.1  # of a run: averages are those of its last tenth, ...
MOST = 100  # ... and never of more iterations than these


def window(iteration: int, iterations: int, *, fewest: int) -> float:
    """Return the number of iterations that are averaged after `iteration` (from 0) of so many, all of them at first.

    >>> [window(i, 500, fewest=1) for i in (0, 9, 499)], window(4999, 5000, fewest=1), window(49, 50, fewest=10)
    ([1, 10, 50.0], 100, 10)
    """
    return min(max(SHARE * iterations, fewest), MOST, iteration + 1)


class Average:
    """The exponential moving average of a model's weights (Polyak and Juditsky 1992), with its latest buffers.

    Attributes:
        model: the averaged model; what is validated and kept as the best.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, iteration: int, iterations: int) -> None:
        """Take in the weights after `iteration` (from 0)."""
        weight = 1 / window(iteration, iterations, fewest=1)
        for mean, parameter in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.lerp_(parameter, weight)
        for buffer, latest in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(latest)
