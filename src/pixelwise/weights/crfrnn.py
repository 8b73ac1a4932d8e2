"""Published weights of CRF-RNN: the release's Caffe model, and its authors' port to PyTorch.

Source: `python-scripts/TVG_CRFRNN_COCO_VOC.prototxt` and `python-scripts/README.md` of torrvision/crfasrnn (2156669),
`multi_stage_meanfield.cpp` of torrvision/caffe (d779ee3); `crfasrnn/` of sadeepj/crfasrnn_pytorch (24899c5).

The release's demo subtracts another mean, and its red from blue; here it is the mean that the release's README names.
"""

from __future__ import annotations

from dataclasses import replace

from pixelwise.data.known import VOC_CLASSES
from pixelwise.weights.fcn import FCN8S
from pixelwise.weights.published import VOC_PALETTE, Published, voc
from pixelwise.weights.state_format import Images, Labels, StateFormat

MEAN = (104.00698793, 116.66876762, 122.67891434)
PORTED = Images(mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255, 1 / 255, 1 / 255))
LICENCE = "weights: non-commercial (torrvision/crfasrnn)"

CRFRNN: Published = replace(
    FCN8S,
    trained_on={21: voc(MEAN)},
    mean=MEAN,
    names={"score2": "upscore2", "score4": "upscore_pool4", "upsample": "upscore8"},
    parts={"inference1": ("crf.spatial", "crf.bilateral", "crf.compatibility")},
    leave_out={},
    fold={},
    licence=LICENCE,
    source="torrvision/crfasrnn: TVG_CRFRNN_COCO_VOC",
)
PUBLISHED = {"crfrnn_fcn8s_vgg16": CRFRNN}

PORT = StateFormat(
    library="crfasrnn_pytorch",
    marks=("crfrnn.compatibility_matrix", "score_fr.weight"),
    score="score_fr.weight",
    names={
        r"crfrnn\.spatial_ker_weights": "crf.spatial.weight",
        r"crfrnn\.bilateral_ker_weights": "crf.bilateral.weight",
        r"crfrnn\.compatibility_matrix": "crf.compatibility.weight",
    },
    turned=("conv1_1.weight",),
    negated=("crf.compatibility.weight",),
    diagonal=("upscore8.weight",),
    labels={21: Labels(name="PASCAL VOC", classes=VOC_CLASSES, palette=VOC_PALETTE, images=PORTED)},
    images=PORTED,
    licence=LICENCE,
    source="sadeepj/crfasrnn_pytorch's CrfRnnNet",
)
FORMATS: dict[str, tuple[StateFormat, ...]] = {"crfrnn_fcn8s_vgg16": (PORT,)}
