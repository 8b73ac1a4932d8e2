"""Dilated networks on VGG-16: F. Yu, V. Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016,
https://arxiv.org/abs/1511.07122.

Map from the paper to this file:

- section 4, front end: VGG-16 without pool4 and pool5; conv5 dilated by 2, fc6 by 4   -> `DilatedNet.cells`
- section 3, Table 1, context modules and their identity initialisation                -> `layers.context`
- section 4, reflection of the image beyond its border                                 -> `reflect`
- section 5 and appendix A, the networks of each data set                              -> the builders

Axes: N batch, C image channels, K classes, H and W input size, h and w cells, b base channels (64 in the paper).
Layers have the names of the released networks (fyu/dilation, 0f10574), `fc-final` and `ct_*` of the VOC file as
`final` and `ctx_*`. The facts about padding, upsampling and noise are the release's.

No convolution of the front end is padded; instead the image is mirrored by 186 pixels on each side, without
repeating its edge. One cell stands for 8 pixels. Cell i has its centre at pixel 8 i + 3.5, yet the originals train
it on the label of pixel 8 i and interpolate as if it lay there, with the neighbours floor(x / 8) and floor(x / 8) + 1:
training and use agree with each other. Dilation10 upsamples inside the network by a bilinear deconvolution, which
does put cell i at 8 i + 3.5.

`padding` says who mirrors:

- "reflect": `forward` does, from 1x1 on, as the released `predict.py` does for one tile. It mirrors on to the cell
  behind the last pixel, which the interpolation needs; a context network sees zeros behind that cell, where the
  release's, with its fixed input, still sees mirrored image.
- "valid": nobody; the image comes with its surroundings and loses `size_rule.margin` pixels on each side, 186 and
  one cell, since the last cell has no neighbour to interpolate with (Dilation10: 186). Training on crops of mirrored
  images, tiles, and the release's fixed inputs (900 gives 66 cells) are had so.
- "same": zeros at every convolution, as most re-implementations have it: another network near the border.

Departures: the originals interpolate probabilities; `forward` interpolates logits, which are equal at every eighth
pixel and nearly equal between, and `probabilities` does it as they do. Without given weights the trunk, fc6 and fc7
start from N(0, 2 / fan_in).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError
from pixelwise.layers.bilinear import BilinearUpsampling
from pixelwise.layers.context import context_basic, context_large
from pixelwise.layers.fully_connected import FullyConnected2d
from pixelwise.layers.vgg import VGG16Trunk, convolve, initialise
from pixelwise.layers.zoom import zoom
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = 'Yu, Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016'
MARGIN = 186  # pixels that the front end loses on each side
STRIDE = 8  # pixels of a cell
Padding = Literal["reflect", "valid", "same"]


def reflect(images: Tensor, margin: int) -> Tensor:
    """Mirror images (N, C, H, W) by so many pixels on each side, over and over where they are smaller.

    The edge is not repeated ("reflect-101"); a side of one pixel is.
    """
    for axis in (2, 3):
        rest = margin
        while rest:
            side = images.shape[axis]
            step = min(rest, max(side - 1, 1))
            border = (0, 0, step, step) if axis == 2 else (step, step, 0, 0)
            images = functional.pad(images, border, mode="reflect" if side > 1 else "replicate")
            rest -= step
    return images


class DilatedNet(VGG16Trunk):
    """The front end, and behind it a context module where one is given.

    Args:
        in_channels: C.
        num_classes: K.
        base_channels: b; fc6 and fc7 have 64b channels.
        dropout: rate after fc6 and fc7.
        padding: see the file's head.
        context: module from score maps to score maps, or None.
        upsample: deconvolution from cells to pixels, or None for the interpolation.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        base_channels: int,
        dropout: float,
        padding: Padding,
        context: nn.Sequential | None = None,
        upsample: BilinearUpsampling | None = None,
    ) -> None:
        if padding not in ("reflect", "valid", "same"):
            raise RequestError(f"padding={padding!r}; accepted: 'reflect', 'valid' or 'same'.")
        if not 0 <= dropout < 1:
            raise RequestError(f"dropout={dropout}; accepted: 0 up to, not including, 1 (the original's is 0.5).")
        same = int(padding == "same")
        super().__init__(
            in_channels=in_channels, base_channels=base_channels, first_padding=same, padding=same, conv5_dilation=2
        )
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.padding = padding
        self.spare = 0 if upsample else STRIDE  # pixels of the cell behind the last one
        margin = MARGIN + self.spare if padding == "valid" else 0
        self.size_rule = SizeRule(minimum=2 * margin + 1, margin=margin, period=STRIDE)
        b = base_channels
        self.pool1 = nn.MaxPool2d(2, ceil_mode=True)
        self.pool2 = nn.MaxPool2d(2, ceil_mode=True)
        self.pool3 = nn.MaxPool2d(2, ceil_mode=True)
        self.fc6 = FullyConnected2d(8 * b, 64 * b, 7, dilation=4, padding=12 * same)
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = FullyConnected2d(64 * b, 64 * b, 1)
        self.drop7 = nn.Dropout(dropout)
        self.final = nn.Conv2d(64 * b, num_classes, 1)
        self.apply(initialise)
        nn.init.normal_(self.final.weight, std=0.001)
        self.context = []
        for name, layer in context.named_children() if context else ():
            self.add_module(name, layer)
            self.context.append(name)
        self.ctx_upsample = upsample

    def surround(self, images: Tensor) -> Tensor:
        """Add what the unpadded network needs around the image, (N, C, 8 h + 372, 8 w + 372) unless "same"."""
        if self.padding == "valid":
            return images
        height, width = images.shape[2:]
        # As many pixels as it takes to reach the cell at or behind the last pixel.
        bottom, right = (
            -(side - 1) % STRIDE + STRIDE - 1 if self.spare else -side % STRIDE for side in (height, width)
        )
        if self.padding == "same":
            return functional.pad(images, (0, right, 0, bottom))
        return functional.pad(reflect(images, MARGIN), (0, right, 0, bottom), mode="reflect")

    def cells(self, images: Tensor) -> Tensor:
        """Score the cells of images that have their surroundings, (N, C, 8 h + 372, 8 w + 372), as (N, K, h, w)."""
        x = self.pool1(self.block1(images))
        x = self.pool2(self.block2(x))
        x = self.pool3(self.block3(x))  # (N, 4b, h + 42, w + 42)
        x = self.block5(self.block4(x))  # (N, 8b, h + 24, w + 24)
        x = self.drop6(convolve(self.fc6, x))  # (N, 64b, h, w)
        x = self.drop7(convolve(self.fc7, x))
        scores: Tensor = self.final(x)  # (N, K, h, w)
        for name in self.context:
            scores = self.get_submodule(name)(scores)
        return scores

    def pixels(self, cells: Tensor, images: Tensor) -> Tensor:
        """Upsample (N, K, h, w) to the pixels of the output, (N, K, H - 2 margin, W - 2 margin)."""
        height, width = (self.size_rule.output(side) for side in images.shape[2:])
        if self.ctx_upsample is not None:
            upsampled: Tensor = self.ctx_upsample(cells)
            return upsampled[:, :, :height, :width]
        return zoom(cells, STRIDE, size=(height, width), offset=STRIDE if self.padding == "valid" else 0)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W), less the margin with padding "valid"."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        return SegmentationOutput(self.pixels(self.cells(self.surround(images)), images))

    def scores(self, images: Tensor) -> Tensor:
        """Return the scores on which the originals train: (N, K, ceil(H / 8), ceil(W / 8)) for pixels 8 i.

        With padding "valid" H and W are less 372, and pixel 186 + 8 i of the image is meant.
        """
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        lost = 2 * MARGIN if self.padding == "valid" else 0
        rows, columns = (-(-(side - lost) // STRIDE) for side in images.shape[2:])
        return self.cells(self.surround(images))[:, :, :rows, :columns]

    def probabilities(self, images: Tensor) -> Tensor:
        """Return probabilities (N, K, H, W) as the originals do: interpolated, or those of Dilation10's logits."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        cells = self.cells(self.surround(images))
        if self.ctx_upsample is not None:
            return self.pixels(cells, images).softmax(dim=1)
        return self.pixels(cells.softmax(dim=1), images)


@register(
    family="Dilation",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="verified",
    source="network.py of fyu/dilation; logits instead of probabilities are interpolated; padding names who mirrors",
    input_size=(500, 500),
    debug={"base_channels": 2},
    aliases=("frontend_vgg16",),
)
def dilated_frontend_vgg16(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
    padding: Padding = "reflect",
) -> DilatedNet:
    """Build the front end alone: 134,346,581 parameters for 21 classes."""
    return DilatedNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        dropout=dropout,
        padding=padding,
    )


@register(
    family="Dilation",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="verified",
    source="dilation8_pascal_voc_deploy of fyu/dilation; logits instead of probabilities are interpolated",
    input_size=(500, 500),
    debug={"base_channels": 2},
    aliases=("dilation8_vgg16",),
)
def dilation8_voc(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
    padding: Padding = "reflect",
    sigma: float = 0.01,
) -> DilatedNet:
    """Build the front end and the large module of eight layers: 141,149,720 parameters for 21 classes."""
    return DilatedNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        dropout=dropout,
        padding=padding,
        context=context_large(num_classes, sigma=sigma),
    )


@register(
    family="Dilation",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="verified",
    source="dilation8_camvid_deploy of fyu/dilation; logits instead of probabilities are interpolated",
    input_size=(480, 640),
    debug={"base_channels": 2},
)
def dilation8_camvid(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
    padding: Padding = "reflect",
    sigma: float = 0.01,
) -> DilatedNet:
    """Build the front end and the basic module of eight layers: 134,313,443 parameters for 11 classes."""
    return DilatedNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        dropout=dropout,
        padding=padding,
        context=context_basic(num_classes, sigma=sigma),
    )


@register(
    family="Dilation",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="verified",
    source="dilation7_kitti_deploy of fyu/dilation; logits instead of probabilities are interpolated",
    input_size=(370, 1226),
    debug={"base_channels": 2},
)
def dilation7_kitti(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
    padding: Padding = "reflect",
    sigma: float = 0.01,
) -> DilatedNet:
    """Build the front end and the basic module without dilation 16: 134,312,343 parameters for 11 classes."""
    return DilatedNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        dropout=dropout,
        padding=padding,
        context=context_basic(num_classes, layers=7, sigma=sigma),
    )


@register(
    family="Dilation",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="verified",
    source="dilation10_cityscapes_deploy of fyu/dilation; learn_upsampling frees the kernels, which are fixed there",
    input_size=(1024, 2048),
    debug={"base_channels": 2},
)
def dilation10_cityscapes(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
    padding: Padding = "reflect",
    sigma: float = 0.01,
    learn_upsampling: bool = False,
) -> DilatedNet:
    """Build the front end, the basic module with dilations 32 and 64, and the deconvolution: 134,368,179 for 19."""
    return DilatedNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        dropout=dropout,
        padding=padding,
        context=context_basic(num_classes, layers=10, sigma=sigma),
        upsample=BilinearUpsampling(num_classes, kernel_size=16, stride=8, padding=4, learnt=learn_upsampling),
    )
