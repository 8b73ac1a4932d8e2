"""What is worth a look in data that can be trained on: empty masks, equal images, classes that never occur, ..."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.encoding import MaskEncoding
from pixelwise.data.faults import finding, grouped, images, pixels
from pixelwise.data.pairs import Pair
from pixelwise.data.problems import Finding, Severity

CLASSES_SHOWN = 20
BACKGROUND = ("background", "class_0")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Pairs whose masks mean classes.

    Attributes:
        root: the data folder.
        pairs: what was seen.
        encoding: how masks mean classes.
        names: of the classes.
        counts: int64 (N, K + 1), pixels of each class in each pair; ignored ones are last and counted there alone.
    """

    root: Path
    pairs: Sequence[Pair]
    encoding: MaskEncoding
    names: Sequence[str]
    counts: NDArray[np.int64]

    @property
    def background(self) -> int | None:
        """Index of the class that is no object, None where no name says so."""
        return 0 if self.names[0].lower() in BACKGROUND else None

    def held_by(self, split: str) -> NDArray[np.int64]:
        """Return the images of a split that hold each class, (K,)."""
        chosen = [pair.item.split == split for pair in self.pairs]
        return np.asarray(np.count_nonzero(self.counts[chosen, : len(self.names)], axis=0), dtype=np.int64)


def count_classes(pair: Pair, encoding: MaskEncoding, num_classes: int) -> NDArray[np.int64]:
    """Count the pixels of each class, (K + 1,), ignored ones last and there alone."""
    counts = np.zeros(num_classes + 1, dtype=np.int64)
    for value, label in encoding.labels(pair.seen.counts, num_classes).items():
        assert label is not None, "pairs with such values were left out"
        counts[num_classes if label == encoding.ignore_index else label] += pair.seen.counts[value]
    return counts


def hints(data: Labelled) -> list[Finding]:
    """List all that is worth a look, and masks in which nothing is labelled, which are errors."""
    return [
        *_nothing_labelled(data),
        *_constant(data),
        *_unsettled_orientation(data),
        *_same_as_image(data),
        *_same_images(data),
        *_missing_classes(data),
        *_objects_against_masks(data),
        *_some_palettes(data),
    ]


def _warning(path: Path, text: str, kind: str, severity: Severity = "warning") -> Finding:
    return Finding(path=path, text=text, kind=kind, severity=severity)


def _nothing_labelled(data: Labelled) -> Iterator[Finding]:
    for pair, counts in zip(data.pairs, data.counts, strict=True):
        if not counts[:-1].any():
            text = (
                f"{pair.item.mask} has no labelled pixel: all {counts[-1]} are ignored; accepted: masks with at least "
                "one. Label it, or remove it with its image."
            )
            yield finding(pair, text, "nothing labelled")
        elif data.background is not None and counts[data.background] == counts.sum():
            text = (
                f"{pair.item.mask} is {data.names[data.background]} all over; accepted, if there is nothing to see. "
                "Check that it is not a mask that was never drawn."
            )
            yield _warning(pair.item.mask, text, "only background")


def _constant(data: Labelled) -> Iterator[Finding]:
    for pair in data.pairs:
        if pair.seen.low == pair.seen.high:
            text = (
                f"{pair.item.image} has one colour all over; accepted, but nothing is to be learnt from it. Check that "
                "it is not a picture that failed."
            )
            yield _warning(pair.item.image, text, "constant image")


def _unsettled_orientation(data: Labelled) -> Iterator[Finding]:
    for pair in data.pairs:
        if pair.seen.unsettled_orientation:
            text = (
                f"{pair.item.image} is turned as its EXIF says (orientation {pair.seen.orientation}), but its mask has "
                "no such note, and its size does not tell on which it was drawn; accepted, as drawn on the turned one. "
                "Look at the overlay, and save the image without the note if it does not fit."
            )
            yield _warning(pair.item.image, text, "orientation")


def _same_as_image(data: Labelled) -> Iterator[Finding]:
    for pair in data.pairs:
        if pair.seen.same_as_image and pair.seen.low != pair.seen.high:
            text = (
                f"{pair.item.mask} holds the same values as its image; accepted, but hardly meant. Check that no image "
                "was copied into the masks."
            )
            yield _warning(pair.item.mask, text, "mask like image")


def _same_images(data: Labelled) -> Iterator[Finding]:
    differing = [pair for pair in data.pairs if pair.seen.low != pair.seen.high]
    for first, *others in grouped(differing, lambda seen: seen.image_digest).values():
        for other in others:
            one, two = first.item, other.item
            if one.split != two.split:
                text = (
                    f"{two.image} is the same image as {one.image} of split {one.split}, so that what is learnt from "
                    f"one leaks into the score of the other; accepted, but scores say less. Remove one of them."
                )
                yield _warning(two.image, text, "same image in two splits")
            else:
                text = (
                    f"{two.image} is the same image as {one.image}; accepted, but it counts twice. Remove one of them."
                )
                yield _warning(two.image, text, "same image twice")
            if first.seen.mask_digest != other.seen.mask_digest:
                text = (
                    f"{two.mask} differs from {one.mask}, though their images are the same; accepted, but one of them "
                    "is wrong. Keep the right one."
                )
                yield _warning(two.mask, text, "same image, different masks")


def _missing_classes(data: Labelled) -> Iterator[Finding]:
    splits = {pair.item.split for pair in data.pairs}
    if "train" not in splits:
        return
    train, val = data.held_by("train"), data.held_by("val")
    absent = [index for index in range(len(train)) if not train[index] and index != data.encoding.ignore_index]
    path = data.root / "dataset.json"
    path = path if path.exists() else data.root
    unseen = {data.names[index]: int(val[index]) for index in absent if val[index]}
    if unseen:
        shown = _in_a_row({f"{name} (in {images(count)})": count for name, count in unseen.items()})
        text = (
            f"{len(unseen)} class{'es occur' if len(unseen) > 1 else ' occurs'} in val but not in train: {shown}; "
            "accepted, but a model cannot learn what it never sees. Move an image with it to train."
        )
        yield _warning(path, text, "class without training pixels")
    never = {data.names[index]: 0 for index in absent if not val[index]}
    if never:
        text = (
            f"{len(never)} class{'es never occur' if len(never) > 1 else ' never occurs'} in train: "
            f"{_in_a_row(never)}; accepted, but nothing is learnt of them. Add images that hold them, or take them out "
            "of the list of classes."
        )
        yield _warning(path, text, "class without training pixels")


def _in_a_row(names: Mapping[str, int]) -> str:
    shown = ", ".join(list(names)[:CLASSES_SHOWN])
    return shown + (f" and {len(names) - CLASSES_SHOWN} more" if len(names) > CLASSES_SHOWN else "")


def _objects_against_masks(data: Labelled) -> Iterator[Finding]:
    with_map = [pair for pair in data.pairs if pair.item.instances is not None]
    tables = [_object_pixels(pair, data) for pair in with_map]
    # Classes of which no pixel has an object id, such as sky, are not meant to have any.
    things = {label for table in tables for label, (numbered, _) in table.items() if numbered} - {data.background}
    for pair, table in zip(with_map, tables, strict=True):
        wrong = []
        numbered, _ = table.get(data.background, (0, 0)) if data.background is not None else (0, 0)
        if numbered:
            wrong.append(f"{pixels(numbered)} of background with an object id")
        for label in sorted(things & table.keys()):
            _, bare = table[label]
            if bare:
                wrong.append(f"{pixels(bare)} of {data.names[label]} without one")
        if wrong:
            path = pair.item.instances
            assert path is not None
            text = (
                f"{path} disagrees with the mask: {', '.join(wrong[:4])}{', ...' if len(wrong) > 4 else ''}; accepted, "
                "but losses and scores of objects suffer. Export both from the same labels."
            )
            yield _warning(path, text, "objects against masks")


def _object_pixels(pair: Pair, data: Labelled) -> dict[int, tuple[int, int]]:
    """Return the pixels of each class with and without object id; ignored pixels are left out."""
    table: dict[int, tuple[int, int]] = {}
    for value, label in data.encoding.labels(pair.seen.counts, len(data.names)).items():
        if label is not None and label != data.encoding.ignore_index:
            numbered = pair.seen.object_pixels.get(value, 0)
            before = table.get(label, (0, 0))
            table[label] = before[0] + numbered, before[1] + pair.seen.counts[value] - numbered
    return table


def _some_palettes(data: Labelled) -> Iterator[Finding]:
    groups = grouped(data.pairs, lambda seen: seen.palette is not None)
    if len(groups) == 2 and data.encoding.kind == "index":
        fewer = min(groups.values(), key=len)
        have, others = ("have a palette", "have none") if fewer is groups[True] else ("have no palette", "have one")
        text = (
            f"{fewer[0].item.mask} and {len(fewer) - 1} other masks {have}, the {len(data.pairs) - len(fewer)} others "
            f"{others}; accepted, since both hold class numbers. Check that they mean the same classes."
        )
        yield _warning(fewer[0].item.mask, text, "masks of different kinds")
