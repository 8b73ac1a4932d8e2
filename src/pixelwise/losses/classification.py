"""The training loss of image classifiers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional


class ClassLossConfig(BaseModel):
    """What is minimised: the mean cross entropy over the images.

    Attributes:
        label_smoothing: share of the probability that the target spreads evenly over all classes (Szegedy et al.,
            "Rethinking the Inception Architecture", CVPR 2016, section 7); 0 is the published ImageNet training of
            the networks here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label_smoothing: float = Field(0.0, ge=0, lt=1)


def class_loss(
    logits: Tensor, labels: Tensor, config: ClassLossConfig, *, total_of: Callable[[Tensor], Tensor] = lambda part: part
) -> Tensor:
    """Return the mean cross entropy of logits (N, K) against class ids, int64 (N,), in nats; a scalar.

    `total_of` goes from a sum over these images to that over all of a batch, where other processes hold the rest.

    >>> import torch
    >>> round(float(class_loss(torch.zeros(1, 4), torch.tensor([2]), ClassLossConfig())), 4)
    1.3863
    """
    smoothing = config.label_smoothing
    total = functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction="sum")
    return total_of(total) / total_of(torch.full((), len(labels), device=logits.device))
