"""DeepLab v3: L.-C. Chen, G. Papandreou, F. Schroff, H. Adam, "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017, https://arxiv.org/abs/1706.05587.

Map from the paper to this file (the cascade of its section 3.2 is in `deeplabv3_cascade.py`):

- section 3.1, Fig. 3, output stride by atrous convolution  -> `ResNet(output_stride=...)`
- section 3.2.1, multi-grid                                 -> `ResNet(multi_grid=...)`
- section 3.3, Fig. 5, the pyramid with image-level features -> `ASPP`, `ImagePooling`
- section 4.1, upsampling the logits                         -> `DeepLabV3.forward`

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64 in the paper), s output stride.

Weights do not depend on the output stride: the paper trains at 16 and tests at 8, where all rates double. Rates are
given as at output stride 16, multi-grid factors as the paper writes them.

Three heads. "paper" is Fig. 5: the pyramid and a 1x1 classifier; cell i lies on pixel s i, 513 = 16 * 32 + 1 gives 33
cells, and images of other sizes get zeros at the bottom and the right up to that form, as the authors' code fills them
with the mean colour; 58,040,661 parameters on ResNet-101 for 21 classes. "torchvision" is the network of
`torchvision.models.segmentation`: a 3x3 convolution of 256 channels more, output stride 8, no multi-grid, the rate of
a stage from its second unit on, dropout 0.5, interpolation with align_corners=False that stretches the cells over any
size, an auxiliary classifier on the third stage; its weights load and its logits are equal. State-dict names are
torchvision's in all. "smp" is segmentation_models.pytorch's copy of that head: all units of a dilated stage have its
rate, no auxiliary classifier, interpolation with align_corners=True.

From the authors' code (tensorflow/models, research/deeplab, 05ccaf8), where the paper is silent: dropout of 0.1 behind
the pyramid, interpolation with align_corners. Departures: their ResNet has a stage's stride in its last 3x3
convolution, and their released weights a stem of three 3x3 convolutions; here the stride is in the first 3x3 of the
next stage and the stem 7x7, so that torchvision's ImageNet weights fit. The pyramid starts as PyTorch's layers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pixelwise.backbones.resnet import BLOCKS, FirstRate, ResNet
from pixelwise.errors import RequestError
from pixelwise.layers.zoom import pad_to_grid, zoom
from pixelwise.models.fcn_resnet import AUX_WEIGHT, FCNHead, stretch
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = 'Chen, Papandreou, Schroff, Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017'
SOURCE = (
    "paper and tensorflow/models, not held to their numbers: the trunk's strides lie a unit later; head=torchvision is "
    "equal to torchvision's network"
)
RATES_AT = 16  # output stride for which rates are written

HeadName = Literal["paper", "torchvision", "smp"]
Grid = Literal["anchored", "stretched", "corners"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a head brings with it, unless an option says otherwise."""

    output_stride: int
    multi_grid: tuple[int, ...]
    first_rate: FirstRate
    dropout: float
    aux: bool
    grid: Grid


FORMS = {
    "paper": Form(output_stride=16, multi_grid=(1, 2, 4), first_rate="own", dropout=0.1, aux=False, grid="anchored"),
    "torchvision": Form(
        output_stride=8, multi_grid=(1, 1, 1), first_rate="previous", dropout=0.5, aux=True, grid="stretched"
    ),
    "smp": Form(output_stride=8, multi_grid=(1, 1, 1), first_rate="own", dropout=0.5, aux=False, grid="corners"),
}


def convolution(source: int, width: int, kernel: int, *, rate: int = 1) -> list[nn.Module]:
    """Build a convolution that keeps the size, its normalisation and ReLU."""
    padding = rate * (kernel // 2)
    return [
        nn.Conv2d(source, width, kernel, padding=padding, dilation=rate, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]


class ImagePooling(nn.Sequential):
    """The mean of a map through a 1x1 convolution, at every cell; (N, source, h, w) to (N, width, h, w)."""

    def __init__(self, source: int, width: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *convolution(source, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Pool and spread."""
        pooled = x
        for layer in self:
            pooled = layer(pooled)  # (N, width, 1, 1)
        return pooled.expand(-1, -1, *x.shape[2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling; (N, source, h, w) to (N, width, h, w).

    Args:
        source: channels of the map.
        width: of each branch and of the projection.
        rates: of the 3x3 branches.
        dropout: behind the projection.
    """

    def __init__(self, source: int, width: int, *, rates: Sequence[int], dropout: float) -> None:
        super().__init__()
        branches = [
            nn.Sequential(*convolution(source, width, 1)),
            *(nn.Sequential(*convolution(source, width, 3, rate=rate)) for rate in rates),
            ImagePooling(source, width),
        ]
        self.convs = nn.ModuleList(branches)
        self.project = nn.Sequential(*convolution(len(branches) * width, width, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate all branches and project."""
        projected: Tensor = self.project(torch.cat([branch(x) for branch in self.convs], dim=1))
        return projected


class DeepLabV3(nn.Module):
    """Trunk, pyramid and classifier.

    Args:
        backbone: the dilated trunk.
        classifier: scores its cells.
        aux_classifier: scores those of its third stage, for training; None leaves it out.
        in_channels: C.
        num_classes: K.
        output_stride: of the trunk.
        grid: "anchored", cell i lies on pixel s i; "stretched", cells cover the image (align_corners=False);
            "corners", the first and the last cell lie on the first and the last pixel (align_corners=True).
    """

    def __init__(
        self,
        *,
        backbone: ResNet,
        classifier: nn.Module,
        aux_classifier: nn.Module | None,
        in_channels: int,
        num_classes: int,
        output_stride: int,
        grid: Grid,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.output_stride = output_stride
        self.grid = grid
        self.size_rule = SizeRule(period=output_stride)
        self.backbone = backbone
        self.classifier = classifier
        if aux_classifier is not None:
            self.aux_classifier = aux_classifier
        self.aux_weights = () if aux_classifier is None else (AUX_WEIGHT,)

    def upsample(self, scores: Tensor, images: Tensor, stride: int) -> Tensor:
        """Interpolate scores (N, K, h, w), whose cells are so many pixels apart, to (N, K, H, W)."""
        if self.grid == "anchored":
            return zoom(scores, stride, size=images.shape[2:])
        return stretch(scores, images, corners=self.grid == "corners")

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        stages = self.backbone.stages(pad_to_grid(images, self.output_stride) if self.grid == "anchored" else images)
        logits = self.upsample(self.classifier(stages.layer4), images, self.output_stride)
        if not (self.training and self.aux_weights):
            return SegmentationOutput(logits)
        aux = self.upsample(self.aux_classifier(stages.layer3), images, min(self.output_stride, 16))
        return SegmentationOutput(logits, (aux,))


def build(
    *,
    num_classes: int,
    in_channels: int,
    base_channels: int,
    blocks: Sequence[int],
    head: str,
    output_stride: int | None,
    rates: Sequence[int],
    multi_grid: Sequence[int] | None,
    dropout: float | None,
    aux: bool | None,
) -> DeepLabV3:
    """Build a network; None takes what the head brings with it.

    Args:
        num_classes: K.
        in_channels: C.
        base_channels: b; the pyramid has 4b channels.
        blocks: units of the trunk's stages.
        head: "paper", "torchvision" or "smp".
        output_stride: 8, 16 or 32.
        rates: of the pyramid at output stride 16; at 8 they double.
        multi_grid: factors on the rates of the last stage's units.
        dropout: behind the pyramid.
        aux: have an auxiliary classifier on the third stage, whose loss counts a half.
    """
    check_head(head, rates, dropout)
    form = FORMS[head]
    stride = form.output_stride if output_stride is None else output_stride
    backbone = ResNet(
        blocks=blocks,
        in_channels=in_channels,
        base_channels=base_channels,
        output_stride=stride,
        first_rate=form.first_rate,
        multi_grid=form.multi_grid if multi_grid is None else multi_grid,
    )
    width = 4 * base_channels
    pyramid = ASPP(
        backbone.out_channels,
        width,
        rates=[max(1, rate * RATES_AT // stride) for rate in rates],
        dropout=form.dropout if dropout is None else dropout,
    )
    extra = convolution(width, width, 3) if head != "paper" else []
    return DeepLabV3(
        backbone=backbone,
        classifier=nn.Sequential(pyramid, *extra, nn.Conv2d(width, num_classes, 1)),
        aux_classifier=FCNHead(16 * base_channels, num_classes) if (form.aux if aux is None else aux) else None,
        in_channels=in_channels,
        num_classes=num_classes,
        output_stride=stride,
        grid=form.grid,
    )


def check_head(head: str, rates: Sequence[int], dropout: float | None) -> None:
    """Refuse an unknown head and impossible rates."""
    if head not in FORMS:
        raise RequestError(f"head={head!r}; accepted: {', '.join(map(repr, FORMS))}. Give one of them.")
    if not rates or any(isinstance(rate, float) or rate < 1 for rate in rates):
        raise RequestError(
            f"rates={list(rates)}; accepted: whole numbers from 1, such as [6, 12, 18]. Give such a list."
        )
    if dropout is not None and not 0 <= dropout < 1:
        raise RequestError(f"dropout={dropout}; accepted: 0 up to, not including, 1 (the authors' code has 0.1).")


@register(
    family="DeepLab v3",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="reconstructed",
    source=SOURCE,
    input_size=(513, 513),
    debug={"base_channels": 4, "blocks": (1, 1, 1, 1)},
)
def deeplabv3_resnet50(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[50],
    head: HeadName = "paper",
    output_stride: int | None = None,
    rates: tuple[int, ...] = (6, 12, 18),
    multi_grid: tuple[int, ...] | None = None,
    dropout: float | None = None,
    aux: bool | None = None,
) -> DeepLabV3:
    """Build DeepLab v3 on ResNet-50: 39,048,533 parameters for 21 classes; see `build` for the options."""
    return build(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        blocks=blocks,
        head=head,
        output_stride=output_stride,
        rates=rates,
        multi_grid=multi_grid,
        dropout=dropout,
        aux=aux,
    )


@register(
    family="DeepLab v3",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="reconstructed",
    source=SOURCE,
    input_size=(513, 513),
    debug={"base_channels": 4, "blocks": (1, 1, 1, 1)},
)
def deeplabv3_resnet101(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[101],
    head: HeadName = "paper",
    output_stride: int | None = None,
    rates: tuple[int, ...] = (6, 12, 18),
    multi_grid: tuple[int, ...] | None = None,
    dropout: float | None = None,
    aux: bool | None = None,
) -> DeepLabV3:
    """Build DeepLab v3 on ResNet-101: 58,040,661 parameters for 21 classes; see `build` for the options."""
    return build(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        blocks=blocks,
        head=head,
        output_stride=output_stride,
        rates=rates,
        multi_grid=multi_grid,
        dropout=dropout,
        aux=aux,
    )
