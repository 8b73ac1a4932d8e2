"""Probabilities from labels that someone drew, so that a CRF spreads a few strokes over an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import RequestError


def probabilities_from_labels(
    labels: NDArray[np.integer], num_labels: int, *, certainty: float, zero_unsure: bool = True
) -> NDArray[np.float32]:
    """Return how likely each label is where one was drawn: it has the certainty, all others share the rest.

    Args:
        labels: label of each pixel, integer (H, W). With `zero_unsure` 0 is no label but "nothing was drawn here", and
            labels 1 to K become channels 0 to K - 1; without it they are 0 to K - 1.
        num_labels: K, at least 2.
        certainty: above 0 and below 1: how far a drawn label is to be believed.
        zero_unsure: what 0 means; pixels without a label have 1 / K for each.

    Returns:
        float32 (K, H, W), summing to 1.

    Raises:
        RequestError: if labels are no such numbers, or the certainty is impossible.

    Source: `unary_from_labels` in pydensecrf/utils.py (lucasb-eyer/pydensecrf, 2723c7f), which returns -log of these.

    >>> probabilities_from_labels(np.array([[0, 2]]), 2, certainty=0.75)[:, 0].tolist()
    [[0.5, 0.25], [0.5, 0.75]]
    """
    first = 1 if zero_unsure else 0
    if not isinstance(num_labels, int) or num_labels < 2:
        raise RequestError(
            f"num_labels is {num_labels!r}; accepted: 2 and more, not counting the number for nothing drawn. Draw a "
            "second label."
        )
    if not 0 < certainty < 1:
        raise RequestError(
            f"certainty is {certainty:g}; accepted: above 0 and below 1. Give for example 0.7; a label that may not "
            "change at all is put back afterwards."
        )
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or not labels.size:
        raise RequestError(
            f"labels have shape {labels.shape} and type {labels.dtype}; accepted: whole numbers (H, W). Number the "
            "colours of a picture first."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= first + num_labels:
        raise RequestError(
            f"labels are from {low} to {high}; accepted: {first} to {first + num_labels - 1}"
            f"{' and 0 where nothing was drawn' if zero_unsure else ''}. Number them so."
        )
    rest = (1 - certainty) / (num_labels - 1)
    channel = np.arange(first, first + num_labels)[:, None, None]
    found = np.where(labels == channel, certainty, rest)  # (K, H, W)
    if zero_unsure:
        found[:, labels == 0] = 1 / num_labels
    return found.astype(np.float32)
