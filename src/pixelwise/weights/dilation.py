"""Published weights of the dilated front end and its context networks.

Source: `models/*_deploy.prototxt` and `datasets/*.json` of fyu/dilation (0f10574).
"""

from __future__ import annotations

from dataclasses import replace

from pixelwise.data import known
from pixelwise.weights.published import VGG16_TRUNK, Colour, Published, TrainedOn, voc

URBAN_CLASSES = (
    *("building", "tree", "sky", "car", "sign", "road", "pedestrian", "fence", "pole", "sidewalk", "bicyclist"),
)
URBAN_COLOURS: tuple[Colour, ...] = (
    *((128, 0, 0), (128, 128, 0), (128, 128, 128), (64, 0, 128), (192, 128, 128), (128, 64, 128)),
    *((64, 64, 0), (64, 64, 128), (192, 192, 128), (0, 0, 192), (0, 128, 192)),
)
VOC = voc((102.93, 111.36, 116.52))
CAMVID = TrainedOn(
    name="CamVid",
    mean=(110.70313206, 108.77808759, 105.41212523),
    classes=URBAN_CLASSES,
    palette=URBAN_COLOURS,
)
KITTI = replace(CAMVID, name="KITTI", mean=(96.19429688, 95.55136972, 91.34692262))
CITYSCAPES = TrainedOn(
    name="Cityscapes",
    mean=(72.39, 82.91, 73.16),
    classes=known.CITYSCAPES.classes,
    palette=known.CITYSCAPES.palette or (),
)

CONTEXT = {r"ctx?_\w+": "the context network; the front end stands before it"}


def _published(trained_on: TrainedOn, source: str) -> Published:
    return Published(
        score="final",
        trained_on={len(trained_on.classes): trained_on},
        mean=trained_on.mean,
        names={"fc-final": "final", r"ct_(\w+)": r"ctx_\1"},
        trunk=VGG16_TRUNK,
        source=f"fyu/dilation: {source}",
    )


PUBLISHED = {
    "dilation8_voc": _published(VOC, "dilation8_pascal_voc_deploy"),
    "dilation8_camvid": _published(CAMVID, "dilation8_camvid_deploy"),
    "dilation7_kitti": _published(KITTI, "dilation7_kitti_deploy"),
    "dilation10_cityscapes": _published(CITYSCAPES, "dilation10_cityscapes_deploy"),
    "dilated_frontend_vgg16": replace(
        _published(VOC, "front ends of these networks; trunk: vgg_conv"),
        trained_on={21: VOC, 19: CITYSCAPES},  # eleven classes are CamVid or KITTI, with other means
        leave_out=CONTEXT,
    ),
}
