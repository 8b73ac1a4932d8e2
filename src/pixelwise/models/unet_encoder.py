"""U-Nets over a classifier's encoder, for good results from few images on a CPU. They are ours, not a paper's.

After O. Ronneberger, P. Fischer, T. Brox, "U-Net", MICCAI 2015, https://arxiv.org/abs/1505.04597: a path that
contracts, one that expands, a skip at every stride. What differs, and why:

- the contracting path is a classifier that ImageNet has taught, so that few images and minutes suffice;
- the expanding path is light: bilinear upsampling and a single 3x3 convolution with batch normalisation per stride,
  `Merge`, since the encoder has most of what there is to learn;
- it ends at the encoder's finest stride (2); the logits are interpolated to the image's size.

Every grid is anchored at the top left corner and cropped at the other end, so that any size is legal and tiles see what
the whole image sees.

Axes: N batch, C image channels, K classes, H and W input size, s stride of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.backbones import efficientnet_lite, timm_encoder
from pixelwise.errors import RequestError
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

WIDTHS = (1, 2, 3, 4)  # of the expanding path from the finest map, in units of `decoder_channels`; then the last one


def upsample(x: Tensor, factor: int, like: Tensor) -> Tensor:
    """Interpolate a map on a grid anchored at the top left corner, and crop it to the size of another."""
    x = functional.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
    return x[:, :, : like.shape[2], : like.shape[3]]


class Merge(nn.Module):
    """Bring the deeper map to a skip's grid, and mix the two by a 3x3 convolution."""

    def __init__(self, deep_channels: int, skip_channels: int, channels: int, *, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(deep_channels + skip_channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """Merge (N, C1, h, w) and (N, C2, H, W) into (N, C3, H, W), with H at most `factor` h."""
        x = torch.cat([upsample(deep, self.factor, skip), skip], dim=1)
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class EncoderUNet(nn.Module):
    """An encoder that returns a map for each stride, and the expanding path over it.

    Args:
        encoder: returns a list of maps, from the finest.
        channels: of the maps.
        strides: of the maps, rising.
        num_classes: K.
        in_channels: C.
        decoder_channels: width of the expanding path at the finest stride; deeper ones are 2, 3 and 4 times as wide.
        size_rule: legal sizes.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        in_channels: int,
        decoder_channels: int,
        size_rule: SizeRule,
    ) -> None:
        super().__init__()
        if decoder_channels < 1:
            raise RequestError(f"decoder_channels={decoder_channels}; accepted: whole numbers from 1. Give 32, say.")
        self.in_channels = in_channels
        self.size_rule = size_rule
        self.stride = strides[0]
        self.encoder = encoder
        widths = [decoder_channels * WIDTHS[min(level, len(WIDTHS) - 1)] for level in range(len(channels) - 1)]
        deep = channels[-1]
        merges: list[nn.Module] = []
        for level in reversed(range(len(channels) - 1)):
            factor = strides[level + 1] // strides[level]
            merges.append(Merge(deep, channels[level], widths[level], factor=factor))
            deep = widths[level]
        self.merges = nn.ModuleList(merges)
        self.head = nn.Conv2d(deep, num_classes, 1)
        self.merges.apply(initialise)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        *skips, x = self.encoder(images)  # (N, channels, H/s, W/s), rounded up
        for merge in self.merges:
            x = merge(x, skips.pop())
        return SegmentationOutput(upsample(self.head(x), self.stride, images))


def initialise(module: nn.Module) -> None:
    """Draw the weights of the expanding path from N(0, 2 / fan_in)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")


@register(
    family="Practical",
    task="semantic",
    year=2020,
    paper='Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog 2020 (the encoder)',
    fidelity="ours",
    source="EfficientNet-Lite0, equal to its published weights' network, under a light expanding path of ours",
    input_size=(360, 480),
    pretrained=efficientnet_lite.PRETRAINED,
)
def unet_efficientnet_lite0(*, num_classes: int, in_channels: int = 3, decoder_channels: int = 32) -> EncoderUNet:
    """Build the quick default for photographs: EfficientNet-Lite0, strides 2 to 32, and a light expanding path."""
    encoder = efficientnet_lite.Encoder(in_channels=in_channels)
    encoder.apply(efficientnet_lite.initialise)
    return EncoderUNet(
        encoder,
        channels=encoder.channels,
        strides=encoder.strides,
        num_classes=num_classes,
        in_channels=in_channels,
        decoder_channels=decoder_channels,
        size_rule=SizeRule(period=efficientnet_lite.STRIDE),
    )


@register(
    family="Practical",
    task="semantic",
    year=2019,
    paper="the encoder's own; timm: Wightman, PyTorch Image Models, 2019",
    fidelity="ours",
    source="any encoder of timm that returns its maps, under a light expanding path of ours",
    input_size=(384, 480),
    debug={"encoder": "test_efficientnet", "decoder_channels": 4},
    pretrained=timm_encoder.PRETRAINED,
    requires="timm",
)
def unet_timm(
    *, num_classes: int, in_channels: int = 3, encoder: str = "resnet18", decoder_channels: int = 32
) -> EncoderUNet:
    """Build a U-Net over an encoder of timm, by timm's name."""
    maps = timm_encoder.TimmEncoder(encoder, in_channels=in_channels)
    deepest = maps.strides[-1]
    return EncoderUNet(
        maps,
        channels=maps.channels,
        strides=maps.strides,
        num_classes=num_classes,
        in_channels=in_channels,
        decoder_channels=decoder_channels,
        size_rule=SizeRule(step=deepest, minimum=deepest, period=deepest),
    )
