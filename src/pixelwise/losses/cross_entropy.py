"""Pixel-wise cross entropy with ignored pixels, class weights and pixel weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional

NOTHING_IGNORED = -100  # a label that no mask can hold
Normalise = Literal["weights", "pixels", "sum"]


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    pixel_weights: Tensor | None = None,
    normalise: Normalise = "weights",
    total_of: Callable[[Tensor], Tensor] = lambda part: part,
) -> Tensor:
    """Return the weighted mean, or sum, of -log p(true class) over the pixels that count.

    Divided by the sum of the weights, as by default, weight maps change what matters and not the size of the step. The
    originals divide otherwise: U-Net's and SegNet's by the pixels that count, FCN's not at all.

    Args:
        logits: float (N, K, H, W).
        labels: int64 (N, H, W), class ids or `ignore_index`.
        ignore_index: label that does not count, None if every pixel does.
        class_weights: float (K,), a factor for pixels by their true class.
        pixel_weights: float (N, H, W), a further factor for each pixel.
        normalise: what the weighted sum is divided by: "weights" (their sum), "pixels" (the number of pixels that
            count) or "sum" (nothing).
        total_of: from a sum over these images to that over all that make a batch, where other processes hold the rest.

    Returns:
        A scalar; 0, with a gradient of 0, if no pixel counts.
    """
    ignored = NOTHING_IGNORED if ignore_index is None else ignore_index
    if class_weights is None and pixel_weights is None:
        total = total_of(functional.cross_entropy(logits, labels, ignore_index=ignored, reduction="sum"))
        return total if normalise == "sum" else total / total_of((labels != ignored).sum()).clamp(min=1)
    losses = functional.cross_entropy(logits, labels, ignore_index=ignored, reduction="none")  # (N, H, W)
    weights = (labels != ignored).to(losses.dtype)
    if class_weights is not None:
        weights = weights * class_weights.to(losses)[labels.clamp(0, logits.shape[1] - 1)]
    if pixel_weights is not None:
        weights = weights * pixel_weights
    total = total_of((losses * weights).sum())
    if normalise == "weights":
        return total / total_of(weights.sum()).clamp(min=1e-12)
    return total if normalise == "sum" else total / total_of((labels != ignored).sum()).clamp(min=1)
