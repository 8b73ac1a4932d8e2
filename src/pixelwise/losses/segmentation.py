"""The training loss of semantic models: cross entropy, Dice, and how they are weighted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pixelwise.losses.cross_entropy import cross_entropy
from pixelwise.losses.dice import soft_dice

ClassWeights = Literal["none", "median_frequency", "root_frequency"]


class LossConfig(BaseModel):
    """What is minimised.

    Attributes:
        cross_entropy: factor of the cross entropy.
        dice: factor of the soft Dice loss.
        class_weights: "none"; "median_frequency" (SegNet: median of the class frequencies over the class's own);
            "root_frequency" (the square root of that, a milder balance).
        separation: multiply pixels by U-Net's weight map, which stresses the gaps between touching objects.
        separation_w0: height of its separation term (w0).
        separation_sigma: its reach in pixels (sigma).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cross_entropy: float = Field(1.0, ge=0)
    dice: float = Field(0.0, ge=0)
    class_weights: ClassWeights = "none"
    separation: bool = False
    separation_w0: float = Field(10.0, ge=0)
    separation_sigma: float = Field(5.0, gt=0)


def class_weights(kind: ClassWeights, counts: Mapping[str, int], classes: Sequence[str]) -> Tensor | None:
    """Return a weight per class, float (K,), from the pixel counts of the training images; None for "none".

    Source: V. Badrinarayanan et al., "SegNet", section 4 (median frequency balancing), after Eigen and Fergus.
    Frequencies are taken over all training pixels. A class that never occurs gets weight 1.
    """
    if kind == "none":
        return None
    pixels = torch.tensor([counts[name] for name in classes], dtype=torch.float64)
    present = pixels > 0
    weights = torch.ones_like(pixels)
    weights[present] = pixels[present].median() / pixels[present]
    return (weights.sqrt() if kind == "root_frequency" else weights).float()


class SegmentationLoss(nn.Module):
    """Cross entropy and Dice of the logits, weighted as `LossConfig` says."""

    def __init__(self, config: LossConfig, *, ignore_index: int | None, weights: Tensor | None) -> None:
        super().__init__()
        self.config = config
        self.ignore_index = ignore_index
        self.register_buffer("weights", weights)
        self.weights: Tensor | None

    def forward(self, logits: Tensor, labels: Tensor, pixel_weights: Tensor | None = None) -> Tensor:
        """Return the loss of float logits (N, K, H, W) against int64 labels (N, H, W), a scalar."""
        logits = logits.float()
        total = logits.new_zeros(())
        if self.config.cross_entropy:
            total = total + self.config.cross_entropy * cross_entropy(
                logits,
                labels,
                ignore_index=self.ignore_index,
                class_weights=self.weights,
                pixel_weights=pixel_weights,
            )
        if self.config.dice:
            total = total + self.config.dice * soft_dice(logits, labels, ignore_index=self.ignore_index)
        return total
