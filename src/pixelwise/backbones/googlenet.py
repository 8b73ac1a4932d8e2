"""The two networks that are called GoogLeNet: C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015,
https://arxiv.org/abs/1409.4842, Table 1.

`GoogLeNet(style=CAFFE)` is the paper's network as Caffe's model zoo (bvlc_googlenet) has it: biases, local
response normalisation, 5x5 convolutions; the base of FCN-GoogLeNet. Images B, G, R of 0..255, mean removed.

`GoogLeNet(style=TORCHVISION)` is torchvision's: batch normalisation instead, 3x3 convolutions in the "5x5"
branch, pool4 2x2. Its ImageNet weights want R, G, B scaled to -1..1.

Both have torchvision's state-dict names (`inception3a.branch1.conv.weight`); weights of one do not fit the other.
Parameters for 1000 classes, without and with the two auxiliary classifiers: 6,998,552 and 13,378,280 in Caffe's,
6,624,904 and 13,004,888 in torchvision's.

Axes: N batch, C image channels, K classes, u unit channels (8; every width of the paper is a multiple).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelwise.backbones.convolutionalise import heat_map_network
from pixelwise.errors import RequestError
from pixelwise.layers.vgg import initialise


class Widths(NamedTuple):
    """Channels of one inception module, in the order of the paper's Table 1."""

    source: int
    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int

    def scaled(self, unit: int) -> Widths:
        """Return the widths for another unit than 8 channels."""
        return Widths(*(width // 8 * unit for width in self))


INCEPTIONS = {
    "3a": Widths(192, 64, 96, 128, 16, 32, 32),
    "3b": Widths(256, 128, 128, 192, 32, 96, 64),
    "4a": Widths(480, 192, 96, 208, 16, 48, 64),
    "4b": Widths(512, 160, 112, 224, 24, 64, 64),
    "4c": Widths(512, 128, 128, 256, 24, 64, 64),
    "4d": Widths(512, 112, 144, 288, 32, 64, 64),
    "4e": Widths(528, 256, 160, 320, 32, 128, 128),
    "5a": Widths(832, 256, 160, 320, 32, 128, 128),
    "5b": Widths(832, 384, 192, 384, 48, 128, 128),
}


def with_bias(source: int, width: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """Build a convolution and a ReLU, as in the paper."""
    convolution = nn.Conv2d(source, width, kernel, stride=stride, padding=padding)
    return nn.Sequential(OrderedDict(conv=convolution, relu=nn.ReLU(inplace=True)))


def with_batch_norm(source: int, width: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """Build a convolution, a batch normalisation and a ReLU, as in torchvision."""
    convolution = nn.Conv2d(source, width, kernel, stride=stride, padding=padding, bias=False)
    norm = nn.BatchNorm2d(width, eps=0.001)
    return nn.Sequential(OrderedDict(conv=convolution, bn=norm, relu=nn.ReLU(inplace=True)))


@dataclass(frozen=True, kw_only=True)
class Style:
    """Where the two networks differ.

    Attributes:
        convolution: builds a convolution and what follows it.
        five: kernel of the "5x5" branch.
        pool4: kernel of the fourth pool.
        norm: builds what follows pool1 and conv3.
        dropout: rate before the class layer.
        auxiliary_pool: builds the pool from 14x14 to 4x4 before an auxiliary classifier.
    """

    convolution: Callable[..., nn.Sequential]
    five: int
    pool4: int
    norm: Callable[[], nn.Module]
    dropout: float
    auxiliary_pool: Callable[[], nn.Module]


CAFFE = Style(
    convolution=with_bias,
    five=5,
    pool4=3,
    norm=partial(nn.LocalResponseNorm, 5, alpha=1e-4, beta=0.75, k=1),
    dropout=0.4,
    auxiliary_pool=partial(nn.AvgPool2d, 5, stride=3),
)
TORCHVISION = Style(
    convolution=with_batch_norm,
    five=3,
    pool4=2,
    norm=nn.Identity,
    dropout=0.2,
    auxiliary_pool=partial(nn.AdaptiveAvgPool2d, 4),
)


class Inception(nn.Module):
    """Four branches over one map, their outputs side by side (Fig. 2b)."""

    def __init__(self, widths: Widths, style: Style) -> None:
        super().__init__()
        w, convolution, five = widths, style.convolution, style.five
        self.branch1 = convolution(w.source, w.one, 1)
        self.branch2 = nn.Sequential(
            convolution(w.source, w.three_reduce, 1), convolution(w.three_reduce, w.three, 3, padding=1)
        )
        self.branch3 = nn.Sequential(
            convolution(w.source, w.five_reduce, 1), convolution(w.five_reduce, w.five, five, padding=five // 2)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), convolution(w.source, w.pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the size; channels become the sum of the branches'."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class InceptionTrunk(nn.Module):
    """conv1 to inception5b; a system inherits from it, so that its keys are `conv1.conv.weight` and so on.

    Args:
        in_channels: C of the image.
        base_channels: width of conv1, a multiple of 8; the other widths scale with it.
        style: which of the two networks.
        first_padding: zeros around the image: 3 in the classifiers.

    Raises:
        RequestError: if `base_channels` is no multiple of 8.
    """

    def __init__(self, *, in_channels: int, base_channels: int, style: Style, first_padding: int = 3) -> None:
        super().__init__()
        if base_channels < 8 or base_channels % 8:
            raise RequestError(
                f"base_channels={base_channels}; accepted: multiples of 8 (the paper's is 64), since the other widths "
                "are multiples of an eighth of it."
            )
        u = base_channels // 8

        def inception(name: str) -> Inception:
            return Inception(INCEPTIONS[name].scaled(u), style)

        self.conv1 = style.convolution(in_channels, 8 * u, 7, stride=2, padding=first_padding)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = style.norm()
        self.conv2 = style.convolution(8 * u, 8 * u, 1)
        self.conv3 = style.convolution(8 * u, 24 * u, 3, padding=1)
        self.norm2 = style.norm()
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = inception("3a")
        self.inception3b = inception("3b")
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = inception("4a")
        self.inception4b = inception("4b")
        self.inception4c = inception("4c")
        self.inception4d = inception("4d")
        self.inception4e = inception("4e")
        self.maxpool4 = nn.MaxPool2d(style.pool4, stride=2, ceil_mode=True)
        self.inception5a = inception("5a")
        self.inception5b = inception("5b")

    def stages(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return inception4a (N, 64u, H/16, W/16), 4d (N, 66u, H/16, W/16) and 5b (N, 128u, H/32, W/32), about."""
        pool1 = self.norm1(self.maxpool1(self.conv1(images)))  # (N, 8u, H/4, W/4)
        conv3 = self.norm2(self.conv3(self.conv2(pool1)))
        inception3 = self.inception3b(self.inception3a(self.maxpool2(conv3)))  # (N, 60u, H/8, W/8)
        inception4a = self.inception4a(self.maxpool3(inception3))
        inception4d = self.inception4d(self.inception4c(self.inception4b(inception4a)))
        pool4 = self.maxpool4(self.inception4e(inception4d))  # (N, 104u, H/32, W/32)
        return inception4a, inception4d, self.inception5b(self.inception5a(pool4))


class Auxiliary(nn.Module):
    """A classifier on an inner map, for training alone."""

    def __init__(self, source: int, num_classes: int, *, unit: int, style: Style) -> None:
        super().__init__()
        self.pool = style.auxiliary_pool()
        self.conv = style.convolution(source, 16 * unit, 1)
        self.fc1 = nn.Linear(16 * unit * 16, 128 * unit)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(128 * unit, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify (N, C', 14, 14) into (N, K)."""
        x = self.conv(self.pool(x)).flatten(1)  # (N, 16u * 16)
        logits: Tensor = self.fc2(self.dropout(torch.relu(self.fc1(x))))
        return logits


class GoogLeNet(InceptionTrunk):
    """The classifier, without or with the two auxiliary ones."""

    def __init__(
        self,
        *,
        style: Style,
        num_classes: int = 1000,
        in_channels: int = 3,
        base_channels: int = 64,
        auxiliary: bool = False,
    ) -> None:
        super().__init__(in_channels=in_channels, base_channels=base_channels, style=style)
        unit = base_channels // 8
        self.auxiliary = auxiliary
        if auxiliary:
            self.aux1 = Auxiliary(64 * unit, num_classes, unit=unit, style=style)
            self.aux2 = Auxiliary(66 * unit, num_classes, unit=unit, style=style)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(style.dropout)
        self.fc = nn.Linear(128 * unit, num_classes)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Classify (N, C, H, W), 224x224 in the paper, into logits (N, K)."""
        return self._classify(self.stages(images)[2])

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of the classifier and of the two auxiliary ones, whose losses the paper weighs 0.3.

        Raises:
            RequestError: if the network was built without them.
        """
        if not self.auxiliary:
            raise RequestError("this GoogLeNet has no auxiliary classifiers; accepted: one built with auxiliary=True.")
        inception4a, inception4d, inception5b = self.stages(images)
        return self._classify(inception5b), self.aux1(inception4a), self.aux2(inception4d)

    def _classify(self, inception5b: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.dropout(self.avgpool(inception5b).flatten(1)))
        return logits

    def convolutional(self, num_classes: int | None = None) -> nn.Sequential:
        """Return the classifier as a network to heat maps; `heat_map_network` says how."""
        behind = ("aux1", "aux2", "avgpool", "dropout", "fc")
        trunk = OrderedDict((name, layer) for name, layer in self.named_children() if name not in behind)
        head = nn.Sequential(nn.AvgPool2d(7, stride=1), self.dropout, self.fc)
        return heat_map_network(nn.Sequential(trunk), head, window=1, num_classes=num_classes)
