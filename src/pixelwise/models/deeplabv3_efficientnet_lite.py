"""DeepLab v3's head on EfficientNet-Lite0, for good results from few images on a CPU. It is ours, not a paper's.

After L.-C. Chen, G. Papandreou, F. Schroff, H. Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation",
2017, https://arxiv.org/abs/1706.05587, and of the same authors' v3+ (ECCV 2018, https://arxiv.org/abs/1802.02611) the
decoder, without which an output stride of 16 loses what is thin:

- v3, section 3.3: 1x1 and three atrous 3x3 convolutions and the image's mean, side by side -> `AtrousPyramid`
- v3, section 3.1: output stride by dilation instead of stride        -> `backbones.efficientnet_lite.Encoder`
- v3+, Fig. 2, decoder: a reduced map of stride 4 beside the upsampled pyramid              -> `reduce`, `decode`

What differs, for speed: half the papers' 256 channels and fewer, one 3x3 convolution in the decoder for two. The branch
of the image's mean has a bias and no batch normalisation, so that a batch of one can be trained. Grids are anchored at
the top left corner, and any size is legal.

Axes: N batch, C image channels, K classes, H and W input size, o output stride, d decoder channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.backbones import efficientnet_lite
from pixelwise.errors import RequestError
from pixelwise.models.unet_encoder import initialise, upsample
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

RATES = (6, 12, 18)  # at output stride 16; twice as far apart at 8, half as far at 32
LOW_LEVEL_STRIDE, LOW_LEVEL_CHANNELS = 4, 32


def convolution(in_channels: int, channels: int, kernel: int, *, rate: int = 1) -> nn.Sequential:
    """Build a convolution that keeps the size, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class AtrousPyramid(nn.Module):
    """Views of one map through windows of several sizes, and of the whole map, mixed by a 1x1 convolution."""

    def __init__(self, in_channels: int, channels: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([convolution(in_channels, channels, 1)])
        self.branches.extend(convolution(in_channels, channels, 3, rate=rate) for rate in rates)
        self.image = nn.Conv2d(in_channels, channels, 1)
        self.mix = convolution(channels * (len(rates) + 2), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (N, C, h, w) into (N, d, h, w)."""
        mean = functional.relu(self.image(x.mean(dim=(2, 3), keepdim=True)))  # (N, d, 1, 1)
        views = [branch(x) for branch in self.branches]
        mixed: Tensor = self.mix(torch.cat([*views, mean.expand_as(views[0])], dim=1))
        return mixed


class DeepLabV3Lite(nn.Module):
    """EfficientNet-Lite0, the atrous pyramid, and a decoder at stride 4."""

    def __init__(self, *, num_classes: int, in_channels: int, output_stride: int, decoder_channels: int) -> None:
        super().__init__()
        if decoder_channels < 1:
            raise RequestError(f"decoder_channels={decoder_channels}; accepted: whole numbers from 1. Give 128, say.")
        self.in_channels = in_channels
        self.size_rule = SizeRule(period=max(output_stride, efficientnet_lite.STRIDE))
        self.encoder = efficientnet_lite.Encoder(in_channels=in_channels, output_stride=output_stride)
        self.encoder.apply(efficientnet_lite.initialise)
        self.factor = output_stride // LOW_LEVEL_STRIDE
        self.low_level = self.encoder.strides.index(LOW_LEVEL_STRIDE)
        rates = tuple(rate * 16 // output_stride for rate in RATES)
        self.pyramid = AtrousPyramid(self.encoder.channels[-1], decoder_channels, rates)
        self.reduce = convolution(self.encoder.channels[self.low_level], LOW_LEVEL_CHANNELS, 1)
        self.decode = convolution(decoder_channels + LOW_LEVEL_CHANNELS, decoder_channels, 3)
        self.head = nn.Conv2d(decoder_channels, num_classes, 1)
        for part in (self.pyramid, self.reduce, self.decode):
            part.apply(initialise)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        maps = self.encoder(images)
        skip = self.reduce(maps[self.low_level])  # (N, 32, H/4, W/4)
        x = self.pyramid(maps[-1])  # (N, d, H/o, W/o)
        x = self.decode(torch.cat([upsample(x, self.factor, skip), skip], dim=1))  # (N, d, H/4, W/4)
        return SegmentationOutput(upsample(self.head(x), LOW_LEVEL_STRIDE, images))


@register(
    family="Practical",
    task="semantic",
    year=2020,
    paper='Chen et al., "Rethinking Atrous Convolution", 2017, and Liu, "EfficientNet-Lite", TensorFlow blog 2020',
    fidelity="ours",
    source="EfficientNet-Lite0, equal to its published weights' network, under DeepLab v3's head and a light decoder",
    input_size=(360, 480),
    pretrained=efficientnet_lite.PRETRAINED,
)
def deeplabv3_efficientnet_lite0(
    *, num_classes: int, in_channels: int = 3, output_stride: int = 16, decoder_channels: int = 128
) -> DeepLabV3Lite:
    """Build EfficientNet-Lite0 at output stride 16 (or 8, or 32, from the same weights) under DeepLab v3's head."""
    return DeepLabV3Lite(
        num_classes=num_classes,
        in_channels=in_channels,
        output_stride=output_stride,
        decoder_channels=decoder_channels,
    )
