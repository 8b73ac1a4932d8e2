"""The images of a data card: those with problems, then a few of each split, with their labels painted over them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from pixelwise.data.card import DataCard
from pixelwise.data.check import Check, Problem
from pixelwise.data.dataset import Item
from pixelwise.data.images import AnyArray
from pixelwise.data.pictures import MAX_CLASSES, WRONG_COLOR, LabelMap, Picture, colorize, default_palette
from pixelwise.data.scan import Dataset
from pixelwise.engine.session import palette_of
from pixelwise.errors import RequestError
from pixelwise.report.card_pictures import OUTLINE_COLOR, Paint, choose, thumbnail
from pixelwise.report.page import LegendEntry, jpeg_uri
from pixelwise.report.tables import BACKGROUND_NAMES, css, percent

MOST_OF_A_SPLIT = 12
MOST_WITH_PROBLEMS = 12
MOST_IN_ALL = 36  # of the splits together: two pictures each, 2 MB of photographs
MOST_BYTES = 90_000  # of a picture, so that the card stays below 13 MB; most take a third
LOOKED_AT_PIXELS = 50_000_000  # of a split's labels, to find images that show all classes
LOOKED_AT = 240  # images of a split, likewise
MAX_FULL_LEGEND = 20
TOP_CLASSES = 3


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture inside the page; `source` is empty where it could not be made."""

    source: str
    alternative: str
    width: int = 0
    height: int = 0


@dataclass(frozen=True, kw_only=True)
class ShownImage:
    """An image beside its labels, with what is wrong with it."""

    name: str
    caption: str
    image: Shown
    labels: Shown
    problems: Sequence[Problem]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Images under one title; `note` says how they were chosen."""

    title: str
    note: str
    images: Sequence[ShownImage]


@dataclass(kw_only=True)
class Painter:
    """Paints images of one data set, and remembers what the legend must explain.

    Attributes:
        dataset: the images.
        problems: by item, what is wrong with its files.
        paint: the colours.
        seen: labels that were painted.
        has_objects: whether outlines of objects were drawn.
    """

    dataset: Dataset
    problems: Mapping[Item, Sequence[Problem]]
    paint: Paint
    seen: set[int] = field(default_factory=set)
    has_objects: bool = False

    def show(self, item: Item) -> ShownImage:
        """Return an image and its labels; what cannot be read is left out."""
        image, labels = self.read(item, self.dataset.read_image), self.read(item, self.dataset.read_labels)
        size = "" if image is None else f"{image.shape[0]} × {image.shape[1]}"
        if labels is not None:
            self.seen |= {int(value) for value in np.unique(labels)}
        classes = "" if labels is None else _top_classes(labels, self.dataset.card)
        return ShownImage(
            name=item.name,
            caption=" · ".join(part for part in (size, classes) if part),
            image=_shown(None if image is None else thumbnail(image), f"Image {item.name}"),
            labels=_shown(self._painted(item, image, labels), f"Labels of {item.name}: {classes}"),
            problems=self.problems.get(item, ()),
        )

    def read(self, item: Item, reader: Callable[[Item], AnyArray | None]) -> AnyArray | None:
        """Return an array of an item, None where its file cannot be read: the problems say why."""
        try:
            return reader(item)
        except RequestError:
            return None

    def _painted(self, item: Item, image: AnyArray | None, labels: LabelMap | None) -> Picture | None:
        if labels is None:
            return None
        if image is None or image.shape[:2] != labels.shape:
            return thumbnail(colorize(labels, self.paint.palette))
        objects = self.read(item, self.dataset.instances)
        fits = objects is not None and objects.shape == labels.shape
        self.has_objects |= fits
        return self.paint.over(image, labels, objects if fits else None)

    def legend(self) -> list[LegendEntry]:
        """Return the colours: of many classes only those to be seen."""
        card, palette = self.dataset.card, self.paint.palette
        known = range(len(card.classes))
        shown = known if len(known) <= MAX_FULL_LEGEND else sorted(self.seen & set(known))
        entries = [LegendEntry(name=_legend_name(index, self), color=css(palette[index])) for index in shown]
        if card.ignore_index in self.seen:
            entries.append(LegendEntry(name="ignored", color="", hatched=True))
        if self.seen - set(known) - {card.ignore_index}:
            entries.append(LegendEntry(name="value of no class", color=css(WRONG_COLOR)))
        if self.has_objects:
            entries.append(LegendEntry(name="outline of an object", color=css(OUTLINE_COLOR)))
        return entries


def _legend_name(index: int, painter: Painter) -> str:
    name = painter.dataset.card.classes[index]
    return f"{name} (not painted)" if index == painter.paint.background else name


def _shown(picture: Picture | None, alternative: str) -> Shown:
    if picture is None:
        return Shown(source="", alternative=alternative)
    height, width = picture.shape[:2]
    return Shown(
        source=jpeg_uri(picture, quality=80, limit=MOST_BYTES), alternative=alternative, width=width, height=height
    )


def _top_classes(labels: LabelMap, card: DataCard) -> str:
    """Name the classes that cover most of an image."""
    values, pixels = np.unique(labels, return_counts=True)
    order = np.argsort(-pixels, kind="stable")
    parts = []
    for value, number in zip(values[order][:TOP_CLASSES], pixels[order], strict=False):
        ignored = "ignored" if value == card.ignore_index else f"value {value}"
        name = card.classes[value] if value < len(card.classes) else ignored
        parts.append(f"{name} {percent(number / labels.size, 0)}")
    more = len(values) - TOP_CLASSES
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def colours(card: DataCard) -> tuple[Sequence[Sequence[int]], bool]:
    """Return a colour for each class that can be seen on images, and whether these are the data's own.

    Greys, as binary masks have them, would vanish on an image: ours take their place.
    """
    own = palette_of(card)
    if card.palette is not None and any(len(set(color)) > 1 for color in own):
        return own, True
    ours = default_palette(min(len(own), MAX_CLASSES), background=background_of(card) == 0)
    return [ours[index % len(ours)] for index in range(len(own))], False


def background_of(card: DataCard) -> int | None:
    """Return the class that is named as background, None if none is."""
    names = [name.lower() for name in card.classes]
    return next((names.index(name) for name in BACKGROUND_NAMES if name in names), None)


def galleries(check: Check, dataset: Dataset) -> tuple[list[Gallery], list[LegendEntry]]:
    """Return images with problems of every kind, a choice of the others in each split, and the legend of all."""
    card, items = dataset.card, dataset.folder.items
    paint = Paint(palette=colours(card)[0], ignore_index=card.ignore_index, background=background_of(card))
    problems = _by_item(check, items)
    painter = Painter(dataset=dataset, problems=problems, paint=paint)
    found = []
    if problems:
        bad = _of_every_kind(problems)
        note = f"{MOST_WITH_PROBLEMS} of {len(bad):,}, of every kind." if len(bad) > MOST_WITH_PROBLEMS else ""
        images = [painter.show(item) for item in bad[:MOST_WITH_PROBLEMS]]
        found.append(Gallery(title="Images with problems", note=note, images=images))
    splits = list(card.num_images)[:MOST_IN_ALL]
    each = max(1, min(MOST_OF_A_SPLIT, MOST_IN_ALL // len(splits)))
    spoilt = {item for item, own in problems.items() if any(one.severity == "error" for one in own)}
    for split in splits:
        own = [item for item in items if item.split == split]
        good = [item for item in own if item not in spoilt] or own
        chosen = choose(good, _classes_of(painter, good), each)
        note = f"{len(chosen)} of {len(good):,}: first such as show all classes, the others evenly over the split."
        images = [painter.show(item) for item in chosen]
        found.append(Gallery(title=f"Split {split}", note=note if len(chosen) < len(good) else "", images=images))
    return found, painter.legend()


def _by_item(check: Check, items: Sequence[Item]) -> dict[Item, list[Problem]]:
    """Gather the problems of each item, in the items' order; a file may lie in an item's folder of masks."""
    by_file: dict[str, list[Problem]] = {}
    for problem in check.problems:
        by_file.setdefault(problem.file, []).append(problem)
        by_file.setdefault(PurePosixPath(problem.file).parent.as_posix(), []).append(problem)
    found = {}
    for item in items:
        files = [path for path in (item.image, item.mask, item.instances) if path is not None]
        own = [problem for path in files for problem in by_file.get(_relative(path, check.root), ())]
        if own:
            found[item] = own
    return found


def _of_every_kind(problems: Mapping[Item, Sequence[Problem]]) -> list[Item]:
    """Order items so that one of each kind of problem comes first, then the second ones; errors before warnings."""
    places: dict[Item, tuple[int, bool]] = {}
    seen: Counter[str] = Counter()
    for item, own in problems.items():
        places[item] = seen[own[0].kind], own[0].severity != "error"
        seen[own[0].kind] += 1
    return sorted(problems, key=lambda item: places[item])


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _classes_of(painter: Painter, items: Sequence[Item]) -> dict[Item, frozenset[int]]:
    """Read the classes of items, evenly over the split; of so many as are read in a few seconds."""
    card = painter.dataset.card
    height, width, _ = card.image_sizes[0]
    looked_at = min(LOOKED_AT, max(MOST_OF_A_SPLIT, LOOKED_AT_PIXELS // (height * width)))
    found = {}
    for item in items[:: math.ceil(len(items) / looked_at)]:
        labels = painter.read(item, painter.dataset.read_labels)
        if labels is not None:
            found[item] = frozenset(np.unique(labels).tolist()) & frozenset(range(len(card.classes)))
    return found
