"""How an image is looked at before it is labelled: in several sizes, mirrored, through sliding windows.

Every size of the image gives one map of scores, which is interpolated once, to the size of the labels. The maps are
joined there, and the joined map is the result, or what a CRF makes of it; no label map is ever resized. What is joined
differs between papers:

- `prob_mean`: probabilities, averaged over windows, mirror images and sizes. DeepLab v3 (Chen et al. 2017, section 4.1)
  and PSPNet's PyTorch release (hszhao/semseg, tool/test.py).
- `flip_logit_sum`: the logits of an image and its mirror image are added before the softmax; probabilities are averaged
  over windows and sizes. PSPNet's Caffe release (hszhao/PSPNet, evaluation/caffe_process.m and scale_process.m).
- `logit_mean`: logits are averaged over all of them, before one softmax. DRN (fyu/drn, segment.py) adds
  log-probabilities: they differ from logits by a number that all classes of a pixel share, so its labels are these.
- `max`: the largest logit over the sizes, before one softmax; windows and mirror images are averaged. DeepLab v2 (Chen
  et al. 2016, section 4.1.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from pixelwise.errors import RequestError, closest

if TYPE_CHECKING:
    from pixelwise.crf.refiner import Refiner

Fusion = Literal["prob_mean", "flip_logit_sum", "logit_mean", "max"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
STRIDE = 2 / 3  # of a window: PSPNet
TEXTON = "texton"  # the name of TextonBoost's own CRF, which takes what its run has learnt
MOST = 8.0  # times its size an image is enlarged


@dataclass(frozen=True, kw_only=True)
class Views:
    """What was asked for; checked when it is made.

    Attributes:
        scales: factors of the image's size, each a view of its own. They multiply the scale of the training.
        flip: every view is joined with that of the mirror image.
        fusion: how views are joined; None takes "prob_mean".
        tile: input side of a seamless tile; None takes them for large images only.
        window: side of a sliding window in pixels, enlarged to the next side that the model accepts. Each window is
            seen by itself, with the image's mean where it reaches beyond a small image, and overlapping ones are
            averaged. None takes windows only for large images of models that cannot be tiled.
        stride: step between windows, as a share of their side; None takes two thirds.
        long_side: pixels of the image's longer side at scale 1, instead of its own and the training's scale.
        refiner: what refines the joined map with the image, such as the dense CRF; None leaves it.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    fusion: Fusion | None = None
    tile: int | None = None
    window: int | None = None
    stride: float | None = None
    long_side: int | None = None
    refiner: Refiner | None = None

    def __post_init__(self) -> None:
        self._check_scales()
        if self.fusion is not None:
            self._check_fusion(self.fusion)
        if self.window is not None and self.tile is not None:
            raise RequestError(
                f"window {self.window} and tile {self.tile} are both given; accepted: window, which averages what "
                "overlapping windows say, or tile, whose borders are thrown away. Leave one out."
            )
        if self.stride is not None and not 0 < self.stride <= 1:
            raise RequestError(f"stride is {self.stride:g}; accepted: a share of the window, from above 0 to 1.")
        if self.stride is not None and self.window is None:
            raise RequestError(f"stride {self.stride:g} has no effect without a window; accepted: with window. Add it.")
        for name in ("window", "long_side"):
            side = getattr(self, name)
            if side is not None and side < 1:
                raise RequestError(f"{name} is {side}; accepted: pixels, from 1. Give another number.")

    def _check_scales(self) -> None:
        wrong = [scale for scale in self.scales if not 0 < scale <= MOST]
        if wrong or not self.scales:
            given = f"{wrong[0]:g}" if wrong else "empty"
            raise RequestError(
                f"scales: {given}; accepted: factors above 0, up to {MOST:g}, such as 0.5,0.75,1,1.25,1.5,1.75."
            )
        twice = [scale for scale in self.scales if self.scales.count(scale) > 1]
        if twice:
            raise RequestError(f"scales: {twice[0]:g} is given twice; accepted: each once. Leave one out.")

    def _check_fusion(self, fusion: str) -> None:
        if fusion not in FUSIONS:
            raise RequestError(
                f"fusion is {fusion!r}; closest: {closest(fusion, FUSIONS)}. Accepted: {', '.join(FUSIONS)}."
            )
        needs = {
            "prob_mean": ("several scales, flip or a window", len(self.scales) > 1 or self.flip or self.window),
            "logit_mean": ("several scales, flip or a window", len(self.scales) > 1 or self.flip or self.window),
            "flip_logit_sum": ("flip", self.flip),
            "max": ("several scales", len(self.scales) > 1),
        }
        wanted, given = needs[fusion]
        if not given:
            raise RequestError(f"fusion {fusion} has no effect without {wanted}; accepted: with {wanted}. Add that.")

    @property
    def joining(self) -> Fusion:
        """How views are joined."""
        return self.fusion or "prob_mean"

    def factors(self, size: tuple[int, int], scale: float) -> list[float]:
        """Return the factors by which an image (height, width) is resized for each view.

        Args:
            size: of the image.
            scale: the training's.

        >>> Views(scales=(0.5, 1.75), long_side=512).factors((400, 500), 1.0)
        [0.512, 1.792]
        """
        if self.long_side is None:
            return [scale * factor for factor in self.scales]
        return [max(1, round(self.long_side * factor)) / max(size) for factor in self.scales]

    def protocol(self) -> dict[str, str | int | float | bool | None]:
        """Return what decides a score of several views, for the protocol beside it."""
        said: dict[str, str | int | float | bool | None] = {"flip": self.flip, "tile": self.tile}
        if self.scales != (1.0,):
            said["scales"] = ", ".join(f"{scale:g}" for scale in self.scales)
        if self.long_side is not None:
            said["long_side"] = f"{self.long_side} pixels at scale 1"
        if self.scales != (1.0,) or self.flip or self.window:
            said["fusion"] = self.joining
        return said if self.refiner is None else {**said, **self.refiner.protocol()}


def refiner_for(crf: str | Path | None, run: str | Path | None) -> Refiner | None:
    """Return what a name or a file of a CRF means for a run; None for none.

    Its compiled loops are loaded for those alone who ask for one.
    """
    if crf is None:
        return None
    if str(crf) == TEXTON:
        from pixelwise.engine.texton_refiner import texton_refiner

        return texton_refiner(run)
    from pixelwise.crf.refiner import refiner_of

    return refiner_of(crf, run=run)


def join_mirrored(logits: Sequence[Tensor], fusion: Fusion) -> Tensor:
    """Join the logits (K, h, w) of a view and of its mirror image, turned back; there may be the first alone.

    Returns:
        Probabilities where `fusion` averages these, logits otherwise, (K, h, w).
    """
    if fusion == "flip_logit_sum":
        return sum(logits[1:], logits[0]).softmax(dim=0)
    maps = [scores.softmax(dim=0) for scores in logits] if fusion == "prob_mean" else logits
    return sum(maps[1:], maps[0]) / len(maps)


def take_in(total: Tensor | None, scores: Tensor, fusion: Fusion) -> Tensor:
    """Take in what `join_mirrored` gave for one size of the image, at the size (K, H, W) of all."""
    if total is None:
        return scores
    return total.maximum(scores) if fusion == "max" else total + scores


def probabilities_of(total: Tensor, count: int, fusion: Fusion) -> Tensor:
    """Return the probabilities (K, H, W) that `count` sizes of the image give together."""
    if fusion == "max":
        return total.softmax(dim=0)
    mean = total / count
    return mean.softmax(dim=0) if fusion == "logit_mean" else mean


def window_starts(side: int, window: int, step: int) -> list[int]:
    """Return where windows over an image side begin; the last one is shifted back so that it ends with the image.

    >>> window_starts(1024, 713, 476), window_starts(2048, 713, 476), window_starts(473, 473, 316)
    ([0, 311], [0, 476, 952, 1335], [0])
    """
    count = math.ceil((side - window) / step) + 1
    return [min(index * step, side - window) for index in range(count)]
