"""PSPNet as hszhao/PSPNet publishes it, as Caffe models.

Layers are named by stage and unit, `conv4_2_3x3/bn`; the layers "BN" hold slope, bias, mean and variance. The pooled
maps behind the map itself are joined as those of 6, 3, 2 and 1 bins, in ours as 1, 2, 3 and 6, so that the input
channels of `conv5_4` are put into our order. There is no auxiliary classifier.

Source: `evaluation/prototxt`, `evaluation/eval_all.m` and `src/caffe/layers/bn_layer.cpp` of hszhao/PSPNet (798bdc9).
"""

from __future__ import annotations

from collections.abc import Iterator

from pixelwise.backbones.resnet import BLOCKS
from pixelwise.data.known import CITYSCAPES
from pixelwise.weights.published import Mean, Published, TrainedOn, voc

MEAN: Mean = (103.939, 116.779, 123.68)
LEVELS = {1: 0, 2: 1, 3: 2, 6: 3}  # bins of a level, and its place in ours
UNIT = {"1x1_reduce": "1", "3x3": "2", "1x1_increase": "3"}


def caffe_layers(depth: int) -> Iterator[tuple[str, str, str]]:
    """Name each convolution of a Caffe network, our module for it, and ours for its normalisation."""
    for index, layer in enumerate(("conv1_1_3x3_s2", "conv1_2_3x3", "conv1_3_3x3")):
        yield layer, f"layer0.{3 * index}", f"layer0.{3 * index + 1}"
    for stage, units in enumerate(BLOCKS[depth], 2):
        for unit in range(1, units + 1):
            name, place = f"conv{stage}_{unit}", f"layer{stage - 1}.{unit - 1}"
            for kind, number in UNIT.items():
                yield f"{name}_{kind}", f"{place}.conv{number}", f"{place}.bn{number}"
            if unit == 1:
                yield f"{name}_1x1_proj", f"{place}.downsample.0", f"{place}.downsample.1"
    for bins, index in LEVELS.items():
        yield f"conv5_3_pool{bins}_conv", f"ppm.features.{index}.1", f"ppm.features.{index}.2"
    yield "conv5_4", "cls.0", "cls.1"


def caffe(depth: int) -> Published:
    """Return what is known of the Caffe model of a depth."""
    layers = list(caffe_layers(depth))
    names = {layer: module for layer, module, _ in layers} | {f"{layer}/bn": norm for layer, _, norm in layers}
    ade20k = TrainedOn(name="ADE20K", mean=MEAN)
    cityscapes = TrainedOn(name="Cityscapes", mean=MEAN, classes=CITYSCAPES.classes, palette=CITYSCAPES.palette or ())
    return Published(
        score="cls.4",
        trained_on={19: cityscapes, 21: voc(MEAN), 150: ade20k},
        mean=MEAN,
        one_mean=True,
        images=("layer0.0",),
        names={**names, "conv6": "cls.4"},
        orders={"cls.0": (0, 1, 2, 3, 7, 6, 5, 4)},  # the map is half of the channels, each level an eighth
        options={"variant": "caffe", "aux_weight": 0.0},
        trunk=tuple(module for _, *both in layers for module in both if module.startswith("layer")),
        source="hszhao/PSPNet: pspnet50_ADE20K, pspnet101_VOC2012, pspnet101_cityscapes",
    )


PUBLISHED = {f"pspnet_resnet{depth}": caffe(depth) for depth in (50, 101)}
