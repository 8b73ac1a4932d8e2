"""Where training starts: `weights`, read as their file's metadata says.

- a file of the same model, or one without our metadata: all of it, strictly
- a classifier's, for another network: its trunk, and nothing else
- "pretrained" and "random": words, see `config`

A run folder stands for its best model.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from pixelwise.backbones.transplant import read_weights
from pixelwise.backbones.trunk import Source, Taken, class_layers, take_trunk
from pixelwise.engine.config import START_WORDS, RunConfig
from pixelwise.engine.model_file import ModelCard, build_twin, card_of, model_file
from pixelwise.errors import RequestError
from pixelwise.models import known_names, model_info

BYTE = 255.0
MOST_NAMED = 20  # layers


def weights_file(config: RunConfig) -> Path | None:
    """Return the file that `weights` names; None where it names none."""
    if config.weights is None or config.weights in START_WORDS:
        return None
    path = Path(config.weights)
    return model_file(path) if path.is_dir() else path


def classifier_card(config: RunConfig) -> ModelCard | None:
    """Return the card of `weights` where they are a classifier's and another network is trained; else None."""
    path = weights_file(config)
    card = None if path is None else card_of(path)
    if card is None or card.model == config.model or card.model not in known_names():
        return None
    return card if model_info(card.model).task == "classification" else None


def take_from_classifier(config: RunConfig, card: ModelCard, model: nn.Module, *, in_channels: int) -> Taken:
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
    """Return mean and deviation, in values of 0..255, of the images that a classifier saw.

    None where they are not the same for all images, or not those of 8-bit images.
    """
    normalisation = card.normalisation
    if normalisation.per_image or normalisation.intensity_range != (0.0, BYTE):
        return None
    mean, std = (tuple(value * BYTE for value in values) for values in (normalisation.mean, normalisation.std))
    return mean, std
