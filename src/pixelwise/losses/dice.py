"""Soft Dice loss, after F. Milletari et al., "V-Net", 3DV 2016, for any number of classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def soft_dice(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int | None = None,
    total_of: Callable[[Tensor], Tensor] = lambda part: part,
) -> Tensor:
    """Return 1 - the mean over classes of 2 sum(p g) / (sum(p) + sum(g)), sums over the whole batch.

    V-Net squares the probabilities in the denominator; the plain sum is the more common form and the one here.
    Classes that are absent from the batch's truth are left out: for them the loss would only say "predict
    nothing", which cross entropy says better.

    Args:
        logits: float (N, K, H, W).
        labels: int64 (N, H, W), class ids or `ignore_index`.
        ignore_index: label that does not count.
        total_of: from sums over these images to those over all that make a batch, where other processes hold the rest.

    Returns:
        A scalar in 0..1; 0, with a gradient of 0, if no pixel counts.
    """
    counted = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels != ignore_index
    probabilities = logits.float().softmax(dim=1) * counted[:, None]  # (N, K, H, W)
    truth = functional.one_hot(labels.where(counted, 0), logits.shape[1]).movedim(-1, 1) * counted[:, None]
    overlap = total_of((probabilities * truth).sum(dim=(0, 2, 3)))  # (K,)
    true_pixels = total_of(truth.sum(dim=(0, 2, 3)))
    sizes = total_of(probabilities.sum(dim=(0, 2, 3))) + true_pixels
    present = (true_pixels > 0).to(overlap)
    dice = 2 * overlap / sizes.clamp(min=1e-12)
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)
