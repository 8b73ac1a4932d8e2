"""The data card of a folder for each class: its classes with counts and pictures, and every problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelwise.data.class_check import ClassCheck
from pixelwise.data.class_folder import ClassItem
from pixelwise.data.class_scan import ClassDataset
from pixelwise.data.pictures import class_colours, to_display
from pixelwise.files import write_atomically
from pixelwise.report.card import MARK, check_place
from pixelwise.report.classes import LIMIT, QUALITY, smaller
from pixelwise.report.page import environment, jpeg_uri
from pixelwise.report.tables import css

TEMPLATE_NAME = "card_classes.html.j2"
PICTURES = 4  # of a class
MOST_PICTURED = 60  # classes; of more, the first ones
SIDE = 120  # pixels


@dataclass(frozen=True, kw_only=True)
class ClassShown:
    """One class: images of each split, and a few pictures as data URIs with their file names."""

    name: str
    color: str
    counts: list[int]
    pictures: list[tuple[str, str]]


def write_class_card(check: ClassCheck, out: Path, *, command: str) -> Path:
    """Write the card; an earlier card of this name is replaced.

    Args:
        check: what is shown.
        out: the file, ending in .html.
        command: how to train on the data.

    Raises:
        RequestError: if `out` does not end in .html, or is something other than a card.
        WorkError: if the file cannot be written.
    """
    check_place(out)
    card = check.card
    splits = [] if card is None else list(card.images_per_class)
    text = (
        environment()
        .get_template(TEMPLATE_NAME)
        .render(
            mark=MARK,
            name=check.root.resolve().name if card is None else card.name,
            root=str(check.root),
            ready=check.ready,
            num_errors=sum(problem.severity == "error" for problem in check.problems),
            num_images=check.num_images,
            decisions=[f"layout: {check.layout}"] if card is None else list(card.decisions),
            splits=splits,
            classes=[] if check.dataset is None else shown_classes(check.dataset, splits),
            problems=check.problems,
            command=command,
        )
    )
    write_atomically(out, text)
    return out


def shown_classes(dataset: ClassDataset, splits: Sequence[str]) -> list[ClassShown]:
    """Return the classes in index order, with the first pictures of each."""
    card = dataset.card
    colours = class_colours(card.classes)
    return [
        ClassShown(
            name=name,
            color=css(colours[index]),
            counts=[card.images_per_class[split][name] for split in splits],
            pictures=_pictures(dataset, index) if index < MOST_PICTURED else [],
        )
        for index, name in enumerate(card.classes)
    ]


def _pictures(dataset: ClassDataset, label: int) -> list[tuple[str, str]]:
    usable = [item for item in dataset.folder.items if item.label == label and item.key in dataset.usable]
    return [(item.image.name, _picture(dataset, item)) for item in usable[:PICTURES]]


def _picture(dataset: ClassDataset, item: ClassItem) -> str:
    picture = smaller(to_display(dataset.image(item)), SIDE)
    return jpeg_uri(picture, quality=QUALITY, limit=LIMIT)
