"""The two networks that are called AlexNet.

`AlexNet` is torchvision's, with its state-dict names: A. Krizhevsky, "One weird trick for parallelizing
convolutional neural networks", 2014, https://arxiv.org/abs/1404.5997: 64, 192, 384, 256, 256 channels, no groups,
no response normalisation, 61,100,840 parameters. Images are torchvision's (R, G, B, mean and deviation removed).

`CaffeNet` is the reference CaffeNet of Caffe's model zoo, the base of FCN-AlexNet: the two-column network of
A. Krizhevsky, I. Sutskever, G. Hinton, NIPS 2012, with 96, 256, 384, 384, 256 channels, groups of 2 and local
response normalisation, but each pool comes before the normalisation. 60,965,224 parameters; layer names are
Caffe's (conv1 ... fc8); images B, G, R of 0..255, mean removed.

Weights of one do not fit the other.

Axes: N batch, C image channels, K classes, b base channels (width of the first convolution).
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.backbones.convolutionalise import heat_map_network
from pixelwise.errors import RequestError
from pixelwise.layers.vgg import convolve, initialise


class AlexNet(nn.Module):
    """torchvision's AlexNet."""

    def __init__(
        self, *, num_classes: int = 1000, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5
    ) -> None:
        super().__init__()
        b = base_channels
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, b, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(b, 3 * b, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(3 * b, 6 * b, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(6 * b, 4 * b, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * b, 4 * b, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(4 * b * 36, 64 * b),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(64 * b, 64 * b),
            nn.ReLU(inplace=True),
            nn.Linear(64 * b, num_classes),
        )
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Classify (N, C, H, W), 224x224 as published, into logits (N, K)."""
        x = self.avgpool(self.features(images))  # (N, 4b, 6, 6)
        logits: Tensor = self.classifier(x.flatten(1))
        return logits

    def convolutional(self, num_classes: int | None = None) -> nn.Sequential:
        """Return the classifier as a network to heat maps; `heat_map_network` says how."""
        return heat_map_network(self.features, self.classifier, window=6, num_classes=num_classes)


class CaffeNetTrunk(nn.Module):
    """conv1 to pool5 of CaffeNet; a system inherits from it, so that its keys are `conv1.weight` and so on.

    Args:
        in_channels: C of the image.
        base_channels: b, a multiple of 6; the layers have b, 8/3 b, 4 b, 4 b and 8/3 b channels, 96 256 384 384 256.
        first_padding: zeros around the image: 0 in the classifier, 100 in FCN.

    Raises:
        RequestError: if `base_channels` is no multiple of 6, since conv2 to conv5 have two groups.
    """

    def __init__(self, *, in_channels: int, base_channels: int, first_padding: int) -> None:
        super().__init__()
        if base_channels < 6 or base_channels % 6:
            raise RequestError(
                f"base_channels={base_channels}; accepted: multiples of 6 (the original's is 96), since the later "
                "widths are 8/3 of it in two groups."
            )
        b, wide = base_channels, base_channels * 8 // 3
        self.conv1 = nn.Conv2d(in_channels, b, 11, stride=4, padding=first_padding)
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)
        self.conv2 = nn.Conv2d(b, wide, 5, padding=2, groups=2)
        self.pool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm2 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)
        self.conv3 = nn.Conv2d(wide, 4 * b, 3, padding=1)
        self.conv4 = nn.Conv2d(4 * b, 4 * b, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(4 * b, wide, 3, padding=1, groups=2)
        self.pool5 = nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 8/3 b, H/32, W/32), about."""
        norm1 = self.norm1(self.pool1(convolve(self.conv1, images)))  # (N, b, H/8, W/8)
        norm2 = self.norm2(self.pool2(convolve(self.conv2, norm1)))  # (N, 8/3 b, H/16, W/16)
        conv5 = convolve(self.conv5, convolve(self.conv4, convolve(self.conv3, norm2)))
        pool5: Tensor = self.pool5(conv5)
        return pool5


class CaffeNet(CaffeNetTrunk):
    """Caffe's reference network."""

    def __init__(
        self, *, num_classes: int = 1000, in_channels: int = 3, base_channels: int = 96, dropout: float = 0.5
    ) -> None:
        super().__init__(in_channels=in_channels, base_channels=base_channels, first_padding=0)
        wide, width = base_channels * 8 // 3, base_channels * 128 // 3
        self.fc6 = nn.Linear(wide * 36, width)
        self.fc7 = nn.Linear(width, width)
        self.fc8 = nn.Linear(width, num_classes)
        self.dropout = nn.Dropout(dropout)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Classify (N, C, 227, 227) into logits (N, K)."""
        fc6 = self.dropout(convolve(self.fc6, self.features(images).flatten(1)))
        logits: Tensor = self.fc8(self.dropout(convolve(self.fc7, fc6)))
        return logits

    def convolutional(self, num_classes: int | None = None) -> nn.Sequential:
        """Return the classifier as a network to heat maps; `heat_map_network` says how."""
        relu = nn.ReLU(inplace=True)
        features = nn.Sequential(
            *(self.conv1, relu, self.pool1, self.norm1),
            *(self.conv2, relu, self.pool2, self.norm2),
            *(self.conv3, relu, self.conv4, relu, self.conv5, relu, self.pool5),
        )
        head = nn.Sequential(self.fc6, relu, self.dropout, self.fc7, relu, self.dropout, self.fc8)
        return heat_map_network(features, head, window=6, num_classes=num_classes)
