"""Public data sets that are known by the names of their files as distributed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pixelwise.data.dataset_file import Colour, DatasetFile

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CAMVID_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian", "bicyclist"),
)


def voc_colour(index: int) -> Colour:
    """Return a colour of the VOC palette: bit k of the index is bit 7 - k // 3 of channel k % 3."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


# ISBI 2012, membrane 0 and cell 255: Arganda-Carreras et al., Frontiers in Neuroanatomy 2015.
ISBI = DatasetFile(name="ISBI 2012", classes=("membrane", "cell"), boundary_class="membrane", mask_encoding="binary")
# VOC 2012 development kit, 21 classes and 255 for borders.
VOC = DatasetFile(
    name="PASCAL VOC",
    classes=VOC_CLASSES,
    ignore_index=255,
    palette=tuple(voc_colour(index) for index in (*range(21), 255)),
)
# CamVid as SegNet distributes it: 11 classes, 11 is unlabelled.
CAMVID = DatasetFile(name="SegNet's CamVid", classes=CAMVID_CLASSES, ignore_index=11)
# Cityscapes, the 19 classes that its benchmark scores ("train ids"): Cordts et al., CVPR 2016, and cityscapesScripts.
CITYSCAPES = DatasetFile(
    name="Cityscapes",
    classes=(
        *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
        *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    ),
    ignore_index=255,
    palette=(
        *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153)),
        *((250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0)),
        *((0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
    ),
)


def known_by_names(names: Iterable[str], layout: str) -> DatasetFile | None:
    """Return what is known of a data set whose files are named as those of a public one.

    Args:
        names: of all images, without their endings.
        layout: "stacks", "voc" or "beside", see `layouts`.
    """
    patterns = {
        "stacks": (r"(train|test)-volume", ISBI),
        "voc": (r"20\d\d_\d{6}", VOC),
        "beside": (r"(0001TP|0006R0|0016E5|Seq05VD)_\w+", CAMVID),
    }
    if layout not in patterns:
        return None
    pattern, known = patterns[layout]
    return known if all(re.fullmatch(pattern, name) for name in names) else None
