"""Weights to start `hypercolumn_vgg16` from; its own were published in another form than Caffe's."""

from __future__ import annotations

from pixelwise.weights.published import VGG16_TRUNK, Published

PUBLISHED = {
    "hypercolumn_vgg16": Published(
        score="score_conv5_3",
        trained_on={},
        mean=(103.939, 116.779, 123.68),
        trunk=VGG16_TRUNK,
        source="VGG_ILSVRC_16_layers, the classifier, whose mean this is",
    ),
}
