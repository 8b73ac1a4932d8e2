"""Published weights of SegNet, SegNet-Basic and their Bayesian forms.

The images of all of them are B, G, R of 0..255 without a mean. SegNet-Basic normalises the image across channels
before its first convolution; its window of five covers all three, so their order changes nothing there.

Source: `Models/*_inference.prototxt`, `Scripts/camvid12.png` and the model zoo of alexgkendall/SegNet-Tutorial
(bb68b64).
"""

from __future__ import annotations

from dataclasses import replace

from pixelwise.weights.published import CAMVID_CLASSES, VGG16_TRUNK, Colour, Published, TrainedOn, voc

NO_MEAN = (0.0, 0.0, 0.0)
CAMVID_COLOURS: tuple[Colour, ...] = (
    *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0)),
    *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
)
TRAINED_ON = {
    11: TrainedOn(name="CamVid", mean=NO_MEAN, classes=CAMVID_CLASSES, palette=CAMVID_COLOURS, ignore_index=11),
    12: TrainedOn(
        name="road scenes of the web demo",
        mean=NO_MEAN,
        classes=(*CAMVID_CLASSES[:3], "road_marking", *CAMVID_CLASSES[3:]),
        palette=(*CAMVID_COLOURS[:3], (255, 69, 0), *CAMVID_COLOURS[3:]),
        ignore_index=12,
    ),
    21: voc(NO_MEAN),
    38: TrainedOn(name="SUN RGB-D, label 0 unlabelled", mean=NO_MEAN, ignore_index=0),
}

SEGNET = Published(
    score="conv1_1_D",
    trained_on=TRAINED_ON,
    mean=NO_MEAN,
    one_mean=True,
    trunk=VGG16_TRUNK,
    licence="weights: CC BY-NC 4.0, personal and research use (SegNet model zoo)",
    source="alexgkendall/SegNet-Tutorial: segnet_inference, bayesian_segnet_inference, model zoo",
)
BASIC = replace(
    SEGNET,
    score="conv_classifier",
    images=("conv1",),
    names={"dense_softmax_inner_prod": "conv_classifier"},
    trunk=(),
    source="alexgkendall/SegNet-Tutorial: segnet_basic_inference, bayesian_segnet_basic_inference",
)

PUBLISHED = {
    "segnet_vgg16": SEGNET,
    "bayesian_segnet_vgg16": SEGNET,
    "segnet_basic": BASIC,
    "bayesian_segnet_basic": BASIC,
}
