"""SegNet and SegNet-Basic: V. Badrinarayanan, A. Kendall, R. Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder
Architecture for Image Segmentation", PAMI 2017, https://arxiv.org/abs/1511.00561.

Map from the paper and the release (alexgkendall/SegNet-Tutorial, commit bb68b64) to this file:

- Fig. 2, encoder and decoder of VGG-16's thirteen convolutions (segnet_train.prototxt)   -> `SegNet`
- section 3.1, four 7x7 encoders and decoders of 64 channels (segnet_basic_train.prototxt) -> `SegNetBasic`
- Fig. 3, "Convolution + Batch Normalisation + ReLU"                                        -> `NormalisedNet`
- Fig. 3, pooling indices                                                                   -> `layers.unpooling`
- Table 1, SegNet-SingleChannelDecoder                                                      -> `single_channel`

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64 in the paper). Layers have the
names of the release's definitions, so that `conv5_3_D` is the first decoder layer and `conv1_1_D` the classifier.

Each decoder layer convX_D is an ordinary convolution with the channels of encoder layer convX swapped, so the last
one of a block is where channels drop. SegNet has a ReLU after every layer but the classifier; SegNet-Basic has none in
its decoder. Sides are halved with ceiling: 360 x 480 goes through 180 x 240, 90 x 120, 45 x 60, 23 x 30, 12 x 15.

Batch normalisation is Caffe's: eps 1e-9, scale 1, shift 0.001. The originals have no running statistics (they
average those of training batches once, after training: `engine.precise_batch_norm`); here PyTorch keeps them.
A raised `eps` tames channels that are constant in training but not in use, which 1e-9 magnifies by up to 30,000.
Weights start from N(0, 2 / fan_in); the release then copies VGG-16's ImageNet weights into SegNet's encoder.

Paper and release differ in SegNet-Basic: the release's convolutions have biases, the paper says none; `bias`
chooses, with the release's as the default. The paper's local contrast normalisation of the image is the release's
normalisation across channels (`LocalResponseNorm`), which is made for BGR values of 0 to 255, from which no mean is
taken: y = x / (1 + 2e-5 * sum of x^2)^0.75. The sum runs over five neighbouring channels, so over all of an image of
up to three; of more channels, each sees two on either side. Other scales of the image make it weak.

Left out: the other variants of Table 1 (how they add and normalise is not said to the number) and the Xavier filler
of the release's PASCAL definitions.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError
from pixelwise.layers.unpooling import MaxPool2x2, MaxUnpool2x2
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = (
    'Badrinarayanan, Kendall, Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image '
    'Segmentation", PAMI 2017'
)
EPS = 1e-9
SHIFT = 0.001
DropoutPlaces = Literal["central", "every"]


def initialise(module: nn.Module, *, shift: float) -> None:
    """Draw weights from N(0, 2 / fan_in), Caffe's "msra" filler; biases are 0 and normalisations shift a little."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.constant_(module.bias, shift)


def dropout_layer(rate: float, *, present: bool = True) -> nn.Module:
    """Build a dropout, or nothing where there is none."""
    return nn.Dropout(rate) if present and rate else nn.Identity()


class NormalisedNet(nn.Module):
    """A network of layers "name" and "name_bn": a convolution and its batch normalisation."""

    def __init__(self, *, in_channels: int, num_classes: int, base_channels: int, dropout: float, eps: float) -> None:
        super().__init__()
        if base_channels < 1:
            raise RequestError(f"base_channels={base_channels}; accepted: whole numbers from 1 (the paper's is 64).")
        if not 0 <= dropout < 1:
            raise RequestError(f"dropout={dropout}; accepted: 0 up to, not including, 1 (the release's is 0.5).")
        if not 0 < eps < 1:
            raise RequestError(f"eps={eps}; accepted: above 0 and below 1 (the release's is 1e-9, PyTorch's 1e-5).")
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.eps = eps

    def add(self, name: str, convolution: nn.Conv2d) -> None:
        """Register a layer."""
        self.add_module(name, convolution)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(convolution.out_channels, eps=self.eps))

    def convolve(self, x: Tensor, *names: str, relu: bool = True) -> Tensor:
        """Apply layers one after the other: convolution, normalisation, ReLU."""
        for name in names:
            x = self.get_submodule(f"{name}_bn")(self.get_submodule(name)(x))
            x = functional.relu(x, inplace=True) if relu else x
        return x


class SegNet(NormalisedNet):
    """VGG-16's convolutions, their mirror image, and five sets of pooling switches between them.

    Args:
        in_channels: C.
        num_classes: K.
        base_channels: b; blocks have b, 2b, 4b, 8b and 8b channels.
        dropout: rate of the dropout layers; 0 for none.
        dropout_places: "central" (after pool3 to pool5 and after decoder blocks 5 to 3) or "every" (before each
            pool and each unpooling).
        eps: of batch normalisation.
        shift: initial shift of batch normalisation.
    """

    size_rule = SizeRule(period=32)

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        base_channels: int,
        dropout: float,
        dropout_places: DropoutPlaces,
        eps: float,
        shift: float,
    ) -> None:
        super().__init__(
            in_channels=in_channels, num_classes=num_classes, base_channels=base_channels, dropout=dropout, eps=eps
        )
        if dropout_places not in ("central", "every"):
            raise RequestError(f"dropout_places={dropout_places!r}; accepted: 'central' or 'every'.")
        source = in_channels
        for block, (factor, depth) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)), 1):
            for layer in range(1, depth + 1):
                width = factor * base_channels
                self.add(f"conv{block}_{layer}", nn.Conv2d(source, width, 3, padding=1))
                if (block, layer) != (1, 1):
                    self.add(f"conv{block}_{layer}_D", nn.Conv2d(width, source, 3, padding=1))
                source = width
        self.conv1_1_D = nn.Conv2d(base_channels, num_classes, 3, padding=1)
        self.pool1, self.pool2, self.pool3, self.pool4, self.pool5 = (MaxPool2x2() for _ in range(5))
        self.upsample1, self.upsample2, self.upsample3, self.upsample4, self.upsample5 = (
            MaxUnpool2x2() for _ in range(5)
        )
        every, drop = dropout_places == "every", partial(dropout_layer, dropout)
        self.pool1_drop, self.pool2_drop, self.pool3_drop, self.pool4_drop, self.pool5_drop = (
            drop(present=every) for _ in range(5)
        )
        self.encdrop3, self.encdrop4, self.encdrop5 = drop(present=not every), drop(present=not every), drop()
        self.decdrop5, self.decdrop4, self.decdrop3, self.decdrop2 = drop(), drop(), drop(), drop(present=every)
        self.apply(partial(initialise, shift=shift))

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) of any size into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        x = self.convolve(images, "conv1_1", "conv1_2")  # (N, b, H, W)
        x, switches1 = self.pool1(self.pool1_drop(x))
        x = self.convolve(x, "conv2_1", "conv2_2")  # (N, 2b, H/2, W/2)
        x, switches2 = self.pool2(self.pool2_drop(x))
        x = self.convolve(x, "conv3_1", "conv3_2", "conv3_3")  # (N, 4b, H/4, W/4)
        x, switches3 = self.pool3(self.pool3_drop(x))
        x = self.convolve(self.encdrop3(x), "conv4_1", "conv4_2", "conv4_3")  # (N, 8b, H/8, W/8)
        x, switches4 = self.pool4(self.pool4_drop(x))
        x = self.convolve(self.encdrop4(x), "conv5_1", "conv5_2", "conv5_3")  # (N, 8b, H/16, W/16)
        x, switches5 = self.pool5(self.pool5_drop(x))  # (N, 8b, H/32, W/32)

        x = self.upsample5(self.encdrop5(x), switches5)
        x = self.convolve(x, "conv5_3_D", "conv5_2_D", "conv5_1_D")  # (N, 8b, H/16, W/16)
        x = self.upsample4(self.decdrop5(x), switches4)
        x = self.convolve(x, "conv4_3_D", "conv4_2_D", "conv4_1_D")  # (N, 4b, H/8, W/8)
        x = self.upsample3(self.decdrop4(x), switches3)
        x = self.convolve(x, "conv3_3_D", "conv3_2_D", "conv3_1_D")  # (N, 2b, H/4, W/4)
        x = self.upsample2(self.decdrop3(x), switches2)
        x = self.convolve(x, "conv2_2_D", "conv2_1_D")  # (N, b, H/2, W/2)
        x = self.upsample1(self.decdrop2(x), switches1)
        x = self.convolve(x, "conv1_2_D")  # (N, b, H, W)
        return SegmentationOutput(self.conv1_1_D(x))


class SegNetBasic(NormalisedNet):
    """Four 7x7 convolutions down and four up, all b channels wide.

    Args:
        in_channels: C.
        num_classes: K.
        base_channels: b.
        bias: whether convolutions have biases, as the release's do; the paper's have none.
        single_channel: each decoder filter sees its own map only.
        dropout: rate of the dropout after pool3, pool4 and the two deepest decoder layers; 0 for none.
        eps: of batch normalisation.
    """

    size_rule = SizeRule(period=16)

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        base_channels: int,
        bias: bool,
        single_channel: bool,
        dropout: float,
        eps: float,
    ) -> None:
        super().__init__(
            in_channels=in_channels, num_classes=num_classes, base_channels=base_channels, dropout=dropout, eps=eps
        )
        b = base_channels
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        groups = b if single_channel else 1
        for level in range(1, 5):
            self.add(f"conv{level}", nn.Conv2d(in_channels if level == 1 else b, b, 7, padding=3, bias=bias))
            self.add(f"conv_decode{level}", nn.Conv2d(b, b, 7, padding=3, bias=bias, groups=groups))
        self.pool1, self.pool2, self.pool3, self.pool4 = (MaxPool2x2() for _ in range(4))
        self.upsample1, self.upsample2, self.upsample3, self.upsample4 = (MaxUnpool2x2() for _ in range(4))
        self.encdrop3, self.encdrop4, self.decdrop4, self.decdrop3 = (dropout_layer(dropout) for _ in range(4))
        self.conv_classifier = nn.Conv2d(b, num_classes, 1, bias=bias)
        self.apply(partial(initialise, shift=SHIFT))

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) of any size into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        x = self.norm(images)
        x, switches1 = self.pool1(self.convolve(x, "conv1"))  # (N, b, H/2, W/2)
        x, switches2 = self.pool2(self.convolve(x, "conv2"))  # (N, b, H/4, W/4)
        x, switches3 = self.pool3(self.convolve(x, "conv3"))  # (N, b, H/8, W/8)
        x, switches4 = self.pool4(self.convolve(self.encdrop3(x), "conv4"))  # (N, b, H/16, W/16)

        x = self.upsample4(self.encdrop4(x), switches4)
        x = self.convolve(x, "conv_decode4", relu=False)  # (N, b, H/8, W/8)
        x = self.upsample3(self.decdrop4(x), switches3)
        x = self.convolve(x, "conv_decode3", relu=False)  # (N, b, H/4, W/4)
        x = self.upsample2(self.decdrop3(x), switches2)
        x = self.convolve(x, "conv_decode2", relu=False)  # (N, b, H/2, W/2)
        x = self.upsample1(x, switches1)
        x = self.convolve(x, "conv_decode1", relu=False)  # (N, b, H, W)
        return SegmentationOutput(self.conv_classifier(x))


@register(
    family="SegNet",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="verified",
    source="the release's segnet_train.prototxt, whose network is the paper's",
    input_size=(360, 480),
    debug={"base_channels": 2},
    aliases=("segnet",),
)
def segnet_vgg16(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.0,
    dropout_places: DropoutPlaces = "central",
    eps: float = EPS,
) -> SegNet:
    """Build SegNet: 29,449,355 parameters for CamVid's eleven classes. (The release's SUN network has dropout=0.5.)"""
    return SegNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        dropout=dropout,
        dropout_places=dropout_places,
        eps=eps,
        shift=SHIFT,
    )


@register(
    family="SegNet",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="verified",
    source="the release's segnet_basic_train.prototxt; its biases and its normalisation across channels depart from "
    "the paper's text (bias=false takes the biases away)",
    input_size=(360, 480),
    debug={"base_channels": 4},
)
def segnet_basic(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    bias: bool = True,
    single_channel: bool = False,
    eps: float = EPS,
) -> SegNetBasic:
    """Build SegNet-Basic: 1,416,587 parameters for eleven classes, 1,416,064 with bias=false."""
    return SegNetBasic(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        bias=bias,
        single_channel=single_channel,
        dropout=0.0,
        eps=eps,
    )
