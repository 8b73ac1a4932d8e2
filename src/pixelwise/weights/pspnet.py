"""PSPNet as hszhao/semseg publishes it: checkpoints, and ImageNet classifiers with the deep stem to start from.

The names of the checkpoints are ours. The classifiers name the stem's layers one by one, ours number them.

Source: `model/pspnet.py`, `model/resnet.py` and `config/` of hszhao/semseg (4f274c3).
"""

from __future__ import annotations

from pixelwise.data.known import CITYSCAPES, VOC_CLASSES
from pixelwise.weights.published import VOC_PALETTE
from pixelwise.weights.state_format import Labels, StateFormat
from pixelwise.weights.torchvision import CLASS_LAYER, resnet_trunk

NAMES = ("pspnet_resnet50", "pspnet_resnet101", "pspnet_resnet152", "pspnet_resnet269")
LICENCE = "MIT (hszhao/semseg)"
LABELS = {
    19: Labels(name="Cityscapes", classes=CITYSCAPES.classes, palette=CITYSCAPES.palette or ()),
    21: Labels(name="PASCAL VOC", classes=VOC_CLASSES, palette=VOC_PALETTE),
    150: Labels(name="ADE20K"),
}
STEM = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}  # at the top level, before layer1


def segmentation(*, aux: bool) -> StateFormat:
    """Return the form of semseg's checkpoints, with the auxiliary classifier or without."""
    return StateFormat(
        library="hszhao/semseg",
        marks=("layer0.0.weight", "cls.4.weight", *(("aux.4.weight",) if aux else ())),
        score="cls.4.weight",
        options={} if aux else {"aux_weight": 0.0},
        labels=LABELS,
        licence=LICENCE,
        source="hszhao/semseg's PSPNet of this depth" + ("" if aux else " without its auxiliary classifier"),
    )


CLASSIFIER = StateFormat(
    library="hszhao/semseg",
    marks=("conv3.weight", "layer4.0.conv1.weight", "fc.weight"),
    names={rf"{theirs}\.(.+)": rf"layer0.{index}.\1" for theirs, index in STEM.items()},
    leave_out={r"fc\.\w+": CLASS_LAYER},
    trunk=True,
    licence=LICENCE,
    source="hszhao/semseg's ImageNet ResNet of this depth, with the deep stem",
)
STEM_7X7 = resnet_trunk(
    {r"conv1\.(.+)": r"layer0.0.\1", r"bn1\.(.+)": r"layer0.1.\1"}, options={"stem": "7x7", "variant": "semseg"}
)
FORMATS = {name: (segmentation(aux=True), segmentation(aux=False), CLASSIFIER, STEM_7X7) for name in NAMES}
