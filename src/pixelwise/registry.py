"""The catalogue of models: one dict, one decorator, `create_model` and `list_models`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, overload

from pixelwise.errors import RequestError, closest

if TYPE_CHECKING:
    from torch import nn

    from pixelwise.structures import Estimator

Fidelity = Literal["verified", "reconstructed", "ours"]
PRETRAINED = "pretrained"  # for `weights`: what the model's encoder learnt from ImageNet
CLASSICAL = "classical"  # the task of estimators, which are no modules
Builder = TypeVar("Builder", bound="Callable[..., nn.Module | Estimator]")


class PublishedInputs(NamedTuple):
    """What published weights of an encoder are, and how they want their images.

    Attributes:
        source: what the weights are, for people.
        mean: per channel (red, green, blue), subtracted from values of 0..255.
        std: per channel, by which they are then divided.
    """

    source: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Weights that a package brings for a model's module `encoder`.

    Attributes:
        inputs: from the model's options to what the weights are; reads no weights, and raises `RequestError` where the
            package is missing.
        load: puts the weights into a model that was built with such options.
        offline: the package holds them; else they may be downloaded, so that they are never taken unasked.
    """

    inputs: Callable[[Mapping[str, Any]], PublishedInputs]
    load: Callable[[nn.Module], None]
    offline: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A row of the catalogue.

    Attributes:
        name: public name.
        family: system that it belongs to.
        task: output kind: "semantic", "classification", "instance" or "classical".
        year: of the paper.
        paper: authors, title, venue.
        fidelity: "verified" (held to the original by numbers), "reconstructed" (some facts could not be
            verified) or "ours" (not a paper's system).
        source: where the facts come from and what departs from them, in a sentence.
        input_size: (height, width) of the paper's or the usual input.
        debug: options that make the model small enough for a test, where the original is too large.
        pretrained: where weights of its encoder come from, None where no package brings any.
        requires: package that building the model needs, besides those of the core; None for most.
        build: the builder; keywords `num_classes`, `in_channels` and the model's own options.
        aliases: other names under which users know the model.
    """

    name: str
    family: str
    task: str
    year: int
    paper: str
    fidelity: Fidelity
    source: str
    input_size: tuple[int, int]
    build: Callable[..., Any]
    debug: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    pretrained: Pretrained | None = None
    requires: str | None = None


_MODELS: dict[str, ModelInfo] = {}
_ALIASES: dict[str, str] = {}  # to public names


def register(
    *,
    family: str,
    task: str,
    year: int,
    paper: str,
    fidelity: Fidelity,
    source: str,
    input_size: tuple[int, int],
    debug: Mapping[str, Any] = MappingProxyType({}),
    aliases: tuple[str, ...] = (),
    pretrained: Pretrained | None = None,
    requires: str | None = None,
) -> Callable[[Builder], Builder]:
    """Enter a builder into the catalogue under its function name, and under other names for those who know these."""

    def enter(build: Builder) -> Builder:
        name = build.__name__
        for index, new in enumerate((name, *aliases)):
            if new in known_names() or new in (name, *aliases)[:index]:
                raise ValueError(f"model {new!r} is registered twice; names and aliases must be unique. Rename one.")
        _ALIASES.update(dict.fromkeys(aliases, name))
        _MODELS[name] = ModelInfo(
            name=name,
            family=family,
            task=task,
            year=year,
            paper=paper,
            fidelity=fidelity,
            source=source,
            input_size=input_size,
            debug=debug,
            pretrained=pretrained,
            requires=requires,
            build=build,
            aliases=aliases,
        )
        return build

    return enter


def list_models(task: str | None = None) -> list[str]:
    """Return the public names, of one task if given, in the order of the families' registration; no aliases.

    Models that need a package which is not installed are left out; `model_info` knows them all the same.
    """
    return [name for name, info in _MODELS.items() if task in (None, info.task) and _can_build(info)]


def _can_build(info: ModelInfo) -> bool:
    return info.requires is None or find_spec(info.requires) is not None


def known_names() -> list[str]:
    """Return all names that a model can be asked for by: the public ones, then the aliases."""
    return [*_MODELS, *_ALIASES]


def model_info(name: str) -> ModelInfo:
    """Return the catalogue row of a public name or an alias; an unknown name is answered with the closest ones."""
    if name not in known_names():
        raise RequestError(
            f"unknown model {name!r}; closest names: {closest(name, known_names())}. `pixelwise models` lists them."
        )
    return _MODELS[_ALIASES.get(name, name)]


def model_options(name: str) -> dict[str, inspect.Parameter]:
    """Return a model's own options (keywords besides num_classes and in_channels) with their defaults."""
    parameters = inspect.signature(model_info(name).build).parameters
    return {key: value for key, value in parameters.items() if key not in ("num_classes", "in_channels")}


@overload
def create_model(
    name: Literal["textonboost"], *, num_classes: int, in_channels: int = 3, weights: None = None, **options: Any
) -> Estimator: ...


@overload
def create_model(
    name: str, *, num_classes: int, in_channels: int = 3, weights: str | Path | None = None, **options: Any
) -> nn.Module: ...


def create_model(
    name: str, *, num_classes: int, in_channels: int = 3, weights: str | Path | None = None, **options: Any
) -> nn.Module | Estimator:
    """Build a model by its public name.

    Args:
        name: a name of `list_models()`, or an alias of one.
        num_classes: number of classes K, background included where it is one.
        in_channels: number of image channels C.
        weights: a `.safetensors` file with this model's parameters, loaded strictly; "pretrained" takes what an
            installed package brings for the model's encoder; None draws them from the model's own initialisation.
        options: the model's own options; `describe` lists them.

    Returns:
        A module from float (N, C, H, W) to `SegmentationOutput`, or to `ClassificationOutput` of the task
        "classification"; an `Estimator` of the task "classical".

    Raises:
        RequestError: for an unknown name or option, an impossible value, or weights that do not fit.

    >>> create_model("unet", num_classes=2, in_channels=1).size_rule.output(572)
    388
    """
    name = model_info(name).name
    known = model_options(name)
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    check_options(name, known, options)
    for key, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RequestError(f"{key} is {value!r}; accepted: a whole number from 1. Count your {key[4:]}.")
    info = model_info(name)
    if weights is not None and info.task == CLASSICAL:
        raise RequestError(
            f"weights={str(weights)!r}: {name} is an estimator, which starts from no weights; accepted: none. "
            "Leave them out and call fit, or load a trained run with pixelwise.load."
        )
    model: nn.Module | Estimator = info.build(num_classes=num_classes, in_channels=in_channels, **options)
    if weights is None:
        return model
    network: Any = model
    if weights == PRETRAINED:
        load_pretrained(network, name)
    else:
        load_weights(network, Path(weights))
    return model


def check_options(name: str, known: Mapping[str, inspect.Parameter], options: Mapping[str, object]) -> None:
    """Refuse options that a builder does not know, or whose type is not its default's."""
    for key, value in options.items():
        if key not in known:
            raise RequestError(
                f"model {name!r} has no option {key!r}; closest: {closest(key, known) or 'none'}. "
                f"Its options: {', '.join(known) or 'none'}."
            )
        _check_option(name, key, value, known[key].default)


def load_pretrained(model: nn.Module, name: str) -> None:
    """Load what an installed package brings for the encoder of a model; the rest keeps its initialisation."""
    pretrained = model_info(name).pretrained
    if pretrained is None:
        able = [key for key in list_models() if model_info(key).pretrained is not None]
        raise RequestError(
            f"weights={PRETRAINED!r}: no package brings weights for {name!r}; accepted: a .safetensors file, or one of "
            f"{', '.join(able)}. Make a file with `pixelwise import-weights`."
        )
    pretrained.load(model)


def _check_option(name: str, key: str, value: object, default: object) -> None:
    """Refuse an option whose type is not its default's; a whole number may stand for a float."""
    kinds = {
        bool: ((bool,), "true or false"),
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
        tuple: ((tuple,), "a list of numbers"),
    }
    accepted, words = kinds.get(type(default), ((type(default),), "text"))
    wrong_bool = isinstance(value, bool) and bool not in accepted
    shown = list(default) if isinstance(default, tuple) else repr(default)
    if default is not None and (wrong_bool or not isinstance(value, accepted)):
        raise RequestError(
            f"option {key} of model {name!r} is {value!r}; accepted: {words}, such as {shown}. Give such a value."
        )


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a `.safetensors` file into a model; every key and every shape must agree, else `RequestError`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise RequestError(f"weights {path} is not a file; give the path of a .safetensors file.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RequestError(
            f"weights {path} cannot be read ({error}); accepted: a whole .safetensors file. Copy or download it again."
        ) from error
    wanted = model.state_dict()
    problems = [f"missing {key}" for key in wanted.keys() - tensors.keys()]
    problems += [f"unexpected {key}" for key in tensors.keys() - wanted.keys()]
    problems += [
        f"{key} is {tuple(tensors[key].shape)}, model wants {tuple(wanted[key].shape)}"
        for key in wanted.keys() & tensors.keys()
        if tensors[key].shape != wanted[key].shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:6]) + ("; ..." if len(problems) > 6 else "")
        raise RequestError(
            f"weights {path} do not fit this model: {len(problems)} differences: {shown}. "
            "Use the model name, class count, channels and options that the file was made with."
        )
    model.load_state_dict(tensors)
