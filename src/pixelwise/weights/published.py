"""What is known of a system's published Caffe models: their layer names, and what they were trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pixelwise.data.known import CAMVID_CLASSES, VOC_CLASSES, voc_colour

Colour = tuple[int, int, int]
Mean = tuple[float, float, float]  # blue, green, red, of 0..255


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """A data set of published weights.

    Attributes:
        name: of the data set.
        mean: what was subtracted from each channel (B, G, R) of images of 0..255; there is no division.
        classes: names in the order of the outputs; empty where they are not known.
        palette: colours [r, g, b] in the same order; empty where there are none.
        ignore_index: label that did not count in training.
    """

    name: str
    mean: Mean
    classes: tuple[str, ...] = ()
    palette: tuple[Colour, ...] = ()
    ignore_index: int | None = 255


@dataclass(frozen=True, kw_only=True)
class Published:
    """How a system was published as a Caffe model.

    Layers whose names are those of our modules need no entry; a hyphen counts as an underscore.

    Attributes:
        score: module whose outputs are the classes, for the number of classes of a file.
        trained_on: data set by number of classes; empty where only a classifier to start from was published.
        mean: of a start from an ImageNet classifier, and of any data set where it is always the same.
        one_mean: `mean` holds for every data set.
        images: convolutions that see the image, whose weights are turned from B, G, R to R, G, B.
        names: other layer names, exact or regular expressions, and our modules (with groups as \\1).
        parts: layers whose blobs are the weights of several of our modules, in the order of the blobs.
        orders: our convolutions whose input channels Caffe's networks join in another order, and which of its equal
            parts come first, second, ... in ours.
        options: of our model, with which it is the network of the file.
        constants: layers whose blobs all have one value, which our model has in its code.
        copies: regular expressions of layers that hold the same numbers as another, since they share its parameters,
            and the other's name (with groups as \\1).
        leave_out: regular expressions of layers that have no place in our model, and why.
        fold: biases without a place, and the bias to which they are added, which is the same function.
        trunk: layers that an ImageNet classifier must have to start the system from.
        cut: endings of the fc6 and fc7 that are cut out of VGG-16's, where a start from it is to fill smaller ones.
        licence: of the published weights, where it is known.
        source: the files whose names these are.
    """

    score: str
    trained_on: Mapping[int, TrainedOn]
    mean: Mean
    one_mean: bool = False
    images: tuple[str, ...] = ("conv1_1",)
    names: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    options: Mapping[str, str | float] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    leave_out: Mapping[str, str] = field(default_factory=dict)
    fold: Mapping[str, str] = field(default_factory=dict)
    trunk: tuple[str, ...]
    cut: tuple[str, ...] = ()
    licence: str | None = None
    source: str

    def module(self, layer: str) -> str:
        """Return the name that a layer of the file has in our model, whether or not the model has it."""
        if "\\" not in (exact := self.names.get(layer, "\\")):
            return exact
        for pattern, name in self.names.items():
            if match := re.fullmatch(pattern, layer):
                return match.expand(name)
        return layer.replace("-", "_")

    def original(self, layer: str) -> str | None:
        """Return the layer of the file whose parameters a layer shares; None if it has its own."""
        for pattern, name in self.copies.items():
            if match := re.fullmatch(pattern, layer):
                return match.expand(name)
        return None

    def reason_to_leave_out(self, layer: str) -> str | None:
        """Return why a layer of the file has no place in our model; None if it should have one."""
        return next((reason for pattern, reason in self.leave_out.items() if re.fullmatch(pattern, layer)), None)


VGG16_TRUNK = (
    *("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3"),
    *("conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3"),
)
VOC_PALETTE = tuple(voc_colour(index) for index in range(21))


def voc(mean: Mean) -> TrainedOn:
    """Return PASCAL VOC with a mean, which each system wrote with other digits."""
    return TrainedOn(name="PASCAL VOC", mean=mean, classes=VOC_CLASSES, palette=VOC_PALETTE)


__all__ = ["CAMVID_CLASSES", "VGG16_TRUNK", "Colour", "Mean", "Published", "TrainedOn", "voc"]
