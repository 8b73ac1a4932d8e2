"""VGG-16: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015, https://arxiv.org/abs/1409.1556, Table 1, column D.

State-dict names are torchvision's (`features.0.weight`, `classifier.0.weight`), so that its ImageNet weights load;
`by_layer_name` renames them to conv1_1 ... fc7 for the segmentation networks. Two sets of weights are published,
and they want different images: torchvision's R, G, B divided by 255, then mean and standard deviation removed;
the authors' Caffe weights B, G, R of 0..255 with only the mean removed.

Axes: N batch, C image channels, K classes, b base channels (64 in the paper).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pixelwise.backbones.convolutionalise import as_kernel, heat_map_network
from pixelwise.errors import RequestError
from pixelwise.layers.vgg import initialise

# Convolutions of each block, and their widths in base channels.
BLOCKS = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


class VGG16(nn.Module):
    """The classifier with 138,357,544 parameters for 1000 classes."""

    def __init__(
        self, *, num_classes: int = 1000, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        source = in_channels
        for count, factor in BLOCKS:
            for _ in range(count):
                layers += [nn.Conv2d(source, factor * base_channels, 3, padding=1), nn.ReLU(inplace=True)]
                source = factor * base_channels
            layers.append(nn.MaxPool2d(2))
        width = 64 * base_channels
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(source * 49, width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(width, num_classes),
        )
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Classify (N, C, H, W), 224x224 in the paper, into logits (N, K)."""
        x = self.avgpool(self.features(images))  # (N, 8b, 7, 7)
        logits: Tensor = self.classifier(x.flatten(1))
        return logits

    def convolutional(self, num_classes: int | None = None) -> nn.Sequential:
        """Return the classifier as a network to heat maps; `heat_map_network` says how."""
        return heat_map_network(self.features, self.classifier, window=7, num_classes=num_classes)


def by_layer_name(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename torchvision's weights to conv1_1 ... conv5_3, fc6 and fc7, these two as convolutions.

    The class layer is left out. The numbers stay as they are: they want torchvision's images.

    Raises:
        RequestError: if the names are not those of torchvision's VGG-16 without batch normalisation.
    """
    names = layer_names()
    kinds = ("weight", "bias")
    expected = {f"{name}.{kind}" for name in (*names, "classifier.6") for kind in kinds}
    if weights.keys() != expected:
        different = sorted(weights.keys() ^ expected)
        raise RequestError(
            f"{len(different)} names are not those of torchvision's vgg16, such as {different[0]}; accepted: its "
            f"{len(expected)} tensors without batch normalisation. Give that file's weights."
        )
    renamed = {f"{new}.{kind}": weights[f"{old}.{kind}"] for old, new in names.items() for kind in kinds}
    for name, window in (("fc6.weight", 7), ("fc7.weight", 1)):
        renamed[name] = as_kernel(renamed[name], window)
    return renamed


def layer_names() -> dict[str, str]:
    """Return our name for each of torchvision's: features.0 is conv1_1, features.28 is conv5_3."""
    names: dict[str, str] = {}
    index = 0
    for block, (count, _) in enumerate(BLOCKS, start=1):
        for i in range(1, count + 1):
            names[f"features.{index}"] = f"conv{block}_{i}"
            index += 2  # its ReLU
        index += 1  # the pool
    return names | {"classifier.0": "fc6", "classifier.3": "fc7"}
