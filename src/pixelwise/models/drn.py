"""Dilated Residual Networks as image classifiers: F. Yu, V. Koltun, T. Funkhouser, "Dilated Residual Networks",
CVPR 2017, https://arxiv.org/abs/1705.09914. `models.drnseg` are the segmenters made of them.

Map from the paper and the release (fyu/drn, d75db2e) to the code:

- A, a ResNet whose last two levels are dilated instead of strided              -> `backbones.drn.levels_a`
- B, degridding: no max pool, and two more levels of smaller dilation           -> `levels_c(residual=True)`
- C, and no shortcuts around those two                                          -> `levels_c`
- D, of the release alone: plain convolutions but in levels 3 to 6              -> `levels_d`
- localisation: the map of a class's scores, without further training           -> `DRN.class_maps`

Axes: N batch, C image channels, K classes, H and W input size, h = ceil(H / 8) and w = ceil(W / 8) cells.

Why degridding: a convolution of dilation 4 joins every fourth cell, so that a bright cell before it comes out as
nine cells that lie apart, and a map behind it is made of sixteen that do not know of each other. The max pool of A
leaves bright, isolated cells; nothing follows that would fill the gaps. `pixelwise look drn_a_18,drn_b_26,drn_c_26
IMAGE --gridding` draws it.

Where paper and release disagree: the release leaves the first block of A's levels 3 and 4 undilated, the paper dilates
all convolutions but the one whose stride went. `first_dilation` chooses, with the release's ("code") as the default.

Departures: the release averages over 28 x 28 cells, the map of a 224-pixel image; of larger maps it sees the top left
28 x 28, or fails. Here the whole map is averaged whatever its size, which is the same from 217 to 224 pixels a side.
The release's `out_map` is `class_maps`, its `out_middle` is `level_maps`. DRN-D-24, 40, 56 and 107 of the release are
D-22, 38, 54 and 105 with two convolutions in each of the last two levels: `blocks=(1, 1, 2, 2, 2, 2, 2, 2)` and so on.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from pixelwise.backbones.drn import (
    BasicBlock,
    Blocks,
    Bottleneck,
    FirstDilation,
    Levels,
    initialise,
    levels_a,
    levels_c,
    levels_d,
)
from pixelwise.registry import register
from pixelwise.structures import ClassificationOutput, SizeRule, check_images

PAPER = 'Yu, Koltun, Funkhouser, "Dilated Residual Networks", CVPR 2017'
ANY_SIZE = SizeRule(minimum=9, period=8)  # two cells a side, since batch normalisation needs more than one value
DEBUG_A = {"base_channels": 4, "blocks": (1, 1, 1, 1)}
DEBUG = {"base_channels": 2, "blocks": (1, 1, 1, 1, 1, 1, 1, 1)}


class DRN(nn.Module):
    """Levels, the mean of their last map, and a linear classifier.

    Args:
        levels: modules in order, by name, and their channels, of `backbones.drn`.
        in_channels: C.
        num_classes: K.
        linear: whether the classifier is `nn.Linear`, as in DRN-A, or a 1x1 convolution; the same numbers in
            another shape.
    """

    size_rule = ANY_SIZE

    def __init__(self, levels: tuple[Levels, int], *, in_channels: int, num_classes: int, linear: bool = False) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        modules, channels = levels
        self.levels = tuple(modules)
        for name, module in modules.items():
            self.add_module(name, module)
        self.fc = nn.Linear(channels, num_classes) if linear else nn.Conv2d(channels, num_classes, 1)
        self.apply(initialise)

    def level_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of layer1, layer2 and so on; the last is (N, channels, h, w)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        x, maps = images, []
        for name in self.levels:
            x = self.get_submodule(name)(x)
            if name.startswith("layer") and name != "layer0":
                maps.append(x)
        return tuple(maps)

    def class_maps(self, images: Tensor) -> Tensor:
        """Score every cell, (N, K, h, w); the logits are the mean over the cells."""
        weight, bias = self.fc.weight, self.fc.bias
        return functional.conv2d(self.level_maps(images)[-1], weight.view(*weight.shape[:2], 1, 1), bias)

    def forward(self, images: Tensor) -> ClassificationOutput:
        """Classify float images (N, C, H, W) of any size from 9 x 9: logits (N, K)."""
        cells = self.level_maps(images)[-1]  # (N, channels, h, w)
        mean = functional.adaptive_avg_pool2d(cells, 1)  # (N, channels, 1, 1)
        if isinstance(self.fc, nn.Linear):
            mean = mean.flatten(1)
        return ClassificationOutput(self.fc(mean).flatten(1))


# What they share in the catalogue.
enter = partial(register, family="DRN", task="classification", year=2017, paper=PAPER, input_size=(224, 224))
RELEASE = "drn.py of fyu/drn; the mean over the whole map stands for the one over 28 x 28 cells"
RELEASE_A = RELEASE + "; first_dilation chooses between the code's and the paper's"
RELEASE_D = RELEASE + "; not in the paper"


@enter(fidelity="verified", source=RELEASE_A, debug=DEBUG_A)
def drn_a_18(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: Blocks = (2, 2, 2, 2),
    first_dilation: FirstDilation = "code",
) -> DRN:
    """Build DRN-A-18: 11,689,512 parameters for 1000 classes, as ResNet-18."""
    levels = levels_a(
        BasicBlock, blocks, in_channels=in_channels, base_channels=base_channels, first_dilation=first_dilation
    )
    return DRN(levels, in_channels=in_channels, num_classes=num_classes, linear=True)


@enter(fidelity="verified", source=RELEASE_A, debug=DEBUG_A)
def drn_a_34(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: Blocks = (3, 4, 6, 3),
    first_dilation: FirstDilation = "code",
) -> DRN:
    """Build DRN-A-34: 21,797,672 parameters for 1000 classes, as ResNet-34."""
    levels = levels_a(
        BasicBlock, blocks, in_channels=in_channels, base_channels=base_channels, first_dilation=first_dilation
    )
    return DRN(levels, in_channels=in_channels, num_classes=num_classes, linear=True)


@enter(fidelity="verified", source=RELEASE_A, debug=DEBUG_A)
def drn_a_50(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: Blocks = (3, 4, 6, 3),
    first_dilation: FirstDilation = "code",
) -> DRN:
    """Build DRN-A-50: 25,557,032 parameters for 1000 classes, as ResNet-50."""
    levels = levels_a(
        Bottleneck, blocks, in_channels=in_channels, base_channels=base_channels, first_dilation=first_dilation
    )
    return DRN(levels, in_channels=in_channels, num_classes=num_classes, linear=True)


@enter(
    fidelity="reconstructed",
    source="the paper; no code was released: DRN-C-26 of fyu/drn with the shortcuts of its last two levels added",
    debug=DEBUG,
)
def drn_b_26(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 16, blocks: Blocks = (1, 1, 2, 2, 2, 2, 1, 1)
) -> DRN:
    """Build DRN-B-26, DRN-C-26 with all its shortcuts: 21,126,584 parameters for 1000 classes."""
    levels = levels_c(BasicBlock, blocks, in_channels=in_channels, base_channels=base_channels, residual=True)
    return DRN(levels, in_channels=in_channels, num_classes=num_classes)


@enter(fidelity="verified", source=RELEASE, debug=DEBUG)
def drn_c_26(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 16, blocks: Blocks = (1, 1, 2, 2, 2, 2, 1, 1)
) -> DRN:
    """Build DRN-C-26: 21,126,584 parameters for 1000 classes."""
    levels = levels_c(BasicBlock, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRN(levels, in_channels=in_channels, num_classes=num_classes)


@enter(fidelity="verified", source=RELEASE, debug=DEBUG)
def drn_c_42(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 16, blocks: Blocks = (1, 1, 3, 4, 6, 3, 1, 1)
) -> DRN:
    """Build DRN-C-42: 31,234,744 parameters for 1000 classes."""
    levels = levels_c(BasicBlock, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRN(levels, in_channels=in_channels, num_classes=num_classes)


@enter(fidelity="verified", source=RELEASE, debug=DEBUG)
def drn_c_58(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 16, blocks: Blocks = (1, 1, 3, 4, 6, 3, 1, 1)
) -> DRN:
    """Build DRN-C-58: 41,591,608 parameters for 1000 classes; 1,049,600 of them, a projection, do not run."""
    levels = levels_c(Bottleneck, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRN(levels, in_channels=in_channels, num_classes=num_classes)


@enter(fidelity="verified", source=RELEASE_D, debug=DEBUG)
def drn_d_22(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 16, blocks: Blocks = (1, 1, 2, 2, 2, 2, 1, 1)
) -> DRN:
    """Build DRN-D-22: 16,393,752 parameters for 1000 classes."""
    levels = levels_d(BasicBlock, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRN(levels, in_channels=in_channels, num_classes=num_classes)


@enter(fidelity="verified", source=RELEASE_D, debug=DEBUG)
def drn_d_38(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 16, blocks: Blocks = (1, 1, 3, 4, 6, 3, 1, 1)
) -> DRN:
    """Build DRN-D-38: 26,501,912 parameters for 1000 classes."""
    levels = levels_d(BasicBlock, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRN(levels, in_channels=in_channels, num_classes=num_classes)


@enter(fidelity="verified", source=RELEASE_D, debug=DEBUG)
def drn_d_54(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 16, blocks: Blocks = (1, 1, 3, 4, 6, 3, 1, 1)
) -> DRN:
    """Build DRN-D-54: 35,809,176 parameters for 1000 classes."""
    levels = levels_d(Bottleneck, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRN(levels, in_channels=in_channels, num_classes=num_classes)


@enter(fidelity="verified", source=RELEASE_D, debug=DEBUG)
def drn_d_105(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 16, blocks: Blocks = (1, 1, 3, 4, 23, 3, 1, 1)
) -> DRN:
    """Build DRN-D-105: 54,801,304 parameters for 1000 classes."""
    levels = levels_d(Bottleneck, blocks, in_channels=in_channels, base_channels=base_channels)
    return DRN(levels, in_channels=in_channels, num_classes=num_classes)
