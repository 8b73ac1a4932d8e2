"""How other libraries publish one of our systems as a PyTorch state dict: names, options, and training data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pixelwise.weights.published import Colour

OptionValue = str | int | float | bool | tuple[int | float, ...] | None


@dataclass(frozen=True, kw_only=True)
class Images:
    """What images a network was trained on: ((x / 255) - mean) / std of R, G, B values of 0..255."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


IMAGENET = Images()


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A data set of published weights.

    Attributes:
        name: of the data set.
        classes: names in the order of the outputs; empty where they are not known.
        palette: colours [r, g, b] in the same order; empty where there are none.
        ignore_index: label that did not count in training.
        images: what the network saw.
    """

    name: str
    classes: tuple[str, ...] = ()
    palette: tuple[Colour, ...] = ()
    ignore_index: int | None = 255
    images: Images = IMAGENET


@dataclass(frozen=True, kw_only=True)
class StateFormat:
    """One library's form of a system.

    Attributes:
        library: name of the repository or package.
        marks: names that its files have and those of the other formats of the same system lack.
        score: name, in the file, of the tensor with a row per class; empty for an ImageNet classifier's trunk.
        names: regular expressions of whole names in the file, and ours (with groups as \\1); the first that fits
            counts. A name that none fits is the same in both.
        leave_out: regular expressions of names without a place in our model, and why.
        turned: our convolutions that see the image, whose weights are turned from B, G, R to R, G, B.
        negated: our names of tensors that the library adds where ours are subtracted.
        diagonal: our names of fixed kernels, one per channel, which the library stores for all pairs of channels.
        options: of our model, with which it is the library's network.
        labels: data set by number of classes.
        images: where the data set is not known.
        trunk: the file is an ImageNet classifier: what it lacks keeps the model's own initialisation.
        may_differ: regular expression of our names that a trunk leaves out where the shapes differ.
        licence: of the published weights, where it is known.
        source: whose names these are, with the commit or version.
    """

    library: str
    marks: tuple[str, ...]
    score: str = ""
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    leave_out: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    turned: tuple[str, ...] = ()
    negated: tuple[str, ...] = ()
    diagonal: tuple[str, ...] = ()
    options: Mapping[str, OptionValue] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[int, Labels] = field(default_factory=lambda: MappingProxyType({}))
    images: Images = IMAGENET
    trunk: bool = False
    may_differ: str | None = None
    licence: str | None = None
    source: str

    def name(self, theirs: str) -> str:
        """Return our name for one of the file's, whether or not the model has it."""
        for pattern, ours in self.names.items():
            if match := re.fullmatch(pattern, theirs):
                return match.expand(ours)
        return theirs

    def reason_to_leave_out(self, theirs: str) -> str | None:
        """Return why a name of the file has no place in our model; None if it should have one."""
        return next((why for pattern, why in self.leave_out.items() if re.fullmatch(pattern, theirs)), None)

    def fits(self, names: Mapping[str, object]) -> bool:
        """Say whether a file with these names is of this form."""
        return all(mark in names for mark in self.marks)
