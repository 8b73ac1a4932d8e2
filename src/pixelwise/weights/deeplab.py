"""Published weights of DeepLab v1 and v2.

The class layer carries the name of the experiment: `fc8_voc12`, `fc8_pascal`, `fc8_coco`; on ResNet it is four,
`fc1_voc12_c0` to `fc1_voc12_c3`. Files of the three scales hold every layer three times, `conv1`, `conv1_res05` and
`conv1_res075`, with the same numbers.

Source: `config/DeepLab*/test.prototxt` of TheLegendAli/DeepLab-Context2 (4aa3327) and
`voc12/deeplab_v2_vgg16/config/train_train_aug.prototxt` of zbxzc35/deeplab_v2_python (e290633), and on ResNet
`data/test.prototxt` of isht7/pytorch-deeplab-resnet (ba81363), copies of the authors' configurations.
"""

from __future__ import annotations

from dataclasses import replace

from pixelwise.backbones.resnet import BLOCKS
from pixelwise.weights.caffe_resnet import resnet_modules, resnet_names
from pixelwise.weights.published import VGG16_TRUNK, Published, voc

MEAN = (104.008, 116.669, 122.675)

SINGLE = Published(
    score="fc8",
    trained_on={21: voc(MEAN)},
    mean=MEAN,
    names={r"fc8_\w+": "fc8"},
    trunk=VGG16_TRUNK,
    cut=("",),
    source="DeepLab v1: DeepLab, DeepLab-LargeFOV and their 7x7 and 4x4 relatives",
)
MULTI_SCALE = replace(SINGLE, images=("conv1_1", "data_conv"), source="DeepLab v1: DeepLab-MSc-LargeFOV")
ASPP = replace(
    SINGLE,
    score="fc8_1",
    names={r"fc8_\w+_([1-4])": r"fc8_\1"},
    cut=("_1", "_2", "_3", "_4"),
    source="DeepLab v2: VGG-16 with ASPP",
)
RESNET = Published(
    score="classifier.0",
    trained_on={21: voc(MEAN)},
    mean=MEAN,
    images=("backbone.conv1",),
    names={**resnet_names(), r"fc1_\w+_c([0-3])": r"classifier.\1"},
    copies={r"(\w+)_res0(?:5|75)(_c\d)?": r"\1\2"},
    trunk=resnet_modules(BLOCKS[101]),
    source="DeepLab v2: ResNet-101 with ASPP, at one scale or three",
)

PUBLISHED = {
    "deeplabv1_vgg16_largefov": SINGLE,
    "deeplabv1_vgg16_7x7": SINGLE,
    "deeplabv1_vgg16_4x4_r4": SINGLE,
    "deeplabv1_vgg16_4x4_r8": SINGLE,
    "deeplabv1_vgg16_msc_largefov": MULTI_SCALE,
    "deeplabv2_vgg16_largefov": replace(SINGLE, source="DeepLab v2: VGG-16 with LargeFOV"),
    "deeplabv2_vgg16_aspp_s": ASPP,
    "deeplabv2_vgg16_aspp_l": ASPP,
    "deeplabv2_resnet101": RESNET,
    "deeplabv2_resnet101_msc": RESNET,
}
