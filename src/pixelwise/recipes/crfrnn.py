"""CRF-RNN: S. Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015,
https://arxiv.org/abs/1502.03240.

A trained FCN-8s gets the CRF behind it, and both learn together, on whole images one at a time: loss summed over the
pixels, momentum 0.99, five iterations of mean field (ten at test). The rate of 1e-13 is ten thousand times as high for
the weights of the two kernels, and a thousand times for the compatibility, whose gradients sum over all pixels too.

Command: pixelwise train VOC --recipe crfrnn --weights fcn8s.safetensors --out RUN, with the weights made by pixelwise
import-weights fcn8s_vgg16 fcn8s-heavy-pascal.caffemodel --out fcn8s.safetensors, or by --recipe fcn8s_staged.
Data: 11,685 images of VOC 2012 train and SBD; scores on a reduced val of 346.
Hardware and hours: not stated by the originals.

With MS-COCO the paper trains FCN-32s and FCN-8s on 66,099 images of it that show VOC's classes first; give weights that
were trained so.

Departures: the length is not published, the release's solver has no end; here it is that of a stage of FCN-8s, and the
best state by validation is kept. The release's own definition trains with ten iterations of mean field, which the paper
finds worse; --set options.iterations=10 gives them. The paper's images are filled with zeros to 500 x 500.
"""

from __future__ import annotations

from pixelwise.recipes.fcn import fcn8s_staged, heavy
from pixelwise.recipes.recipe import VGG16, Recipe, Stage

FCN8S = "FCN-8s for the same classes"
LAYERS = {
    "crf.spatial": {"lr": 10_000.0},
    "crf.bilateral": {"lr": 10_000.0},
    "crf.compatibility": {"lr": 1000.0},
}
SETTINGS = {
    **heavy("crfrnn_fcn8s_vgg16", 1e-13, 100_000),
    "options.iterations": 5,
    "options.test_iterations": 10,
    "optimizer.layers": LAYERS,
}


def crfrnn() -> Recipe:
    """CRF-RNN behind a trained FCN-8s. Expected: mIoU 0.696 (reduced val), 0.729 with MS-COCO. Measured: not measured.

    Its FCN-8s alone has 0.613 there, and 0.637 with a CRF that did not learn with it.
    """
    stage = Stage(name="crfrnn", settings=SETTINGS, start="given_transplant")
    return Recipe(summary="CRF-RNN behind a trained FCN-8s, as released", stages=(stage,), weights=FCN8S)


def crfrnn_staged() -> Recipe:
    """FCN-8s in three stages, then with CRF-RNN. Expected: mIoU 0.696 (reduced val). Measured: not measured."""
    stages = (*fcn8s_staged().stages, Stage(name="crfrnn", settings=SETTINGS, start="transplant"))
    return Recipe(summary="FCN-32s, 16s, 8s, then CRF-RNN behind it, as released", stages=stages, weights=VGG16)
