"""What CRFs make of the same probabilities, side by side: scores, and pictures of a few images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pixelwise.data.images import AnyArray
from pixelwise.data.pictures import LabelMap, colorize, fit_size, shrink_image, shrink_labels, to_display
from pixelwise.engine.crf_tally import KEY, NONE
from pixelwise.report.card_tables import amount
from pixelwise.report.examples import MAX_PICTURE_HEIGHT, MAX_PICTURE_WIDTH, InlinePicture, label_picture, photo
from pixelwise.report.run_files import Table, as_list, as_number, as_table
from pixelwise.report.tables import Classes, percent

# What the names stand for.
MEANINGS = {
    NONE: "none: the likeliest class of each pixel",
    "grid4": "grid4: 4 neighbours",
    "grid8": "grid8: 8 neighbours",
    "texton": "texton: 4 neighbours, and what is where and of which colour",
    "pydensecrf_default": "pydensecrf_default: fully connected",
}
SCORES = ("miou", "pixel_accuracy", "mean_accuracy")
HELPS = 0.002  # gain of mean IoU from which on a CRF is said to help


@dataclass(frozen=True, kw_only=True)
class CRFRow:
    """The scores of one CRF as text: mean IoU, pixel accuracy, mean accuracy."""

    name: str
    scores: list[str]


@dataclass(frozen=True, kw_only=True)
class CRFComparison:
    """All of them, and what follows."""

    rows: list[CRFRow]
    sentence: str


@dataclass(frozen=True, kw_only=True)
class CRFExample:
    """An image, its labels, and what each CRF made of it.

    Attributes:
        name: of the item.
        image: as the dataset has it, (H, W, C).
        truth: (H, W) class indices.
        maps: labels (H, W) by the CRF's name.
    """

    name: str
    image: AnyArray
    truth: LabelMap
    maps: Mapping[str, LabelMap]


@dataclass(frozen=True, kw_only=True)
class CRFPictures:
    """The pictures of one example."""

    name: str
    pictures: list[InlinePicture]


def crf_comparison(metrics: Table) -> CRFComparison | None:
    """Return the comparison that metrics.json holds; None where it holds none."""
    compared = as_table(metrics.get(KEY))
    found = {str(row["crf"]): row for row in map(as_table, as_list(compared.get("rows"))) if "crf" in row}
    if NONE not in found:
        return None
    rows = [
        CRFRow(name=MEANINGS.get(name, name), scores=[percent(as_number(row.get(key))) for key in SCORES])
        for name, row in found.items()
    ]
    images = as_number(compared.get("num_images")) or 0
    scores = {name: as_number(row.get("miou")) or 0.0 for name, row in found.items()}
    best = max(scores, key=lambda name: scores[name])
    gain = scores[best] - scores[NONE]
    said = f"Measured on {amount(int(images), 'validation image')}, from the same probabilities. "
    if gain < HELPS:
        said += "None of the CRFs raises mean IoU here: --crf is better left out."
    else:
        said += f"{best} raises mean IoU most, by {100 * gain:.1f} points: give --crf {best} to evaluate and predict."
    return CRFComparison(rows=rows, sentence=said)


def crf_pictures(example: CRFExample, classes: Classes) -> CRFPictures:
    """Draw the input, the truth, and the labels of each CRF."""
    size = fit_size(*example.truth.shape, max_height=MAX_PICTURE_HEIGHT, max_width=MAX_PICTURE_WIDTH)
    drawn = [photo(shrink_image(to_display(example.image), size), "Input", f"Input image {example.name}")]
    for name, labels in {"Truth": example.truth, **example.maps}.items():
        caption = "Without a CRF" if name == NONE else name
        painted = colorize(shrink_labels(labels, size), classes.palette, outside=classes.outside)
        drawn.append(label_picture(painted, caption, f"{caption}: classes of {example.name}"))
    return CRFPictures(name=example.name, pictures=drawn)
