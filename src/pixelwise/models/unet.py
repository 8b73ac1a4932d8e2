"""U-Net: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015, https://arxiv.org/abs/1505.04597.

Map from the paper to this file:

- Fig. 1, blue boxes of one level (two 3x3 convolutions, ReLU each)  -> `double_convolution`
- Fig. 1, grey arrows (copy and crop)                                 -> `centre_crop`
- Fig. 1, green arrows (2x2 up-convolution)                           -> `UNet.up`
- section 3, "drop-out layers at the end of the contracting path"     -> `UNet.dropout`
- section 3, weights from a Gaussian of std sqrt(2 / N)               -> `initialise`

Axes: N batch, C image channels, K classes, H and W input size, b base channels (64 in the paper).

`unet` is the paper's network: valid convolutions, 572 -> 388, no normalisation. Two things the paper leaves
open are taken from the release (`phseg_v5`): dropout at the two deepest contracting levels with rate 0.5,
before the pool and the skip; and std sqrt(2 / (4 C_out)) for the up-convolutions, as the release's filler
computes it. `release="phseg_v5"` gives the released Caffe network itself, which differs from the figure: a ReLU
after each up-convolution, 2b instead of b channels out of the last one, and the up-sampled map before the skip
in the concatenation.

`unet_padded` and `unet_small` are ours, not the paper's: zero-padded convolutions keep the size, so that
border pixels see zeros. `unet_small` adds batch normalisation and starts at 16 channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = 'Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015'
Release = Literal["paper", "phseg_v5"]


def double_convolution(in_channels: int, channels: int, *, padding: int, batch_norm: bool) -> nn.Sequential:
    """Build two 3x3 convolutions with a ReLU each; with batch normalisation the bias is left to it."""
    layers: list[nn.Module] = []
    for source in (in_channels, channels):
        layers.append(nn.Conv2d(source, channels, 3, padding=padding, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def centre_crop(skip: Tensor, like: Tensor) -> Tensor:
    """Crop the skip to the size of the up-sampled map: 4, 16, 40, 88 pixels a side from the bottom up."""
    top = (skip.shape[2] - like.shape[2]) // 2
    left = (skip.shape[3] - like.shape[3]) // 2
    return skip[:, :, top : top + like.shape[2], left : left + like.shape[3]]


def initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 2 / fan_in) and set biases to 0 (section 3)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def size_rule(depth: int, padding: int) -> SizeRule:
    """Return the legal sizes of a U-Net with so many pools: 16 k + 12 from 188 for four, unpadded."""
    step = 2**depth
    if padding:
        return SizeRule(step=step, minimum=step, period=step)
    lost = 8 * (step - 1) + 4 * step  # 184 for four pools
    # The bottom map must be at least 8 wide (before its two convolutions) to leave one unit at the top.
    fringe = 4 * (step - 1)
    smallest = next(b for b in range(5, 9) if step * b + fringe > lost)
    return SizeRule(step=step, offset=fringe % step, minimum=step * smallest + fringe, margin=lost // 2, period=step)


class UNet(nn.Module):
    """A contracting path, an expanding path, and a skip between them at every level."""

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        base_channels: int,
        depth: int,
        padding: int,
        batch_norm: bool,
        dropout: float,
        release: Release,
    ) -> None:
        super().__init__()
        if base_channels < 1 or depth < 1:
            raise RequestError(
                f"base_channels={base_channels}, depth={depth}; accepted: whole numbers from 1 "
                "(the paper's are 64 and 4)."
            )
        if not 0 <= dropout < 1:
            raise RequestError(f"dropout={dropout}; accepted: 0 up to, not including, 1 (the release's is 0.5).")
        if release not in ("paper", "phseg_v5"):
            raise RequestError(f"release={release!r}; accepted: 'paper' or 'phseg_v5'.")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.size_rule = size_rule(depth, padding)
        self.released = release == "phseg_v5"
        widths = [base_channels * 2**level for level in range(depth + 1)]  # 64 128 256 512 1024
        up_widths = [*widths[:-1]]
        if self.released:
            up_widths[0] = widths[1]

        self.down = nn.ModuleList(
            double_convolution(source, width, padding=padding, batch_norm=batch_norm)
            for source, width in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[level + 1], up_widths[level], 2, stride=2) for level in reversed(range(depth))
        )
        self.merge = nn.ModuleList(
            double_convolution(widths[level] + up_widths[level], widths[level], padding=padding, batch_norm=batch_norm)
            for level in reversed(range(depth))
        )
        self.head = nn.Conv2d(base_channels, num_classes, 1)
        self.apply(initialise)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H', W'); H' = H - 184 for the paper's network.

        Raises:
            RequestError: if a side is not legal; the nearest legal ones are named.
        """
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        depth = len(self.up)
        skips: list[Tensor] = []
        x = images
        for level, down in enumerate(self.down):
            x = down(x if level == 0 else self.pool(x))  # (N, b 2^level, ~H/2^level, ~W/2^level)
            if level >= depth - 1:
                x = self.dropout(x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)  # channels halve, sides double
            if self.released:
                x = torch.relu(x)
            skip = centre_crop(skips.pop(), x)
            x = merge(torch.cat([x, skip] if self.released else [skip, x], dim=1))
        return SegmentationOutput(self.head(x))


@register(
    family="U-Net",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="verified",
    source="paper Fig. 1 and section 3, dropout from the release; release='phseg_v5' builds the released network",
    input_size=(572, 572),
    debug={"base_channels": 2},
)
def unet(
    *,
    num_classes: int,
    in_channels: int = 1,
    base_channels: int = 64,
    depth: int = 4,
    dropout: float = 0.5,
    release: Release = "paper",
) -> UNet:
    """Build the paper's network: valid convolutions, 31,030,658 parameters for one channel and two classes."""
    return UNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        depth=depth,
        padding=0,
        batch_norm=False,
        dropout=dropout,
        release=release,
    )


@register(
    family="U-Net",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="ours",
    source="the paper's widths with zero-padded convolutions, as in most re-implementations",
    input_size=(512, 512),
    debug={"base_channels": 2},
)
def unet_padded(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 64, depth: int = 4, dropout: float = 0.5
) -> UNet:
    """Build the same-size variant: as wide as the paper's network, zero-padded."""
    return UNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        depth=depth,
        padding=1,
        batch_norm=False,
        dropout=dropout,
        release="paper",
    )


@register(
    family="U-Net",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="ours",
    source="a quarter of the paper's widths, zero-padded, with batch normalisation; for quick work on a CPU",
    input_size=(256, 256),
    debug={"base_channels": 2},
)
def unet_small(
    *, num_classes: int, in_channels: int = 3, base_channels: int = 16, depth: int = 4, dropout: float = 0.0
) -> UNet:
    """Build a quick network for a CPU: base 16, zero-padded, batch normalisation."""
    return UNet(
        in_channels=in_channels,
        num_classes=num_classes,
        base_channels=base_channels,
        depth=depth,
        padding=1,
        batch_norm=True,
        dropout=dropout,
        release="paper",
    )
