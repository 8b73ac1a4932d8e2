"""DeepLab on VGG-16: L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy, A. Yuille, "Semantic Image Segmentation with
Deep Convolutional Nets and Fully Connected CRFs", ICLR 2015, https://arxiv.org/abs/1412.7062.

Map from the paper to this file:

- section 3.1, the "hole" algorithm: pool4 and pool5 without stride, conv5 dilated by 2  -> `DeepLab`, `LargeFOV`
- section 3.2 and its experiment, window and rate of fc6                                   -> the builders
- section 4.3, multi-scale prediction (DeepLab-MSc)                                        -> `MultiScale`
- section 3.2, VGG-16's filters cut down                                                   -> `weights.cut_down`

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64 in the paper).

The field of view is the reach of fc6 in pixels, (k + (k - 1)(r - 1) - 1) * 8 + 32.

| builder | fc6 | field of view | parameters, 21 classes | receptive field of fc6 |
|---|---|---|---|---|
| `deeplabv1_vgg16_7x7` | 7x7, rate 4 | 224 | 134,346,581 | 404 |
| `deeplabv1_vgg16_4x4_r4` | 4x4, rate 4 | 128 | 65,140,565 | 308 |
| `deeplabv1_vgg16_4x4_r8` | 4x4, rate 8 | 224 | 65,140,565 | 404 |
| `deeplabv1_vgg16_largefov` | 3x3, rate 12 | 224 | 20,505,429 | 435 |

Two families of pools. `LargeFOV` has 3x3 windows and an average pool before fc6: cell i lies on pixel 8 i, and
321 = 8 * 40 + 1 gives 41 cells. `DeepLab` has 2x2 windows behind a border of one: cell i lies half a pixel from
pixel 8 i + 1, and 306 = 8 * 38 + 2 gives 39 cells. Started windows count, so that any size from 1x1 runs; the
originals pad images to 513 or 514 at the bottom and the right with the mean colour, which is other data near that
border unless the sides are of that form.

Training is on every eighth pixel's label (`scores`), use on all pixels: scores are interpolated by 8 as `layers.zoom`
does and cut to the image. `forward` does the latter, in training too. `DeepLab` pads pool4 for it, as the released
test network does, and has a cell more on each side.

Facts are those of the released networks in TheLegendAli/DeepLab-Context2 (4aa3327). No definition of the 7x7 and the
4x4 rate 8 networks was found: their pools and the padding of fc6 that keeps the size are inferred from the 4x4 rate 4
network. The paper says that DeepLab-MSc concatenates 5 * 128 channels; the release sums the branches' scores, which
is the same function, with biases apart. Departures: without given weights the trunk, fc6 and fc7 start from
N(0, 2 / fan_in); `pool3_ms`, to which the release gives no filler and hence zeros, starts as its siblings do.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError
from pixelwise.layers.fully_connected import FullyConnected2d
from pixelwise.layers.vgg import VGG16Trunk, convolve, initialise
from pixelwise.layers.zoom import zoom
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = (
    'Chen, Papandreou, Kokkinos, Murphy, Yuille, "Semantic Image Segmentation with Deep Convolutional Nets and Fully '
    'Connected CRFs", ICLR 2015'
)
SOURCE = "of TheLegendAli/DeepLab-Context2, a copy of the release"
STRIDE = 8  # pixels of a cell
# Where the branches of DeepLab-MSc start, and how many pixels their cells are apart.
BRANCHES = {"data": 1, "pool1": 2, "pool2": 4, "pool3": 8, "pool4": 8}


def field_of_view(kernel: int, rate: int) -> int:
    """Return the reach of fc6 in pixels: its dilated window on cells of 8 pixels that see 32.

    >>> [field_of_view(7, 4), field_of_view(4, 4), field_of_view(4, 8), field_of_view(3, 12)]
    [224, 128, 224, 224]
    """
    return STRIDE * (kernel - 1) * rate + 32


class Head(VGG16Trunk):
    """The thirteen convolutions and fc6, fc7, fc8, without the pools between them.

    Args:
        in_channels: C.
        num_classes: K.
        base_channels: b.
        width: channels of fc6 and fc7 in units of b: 64 or 16.
        kernel: side of fc6's window.
        rate: its dilation.
        dropout: rate after fc6 and fc7.
    """

    size_rule = SizeRule(period=STRIDE)
    classifier_strides: ClassVar[dict[str, int]] = {"fc6": 32}  # behind VGG-16's five pools of stride 2

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        base_channels: int,
        width: int,
        kernel: int,
        rate: int,
        dropout: float,
    ) -> None:
        if not 0 <= dropout < 1:
            raise RequestError(f"dropout={dropout}; accepted: 0 up to, not including, 1 (the original's is 0.5).")
        super().__init__(in_channels=in_channels, base_channels=base_channels, conv5_dilation=2)
        self.in_channels = in_channels
        self.num_classes = num_classes
        channels = width * base_channels
        self.fc6 = FullyConnected2d(
            8 * base_channels, channels, kernel, dilation=rate, padding=(kernel - 1) * rate // 2
        )
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = FullyConnected2d(channels, channels, 1)
        self.drop7 = nn.Dropout(dropout)
        self.fc8 = nn.Conv2d(channels, num_classes, 1)
        self.apply(initialise)
        nn.init.normal_(self.fc8.weight, std=0.01)

    def classify(self, x: Tensor) -> Tensor:
        """Score cells: (N, 8b, h, w) to (N, K, h, w)."""
        x = self.drop7(convolve(self.fc7, self.drop6(convolve(self.fc6, x))))  # (N, width b, h, w)
        scores: Tensor = self.fc8(x)
        return scores


class DeepLab(Head):
    """The 7x7 and 4x4 networks: pools of 2x2 behind a border of one."""

    score_grids = ((1, STRIDE),)  # first pixel and step of `scores`

    def __init__(
        self, *, in_channels: int, num_classes: int, base_channels: int, kernel: int, rate: int, dropout: float
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            base_channels=base_channels,
            width=64,
            kernel=kernel,
            rate=rate,
            dropout=dropout,
        )
        self.pool1 = nn.MaxPool2d(2, padding=1, ceil_mode=True)
        self.pool2 = nn.MaxPool2d(2, padding=1, ceil_mode=True)
        self.pool3 = nn.MaxPool2d(2, padding=1, ceil_mode=True)
        self.pool5 = nn.MaxPool2d(3, stride=1, padding=1)

    def cells(self, images: Tensor, *, border: int) -> Tensor:
        """Score (N, C, H, W) on (N, K, floor((H + 6) / 8) + 2 border, ...) cells; pool4 is padded by the border."""
        x = self.pool1(self.block1(images))  # (N, b, floor(H / 2) + 1, floor(W / 2) + 1)
        x = self.pool2(self.block2(x))
        x = self.pool3(self.block3(x))  # cell i has its centre at pixel 8 i - 3.5
        x = functional.max_pool2d(self.block4(x), 2, stride=1, padding=border)  # pool4: at 8 i + 0.5
        return self.classify(self.pool5(self.block5(x)))

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        cells = self.cells(images, border=1)  # the first lies on pixel -7
        return SegmentationOutput(zoom(cells, STRIDE, size=images.shape[2:], offset=7))

    def scores(self, images: Tensor) -> Tensor:
        """Return the scores on which the original trains: those of pixels 8 i + 1, from 2 x 2 pixels on."""
        check_images(images, in_channels=self.in_channels, size_rule=SizeRule(minimum=2))
        return self.cells(images, border=0)


class LargeFOV(Head):
    """DeepLab-LargeFOV: pools of 3x3, an average pool, and a 3x3 fc6 at rate 12 with 1024 filters."""

    def __init__(self, *, in_channels: int, num_classes: int, base_channels: int, dropout: float) -> None:
        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            base_channels=base_channels,
            width=16,
            kernel=3,
            rate=12,
            dropout=dropout,
        )
        self.pool1 = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.pool2 = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.pool3 = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.pool4 = nn.MaxPool2d(3, stride=1, padding=1)
        self.pool5 = nn.MaxPool2d(3, stride=1, padding=1)
        self.pool5a = nn.AvgPool2d(3, stride=1, padding=1)

    def pooled(self, images: Tensor) -> dict[str, Tensor]:
        """Return the image and the pooled maps, whose cell i lies on pixels i, 2 i, 4 i, 8 i and 8 i."""
        pool1 = self.pool1(self.block1(images))  # (N, b, ceil((H - 1) / 2) + 1, ceil((W - 1) / 2) + 1)
        pool2 = self.pool2(self.block2(pool1))  # (N, 2b, ceil((H - 1) / 4) + 1, ...)
        pool3 = self.pool3(self.block3(pool2))  # (N, 4b, ceil((H - 1) / 8) + 1, ...)
        pool4 = self.pool4(self.block4(pool3))  # (N, 8b, ceil((H - 1) / 8) + 1, ...)
        return {"data": images, "pool1": pool1, "pool2": pool2, "pool3": pool3, "pool4": pool4}

    def deepest(self, pool4: Tensor) -> Tensor:
        """Return the scores of fc8 for cells of pool4."""
        return self.classify(self.pool5a(self.pool5(self.block5(pool4))))

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        cells = self.deepest(self.pooled(images)["pool4"])
        return SegmentationOutput(zoom(cells, STRIDE, size=images.shape[2:]))

    def scores(self, images: Tensor) -> Tensor:
        """Return the scores on which the original trains, (N, K, ceil(H / 8), ceil(W / 8)): those of pixels 8 i."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        return on_grid(self.deepest(self.pooled(images)["pool4"]), 1, images)


def on_grid(x: Tensor, step: int, images: Tensor) -> Tensor:
    """Take every step-th cell, as many as the images have eighth pixels."""
    rows, columns = (-(-side // STRIDE) for side in images.shape[2:])
    return x[:, :, ::step, ::step][:, :, :rows, :columns]


class MultiScale(LargeFOV):
    """DeepLab-MSc-LargeFOV: five branches of 128 channels whose scores are added to those of fc8."""

    def __init__(self, *, in_channels: int, num_classes: int, base_channels: int, dropout: float) -> None:
        super().__init__(in_channels=in_channels, num_classes=num_classes, base_channels=base_channels, dropout=dropout)
        b = base_channels
        for name, source in zip(BRANCHES, (in_channels, b, 2 * b, 4 * b, 8 * b), strict=True):
            self.add(f"{name}_conv", nn.Conv2d(source, 2 * b, 3, padding=1), std=0.001)
            self.add(f"{name}_fc", nn.Conv2d(2 * b, 2 * b, 1), std=0.005 if name == "pool4" else 0.001)
            self.add(f"{name}_ms", nn.Conv2d(2 * b, num_classes, 1), std=0.01)
        self.drop = nn.Dropout(dropout)

    def add(self, name: str, layer: nn.Conv2d, *, std: float) -> None:
        """Register a layer that starts from N(0, std^2) and biases of 0."""
        nn.init.normal_(layer.weight, std=std)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
        self.add_module(name, layer)

    def branch(self, name: str, x: Tensor, images: Tensor, *, sparse: bool) -> Tensor:
        """Score a map: at each of its cells, or sparsely at those on every eighth pixel of the images."""
        x = convolve(self.get_submodule(f"{name}_conv"), x)
        if sparse:
            x = on_grid(x, STRIDE // BRANCHES[name], images)
        x = convolve(self.get_submodule(f"{name}_fc"), self.drop(x))
        scores: Tensor = self.get_submodule(f"{name}_ms")(self.drop(x))
        return scores

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        size = images.shape[2:]
        maps = self.pooled(images)
        logits = zoom(self.deepest(maps["pool4"]), STRIDE, size=size)
        for name, step in BRANCHES.items():
            logits = logits + zoom(self.branch(name, maps[name], images, sparse=False), step, size=size)
        return SegmentationOutput(logits)

    def scores(self, images: Tensor) -> Tensor:
        """Return the scores on which the original trains, (N, K, ceil(H / 8), ceil(W / 8)): those of pixels 8 i.

        The original trains the branches alone, on top of a finished DeepLab-LargeFOV.
        """
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        maps = self.pooled(images)
        scores = on_grid(self.deepest(maps["pool4"]), 1, images)
        for name in BRANCHES:
            scores = scores + self.branch(name, maps[name], images, sparse=True)
        return scores


@register(
    family="DeepLab v1",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="verified",
    source=f"DeepLab-LargeFOV {SOURCE}",
    input_size=(513, 513),
    debug={"base_channels": 2},
    aliases=("deeplab_largefov",),
)
def deeplabv1_vgg16_largefov(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5
) -> LargeFOV:
    """Build DeepLab-LargeFOV: 20,505,429 parameters for 21 classes."""
    return LargeFOV(num_classes=num_classes, in_channels=in_channels, base_channels=base_channels, dropout=dropout)


@register(
    family="DeepLab v1",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="reconstructed",
    source="the paper's kernel and rate; pools and padding as in the 4x4 network, since no definition was found",
    input_size=(514, 514),
    debug={"base_channels": 2},
)
def deeplabv1_vgg16_7x7(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5
) -> DeepLab:
    """Build DeepLab-7x7 with rate 4: 134,346,581 parameters for 21 classes; FCN-32s' fc6 and fc7 fit."""
    return DeepLab(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        kernel=7,
        rate=4,
        dropout=dropout,
    )


@register(
    family="DeepLab v1",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="verified",
    source=f"DeepLab {SOURCE}; its test network, `scores` for its training network",
    input_size=(514, 514),
    debug={"base_channels": 2},
    aliases=("deeplab_vgg16",),
)
def deeplabv1_vgg16_4x4_r4(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5
) -> DeepLab:
    """Build DeepLab with a 4x4 fc6 at rate 4: 65,140,565 parameters for 21 classes."""
    return DeepLab(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        kernel=4,
        rate=4,
        dropout=dropout,
    )


@register(
    family="DeepLab v1",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="reconstructed",
    source="the paper's kernel and rate; pools and padding as in the 4x4 rate 4 network: no definition was found",
    input_size=(514, 514),
    debug={"base_channels": 2},
)
def deeplabv1_vgg16_4x4_r8(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5
) -> DeepLab:
    """Build DeepLab with a 4x4 fc6 at rate 8: 65,140,565 parameters for 21 classes."""
    return DeepLab(
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        kernel=4,
        rate=8,
        dropout=dropout,
    )


@register(
    family="DeepLab v1",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="verified",
    source=f"DeepLab-MSc-LargeFOV {SOURCE}; scores are summed, as there; pool3_ms starts from a Gaussian, not zeros",
    input_size=(513, 513),
    debug={"base_channels": 2},
)
def deeplabv1_vgg16_msc_largefov(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 64, dropout: float = 0.5
) -> MultiScale:
    """Build DeepLab-MSc-LargeFOV: 21,711,550 parameters for 21 classes, 1,206,121 of them in the branches."""
    return MultiScale(num_classes=num_classes, in_channels=in_channels, base_channels=base_channels, dropout=dropout)
