"""DeepLab v3 in cascade: L.-C. Chen, G. Papandreou, F. Schroff, H. Adam, "Rethinking Atrous Convolution for Semantic
Image Segmentation", 2017, https://arxiv.org/abs/1706.05587, section 3.2 and Fig. 3.

Map from the paper to this file:

- Fig. 3, block1 to block4                           -> `backbone.layer1` to `backbone.layer4`
- Fig. 3, block5 to block7, copies of block4         -> `block5` to `block7`
- Fig. 3 (a) strides, (b) rates that double per block -> `cascade_plan`
- section 3.2.1, multi-grid in block4 to block7      -> `multi_grid`

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64 in the paper), s output stride.

A 1x1 convolution behind the last block scores the cells, cell i lies on pixel s i, and scores are interpolated; other
sizes than s k + 1 get zeros at the bottom and the right. Weights do not depend on the output stride, from 8 to 256: a
shortcut that has to be coarser takes every second cell, as the authors' code does. The copies of block4 have three
identity shortcuts, 13,387,776 parameters each on ResNet-50 and ResNet-101; with `projection` the first is a 1x1
convolution as in block4 itself, 17,586,176. The paper does not say which.

Departure: the authors' blocks have the stride in their last 3x3 convolution; here it is in the first of the block
behind, as in the trunk. Multi-grid is (1, 2, 1) unless given, the paper's best of the cascade.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pixelwise.backbones.resnet import BLOCKS, Bottleneck, ResNet
from pixelwise.errors import RequestError
from pixelwise.layers.zoom import pad_to_grid, zoom
from pixelwise.models.deeplabv3 import PAPER
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

SOURCE = (
    "the paper; not held to the authors' numbers: strides lie a unit later than in their trunk, and whether the copies "
    "of block4 keep its projection is not stated"
)
STRIDES = (8, 16, 32, 64, 128, 256)
FIRST_COPY, LAST_COPY = 5, 7


def cascade_plan(output_stride: int, last_block: int) -> list[tuple[int, int]]:
    """Return stride and rate of block5 to the last block.

    >>> cascade_plan(16, 7), cascade_plan(256, 7), cascade_plan(64, 6)
    ([(1, 4), (1, 8), (1, 16)], [(2, 1), (2, 1), (2, 1)], [(2, 1), (1, 2)])
    """
    reached, rate = 32, max(1, 32 // output_stride)
    plan = []
    for _ in range(FIRST_COPY, last_block + 1):
        if reached < output_stride:
            reached *= 2
            plan.append((2, rate))
        else:
            rate *= 2
            plan.append((1, rate))
    return plan


def copy_of_block4(channels: int, *, units: int, stride: int, rates: Sequence[int], projection: bool) -> nn.Sequential:
    """Build a block; (N, 32b, h, w) to (N, 32b, h / stride, w / stride)."""
    block = []
    for index in range(units):
        step = stride if index == 0 else 1
        unit = Bottleneck(channels, channels // 4, stride=step, rate=rates[index % len(rates)], stride_on="3x3")
        if index == 0 and projection:
            unit.downsample = nn.Sequential(
                nn.Conv2d(channels, channels, 1, stride=step, bias=False), nn.BatchNorm2d(channels)
            )
        elif step > 1:
            unit.downsample = nn.MaxPool2d(1, stride=step)  # every second cell
        block.append(unit)
    return nn.Sequential(*block)


class Cascade(nn.Module):
    """Trunk, copies of its last block one behind the other, and a 1x1 classifier.

    Args:
        num_classes: K.
        in_channels: C.
        base_channels: b.
        blocks: units of block1 to block4; the copies have as many as block4.
        output_stride: 8, 16, 32, 64, 128 or 256.
        last_block: 4 to 7.
        multi_grid: factors on the rates of the units of block4 and its copies.
        projection: the copies begin with a projection, as block4 does.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        base_channels: int,
        blocks: Sequence[int],
        output_stride: int,
        last_block: int,
        multi_grid: Sequence[int],
        projection: bool,
    ) -> None:
        check(output_stride, last_block)
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.output_stride = output_stride
        self.size_rule = SizeRule(period=output_stride)
        self.backbone = ResNet(
            blocks=blocks,
            in_channels=in_channels,
            base_channels=base_channels,
            output_stride=min(output_stride, 32),
            first_rate="own",
            multi_grid=multi_grid,
        )
        channels = self.backbone.out_channels
        self.copies = [f"block{number}" for number in range(FIRST_COPY, last_block + 1)]
        for name, (stride, rate) in zip(self.copies, cascade_plan(output_stride, last_block), strict=True):
            rates = [rate * factor for factor in multi_grid]
            block = copy_of_block4(channels, units=blocks[3], stride=stride, rates=rates, projection=projection)
            self.add_module(name, block)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        x = self.backbone(pad_to_grid(images, self.output_stride))
        for name in self.copies:
            x = self.get_submodule(name)(x)
        return SegmentationOutput(zoom(self.classifier(x), self.output_stride, size=images.shape[2:]))


def check(output_stride: int, last_block: int) -> None:
    """Refuse what the paper's figure does not have."""
    if not 4 <= last_block <= LAST_COPY:
        raise RequestError(f"last_block={last_block}; accepted: 4 to 7. Give one of them.")
    reachable = [stride for stride in STRIDES if stride <= 32 * 2 ** (last_block - 4)]
    if output_stride not in reachable:
        shown = ", ".join(map(str, reachable))
        raise RequestError(
            f"output_stride={output_stride} with last_block={last_block}; accepted: {shown}. Give one of them."
        )


@register(
    family="DeepLab v3",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="reconstructed",
    source=SOURCE,
    input_size=(513, 513),
    debug={"base_channels": 2, "blocks": (1, 1, 1, 1)},
)
def deeplabv3_cascade_resnet50(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[50],
    output_stride: int = 16,
    last_block: int = 7,
    multi_grid: tuple[int, ...] = (1, 2, 1),
    projection: bool = False,
) -> Cascade:
    """Build the cascade on ResNet-50: 63,714,389 parameters for 21 classes."""
    return Cascade(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        blocks=blocks,
        output_stride=output_stride,
        last_block=last_block,
        multi_grid=multi_grid,
        projection=projection,
    )


@register(
    family="DeepLab v3",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="reconstructed",
    source=SOURCE,
    input_size=(513, 513),
    debug={"base_channels": 2, "blocks": (1, 1, 1, 1)},
)
def deeplabv3_cascade_resnet101(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[101],
    output_stride: int = 16,
    last_block: int = 7,
    multi_grid: tuple[int, ...] = (1, 2, 1),
    projection: bool = False,
) -> Cascade:
    """Build the cascade on ResNet-101: 82,706,517 parameters for 21 classes."""
    return Cascade(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        blocks=blocks,
        output_stride=output_stride,
        last_block=last_block,
        multi_grid=multi_grid,
        projection=projection,
    )
