"""FCN on ResNet as torchvision builds it, `torchvision.models.segmentation.fcn_resnet50` and `fcn_resnet101`:
https://github.com/pytorch/vision.

Not a paper's network. It shares the idea of J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for
Semantic Segmentation", CVPR 2015, https://arxiv.org/abs/1411.4038 (the networks of that paper are in `fcn.py`), and has
neither their trunk nor their skips nor their learnt upsampling: a dilated ResNet of output stride 8, a 3x3 and a 1x1
convolution, bilinear interpolation. It is here since its weights are published and much used.

Map to torchvision's files:

- `segmentation/fcn.py`, FCNHead                     -> `FCNHead`
- `segmentation/_utils.py`, _SimpleSegmentationModel -> `FCNResNet`

State-dict names are torchvision's, so that its weights load. Axes: N batch, C image channels, K classes, H and W input
size, b base channels (64 in torchvision).

Cells are interpolated with align_corners=False and stretched to the image: the last one lies beyond the border for
sides that are no multiple of 8. The auxiliary classifier works on the third stage; its loss counts a half in
torchvision's reference training. Departures: none in the network.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from pixelwise.backbones.resnet import BLOCKS, ResNet
from pixelwise.registry import register
from pixelwise.structures import SegmentationOutput, SizeRule, check_images

PAPER = "none: torchvision's FCN on ResNet, after Long, Shelhamer, Darrell, CVPR 2015"
SOURCE = "torchvision.models.segmentation; its state dict loads, logits are equal"
STRIDE = 8  # pixels of a cell
AUX_WEIGHT = 0.5  # torchvision's references/segmentation/train.py


class FCNHead(nn.Sequential):
    """A 3x3 convolution to a quarter of the channels and the classifier; (N, source, h, w) to (N, K, h, w).

    State-dict names are torchvision's: 0, 1 and 4.
    """

    def __init__(self, source: int, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(source, source // 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(source // 4),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Conv2d(source // 4, num_classes, 1),
        )


class FCNResNet(nn.Module):
    """The dilated trunk, the classifier on its last stage and, for training, one on its third.

    Args:
        num_classes: K.
        in_channels: C.
        base_channels: b.
        blocks: units of the four stages.
        aux: have the auxiliary classifier; torchvision's published weights do.
    """

    size_rule = SizeRule(period=STRIDE)

    def __init__(
        self, *, num_classes: int, in_channels: int, base_channels: int, blocks: Sequence[int], aux: bool
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.backbone = ResNet(
            blocks=blocks, in_channels=in_channels, base_channels=base_channels, output_stride=STRIDE
        )
        self.classifier = FCNHead(32 * base_channels, num_classes)
        if aux:
            self.aux_classifier = FCNHead(16 * base_channels, num_classes)
        self.aux_weights = (AUX_WEIGHT,) if aux else ()

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Segment float images (N, C, H, W) into logits (N, K, H, W)."""
        check_images(images, in_channels=self.in_channels, size_rule=self.size_rule)
        stages = self.backbone.stages(images)
        logits = stretch(self.classifier(stages.layer4), images)
        if not (self.training and self.aux_weights):
            return SegmentationOutput(logits)
        return SegmentationOutput(logits, (stretch(self.aux_classifier(stages.layer3), images),))


def stretch(scores: Tensor, images: Tensor, *, corners: bool = False) -> Tensor:
    """Interpolate scores (N, K, h, w) to the images' size (H, W), as torchvision does; `corners` aligns them."""
    return functional.interpolate(scores, size=images.shape[2:], mode="bilinear", align_corners=corners)


@register(
    family="FCN",
    task="semantic",
    year=2019,
    paper=PAPER,
    fidelity="verified",
    source=SOURCE,
    input_size=(520, 520),
    debug={"base_channels": 4, "blocks": (1, 1, 1, 1)},
)
def fcn_resnet50(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[50],
    aux: bool = True,
) -> FCNResNet:
    """Build torchvision's FCN on ResNet-50: 35,322,218 parameters for 21 classes."""
    return FCNResNet(
        num_classes=num_classes, in_channels=in_channels, base_channels=base_channels, blocks=blocks, aux=aux
    )


@register(
    family="FCN",
    task="semantic",
    year=2019,
    paper=PAPER,
    fidelity="verified",
    source=SOURCE,
    input_size=(520, 520),
    debug={"base_channels": 4, "blocks": (1, 1, 1, 1)},
)
def fcn_resnet101(
    *,
    num_classes: int,
    in_channels: int = 3,
    base_channels: int = 64,
    blocks: tuple[int, ...] = BLOCKS[101],
    aux: bool = True,
) -> FCNResNet:
    """Build torchvision's FCN on ResNet-101: 54,314,346 parameters for 21 classes."""
    return FCNResNet(
        num_classes=num_classes, in_channels=in_channels, base_channels=base_channels, blocks=blocks, aux=aux
    )
