"""Two runs of one configuration on one machine end in the same bits, or an operation that could differ is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pixelwise.engine.config import NetworkConfig
from pixelwise.errors import RequestError


def check_deterministic(config: NetworkConfig) -> None:
    """Refuse a deterministic run whose length a clock would decide."""
    budget = config.budget
    if not config.deterministic or config.iterations is not None or budget.epochs or budget.iterations:
        return
    given = "no length" if budget.minutes is None and budget.cpu_minutes is None else "a time budget"
    raise RequestError(
        f"deterministic=true with {given}, so that the speed of the machine would decide the number of iterations; "
        "accepted: --epochs or --iterations. Give one of them."
    )


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Let PyTorch compute with deterministic algorithms only, while the block runs; without `wanted` nothing changes.

    An operation that has none raises, which says its name.
    """
    if not wanted:
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first use
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = before[2]
