"""Training on the scores that a network computes at every eighth pixel, before they are interpolated.

DeepLab and the dilated networks were trained so, on the labels of single pixels. Their method `scores` gives these
scores and says for which pixels they stand.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.models.deeplabv1 import DeepLab
from pixelwise.models.dilation import MARGIN, DilatedNet
from pixelwise.structures import size_rule_of

STRIDE = 8  # pixels between two scores


def coarse_scores(model: nn.Module, images: Tensor) -> Tensor:
    """Return the coarse scores (N, K, h, w) of images (N, C, H, W).

    Raises:
        RequestError: if the model has none.
    """
    scores = getattr(model, "scores", None)
    if scores is None:
        raise RequestError(
            f"train_on=scores: {type(model).__name__} has no coarse scores; accepted for DeepLab v1 and v2 on VGG-16 "
            "and the dilated networks. Leave train_on out."
        )
    coarse: Tensor = scores(images)
    return coarse


def score_margin(model: nn.Module) -> int:
    """Return the pixels on each side of an image that the coarse scores do not reach."""
    if isinstance(model, DilatedNet) and model.padding == "valid":
        return MARGIN
    return size_rule_of(model).margin


def labels_of_scores(model: nn.Module, labels: Tensor, scores: Tensor) -> Tensor:
    """Return the labels (N, h, w) of the pixels for which scores (N, K, h, w) stand, of labels (N, H, W).

    H and W are those of the image less `score_margin`.
    """
    first = 1 if isinstance(model, DeepLab) else 0  # cell i stands for pixel 8 i + 1
    sampled = labels[:, first::STRIDE, first::STRIDE]
    assert sampled.shape[1:] == scores.shape[2:], f"{sampled.shape} labels for {scores.shape} scores"
    return sampled
