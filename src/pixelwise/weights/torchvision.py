"""torchvision's networks: its FCN and DeepLab v3, and its ImageNet classifiers as trunks of what starts from them.

Source: torchvision 0.29, `models/vgg.py`, `models/resnet.py` and `models/segmentation`. Its segmentation weights are
trained on COCO's images of the 21 classes of VOC.
"""

from __future__ import annotations

import re

from pixelwise.backbones.vgg import layer_names
from pixelwise.data.known import VOC_CLASSES
from pixelwise.weights.catalogue import PUBLISHED
from pixelwise.weights.published import VGG16_TRUNK, VOC_PALETTE
from pixelwise.weights.state_format import Labels, OptionValue, StateFormat

LICENCE = "BSD-3-Clause (torchvision)"
CLASS_LAYER = "the class layer of ImageNet"
LABELS = {21: Labels(name="COCO, classes of PASCAL VOC", classes=VOC_CLASSES, palette=VOC_PALETTE)}

VGG16 = StateFormat(
    library="torchvision",
    marks=("features.0.weight", "features.28.weight", "classifier.0.weight"),
    names={rf"{re.escape(theirs)}\.(weight|bias)": rf"{ours}.\1" for theirs, ours in layer_names().items()},
    leave_out={r"classifier\.6\.\w+": CLASS_LAYER},
    trunk=True,
    may_differ=r"fc[67](_\d)?\.\w+",
    licence=LICENCE,
    source="torchvision's vgg16",
)


def resnet_trunk(names: dict[str, str], *, options: dict[str, OptionValue] | None = None) -> StateFormat:
    """Return the form of an ImageNet ResNet with a 7x7 stem, whose names become ours by `names`."""
    return StateFormat(
        library="torchvision",
        marks=("conv1.weight", "layer4.0.conv1.weight", "layer1.0.conv2.weight"),
        names=names,
        leave_out={r"fc\.\w+": CLASS_LAYER},
        options=options or {},
        trunk=True,
        licence=LICENCE,
        source="torchvision's resnet of this depth",
    )


def segmentation(name: str, mark: str, options: dict[str, OptionValue]) -> tuple[StateFormat, StateFormat]:
    """Return the forms of a segmentation network, with its auxiliary classifier and without."""
    with_aux, without = (
        StateFormat(
            library="torchvision",
            marks=("backbone.conv1.weight", mark, *(("aux_classifier.4.weight",) if aux else ())),
            score="classifier.4.weight",
            options={**options, "aux": aux},
            labels=LABELS,
            licence=LICENCE,
            source=f"torchvision's {name}" + ("" if aux else " without its auxiliary classifier"),
        )
        for aux in (True, False)
    )
    return with_aux, without


TRUNK = resnet_trunk({r"(.+)": r"backbone.\1"})
DRN_TRUNK = resnet_trunk(
    {r"conv1\.(.+)": r"base.0.\1", r"bn1\.(.+)": r"base.1.\1"}
    | {rf"layer{level}\.(.+)": rf"base.{level + 3}.\1" for level in range(1, 5)}
)
FORMATS: dict[str, tuple[StateFormat, ...]] = {
    **{name: (VGG16,) for name, published in PUBLISHED.items() if published.trunk == VGG16_TRUNK},
    **{name: (*segmentation(name, "classifier.0.weight", {}), TRUNK) for name in ("fcn_resnet50", "fcn_resnet101")},
    **{
        name: (*segmentation(name, "classifier.0.project.0.weight", {"head": "torchvision"}), TRUNK)
        for name in ("deeplabv3_resnet50", "deeplabv3_resnet101")
    },
    "deeplabv3_cascade_resnet50": (TRUNK,),
    "deeplabv3_cascade_resnet101": (TRUNK,),
    "drnseg_a_50": (DRN_TRUNK,),
    **{name: (resnet_trunk({}),) for name in ("gcn_resnet50", "gcn_resnet101", "gcn_resnet152")},
}
