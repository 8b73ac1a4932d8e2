"""Published weights of the FCN networks.

Source: net definitions of shelhamer/fcn.berkeleyvision.org (1305c73); for the older names of
`fcn-8s-pascal.caffemodel` (CVPR 2015) the copy in HyeonwooNoh/DeconvNet (87dd133); for GoogLeNet
`models/bvlc_googlenet` of BVLC/caffe (9b89154).
"""

from __future__ import annotations

from dataclasses import replace

from pixelwise.weights.published import VGG16_TRUNK, Published, TrainedOn, voc

VOC_MEAN = (104.00699, 116.66877, 122.67892)
TRAINED_ON = {
    21: voc(VOC_MEAN),
    60: TrainedOn(name="PASCAL-Context", mean=(104.007, 116.669, 122.679)),
    40: TrainedOn(name="NYUDv2, colour", mean=(116.190, 97.203, 92.318)),
    33: TrainedOn(name="SIFT Flow", mean=(114.578, 115.294, 108.353)),
}
SIFT_FLOW = {r"(score_fr|score_pool[34]|upscore\w*?)_sem": r"\1"}
GEOMETRY = {r"\w+_geo": "SIFT Flow's second head, of geometric classes"}

FCN32S = Published(
    score="score_fr",
    trained_on=TRAINED_ON,
    mean=VOC_MEAN,
    names=SIFT_FLOW,
    leave_out=GEOMETRY,
    trunk=VGG16_TRUNK,
    licence="weights: unrestricted use (BVLC model licence)",
    source="shelhamer/fcn.berkeleyvision.org: voc-fcn32s, pascalcontext-fcn32s, siftflow-fcn32s, nyud-fcn32s-color",
)
FCN16S = replace(FCN32S, source="shelhamer/fcn.berkeleyvision.org: voc-fcn16s, pascalcontext-fcn16s, siftflow-fcn16s")
FCN8S = replace(
    FCN32S,
    names={**SIFT_FLOW, "score2": "upscore2", "score4": "upscore_pool4", "upsample": "upscore8"},
    # A constant added to one of two maps that are summed may as well be added to the other.
    fold={"upscore2.bias": "score_pool4.bias"},
    source="shelhamer/fcn.berkeleyvision.org: voc-fcn8s, pascalcontext-fcn8s, siftflow-fcn8s; fcn-8s-pascal of 2015",
)
FCN8S_ATONCE = replace(
    FCN32S,
    constants={"scale_pool4": 0.01, "scale_pool3": 0.0001},
    source="shelhamer/fcn.berkeleyvision.org: voc-fcn8s-atonce",
)
FCN_ALEXNET = replace(
    FCN32S,
    images=("conv1",),
    names={},
    leave_out={},
    trunk=("conv1", "conv2", "conv3", "conv4", "conv5"),
    source="shelhamer/fcn.berkeleyvision.org: voc-fcn-alexnet; trunk: BVLC reference CaffeNet",
)
INCEPTION = {
    "conv1/7x7_s2": "conv1.conv",
    "conv2/3x3_reduce": "conv2.conv",
    "conv2/3x3": "conv3.conv",
    r"inception_(\d\w)/1x1": r"inception\1.branch1.conv",
    r"inception_(\d\w)/3x3_reduce": r"inception\1.branch2.0.conv",
    r"inception_(\d\w)/3x3": r"inception\1.branch2.1.conv",
    r"inception_(\d\w)/5x5_reduce": r"inception\1.branch3.0.conv",
    r"inception_(\d\w)/5x5": r"inception\1.branch3.1.conv",
    r"inception_(\d\w)/pool_proj": r"inception\1.branch4.1.conv",
}
BLOCKS = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
PARTS = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
FCN_GOOGLENET = replace(
    FCN32S,
    trained_on={},
    mean=(104.0, 117.0, 123.0),
    images=("conv1.conv",),
    names=INCEPTION,
    leave_out={},
    trunk=(
        *("conv1.conv", "conv2.conv", "conv3.conv"),
        *(f"inception{block}.{part}.conv" for block in BLOCKS for part in PARTS),
    ),
    source="BVLC/caffe: bvlc_googlenet, the classifier; no FCN on it was published",
)

PUBLISHED = {
    "fcn32s_vgg16": FCN32S,
    "fcn16s_vgg16": FCN16S,
    "fcn8s_vgg16": FCN8S,
    "fcn8s_vgg16_atonce": FCN8S_ATONCE,
    "fcn_alexnet": FCN_ALEXNET,
    "fcn_googlenet": FCN_GOOGLENET,
}
