"""PSPNet: H. Zhao, J. Shi, X. Qi, X. Wang, J. Jia, "Pyramid Scene Parsing Network", CVPR 2017,
https://arxiv.org/abs/1612.01105.

Map from the paper to this file:

- Fig. 3 (a) to (b), the dilated ResNet and its feature map -> `PSPNet.layer0` to `layer4`
- Fig. 3 (c), pyramid pooling, section 3.2                  -> `PyramidPooling`
- Fig. 3 (d), the final prediction                          -> `PSPNet.cls`
- Fig. 4, the auxiliary loss behind res4b22                 -> `PSPNet.aux`, `aux_weights`
- Table 1, pooling kinds, bins, dimension reduction         -> `pool`, `bins`, `reduce`; no bins is the baseline
- Tables 2 and 3, auxiliary weights and depths              -> `aux_weight`; the builders

State-dict names are those of hszhao/semseg, whose checkpoints load once their prefix "module." is gone.

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64); f = (H - 1) / 8 + 1 cells.

Released networks differ, and `variant` names them:

- "semseg", the default: strides on the 3x3 convolutions, dropout of whole channels, batch statistics renewed by a
  tenth;
- "caffe" (hszhao/PSPNet): dropout of single numbers, batch statistics renewed by a twentieth. Its ResNet-50 has the
  stride of layer2 on the 1x1 convolution, as in He et al., so that its weights make another function of semseg's
  network, though every shape agrees; its ResNet-101 has it on the 3x3;
- "mmsegmentation": maps are interpolated with align_corners=False, so that any size is legal, and the first unit of a
  dilated stage keeps the rate of the stage before. Its weights have the stem "v1c", half as wide.

Caffe also joins the pooled maps from six bins to one; `import-weights` reorders the weights that read them.

Departures: training compares both outputs with labels at full resolution, as semseg does; the Caffe training did so at
an eighth. `output_stride` 16 and 32 are ours. Neither release has a definition of 269 layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.backbones.resnet import BLOCKS, ResNet, Stem, StrideOn
from pixelwise.errors import RequestError
from pixelwise.layers.zoom import zoom
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = 'Zhao, Shi, Qi, Wang, Jia, "Pyramid Scene Parsing Network", CVPR 2017'
SOURCE = (
    "hszhao/semseg; variant='caffe' is the network of hszhao/PSPNet, whose definition lacks the auxiliary branch; "
    "without ImageNet weights layers start at random"
)
SOURCE_269 = (
    "the paper's depth in hszhao/semseg's network; neither release has a definition of 269 layers, so that the numbers "
    "of units in its stages are not held to one"
)
BINS = (1, 2, 3, 6)
AUX_WEIGHT = 0.4  # Table 2
DROPOUT = 0.1

Variant = Literal["semseg", "caffe", "mmsegmentation"]
Pool = Literal["avg", "max"]


class PyramidPooling(nn.Module):
    """The map beside its averages over 1, 4, 9 and 36 regions: (N, c, f, f) to (N, c + bins * width, f, f).

    Args:
        channels: c.
        bins: regions a side, of each level.
        pool: what a region is reduced to, its average or its maximum.
        reduce: give each level c / (number of levels) channels by a 1x1 convolution; False keeps c.
        corners: interpolate between the centres of the corner regions, else with align_corners=False.
    """

    def __init__(self, channels: int, *, bins: Sequence[int], pool: Pool, reduce: bool, corners: bool = True) -> None:
        super().__init__()
        self.corners = corners
        width = channels // len(bins) if reduce else channels
        self.out_channels = channels + len(bins) * width
        self.features = nn.ModuleList()
        for side in bins:
            regions = nn.AdaptiveAvgPool2d(side) if pool == "avg" else nn.AdaptiveMaxPool2d(side)
            reduction = [nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            self.features.append(nn.Sequential(regions, *(reduction if reduce else [])))

    def forward(self, x: Tensor) -> Tensor:
        """Append what each level says, interpolated to the map's size."""
        levels = [
            functional.interpolate(level(x), x.shape[2:], mode="bilinear", align_corners=self.corners)
            for level in self.features
        ]
        return torch.cat([x, *levels], dim=1)


def classifier(source: int, width: int, num_classes: int, *, dropout: float, variant: Variant) -> nn.Sequential:
    """Build a 3x3 convolution and the 1x1 that scores the classes; (N, source, f, f) to (N, K, f, f)."""
    return nn.Sequential(
        nn.Conv2d(source, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout) if variant == "caffe" else nn.Dropout2d(dropout),
        nn.Conv2d(width, num_classes, 1),
    )


class PSPNet(nn.Module):
    """A dilated ResNet, pyramid pooling, a classifier, and an auxiliary classifier for training.

    Args:
        blocks: units of the ResNet's stages.
        num_classes: K.
        in_channels: C.
        base_channels: b.
        bins: levels of the pyramid; none leaves it out.
        pool, reduce: see `PyramidPooling`.
        aux_weight: of the auxiliary loss; 0 leaves its classifier out.
        dropout: before both classifiers' last layers.
        stem: "deep" or "v1c", three 3x3 convolutions, or the "7x7" of He et al.
        variant: which release, see above.
        stride_on: which convolution of a bottleneck has the stride.
        output_stride: input pixels per cell.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int],
        num_classes: int,
        in_channels: int,
        base_channels: int,
        bins: Sequence[int],
        pool: Pool,
        reduce: bool,
        aux_weight: float,
        dropout: float,
        stem: Stem,
        variant: Variant,
        stride_on: StrideOn,
        output_stride: int,
    ) -> None:
        super().__init__()
        trunk = ResNet(
            blocks=blocks,
            in_channels=in_channels,
            base_channels=base_channels,
            output_stride=output_stride,
            stem=stem,
            stride_on=stride_on,
            first_rate="previous" if variant == "mmsegmentation" else "own",
        )
        _check(trunk.out_channels, bins, aux_weight, dropout, pool=pool, variant=variant)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.output_stride = output_stride
        self.corners = variant != "mmsegmentation"
        grid = SizeRule(step=output_stride, offset=1, period=output_stride)
        self.size_rule = grid if self.corners else SizeRule(period=output_stride)
        self.aux_weights = (aux_weight,) if aux_weight else ()
        self.layer0 = stem_of(trunk)
        self.layer1, self.layer2, self.layer3, self.layer4 = trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4
        channels = trunk.out_channels  # 2048
        self.ppm: nn.Module = nn.Identity()
        if bins:
            self.ppm = PyramidPooling(channels, bins=bins, pool=pool, reduce=reduce, corners=self.corners)
            channels = self.ppm.out_channels  # 4096
        self.cls = classifier(channels, 8 * base_channels, num_classes, dropout=dropout, variant=variant)
        if aux_weight:
            self.aux = classifier(16 * base_channels, 4 * base_channels, num_classes, dropout=dropout, variant=variant)
        if variant == "caffe":
            renew_by(self, 0.05)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W); in training `aux` has the auxiliary ones.

        Raises:
            RequestError: if a side is not 8 n + 1; the nearest legal ones are named.
        """
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        layer2 = self.layer2(self.layer1(self.layer0(images)))  # (N, 8b, f, f)
        layer3 = self.layer3(layer2)  # (N, 16b, f, f)
        pooled = self.ppm(self.layer4(layer3))  # (N, 64b, f, f)
        logits = self.upsample(self.cls(pooled), images)
        if not (self.training and self.aux_weights):
            return SegmentationOutput(logits)
        return SegmentationOutput(logits, (self.upsample(self.aux(layer3), images),))

    def upsample(self, scores: Tensor, images: Tensor) -> Tensor:
        """Interpolate scores (N, K, f, f) to the images' size, (N, K, H, W)."""
        if self.corners:
            return zoom(scores, self.output_stride)
        return functional.interpolate(scores, images.shape[2:], mode="bilinear", align_corners=False)


def stem_of(trunk: ResNet) -> nn.Sequential:
    """Return a trunk's stem as one sequence: convolutions 0, 3, 6, normalisations 1, 4, 7, and the pool."""
    layers: list[nn.Module] = []
    for index in range(1, trunk.stem_convolutions + 1):
        layers += [trunk.get_submodule(f"conv{index}"), trunk.get_submodule(f"bn{index}"), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, trunk.maxpool)


def renew_by(model: nn.Module, share: float) -> None:
    """Set the share of the running statistics that each batch renews."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = share


def _check(channels: int, bins: Sequence[int], aux_weight: float, dropout: float, **choices: str) -> None:
    accepted = {"pool": get_args(Pool), "variant": get_args(Variant)}
    for key, value in choices.items():
        if value not in accepted[key]:
            raise RequestError(f"{key}={value!r}; accepted: {' or '.join(map(repr, accepted[key]))}. Give one of them.")
    if bins and (min(bins) < 1 or channels % len(bins)):
        raise RequestError(
            f"bins={list(bins)}; accepted: whole numbers from 1, as many as divide the {channels} channels of the map "
            f"(the paper's are {list(BINS)}), or none to leave pyramid pooling out. Give such a list."
        )
    if aux_weight < 0:
        raise RequestError(f"aux_weight={aux_weight}; accepted: 0 (no auxiliary loss) and above, 0.4 in the paper.")
    if not 0 <= dropout < 1:
        raise RequestError(f"dropout={dropout}; accepted: 0 up to, not including, 1 (the original's is {DROPOUT}).")


@register(
    family="PSPNet",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="verified",
    source=SOURCE,
    input_size=(473, 473),
    debug={"base_channels": 4, "blocks": (1, 1, 1, 1)},
    aliases=("pspnet50",),
)
def pspnet_resnet50(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[50],
    bins: tuple[int, ...] = BINS,
    pool: Pool = "avg",
    reduce: bool = True,
    aux_weight: float = AUX_WEIGHT,
    dropout: float = DROPOUT,
    stem: Stem = "deep",
    variant: Variant = "semseg",
    output_stride: int = 8,
) -> PSPNet:
    """Build PSPNet on ResNet-50: 46,782,550 parameters for 150 classes, 49,180,908 in training."""
    return PSPNet(
        blocks=blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        bins=bins,
        pool=pool,
        reduce=reduce,
        aux_weight=aux_weight,
        dropout=dropout,
        stem=stem,
        variant=variant,
        stride_on="1x1" if variant == "caffe" else "3x3",
        output_stride=output_stride,
    )


@register(
    family="PSPNet",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="verified",
    source=SOURCE,
    input_size=(473, 473),
    debug={"base_channels": 4, "blocks": (1, 1, 1, 1)},
    aliases=("pspnet101",),
)
def pspnet_resnet101(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[101],
    bins: tuple[int, ...] = BINS,
    pool: Pool = "avg",
    reduce: bool = True,
    aux_weight: float = AUX_WEIGHT,
    dropout: float = DROPOUT,
    stem: Stem = "deep",
    variant: Variant = "semseg",
    output_stride: int = 8,
) -> PSPNet:
    """Build PSPNet on ResNet-101: 65,707,475 parameters for 19 classes, 68,072,166 in training."""
    return PSPNet(
        blocks=blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        bins=bins,
        pool=pool,
        reduce=reduce,
        aux_weight=aux_weight,
        dropout=dropout,
        stem=stem,
        variant=variant,
        stride_on="3x3",
        output_stride=output_stride,
    )


@register(
    family="PSPNet",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="verified",
    source=SOURCE,
    input_size=(473, 473),
    debug={"base_channels": 4, "blocks": (1, 1, 1, 1)},
    aliases=("pspnet152",),
)
def pspnet_resnet152(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[152],
    bins: tuple[int, ...] = BINS,
    pool: Pool = "avg",
    reduce: bool = True,
    aux_weight: float = AUX_WEIGHT,
    dropout: float = DROPOUT,
    stem: Stem = "deep",
    variant: Variant = "semseg",
    output_stride: int = 8,
) -> PSPNet:
    """Build PSPNet on ResNet-152: 81,418,326 parameters for 150 classes, 83,816,684 in training."""
    return PSPNet(
        blocks=blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        bins=bins,
        pool=pool,
        reduce=reduce,
        aux_weight=aux_weight,
        dropout=dropout,
        stem=stem,
        variant=variant,
        stride_on="3x3",
        output_stride=output_stride,
    )


@register(
    family="PSPNet",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="reconstructed",
    source=SOURCE_269,
    input_size=(473, 473),
    debug={"base_channels": 4, "blocks": (1, 1, 1, 1)},
    aliases=("pspnet269",),
)
def pspnet_resnet269(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[269],
    bins: tuple[int, ...] = BINS,
    pool: Pool = "avg",
    reduce: bool = True,
    aux_weight: float = AUX_WEIGHT,
    dropout: float = DROPOUT,
    stem: Stem = "deep",
    variant: Variant = "semseg",
    output_stride: int = 8,
) -> PSPNet:
    """Build PSPNet on ResNet-269, the winner of the ImageNet Scene Parsing Challenge 2016: 100,148,160 in its trunk."""
    return PSPNet(
        blocks=blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        bins=bins,
        pool=pool,
        reduce=reduce,
        aux_weight=aux_weight,
        dropout=dropout,
        stem=stem,
        variant=variant,
        stride_on="3x3",
        output_stride=output_stride,
    )
