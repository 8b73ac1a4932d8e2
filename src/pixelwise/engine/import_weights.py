"""Published weights become a model file: weights, classes, colours, and the normalisation they were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from pixelwise.data.normalise import Normalisation
from pixelwise.engine.import_card import CHANNELS, build_from_seed, imported_card
from pixelwise.engine.model_file import ModelCard, Option, build_twin, save_model
from pixelwise.errors import RequestError
from pixelwise.files import check_writable
from pixelwise.registry import model_info
from pixelwise.weights.caffemodel import CaffeNet, read_caffemodel, read_mean
from pixelwise.weights.catalogue import published_weights
from pixelwise.weights.convert import Conversion, convert
from pixelwise.weights.cut_down import cut_caffe
from pixelwise.weights.published import Mean, Published, TrainedOn

ENDING = ".safetensors"
BYTE = 255.0  # Caffe's images are 0..255 without division


@dataclass(frozen=True, kw_only=True)
class Import:
    """What was imported.

    Attributes:
        output: the model file.
        source: the published files whose names were taken.
        trained_on: what the weights have seen.
        mean: subtracted from images of 0..255, blue, green, red.
        conversion: what became of each layer.
        cut: what was kept of the layers that were cut down, a sentence each; see `weights.cut_down`.
        card: of the model file.
        parameters: numbers taken from the file.
    """

    output: Path
    source: str
    trained_on: TrainedOn
    mean: Mean
    conversion: Conversion
    cut: list[str]
    card: ModelCard
    parameters: int


def import_weights(
    name: str,
    file: Path,
    *,
    out: Path,
    num_classes: int | None = None,
    trunk: bool = False,
    folded: bool = False,
    mean: str | None = None,
    options: Mapping[str, Option] | None = None,
    seed: int = 0,
) -> Import:
    """Read a `.caffemodel` into a model and write the model file.

    Args:
        name: public name of the model, or an alias of it.
        file: the published weights.
        out: the `.safetensors` file to write.
        num_classes: K; None counts the outputs of the file's score layer.
        trunk: the file is an ImageNet classifier; the rest of the model keeps its initialisation.
        folded: see `convert`.
        mean: "B,G,R" of 0..255, or a `.binaryproto` file, where the published mean is not the right one.
        options: of the model; they beat those that the published file asks for.
        seed: of the initialisation and of the filters that are drawn, for a start from a classifier.

    Raises:
        RequestError: if the model has no published weights, the file cannot be read or is not this network's, or
            the number of classes or the mean is missing or contradicted.
    """
    if out.suffix != ENDING:
        raise RequestError(f"--out {out} is not a model file; accepted: a name that ends in {ENDING}. Change the name.")
    name = model_info(name).name
    published = published_weights(name)
    if not (published.trained_on or trunk):
        raise RequestError(
            f"no whole network of {name!r} was published as a Caffe model; accepted: {published.source}. Give --trunk."
        )
    check_writable(out.parent)
    net = read_caffemodel(file)
    classes = _num_classes(net, published, num_classes, trunk)
    trained_on = _trained_on(published, classes, mean, trunk, name)
    _check_channels(net, published)
    wanted: dict[str, Option] = {**published.options, **(options or {})}
    build = partial(build_from_seed, seed) if trunk else build_twin
    model = build(name, num_classes=classes, in_channels=CHANNELS, options=wanted)
    conversion = convert(net, model, published, name=name, trunk=trunk, folded=folded)
    parameters = sum(torch.Size(blob.shape).numel() for use in conversion.used for blob in net.layers[use.layer].blobs)
    cut = cut_caffe(net, conversion, published.cut if trunk else (), model.state_dict(), seed=seed)
    model.load_state_dict(conversion.tensors, assign=True)
    card = imported_card(
        name,
        model,
        num_classes=classes,
        classes=trained_on.classes,
        palette=trained_on.palette,
        ignore_index=trained_on.ignore_index,
        normalisation=normalisation(trained_on.mean),
        licence=published.licence,
        origin="; ".join([f"{file.name} ({'ImageNet' if trunk else published.source})", *cut.notes]),
        options=wanted,
    )
    save_model(out, model, card)
    return Import(
        output=out,
        source=published.source,
        trained_on=trained_on,
        mean=trained_on.mean,
        conversion=conversion,
        cut=cut.notes,
        card=card,
        parameters=parameters + sum(tensor.numel() for tensor in cut.tensors.values()),
    )


def _num_classes(net: CaffeNet, published: Published, asked: int | None, trunk: bool) -> int:
    scores = [layer for layer in net.layers.values() if published.module(layer.name) == published.score]
    if trunk or not scores:
        if asked is None:
            why = "--trunk" if trunk else f"{net.path} has no score layer {published.score!r}, so it"
            raise RequestError(
                f"{why} says nothing of the number of classes; accepted: --num-classes K. Count the classes of your "
                "data, background included."
                + ("" if trunk else " To start from an ImageNet classifier, give --trunk as well.")
            )
        return asked
    found = scores[0].blobs[0].shape[0]
    if asked not in (None, found):
        raise RequestError(
            f"--num-classes is {asked}, but layer {scores[0].name!r} of {net.path} has {found} outputs; accepted: "
            f"{found}. Leave --num-classes out."
        )
    return found


def _check_channels(net: CaffeNet, published: Published) -> None:
    for layer in net.layers.values():
        shape = layer.blobs[0].shape
        if published.module(layer.name) in published.images and len(shape) == 4 and shape[1] != CHANNELS:
            raise RequestError(
                f"{net.path} sees {shape[1]} channels in layer {layer.name!r}; accepted: {CHANNELS}, blue, green and "
                "red, as the published networks do. Give the weights of such a network."
            )


def _trained_on(published: Published, classes: int, mean: str | None, trunk: bool, name: str) -> TrainedOn:
    known = published.trained_on.get(classes)
    if trunk or known is None:
        known = TrainedOn(name="ImageNet" if trunk else "unknown", mean=published.mean, ignore_index=None)
        if mean is None and not (trunk or published.one_mean):
            raise RequestError(
                f"{name} was published for {', '.join(map(str, published.trained_on))} classes, and the file has "
                f"{classes}, so the mean of its training images is not known; accepted: --mean B,G,R of 0..255, or a "
                ".binaryproto file. Look it up where the weights come from."
            )
    if mean is None:
        return known
    return replace(known, mean=_given_mean(mean))


def _given_mean(text: str) -> Mean:
    if text.endswith(".binaryproto"):
        values = [float(value) for value in read_mean(Path(text))]
    else:
        try:
            values = [float(word) for word in text.split(",")]
        except ValueError:
            values = []
    if len(values) != 3 or not all(0 <= value <= BYTE for value in values):
        raise RequestError(
            f"--mean is {text!r}; accepted: three numbers B,G,R of 0..255, or a .binaryproto file of three channels. "
            "Give for example --mean 104.007,116.669,122.679."
        )
    return values[0], values[1], values[2]


def normalisation(mean: Mean) -> Normalisation:
    """Return "subtract a mean from 0..255, divide by nothing" for R, G, B images, from a mean in B, G, R."""
    return Normalisation(
        intensity_range=(0.0, BYTE),
        mean=tuple(value / BYTE for value in reversed(mean)),
        std=(1 / BYTE,) * len(mean),
    )
