"""Published weights of DeconvNet.

Source: `model/DeconvNet/DeconvNet_inference_deploy.prototxt` of HyeonwooNoh/DeconvNet (87dd133); the mean is that of
`inference/util/preprocess_image.m`.
"""

from __future__ import annotations

from pixelwise.weights.published import VGG16_TRUNK, Published, voc

MEAN = (104.00698793, 116.66876762, 122.67891434)

PUBLISHED = {
    "deconvnet_vgg16": Published(
        score="seg_score_voc",
        trained_on={21: voc(MEAN)},
        mean=MEAN,
        trunk=VGG16_TRUNK,
        licence="weights: research only (HyeonwooNoh/DeconvNet)",
        source="HyeonwooNoh/DeconvNet: DeconvNet_inference_deploy",
    ),
}
