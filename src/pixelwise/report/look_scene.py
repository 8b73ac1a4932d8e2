"""A model before an image: where its weights come from, its layer table at the image's size, and its passes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from pixelwise.data.images import AnyArray, as_channels
from pixelwise.data.normalise import Normalisation, resize_image, scaled_size
from pixelwise.data.pictures import default_palette, to_display
from pixelwise.engine.layer_table import Layer, layer_table
from pixelwise.engine.model_file import ModelCard, Option, build_model, build_twin
from pixelwise.engine.passes import shrink_within
from pixelwise.engine.precise_batch_norm import measure_statistics
from pixelwise.engine.predict import Segmenter, default_device, load_segmenter
from pixelwise.engine.tiles import mirror, plan_spans
from pixelwise.errors import RequestError, closest
from pixelwise.models import known_names, model_info
from pixelwise.report.look_figures import View
from pixelwise.report.look_layers import Place, Unit, central_unit, layer_labels, place_of, unit_strides
from pixelwise.report.look_pass import Reader, Watched, run_watched, watch
from pixelwise.structures import SizeRule, size_rule_of

MAX_SIDE = 1024  # of what one pass sees, in pixels at the network's scale

Seen = TypeVar("Seen")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model that is ready for images.

    Attributes:
        segmenter: model and card.
        origin: where its weights come from, in a sentence.
        trained: whether they are more than a beginning.
    """

    segmenter: Segmenter
    origin: str
    trained: bool


def open_target(
    target: str | Path,
    image: AnyArray,
    *,
    num_classes: int | None,
    seed: int | None,
    options: Mapping[str, Option],
    tasks: Sequence[str] = ("semantic",),
) -> Target:
    """Load a run, or build a model of the catalogue for an image (H, W, C), of one of the tasks; see `look`."""
    name, exists = str(target), Path(target).exists()
    is_name = isinstance(target, str) and name in known_names()
    if is_name and exists:
        raise RequestError(
            f"{name!r} is a model's name and a path here; accepted: one of them. Write ./{name} for the path, or call "
            "from another folder for the model."
        )
    if not is_name and not exists:
        raise RequestError(
            f"{name!r} is no model and no path; accepted: a name of `pixelwise models` (closest: "
            f"{closest(name, known_names())}), a run folder or a model file. Correct it."
        )
    if is_name:
        classes = 2 if num_classes is None else num_classes
        _check_task(model_info(name).name, tasks)
        return _untrained(model_info(name).name, image, num_classes=classes, seed=seed or 0, options=options)
    own = {"num_classes": num_classes, "seed": seed, "options": options or None}
    given = [f"{key}={value}" for key, value in own.items() if value is not None]
    if given:
        raise RequestError(
            f"{', '.join(given)} is given with the run {name}, which has its own; accepted: only with a model's name. "
            "Leave it out."
        )
    return _trained(Path(target), tasks)


def _trained(path: Path, tasks: Sequence[str]) -> Target:
    segmenter = load_segmenter(path)
    card = segmenter.card
    _check_task(card.model, tasks)
    assert isinstance(segmenter, Segmenter)
    segmenter.model.requires_grad_(False).to(memory_format=torch.contiguous_format)
    score = card.metrics.get("miou")
    words = "" if score is None else f"; mean IoU {score:.4f} on its validation images"
    origin = f"Trained: weights of iteration {card.iteration}{words}."
    return Target(segmenter=segmenter, origin=origin, trained=True)


def _untrained(name: str, image: AnyArray, *, num_classes: int, seed: int, options: Mapping[str, Option]) -> Target:
    """Build a model with random weights: with its own number of channels if the image can have it, else the image's."""
    own = int(inspect.signature(model_info(name).build).parameters["in_channels"].default)
    channels = own if image.shape[2] in (1, own) else image.shape[2]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(name, num_classes=num_classes, in_channels=channels, options=options)
    model.eval().requires_grad_(False).to(default_device())
    card = ModelCard(
        pixelwise=version("pixelwise"),
        model=name,
        options=dict(options),
        num_classes=num_classes,
        in_channels=channels,
        classes=tuple(f"class {index}" for index in range(num_classes)),
        palette=tuple((r, g, b) for r, g, b in default_palette(num_classes)),
        ignore_index=None,
        normalisation=_own_normalisation(image, channels),
        scale=1.0,
        input_rule=size_rule_of(model).describe(),
        licence=None,
        iteration=0,
        metrics={},
    )
    origin = (
        f"Untrained: random weights, seed {seed}. The figures show how the network is built, not what it has learnt."
    )
    return Target(segmenter=Segmenter(model=model, card=card), origin=origin, trained=False)


def _own_normalisation(image: AnyArray, channels: int) -> Normalisation:
    """Return the image's own mean and deviation as the normalisation."""
    high = {"u1": 255.0, "u2": 65535.0}.get(image.dtype.str[1:], 1.0)
    return Normalisation(intensity_range=(0.0, high), mean=(0.0,) * channels, std=(1.0,) * channels, per_image=True)


def _check_task(name: str, tasks: Sequence[str]) -> None:
    task = model_info(name).task
    if task not in tasks:
        raise RequestError(
            f"{name} is a model for {task} output; accepted: {' and '.join(tasks)} models. "
            f"`pixelwise models --task {tasks[0]}` lists them."
        )


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A model and an image that it sees in one pass.

    Attributes:
        segmenter: the model.
        window: the image (H, W, C), or its middle.
        view: the same as a picture, and where it lies in the input.
        input_size: (height, width) of the network's input, borders included.
        layers: the layer table at that size.
        labels: a name for each row.
        strides: distance of neighbouring units of each row, in input pixels (height, width).
    """

    segmenter: Segmenter
    window: AnyArray
    view: View
    input_size: tuple[int, int]
    layers: list[Layer]
    labels: list[str]
    strides: list[tuple[float, float]]

    @property
    def card(self) -> ModelCard:
        """Return the model's card."""
        return self.segmenter.card

    @property
    def rule(self) -> SizeRule:
        """Return the sizes that the model accepts."""
        return size_rule_of(self.segmenter.model)

    def place(self, row: int) -> Place:
        """Return where the units of a layer lie; those of the last one are pixels of the input within the margin."""
        if row < len(self.layers) - 1:
            return place_of(self.layers, row, stride=self.strides[row], period=self.rule.period)
        margin = float(self.rule.margin)
        place = place_of(self.layers, row, stride=(1.0, 1.0), period=self.rule.period)
        return replace(place, origin=(margin, margin))

    def central_unit(self, row: int) -> Unit:
        """Return a layer's unit at the middle of the image."""
        middle = (self.view.top + self.view.size[0] / 2, self.view.left + self.view.size[1] / 2)
        return central_unit(self.layers, row, self.place(row), centre=middle, input_size=self.input_size)

    def batch(self) -> Tensor:
        """Return the network's input, float32 (1, C, H, W), on its device."""
        channels = as_channels(self.window, self.card.in_channels, "the image")
        unit = self.card.normalisation(resize_image(channels, self.card.scale))
        rows, columns = (plan_spans(side, self.rule, tile=None, halo=0)[0] for side in unit.shape[:2])
        device = next(self.segmenter.model.parameters()).device
        return torch.from_numpy(mirror(unit, rows, columns)).to(device).permute(2, 0, 1)[None].contiguous()

    def run(self, readers: Mapping[int, Reader[Seen]]) -> dict[int, Seen]:
        """Run the model, whatever its task, with some layers read or changed on the way."""
        return run_watched(self.segmenter.model, self.batch(), readers, rows=len(self.layers))

    def predict(self, readers: Mapping[int, Reader[Seen]]) -> Watched[Seen]:
        """Run the model, some of its layers watched."""
        return watch(self.segmenter, self.window, readers, rows=len(self.layers))


def open_scene(segmenter: Segmenter, image: AnyArray) -> Scene:
    """Set a model before an image (H, W, C), of which one too large for one pass gives its middle.

    A model with a largest input sees a larger image shrunk to it, as in `predict`.
    """
    window = _window(image, segmenter)
    card, rule = segmenter.card, size_rule_of(segmenter.model)
    height, width = scaled_size((window.shape[0], window.shape[1]), card.scale)
    rows, columns = (plan_spans(side, rule, tile=None, halo=0)[0] for side in (height, width))
    size = rows.size, columns.size
    twin = build_twin(card.model, num_classes=card.num_classes, in_channels=card.in_channels, options=card.options)
    layers = layer_table(twin, in_channels=card.in_channels, input_size=size)
    return Scene(
        segmenter=segmenter,
        window=window,
        view=View(
            picture=to_display(window if rule.maximum is None else image),
            size=(height, width),
            top=-rows.start,
            left=-columns.start,
        ),
        input_size=size,
        layers=layers,
        labels=layer_labels(layers),
        strides=unit_strides(layers, size),
    )


def measure_batch_norm(scene: Scene) -> bool:
    """Measure an untrained model's batch normalisations on the image and its mirror image, if it has any.

    With the statistics that they start with, activations of a deep network die out. Two images, since a layer may
    have a single value of each. A channel that is constant has nothing to be normalised but its rounding errors, which
    grow from layer to layer: it keeps a variance of 1.
    """
    model = scene.segmenter.model
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not layers:
        return False
    batch = scene.batch()
    measure_statistics(model, [torch.cat([batch, batch.flip(3)])])
    for layer in layers:
        assert layer.running_var is not None
        layer.running_var.masked_fill_(layer.running_var <= layer.eps, 1)
    return True


def _window(image: AnyArray, segmenter: Segmenter) -> AnyArray:
    maximum, scale = size_rule_of(segmenter.model).maximum, segmenter.card.scale
    if maximum is not None:
        return shrink_within(image, max(1, int(maximum / scale)))
    side = max(1, int(MAX_SIDE / scale))
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]
