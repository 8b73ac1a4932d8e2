"""FCN-GoogLeNet: the 32-pixel-stride network of `models.fcn` (same papers) on GoogLeNet instead of VGG-16.

No definition was released. Known are the base (GoogLeNet without its auxiliary classifiers, class layer replaced by
a 1x1 score layer), the stride of 32, 6 million parameters, and a receptive field of 907 pixels in the CVPR paper's
Table 1, which is the field with the final 7x7 average pool; its text says that results were better without.

Reconstructed after FCN-AlexNet: 100 zeros around the image; a kernel of 63, since the cells are centred on pixels;
and the crop that puts the centre of the first cell onto the kernel's: 98, or 2 with the final pool. The final pool
is left out by default, as the text says; `final_pool=True` is the network of the table and needs 29 pixels a side.

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64 in the original).

Departures: as in `models.fcn`.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.backbones.googlenet import CAFFE, InceptionTrunk
from pixelwise.layers.bilinear import BilinearUpsampling
from pixelwise.layers.vgg import initialise
from pixelwise.models.fcn import ANY_SIZE, PAPER, check_options, crop, start_at_zero
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images


class FCNGoogLeNet(InceptionTrunk):
    """GoogLeNet with one score, upsampled by 32."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        base_channels: int,
        dropout: float,
        final_pool: bool,
        learn_upsampling: bool,
    ) -> None:
        check_options(dropout=dropout)
        super().__init__(in_channels=in_channels, base_channels=base_channels, style=CAFFE, first_padding=100)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.size_rule = SizeRule(minimum=29, period=32) if final_pool else ANY_SIZE
        self.offset = 2 if final_pool else 98
        self.pool5 = nn.AvgPool2d(7, stride=1) if final_pool else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.score_fr = nn.Conv2d(16 * base_channels, num_classes, 1)
        self.upscore = BilinearUpsampling(num_classes, kernel_size=63, stride=32, learnt=learn_upsampling)
        self.apply(initialise)
        start_at_zero(self.score_fr)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        _, _, inception5b = self.stages(images)  # (N, 16b, 21, 21) for 500
        score_fr = self.score_fr(self.dropout(self.pool5(inception5b)))
        upscore = self.upscore(score_fr)  # (N, K, 703, 703)
        return SegmentationOutput(crop(upscore, self.offset, images))


@register(
    family="FCN",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="reconstructed",
    source="base, stride and parameter count from the CVPR paper; no definition was released: padding, kernel and crop "
    "after FCN-AlexNet",
    input_size=(500, 500),
    debug={"base_channels": 8},
    aliases=("fcn32s_googlenet",),
)
def fcn_googlenet(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.4,
    final_pool: bool = False,
    learn_upsampling: bool = False,
) -> FCNGoogLeNet:
    """Build FCN-GoogLeNet: 5,995,077 parameters for 21 classes."""
    return FCNGoogLeNet(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        dropout=dropout,
        final_pool=final_pool,
        learn_upsampling=learn_upsampling,
    )
