"""torchvision's VGG-16 as the trunk of the networks that start from it.

Source: torchvision 0.29, `models/vgg.py`; weights `VGG16_Weights.IMAGENET1K_V1`, without batch normalisation.
"""

from __future__ import annotations

import re

from pixelwise.backbones.vgg import layer_names
from pixelwise.weights.catalogue import PUBLISHED
from pixelwise.weights.published import VGG16_TRUNK
from pixelwise.weights.state_format import StateFormat

VGG16 = StateFormat(
    library="torchvision",
    marks=("features.0.weight", "features.28.weight", "classifier.0.weight"),
    names={rf"{re.escape(theirs)}\.(weight|bias)": rf"{ours}.\1" for theirs, ours in layer_names().items()},
    leave_out={r"classifier\.6\.\w+": "the class layer of ImageNet"},
    trunk=True,
    may_differ=r"fc[67](_\d)?\.\w+",
    licence="BSD-3-Clause (torchvision)",
    source="torchvision's vgg16",
)

FORMATS = {name: (VGG16,) for name, published in PUBLISHED.items() if published.trunk == VGG16_TRUNK}
