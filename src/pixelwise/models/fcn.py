"""FCN on VGG-16: J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015, https://arxiv.org/abs/1411.4038; journal version PAMI 2017, https://arxiv.org/abs/1605.06211.

Map from the paper to this file (layer names are those of the released nets):

- section 3.1, classifier as a dense heat map  -> `FCNTrunk` (fc6 7x7 and fc7 1x1 convolutions, score_fr)
- section 3.3, upsampling by deconvolution     -> `layers.bilinear.BilinearUpsampling`
- section 4.2, Fig. 3, skips                   -> `FCN32s`, `FCN16s`, `FCN8s`
- PAMI, skips trained all at once              -> `Scale`, `fcn8s_vgg16_atonce`

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64 in the paper).

The networks are those of the released code (shelhamer/fcn.berkeleyvision.org, 1305c73): 100 zeros around the
image, so that any size from 1x1 runs; pools that count a started window; crops at fixed offsets; bilinear
kernels that are not learnt; score layers that start at zero, so that the first output is zero everywhere.

The CVPR paper learns the upsampling between the skips and keeps only the last one fixed:
`learn_upsampling=True, fixed_final=True`. `learn_upsampling=True` alone learns the last one too.

Departures: the trunk and fc6, fc7 start from N(0, 2 / fan_in) where no weights are given, since the original
always starts from ImageNet weights (`backbones.vgg.by_layer_name`). Images come RGB or BGR and scaled as the
weights want them; that is the business of a model file's normalisation.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.layers.bilinear import BilinearUpsampling
from pixelwise.layers.fully_connected import FullyConnected2d
from pixelwise.layers.vgg import VGG16Trunk, convolve, initialise
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = 'Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015 and PAMI 2017'
SOURCE = "the released net of shelhamer/fcn.berkeleyvision.org; learn_upsampling and fixed_final give the CVPR text's"
# Any size, on a pooling grid of 32 pixels.
ANY_SIZE = SizeRule(period=32)


def crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    """Cut out the size of `like`, beginning `offset` cells from the top left: the Caffe layer "Crop"."""
    return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]


def start_at_zero(*scores: nn.Conv2d) -> None:
    """Set weights and biases of score layers to zero, as the nets without a filler start them."""
    for score in scores:
        nn.init.zeros_(score.weight)
        assert score.bias is not None
        nn.init.zeros_(score.bias)


def check_options(*, dropout: float, learn_upsampling: bool = False, fixed_final: bool = False) -> None:
    """Refuse impossible options of any FCN."""
    if not 0 <= dropout < 1:
        raise RequestError(f"dropout={dropout}; accepted: 0 up to, not including, 1 (the original's is 0.5).")
    if fixed_final and not learn_upsampling:
        raise RequestError(
            "fixed_final=True has no effect with learn_upsampling=False; accepted: both true (the CVPR text), or "
            "fixed_final=False. Change one."
        )


class Scale(nn.Module):
    """Multiplication by a constant: the all-at-once net's Scale layers, which are never trained."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled map."""
        return x * self.factor


class FCNTrunk(VGG16Trunk):
    """VGG-16 as a network without a size: the classifier's layers as convolutions, and one score layer."""

    def __init__(self, *, num_classes: int, in_channels: int, base_channels: int, dropout: float) -> None:
        super().__init__(in_channels=in_channels, base_channels=base_channels, first_padding=100)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.size_rule = ANY_SIZE
        b = base_channels
        self.pool1 = nn.MaxPool2d(2, ceil_mode=True)
        self.pool2 = nn.MaxPool2d(2, ceil_mode=True)
        self.pool3 = nn.MaxPool2d(2, ceil_mode=True)
        self.pool4 = nn.MaxPool2d(2, ceil_mode=True)
        self.pool5 = nn.MaxPool2d(2, ceil_mode=True)
        self.fc6 = FullyConnected2d(8 * b, 64 * b, 7)
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = FullyConnected2d(64 * b, 64 * b, 1)
        self.drop7 = nn.Dropout(dropout)
        self.score_fr = nn.Conv2d(64 * b, num_classes, 1)
        self.apply(initialise)
        start_at_zero(self.score_fr)

    def descend(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return pool3 (N, 4b, h/8, w/8), pool4 (N, 8b, h/16, w/16) and score_fr (N, K, h/32 - 6, w/32 - 6).

        h = H + 198 and w = W + 198, divisions rounded up.
        """
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        pool1 = self.pool1(self.block1(images))  # (N, b, h/2, w/2)
        pool2 = self.pool2(self.block2(pool1))  # (N, 2b, h/4, w/4)
        pool3 = self.pool3(self.block3(pool2))
        pool4 = self.pool4(self.block4(pool3))
        pool5 = self.pool5(self.block5(pool4))  # (N, 8b, h/32, w/32)
        fc6 = self.drop6(convolve(self.fc6, pool5))  # (N, 64b, h/32 - 6, w/32 - 6)
        fc7 = self.drop7(convolve(self.fc7, fc6))
        return pool3, pool4, self.score_fr(fc7)


class FCN32s(FCNTrunk):
    """One score, upsampled by 32."""

    def __init__(
        self, *, num_classes: int, in_channels: int, base_channels: int, dropout: float, learn_upsampling: bool
    ) -> None:
        check_options(dropout=dropout)
        super().__init__(num_classes=num_classes, in_channels=in_channels, base_channels=base_channels, dropout=dropout)
        self.upscore = BilinearUpsampling(num_classes, kernel_size=64, stride=32, learnt=learn_upsampling)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        _, _, score_fr = self.descend(images)
        upscore = self.upscore(score_fr)  # 544 for 500
        return SegmentationOutput(crop(upscore, 19, images))


class FCN16s(FCNTrunk):
    """Scores at strides 32 and 16, upsampled by 16."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        base_channels: int,
        dropout: float,
        learn_upsampling: bool,
        fixed_final: bool,
    ) -> None:
        check_options(dropout=dropout, learn_upsampling=learn_upsampling, fixed_final=fixed_final)
        super().__init__(num_classes=num_classes, in_channels=in_channels, base_channels=base_channels, dropout=dropout)
        learn_final = learn_upsampling and not fixed_final
        self.upscore2 = BilinearUpsampling(num_classes, kernel_size=4, stride=2, learnt=learn_upsampling)
        self.score_pool4 = nn.Conv2d(8 * base_channels, num_classes, 1)
        self.upscore16 = BilinearUpsampling(num_classes, kernel_size=32, stride=16, learnt=learn_final)
        start_at_zero(self.score_pool4)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        _, pool4, score_fr = self.descend(images)
        upscore2 = self.upscore2(score_fr)  # 34 for 500
        fuse_pool4 = upscore2 + crop(self.score_pool4(pool4), 5, upscore2)
        upscore16 = self.upscore16(fuse_pool4)  # 560 for 500
        return SegmentationOutput(crop(upscore16, 27, images))


class FCN8s(FCNTrunk):
    """Scores at strides 32, 16 and 8, upsampled by 8; `scales` multiply pool4 and pool3 before their scores."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        base_channels: int,
        dropout: float,
        learn_upsampling: bool,
        fixed_final: bool,
        scales: tuple[float, float] | None = None,
    ) -> None:
        check_options(dropout=dropout, learn_upsampling=learn_upsampling, fixed_final=fixed_final)
        super().__init__(num_classes=num_classes, in_channels=in_channels, base_channels=base_channels, dropout=dropout)
        learn_final = learn_upsampling and not fixed_final
        self.upscore2 = BilinearUpsampling(num_classes, kernel_size=4, stride=2, learnt=learn_upsampling)
        self.scale_pool4 = Scale(scales[0]) if scales else nn.Identity()
        self.score_pool4 = nn.Conv2d(8 * base_channels, num_classes, 1)
        self.upscore_pool4 = BilinearUpsampling(num_classes, kernel_size=4, stride=2, learnt=learn_upsampling)
        self.scale_pool3 = Scale(scales[1]) if scales else nn.Identity()
        self.score_pool3 = nn.Conv2d(4 * base_channels, num_classes, 1)
        self.upscore8 = BilinearUpsampling(num_classes, kernel_size=16, stride=8, learnt=learn_final)
        start_at_zero(self.score_pool4, self.score_pool3)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        pool3, pool4, score_fr = self.descend(images)
        upscore2 = self.upscore2(score_fr)  # 34 for 500
        fuse_pool4 = upscore2 + crop(self.score_pool4(self.scale_pool4(pool4)), 5, upscore2)
        upscore_pool4 = self.upscore_pool4(fuse_pool4)  # 70 for 500
        fuse_pool3 = upscore_pool4 + crop(self.score_pool3(self.scale_pool3(pool3)), 9, upscore_pool4)
        upscore8 = self.upscore8(fuse_pool3)  # 568 for 500
        return SegmentationOutput(crop(upscore8, 31, images))


@register(
    family="FCN",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="verified",
    source="voc-fcn32s/train.prototxt of shelhamer/fcn.berkeleyvision.org",
    input_size=(500, 500),
    debug={"base_channels": 2},
)
def fcn32s_vgg16(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
    learn_upsampling: bool = False,
) -> FCN32s:
    """Build FCN-32s: 134,346,581 parameters for 21 classes."""
    return FCN32s(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        dropout=dropout,
        learn_upsampling=learn_upsampling,
    )


@register(
    family="FCN",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="verified",
    source=f"voc-fcn16s: {SOURCE}",
    input_size=(500, 500),
    debug={"base_channels": 2},
)
def fcn16s_vgg16(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
    learn_upsampling: bool = False,
    fixed_final: bool = False,
) -> FCN16s:
    """Build FCN-16s: 134,357,354 parameters for 21 classes; trained from FCN-32s (`backbones.transplant`)."""
    return FCN16s(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        dropout=dropout,
        learn_upsampling=learn_upsampling,
        fixed_final=fixed_final,
    )


@register(
    family="FCN",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="verified",
    source=f"voc-fcn8s: {SOURCE}",
    input_size=(500, 500),
    debug={"base_channels": 2},
)
def fcn8s_vgg16(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
    learn_upsampling: bool = False,
    fixed_final: bool = False,
) -> FCN8s:
    """Build FCN-8s: 134,362,751 parameters for 21 classes; trained from FCN-16s (`backbones.transplant`)."""
    return FCN8s(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        dropout=dropout,
        learn_upsampling=learn_upsampling,
        fixed_final=fixed_final,
    )


@register(
    family="FCN",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="verified",
    source=f"voc-fcn8s-atonce: {SOURCE}",
    input_size=(500, 500),
    debug={"base_channels": 2},
    aliases=("fcn8s_atonce", "FCN8sAtOnce"),
)
def fcn8s_vgg16_atonce(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
    learn_upsampling: bool = False,
    fixed_final: bool = False,
) -> FCN8s:
    """Build FCN-8s trained in one stage: pool4 times 0.01 and pool3 times 0.0001 before their scores."""
    return FCN8s(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        dropout=dropout,
        learn_upsampling=learn_upsampling,
        fixed_final=fixed_final,
        scales=(0.01, 0.0001),
    )
