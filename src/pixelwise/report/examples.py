"""Images with their labels and predictions, as pictures inside the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

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
from pixelwise.report.page import LegendEntry, jpeg_uri
from pixelwise.report.tables import Classes, css, percent

Group = Literal["best", "worst"]

MAX_EXAMPLES = 4  # in a group
MAX_PICTURE_WIDTH = 480
MAX_PICTURE_HEIGHT = 720
# Bytes of a picture: photographs take a fifth. What is above, such as noise, loses quality or size, so that a report
# stays below 15 MB even of an untrained model's predictions.
MAX_PHOTO_BYTES = 180_000
MAX_LABEL_BYTES = 120_000
# The legend below the pictures names every class up to this number, beyond it only those to be seen.
MAX_FULL_LEGEND = 20
SMALLEST_SEEN = 0.002  # share of a picture


@dataclass(frozen=True, kw_only=True)
class Example:
    """An image with its labels and what the model made of it.

    Attributes:
        name: Name of the item.
        image: uint8 (H, W, 3) RGB; other images are brought to that by `pictures.to_display`.
        truth: (H, W) class indices, may hold the ignore index of the data card.
        prediction: (H, W) class indices.
        score: Mean IoU of this image, 0 to 1; NaN where it has none.
        group: where it is shown whole; None for confusions alone.

    Raises:
        RequestError: If the three arrays differ in height or width.
    """

    name: str
    image: NDArray[np.uint8]
    truth: LabelMap
    prediction: LabelMap
    score: float
    group: Group | None = None

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


def example_row(example: Example, classes: Classes) -> ExampleRow:
    """Return input, truth, prediction and errors of one example."""
    size = fit_size(*example.truth.shape, max_height=MAX_PICTURE_HEIGHT, max_width=MAX_PICTURE_WIDTH)
    image = shrink_image(to_display(example.image), size)
    truth, prediction = shrink_labels(example.truth, size), shrink_labels(example.prediction, size)
    errors = error_map(truth, prediction, classes.ignore_index, num_classes=len(classes.names), image=image)
    wrong = _wrong_share(example, classes.ignore_index)
    name = example.name
    pictures = [
        photo(image, "Input", f"Input image {name}"),
        label_picture(
            colorize(truth, classes.palette, outside=classes.outside),
            "Truth",
            f"True classes of {name}: {_top_classes(example.truth, classes)}",
        ),
        label_picture(
            colorize(prediction, classes.palette, outside=classes.outside),
            "Prediction",
            f"Predicted classes of {name}: {_top_classes(example.prediction, classes)}",
        ),
        photo(errors, f"Errors: {wrong}", f"Map of the errors in {name}: {wrong}"),
    ]
    score = percent(example.score if np.isfinite(example.score) else None)
    return ExampleRow(name=name, score=score, pictures=pictures)


def _wrong_share(example: Example, ignore_index: int | None) -> str:
    """Say how much of an example is wrong, at full size and without ignored pixels."""
    scored = np.ones(example.truth.shape, dtype=bool) if ignore_index is None else example.truth != ignore_index
    if not scored.any():
        return "no labelled pixels"
    return f"{percent(float((example.truth != example.prediction)[scored].mean()))} of the pixels wrong"


def _top_classes(labels: LabelMap, classes: Classes, count: int = 3) -> str:
    """Name the classes that cover most of a label map, for people who cannot see it."""
    values, pixels = _counted(labels)
    order = np.argsort(-pixels, kind="stable")[:count]
    parts = []
    for value, number in zip(values[order], pixels[order], strict=True):
        name = classes.names[value] if 0 <= value < len(classes.names) else "ignored"
        parts.append(f"{name} {percent(number / labels.size, 0)}")
    return ", ".join(parts)


def _counted(labels: LabelMap) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return the labels that occur, and the pixels of each; counting is far faster than sorting."""
    if labels.dtype.kind != "u":
        return np.unique(labels, return_counts=True)
    pixels = np.bincount(labels.ravel())
    values = np.flatnonzero(pixels)
    return values, pixels[values]


def photo(picture: Picture, caption: str, alternative: str) -> InlinePicture:
    """Encode a picture as JPEG."""
    source = jpeg_uri(picture, quality=85, limit=MAX_PHOTO_BYTES)
    return _inline(source, caption, alternative, picture.shape, is_label_map=False)


def label_picture(picture: Picture, caption: str, alternative: str) -> InlinePicture:
    """Encode a painted label map without loss; one that is too large is halved in size."""
    shown = picture
    content = _png(shown)
    while len(content) > MAX_LABEL_BYTES:
        shown = np.ascontiguousarray(shown[::2, ::2])
        content = _png(shown)
    source = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return _inline(source, caption, alternative, picture.shape, is_label_map=True)


def _inline(
    source: str, caption: str, alternative: str, shape: tuple[int, ...], *, is_label_map: bool
) -> InlinePicture:
    return InlinePicture(
        source=source,
        caption=caption,
        alternative=alternative,
        width=shape[1],
        height=shape[0],
        is_label_map=is_label_map,
    )


def _png(picture: Picture) -> bytes:
    """Encode a painted label map, with one byte a pixel where it has at most 256 colours."""
    packed = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)  # (H, W)
    colors, index = np.unique(packed, return_inverse=True)
    image = Image.fromarray(picture)
    if len(colors) <= 256:
        image = Image.fromarray(index.reshape(packed.shape).astype(np.uint8))
        image.putpalette(b"".join(int(color).to_bytes(3, "big") for color in colors))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def labels_seen(*label_maps: LabelMap) -> set[int]:
    """Return the labels that are large enough in any of the maps to be seen."""
    seen: set[int] = set()
    for labels in label_maps:
        values, pixels = _counted(labels)
        seen.update(values[pixels >= SMALLEST_SEEN * labels.size].tolist())
    return seen


def class_legend(seen: Iterable[int], classes: Classes) -> list[LegendEntry]:
    """Return the colours of the classes: all, or of many only those to be seen; ignored pixels last."""
    count, labels = len(classes.names), set(seen)
    indices = range(count) if count <= MAX_FULL_LEGEND else sorted(labels & set(range(count)))
    entries = [LegendEntry(name=classes.names[index], color=css(classes.palette[index])) for index in indices]
    if any(not 0 <= label < count for label in labels):
        entries.append(LegendEntry(name="ignored", color=css(classes.outside)))
    return entries


def error_legend(classes: Classes) -> list[LegendEntry]:
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
