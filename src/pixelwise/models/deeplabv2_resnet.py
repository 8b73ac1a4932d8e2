"""DeepLab v2 on ResNet-101: L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy, A. Yuille, "DeepLab: Semantic Image
Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", PAMI 2018,
https://arxiv.org/abs/1606.00915.

Map from the paper to this file:

- section 3.1 and 4.1.2, atrous convolution on ResNet-101  -> `ResNet(output_stride=8, first_rate="own")`
- section 3.2, Fig. 4 and 7, ASPP; LargeFOV                -> `HEADS`, `DeepLabV2.cells`
- section 4.1.2, multi-scale inputs fused by the maximum   -> `MultiScale`

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64 in the paper).

The stride of a stage is in its first 1x1 convolution, as in MSRA's weights; res4 has dilation 2 in all its units and
res5 dilation 4. Four 3x3 convolutions from 2048 channels to the classes, with rates 6, 12, 18 and 24, are summed,
without normalisation or ReLU; LargeFOV is one with rate 12. Statistics and affine parameters of all normalisations are
fixed in training (`use_global_stats`, learning rates of 0).

Cell i lies on pixel 8 i: 321 = 8 * 40 + 1 gives 41 cells. Other sizes get zeros at the bottom and the right, the mean
colour with which the originals fill images up to 513. `MultiScale` sees the image at 1, 0.75 and 0.5 as well, 41, 31
and 21 cells for 321; sizes are those of 32 k + 1, where all three grids meet.

Training is on every eighth pixel's label (`scores`), every 16th for scale 0.5, with four equal losses: the fused
scores and those of each scale. In use, and in `forward`, scores are interpolated by 8 as `layers.zoom` does.

Facts are those of misc/deploy.prototxt in DrSleep/tensorflow-deeplab-resnet (066023c) and of data/test.prototxt in
isht7/pytorch-deeplab-resnet (ba81363), copies of the authors' definitions. Departure: without given weights, fixed
normalisations do nothing, and the trunk starts from N(0, 2 / fan_in) with small residual branches, since what
torchvision's initialisation leaves to the normalisations would grow to 10^7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.backbones.resnet import BLOCKS, Bottleneck, ResNet
from pixelwise.errors import RequestError
from pixelwise.layers.frozen_batch_norm import freeze_batch_norm
from pixelwise.layers.zoom import pad_to_grid, zoom
from pixelwise.models.deeplabv2_vgg import PAPER
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

SOURCE = "misc/deploy.prototxt of DrSleep/tensorflow-deeplab-resnet, a copy of the release"
SOURCE_MSC = "data/test.prototxt of isht7/pytorch-deeplab-resnet, a copy of the release; trained with four losses"
STRIDE = 8  # pixels of a cell
GRID = 32  # sides of 32 k + 1 have their corners on cells at all three scales
HEADS = {"aspp": (6, 12, 18, 24), "largefov": (12,)}

HeadName = Literal["aspp", "largefov"]


class DeepLabV2(nn.Module):
    """The trunk and a score layer for each rate.

    Args:
        num_classes: K.
        in_channels: C.
        base_channels: b.
        blocks: units of the four stages.
        head: "aspp" or "largefov".
        frozen_batch_norm: keep statistics and affine parameters of all normalisations, as the original does.
    """

    size_rule = SizeRule(period=STRIDE)

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        base_channels: int,
        blocks: Sequence[int],
        head: str,
        frozen_batch_norm: bool,
    ) -> None:
        if head not in HEADS:
            raise RequestError(f"head={head!r}; accepted: 'aspp' or 'largefov'. Give one of them.")
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.backbone = ResNet(
            blocks=blocks,
            in_channels=in_channels,
            base_channels=base_channels,
            output_stride=STRIDE,
            stride_on="1x1",
            first_rate="own",
        )
        source = self.backbone.out_channels
        self.classifier = nn.ModuleList(
            nn.Conv2d(source, num_classes, 3, padding=rate, dilation=rate) for rate in HEADS[head]
        )
        if frozen_batch_norm:
            freeze_batch_norm(self)
        if (
            not self.classifier[0].get_parameter("weight").is_meta
        ):  # where there is nothing to draw, and that takes long
            self.start(steadily=frozen_batch_norm)

    def start(self, *, steadily: bool) -> None:
        """Draw the score layers from N(0, 0.01^2), and where asked the trunk as one without normalisations."""
        for layer in self.classifier:
            nn.init.normal_(layer.get_parameter("weight"), std=0.01)
            nn.init.zeros_(layer.get_parameter("bias"))
        if steadily:
            start_steadily(self.backbone)

    def cells(self, images: Tensor) -> Tensor:
        """Score (N, C, 8 h - 7, 8 w - 7) on (N, K, h, w) cells."""
        x = self.backbone(images)  # (N, 32b, h, w)
        scores: Tensor = self.classifier[0](x)
        for layer in self.classifier[1:]:
            scores = scores + layer(x)
        return scores

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        return SegmentationOutput(zoom(self.cells(pad_to_grid(images, STRIDE)), STRIDE, size=images.shape[2:]))

    def scores(self, images: Tensor) -> Tensor | SegmentationOutput:
        """Return the scores on which the original trains, (N, K, ceil(H / 8), ceil(W / 8)): those of pixels 8 i."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        return every(STRIDE, self.cells(pad_to_grid(images, STRIDE)), images)


class MultiScale(DeepLabV2):
    """DeepLab v2 with inputs at three scales; the parameters are the same."""

    size_rule = SizeRule(period=GRID)
    aux_weights = (1.0, 1.0, 1.0)
    score_grids = ((0, STRIDE), (0, STRIDE), (0, STRIDE), (0, 2 * STRIDE))  # first pixel and step of each score map

    def scales(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score images (N, C, 32 k + 1, 32 l + 1).

        Returns:
            The maximum of all scales, scale 1, scale 0.75 enlarged to scale 1, all (N, K, 4 k + 1, 4 l + 1), and scale
            0.5, (N, K, 2 k + 1, 2 l + 1).
        """
        full = self.cells(images)
        three_quarters = resize(self.cells(resize(images, _scaled(images, 3, 4))), full.shape[2:])
        half = self.cells(resize(images, _scaled(images, 1, 2)))
        fused = torch.maximum(torch.maximum(full, three_quarters), resize(half, full.shape[2:]))
        return fused, full, three_quarters, half

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W); in training those of each scale too."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        maps = self.scales(pad_to_grid(images, GRID))
        wanted = zip(maps, self.score_grids, strict=True) if self.training else [(maps[0], self.score_grids[0])]
        logits, *aux = (zoom(scores, step, size=images.shape[2:]) for scores, (_, step) in wanted)
        return SegmentationOutput(logits, tuple(aux))

    def scores(self, images: Tensor) -> SegmentationOutput:
        """Return the scores on which the original trains: of pixels 8 i, those of scale 0.5 of pixels 16 i.

        The fused ones, and as auxiliary ones those of scale 1, 0.75 and 0.5.
        """
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        maps = zip(self.scales(pad_to_grid(images, GRID)), self.score_grids, strict=True)
        fused, *aux = (every(step, scores, images) for scores, (_, step) in maps)
        return SegmentationOutput(fused, tuple(aux))


def every(step: int, scores: Tensor, images: Tensor) -> Tensor:
    """Take as many cells as images (N, C, H, W) have step-th pixels."""
    rows, columns = (-(-side // step) for side in images.shape[2:])
    return scores[:, :, :rows, :columns]


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate with the corners aligned, as Caffe's layer "Interp" does."""
    return functional.interpolate(x, size=list(size), mode="bilinear", align_corners=True)


def _scaled(images: Tensor, over: int, under: int) -> list[int]:
    """Return the size of images at a fraction of their own, corners aligned."""
    return [(side - 1) * over // under + 1 for side in images.shape[2:]]


@torch.no_grad()
def start_steadily(backbone: ResNet) -> None:
    """Draw a trunk whose normalisations do nothing so that maps keep their size from the first unit to the last."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    units = [module for module in backbone.modules() if isinstance(module, Bottleneck)]
    for unit in units:
        unit.conv3.weight.mul_(len(units) ** -0.5)


@register(
    family="DeepLab v2",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="verified",
    source=SOURCE,
    input_size=(513, 513),
    debug={"base_channels": 2, "blocks": (1, 1, 1, 1)},
)
def deeplabv2_resnet101(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[101],
    head: HeadName = "aspp",
    frozen_batch_norm: bool = True,
) -> DeepLabV2:
    """Build DeepLab v2 on ResNet-101 at one scale: 44,048,532 parameters for 21 classes, 42,887,253 with LargeFOV."""
    return DeepLabV2(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        blocks=blocks,
        head=head,
        frozen_batch_norm=frozen_batch_norm,
    )


@register(
    family="DeepLab v2",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="verified",
    source=SOURCE_MSC,
    input_size=(513, 513),
    debug={"base_channels": 2, "blocks": (1, 1, 1, 1)},
)
def deeplabv2_resnet101_msc(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[101],
    head: HeadName = "aspp",
    frozen_batch_norm: bool = True,
) -> MultiScale:
    """Build DeepLab v2 on ResNet-101 at three scales, with the parameters of one: 44,048,532 for 21 classes."""
    return MultiScale(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        blocks=blocks,
        head=head,
        frozen_batch_norm=frozen_batch_norm,
    )
