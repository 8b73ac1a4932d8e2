"""Running a model over one image of any size: whole, in seamless tiles or through sliding windows, and at what sizes.

Tiles reproduce the whole-image pass, which needs a network that sees a neighbourhood only. Sliding windows are each
seen by themselves and averaged where they overlap, as PSPNet was tested.

Source: H. Zhao et al., PSPNet's release in PyTorch (hszhao/semseg, tool/test.py: scale_process and net_process).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.data.images import AnyArray
from pixelwise.data.normalise import resize_image
from pixelwise.engine.model_file import ModelCard
from pixelwise.engine.tiles import mirror, plan_spans
from pixelwise.engine.views import Fusion, join_mirrored, probabilities_of, take_in, window_starts
from pixelwise.structures import size_rule_of


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One view of an image: its size, and how the model gets over it.

    Attributes:
        factor: by which the image is resized.
        tile: input (height, width) of a seamless tile; None sees the image at once.
        halo: pixels at the inner borders of tiles that are predicted but not kept.
        window: (height, width) of a sliding window, legal for the model; None for none.
        step: (down, across) between windows.
    """

    factor: float = 1.0
    tile: tuple[int, int] | None = None
    halo: int = 0
    window: tuple[int, int] | None = None
    step: tuple[int, int] = (1, 1)


@torch.inference_mode()
def predict_logits(
    model: nn.Module, image: NDArray[np.float32], *, tile: tuple[int, int] | None = None, halo: int = 0
) -> Tensor:
    """Run a model over a normalised image of any size.

    Args:
        model: a semantic model in evaluation mode.
        image: float32 (H, W, C).
        tile: input (height, width) of a window; None sees the whole image at once.
        halo: pixels at the inner borders of padded windows that are predicted but not kept.

    Returns:
        float32 (K, H, W) on the model's device.
    """
    rule = size_rule_of(model)
    rows = plan_spans(image.shape[0], rule, tile=tile and tile[0], halo=halo)
    columns = plan_spans(image.shape[1], rule, tile=tile and tile[1], halo=halo)
    first = next(model.parameters())
    result: Tensor | None = None
    for row in rows:
        for column in columns:
            window = torch.from_numpy(mirror(image, row, column)).to(first.device)
            batch = window.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)  # (1, C, h, w)
            logits = model(batch).logits[0].float()  # (K, h - 2 margin, w - 2 margin)
            if result is None:
                result = logits.new_empty(logits.shape[0], *image.shape[:2])
            top, left = row.start + rule.margin, column.start + rule.margin
            kept = logits[:, row.first - top : row.stop - top, column.first - left : column.stop - left]
            result[:, row.first : row.stop, column.first : column.stop] = kept
    assert result is not None
    return result


@torch.inference_mode()
def slide(
    model: nn.Module,
    image: NDArray[np.float32],
    *,
    window: tuple[int, int],
    step: tuple[int, int],
    flip: bool = False,
    fusion: Fusion = "prob_mean",
) -> Tensor:
    """Run a model over a normalised image through sliding windows and average what overlapping ones say.

    A window reaches beyond a smaller image, equally on both sides, and sees zeros there: the mean of the training
    images. Mirror images are those of the windows, not of the image, as in the original: the grid of windows is not
    symmetric.

    Args:
        model: a semantic model in evaluation mode that loses no borders.
        image: float32 (H, W, C).
        window: (height, width), legal for the model.
        step: (down, across) between windows; the last ones are shifted back into the image.
        flip: join each window with its mirror image.
        fusion: what is averaged; see `views`.

    Returns:
        float32 (K, H, W) on the model's device: probabilities or logits, as `join_mirrored` gives them.
    """
    height, width = image.shape[:2]
    short = [max(0, side - length) for side, length in zip(window, image.shape, strict=False)]
    top, left = short[0] // 2, short[1] // 2
    padded = np.pad(image, ((top, short[0] - top), (left, short[1] - left), (0, 0)))
    device = next(model.parameters()).device
    total, count = None, torch.zeros(padded.shape[:2], device=device)
    for y in window_starts(padded.shape[0], window[0], step[0]):
        for x in window_starts(padded.shape[1], window[1], step[1]):
            place = (slice(y, y + window[0]), slice(x, x + window[1]))
            cut = torch.from_numpy(np.ascontiguousarray(padded[place])).to(device).permute(2, 0, 1)  # (C, h, w)
            batch = torch.stack([cut, cut.flip(2)] if flip else [cut]).contiguous(memory_format=torch.channels_last)
            logits = model(batch).logits.float()  # (1 or 2, K, h, w)
            scores = join_mirrored([logits[0], logits[1].flip(2)] if flip else [logits[0]], fusion)
            if total is None:
                total = scores.new_zeros(scores.shape[0], *padded.shape[:2])
            total[:, *place] += scores
            count[place] += 1
    assert total is not None
    return (total / count)[:, top : top + height, left : left + width]


def predict_probabilities(
    model: nn.Module,
    card: ModelCard,
    image: AnyArray,
    *,
    passes: Sequence[Pass] = (Pass(),),
    flip: bool = False,
    fusion: Fusion = "prob_mean",
) -> Tensor:
    """Return class probabilities, float32 (K, H, W), at the size of a raw image (H, W, C).

    Every pass gives one map, which is interpolated to the image's size once (bilinear, align_corners=False): logits
    of an image that is seen whole or in tiles, so that one pass is the plain prediction; of sliding windows what is
    averaged over them, as in the original. A model of a largest size sees a larger image shrunk to it.

    Args:
        model: a semantic model in evaluation mode.
        card: what is known of it.
        image: stored values.
        passes: the views; their probabilities or logits are joined.
        flip: join each view with that of the mirror image.
        fusion: how; see `views`.
    """
    total: Tensor | None = None
    for view in passes:
        scaled = resize_image(image, view.factor)
        if view.window is None:
            small = card.normalisation(shrink_within(scaled, size_rule_of(model).maximum))
            sides = [small, small[:, ::-1]] if flip else [small]
            logits = [predict_logits(model, side, tile=view.tile, halo=view.halo) for side in sides]
            logits = [scores.flip(2) if mirrored else scores for mirrored, scores in enumerate(logits)]
            scores = join_mirrored([_at_size(each, image) for each in logits], fusion)
        else:
            small = card.normalisation(scaled)
            scores = slide(model, small, window=view.window, step=view.step, flip=flip, fusion=fusion)
            scores = _at_size(scores, image)
        total = take_in(total, scores, fusion)
    assert total is not None
    return probabilities_of(total, len(passes), fusion)


def _at_size(scores: Tensor, image: AnyArray) -> Tensor:
    """Interpolate scores (K, h, w) to the size of an image (H, W, C)."""
    size = (image.shape[0], image.shape[1])
    if scores.shape[1:] == size:
        return scores
    return functional.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]


def shrink_within(image: AnyArray, side: int | None) -> AnyArray:
    """Return an image (H, W, C) with no side above `side`: a longer one is shrunk, whatever becomes of the shape."""
    height, width = image.shape[:2]
    if side is None or max(height, width) <= side:
        return image
    size = (min(width, side), min(height, side))
    channels = (np.ascontiguousarray(image[:, :, channel]) for channel in range(image.shape[2]))
    return np.stack([cv2.resize(channel, size, interpolation=cv2.INTER_AREA) for channel in channels], axis=2)
