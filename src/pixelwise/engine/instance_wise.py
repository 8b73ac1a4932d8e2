"""Instance-wise inference: a network of a fixed input size sees an image box by box, and the scores are joined.

H. Noh, S. Hong, B. Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015, section 4.2 and the
release's `generate_EDeconvNet_CRF_results.m`. Each proposed box is enlarged, cut out, resized to the network's size,
and its raw scores are resized back to the box's. Per pixel and class the image takes the maximum, or the mean, and
the softmax comes after.

The paper fills each box's map with zeros outside of the box before it takes the maximum; the release starts from a
map of zeros, so that no negative score is ever taken. They differ where all boxes cover a pixel: `clamp` chooses
the release. A pixel outside of all boxes has score 0 for every class: each is equally likely, and the label is the
first class. The paper's other rule is the sum; its labels are those of the mean over the boxes that cover a pixel,
which is taken here since it keeps the scores' scale.

Not reproduced: the release cuts its result out of the padded map one pixel too early along both axes, and MATLAB's
imresize mirrors the outermost pixels of what it shrinks, where here fewer are averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.data.images import AnyArray
from pixelwise.data.normalise import Normalisation, resize_image
from pixelwise.engine.proposals import Boxes, propose
from pixelwise.errors import RequestError
from pixelwise.structures import size_rule_of

if TYPE_CHECKING:
    from pixelwise.models.edeconvnet import EDeconvNet

BATCH = 5  # boxes that the network sees at once

Windows = NDArray[np.int64]  # (n, 4): x1, y1, x2, y2 in whole pixels, the second ones not included


@dataclass(frozen=True, kw_only=True)
class InstanceWise:
    """How an image is seen box by box; the release's numbers by default.

    Attributes:
        propose: from an image (H, W, C) to its boxes, best first.
        num_proposals: boxes that are used, at most.
        context: factor by which a box grows around its centre.
        min_box: boxes whose shorter side then has fewer pixels are left out.
        aggregate: maximum, or mean over the boxes that cover a pixel.
        clamp: the maximum is at least 0 everywhere, as in the release.
    """

    propose: Callable[[AnyArray], Boxes] = propose
    num_proposals: int = 50
    context: float = 1.2
    min_box: int = 112
    aggregate: Literal["max", "mean"] = "max"
    clamp: bool = True

    def __post_init__(self) -> None:
        if self.aggregate not in ("max", "mean"):
            raise RequestError(f"aggregate is {self.aggregate!r}; accepted: 'max' or 'mean'. Choose one of them.")
        if self.num_proposals < 1 or self.min_box < 1 or not 0 < self.context < np.inf:
            raise RequestError(
                f"num_proposals={self.num_proposals}, min_box={self.min_box}, context={self.context}; accepted: whole "
                "numbers from 1, and a factor above 0. The release's are 50, 112 and 1.2."
            )


PUBLISHED = InstanceWise()


def enlarge(corners: NDArray[Any], context: float) -> Windows:
    """Return boxes (N, 4), grown around their centres and rounded to whole pixels; they may leave the image.

    >>> enlarge(np.array([[10, 20, 20, 40]]), 1.2).tolist()
    [[9, 18, 21, 42]]
    """
    first, second = corners[:, :2], corners[:, 2:]
    sides = np.maximum(1, np.rint((second - first) * context))
    start = np.rint((first + second - sides) / 2)
    return np.concatenate([start, start + sides], axis=1).astype(np.int64)


def windows_of(boxes: Boxes, how: InstanceWise = PUBLISHED) -> Windows:
    """Return the windows that the network sees: enlarged, none too small, the best ones."""
    windows = enlarge(boxes.corners, how.context)
    large = (windows[:, 2:] - windows[:, :2]).min(axis=1, initial=np.iinfo(np.int64).max) >= how.min_box
    chosen: Windows = windows[large][: how.num_proposals]
    return chosen


@torch.inference_mode()
def aggregate_scores(
    model: nn.Module, image: Tensor, windows: Windows, *, fill: Tensor, how: InstanceWise = PUBLISHED
) -> Tensor:
    """Join the raw scores of the windows of an image.

    Args:
        model: a semantic model in evaluation mode whose largest input is square.
        image: float (C, H, W), normalised.
        windows: what the model sees, each resized to its input (bilinear, averaging where it shrinks).
        fill: float (C), the value outside of the image.
        how: the rule.

    Returns:
        float32 (K, H, W); 0 outside of all windows.
    """
    side = size_rule_of(model).maximum
    assert side is not None
    shape = image.shape[1:]
    total, covered = None, image.new_zeros(shape)
    for start in range(0, len(windows), BATCH):
        part = windows[start : start + BATCH].tolist()
        crops = [_resized(_cut(image, window, fill)[None], (side, side)) for window in part]
        logits = model(torch.cat(crops).contiguous(memory_format=torch.channels_last)).logits.float()
        if total is None:
            total = logits.new_full((logits.shape[1], *shape), -torch.inf if how.aggregate == "max" else 0)
        for window, scores in zip(part, logits, strict=True):
            inner, outer = _overlap(window, shape)
            here = _resized(scores[None], (window[3] - window[1], window[2] - window[0]))[0][:, *outer]
            there = total[:, *inner]
            there.copy_(torch.maximum(there, here) if how.aggregate == "max" else there + here)
            covered[inner] += 1
    if total is None:
        return image.new_zeros(_classes(model), *shape)
    if how.aggregate == "mean":
        mean: Tensor = total / covered.clamp(min=1)
        return mean
    everywhere = torch.ones_like(covered, dtype=torch.bool)
    return torch.where(everywhere if how.clamp else covered < len(windows), total.clamp(min=0), total)


def instance_wise_probabilities(
    model: nn.Module,
    image: AnyArray,
    boxes: Boxes,
    *,
    normalisation: Normalisation,
    scale: float = 1.0,
    how: InstanceWise = PUBLISHED,
    flip: bool = False,
) -> Tensor:
    """Return class probabilities, float32 (K, H, W), of an image that is seen box by box.

    Args:
        model: DeconvNet, or EDeconvNet, whose FCN sees the whole image besides.
        image: stored values (H, W, C); outside of it they are 0, before normalisation.
        boxes: what may hold objects, best first.
        normalisation: from stored values to network input; statistics are those of the whole image.
        scale: factor by which the image is resized for EDeconvNet's FCN.
        how: the rule.
        flip: average the probabilities with those of the mirror image.
    """
    own = normalisation.for_image(image)
    fill = own(np.zeros((1, 1, image.shape[2]), image.dtype))[0, 0]
    whole, scene = (own(resize_image(image, factor)) for factor in (1.0, scale))
    windows, width = windows_of(boxes, how), image.shape[1]
    device = next(model.parameters()).device
    probabilities = []
    for mirrored in (False, True) if flip else (False,):
        views = [torch.from_numpy(np.ascontiguousarray(v[:, ::-1] if mirrored else v)) for v in (whole, scene)]
        near, far = (view.to(device).permute(2, 0, 1) for view in views)
        seen = np.stack([width - windows[:, 2], windows[:, 1], width - windows[:, 0], windows[:, 3]], axis=1)
        logits = _logits(model, near, far, seen if mirrored else windows, torch.from_numpy(fill).to(device), how)
        chances = logits.softmax(dim=0)
        probabilities.append(chances.flip(2) if mirrored else chances)
    return torch.stack(probabilities).mean(dim=0)


@torch.inference_mode()
def _logits(
    model: nn.Module, image: Tensor, scene: Tensor, windows: Windows, fill: Tensor, how: InstanceWise
) -> Tensor:
    """Return the joined scores of a network, or of an ensemble with a network that sees the scene, (K, H, W)."""
    if not hasattr(model, "combine"):
        return aggregate_scores(model, image, windows, fill=fill, how=how)
    ensemble = cast("EDeconvNet", model)
    scores = aggregate_scores(ensemble.deconvnet, image, windows, fill=fill, how=how)
    context = ensemble.fcn8s(scene[None].contiguous(memory_format=torch.channels_last)).logits.float()
    return ensemble.combine(scores[None], _resized(context, (image.shape[1], image.shape[2])))[0]


def _cut(image: Tensor, window: list[int], fill: Tensor) -> Tensor:
    """Cut a window (C, h, w) out of an image; outside of the image it has one value for each channel."""
    x1, y1, x2, y2 = window
    cut = fill[:, None, None].expand(-1, y2 - y1, x2 - x1).clone()
    inner, outer = _overlap(window, image.shape[1:])
    cut[:, *outer] = image[:, *inner]
    return cut


def _overlap(window: list[int], shape: torch.Size) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return rows and columns that image and window share: as places in the image, and in the window."""
    inner, outer = [], []
    for start, stop, side in ((window[1], window[3], shape[0]), (window[0], window[2], shape[1])):
        first, last = min(max(start, 0), side), min(max(stop, 0), side)
        inner.append(slice(first, last))
        outer.append(slice(first - start, last - start))
    return (inner[0], inner[1]), (outer[0], outer[1])


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (N, C, h, w) bilinearly, averaging where they shrink, as MATLAB's imresize does."""
    if maps.shape[2:] == size:
        return maps
    resized: Tensor = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=True)
    return resized


def _classes(model: nn.Module) -> int:
    count = model.num_classes
    assert isinstance(count, int)
    return count
