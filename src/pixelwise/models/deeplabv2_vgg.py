"""DeepLab v2 on VGG-16: L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy, A. Yuille, "DeepLab: Semantic Image
Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", PAMI 2018,
https://arxiv.org/abs/1606.00915.

Map from the paper to this file:

- section 3.1, atrous convolution on VGG-16                                     -> `ASPP.forward`, trunk
- section 3.2, Fig. 4 and 7, atrous spatial pyramid pooling, ASPP-S and ASPP-L  -> `ASPP`, the builders
- section 4.1.2, DeepLab-LargeFOV under other learning policies                 -> `deeplabv2_vgg16_largefov`

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64 in the paper).

Four branches see pool5 at different rates, fc6_i 3x3, fc7_i and fc8_i 1x1 each, and their scores are summed. The
trunk is that of DeepLab-LargeFOV (3x3 pools, cell i on pixel 8 i) without its average pool. Training is on every
eighth pixel's label (`scores`); in use, and in `forward`, scores are interpolated by 8 as `layers.zoom` does. Any
size from 1x1 runs; the originals pad images to 513 at the bottom and the right with the mean colour.

Facts are those of ASPP-L in zbxzc35/deeplab_v2_python (`voc12/deeplab_v2_vgg16/config` of e290633), a copy of the
authors' networks; ASPP-S has other rates. The class layers are called fc8_1 to fc8_4, without the data set's name of
the release's fc8_voc12_1. `deeplabv2_vgg16_largefov` is the network of v1: the paper's table of learning policies
begins with v1's score. That its average pool stayed is inferred from this. Departure: without given weights the trunk,
fc6 and fc7 start from N(0, 2 / fan_in).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.layers.vgg import VGG16Trunk, convolve, initialise
from pixelwise.layers.zoom import zoom
from pixelwise.models.deeplabv1 import LargeFOV
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = (
    'Chen, Papandreou, Kokkinos, Murphy, Yuille, "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, '
    'Atrous Convolution, and Fully Connected CRFs", PAMI 2018'
)
STRIDE = 8  # pixels of a cell


class ASPP(VGG16Trunk):
    """The trunk and a branch per rate.

    Args:
        in_channels: C.
        num_classes: K.
        base_channels: b; fc6 and fc7 have 16b channels.
        rates: dilation of fc6 in each branch.
        dropout: rate after fc6 and fc7.
    """

    size_rule = SizeRule(period=STRIDE)

    def __init__(
        self, *, in_channels: int, num_classes: int, base_channels: int, rates: Sequence[int], dropout: float
    ) -> None:
        if not 0 <= dropout < 1:
            raise RequestError(f"dropout={dropout}; accepted: 0 up to, not including, 1 (the original's is 0.5).")
        super().__init__(in_channels=in_channels, base_channels=base_channels, conv5_dilation=2)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.branches = range(1, len(rates) + 1)
        # Fields of view are those of fc6, whose cells lie behind five pools of stride 2 in VGG-16.
        self.classifier_strides = {f"fc6_{branch}": 32 for branch in self.branches}
        self.pool1 = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.pool2 = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.pool3 = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.pool4 = nn.MaxPool2d(3, stride=1, padding=1)
        self.pool5 = nn.MaxPool2d(3, stride=1, padding=1)
        channels = 16 * base_channels
        for branch, rate in zip(self.branches, rates, strict=True):
            fc6 = nn.Conv2d(8 * base_channels, channels, 3, dilation=rate, padding=rate)
            self.add_module(f"fc6_{branch}", fc6)
            self.add_module(f"fc7_{branch}", nn.Conv2d(channels, channels, 1))
            self.add_module(f"fc8_{branch}", nn.Conv2d(channels, num_classes, 1))
        self.drop = nn.Dropout(dropout)
        self.apply(initialise)
        for branch in self.branches:
            nn.init.normal_(self.get_parameter(f"fc8_{branch}.weight"), std=0.01)

    def classify(self, x: Tensor, branch: int) -> Tensor:
        """Score cells by one branch: (N, 8b, h, w) to (N, K, h, w)."""
        x = self.drop(convolve(self.get_submodule(f"fc6_{branch}"), x))  # (N, 16b, h, w)
        x = self.drop(convolve(self.get_submodule(f"fc7_{branch}"), x))
        scores: Tensor = self.get_submodule(f"fc8_{branch}")(x)
        return scores

    def cells(self, images: Tensor) -> Tensor:
        """Score (N, C, H, W) on (N, K, ceil((H - 1) / 8) + 1, ceil((W - 1) / 8) + 1) cells."""
        x = self.pool1(self.block1(images))  # (N, b, ceil((H - 1) / 2) + 1, ...)
        x = self.pool2(self.block2(x))
        x = self.pool3(self.block3(x))
        x = self.pool4(self.block4(x))  # (N, 8b, ceil((H - 1) / 8) + 1, ...)
        x = self.pool5(self.block5(x))
        scores = self.classify(x, self.branches[0])
        for branch in self.branches[1:]:
            scores = scores + self.classify(x, branch)
        return scores

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        return SegmentationOutput(zoom(self.cells(images), STRIDE, size=images.shape[2:]))

    def scores(self, images: Tensor) -> Tensor:
        """Return the scores on which the original trains, (N, K, ceil(H / 8), ceil(W / 8)): those of pixels 8 i."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        rows, columns = (-(-side // STRIDE) for side in images.shape[2:])
        return self.cells(images)[:, :, :rows, :columns]


@register(
    family="DeepLab v2",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="reconstructed",
    source="DeepLab-LargeFOV of v1, as the paper's scores imply; its average pool before fc6 is not confirmed",
    input_size=(513, 513),
    debug={"base_channels": 2},
)
def deeplabv2_vgg16_largefov(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5
) -> LargeFOV:
    """Build DeepLab-LargeFOV, which v2 trains longer: 20,505,429 parameters for 21 classes."""
    return LargeFOV(num_classes=num_classes, in_channels=in_channels, base_channels=base_channels, dropout=dropout)


@register(
    family="DeepLab v2",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="verified",
    source="paper section 4.1.2, ASPP-S: the released ASPP-L with other rates",
    input_size=(513, 513),
    debug={"base_channels": 2},
)
def deeplabv2_vgg16_aspp_s(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5
) -> ASPP:
    """Build ASPP-S, rates 2, 4, 8, 12: 37,877,652 parameters for 21 classes."""
    return ASPP(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        rates=(2, 4, 8, 12),
        dropout=dropout,
    )


@register(
    family="DeepLab v2",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="verified",
    source="the released network, ASPP-L of the paper's section 4.1.2",
    input_size=(513, 513),
    debug={"base_channels": 2},
)
def deeplabv2_vgg16_aspp_l(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5
) -> ASPP:
    """Build ASPP-L, rates 6, 12, 18, 24: 37,877,652 parameters for 21 classes."""
    return ASPP(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        rates=(6, 12, 18, 24),
        dropout=dropout,
    )
