"""Where training starts: `weights`, read as their file's metadata says.

- a file of the same model, or one without our metadata: all of it, strictly; with `replace_classifier` all but the
  layers that depend on the number of classes
- a classifier's, for another network: its trunk, and nothing else
- "pretrained" and "random": words, see `config`

A run folder stands for its best model.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from pixelwise.backbones.transplant import read_weights
from pixelwise.backbones.trunk import Source, Taken, class_layers, take_trunk
from pixelwise.engine.config import START_WORDS, NetworkConfig
from pixelwise.engine.model_file import ModelCard, build_twin, card_of, model_file
from pixelwise.errors import RequestError
from pixelwise.models import known_names, model_info

BYTE = 255.0
MOST_NAMED = 20  # layers


def weights_file(config: NetworkConfig) -> Path | None:
    """Return the file that `weights` names; None where it names none."""
    if config.weights is None or config.weights in START_WORDS:
        return None
    path = Path(config.weights)
    return model_file(path) if path.is_dir() else path


def classifier_card(config: NetworkConfig) -> ModelCard | None:
    """Return the card of `weights` where they are a classifier's and another network is trained; else None."""
    path = weights_file(config)
    card = None if path is None else card_of(path)
    if card is None or card.model == config.model or card.model not in known_names():
        return None
    return card if model_info(card.model).task == "classification" else None


def take_from_classifier(config: NetworkConfig, card: ModelCard, model: nn.Module, *, in_channels: int) -> Taken:
    """Fill a network's trunk from the classifier's file that `weights` names.

    Raises:
        RequestError: if the classifier is not the trunk of the network, or saw other channels.
    """
    path = weights_file(config)
    assert path is not None
    if card.in_channels != in_channels:
        raise RequestError(
            f"weights {config.weights} are of {card.model} for {card.in_channels} channels, and the images have "
            f"{in_channels}; accepted: equal ones. Convert the images, or train the classifier on such images."
        )
    few, more = (
        build_twin(card.model, num_classes=count, in_channels=card.in_channels, options=card.options)
        for count in (card.num_classes, card.num_classes + 1)
    )
    tensors, names = read_weights(path), few.state_dict()
    if tensors.keys() != names.keys():
        different = sorted(tensors.keys() ^ names.keys())
        raise RequestError(
            f"weights {path} do not hold the {card.model} that their metadata name: {len(different)} names differ, "
            f"such as {different[0]}; accepted: a model file as training writes it. Copy it again."
        )
    # In the order of the network: where a trunk ends is told by it.
    weights = {name: tensors[name] for name in names}
    source = Source(name=card.model, weights=weights, head=class_layers(few, more), network=few)
    return take_trunk(source, model, name=config.model)


def check_classes(config: NetworkConfig, num_classes: int) -> None:
    """Refuse weights of the same model for another number of classes, unless their classifier is to be replaced."""
    path = weights_file(config)
    card = None if path is None or config.replace_classifier else card_of(path)
    if card is None or card.model != config.model or card.num_classes == num_classes:
        return
    raise RequestError(
        f"weights {config.weights} are of {card.num_classes} classes, and the data has {num_classes}; accepted: equal "
        "numbers, or a new classifier. Give --set replace_classifier=true to keep all layers but those of the classes."
    )


def take_but_classifier(config: NetworkConfig, model: nn.Module, *, num_classes: int, in_channels: int) -> str:
    """Fill a network from the file that `weights` names, but for what depends on the classes; say what is new.

    Raises:
        RequestError: if anything else is missing, unknown or of another shape.
    """
    path = weights_file(config)
    assert path is not None
    few, more = (
        build_twin(config.model, num_classes=count, in_channels=in_channels, options=config.options)
        for count in (num_classes, num_classes + 1)
    )
    new, wanted, tensors = class_layers(few, more), model.state_dict(), read_weights(path)
    places = wanted.keys() - new
    problems = [f"missing {key}" for key in places - tensors.keys()]
    problems += [f"unexpected {key}" for key in tensors.keys() - wanted.keys()]
    problems += [
        f"{key} is {tuple(tensors[key].shape)}, the model wants {tuple(wanted[key].shape)}"
        for key in places & tensors.keys()
        if tensors[key].shape != wanted[key].shape
    ]
    if problems:
        raise RequestError(
            f"weights {path} do not fit {config.model}, its classifier aside: {len(problems)} differences, such as "
            f"{min(problems)}. Use the model name, channels and options that the file was made with."
        )
    model.load_state_dict({key: wanted[key] if key in new else tensors[key] for key in wanted})
    return f"weights = {config.weights} ({len(places)} tensors taken; the classifier is new: {_layers(tuple(new))})"


def said(card: ModelCard, taken: Taken) -> str:
    """Say exactly what was taken, what is new and what is left, by layers."""
    return (
        f"weights: of the classifier {card.model} ({card.num_classes} classes), {len(taken.taken)} tensors are taken "
        f"({_layers(taken.taken)}); new: {len(taken.new)} ({_layers(taken.new)}); left: {len(taken.left)} "
        f"({_layers(taken.left)})"
    )


def _layers(names: tuple[str, ...]) -> str:
    """Name the parts of a network at the depth at which there are a few.

    >>> _layers(("layer1.0.conv1.weight", "layer1.0.bn1.bias", "conv1.weight"))
    'conv1, layer1'
    """
    parts = {name.rpartition(".")[0] for name in names}
    for depth in (3, 2, 1):
        short = sorted({".".join(part.split(".")[:depth]) for part in parts})
        if len(short) <= MOST_NAMED:
            break
    return ", ".join(short[:MOST_NAMED]) + (", ..." if len(short) > MOST_NAMED else "") if parts else "none"


def image_statistics(card: ModelCard) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and deviation, in values of 0..255, of the images that a network saw.

    None where they are not the same for all images, or not those of 8-bit images.
    """
    normalisation = card.normalisation
    if normalisation.per_image or normalisation.intensity_range != (0.0, BYTE):
        return None
    mean, std = (tuple(value * BYTE for value in values) for values in (normalisation.mean, normalisation.std))
    return mean, std
