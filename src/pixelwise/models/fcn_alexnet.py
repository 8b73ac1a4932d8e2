"""FCN-AlexNet: the 32-pixel-stride network of `models.fcn` (same papers) on CaffeNet instead of VGG-16.

The released net (voc-fcn-alexnet of shelhamer/fcn.berkeleyvision.org, 1305c73) is on Caffe's reference CaffeNet,
where each pool comes before its normalisation, not on AlexNet proper. Like the others it puts 100 zeros around
the image; its cells are centred on pixels, so that the kernel of the upsampling is odd: 63.

Axes: N batch, C image channels, K classes, H and W input size, b base channels (96 in the original).

Departures: as in `models.fcn`.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.backbones.alexnet import CaffeNetTrunk
from pixelwise.layers.bilinear import BilinearUpsampling
from pixelwise.layers.fully_connected import FullyConnected2d
from pixelwise.layers.vgg import convolve, initialise
from pixelwise.models.fcn import ANY_SIZE, PAPER, check_options, crop, start_at_zero
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, check_images


class FCNAlexNet(CaffeNetTrunk):
    """CaffeNet with convolutions for fc6 and fc7, one score, upsampled by 32."""

    def __init__(
        self, *, num_classes: int, in_channels: int, base_channels: int, dropout: float, learn_upsampling: bool
    ) -> None:
        check_options(dropout=dropout)
        super().__init__(in_channels=in_channels, base_channels=base_channels, first_padding=100)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.size_rule = ANY_SIZE
        wide, width = base_channels * 8 // 3, base_channels * 128 // 3  # 256 and 4096
        self.fc6 = FullyConnected2d(wide, width, 6)
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = FullyConnected2d(width, width, 1)
        self.drop7 = nn.Dropout(dropout)
        self.score_fr = nn.Conv2d(width, num_classes, 1)
        self.upscore = BilinearUpsampling(num_classes, kernel_size=63, stride=32, learnt=learn_upsampling)
        self.apply(initialise)
        start_at_zero(self.score_fr)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        pool5 = self.features(images)  # (N, 8/3 b, 21, 21) for 500
        fc6 = self.drop6(convolve(self.fc6, pool5))  # (N, 128/3 b, 16, 16)
        fc7 = self.drop7(convolve(self.fc7, fc6))
        upscore = self.upscore(self.score_fr(fc7))  # (N, K, 543, 543)
        return SegmentationOutput(crop(upscore, 18, images))


@register(
    family="FCN",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="verified",
    source="voc-fcn-alexnet/train.prototxt of shelhamer/fcn.berkeleyvision.org",
    input_size=(500, 500),
    debug={"base_channels": 6},
    aliases=("fcn32s_alexnet",),
)
def fcn_alexnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 96,
    dropout: float = 0.5,
    learn_upsampling: bool = False,
) -> FCNAlexNet:
    """Build FCN-AlexNet: 56,954,261 parameters for 21 classes."""
    return FCNAlexNet(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        dropout=dropout,
        learn_upsampling=learn_upsampling,
    )
