"""The classifiers that segmentation networks start from, as models of the catalogue: train one on own images, and give
its file as `--weights` to the networks that have it as their trunk.

- AlexNet, as torchvision has it, and CaffeNet, the two-column AlexNet of Caffe   -> `AlexNetClassifier`, ...
- VGG-16, column D                                                                -> `VGG16Classifier`
- GoogLeNet, Table 1 without its auxiliary classifiers                            -> `GoogLeNetClassifier`
- ResNet-50, -101 and -152                                                        -> `ResNetClassifier`

The networks, their papers and their parameter counts stand in `backbones`; names of layers are torchvision's.

Departures: dropout, initialisation and image sizes are the backbones'; GoogLeNet is trained without the two auxiliary
classifiers that the paper adds with a weight of 0.3, which held up a training without good initialisation; they are
no part of the network in use.

Axes: N batch, C image channels, K classes, H and W input size.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from pixelwise.backbones.alexnet import AlexNet, CaffeNet
from pixelwise.backbones.googlenet import CAFFE, TORCHVISION, GoogLeNet
from pixelwise.backbones.resnet import BLOCKS, ResNet, Stem, StrideOn
from pixelwise.backbones.vgg import VGG16
from pixelwise.errors import RequestError
from pixelwise.registry import register
from pixelwise.structures import ClassificationOutput, SizeRule, check_images

STYLES = {"caffe": CAFFE, "torchvision": TORCHVISION}


def _in_channels(model: nn.Module) -> int:
    """Return the image channels of a model, which its first convolution has."""
    return next(model.parameters()).shape[1]


class AlexNetClassifier(AlexNet):
    """Any image of which the last pool leaves something; the published size is 224."""

    size_rule = SizeRule(minimum=63)

    def forward(self, images: Tensor) -> ClassificationOutput:  # type: ignore[override]  # the trunk's are bare logits
        """Classify float images (N, C, H, W): logits (N, K)."""
        check_images(images, in_channels=_in_channels(self), size_rule=self.size_rule)
        return ClassificationOutput(super().forward(images))


class CaffeNetClassifier(CaffeNet):
    """Images of 227 x 227, since its first fully connected layer sees 6 x 6 cells."""

    size_rule = SizeRule(minimum=227, maximum=227)

    def forward(self, images: Tensor) -> ClassificationOutput:  # type: ignore[override]
        """Classify float images (N, C, 227, 227): logits (N, K)."""
        check_images(images, in_channels=_in_channels(self), size_rule=self.size_rule)
        return ClassificationOutput(super().forward(images))


class VGG16Classifier(VGG16):
    """Any image of which five pools leave something; the published size is 224."""

    size_rule = SizeRule(minimum=32)

    def forward(self, images: Tensor) -> ClassificationOutput:  # type: ignore[override]
        """Classify float images (N, C, H, W): logits (N, K)."""
        check_images(images, in_channels=_in_channels(self), size_rule=self.size_rule)
        return ClassificationOutput(super().forward(images))


class GoogLeNetClassifier(GoogLeNet):
    """Images from two cells a side, which batch normalisation needs; the published size is 224."""

    size_rule = SizeRule(minimum=33)

    def forward(self, images: Tensor) -> ClassificationOutput:  # type: ignore[override]
        """Classify float images (N, C, H, W): logits (N, K)."""
        check_images(images, in_channels=_in_channels(self), size_rule=self.size_rule)
        return ClassificationOutput(super().forward(images))


class ResNetClassifier(ResNet):
    """Images from two cells a side, which batch normalisation needs; the published size is 224."""

    size_rule = SizeRule(minimum=33)

    def forward(self, images: Tensor) -> ClassificationOutput:  # type: ignore[override]
        """Classify float images (N, C, H, W): logits (N, K)."""
        check_images(images, in_channels=_in_channels(self), size_rule=self.size_rule)
        return ClassificationOutput(super().forward(images))


enter = partial(register, family="classifiers", task="classification", input_size=(224, 224))
RESNET = "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016"


@enter(
    year=2014,
    paper="Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014",
    fidelity="verified",
    source="torchvision's alexnet, logits equal to it",
    debug={"base_channels": 4},
)
def alexnet(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5
) -> AlexNetClassifier:
    """Build AlexNet as torchvision has it: 61,100,840 parameters for 1000 classes."""
    return AlexNetClassifier(
        num_classes=num_classes, in_channels=in_channels, base_channels=base_channels, dropout=dropout
    )


@partial(register, family="classifiers", task="classification", input_size=(227, 227))(
    year=2012,
    paper="Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012",
    fidelity="verified",
    source="bvlc_reference_caffenet of Caffe's model zoo, the base of fcn_alexnet",
    debug={"base_channels": 6},
)
def caffenet(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 96, dropout: float = 0.5
) -> CaffeNetClassifier:
    """Build Caffe's reference network: 60,965,224 parameters for 1000 classes."""
    return CaffeNetClassifier(
        num_classes=num_classes, in_channels=in_channels, base_channels=base_channels, dropout=dropout
    )


@enter(
    year=2015,
    paper="Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015",
    fidelity="verified",
    source="Table 1, column D; torchvision's vgg16, logits equal to it",
    debug={"base_channels": 4},
)
def vgg16(*, num_classes: int, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5) -> VGG16Classifier:
    """Build VGG-16: 138,357,544 parameters for 1000 classes."""
    return VGG16Classifier(
        num_classes=num_classes, in_channels=in_channels, base_channels=base_channels, dropout=dropout
    )


@enter(
    year=2015,
    paper="Szegedy et al., Going Deeper with Convolutions, CVPR 2015",
    fidelity="verified",
    source="Table 1, as bvlc_googlenet of Caffe's model zoo has it, the base of fcn_googlenet (style=caffe), or "
    "torchvision's, logits equal to it (style=torchvision); without auxiliary classifiers",
    debug={"base_channels": 8},
)
def googlenet(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    style: Literal["caffe", "torchvision"] = "caffe",
) -> GoogLeNetClassifier:
    """Build GoogLeNet: 6,998,552 parameters for 1000 classes, 6,624,904 in torchvision's style."""
    if style not in STYLES:
        raise RequestError(f"style={style!r}; accepted: {', '.join(STYLES)}. Give one of them.")
    return GoogLeNetClassifier(
        style=STYLES[style], num_classes=num_classes, in_channels=in_channels, base_channels=base_channels
    )


def _resnet(
    blocks: tuple[int, ...],
    *,
    num_classes: int,
    in_channels: int,
    base_channels: int,
    output_stride: int,
    stem: Stem,
    stride_on: StrideOn,
) -> ResNetClassifier:
    return ResNetClassifier(
        blocks=blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        output_stride=output_stride,
        stem=stem,
        stride_on=stride_on,
    )


enter_resnet = partial(
    enter,
    year=2016,
    paper=RESNET,
    fidelity="verified",
    source="Table 1; torchvision's, logits equal to it; output_stride 16 or 8 keeps larger maps, stem and stride_on "
    "choose the forms that DeepLab and PSPNet start from",
    debug={"base_channels": 4, "blocks": (1, 1, 1, 1)},
)


@enter_resnet()
def resnet50(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[50],
    output_stride: int = 32,
    stem: Stem = "7x7",
    stride_on: StrideOn = "3x3",
) -> ResNetClassifier:
    """Build ResNet-50: 25,557,032 parameters for 1000 classes."""
    return _resnet(
        blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        output_stride=output_stride,
        stem=stem,
        stride_on=stride_on,
    )


@enter_resnet()
def resnet101(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[101],
    output_stride: int = 32,
    stem: Stem = "7x7",
    stride_on: StrideOn = "3x3",
) -> ResNetClassifier:
    """Build ResNet-101: 44,549,160 parameters for 1000 classes."""
    return _resnet(
        blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        output_stride=output_stride,
        stem=stem,
        stride_on=stride_on,
    )


@enter_resnet()
def resnet152(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[152],
    output_stride: int = 32,
    stem: Stem = "7x7",
    stride_on: StrideOn = "3x3",
) -> ResNetClassifier:
    """Build ResNet-152: 60,192,808 parameters for 1000 classes."""
    return _resnet(
        blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        output_stride=output_stride,
        stem=stem,
        stride_on=stride_on,
    )
