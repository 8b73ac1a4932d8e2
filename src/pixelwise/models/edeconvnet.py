"""EDeconvNet: DeconvNet on object proposals and FCN-8s on the whole image, joined (Noh, Hong, Han, ICCV 2015, section
4.3 and 5.2).

The two networks are trained apart, each as published; nothing is learnt here. The published score comes from
`engine.instance_wise`: DeconvNet's scores of 50 boxes are joined in the image, FCN-8s sees the image itself, and
`combine` makes one map of the two. `forward` is the same for one box, the whole input of 224 x 224, so that the
ensemble is a network like others: it can be exported, counted and trained.

Paper and release disagree on the ensemble:

- "mean" (the paper, and the default): the mean of the two maps of class probabilities
- "product" (the release): the product of the two maps of scores, negative ones set to 0, before the softmax

Axes: N batch, K classes. State-dict keys are those of the parts, after `deconvnet.` and `fcn8s.`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.models.deconvnet import EPS, PAPER, SIDE, DeconvNet
from pixelwise.models.fcn import FCN8s
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput

ENSEMBLES = ("mean", "product")


class EDeconvNet(nn.Module):
    """A DeconvNet and an FCN-8s.

    Args:
        deconvnet: the network that sees boxes.
        fcn8s: the network that sees the image.
        ensemble: "mean" or "product".
    """

    size_rule = DeconvNet.size_rule
    instance_wise = True

    def __init__(self, *, deconvnet: DeconvNet, fcn8s: FCN8s, ensemble: str) -> None:
        super().__init__()
        if ensemble not in ENSEMBLES:
            raise RequestError(
                f"ensemble={ensemble!r}; accepted: 'mean' (the paper's) or 'product' (the release's). Choose one."
            )
        given = [(part.num_classes, part.in_channels) for part in (deconvnet, fcn8s)]
        if given[0] != given[1]:
            raise RequestError(
                f"DeconvNet has {given[0][0]} classes and {given[0][1]} channels, FCN-8s {given[1][0]} and "
                f"{given[1][1]}; accepted: equal numbers. Train both on the same data."
            )
        self.num_classes, self.in_channels = given[0]
        self.ensemble = ensemble
        self.deconvnet = deconvnet
        self.fcn8s = fcn8s

    def combine(self, objects: Tensor, scene: Tensor) -> Tensor:
        """Join scores (N, K, H, W) of the two networks into logits (N, K, H, W)."""
        if self.ensemble == "product":
            return objects.relu() * scene.relu()
        return torch.logaddexp(objects.log_softmax(dim=1), scene.log_softmax(dim=1)) - math.log(2)

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, 224, 224) into logits (N, K, 224, 224), both networks on the same input.

        Raises:
            RequestError: if the images have another size.
        """
        return SegmentationOutput(self.combine(self.deconvnet(images).logits, self.fcn8s(images).logits))


@register(
    family="DeconvNet",
    task="semantic",
    year=2015,
    paper=PAPER,
    fidelity="reconstructed",
    source="the paper's mean of probabilities; ensemble='product' is the release's generate_EDeconvNet_CRF_results.m; "
    "proposals come from gradient edges, not from Structured Forests",
    input_size=(SIDE, SIDE),
    debug={"base_channels": 2, "fc_channels": 16},
)
def edeconvnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    fc_channels: int = 4096,
    eps: float = EPS,
    dropout: float = 0.5,
    ensemble: str = "mean",
) -> EDeconvNet:
    """Build EDeconvNet: 386,168,404 parameters for VOC's 21 classes, the sum of its two parts'."""
    return EDeconvNet(
        deconvnet=DeconvNet(
            num_classes=num_classes,
            in_channels=in_channels,
            base_channels=base_channels,
            fc_channels=fc_channels,
            eps=eps,
        ),
        fcn8s=FCN8s(
            num_classes=num_classes,
            in_channels=in_channels,
            base_channels=base_channels,
            dropout=dropout,
            learn_upsampling=False,
            fixed_final=False,
        ),
        ensemble=ensemble,
    )
