"""The model file: a safetensors file that knows its classes, colours, normalisation and input rules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pixelwise.data.normalise import Normalisation
from pixelwise.errors import RequestError
from pixelwise.files import write_atomically
from pixelwise.models import create_model, known_names, model_info
from pixelwise.registry import CLASSICAL
from pixelwise.structures import color_std_of

METADATA_KEY = "pixelwise"
BEST = "best.safetensors"  # of a run folder
FORMAT = 1
COLOR_OPTION = "color_std"  # of models that compare colours
BYTE = 255.0  # values that come as 0..1 go into the network as 0..255

Option = str | int | float | bool | tuple[int | float, ...] | None


class ModelCard(BaseModel):
    """What must be known to use trained weights; stored as JSON in the file's metadata.

    Attributes:
        format: version of this record.
        model: public name of the model.
        options: the model's own options.
        num_classes: K.
        in_channels: C.
        classes: names in index order.
        palette: colours [r, g, b] in the same order.
        ignore_index: label that did not count in training.
        boundary_class: id of the class that runs between objects, such as membranes; None where none is known.
        mask_encoding: how the training masks meant classes, such as "index" or "objects"; None where not noted.
        normalisation: from stored values to network input.
        scale: factor by which images are resized before the network sees them.
        crop: input (height, width) of the training windows; None for whole images, or where not noted.
        input_rule: legal input sizes, in words.
        licence: of the training data, where known.
        origin: of imported weights: the file, and what was made of it; None for a training run.
        iteration: of the training run.
        metrics: on the validation set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    pixelwise: str
    model: str
    options: dict[str, Option]
    num_classes: int
    in_channels: int
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int | None
    boundary_class: int | None = None
    mask_encoding: str | None = None
    normalisation: Normalisation
    scale: float
    crop: tuple[int, int] | None = None
    input_rule: str
    licence: str | None
    origin: str | None = None
    iteration: int
    metrics: dict[str, float | None]


def build_model(
    name: str, *, num_classes: int, in_channels: int, options: Mapping[str, Option], weights: str | None = None
) -> nn.Module:
    """Build a model from stored options; see `create_model`."""
    if name in known_names() and model_info(name).task == CLASSICAL:
        raise RequestError(
            f"{name} is a classical pipeline, no network with weights and layers; accepted here: networks. `pixelwise "
            f"train`, `evaluate`, `predict`, `report` and `describe` take {name}."
        )
    keywords: dict[str, Any] = dict(options)
    return create_model(name, num_classes=num_classes, in_channels=in_channels, weights=weights, **keywords)


def build_twin(name: str, *, num_classes: int, in_channels: int, options: Mapping[str, Option]) -> nn.Module:
    """Build a model on the meta device: shapes without weights."""
    with torch.device("meta"):
        return build_model(name, num_classes=num_classes, in_channels=in_channels, options=options)


def save_model(path: Path, model: nn.Module, card: ModelCard) -> None:
    """Write weights and card into one safetensors file, whole or not at all."""
    save_tensors(path, {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}, card)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write tensors and card into one safetensors file, whole or not at all."""
    write_atomically(path, save(dict(tensors), {METADATA_KEY: card.model_dump_json()}))


def card_of(path: Path) -> ModelCard | None:
    """Return the card of a safetensors file without reading its tensors; None where it has none that is ours."""
    try:
        with safe_open(path, framework="pt") as file:
            return ModelCard.model_validate(json.loads((file.metadata() or {})[METADATA_KEY]))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None  # reading the weights will say what is wrong, if anything is


def model_file(run: Path) -> Path:
    """Return the file of a run folder's best model; a model file is returned as it is.

    Raises:
        RequestError: if there is none.
    """
    path = Path(run)
    if not path.exists():
        raise RequestError(f"run {path} does not exist. Give the --out folder of a training run, or a model file.")
    if not path.is_dir():
        return path
    if not (path / BEST).exists():
        raise RequestError(
            f"run {run} holds no {BEST}; accepted: the --out folder of a run that was validated at least once. Train "
            "it, or go on with train --resume."
        )
    return path / BEST


def task_of(run: Path) -> str:
    """Return the task of a run's model by its file's metadata; "semantic" where loading it will say what is wrong."""
    card = card_of(model_file(run))
    return "semantic" if card is None or card.model not in known_names() else model_info(card.model).task


def load_model(
    path: Path, *, device: str | torch.device = "cpu", options: Mapping[str, Option] | None = None
) -> tuple[nn.Module, ModelCard]:
    """Read a model file and build the model, in evaluation mode.

    Args:
        path: the file.
        device: where the model goes.
        options: of the model, which beat those that it was trained with and leave its weights as they are, such as
            DeepLab v3's output stride; the card that is returned holds them.

    Raises:
        RequestError: if the file is missing, damaged, not one of ours, or does not fit the model it names, or the
            options want other weights or other images.
    """
    tensors, card = read_model_file(path)
    card = card.model_copy(update={"options": {**card.options, **(options or {})}})
    model = build_model(card.model, num_classes=card.num_classes, in_channels=card.in_channels, options=card.options)
    check_colors(model, card.normalisation, name=card.model)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        if options:
            raise RequestError(
                f"with {options_text(options)}, {card.model} wants other weights than {path} holds; accepted: options "
                "that leave the weights as they are, such as output_stride. Leave it out, or train a model with it."
            ) from error
        raise RequestError(
            f"model file {path} does not hold the weights of {card.model} that its metadata names "
            f"({str(error).splitlines()[-1].strip()}). Copy the file again."
        ) from error
    return model.to(device).to(memory_format=torch.channels_last).eval(), card


def read_model_file(path: Path) -> tuple[dict[str, Tensor], ModelCard]:
    """Return the tensors and the card of a model file.

    Raises:
        RequestError: if the file is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise RequestError(
            f"model file {path} does not exist. Give a run folder with best.safetensors, or such a file."
        )
    tensors, metadata = read_tensors(path)
    if METADATA_KEY not in metadata:
        raise RequestError(
            f"model file {path} is a safetensors file of another program (no pixelwise metadata); accepted: "
            "best.safetensors of a pixelwise run. To start training from it, use `train --weights`."
        )
    try:
        card = ModelCard.model_validate(json.loads(metadata[METADATA_KEY]))
    except (ValidationError, ValueError) as error:
        raise RequestError(
            f"model file {path} has metadata that this version does not read ({str(error).splitlines()[0]}). "
            "Use the pixelwise version that wrote it, or train again."
        ) from error
    return tensors, card


def check_colors(model: nn.Module, normalisation: Normalisation, *, name: str) -> None:
    """Refuse a normalisation with which a model that compares colours would not know their steps."""
    if (std := color_std_of(model)) is not None:
        given = None if normalisation.per_image else tuple(BYTE * value for value in normalisation.std)
        check_color_std(name, std, given=given)


def check_color_std(name: str, std: tuple[float, ...], *, given: tuple[float, ...] | None) -> None:
    """Refuse images whose colours a model that compares them would take for others.

    Args:
        name: of the model.
        std: which the model multiplies each channel by, to have steps of 0..255 again.
        given: by which values of 0..255 are divided; None where that differs from image to image.
    """
    if given is None or any(abs(one - other) > 1e-4 * one for one, other in zip(std, given, strict=True)):
        shown, wanted = ("[" + ", ".join(f"{value:.6g}" for value in values) + "]" for values in (given or (), std))
        found = f"divided by {shown}" if given else "each divided by its own deviation"
        advice = f"Give color_std={shown.replace(' ', '')}" if given else "Normalise all images alike"
        raise RequestError(
            f"{name} compares colours in steps of 0..255 and undoes a division by color_std={wanted}, and its images "
            f"are {found}; accepted: the same numbers. {advice}."
        )


def options_text(options: Mapping[str, Option]) -> str:
    """Write options as they are given.

    >>> options_text({"output_stride": 8, "multi_grid": (1, 2, 4), "aux": None})
    'output_stride=8, multi_grid=[1,2,4], aux=null'
    """
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        for key, value in values.items()
    )


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file; a damaged one is a `RequestError`."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "no reason known")
        reason = reason.removeprefix("Error while deserializing header: ")
        raise RequestError(
            f"{path} cannot be read as a safetensors file ({reason}); accepted: a whole one; pickle files (.pt, .pth) "
            "never. Copy it again, or give another file."
        ) from error
