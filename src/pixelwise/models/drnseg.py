"""Dilated Residual Networks as segmenters: F. Yu, V. Koltun, T. Funkhouser, CVPR 2017, https://arxiv.org/abs/1705.09914,
section 5; `DRNSeg` in segment.py of the release (fyu/drn, d75db2e). The networks are those of `models.drn`.

A classifier without its pooling, a 1x1 convolution that scores each cell, and bilinear upsampling by 8. The layers
have the release's names, which are numbers: `base.0` to `base.8` are layer0 to layer8 of DRN-D; `base.0`, `base.1` and
`base.3` to `base.10` are conv1, bn1 and layer1 to layer8 of DRN-C; `base.4` to `base.7` are layer1 to layer4 of DRN-A.

Axes: N batch, C image channels, K classes, H and W input size, h = ceil(H / 8) and w = ceil(W / 8) cells.

`upsampling` says how cells become pixels: "deconvolution", the release's default, by a fixed transposed convolution
that fades out at the border and puts cell i at pixel 8 i + 3.5 (the centre of what it sees is 8 i); "bilinear", its
other choice, by interpolation with align_corners, which spreads the cells so that the first and the last lie on the
first and the last pixel, and depends on the image's size.

Departures: the release returns log-probabilities, these are logits. Its result is 8 ceil(H / 8) high and fits only
images whose sides are multiples of 8; here it is cut to the image at the bottom and the right.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from pixelwise.backbones.drn import (
    BasicBlock,
    Blocks,
    Bottleneck,
    FirstDilation,
    Levels,
    initialise,
    levels_a,
    levels_c,
    levels_d,
)
from pixelwise.errors import RequestError
from pixelwise.layers.bilinear import BilinearUpsampling
from pixelwise.models.drn import ANY_SIZE, DEBUG, DEBUG_A, PAPER
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, check_images

STRIDE = 8  # pixels of a cell
Upsampling = Literal["deconvolution", "bilinear"]


class DRNSeg(nn.Module):
    """Levels, a score for each cell and class, and upsampling to the pixels.

    Args:
        levels: modules in order and their channels, of `backbones.drn`.
        in_channels: C.
        num_classes: K.
        upsampling: see the file's head.
    """

    size_rule = ANY_SIZE

    def __init__(
        self, levels: tuple[Levels, int], *, in_channels: int, num_classes: int, upsampling: Upsampling
    ) -> None:
        super().__init__()
        if upsampling not in ("deconvolution", "bilinear"):
            raise RequestError(
                f"upsampling={upsampling!r}; accepted: 'deconvolution' or 'bilinear'. Give one of these."
            )
        self.in_channels = in_channels
        self.num_classes = num_classes
        modules, channels = levels
        self.base = nn.Sequential(*modules.values())
        self.seg = nn.Conv2d(channels, num_classes, 1)
        self.apply(initialise)
        assert self.seg.bias is not None
        nn.init.zeros_(self.seg.bias)
        self.up = (
            BilinearUpsampling(num_classes, kernel_size=2 * STRIDE, stride=STRIDE, padding=STRIDE // 2)
            if upsampling == "deconvolution"
            else nn.Upsample(scale_factor=STRIDE, mode="bilinear", align_corners=True)
        )

    def cells(self, images: Tensor) -> Tensor:
        """Score the cells of images (N, C, H, W) as (N, K, h, w); the release's second output."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        scores: Tensor = self.seg(self.base(images))
        return scores

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) of any size from 9 x 9 into logits (N, K, H, W)."""
        pixels = self.up(self.cells(images))  # (N, K, 8 h, 8 w)
        return SegmentationOutput(pixels[:, :, : images.shape[2], : images.shape[3]])


# What they share in the catalogue.
enter = partial(
    register,
    family="DRN",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="verified",
    input_size=(1024, 2048),
)
RELEASE = "segment.py and drn.py of fyu/drn; logits instead of log-probabilities, cut to the image's size"


@enter(source=RELEASE + "; first_dilation chooses between the code's and the paper's", debug=DEBUG_A)
def drnseg_a_50(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: Blocks = (3, 4, 6, 3),
    first_dilation: FirstDilation = "code",
    upsampling: Upsampling = "deconvolution",
) -> DRNSeg:
    """Build the segmenter on DRN-A-50: 23,546,963 parameters for Cityscapes' 19 classes."""
    levels = levels_a(
        Bottleneck, blocks, in_channels=in_channels, base_channels=base_channels, first_dilation=first_dilation
    )
    return DRNSeg(levels, in_channels=in_channels, num_classes=num_classes, upsampling=upsampling)


@enter(source=RELEASE, debug=DEBUG)
def drnseg_c_26(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 16,
    blocks: Blocks = (1, 1, 2, 2, 2, 2, 1, 1),
    upsampling: Upsampling = "deconvolution",
) -> DRNSeg:
    """Build the segmenter on DRN-C-26: 20,623,331 parameters for 19 classes."""
    levels = levels_c(BasicBlock, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRNSeg(levels, in_channels=in_channels, num_classes=num_classes, upsampling=upsampling)


@enter(source=RELEASE, debug=DEBUG)
def drnseg_c_42(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 16,
    blocks: Blocks = (1, 1, 3, 4, 6, 3, 1, 1),
    upsampling: Upsampling = "deconvolution",
) -> DRNSeg:
    """Build the segmenter on DRN-C-42: 30,731,491 parameters for 19 classes."""
    levels = levels_c(BasicBlock, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRNSeg(levels, in_channels=in_channels, num_classes=num_classes, upsampling=upsampling)


@enter(source=RELEASE + "; not in the paper", debug=DEBUG)
def drnseg_d_22(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 16,
    blocks: Blocks = (1, 1, 2, 2, 2, 2, 1, 1),
    upsampling: Upsampling = "deconvolution",
) -> DRNSeg:
    """Build the segmenter on DRN-D-22: 15,890,499 parameters for 19 classes."""
    levels = levels_d(BasicBlock, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRNSeg(levels, in_channels=in_channels, num_classes=num_classes, upsampling=upsampling)


@enter(source=RELEASE + "; not in the paper", debug=DEBUG)
def drnseg_d_38(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 16,
    blocks: Blocks = (1, 1, 3, 4, 6, 3, 1, 1),
    upsampling: Upsampling = "deconvolution",
) -> DRNSeg:
    """Build the segmenter on DRN-D-38: 25,998,659 parameters for 19 classes."""
    levels = levels_d(BasicBlock, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRNSeg(levels, in_channels=in_channels, num_classes=num_classes, upsampling=upsampling)


@enter(source=RELEASE + "; not in the paper", debug=DEBUG)
def drnseg_d_54(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 16,
    blocks: Blocks = (1, 1, 3, 4, 6, 3, 1, 1),
    upsampling: Upsampling = "deconvolution",
) -> DRNSeg:
    """Build the segmenter on DRN-D-54: 35,305,923 parameters for 19 classes."""
    levels = levels_d(Bottleneck, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRNSeg(levels, in_channels=in_channels, num_classes=num_classes, upsampling=upsampling)


@enter(source=RELEASE + "; not in the paper", debug=DEBUG)
def drnseg_d_105(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 16,
    blocks: Blocks = (1, 1, 3, 4, 23, 3, 1, 1),
    upsampling: Upsampling = "deconvolution",
) -> DRNSeg:
    """Build the segmenter on DRN-D-105: 54,298,051 parameters for 19 classes."""
    levels = levels_d(Bottleneck, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRNSeg(levels, in_channels=in_channels, num_classes=num_classes, upsampling=upsampling)
