"""The facts of a data card as rows for the template: what was recognised, problems, classes, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pixelwise.data.card import DataCard
from pixelwise.data.check import Check, Problem
from pixelwise.report.tables import DASH, Fact, Score, css, percent

IGNORED = "(ignored)"
OPEN_ROWS = 15  # of a group of problems; longer lists are folded
SHOWN_SIZES = 8
FEW_IMAGES = 5
RARE = 0.1  # of the share that each class would hold if all were as common
MAX_NUMBERED_CLASSES = 30  # beyond, the cells of the matrix are too small for numbers
MOST_COUPLES = 12
DETAILS = ("layout", "images", "masks", "classes")  # decisions that are shown as facts of their own


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer, before everything else; `level` is "error", "warning" or "good"."""

    level: str
    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ProblemGroup:
    """Problems of one kind."""

    kind: str
    severity: str
    rows: Sequence[Problem]

    @property
    def folded(self) -> bool:
        """Whether the list is too long to be shown unasked."""
        return len(self.rows) > OPEN_ROWS


@dataclass(frozen=True, kw_only=True)
class Share:
    """How common a class is in one split: `length` of its bar is 0 to 100."""

    text: str
    length: float
    images: str


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class in all splits; ignored pixels are hatched."""

    index: str
    name: str
    color: str
    hatched: bool
    shares: Sequence[Share]
    note: str


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """Images of one size."""

    size: str
    count: str
    share: float


@dataclass(frozen=True, kw_only=True)
class PairCell:
    """How many images hold two classes: `share` of those with the row's class, 0 to 1."""

    column: int
    share: float
    text: str
    title: str


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """One class beside all others."""

    name: str
    index: int
    total: str
    cells: Sequence[PairCell]


@dataclass(frozen=True, kw_only=True)
class Couple:
    """Two classes and the number of images that hold both."""

    one: str
    other: str
    images: int


@dataclass(frozen=True, kw_only=True)
class Cooccurrence:
    """Which classes are seen together; classes that occur nowhere are left out."""

    names: Sequence[str]
    rows: Sequence[PairRow]
    numbered: bool
    absent: int
    couples: Sequence[Couple]


def verdict(check: Check) -> Verdict:
    """Return whether the data can be trained on."""
    errors, warnings = count(check, "error"), count(check, "warning")
    said = amount(warnings, "warning")
    if errors:
        also = f" and {said} looked at" if warnings else ""
        return Verdict(
            level="error",
            title=f"Not ready: {amount(errors, 'error')}",
            text=f"{amount(errors, 'error')} must be mended before training{also}, all listed below.",
        )
    if warnings:
        return Verdict(level="warning", title=f"Ready to train, with {said}", text="They do not stop training.")
    return Verdict(
        level="good", title="Ready to train", text="Every image and mask was read; nothing is wrong with them."
    )


def count(check: Check, severity: str) -> int:
    """Return the number of problems of one severity."""
    return sum(problem.severity == severity for problem in check.problems)


def amount(number: int, thing: str) -> str:
    """Return a number of things in words.

    >>> amount(1, "image"), amount(1200, "class")
    ('1 image', '1,200 classes')
    """
    plural = thing + ("es" if thing.endswith("s") else "s")
    return f"{number:,} {thing if number == 1 else plural}"


def tiles(check: Check) -> list[Score]:
    """Return the numbers that say at a glance what the data is."""
    card = check.card
    found = [Score(name="Images with masks", text=f"{check.num_images:,}", hint="")]
    if card is not None:
        splits = ", ".join(f"{split} {number:,}" for split, number in card.num_images.items())
        height, width, _ = card.image_sizes[0]
        splits = splits if sum(card.num_images.values()) == check.num_images else f"without errors: {splits}"
        others = len(card.image_sizes) - 1
        sizes = f"and {amount(others, 'other size')}" if others else "height × width"
        found = [
            Score(name="Images with masks", text=f"{check.num_images:,}", hint=splits),
            Score(name="Classes", text=f"{len(card.classes)}", hint=_first_names(card.classes)),
            Score(name="Image size", text=f"{height} × {width}", hint=sizes),
            Score(name="Image kind", text=channels_words(card.channels), hint=dtype_words(card.dtype)),
        ]
    problems = Score(
        name="Problems",
        text=f"{len(check.problems):,}",
        hint=f"{amount(count(check, 'error'), 'error')}, {amount(count(check, 'warning'), 'warning')}",
    )
    return [*found, problems]


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def problem_groups(problems: Sequence[Problem]) -> list[ProblemGroup]:
    """Gather problems of a kind: errors first, then in their own order."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in sorted(problems, key=lambda problem: problem.severity != "error"):
        groups.setdefault((problem.severity, problem.kind), []).append(problem)
    return [ProblemGroup(kind=kind, severity=severity, rows=rows) for (severity, kind), rows in groups.items()]


def facts(check: Check) -> list[Fact]:
    """Return what was recognised, as far as it was."""
    known = [
        Fact(name="folder", text=str(check.root)),
        Fact(name="layout", text=check.layout or "not recognised"),
    ]
    card = check.card
    if card is None:
        return [*known, Fact(name="images with masks", text=f"{check.num_images:,}")]
    splits = ", ".join(f"{split} {number:,}" for split, number in card.num_images.items())
    known += [
        Fact(name="masks", text=card.mask_encoding.words),
        Fact(name="splits", text=f"{splits} ({card.split_source})"),
        Fact(name="images", text=f"{channels_words(card.channels)}, {dtype_words(card.dtype)}; {_intensity(card)}"),
    ]
    if card.ignore_index is not None:
        known.append(Fact(name="ignored pixels", text=f"label {card.ignore_index}: neither trained on nor scored"))
    if card.boundary_class is not None:
        known.append(Fact(name="boundary class", text=card.classes[card.boundary_class]))
    if card.num_objects is not None:
        numbers = ", ".join(f"{split} {card.num_objects.get(split, 0):,}" for split in card.num_images)
        known.append(Fact(name="objects", text=numbers))
    known.append(Fact(name="licence", text=card.licence or "not stated"))
    return known


def decisions(card: DataCard) -> list[str]:
    """Return what was recognised in sentences, without that on warnings: a check lists them one by one."""
    return [line for line in card.decisions if not (card.warnings and line.startswith(f"{card.warnings} warning"))]


def other_decisions(card: DataCard | None) -> list[str]:
    """Return the decisions that are no facts of their own."""
    return [] if card is None else [line for line in decisions(card) if line.partition(":")[0] not in DETAILS]


def channels_words(channels: int) -> str:
    """Name a number of channels."""
    return {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")


def dtype_words(dtype: str) -> str:
    """Name a type of stored values.

    >>> dtype_words("uint16"), dtype_words("float32")
    ('16 bits', '32 bits, floating point')
    """
    kind, bits = dtype.rstrip("0123456789"), dtype.lstrip("abcdefghijklmnopqrstuvwxyz")
    return {"uint": f"{bits} bits", "float": f"{bits} bits, floating point"}.get(kind, dtype)


def _intensity(card: DataCard) -> str:
    """Return the range of the stored values, per channel where there are few."""
    low, high = card.intensity.get("min", ()), card.intensity.get("max", ())
    if not low or not high:
        return f"values {card.normalisation.intensity_range[0]:g} to {card.normalisation.intensity_range[1]:g}"
    if len(low) > 4:
        return f"values {min(low):g} to {max(high):g}"
    ranges = [f"{first:g} to {last:g}" for first, last in zip(low, high, strict=True)]
    return f"values {ranges[0] if len(set(ranges)) == 1 else ' / '.join(ranges)}"


def class_rows(card: DataCard, palette: Sequence[Sequence[int]]) -> list[ClassRow]:
    """Return how common each class is in each split; ignored pixels last, where there are any."""
    rows = []
    for index, name in enumerate(card.classes):
        shares = [_share(card, split, name) for split in card.pixel_counts]
        color, note = css(palette[index]), _note(card, name)
        rows.append(ClassRow(index=str(index), name=name, color=color, hatched=False, shares=shares, note=note))
    if any(counts.get(IGNORED) for counts in card.pixel_counts.values()):
        shares = [_share(card, split, IGNORED) for split in card.pixel_counts]
        rows.append(ClassRow(index="", name="ignored pixels", color="", hatched=True, shares=shares, note=""))
    return rows


def _share(card: DataCard, split: str, name: str) -> Share:
    counts = card.pixel_counts[split]
    counted = counts if name == IGNORED else card.classes
    share = counts[name] / max(1, sum(counts[known] for known in counted))
    images = card.images_per_class.get(split, {}).get(name)
    return Share(
        text=_small_percent(share) if counts[name] else DASH,
        length=round(100 * share, 2),
        images="" if images is None else f"{images:,} of {card.num_images[split]:,}",
    )


def _small_percent(share: float) -> str:
    """Return a fraction above 0 as a percentage that never reads as 0."""
    return percent(share, 2) if share >= 0.0001 else "below 0.01 %"


def _note(card: DataCard, name: str) -> str:
    """Say where a class is too rare to be learnt well."""
    counts = card.pixel_counts.get("train")
    if counts is None:
        return ""
    if not counts[name]:
        return "not in the training images"
    images = card.images_per_class.get("train", {}).get(name, FEW_IMAGES)
    if images < min(FEW_IMAGES, card.num_images["train"]):
        return f"rare: in {amount(images, 'training image')} only"
    share = counts[name] / sum(counts[known] for known in card.classes)
    return f"rare: {_small_percent(share)} of the training pixels" if share < RARE / len(card.classes) else ""


def size_rows(card: DataCard) -> list[SizeRow]:
    """Return the sizes of the training images, most frequent first."""
    total = sum(number for *_, number in card.image_sizes)
    return [
        SizeRow(size=f"{height} × {width}", count=f"{number:,}", share=round(100 * number / total, 2))
        for height, width, number in card.image_sizes
    ]


def cooccurrence(card: DataCard) -> Cooccurrence | None:
    """Return which classes are seen in the same images; None below three classes that occur."""
    counts = card.cooccurrence
    present = [index for index in range(len(counts)) if counts[index][index]]
    if len(present) < 3:
        return None
    names = [card.classes[index] for index in present]
    numbered = len(names) <= MAX_NUMBERED_CLASSES
    rows = []
    for place, row in enumerate(present):
        total = counts[row][row]
        cells = []
        for column, other in enumerate(present):
            both = counts[row][other]
            if numbered or both:
                title = f"{amount(total, 'image')} with {names[place]}: {both:,} also with {names[column]}"
                text = f"{100 * both / total:.0f}" if both else ""
                cells.append(PairCell(column=column, share=round(both / total, 3), text=text, title=title))
        rows.append(PairRow(name=names[place], index=place, total=f"{total:,}", cells=cells))
    return Cooccurrence(
        names=names,
        rows=rows,
        numbered=numbered,
        absent=len(counts) - len(present),
        couples=_couples(card),
    )


def _couples(card: DataCard) -> list[Couple]:
    """Return the pairs of classes that most images hold."""
    found = [
        Couple(one=card.classes[one], other=card.classes[other], images=images)
        for one, row in enumerate(card.cooccurrence)
        for other, images in enumerate(row[:one])
    ]
    return sorted(found, key=lambda couple: -couple.images)[:MOST_COUPLES]
