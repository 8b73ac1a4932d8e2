"""The figures of segmentation lectures, for any semantic model and any image, on one sheet: a PNG or an HTML file.

The overview shows the image and what the network makes of it, what an output pixel sees, the filters of the first
layer, activations layer by layer, and a probability map for each class. A layer or a class can be drawn alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from pixelwise.data.images import AnyArray, read_image
from pixelwise.engine.model_file import Option
from pixelwise.engine.predict import Prediction
from pixelwise.errors import RequestError, closest
from pixelwise.files import check_writable, write_atomically
from pixelwise.report.look_decoder import Decoder
from pixelwise.report.look_figures import (
    MAX_SLICES,
    MAX_TILES,
    channel_panels,
    class_panel,
    field_panel,
    gradient_panel,
    kernel_panels,
    label_panel,
    photo_panel,
    probability_picture,
    scale_end,
    strongest_channels,
)
from pixelwise.report.look_layers import find_layers, layer_title, stages
from pixelwise.report.look_pass import (
    MAX_GRADIENT_BYTES,
    Operation,
    Reader,
    Watched,
    gradient_bytes,
    input_gradient,
)
from pixelwise.report.look_scene import Scene, measure_batch_norm, open_scene, open_target
from pixelwise.report.look_sheet import Panel, Section, Sheet, sheet_html, sheet_png

ENDINGS = (".png", ".html")
MEASURED = "Its batch normalisations were measured on this image and its mirror image."
EACH_ITSELF = "Each is drawn on its own scale, from its lowest to its highest value"


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a call drew, and what another may ask for.

    Attributes:
        output: the file.
        layers: names that `layer` accepts, in the order of the network.
        receptive_field: (height, width) in pixels of the output that sees most; None where it is the whole image.
        classes: names that `class_name` accepts, in index order.
    """

    output: Path
    layers: tuple[str, ...]
    receptive_field: tuple[int, int] | None
    classes: tuple[str, ...]


def look(
    target: str | Path,
    image: str | Path,
    *,
    out: str | Path,
    layer: str | None = None,
    class_name: str | None = None,
    num_classes: int | None = None,
    seed: int | None = None,
    options: Mapping[str, Option] | None = None,
) -> Looked:
    """Draw what a network makes of an image.

    Args:
        target: a name of `list_models()` or an alias of one, which gets random weights; or a run folder or model file.
        image: an image file; of one larger than 1024 x 1024 pixels the middle is shown.
        out: the file to write, .png or .html.
        layer: draw all channels of this layer instead of the overview; a name of the layer table.
        class_name: draw the probabilities of this class, a name or an index, instead of the overview.
        num_classes: K of an untrained model; None is 2.
        seed: of the weights of an untrained model; None is 0.
        options: the untrained model's own options.

    Raises:
        RequestError: for an unknown model, layer or class, an image that does not fit, or another ending.
        WorkError: if the file cannot be written.
    """
    path, source = Path(out), Path(image)
    check_out(path, source)
    array = read_image(source)
    opened = open_target(target, array, num_classes=num_classes, seed=seed, options=options or {})
    scene = open_scene(opened.segmenter, array)
    rows = [] if layer is None else find_layers(scene.layers, layer, model=scene.card.model)
    index = None if class_name is None else _find_class(scene.card.classes, class_name)
    check_writable(path.parent)
    measured = not opened.trained and measure_batch_norm(scene)
    sheet = Sheet(
        title=f"{scene.card.model} · {source.name}",
        facts=[opened.origin, *([MEASURED] if measured else []), *_size_facts(scene, array)],
        sections=_sections(scene, rows, index),
    )
    write_atomically(path, sheet_png(sheet) if path.suffix.lower() == ".png" else sheet_html(sheet))
    return Looked(
        output=path,
        layers=tuple(scene.labels),
        receptive_field=scene.place(len(scene.layers) - 1).field,
        classes=scene.card.classes,
    )


def check_out(path: Path, image: Path) -> None:
    """Refuse an output of another ending, a folder, or the image itself."""
    if path.suffix.lower() not in ENDINGS:
        raise RequestError(
            f"out is {str(path)!r}; accepted: a file name that ends in {' or '.join(ENDINGS)}. Give it such an ending."
        )
    if path.is_dir() or path.resolve() == image.resolve():
        what = "a folder" if path.is_dir() else "the image itself"
        raise RequestError(f"out {str(path)!r} is {what}; accepted: a new file, or an older figure. Choose another.")


def _find_class(classes: Sequence[str], wanted: str) -> int:
    if wanted in classes:
        return classes.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(classes):
        return int(wanted)
    shown = ", ".join(classes[:30]) + (f" and {len(classes) - 30} more" if len(classes) > 30 else "")
    raise RequestError(
        f"class {wanted!r} is not one of the {len(classes)} classes; closest: {closest(wanted, classes)}.\n"
        f"Accepted: a number from 0 to {len(classes) - 1}, or a name: {shown}. Give one of these."
    )


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def _size_facts(scene: Scene, image: AnyArray) -> list[str]:
    """Say which pixels are shown and what the network saw of them."""
    window, card = scene.window.shape[:2], scene.card
    facts = []
    if window != image.shape[:2] and scene.rule.maximum is not None:
        facts.append(
            f"The image has {_by(image.shape[:2])} pixels. The network saw all of it shrunk to {_by(window)}: it takes "
            f"{scene.rule.maximum} x {scene.rule.maximum} at most."
        )
    elif window != image.shape[:2]:
        facts.append(
            f"The image has {_by(image.shape[:2])} pixels. Its middle, {_by(window)} pixels, is shown, and is all that "
            "the network saw."
        )
    seen = f"The network saw {_by(scene.input_size)} pixels of {card.in_channels} "
    seen += "channels" if card.in_channels > 1 else "channel"
    if card.scale != 1:
        seen += f"; the image was scaled by {card.scale:g}, as in training"
    if scene.input_size != scene.view.size:
        seen += f"; the {_by(scene.view.size)} of the image are shown, the rest is a border that mirrors it"
    return [*facts, f"{seen}."]


def _sections(scene: Scene, rows: Sequence[int], class_index: int | None) -> list[Section]:
    """Run the model and draw what was asked for: layers, a class, or the overview."""
    overview = not rows and class_index is None
    drawn = stages(scene.layers, scene.strides) if overview else rows
    decoder = Decoder(scene, None if overview else rows)
    gathered = decoder.readers()
    readers = {
        row: partial(_read, gathered.get(row, []), partial(_maps, scene, row, strongest=overview, drawn=row in drawn))
        for row in {*drawn, *gathered}
    }
    watched = scene.predict(readers)
    if overview:
        return [
            _summary(scene, watched),
            _filters(scene),
            *_activations(scene, {row: watched.seen[row] for row in drawn}),
            *decoder.sections(),
            _probabilities(scene, watched.prediction),
        ]
    sections = [section for row in rows for section in _layer(scene, row, watched.seen[row])]
    sections += decoder.of_layers(rows)
    return sections if class_index is None else [*sections, _class(scene, watched.prediction, class_index)]


def _read(gather: Sequence[Reader[None]], draw: Reader[list[Panel]], operation: Operation) -> list[Panel]:
    for reader in gather:
        reader(operation)
    return draw(operation)


def _maps(scene: Scene, row: int, operation: Operation, *, strongest: bool, drawn: bool) -> list[Panel]:
    """Draw the first channels of a layer's output (C, h, w), or the strongest ones; none of a row that is only read."""
    if not drawn:
        return []
    output = operation.output
    maps = (output if output.ndim == 3 else output.reshape(-1, 1, 1)).numpy()
    channels = strongest_channels(maps) if strongest else list(range(min(MAX_TILES, len(maps))))
    return channel_panels(maps, channels, scene.place(row), scene.view, 8 if strongest else _columns(len(channels)))


def _columns(panels: int) -> int:
    """Return how many of so many panels stand side by side, so that few are large."""
    return next(columns for columns, most in ((2, 2), (4, 8), (8, 40), (12, panels)) if panels <= most)


def _summary(scene: Scene, watched: Watched[list[Panel]]) -> Section:
    """Draw the image, the predicted classes and what an output pixel sees."""
    prediction, columns = watched.prediction, 4
    last = len(scene.layers) - 1
    unit = scene.central_unit(last)
    panels = [
        photo_panel(scene.view, "image", columns),
        label_panel(scene.view, prediction.labels, prediction.palette, "predicted classes, colours as below", columns),
        field_panel(scene.view, unit, "the marked output pixel", columns, whole=scene.place(last).field is None),
    ]
    needed = gradient_bytes(scene.layers, watched.batch, unit.spans, scene.rule)
    note = ""
    if needed <= MAX_GRADIENT_BYTES:
        gradient = input_gradient(scene.segmenter.model, watched.batch, position=unit.position, spans=unit.spans)
        panels.append(gradient_panel(gradient, scene.view, unit.spans, scene.card.classes, columns))
    else:
        note = f"The effective receptive field is left out: its pass would need {needed / 2**30:.1f} GB."
    return Section(title="Image, prediction and receptive field", note=note, panels=panels, columns=columns)


def _filters(scene: Scene) -> Section:
    """Draw the kernels of the first convolution."""
    title = "Filters of the first layer"
    first = next((row for row, layer in enumerate(scene.layers) if layer.kind == "convolution"), None)
    module = None if first is None else scene.segmenter.model.get_submodule(scene.layers[first].name)
    weight = getattr(module, "weight", None)
    if first is None or not isinstance(weight, Tensor) or weight.ndim != 4:
        return Section(title=title, note="The model has no convolution with kernels of its own.")
    panels, columns = kernel_panels(weight.detach().float().cpu().numpy())
    count, channels = weight.shape[:2]
    shown = f"the first {len(panels)} of {count} kernels" if len(panels) < count else f"{count} kernels"
    slices = f"the first {MAX_SLICES} of {channels}" if channels > MAX_SLICES else f"the {channels}"
    how = {
        1: "as grey values",
        3: "as colours, the weights for red, green and blue",
    }.get(channels, f"as grey values, {slices} channels side by side")
    note = f"{scene.labels[first]}: {shown} of {_by(weight.shape[2:])} weights, drawn {how}. {EACH_ITSELF}."
    return Section(title=title, note=note, panels=panels, columns=columns)


def _activations(scene: Scene, seen: Mapping[int, list[Panel]]) -> list[Section]:
    """Draw a row of maps for each stage."""
    note = (
        "From input to output, the channels of each stage whose values vary most over the image, most first. "
        f"{EACH_ITSELF}, and where its units lie on the image."
    )
    head = Section(title="Activations, layer by layer", note=note, scale=("lowest", "highest"))
    parts = [
        Section(
            title=layer_title(scene.layers, scene.labels, row),
            note=_layer_facts(scene, row),
            panels=panels,
            columns=8,
            part=True,
        )
        for row, panels in sorted(seen.items())
    ]
    return [head, *parts]


def _layer_facts(scene: Scene, row: int) -> str:
    layer, place = scene.layers[row], scene.place(row)
    stride = " x ".join(f"{step:g}" for step in dict.fromkeys(place.stride))
    field = "receptive field: the whole image" if place.field is None else f"receptive field {_by(place.field)}"
    channels = f"{layer.shape[0]} channel{'s' if layer.shape[0] > 1 else ''}"
    return f"{layer.kind} · {channels} of {_by(layer.shape[1:]) or '1 x 1'} · stride {stride} · {field}"


def _probabilities(scene: Scene, prediction: Prediction) -> Section:
    """Draw the probability map of each class."""
    count = min(scene.card.num_classes, MAX_TILES)
    columns = _columns(count) if count > 2 else 4
    maps = prediction.probabilities[:count].cpu().numpy()
    panels, end = [], scale_end(maps)
    for index, values in enumerate(maps):
        share = f"{scene.card.classes[index]} · {(prediction.labels == index).mean():.1%}"
        color = scene.card.palette[index]
        panels.append(Panel(picture=probability_picture(values, columns, end=end), caption=share, color=color))
    note = "All maps are on one scale. Beside a name: the share of the pixels where the class is the most probable one."
    if count < scene.card.num_classes:
        note += f" The first {count} of {scene.card.num_classes} classes are drawn."
    scale = ("probability 0", f"{end:g}")
    return Section(title="Class probabilities", note=note, panels=panels, columns=columns, scale=scale)


def _layer(scene: Scene, row: int, panels: list[Panel]) -> list[Section]:
    """Draw what a unit of a layer sees, and the layer's channels."""
    label, channels = scene.labels[row], scene.layers[row].shape[0]
    shown = f"The first {len(panels)} of {channels} channels." if len(panels) < channels else "All channels."
    columns = _columns(len(panels))
    unit, whole = scene.central_unit(row), scene.place(row).field is None
    field = [
        photo_panel(scene.view, "image", 4),
        field_panel(scene.view, unit, "the marked unit", 4, whole=whole),
    ]
    return [
        Section(title=f"Layer {label}", note=_layer_facts(scene, row), panels=field, columns=4),
        Section(
            title=f"Channels of {label}",
            note=f"{shown} {EACH_ITSELF}, and where its units lie on the image.",
            panels=panels,
            columns=columns,
            scale=("lowest", "highest"),
        ),
    ]


def _class(scene: Scene, prediction: Prediction, index: int) -> Section:
    """Draw one class large: its probabilities alone and on the image, and where it wins."""
    name, color, columns = scene.card.classes[index], scene.card.palette[index], 2
    values = prediction.probabilities[index].cpu().numpy()
    wins, end = prediction.labels == index, scale_end(values)
    alone = Panel(
        picture=probability_picture(values, columns, end=end),
        caption=f"probability: {values.min():.3f} to {values.max():.3f}, on average {values.mean():.3f}",
    )
    where = f"where {name} is the most probable class: {wins.mean():.1%} of the pixels"
    return Section(
        title=f"Class {name}",
        panels=[
            photo_panel(scene.view, "image", columns),
            alone,
            class_panel(scene.view, values, color, columns),
            label_panel(scene.view, np.where(wins, 0, -1), [color], where, columns),
        ],
        columns=columns,
        scale=("probability 0", f"{end:g}"),
    )
