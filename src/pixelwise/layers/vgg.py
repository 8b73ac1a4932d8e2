"""The thirteen convolutions of VGG-16, named as in the Caffe networks that FCN, Dilation and DeepLab start from.

K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
https://arxiv.org/abs/1409.1556, Table 1, column D.

The trunk holds the convolutions alone. What the three systems do between the blocks differs (2x2 or 3x3
windows, strides, paddings, pools left out), so each states its pools in its own file, and its `forward` reads
as its table: `pool1 = self.pool1(self.block1(images))`.

A system inherits from the trunk, so that its state-dict keys are `conv1_1.weight` and so on.

Axes: N batch, C image channels, b base channels (64 in the paper).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError


def convolve(convolution: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution and a ReLU."""
    activated: Tensor = functional.relu(convolution(x), inplace=True)
    return activated


def initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 2 / fan_in) and set biases to 0, for a start without ImageNet weights.

    Ours: the originals have no filler for the trunk, since they always copy it from a classifier.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class VGG16Trunk(nn.Module):
    """conv1_1 to conv5_3, a ReLU after each, in five blocks without the pools between them.

    Args:
        in_channels: C of the image.
        base_channels: b; the blocks have b, 2b, 4b, 8b and 8b channels.
        first_padding: zeros around the image at conv1_1: 1 in VGG, 100 in FCN, 0 in Dilation.
        padding: zeros around every other convolution in units of its dilation: 1 keeps the size, 0 is Dilation's.
        conv5_dilation: 2 where pool4 has lost its stride, as in Dilation and DeepLab.

    Raises:
        RequestError: if `base_channels` is below 1.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        base_channels: int = 64,
        first_padding: int = 1,
        padding: int = 1,
        conv5_dilation: int = 1,
    ) -> None:
        super().__init__()
        if base_channels < 1:
            raise RequestError(f"base_channels={base_channels}; accepted: whole numbers from 1 (the paper's is 64).")

        def convolution(source: int, width: int, dilation: int = 1) -> nn.Conv2d:
            return nn.Conv2d(source, width, 3, padding=padding * dilation, dilation=dilation)

        b = base_channels
        self.conv1_1 = nn.Conv2d(in_channels, b, 3, padding=first_padding)
        self.conv1_2 = convolution(b, b)
        self.conv2_1 = convolution(b, 2 * b)
        self.conv2_2 = convolution(2 * b, 2 * b)
        self.conv3_1 = convolution(2 * b, 4 * b)
        self.conv3_2 = convolution(4 * b, 4 * b)
        self.conv3_3 = convolution(4 * b, 4 * b)
        self.conv4_1 = convolution(4 * b, 8 * b)
        self.conv4_2 = convolution(8 * b, 8 * b)
        self.conv4_3 = convolution(8 * b, 8 * b)
        self.conv5_1 = convolution(8 * b, 8 * b, conv5_dilation)
        self.conv5_2 = convolution(8 * b, 8 * b, conv5_dilation)
        self.conv5_3 = convolution(8 * b, 8 * b, conv5_dilation)

    def block1(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, b, H, W); like all blocks smaller by what `padding` leaves out."""
        return convolve(self.conv1_2, convolve(self.conv1_1, x))

    def block2(self, x: Tensor) -> Tensor:
        """(N, b, h, w) to (N, 2b, h, w)."""
        return convolve(self.conv2_2, convolve(self.conv2_1, x))

    def block3(self, x: Tensor) -> Tensor:
        """(N, 2b, h, w) to (N, 4b, h, w)."""
        return convolve(self.conv3_3, convolve(self.conv3_2, convolve(self.conv3_1, x)))

    def block4(self, x: Tensor) -> Tensor:
        """(N, 4b, h, w) to (N, 8b, h, w)."""
        return convolve(self.conv4_3, convolve(self.conv4_2, convolve(self.conv4_1, x)))

    def block5(self, x: Tensor) -> Tensor:
        """(N, 8b, h, w) to (N, 8b, h, w)."""
        return convolve(self.conv5_3, convolve(self.conv5_2, convolve(self.conv5_1, x)))
