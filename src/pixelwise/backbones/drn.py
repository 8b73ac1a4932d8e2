"""The levels of Dilated Residual Networks, from which the classifiers of `models.drn` and the segmenters of
`models.drnseg` are built; see the former for the paper.

Facts are those of the release, fyu/drn d75db2e, `drn.py`, whose names the layers have.

Axes: N batch, C image channels, b base channels (64 in DRN-A, 16 in the others), h = H / 8 and w = W / 8 of the cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError

FirstDilation = Literal["code", "paper"]
Blocks = tuple[int, ...]
Levels = dict[str, nn.Module]


def initialise(module: nn.Module) -> None:
    """Draw the kernels from N(0, 2 / (k k C_out)); normalisations start at scale 1 and shift 0 anyway."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def convolution(source: int, width: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Build a convolution without bias that keeps the size, but for its stride."""
    padding = kernel // 2 * dilation
    return nn.Conv2d(source, width, kernel, stride=stride, padding=padding, dilation=dilation, bias=False)


def projection(source: int, width: int, stride: int) -> nn.Sequential | None:
    """Build what brings a shortcut to a block's shape, or nothing where it has it."""
    if stride == 1 and source == width:
        return None
    return nn.Sequential(convolution(source, width, 1, stride=stride), nn.BatchNorm2d(width))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them.

    Args:
        source: channels before.
        width: channels of both convolutions.
        stride: of the first one and of the shortcut.
        dilation: of the first and of the second.
        residual: whether the shortcut is added. Where it is not, the last levels of DRN-C, the release still has a
            projection if the numbers of channels differ: here it is part of the state, fixed, and does not run.
    """

    expansion: ClassVar[int] = 1

    def __init__(
        self, source: int, width: int, *, stride: int = 1, dilation: tuple[int, int] = (1, 1), residual: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = convolution(source, width, stride=stride, dilation=dilation[0])
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, dilation=dilation[1])
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = projection(source, width, stride)
        self.residual = residual
        if self.downsample is not None and not residual:
            self.downsample.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, source, h, w) to (N, width, h / stride, w / stride)."""
        out = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.residual:
            out = out + (x if self.downsample is None else self.downsample(x))
        return functional.relu(out, inplace=True)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, and a shortcut around them; `dilation[0]` is the 3x3's."""

    expansion: ClassVar[int] = 4

    def __init__(self, source: int, width: int, *, stride: int = 1, dilation: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        out = width * self.expansion
        self.conv1 = convolution(source, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, stride=stride, dilation=dilation[0])
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, out, 1)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = projection(source, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, source, h, w) to (N, 4 width, h / stride, w / stride)."""
        out = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = functional.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out = out + (x if self.downsample is None else self.downsample(x))
        return functional.relu(out, inplace=True)


Block = type[BasicBlock] | type[Bottleneck]


class _Maker:
    """Builds levels one after the other and keeps count of the channels."""

    def __init__(self, block: Block, blocks: Blocks, *, levels: int, channels: int) -> None:
        whole = all(isinstance(count, int) and not isinstance(count, bool) and count >= 1 for count in blocks)
        if len(blocks) != levels or not whole:
            raise RequestError(
                f"blocks={list(blocks)}; accepted: {levels} whole numbers from 1, one for each level. Give so many."
            )
        if channels < 1:
            raise RequestError(f"base_channels={channels}; accepted: whole numbers from 1. Give such a number.")
        self.block = block
        self.counts: Iterator[int] = iter(blocks)
        self.channels = channels

    def blocks(
        self, width: int, *, stride: int = 1, dilation: int = 1, first: tuple[int, int] | None = None
    ) -> nn.Sequential:
        """Build the next level of residual blocks; `first` is the first one's dilation where it differs."""
        level, rest = [], (dilation, dilation)
        for index in range(next(self.counts)):
            begins = index == 0
            level.append(
                self.block(self.channels, width, stride=stride if begins else 1, dilation=(begins and first) or rest)
            )
            self.channels = width * self.block.expansion
        return nn.Sequential(*level)

    def basic(self, width: int, *, stride: int = 1, dilation: int = 1, residual: bool = True) -> nn.Sequential:
        """Build the next level of basic blocks, whatever the network's block is."""
        level = []
        for index in range(next(self.counts)):
            step = stride if index == 0 else 1
            level.append(
                BasicBlock(self.channels, width, stride=step, dilation=(dilation, dilation), residual=residual)
            )
            self.channels = width
        return nn.Sequential(*level)

    def plain(self, width: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
        """Build the next level of convolutions, each with its normalisation and ReLU."""
        level: list[nn.Module] = []
        for index in range(next(self.counts)):
            step = stride if index == 0 else 1
            level.append(convolution(self.channels, width, stride=step, dilation=dilation))
            level += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            self.channels = width
        return nn.Sequential(*level)


def levels_a(
    block: Block, blocks: Blocks, *, in_channels: int, base_channels: int, first_dilation: FirstDilation
) -> tuple[Levels, int]:
    """Build ResNet's four levels with the strides of the last two turned into dilation.

    Args:
        block: of all levels.
        blocks: how many in each of the four levels.
        in_channels: C.
        base_channels: b; the levels are b, 2b, 4b and 8b wide, times the block's expansion.
        first_dilation: of the first block of each of the last two levels. "code": 1, as released. "paper": a
            convolution takes the new dilation only behind the one that has lost its stride, which gives every fourth
            cell of the result the value that the strided network has there.

    Returns:
        The modules in order, by name, which map (N, C, H, W) to (N, channels, h, w), and the channels.
    """
    if first_dilation not in ("code", "paper"):
        raise RequestError(f"first_dilation={first_dilation!r}; accepted: 'code' or 'paper'. Give one of these.")
    first = {"code": ((1, 1), (1, 1)), "paper": ((1, 2), (2, 4))}[first_dilation]
    b = base_channels
    make = _Maker(block, blocks, levels=4, channels=b)
    levels: Levels = {
        "conv1": convolution(in_channels, b, 7, stride=2),
        "bn1": nn.BatchNorm2d(b),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
        "layer1": make.blocks(b),
        "layer2": make.blocks(2 * b, stride=2),
        "layer3": make.blocks(4 * b, dilation=2, first=first[0]),
        "layer4": make.blocks(8 * b, dilation=4, first=first[1]),
    }
    return levels, make.channels


def levels_c(
    block: Block, blocks: Blocks, *, in_channels: int, base_channels: int, residual: bool = False
) -> tuple[Levels, int]:
    """Build the eight levels of DRN-C; with `residual` those of DRN-B, whose last two keep their shortcuts.

    Args:
        block: of levels 3 to 6; the others have basic blocks.
        blocks: how many in each of the eight levels.
        in_channels: C.
        base_channels: b; the levels are b, 2b, 4b, 8b, 16b, 32b, 32b and 32b wide.
        residual: whether levels 7 and 8 have shortcuts.

    Returns:
        As `levels_a`.
    """
    b = base_channels
    make = _Maker(block, blocks, levels=8, channels=b)
    levels: Levels = {
        "conv1": convolution(in_channels, b, 7),
        "bn1": nn.BatchNorm2d(b),
        "relu": nn.ReLU(inplace=True),
        "layer1": make.basic(b),
        "layer2": make.basic(2 * b, stride=2),
        **_middle(make, b),
        "layer7": make.basic(32 * b, dilation=2, residual=residual),
        "layer8": make.basic(32 * b, dilation=1, residual=residual),
    }
    return levels, make.channels


def levels_d(block: Block, blocks: Blocks, *, in_channels: int, base_channels: int) -> tuple[Levels, int]:
    """Build the nine levels of DRN-D: DRN-C with plain convolutions in levels 1, 2, 7 and 8; see `levels_c`."""
    b = base_channels
    make = _Maker(block, blocks, levels=8, channels=b)
    levels: Levels = {
        "layer0": nn.Sequential(convolution(in_channels, b, 7), nn.BatchNorm2d(b), nn.ReLU(inplace=True)),
        "layer1": make.plain(b),
        "layer2": make.plain(2 * b, stride=2),
        **_middle(make, b),
        "layer7": make.plain(32 * b, dilation=2),
        "layer8": make.plain(32 * b, dilation=1),
    }
    return levels, make.channels


def _middle(make: _Maker, b: int) -> Levels:
    """Build levels 3 to 6, on which C and D agree."""
    return {
        "layer3": make.blocks(4 * b, stride=2),
        "layer4": make.blocks(8 * b, stride=2),
        "layer5": make.blocks(16 * b, dilation=2),
        "layer6": make.blocks(32 * b, dilation=4),
    }
