"""GCN: C. Peng, X. Zhang, G. Yu, G. Luo, J. Sun, "Large Kernel Matters - Improve Semantic Segmentation by Global
Convolutional Network", CVPR 2017, https://arxiv.org/abs/1703.02719. No graph convolutional network.

Map from the paper to this file:

- Fig. 2 (A), the whole network                               -> `GCN.forward`
- Fig. 2 (B), two pairs of k x 1 and 1 x k convolutions       -> `GlobalConv`
- Fig. 2 (C), boundary refinement                             -> `BoundaryRefinement`
- Tables 1 to 3, 1x1, k x k and stacked 3x3 in its place      -> `score_layer`
- Table 4, with and without boundary refinement               -> `boundary_refinement`

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64), m channels of the decoder (K).

Reconstructed: there is no original code. The parameter counts of the paper's tables hold without bias in the large
kernels, which is the default; ports have one (`bias`). Not verified are the deconvolutions' kernel (4, here without
bias, starting as bilinear interpolation), the initialisation (that of ports: N(0, 2 / fan_in)), the stacks'
activation (here none, as in the GCN) and where the ResNet of the paper has its strides (here as torchvision's, whose
ImageNet weights have the same names and can be transplanted). ResNet-GCN, the paper's backbone with large kernels
inside, is left out, since its details could not be verified.

Departures: `mid_channels` gives the decoder other channels than classes, followed by a 1x1 convolution: with one or two
classes it would be starved, with 150 it would be costly. `upsample="bilinear"` is that of ports, interpolating to the
size of the next map; as the deconvolutions at their start, it does so between the centres of cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from pixelwise.backbones.resnet import BLOCKS, ResNet
from pixelwise.errors import RequestError
from pixelwise.layers.bilinear import BilinearUpsampling
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = (
    'Peng, Zhang, Yu, Luo, Sun, "Large Kernel Matters - Improve Semantic Segmentation by Global Convolutional '
    'Network", CVPR 2017'
)
SOURCE = (
    "the paper's figures and parameter counts, without original code; not verified are the "
    "deconvolutions' kernel, the initialisation and the stride position of the ResNet"
)

ScoreLayer = Literal["gcn", "1x1", "dense", "stacked"]
Upsample = Literal["deconv", "bilinear"]


class GlobalConv(nn.Module):
    """Two pairs of one-dimensional convolutions, k x 1 before 1 x k and the reverse, summed; nothing between them.

    (N, C, h, w) to (N, m, h, w) with 2 (k C m + k m^2) parameters, where a dense kernel has k^2 C m.

    Args:
        source: C.
        channels: m.
        k: the kernel's side, odd.
        bias: of the four convolutions.
    """

    def __init__(self, source: int, channels: int, k: int, *, bias: bool = False) -> None:
        super().__init__()
        _check_kernel(k)
        tall, wide = ((k, 1), (k // 2, 0)), ((1, k), (0, k // 2))
        self.left, self.right = (
            nn.Sequential(
                nn.Conv2d(source, channels, first[0], padding=first[1], bias=bias),
                nn.Conv2d(channels, channels, second[0], padding=second[1], bias=bias),
            )
            for first, second in ((tall, wide), (wide, tall))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Sum the two pairs."""
        left: Tensor = self.left(x)
        right: Tensor = self.right(x)
        return left + right


class BoundaryRefinement(nn.Module):
    """A map plus what two 3x3 convolutions make of it; (N, m, h, w) to the same."""

    def __init__(self, channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=bias),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to x."""
        branch: Tensor = self.branch(x)
        return x + branch


def score(source: int, channels: int, k: int, kind: ScoreLayer, *, bias: bool, stack_channels: int) -> nn.Module:
    """Build what turns a map of the ResNet into scores: the GCN, or what the paper compares with it.

    "stacked" are (k - 1) / 2 convolutions of 3x3, whose field is k x k, with as many channels between them as the map
    has, or `stack_channels`.
    """
    if kind == "gcn":
        return GlobalConv(source, channels, k, bias=bias)
    if kind == "1x1":
        return nn.Conv2d(source, channels, 1, bias=bias)
    if kind == "dense":
        return nn.Conv2d(source, channels, k, padding=k // 2, bias=bias)
    between = [stack_channels or source] * (k // 2 - 1)
    widths = [source, *between, channels]
    return nn.Sequential(
        *(nn.Conv2d(before, after, 3, padding=1, bias=bias) for before, after in itertools.pairwise(widths))
    )


def initialise(module: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / fan_in), biases start at 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Enlarge(nn.Module):
    """Double the size of a map, by a learnt deconvolution or by interpolation to the size that is wanted."""

    def __init__(self, channels: int, upsample: Upsample) -> None:
        super().__init__()
        learnt = BilinearUpsampling(channels, kernel_size=4, stride=2, padding=1, learnt=True)
        self.deconvolution = learnt if upsample == "deconv" else None

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Return (N, m, *size) of (N, m, h, w); a deconvolution gives (N, m, 2 h, 2 w)."""
        if self.deconvolution is None:
            return functional.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
        doubled: Tensor = self.deconvolution(x)
        return doubled


class GCN(nn.Module):
    """Scores of four stages, each refined, doubled in size and added to those of the next finer stage.

    Args:
        blocks: units of the ResNet's stages.
        num_classes: K.
        in_channels: C.
        base_channels: b.
        k: side of the large kernels, odd; the paper's is 15, and 25 for 800 x 800 crops of Cityscapes.
        score_layer: "gcn" or an ablation, see `score`.
        stack_channels: of the ablation "stacked"; 0 is as many as the map has.
        bias: of the large kernels.
        mid_channels: m; 0 is K, the paper's.
        boundary_refinement: refine behind each GCN, each sum and twice at the end, nine times in all.
        upsample: "deconv", learnt, or "bilinear".
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int],
        num_classes: int,
        in_channels: int,
        base_channels: int,
        k: int,
        score_layer: ScoreLayer,
        stack_channels: int,
        bias: bool,
        mid_channels: int,
        boundary_refinement: bool,
        upsample: Upsample,
    ) -> None:
        super().__init__()
        _check(k, mid_channels, stack_channels, score_layer=score_layer, upsample=upsample)
        trunk = ResNet(blocks=blocks, in_channels=in_channels, base_channels=base_channels)
        self.in_channels = in_channels
        self.num_classes = num_classes
        step = 32 if upsample == "deconv" else 1
        self.size_rule = SizeRule(step=step, minimum=step, period=32)
        m = mid_channels or num_classes
        self.conv1, self.bn1, self.maxpool = trunk.conv1, trunk.bn1, trunk.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4
        self.score = nn.ModuleList(  # coarse to fine, as all that follows
            score(factor * base_channels, m, k, score_layer, bias=bias, stack_channels=stack_channels)
            for factor in (32, 16, 8, 4)
        )
        self.refine_score, self.refine_sum = (
            nn.ModuleList(BoundaryRefinement(m) if boundary_refinement else nn.Identity() for _ in range(count))
            for count in (4, 5)
        )
        self.enlarge = nn.ModuleList(Enlarge(m, upsample) for _ in range(5))
        self.classify = nn.Conv2d(m, num_classes, 1) if mid_channels else nn.Identity()
        for new in (self.score, self.refine_score, self.refine_sum, self.classify):
            new.apply(initialise)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W).

        Raises:
            RequestError: if a side is not a multiple of 32, with deconvolutions; the nearest legal ones are named.
        """
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        stem = functional.relu(self.bn1(self.conv1(images)), inplace=True)  # (N, b, H/2, W/2)
        layer1 = self.layer1(self.maxpool(stem))  # (N, 4b, H/4, W/4)
        layer2 = self.layer2(layer1)
        layer3 = self.layer3(layer2)
        layer4 = self.layer4(layer3)  # (N, 32b, H/32, W/32)
        scores = [
            refine(score(x))
            for x, score, refine in zip((layer4, layer3, layer2, layer1), self.score, self.refine_score, strict=True)
        ]
        x = scores[0]  # (N, m, H/32, W/32)
        for finer, enlarge, refine in zip(scores[1:], self.enlarge, self.refine_sum, strict=False):
            x = refine(enlarge(x, finer.shape[2:]) + finer)  # (N, m, H/16, ...), H/8, H/4
        x = self.refine_sum[3](self.enlarge[3](x, stem.shape[2:]))  # (N, m, H/2, W/2)
        x = self.refine_sum[4](self.enlarge[4](x, images.shape[2:]))  # (N, m, H, W)
        return SegmentationOutput(self.classify(x))


def _check_kernel(k: int) -> None:
    if k < 1 or k % 2 == 0:
        raise RequestError(
            f"k={k}; accepted: odd numbers from 1, which keep the size of the map (the paper's is 15). "
            f"Give {max(k - 1, 1)} or {max(k + 1, 3)}."
        )


def _check(k: int, mid_channels: int, stack_channels: int, **choices: str) -> None:
    _check_kernel(k)
    accepted = {"score_layer": ("gcn", "1x1", "dense", "stacked"), "upsample": ("deconv", "bilinear")}
    for key, value in choices.items():
        if value not in accepted[key]:
            raise RequestError(f"{key}={value!r}; accepted: {', '.join(map(repr, accepted[key]))}. Give one of them.")
    kind = choices["score_layer"]
    if kind == "stacked" and k < 3:
        raise RequestError(f"k={k} with score_layer='stacked'; accepted: odd numbers from 3. Give 3, or '1x1'.")
    if min(mid_channels, stack_channels) < 0:
        raise RequestError(
            f"mid_channels={mid_channels}, stack_channels={stack_channels}; accepted: numbers from 1, or 0 for as many "
            "as there are classes or as the map has. Give such numbers."
        )
    if stack_channels and kind != "stacked":
        raise RequestError(
            f"stack_channels={stack_channels} has no effect with score_layer={kind!r}; accepted: 0. Leave it out, or "
            "give score_layer='stacked'."
        )


@register(
    family="GCN",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="reconstructed",
    source=SOURCE,
    input_size=(512, 512),
    debug={"base_channels": 2, "blocks": (1, 1, 1, 1)},
)
def gcn_resnet50(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[50],
    k: int = 15,
    score_layer: ScoreLayer = "gcn",
    stack_channels: int = 0,
    bias: bool = False,
    mid_channels: int = 0,
    boundary_refinement: bool = True,
    upsample: Upsample = "deconv",
) -> GCN:
    """Build the GCN on ResNet-50."""
    return GCN(
        blocks=blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        k=k,
        score_layer=score_layer,
        stack_channels=stack_channels,
        bias=bias,
        mid_channels=mid_channels,
        boundary_refinement=boundary_refinement,
        upsample=upsample,
    )


@register(
    family="GCN",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="reconstructed",
    source=SOURCE,
    input_size=(512, 512),
    debug={"base_channels": 2, "blocks": (1, 1, 1, 1)},
)
def gcn_resnet101(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[101],
    k: int = 15,
    score_layer: ScoreLayer = "gcn",
    stack_channels: int = 0,
    bias: bool = False,
    mid_channels: int = 0,
    boundary_refinement: bool = True,
    upsample: Upsample = "deconv",
) -> GCN:
    """Build the GCN on ResNet-101."""
    return GCN(
        blocks=blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        k=k,
        score_layer=score_layer,
        stack_channels=stack_channels,
        bias=bias,
        mid_channels=mid_channels,
        boundary_refinement=boundary_refinement,
        upsample=upsample,
    )


@register(
    family="GCN",
    task="semantic",
    year=2017,
    paper=PAPER,
    fidelity="reconstructed",
    source=SOURCE,
    input_size=(512, 512),
    debug={"base_channels": 2, "blocks": (1, 1, 1, 1)},
    aliases=("gcn", "gcn_seg", "gcn_largekernel", "gcn_k15"),
)
def gcn_resnet152(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[152],
    k: int = 15,
    score_layer: ScoreLayer = "gcn",
    stack_channels: int = 0,
    bias: bool = False,
    mid_channels: int = 0,
    boundary_refinement: bool = True,
    upsample: Upsample = "deconv",
) -> GCN:
    """Build the GCN on ResNet-152, the paper's."""
    return GCN(
        blocks=blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        k=k,
        score_layer=score_layer,
        stack_channels=stack_channels,
        bias=bias,
        mid_channels=mid_channels,
        boundary_refinement=boundary_refinement,
        upsample=upsample,
    )
