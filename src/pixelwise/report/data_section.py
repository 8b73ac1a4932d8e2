"""What the report says of the data: the essentials of its card, its warnings, and a few images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from pixelwise.data.card import DataCard
from pixelwise.data.dataset import Item
from pixelwise.data.problems import Problem
from pixelwise.data.scan import Dataset
from pixelwise.report.card_images import Painter, ShownImage, background_of, colours
from pixelwise.report.card_pictures import Paint, choose
from pixelwise.report.card_tables import (
    MAX_NUMBERED_CLASSES,
    ClassRow,
    Cooccurrence,
    ProblemGroup,
    SizeRow,
    amount,
    class_rows,
    cooccurrence,
    decisions,
    problem_groups,
    size_rows,
)
from pixelwise.report.page import LegendEntry
from pixelwise.report.run_files import RunFiles
from pixelwise.report.tables import Classes, Fact, capitalised

SHOWN_SIZES = 6
SHOWN_OF_A_KIND = 5
SAMPLES = 6


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Training images beside their labels, and what the colours mean."""

    images: Sequence[ShownImage] = ()
    legend: Sequence[LegendEntry] = ()


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """The section; without a card `notes` say why."""

    card: DataCard | None = None
    facts: list[Fact] = field(default_factory=list)
    rows: list[ClassRow] = field(default_factory=list)
    together: Cooccurrence | None = None
    sizes: list[SizeRow] = field(default_factory=list)
    more_sizes: str = ""
    warnings: list[ProblemGroup] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def choose_samples(items: Sequence[Item]) -> list[Item]:
    """Choose items evenly over a split."""
    return choose(items, {}, SAMPLES)


def make_samples(dataset: Dataset, items: Sequence[Item]) -> Samples:
    """Return items as pictures: the image, and its labels painted over it."""
    card = dataset.card
    paint = Paint(palette=colours(card)[0], ignore_index=card.ignore_index, background=background_of(card))
    painter = Painter(dataset=dataset, problems={}, paint=paint)
    return Samples(images=[painter.show(item) for item in items], legend=painter.legend())


def read_card(files: RunFiles) -> DataCard | None:
    """Return the data card; None where data_card.json is not as training writes it."""
    try:
        card = DataCard.model_validate(dict(files.card))
    except ValidationError:
        return None
    counted = all(set(card.classes) <= counts.keys() for counts in card.pixel_counts.values())
    square = all(len(row) == len(card.classes) == len(card.cooccurrence) for row in card.cooccurrence)
    return card if counted and square and card.pixel_counts.keys() <= card.num_images.keys() else None


def data_section(files: RunFiles, classes: Classes, problems: Sequence[Problem] = ()) -> DataSection:
    """Return what the data card says.

    Args:
        files: the run.
        classes: with the colours of the report.
        problems: what a check of the data found; empty where it was not done.
    """
    card = read_card(files)
    if card is None:
        missing = "data_card.json is not as this version writes it, so nothing of it is shown."
        return DataSection(notes=[files.problems.get("data_card.json", missing)])
    sizes = size_rows(card)
    more = len(sizes) - SHOWN_SIZES
    together = cooccurrence(card) if len(card.classes) <= MAX_NUMBERED_CLASSES else None
    warnings = problem_groups([problem for problem in problems if problem.severity == "warning"])
    return DataSection(
        card=card,
        facts=_facts(card),
        rows=class_rows(card, classes.palette),
        together=together,
        sizes=sizes[:SHOWN_SIZES],
        more_sizes=amount(more, "other size") if more > 0 else "",
        warnings=warnings,
        notes=_notes(card, listed=bool(warnings)),
    )


def _facts(card: DataCard) -> list[Fact]:
    """Return what was recognised: a decision is a sentence that begins with what it is about."""
    facts = [Fact(name="name", text=card.name)]
    for line in decisions(card):
        name, colon, text = line.partition(": ")
        facts.append(Fact(name=name, text=text) if colon and " " not in name else Fact(name="also", text=line))
    return [*facts, Fact(name="licence", text=card.licence or "not stated")]


def _notes(card: DataCard, *, listed: bool) -> list[str]:
    notes = []
    if not card.images_per_class:
        notes.append(
            "data_card.json does not hold how many images show each class: the run is of an earlier version. "
            "`pixelwise check` counts them."
        )
    if card.warnings and not listed:
        said = set(card.decisions) - set(decisions(card))
        notes += [capitalised(line) for line in said]
    return notes
