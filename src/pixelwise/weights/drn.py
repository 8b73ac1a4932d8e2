"""Dilated Residual Networks as fyu/drn (d75db2e) publishes them: classifiers of ImageNet, segmenters of Cityscapes.

The names are ours, but for the prefix of parallel training that its checkpoints have.
"""

from __future__ import annotations

from pixelwise.data.known import CITYSCAPES
from pixelwise.models import list_models
from pixelwise.weights.state_format import Images, Labels, StateFormat

LICENCE = "BSD-3-Clause (fyu/drn)"
# info.json of the release, with which its networks were trained although they start from ImageNet weights.
CITYSCAPES_IMAGES = Images(mean=(0.29010095, 0.32808145, 0.28696394), std=(0.18295405, 0.18656561, 0.18447509))
LABELS = {
    19: Labels(
        name="Cityscapes",
        classes=CITYSCAPES.classes,
        palette=CITYSCAPES.palette or (),
        images=CITYSCAPES_IMAGES,
    )
}


def classifier(name: str) -> StateFormat:
    """Return the form of a classifier."""
    first = "layer0.0.weight" if name.startswith("drn_d") else "conv1.weight"
    last = "layer4.0.conv1.weight" if name.startswith("drn_a") else "layer8.0.weight"
    if name.startswith(("drn_b", "drn_c")):
        last = "layer8.0.conv1.weight"
    return StateFormat(
        library="fyu/drn",
        marks=(first, last, "fc.weight"),
        score="fc.weight",
        labels={1000: Labels(name="ImageNet", ignore_index=None)},
        licence=LICENCE,
        source=f"fyu/drn's {name}",
    )


def segmenter(name: str) -> StateFormat:
    """Return the form of a segmenter."""
    return StateFormat(
        library="fyu/drn",
        marks=("seg.weight", "base.0.weight" if name[7] in "ac" else "base.0.0.weight"),
        score="seg.weight",
        labels=LABELS,
        images=CITYSCAPES_IMAGES,
        licence=LICENCE,
        source=f"fyu/drn's DRNSeg on {name.replace('drnseg', 'drn')}",
    )


def trunk(name: str) -> StateFormat:
    """Return the form of a classifier from which a segmenter starts: its layers are numbered there."""
    letter = name[7]
    names = {rf"layer{level}\.(.+)": rf"base.{level}.\1" for level in range(9)}
    if letter == "c":
        names = {rf"layer{level}\.(.+)": rf"base.{level + 2}.\1" for level in range(1, 9)}
        names |= {r"conv1\.(.+)": r"base.0.\1", r"bn1\.(.+)": r"base.1.\1"}
    return StateFormat(
        library="fyu/drn",
        marks=("layer0.0.weight" if letter == "d" else "conv1.weight", "fc.weight"),
        names=names,
        leave_out={r"fc\.\w+": "the class layer of ImageNet"},
        trunk=True,
        licence=LICENCE,
        source=f"fyu/drn's {name.replace('drnseg', 'drn')}",
    )


FORMATS: dict[str, tuple[StateFormat, ...]] = {
    **{name: (classifier(name),) for name in list_models("classification") if name.startswith("drn_")},
    **{
        name: (segmenter(name), *(() if name.startswith("drnseg_a") else (trunk(name),)))
        for name in list_models("semantic")
        if name.startswith("drnseg_")
    },
}
