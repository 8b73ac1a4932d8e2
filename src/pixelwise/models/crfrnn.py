"""CRF-RNN on FCN-8s: S. Zheng, S. Jayasumana, B. Romera-Paredes, V. Vineet, Z. Su, D. Du, C. Huang, P. Torr,
"Conditional Random Fields as Recurrent Neural Networks", ICCV 2015, https://arxiv.org/abs/1502.03240.

Map from the paper to this file:

- the end-to-end trainable network: FCN-8s, then the CRF as a recurrent network  -> `CRFRNNNet`
- that recurrent network, as a layer of any model                                -> `crf.layer.CRFRNN`

Axes: N batch, C image channels, K classes, H and W input size.

The network is the release's (torrvision/crfasrnn 2156669, TVG_CRFRNN_COCO_VOC.prototxt). Its FCN-8s is not quite that
of shelhamer/fcn.berkeleyvision.org: the two deconvolutions between the skips learn in full, the first one of them has a
bias; the last one is the fixed bilinear kernel. The CRF sees the network's own input, blue channel first, as there.

The CRF compares colours in steps of 0..255, so that the images' normalisation matters here: `color_std` says by what
each channel was divided, and is multiplied again. Training, evaluation and prediction refuse a normalisation that is
another one. None is that of the release: a mean is subtracted, and nothing divided.

Departure: the release fills each image with zeros up to 500 x 500, past its mean, so that its CRF sees them too; here
images keep their size. Pass an image filled so, and the result is the release's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from pixelwise.errors import RequestError
from pixelwise.layers.bilinear import BilinearUpsampling
from pixelwise.models.fcn import FCN8s
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput

if TYPE_CHECKING:
    from pixelwise.crf.layer import CRFRNN


class CRFRNNNet(FCN8s):
    """FCN-8s whose scores a CRF refines; both learn together."""

    def __init__(
        self,
        crf: CRFRNN,
        *,
        num_classes: int,
        in_channels: int,
        base_channels: int,
        dropout: float,
        color_std: tuple[float, ...],
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            in_channels=in_channels,
            base_channels=base_channels,
            dropout=dropout,
            learn_upsampling=True,
            fixed_final=True,
        )
        self.color_std = color_std
        self.upscore2 = BilinearUpsampling(num_classes, kernel_size=4, stride=2, learnt=True, bias=True)
        self.crf = crf

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into un-normalised logits (N, K, H, W)."""
        coarse = super().forward(images).logits
        colors = images * images.new_tensor(self.color_std)[:, None, None]  # in steps of 0..255
        return SegmentationOutput(self.crf(coarse, colors.flip(1)))


def read_color_std(given: tuple[float, ...] | None, in_channels: int) -> tuple[float, ...]:
    """Return the deviation of each channel, in values of 0..255; None stands for ones.

    Raises:
        RequestError: if they are not one for each channel, or not above 0.
    """
    std = (1.0,) * in_channels if given is None else given
    if not isinstance(std, tuple) or len(std) != in_channels or not all(0 < value < math.inf for value in std):
        raise RequestError(
            f"color_std={given!r} for {in_channels} channels; accepted: a number above 0 for each, by which values of "
            "0..255 are divided, or null where they are not. Give data.std of the configuration."
        )
    return tuple(float(value) for value in std)


@register(
    family="CRF-RNN",
    task="semantic",
    year=2015,
    paper='Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015',
    fidelity="verified",
    source="the released net of torrvision/crfasrnn; images keep their size, which its demo fills up to 500 x 500",
    input_size=(500, 500),
    debug={"base_channels": 2, "iterations": 2, "test_iterations": 2},
    aliases=("crfasrnn",),
)
def crfrnn_fcn8s_vgg16(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    dropout: float = 0.5,
    iterations: int = 5,
    test_iterations: int = 10,
    color_std: tuple[float, ...] | None = None,
) -> CRFRNNNet:
    """Build CRF-RNN: 134,378,207 parameters for 21 classes, 1323 of them the CRF's; trained from FCN-8s."""
    from pixelwise.crf.layer import CRFRNN, MOST_CHANNELS  # here, since its loops are compiled: numba takes a second

    if in_channels > MOST_CHANNELS:
        raise RequestError(
            f"in_channels={in_channels}; accepted: up to {MOST_CHANNELS}, since the CRF compares pixels by position "
            "and all channels. Choose channels, or take another model."
        )
    return CRFRNNNet(
        CRFRNN(num_classes, iterations=iterations, test_iterations=test_iterations),
        num_classes=num_classes,
        in_channels=in_channels,
        base_channels=base_channels,
        dropout=dropout,
        color_std=read_color_std(color_std, in_channels),
    )
