"""Names of ResNet in Caffe, as its authors published it (KaimingHe/deep-residual-networks) and others kept them.

A convolution `res4b22_branch2a` is followed by `bn4b22_branch2a`, the statistics, and `scale4b22_branch2a`, the affine
parameters; `branch1` is the shortcut. Units are a, b, c, or a, b1, b2, ... in the long stages of ResNet-101 and -152.
"""

from __future__ import annotations

from collections.abc import Sequence

# Units that a name can mean: a group's number, or a letter.
UNITS = {"a": "0", r"b(\d+)": r"\1", "b": "1", "c": "2", "d": "3", "e": "4", "f": "5"}


def resnet_names(prefix: str = "backbone.") -> dict[str, str]:
    """Return regular expressions of Caffe's layer names, and the modules of `backbones.resnet.ResNet`."""
    names = {"conv1": f"{prefix}conv1", "(?:bn|scale)_conv1": f"{prefix}bn1"}
    for stage in range(2, 6):
        for unit, index in UNITS.items():
            place = f"{prefix}layer{stage - 1}.{index}"
            for number, letter in enumerate("abc", 1):
                names[f"res{stage}{unit}_branch2{letter}"] = f"{place}.conv{number}"
                names[f"(?:bn|scale){stage}{unit}_branch2{letter}"] = f"{place}.bn{number}"
            names[f"res{stage}{unit}_branch1"] = f"{place}.downsample.0"
            names[f"(?:bn|scale){stage}{unit}_branch1"] = f"{place}.downsample.1"
    return names


def resnet_modules(blocks: Sequence[int], prefix: str = "backbone.") -> tuple[str, ...]:
    """Return the modules with weights of a trunk of bottlenecks with so many units in its stages."""
    modules = [f"{prefix}conv1", f"{prefix}bn1"]
    for stage, units in enumerate(blocks, 1):
        for unit in range(units):
            place = f"{prefix}layer{stage}.{unit}"
            modules += [f"{place}.{kind}{number}" for number in (1, 2, 3) for kind in ("conv", "bn")]
            modules += [f"{place}.downsample.{part}" for part in (0, 1) if unit == 0]
    return tuple(modules)
