"""The training loss of semantic models: cross entropy, Dice, and how they are weighted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.losses.cross_entropy import Normalise, cross_entropy
from pixelwise.losses.dice import soft_dice

ClassWeights = Literal["auto", "none", "median_frequency", "root_frequency", "camvid11"]
RARE = 0.02  # of the pixels: below it a class is soon not predicted at all without weights

# SegNet's weights for the eleven classes of CamVid, as its training definitions hold them (segnet_train.prototxt of
# alexgkendall/SegNet-Tutorial, commit bb68b64). None is 1, so the median was not taken over these eleven alone.
CAMVID11 = MappingProxyType(
    {
        "sky": 0.2595,
        "building": 0.1826,
        "pole": 4.5640,
        "road": 0.1417,
        "pavement": 0.9051,
        "tree": 0.3826,
        "sign_symbol": 9.6446,
        "fence": 1.8418,
        "car": 0.6823,
        "pedestrian": 6.2478,
        "bicyclist": 7.3614,
    }
)


class LossConfig(BaseModel):
    """What is minimised.

    Attributes:
        cross_entropy: factor of the cross entropy.
        dice: factor of the soft Dice loss.
        class_weights: "auto" ("root_frequency" where a class holds less than 2 % of the training pixels, else
            "none"); "none"; "median_frequency" (SegNet: median of the class frequencies over the class's own);
            "root_frequency" (the square root of that, a milder balance); "camvid11" (the numbers that SegNet's
            release trains CamVid with).
        normalise: what the cross entropy's weighted sum is divided by: "weights" (their sum), "pixels" (SegNet's
            release: the pixels that count) or "sum" (FCN: nothing, so that the learning rate must be tiny).
        separation: train as U-Net does against objects that grow together: a thin ridge of background between
            touching objects, and a weight map that stresses the gaps.
        separation_w0: height of its separation term (w0).
        separation_sigma: its reach in pixels (sigma).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cross_entropy: float = Field(1.0, ge=0)
    dice: float = Field(1.0, ge=0)
    class_weights: ClassWeights = "auto"
    normalise: Normalise = "weights"
    separation: bool = False
    separation_w0: float = Field(10.0, ge=0)
    separation_sigma: float = Field(5.0, gt=0)

    @model_validator(mode="after")
    def _has_a_term(self) -> LossConfig:
        if not self.cross_entropy and not self.dice:
            raise ValueError("cross_entropy and dice are both 0; give one of them a factor above 0")
        if self.normalise != "weights" and not self.cross_entropy:
            raise ValueError(f"normalise={self.normalise} divides the cross entropy, whose factor is 0; leave it out")
        return self


def class_weights(kind: ClassWeights, counts: Mapping[str, int], classes: Sequence[str]) -> Tensor | None:
    """Return a weight per class, float (K,), from the pixel counts of the training images; None for "none".

    "auto" is settled before; see `suitable_class_weights`.

    Source: V. Badrinarayanan et al., "SegNet", section 4 (median frequency balancing), after Eigen and Fergus.
    Frequencies are taken over all training pixels. A class that never occurs gets weight 1.

    Raises:
        RequestError: if "camvid11" is wanted for a class that it has no weight for.
    """
    if kind == "none":
        return None
    if kind == "camvid11":
        return torch.tensor([_published(name) for name in classes])
    pixels = torch.tensor([counts[name] for name in classes], dtype=torch.float64)
    present = pixels > 0
    weights = torch.ones_like(pixels)
    weights[present] = pixels[present].median() / pixels[present]
    return (weights.sqrt() if kind == "root_frequency" else weights).float()


def _published(name: str) -> float:
    """Return SegNet's weight of a CamVid class, however its name is written (SignSymbol, sign_symbol)."""
    plain = {key.replace("_", ""): weight for key, weight in CAMVID11.items()}
    key = "".join(letter for letter in name.lower() if letter.isalnum())
    if key not in plain:
        raise RequestError(
            f"class_weights camvid11 has no weight for class {name!r}; accepted: {', '.join(CAMVID11)}. "
            "Use median_frequency for other classes."
        )
    return plain[key]


def suitable_class_weights(counts: Mapping[str, int], classes: Sequence[str]) -> tuple[ClassWeights, str]:
    """Choose the balance for "auto" and say why."""
    rare = rarest_class(counts, classes)
    if rare is not None:
        return "root_frequency", f"the rarest class, {rare[0]}, holds {rare[1]:.2%} of the pixels"
    return "none", f"no class holds less than {RARE:.0%} of the pixels"


def rarest_class(counts: Mapping[str, int], classes: Sequence[str]) -> tuple[str, float] | None:
    """Return the rarest class that occurs and its share of the pixels, if that is below `RARE`."""
    present = {name: counts[name] for name in classes if counts[name]}
    if not present:
        return None
    rarest = min(present, key=lambda name: present[name])
    share = present[rarest] / sum(present.values())
    return (rarest, share) if share < RARE else None


def most_frequent_class(counts: Mapping[str, int], classes: Sequence[str]) -> int:
    """Return the index of the class that holds most pixels."""
    return max(range(len(classes)), key=lambda index: counts[classes[index]])


class SegmentationLoss(nn.Module):
    """Cross entropy and Dice of the logits, weighted as `LossConfig` says.

    Args:
        config: what is minimised.
        ignore_index: label that does not count.
        weights: of the classes, float (K,).
        total_of: from sums over the images at hand to those over the batch, where other processes hold the rest of it.
    """

    def __init__(
        self,
        config: LossConfig,
        *,
        ignore_index: int | None,
        weights: Tensor | None,
        total_of: Callable[[Tensor], Tensor] = lambda part: part,
    ) -> None:
        super().__init__()
        self.total_of = total_of
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
                normalise=self.config.normalise,
                total_of=self.total_of,
            )
        if self.config.dice:
            total = total + self.config.dice * soft_dice(
                logits, labels, ignore_index=self.ignore_index, total_of=self.total_of
            )
        return total
