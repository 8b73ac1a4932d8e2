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
# pspnet_r50-d8 and its like, whose ResNet is "V1c"; there is none of 269 layers.
MMSEGMENTATION = StateFormat(
    library="mmsegmentation",
    marks=("backbone.stem.0.weight", "decode_head.psp_modules.0.1.conv.weight", "auxiliary_head.conv_seg.weight"),
    score="decode_head.conv_seg.weight",
    names={
        r"backbone\.stem\.(.+)": r"layer0.\1",
        r"backbone\.(layer\d\..+)": r"\1",
        r"decode_head\.psp_modules\.(\d)\.1\.conv\.(.+)": r"ppm.features.\1.1.\2",
        r"decode_head\.psp_modules\.(\d)\.1\.bn\.(.+)": r"ppm.features.\1.2.\2",
        r"decode_head\.bottleneck\.conv\.(.+)": r"cls.0.\1",
        r"decode_head\.bottleneck\.bn\.(.+)": r"cls.1.\1",
        r"decode_head\.conv_seg\.(.+)": r"cls.4.\1",
        r"auxiliary_head\.convs\.0\.conv\.(.+)": r"aux.0.\1",
        r"auxiliary_head\.convs\.0\.bn\.(.+)": r"aux.1.\1",
        r"auxiliary_head\.conv_seg\.(.+)": r"aux.4.\1",
    },
    options={"variant": "mmsegmentation", "stem": "v1c"},
    labels=LABELS,
    licence="Apache-2.0 (mmsegmentation)",
    source="mmsegmentation's pspnet of this depth, d8",
)
SEMSEG = (segmentation(aux=True), segmentation(aux=False), CLASSIFIER, STEM_7X7)
FORMATS = {name: SEMSEG if name.endswith("269") else (*SEMSEG, MMSEGMENTATION) for name in NAMES}
