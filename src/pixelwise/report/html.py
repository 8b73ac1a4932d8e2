"""The report of a training run: one HTML file that needs nothing else.

It is made from the files of the run folder alone (and example pictures), without a date, so that writing
it again gives the same bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.pictures import (
    FALSE_NEGATIVE_COLOR,
    FALSE_POSITIVE_COLOR,
    RIGHT_COLOR,
    WRONG_COLOR,
    LabelMap,
    Picture,
    colorize,
    error_map,
    fit_size,
    shrink_image,
    shrink_labels,
    to_display,
)
from pixelwise.errors import RequestError
from pixelwise.files import write_atomically
from pixelwise.report.curves import FRAME, training_curves
from pixelwise.report.run_files import RunFiles, as_words, read_run
from pixelwise.report.tables import (
    Classes,
    Fact,
    class_rows,
    confusion_matrix,
    css,
    data_summary,
    find_classes,
    headline,
    percent,
)

REPORT_NAME = "report.html"
TEMPLATE_NAME = "report.html.j2"
# Four pictures an example, about 150 kB together on photographs: these limits keep the file near 3 MB, and
# below 15 MB where an untrained model's predictions are noise, which does not compress.
MAX_EXAMPLES = 8
MAX_PICTURE_WIDTH = 480
MAX_PICTURE_HEIGHT = 720
# The legend below the pictures names every class up to this number, beyond it only those to be seen.
MAX_FULL_LEGEND = 20


@dataclass(frozen=True, kw_only=True)
class Example:
    """An image with its labels and what the model made of it.

    Attributes:
        name: Stem of the image's file name.
        image: uint8 (H, W, 3) RGB; other images are brought to that by `pictures.to_display`.
        truth: (H, W) class indices, may hold the ignore index of the data card.
        prediction: (H, W) class indices.
        score: Mean IoU of this image, 0 to 1; NaN where it has none.

    Raises:
        RequestError: If the three arrays differ in height or width.
    """

    name: str
    image: NDArray[np.uint8]
    truth: LabelMap
    prediction: LabelMap
    score: float

    def __post_init__(self) -> None:
        sizes = self.image.shape[:2], self.truth.shape, self.prediction.shape
        if len(set(sizes)) > 1:
            raise RequestError(
                f"example {self.name!r}: image {sizes[0]}, truth {sizes[1]} and prediction {sizes[2]} must "
                "have one height and width. Give them at the size of the labels."
            )


@dataclass(frozen=True, kw_only=True)
class InlinePicture:
    """A picture as a data URI, with the words for it."""

    source: str
    caption: str
    alternative: str
    width: int
    height: int
    is_label_map: bool


@dataclass(frozen=True, kw_only=True)
class ExampleRow:
    """The four pictures of one example."""

    name: str
    score: str
    pictures: list[InlinePicture]


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """A colour and what it means; ignored pixels are hatched in the error map."""

    name: str
    color: str
    hatched: bool = False


def write_report(run: Path, *, best: Sequence[Example], worst: Sequence[Example], no_examples: str = "") -> Path:
    """Write `report.html` into a run folder.

    What the run folder lacks is named in the section that would show it. The file appears at once and
    whole: it is written under a temporary name first.

    Args:
        run: The run folder.
        best: Examples with the highest scores, best first; at most 8.
        worst: Examples with the lowest scores, worst first; at most 8.
        no_examples: Why there are none, shown in their place.

    Returns:
        The path of the report.

    Raises:
        RequestError: If `run` is no folder, or there are more examples than a report holds.
        WorkError: If the file cannot be written.
    """
    if not run.is_dir():
        raise RequestError(f"{run} is not a folder: a report is made from a run folder. Give the folder of a run.")
    for name, examples in (("best", best), ("worst", worst)):
        if len(examples) > MAX_EXAMPLES:
            raise RequestError(
                f"{name} has {len(examples)} examples: a report holds at most {MAX_EXAMPLES}. Give fewer."
            )
    target = run / REPORT_NAME
    write_atomically(target, render_report(read_run(run), best=best, worst=worst, no_examples=no_examples))
    return target


def render_report(files: RunFiles, *, best: Sequence[Example], worst: Sequence[Example], no_examples: str = "") -> str:
    """Return the report as HTML; arguments as for `write_report`."""
    examples = [*best, *worst]
    classes = find_classes(files, _highest_label(files, examples))
    return (
        _environment()
        .get_template(TEMPLATE_NAME)
        .render(
            headline=headline(files),
            curves=training_curves(files),
            frame=FRAME,
            class_rows=class_rows(files.metrics, classes),
            matrix=confusion_matrix(files.metrics, classes),
            groups=[
                ("Best images", _example_rows(best, classes)),
                ("Worst images", _example_rows(worst, classes)),
            ],
            no_examples=no_examples or "No example images were given for this report.",
            legend=_class_legend(examples, classes),
            error_legend=_error_legend(classes),
            data=data_summary(files, classes),
            config_text=files.config_text,
            environment=[Fact(name=key, text=as_words(value)) for key, value in files.environment.items()],
            problems=files.problems,
        )
    )


def _environment() -> jinja2.Environment:
    """Return the template engine; it escapes everything, and an unknown name is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _highest_label(files: RunFiles, examples: Sequence[Example]) -> int:
    """Return the highest class index in the examples; -1 if the classes are known or there are none."""
    if files.card.get("classes"):
        return -1
    ignore = find_classes(files).ignore_index
    highest = -1
    for example in examples:
        for labels in (example.truth, example.prediction):
            scored = labels[labels != ignore] if ignore is not None else labels
            highest = max(highest, int(scored.max())) if scored.size else highest
    return highest


def _example_rows(examples: Sequence[Example], classes: Classes) -> list[ExampleRow]:
    """Return the pictures of the examples."""
    rows = []
    for example in examples:
        score = percent(example.score if np.isfinite(example.score) else None)
        rows.append(ExampleRow(name=example.name, score=score, pictures=_pictures(example, classes)))
    return rows


def _pictures(example: Example, classes: Classes) -> list[InlinePicture]:
    """Return input, truth, prediction and errors of one example."""
    size = fit_size(*example.truth.shape, max_height=MAX_PICTURE_HEIGHT, max_width=MAX_PICTURE_WIDTH)
    image = shrink_image(to_display(example.image), size)
    truth, prediction = shrink_labels(example.truth, size), shrink_labels(example.prediction, size)
    errors = error_map(truth, prediction, classes.ignore_index, num_classes=len(classes.names), image=image)
    wrong = _wrong_share(example, classes.ignore_index)
    name = example.name
    return [
        _inline(image, "Input", f"Input image {name}", is_label_map=False),
        _inline(
            colorize(truth, classes.palette, outside=classes.outside),
            "Truth",
            f"True classes of {name}: {_top_classes(example.truth, classes)}",
            is_label_map=True,
        ),
        _inline(
            colorize(prediction, classes.palette, outside=classes.outside),
            "Prediction",
            f"Predicted classes of {name}: {_top_classes(example.prediction, classes)}",
            is_label_map=True,
        ),
        _inline(errors, f"Errors: {wrong}", f"Map of the errors in {name}: {wrong}", is_label_map=False),
    ]


def _wrong_share(example: Example, ignore_index: int | None) -> str:
    """Say how much of an example is wrong, at full size and without ignored pixels."""
    scored = np.ones(example.truth.shape, dtype=bool) if ignore_index is None else example.truth != ignore_index
    if not scored.any():
        return "no labelled pixels"
    return f"{percent(float((example.truth != example.prediction)[scored].mean()))} of the pixels wrong"


def _top_classes(labels: LabelMap, classes: Classes, count: int = 3) -> str:
    """Name the classes that cover most of a label map, for people who cannot see it."""
    values, pixels = np.unique(labels, return_counts=True)
    order = np.argsort(-pixels, kind="stable")[:count]
    parts = []
    for value, number in zip(values[order], pixels[order], strict=True):
        name = classes.names[value] if 0 <= value < len(classes.names) else "ignored"
        parts.append(f"{name} {percent(number / labels.size, 0)}")
    return ", ".join(parts)


def _inline(picture: Picture, caption: str, alternative: str, *, is_label_map: bool) -> InlinePicture:
    """Encode a picture: label maps without loss, photographs as JPEG."""
    buffer = io.BytesIO()
    if is_label_map:
        _indexed(picture).save(buffer, "PNG", optimize=True)
    else:
        # Full colour resolution: the usual halving would smear the thin coloured errors. No `optimize`: with
        # it Pillow's buffer is too small for noisy pictures ("encoder error -2").
        Image.fromarray(picture).save(buffer, "JPEG", quality=85, subsampling=0)
    kind = "png" if is_label_map else "jpeg"
    return InlinePicture(
        source=f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}",
        caption=caption,
        alternative=alternative,
        width=picture.shape[1],
        height=picture.shape[0],
        is_label_map=is_label_map,
    )


def _indexed(picture: Picture) -> Image.Image:
    """Return a painted label map with one byte a pixel where it has at most 256 colours."""
    packed = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)  # (H, W)
    colors, index = np.unique(packed, return_inverse=True)
    if len(colors) > 256:
        return Image.fromarray(picture)
    image = Image.fromarray(index.reshape(packed.shape).astype(np.uint8))
    image.putpalette(b"".join(int(color).to_bytes(3, "big") for color in colors))
    return image


def _class_legend(examples: Sequence[Example], classes: Classes) -> list[LegendEntry]:
    """Return the colours of the classes: all, or of many only those to be seen; ignored pixels last."""
    seen: set[int] = set()
    for example in examples:
        seen |= {int(v) for labels in (example.truth, example.prediction) for v in np.unique(labels)}
    count = len(classes.names)
    indices = range(count) if count <= MAX_FULL_LEGEND else sorted(seen & set(range(count)))
    entries = [LegendEntry(name=classes.names[index], color=css(classes.palette[index])) for index in indices]
    if any(not 0 <= label < count for label in seen):
        entries.append(LegendEntry(name="ignored", color=css(classes.outside)))
    return entries


def _error_legend(classes: Classes) -> list[LegendEntry]:
    """Return the colours of the error maps."""
    entries = [LegendEntry(name="right (image shown dim)", color=css(RIGHT_COLOR))]
    if len(classes.names) == 2:
        positive = classes.names[1]
        entries += [
            LegendEntry(name=f"false positive: {positive} predicted, not there", color=css(FALSE_POSITIVE_COLOR)),
            LegendEntry(name=f"false negative: {positive} missed", color=css(FALSE_NEGATIVE_COLOR)),
        ]
    else:
        entries.append(LegendEntry(name="wrong class", color=css(WRONG_COLOR)))
    if classes.ignore_index is not None:
        entries.append(LegendEntry(name="ignored, not scored", color="", hatched=True))
    return entries
