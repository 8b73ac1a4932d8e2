"""segmentation_models.pytorch's DeepLabV3 over ResNet, the one network of its that is ours too.

Its other decoders are its own designs: its PSPNet cuts the encoder short, its Unet is not the paper's.

Logits of version 0.6.0 and ours differ by 3e-6 of the largest for the same random weights.

Source: `decoders/deeplabv3` and `encoders` of qubvel-org/segmentation_models.pytorch (5006616).
"""

from __future__ import annotations

from pixelwise.weights.state_format import StateFormat

DEEPLABV3 = StateFormat(
    library="segmentation_models.pytorch",
    marks=("encoder.conv1.weight", "encoder.layer4.0.conv3.weight", "segmentation_head.0.weight"),
    score="segmentation_head.0.weight",
    names={
        r"encoder\.(.+)": r"backbone.\1",
        r"decoder\.(?:aspp|0)\.(.+)": r"classifier.0.\1",
        r"decoder\.(?:conv|1)\.(.+)": r"classifier.1.\1",
        r"decoder\.(?:bn|2)\.(.+)": r"classifier.2.\1",
        r"segmentation_head\.0\.(.+)": r"classifier.4.\1",
    },
    options={"head": "smp"},
    licence="MIT (segmentation_models.pytorch)",
    source="segmentation_models.pytorch's DeepLabV3 over this ResNet, with its default rates",
)
FORMATS = {"deeplabv3_resnet50": (DEEPLABV3,), "deeplabv3_resnet101": (DEEPLABV3,)}
