"""Training on the scores that a network computes at every eighth pixel, before they are interpolated.

DeepLab and the dilated networks were trained so, on the labels of single pixels. Their method `scores` gives these
scores; `score_grids` says for which pixels they stand, where it is not each eighth from the first.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.models.dilation import MARGIN, DilatedNet
from pixelwise.structures import SegmentationOutput, size_rule_of

EVERY_EIGHTH = (0, 8)  # first pixel, and pixels between two scores


def coarse_scores(model: nn.Module, images: Tensor) -> SegmentationOutput:
    """Return the coarse scores (N, K, h, w) of images (N, C, H, W), auxiliary ones where the model has them.

    Raises:
        RequestError: if the model has none.
    """
    scores = getattr(model, "scores", None)
    if scores is None:
        raise RequestError(
            f"train_on=scores: {type(model).__name__} has no coarse scores; accepted for DeepLab v1 and v2 and the "
            "dilated networks. Leave train_on out."
        )
    coarse: Tensor | SegmentationOutput = scores(images)
    return SegmentationOutput(coarse) if isinstance(coarse, Tensor) else coarse


def score_margin(model: nn.Module) -> int:
    """Return the pixels on each side of an image that the coarse scores do not reach."""
    if isinstance(model, DilatedNet) and model.padding == "valid":
        return MARGIN
    return size_rule_of(model).margin


def labels_of_scores(model: nn.Module, labels: Tensor, scores: Tensor, *, output: int = 0) -> Tensor:
    """Return the labels (N, h, w) of the pixels for which scores (N, K, h, w) stand, of labels (N, H, W).

    H and W are those of the image less `score_margin`; `output` counts the model's outputs, the logits first.
    """
    first, step = getattr(model, "score_grids", (EVERY_EIGHTH,))[output]
    sampled = labels[:, first::step, first::step]
    assert sampled.shape[1:] == scores.shape[2:], f"{sampled.shape} labels for {scores.shape} scores"
    return sampled
