"""FusionNet: T. M. Quan, D. G. C. Hildebrand, W.-K. Jeong, "FusionNet: A Deep Fully Residual Convolutional Neural
Network for Image Segmentation in Connectomics", 2016, https://arxiv.org/abs/1612.05360; Frontiers in Computer Science
2021. Other networks of this name (machine reading, depth completion) have nothing to do with it.

Map from the paper to this file:

- residual block, three convolutions and the identity -> `Residual`
- one level: convolution, residual block, convolution -> `level`
- 2x2 pools and deconvolutions, 640 -> 40 -> 640      -> `Unit.pool`, `Unit.ascend`
- long skips from encoder to decoder, by summation    -> `Unit.forward`
- several networks in series, each refining the last  -> `FusionNet.units`, `chain`

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64).

Reconstructed: the paper's text was not available. Seen in the first author's later code and in ports are the order
convolution, normalisation, activation; no activation between the third convolution and the sum; weights from
N(0, 0.02). The widths 64 to 1024 and the 3x3 deconvolution with stride 2 could not be verified; neither could how the
units of a chain are joined: here each has its own weights and sees the class probabilities of the unit before.

Departures: the ports end in tanh, moved to [0, 1]. That is the logistic function of twice the number before it, so
that the logits of `SegmentationOutput` and a softmax stand for it. Deconvolutions are initialised as convolutions are;
the ports leave them as PyTorch has them. `fusionnet_small`, ours, starts with residual blocks that are the identity:
otherwise the gradient grows from block to block towards the image, and a short training learns less per step.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = (
    'Quan, Hildebrand, Jeong, "FusionNet: A Deep Fully Residual Convolutional Neural Network for Image Segmentation '
    'in Connectomics", 2016'
)
UNVERIFIED = (
    "the first author's later code and ports, since the paper's text was not available; not verified are the widths, "
    "the deconvolution's kernel, the initialisation and how units are chained"
)

Skip = Literal["sum", "mean"]
Upsample = Literal["deconv3", "deconv2", "pixelshuffle"]
Activation = Literal["relu", "leaky_relu", "elu"]

LEAK = 0.2  # of the ports, in encoder and bridge; their decoder has ReLU


def activate(activation: Activation, *, decoder: bool) -> nn.Module:
    """Build the activation; "leaky_relu" leaks in the encoder and the bridge alone."""
    if activation == "leaky_relu" and not decoder:
        return nn.LeakyReLU(LEAK, inplace=True)
    return nn.ELU(inplace=True) if activation == "elu" else nn.ReLU(inplace=True)


def convolution(source: int, channels: int, activation: nn.Module | None) -> nn.Sequential:
    """Build a 3x3 convolution that keeps the size, its normalisation, and the activation where there is one."""
    layers = [nn.Conv2d(source, channels, 3, padding=1), nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers, *([] if activation is None else [activation]))


class Residual(nn.Module):
    """Three convolutions added to their input; the third has no activation, nor has the sum."""

    def __init__(self, channels: int, activation: Activation, *, decoder: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            convolution(channels, channels, activate(activation, decoder=decoder)),
            convolution(channels, channels, activate(activation, decoder=decoder)),
            convolution(channels, channels, None),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add what three convolutions make of x, (N, c, h, w), to x."""
        branch: Tensor = self.branch(x)
        return x + branch


def level(source: int, channels: int, activation: Activation, *, decoder: bool) -> nn.Sequential:
    """Build convolution, residual block and convolution; the first one changes the channels."""
    return nn.Sequential(
        convolution(source, channels, activate(activation, decoder=decoder)),
        Residual(channels, activation, decoder=decoder),
        convolution(channels, channels, activate(activation, decoder=decoder)),
    )


def ascend(source: int, channels: int, upsample: Upsample) -> nn.Sequential:
    """Build the step up: (N, source, h, w) to (N, channels, 2 h, 2 w), normalised and rectified."""
    if upsample == "pixelshuffle":
        layers: list[nn.Module] = [nn.Conv2d(source, 4 * channels, 3, padding=1), nn.PixelShuffle(2)]
    elif upsample == "deconv2":
        layers = [nn.ConvTranspose2d(source, channels, 2, stride=2)]
    else:
        layers = [nn.ConvTranspose2d(source, channels, 3, stride=2, padding=1, output_padding=1)]
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02), normalisations from N(1, 0.02); biases start at 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, float(isinstance(module, nn.BatchNorm2d)), 0.02)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def silence(module: nn.Module) -> None:
    """Set the scale of a residual branch's last normalisation to 0, so that the block starts as the identity."""
    if isinstance(module, Residual):
        scale, _ = [*module.branch.parameters()][-2:]
        nn.init.zeros_(scale)


class Unit(nn.Module):
    """An encoder, a bridge and a decoder whose long skips are sums; 50 convolutions at depth 4."""

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        base_channels: int,
        depth: int,
        skip: Skip,
        upsample: Upsample,
        activation: Activation,
    ) -> None:
        super().__init__()
        widths = [base_channels * 2**index for index in range(depth + 1)]  # 64 128 256 512 1024
        self.share = 0.5 if skip == "mean" else 1.0
        self.down = nn.ModuleList(
            level(source, width, activation, decoder=False)
            for source, width in zip([in_channels, *widths[:-2]], widths[:-1], strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.bridge = level(widths[-2], widths[-1], activation, decoder=False)
        self.ascend = nn.ModuleList(ascend(2 * width, width, upsample) for width in reversed(widths[:-1]))
        self.up = nn.ModuleList(level(width, width, activation, decoder=True) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(base_channels, num_classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K, H, W) of (N, C, H, W)."""
        skips: list[Tensor] = []
        for down in self.down:
            skips.append(down(x))  # (N, b 2^level, H/2^level, W/2^level)
            x = self.pool(skips[-1])
        x = self.bridge(x)
        for ascend, up in zip(self.ascend, self.up, strict=True):
            x = up(self.share * (ascend(x) + skips.pop()))  # channels halve, sides double
        logits: Tensor = self.head(x)
        return logits


class FusionNet(nn.Module):
    """Units in series, each with a loss of its own; one unit is the network of the paper's figure."""

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        base_channels: int,
        depth: int,
        skip: Skip,
        upsample: Upsample,
        activation: Activation,
        chain: int,
        identity_start: bool = False,
    ) -> None:
        super().__init__()
        _check(base_channels, depth, chain, skip=skip, upsample=upsample, activation=activation)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.size_rule = SizeRule(step=2**depth, minimum=2**depth, period=2**depth)
        self.aux_weights = (1.0,) * (chain - 1)
        self.units = nn.ModuleList(
            Unit(
                in_channels=num_classes if index else in_channels,
                num_classes=num_classes,
                base_channels=base_channels,
                depth=depth,
                skip=skip,
                upsample=upsample,
                activation=activation,
            )
            for index in range(chain)
        )
        self.apply(initialise)
        if identity_start:
            self.apply(silence)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W); in training `aux` has those of earlier units.

        Raises:
            RequestError: if a side is not a multiple of 2^depth; the nearest legal ones are named.
        """
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        outputs: list[Tensor] = []
        for unit in self.units:
            outputs.append(unit(probabilities(outputs[-1]) if outputs else images))
        return SegmentationOutput(outputs[-1], tuple(outputs[:-1]) if self.training else ())


def probabilities(logits: Tensor) -> Tensor:
    """Return what the next unit sees: the probabilities (N, K, H, W); of one class alone the logistic function."""
    return functional.softmax(logits, dim=1) if logits.shape[1] > 1 else torch.sigmoid(logits)


def _check(base_channels: int, depth: int, chain: int, **choices: str) -> None:
    accepted = {
        "skip": ("sum", "mean"),
        "upsample": ("deconv3", "deconv2", "pixelshuffle"),
        "activation": ("relu", "leaky_relu", "elu"),
    }
    for key, value in choices.items():
        if value not in accepted[key]:
            raise RequestError(f"{key}={value!r}; accepted: {', '.join(map(repr, accepted[key]))}. Give one of them.")
    if min(base_channels, depth, chain) < 1:
        raise RequestError(
            f"base_channels={base_channels}, depth={depth}, chain={chain}; accepted: whole numbers from 1 "
            "(64, 4 and 1 are the single network of the paper). Give such numbers."
        )


@register(
    family="FusionNet",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="reconstructed",
    source=UNVERIFIED,
    input_size=(640, 640),
    debug={"base_channels": 2, "depth": 2},
    aliases=("fusionnet_em", "fusionnet64"),
)
def fusionnet(
    *,
    num_classes: int,
    in_channels: int = 1,
    base_channels: int = 64,
    depth: int = 4,
    skip: Skip = "sum",
    upsample: Upsample = "deconv3",
    activation: Activation = "relu",
    chain: int = 1,
) -> FusionNet:
    """Build FusionNet: 78,531,649 parameters for one channel and one output."""
    return FusionNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        depth=depth,
        skip=skip,
        upsample=upsample,
        activation=activation,
        chain=chain,
    )


@register(
    family="FusionNet",
    task="semantic",
    year=2016,
    paper=PAPER,
    fidelity="ours",
    source=f"the structure at an eighth of the width, for quick work on a CPU; {UNVERIFIED}",
    input_size=(256, 256),
    debug={"base_channels": 2, "depth": 2},
)
def fusionnet_small(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 8,
    depth: int = 4,
    skip: Skip = "sum",
    upsample: Upsample = "deconv3",
    activation: Activation = "relu",
    chain: int = 1,
) -> FusionNet:
    """Build a quick network for a CPU: the same structure from 8 channels on, 1,232,546 parameters."""
    return FusionNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        depth=depth,
        skip=skip,
        upsample=upsample,
        activation=activation,
        chain=chain,
        identity_start=True,
    )
