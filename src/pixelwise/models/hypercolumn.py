"""Hypercolumns on VGG-16: B. Hariharan, P. Arbelaez, R. Girshick, J. Malik, "Hypercolumns for Object Segmentation and
Fine-grained Localization", CVPR 2015, https://arxiv.org/abs/1411.5752.

Map from the paper to this file:

- section 3, a pixel's hypercolumn: the activations of several layers above it  -> `Hypercolumn.hypercolumns`
- section 3, classify each map by 1x1 convolutions, upsample, add                -> `Hypercolumn.forward`

Axes: N batch, C image channels, K classes, H and W image size, D numbers of a hypercolumn, b base channels (64).

The paper classifies pixels of detected boxes, from pool2, conv4 and fc7 of AlexNet, with a grid of classifiers that
depend on the place in the box. This is the variant for whole images: one linear classifier for all pixels, on VGG-16.
`columns` chooses the layers: "pools" the five before a pool, D = 1472; "all" the thirteen convolutions, D = 4224;
"all_fc7" those and fc7, D = 8320. The maps are read after their ReLU.

Maps are upsampled so that the centres of cells stay where they are: cell i of a map with stride s has its centre at
pixel s i + (s - 1) / 2, which is bilinear interpolation with `align_corners=False`; sides that s does not divide are
rounded up by the pools and cut afterwards. Interpolation and a linear classifier commute, so `forward` never
builds the D channels at full size (4224 at 320 x 480 are 2.6 GB).

Not from the paper: the choice of layers and of K outputs; `standardise`, which gives each feature mean 0 and variance
1 over the training pixels by a batch normalisation without parameters; fc6 padded by 3, so that its cells are those
of pool5; the classifier's start from N(0, 0.01^2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.backbones.vgg import BLOCKS
from pixelwise.errors import RequestError
from pixelwise.layers.fully_connected import FullyConnected2d
from pixelwise.layers.vgg import VGG16Trunk, convolve, initialise
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = (
    'Hariharan, Arbelaez, Girshick, Malik, "Hypercolumns for Object Segmentation and Fine-grained Localization", '
    "CVPR 2015"
)
Columns = Literal["pools", "all", "all_fc7"]


class Hypercolumn(VGG16Trunk):
    """VGG-16 and one linear classifier of hypercolumns.

    Args:
        in_channels: C.
        num_classes: K.
        base_channels: b.
        columns: layers of the hypercolumn; see the file's head.
        standardise: bring each feature to mean 0 and variance 1 before the classifier.
    """

    def __init__(
        self, *, in_channels: int, num_classes: int, base_channels: int, columns: Columns, standardise: bool
    ) -> None:
        if columns not in ("pools", "all", "all_fc7"):
            raise RequestError(f"columns={columns!r}; accepted: 'pools', 'all' or 'all_fc7'.")
        super().__init__(in_channels=in_channels, base_channels=base_channels)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.size_rule = SizeRule(period=32 if columns == "all_fc7" else 16)
        self.widths: dict[str, int] = {}
        for block, (depth, factor) in enumerate(BLOCKS, 1):
            first = depth if columns == "pools" else 1
            self.widths |= {f"conv{block}_{layer}": factor * base_channels for layer in range(first, depth + 1)}
        if columns == "all_fc7":
            self.fc6 = FullyConnected2d(8 * base_channels, 64 * base_channels, 7, padding=3)
            self.fc7 = FullyConnected2d(64 * base_channels, 64 * base_channels, 1)
            self.widths["fc7"] = 64 * base_channels
        for name, width in self.widths.items():
            norm = nn.BatchNorm2d(width, affine=False) if standardise else nn.Identity()
            self.add_module(f"{name}_standard", norm)
            # The parts of one classifier, whose bias the first of them has.
            self.add_module(f"score_{name}", nn.Conv2d(width, num_classes, 1, bias=name == next(iter(self.widths))))
        self.apply(initialise)
        for name in self.widths:
            nn.init.normal_(self.get_parameter(f"score_{name}.weight"), std=0.01)

    def maps(self, images: Tensor) -> Iterator[tuple[str, Tensor, int]]:
        """Yield each chosen layer, its map (N, width, ceil(H / s), ceil(W / s)) and stride s."""
        x = images
        for block, (depth, _) in enumerate(BLOCKS, 1):
            for layer in range(1, depth + 1):
                name = f"conv{block}_{layer}"
                x = convolve(self.get_submodule(name), x)
                if name in self.widths:
                    yield name, self.get_submodule(f"{name}_standard")(x), 2 ** (block - 1)
            if block < len(BLOCKS):
                x = self.pool(x)
        if "fc7" in self.widths:
            x = convolve(self.fc7, convolve(self.fc6, self.pool(x)))
            yield "fc7", self.get_submodule("fc7_standard")(x), 32

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        logits: Tensor | None = None
        for name, x, stride in self.maps(images):
            part = upsample(self.get_submodule(f"score_{name}")(x), stride, images)
            logits = part if logits is None else logits + part
        assert logits is not None
        return SegmentationOutput(logits)

    def hypercolumns(self, images: Tensor) -> Tensor:
        """Return the pixels' hypercolumns (N, D, H, W), for other classifiers; mind the memory."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        return torch.cat([upsample(x, stride, images) for _, x, stride in self.maps(images)], dim=1)


def upsample(x: Tensor, stride: int, images: Tensor) -> Tensor:
    """Interpolate a map of this stride to the pixels of the images, centres of cells in place."""
    if stride > 1:
        size = [stride * side for side in x.shape[2:]]
        x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    return x[:, :, : images.shape[2], : images.shape[3]]


@register(
    family="Classical",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="reconstructed",
    source="the paper's idea for whole images and VGG-16; layers, standardisation and K outputs are not the paper's",
    input_size=(500, 500),
    debug={"base_channels": 2},
)
def hypercolumn_vgg16(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    columns: Columns = "pools",
    standardise: bool = True,
) -> Hypercolumn:
    """Build pixel hypercolumns of 1472 numbers (4224 or 8320 with other `columns`) and their linear classifier."""
    return Hypercolumn(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        columns=columns,
        standardise=standardise,
    )
