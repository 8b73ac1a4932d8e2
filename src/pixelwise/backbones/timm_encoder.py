"""Any encoder of timm (PyTorch Image Models, https://github.com/huggingface/pytorch-image-models), if it is installed.

timm is imported when an encoder is built, never before. Weights come from timm too, and only on request: it takes them
from its cache, or downloads them.

Axes: N batch, C image channels, s stride of a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from pixelwise.errors import RequestError, closest
from pixelwise.registry import Pretrained, PublishedInputs

BYTE = 255.0  # timm's mean and deviation are of values of 0..1


class TimmEncoder(nn.Module):
    """The maps of a timm model, one for each stride, from the finest.

    Args:
        name: timm's name, perhaps with a tag of its weights: "resnet18", "resnet18.a1_in1k".
        in_channels: C of the image.

    Attributes:
        channels: of the maps.
        strides: of the maps, rising; of several maps of one stride the deepest is taken.

    Raises:
        RequestError: if timm is not installed, does not know the name, or offers no maps of the model.
    """

    def __init__(self, name: str, *, in_channels: int) -> None:
        super().__init__()
        self.name = name
        self.model = build(name, in_channels=in_channels, pretrained=False)
        info: Any = self.model.feature_info
        last = {stride: index for index, stride in enumerate(info.reduction())}
        self.kept = tuple(last.values())
        self.strides = tuple(last)
        self.channels = tuple(info.channels()[index] for index in self.kept)
        self.channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of float images (N, C, H, W): (N, channels, H / s, W / s) for each stride s."""
        maps = self.model(images)
        kept = [maps[index] for index in self.kept]
        return [x.permute(0, 3, 1, 2) for x in kept] if self.channels_last else kept


def build(name: str, *, in_channels: int, pretrained: bool) -> nn.Module:
    """Build a model of timm that returns its maps."""
    timm = import_timm()
    check_name(timm, name)
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, features_only=True, in_chans=in_channels)
    except (RuntimeError, AttributeError, TypeError, AssertionError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise RequestError(
            f"encoder={name!r} cannot be built as one that returns its maps (timm: {reason}); accepted: models of timm "
            "that support features_only. Take another one, such as resnet18."
        ) from error
    return model


def import_timm() -> ModuleType:
    """Import timm, or say how to install it."""
    if find_spec("timm") is None:
        raise RequestError(
            "timm is not installed, and this model's encoder comes from it; accepted: timm of any version from 1.0. "
            "Run: pip install 'pixelwise[timm]'"
        )
    return import_module("timm")


def check_name(timm: ModuleType, name: str) -> None:
    """Refuse a name that timm does not know, with the closest ones, and encoders of a fixed input size."""
    known, (base, _, tag) = timm.list_models(), name.partition(".")
    if base not in known:
        raise RequestError(
            f"encoder={name!r} is no model of timm; closest names: {closest(base, known)}. Accepted: the "
            f"{len(known)} names of timm.list_models(). Give one of them."
        )
    tagged = timm.list_pretrained(f"{base}.*") if tag else []
    if tag and name not in tagged:
        raise RequestError(
            f"encoder={name!r}: timm knows no weights {tag!r} of {base}; accepted: {', '.join(tagged) or 'no tag'}. "
            "Give one of them, or leave the tag out."
        )
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        height, width = config.input_size[1:]
        raise RequestError(
            f"encoder={name!r} sees images of {height} x {width} alone; accepted: encoders of timm for any size, as "
            "its convolutional ones are. Take another one, such as convnext_tiny."
        )


def inputs(options: Mapping[str, Any]) -> PublishedInputs:
    """Say what timm's weights of an encoder are; see `Pretrained`."""
    timm = import_timm()
    name = str(options["encoder"])
    check_name(timm, name)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise RequestError(
            f"timm has no weights of encoder={name!r}; accepted: one of timm.list_pretrained(). Take another encoder, "
            "or give --weights random."
        )
    label = f"{config.architecture}.{config.tag}" if config.tag else name
    mean, std = (tuple(value * BYTE for value in values) for values in (config.mean, config.std))
    return PublishedInputs(f"{label} of timm", mean=mean, std=std)


def load(model: nn.Module) -> None:
    """Put timm's weights into a model's `encoder`, from timm's cache or the network."""
    encoder = model.get_submodule("encoder")
    assert isinstance(encoder, TimmEncoder)
    first = next(parameter for parameter in encoder.model.parameters() if parameter.ndim == 4)
    try:
        taught = build(encoder.name, in_channels=first.shape[1], pretrained=True)
    except OSError as error:  # what every failure of a download is
        reason = str(error).partition("\n")[0]
        raise RequestError(
            f"timm cannot get the weights of encoder={encoder.name!r} ({reason}); accepted: weights in its cache, or a "
            "way to the network. Download them where there is one and copy the cache (HF_HOME), or give --weights "
            "random."
        ) from error
    encoder.model.load_state_dict(taught.state_dict())


PRETRAINED = Pretrained(inputs=inputs, load=load, offline=False)
