"""ResNet: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
https://arxiv.org/abs/1512.03385, and its dilated forms in DeepLab v2 and v3, PSPNet and GCN.

Map from the papers to this file:

- He et al., Fig. 5, the two residual units           -> `BasicBlock`, `Bottleneck`
- He et al., Table 1, the stages conv2_x to conv5_x    -> `layer1` to `layer4`
- PSPNet's released network, conv1_1 to conv1_3        -> `stem="deep"`
- DeepLab v3 (https://arxiv.org/abs/1706.05587), section 3.1.1 and Fig. 3, output stride -> `output_stride`
- the same, section 3.2.1, multi-grid                  -> `multi_grid`

State-dict names are torchvision's (`layer1.0.conv1.weight`), those of the deep stem hszhao/semseg's (`conv2`, `bn2`,
`conv3`, `bn3` beside `conv1`, `bn1`), so that their ImageNet weights load. Output stride, stride position, multi-grid
and rates change no name and no shape: weights go from one form to the other, but for the stride position, whose
networks are different functions of the same weights.

Axes: N batch, C image channels, K classes, b base channels (64 in the paper).

Where the published networks differ, each is a named choice:

- `stride_on`: "3x3" is torchvision's and semseg's ("v1.5"), "1x1" the paper's, Caffe's and MSRA's.
- `first_rate`: the unit that would have had the stride keeps the rate of the stage before ("previous": torchvision,
  and with the stride on the 3x3 the exact dilated twin of the strided network), or takes its own stage's ("own":
  PSPNet, DeepLab; with the stride on the 1x1 that is the exact twin).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError

# Units of conv2_x to conv5_x: He et al., Table 1; 269 is a depth of PSPNet's paper without a released definition.
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    269: (3, 30, 48, 8),
}

Stem = Literal["7x7", "deep", "v1c"]
StrideOn = Literal["3x3", "1x1"]
FirstRate = Literal["previous", "own"]

# Widths of the 3x3 convolutions that replace the 7x7, in halves of the base channels.
DEEP_STEMS = {"deep": (2, 2, 4), "v1c": (1, 1, 2)}  # hszhao/semseg; mmsegmentation's ResNetV1c


class Stages(NamedTuple):
    """The maps behind each stage, as fractions of the input; dilated stages keep a larger one.

    Attributes:
        layer1: float (N, 4b, H/4, W/4).
        layer2: (N, 8b, H/8, W/8).
        layer3: (N, 16b, H/16, W/16), H/8 at output stride 8.
        layer4: (N, 32b, H/32, W/32), H/16 or H/8 at output stride 16 or 8.
    """

    layer1: Tensor
    layer2: Tensor
    layer3: Tensor
    layer4: Tensor


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut; (N, source, h, w) to (N, width, h / stride, w / stride)."""

    expansion = 1

    def __init__(self, source: int, width: int, *, stride: int, rate: int, stride_on: StrideOn) -> None:
        del stride_on  # there is no 1x1 to carry it
        super().__init__()
        self.conv1 = nn.Conv2d(source, width, 3, stride=stride, padding=rate, dilation=rate, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=rate, dilation=rate, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(source, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Add what two convolutions make of x to x."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)  # in place: nothing else needs y
        return functional.relu(y, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the shortcut; (N, source, h, w) to (N, 4 width, h / stride, w / stride)."""

    expansion = 4

    def __init__(self, source: int, width: int, *, stride: int, rate: int, stride_on: StrideOn) -> None:
        super().__init__()
        on_1x1, on_3x3 = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(source, width, 1, stride=on_1x1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=on_3x3, padding=rate, dilation=rate, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(source, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Add what three convolutions make of x to x."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)  # in place: nothing else needs y
        return functional.relu(y, inplace=True)


def shortcut(source: int, target: int, stride: int) -> nn.Module:
    """Return x itself where the shapes agree (He et al., option B), else a 1x1 projection with its normalisation."""
    if source == target and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(source, target, 1, stride=stride, bias=False), nn.BatchNorm2d(target))


class ResNet(nn.Module):
    """The trunk, and with `num_classes` the classifier: 25,557,032 parameters for ResNet-50 and 1000 classes.

    Args:
        blocks: units of the four stages, such as `BLOCKS[50]`.
        unit: `Bottleneck`, or `BasicBlock` for 18 and 34 layers.
        in_channels: C.
        base_channels: b; the stages' inner widths are b, 2b, 4b and 8b.
        num_classes: K; None leaves the classifier out.
        output_stride: input pixels per cell of the last map: 32, 16 (layer4 dilated) or 8 (layer3 too).
        stem: "7x7"; "deep" (three 3x3 convolutions, 64, 64, 128 channels: PSPNet); "v1c" (32, 32, 64).
        stride_on: which convolution of a bottleneck has the stride.
        first_rate: rate of the first unit of a dilated stage.
        multi_grid: factors on the rates of layer4's units, repeated where there are more units.
        ceil_pool: let the max pool cover a last half window, as Caffe does.

    Raises:
        RequestError: for a value that is not accepted.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int],
        unit: type[BasicBlock] | type[Bottleneck] = Bottleneck,
        in_channels: int = 3,
        base_channels: int = 64,
        num_classes: int | None = None,
        output_stride: int = 32,
        stem: Stem = "7x7",
        stride_on: StrideOn = "3x3",
        first_rate: FirstRate = "previous",
        multi_grid: Sequence[int] = (1, 1, 1),
        ceil_pool: bool = False,
    ) -> None:
        super().__init__()
        _check(blocks, base_channels, output_stride, stem, multi_grid)
        self.stem_convolutions = 1
        source = b = base_channels
        if stem == "7x7":
            self.conv1 = nn.Conv2d(in_channels, b, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(b)
        else:
            source = self._deepen(in_channels, tuple(half * b // 2 for half in DEEP_STEMS[stem]))
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=ceil_pool)
        stages: list[nn.Sequential] = []
        for stage, (stride, first, rate) in enumerate(dilation_plan(output_stride, first_rate)):
            grid = multi_grid if stage == 3 else (1,)
            rates = [(rate if index else first) * grid[index % len(grid)] for index in range(blocks[stage])]
            width = b * 2**stage
            units = []
            for index, unit_rate in enumerate(rates):
                unit_stride = 1 if index else stride
                units.append(unit(source, width, stride=unit_stride, rate=unit_rate, stride_on=stride_on))
                source = width * unit.expansion
            stages.append(nn.Sequential(*units))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.out_channels = source
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(source, num_classes)
        self.apply(initialise)

    def _deepen(self, in_channels: int, widths: tuple[int, ...]) -> int:
        """Build the stem of 3x3 convolutions, the first with stride 2; return its channels."""
        source = in_channels
        for index, width in enumerate(widths, start=1):
            stride = 2 if index == 1 else 1
            self.add_module(f"conv{index}", nn.Conv2d(source, width, 3, stride=stride, padding=1, bias=False))
            self.add_module(f"bn{index}", nn.BatchNorm2d(width))
            source = width
        self.stem_convolutions = len(widths)
        return source

    def stem(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, b, H/4, W/4); 2b channels behind the deep stem."""
        x = images
        for index in range(1, self.stem_convolutions + 1):
            x = self.get_submodule(f"conv{index}")(x)  # (N, b, H/2, W/2)
            x = functional.relu(self.get_submodule(f"bn{index}")(x), inplace=True)
        pooled: Tensor = self.maxpool(x)
        return pooled

    def stages(self, images: Tensor) -> Stages:
        """Return the maps behind the four stages of images (N, C, H, W)."""
        layer1 = self.layer1(self.stem(images))
        layer2 = self.layer2(layer1)
        layer3 = self.layer3(layer2)
        return Stages(layer1, layer2, layer3, self.layer4(layer3))

    def forward(self, images: Tensor) -> Tensor:
        """Classify (N, C, H, W), 224x224 in the paper, into logits (N, K); without a classifier return layer4's map."""
        last = self.stages(images).layer4
        if not hasattr(self, "fc"):
            return last
        logits: Tensor = self.fc(self.avgpool(last).flatten(1))
        return logits


def dilation_plan(output_stride: int, first_rate: FirstRate) -> list[tuple[int, int, int]]:
    """Return stride of the first unit, its rate, and the rate of the others, of each stage.

    >>> dilation_plan(8, "own")
    [(1, 1, 1), (2, 1, 1), (1, 2, 2), (1, 4, 4)]
    """
    plan, reached, rate = [(1, 1, 1)], 4, 1
    for _ in range(3):
        if reached < output_stride:
            reached *= 2
            plan.append((2, rate, rate))
        else:
            plan.append((1, rate if first_rate == "previous" else 2 * rate, 2 * rate))
            rate *= 2
    return plan


def initialise(module: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / fan_out) (torchvision, hszhao/semseg); normalisations start as 1 and 0."""
    if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # where drawing nothing takes half a second
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _check(blocks: Sequence[int], base_channels: int, output_stride: int, stem: str, multi_grid: Sequence[int]) -> None:
    if len(blocks) != 4 or min(blocks) < 1:
        raise RequestError(f"blocks={list(blocks)}; accepted: four whole numbers from 1, such as [3, 4, 6, 3].")
    least = 1 if stem == "7x7" else 2
    if base_channels < least or (stem != "7x7" and base_channels % 2):
        kind = "whole numbers from 1" if stem == "7x7" else "even numbers from 2"
        raise RequestError(f"base_channels={base_channels}; accepted: {kind} (the paper's is 64). Give such a number.")
    if stem not in ("7x7", *DEEP_STEMS):
        raise RequestError(f"stem={stem!r}; accepted: '7x7', 'deep', 'v1c'. Give one of them.")
    if output_stride not in (8, 16, 32):
        raise RequestError(f"output_stride={output_stride}; accepted: 8, 16, 32. Give one of them.")
    if not multi_grid or min(multi_grid) < 1:
        raise RequestError(f"multi_grid={list(multi_grid)}; accepted: whole numbers from 1, such as [1, 2, 4].")
