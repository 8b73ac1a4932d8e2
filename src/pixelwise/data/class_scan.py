"""One pass over a data set of classes before any work: every problem found, statistics taken, images kept for later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pixelwise.data.card import ImagesCard, in_usual_order, intensity_of, normalisation_of, sizes_of
from pixelwise.data.class_folder import ClassFolder, ClassItem, counts_per_class
from pixelwise.data.images import AnyArray, as_channels, read_image
from pixelwise.data.memory import Memory
from pixelwise.data.pairs import SeenImage, look_at_image
from pixelwise.data.problems import Finding, errors_among, refusal
from pixelwise.errors import RequestError

CLASSES_SHOWN = 12
Looked = tuple[ClassItem, SeenImage]


class ClassCard(ImagesCard):
    """What is known of images with a class each; `images_per_class` counts them."""


@dataclass
class ClassDataset:
    """A scanned data set of classes: its card, and its images, decoded once and kept while they fit into memory.

    Attributes:
        folder: the files.
        card: the result of the scan.
        cache_bytes: bytes of decoded images that may be kept.
        usable: keys of the items without errors.
    """

    folder: ClassFolder
    card: ClassCard
    cache_bytes: int = 2**31
    usable: frozenset[str] = frozenset()
    _kept: dict[str, AnyArray] = field(default_factory=dict, repr=False)
    _bytes: int = 0

    def image(self, item: ClassItem) -> AnyArray:
        """Return an image (H, W, C) with the card's number of channels."""
        if item.key in self._kept:
            return self._kept[item.key]
        array = as_channels(read_image(item.image), self.card.channels, str(item.image))
        if array.nbytes <= self.cache_bytes - self._bytes:
            self._kept[item.key] = array
            self._bytes += array.nbytes
        return array

    def share_memory(self, processes: int) -> None:
        """Keep no more than one of so many processes may: each has its own copy of what is read from now on."""
        free = self.cache_bytes - self._bytes
        self.cache_bytes -= free - free // processes


def scan_classes(folder: ClassFolder, items: Sequence[ClassItem], *, cache_bytes: int = 2**31) -> ClassDataset:
    """Read every image once; stop with the files if anything is wrong.

    Raises:
        RequestError: with the first problems and their number: unreadable files, images of different kinds.
    """
    dataset, findings = survey_classes(folder, items, cache_bytes=cache_bytes)
    errors = errors_among(findings)
    if errors:
        raise refusal(folder.root, errors)
    assert dataset is not None
    return dataset


def survey_classes(
    folder: ClassFolder,
    items: Sequence[ClassItem],
    *,
    cache_bytes: int = 2**31,
    on_image: Callable[[int, int], None] | None = None,
) -> tuple[ClassDataset | None, list[Finding]]:
    """Read every image once, list all problems, and describe what has no error; None where nothing is left."""
    memory = Memory()
    looked: list[Looked] = []
    findings: list[Finding] = []
    for done, item in enumerate(items, start=1):
        try:
            looked.append((item, memory.recall(item, SeenImage, partial(look_at_image, item))))
        except RequestError as error:
            kind = "unreadable file" if error.__cause__ is not None else "unusable file"
            findings.append(Finding(path=item.image, text=str(error), kind=kind, spoils=frozenset({item.key})))
        if on_image is not None:
            on_image(done, len(items))
    findings += _mixed(looked)
    spoilt = frozenset[str]().union(*(finding.spoils for finding in findings))
    looked = [one for one in looked if one[0].key not in spoilt]
    if not looked:
        return None, findings
    findings += _hints(folder, looked)
    warnings = [found for found in (*folder.findings, *findings) if found.severity == "warning"]
    usable = frozenset(item.key for item, _ in looked)
    return ClassDataset(folder, _card(folder, looked, warnings), cache_bytes, usable), findings


def _mixed(looked: Sequence[Looked]) -> list[Finding]:
    """Refuse images of different channels or types; grey ones may stand beside colour."""
    found = []
    for what, kinds in (
        ("numbers of channels", {item.key: seen.channels for item, seen in looked if seen.channels != 1}),
        ("types", {item.key: seen.dtype for item, seen in looked}),
    ):
        groups: dict[object, list[ClassItem]] = {}
        for item, _ in looked:
            if item.key in kinds:
                groups.setdefault(kinds[item.key], []).append(item)
        if len(groups) < 2:
            continue
        usual = max(groups, key=lambda kind: len(groups[kind]))
        others = [item for kind, group in groups.items() if kind != usual for item in group]
        shown = ", ".join(f"{kind} in {len(group)} (such as {group[0].image})" for kind, group in groups.items())
        text = (
            f"the images have different {what}: {shown}; accepted: one for all, or grey beside colour. Convert the "
            "images to one kind."
        )
        keys = frozenset(item.key for item in others)
        found.append(Finding(path=others[0].image, text=text, kind="images of different kinds", spoils=keys))
    return found


def _hints(folder: ClassFolder, looked: Sequence[Looked]) -> list[Finding]:
    return [*_few(folder, [item for item, _ in looked]), *_constant(looked), *_same(folder, looked)]


def _warning(path: Path, text: str, kind: str) -> Finding:
    return Finding(path=path, text=text, kind=kind, severity="warning")


def _few(folder: ClassFolder, items: Sequence[ClassItem]) -> Iterator[Finding]:
    """Name the classes of which one image is trained on."""
    training = [item for item in items if item.split == "train"]
    counts = counts_per_class(training, folder.classes)
    for item in training:
        name = folder.classes[item.label]
        if counts[name] == 1:
            where = item.image.parent
            text = (
                f"{where}: one image of class {name} is trained on; accepted, but a class is hardly learnt from one. "
                "Add images."
            )
            yield _warning(where, text, "class of one image")


def _constant(looked: Sequence[Looked]) -> Iterator[Finding]:
    for item, seen in looked:
        if seen.low == seen.high:
            text = (
                f"{item.image} has one colour all over; accepted, but little is to be learnt from it. Check that it is "
                "not a picture that failed."
            )
            yield _warning(item.image, text, "constant image")


def _same(folder: ClassFolder, looked: Sequence[Looked]) -> Iterator[Finding]:
    """Name images that are there more than once, under two classes or in two splits above all."""
    groups: dict[str, list[ClassItem]] = {}
    for item, seen in looked:
        if seen.low != seen.high:
            groups.setdefault(seen.image_digest, []).append(item)
    for first, *others in groups.values():
        for other in others:
            same = f"{other.image} is the same image as {first.image}"
            if other.label != first.label:
                names = f"{folder.classes[other.label]} and {folder.classes[first.label]}"
                text = f"{same}, under the classes {names}; accepted, but one is wrong. Keep the right one."
                yield _warning(other.image, text, "same image in two classes")
            elif other.split != first.split:
                text = (
                    f"{same} of split {first.split}, so that what is learnt from one leaks into the score of the "
                    "other; accepted, but scores say less. Remove one of them."
                )
                yield _warning(other.image, text, "same image in two splits")
            else:
                yield _warning(
                    other.image, f"{same}; accepted, but it counts twice. Remove one of them.", "same image twice"
                )


def _card(folder: ClassFolder, looked: Sequence[Looked], warnings: Sequence[Finding]) -> ClassCard:
    """Describe a data set; statistics are the training images' (all images', without such)."""
    training = [seen for item, seen in looked if item.split == "train"] or [seen for _, seen in looked]
    channels = max(seen.channels for _, seen in looked)
    splits = in_usual_order(item.split for item, _ in looked)
    by_split = {split: [item for item, _ in looked if item.split == split] for split in splits}
    num_images = {split: len(items) for split, items in by_split.items()}
    return ClassCard(
        name=folder.name,
        root=str(folder.root.resolve()),
        layout=folder.layout,
        classes=folder.classes,
        licence=(folder.file.licence or folder.file.terms) if folder.file else None,
        num_images=num_images,
        split_source=folder.split_source,
        image_sizes=sizes_of(training),
        channels=channels,
        dtype=looked[0][1].dtype,
        normalisation=normalisation_of(training, channels),
        decisions=tuple(_decisions(folder, looked, num_images, channels, warnings)),
        images_per_class={split: counts_per_class(items, folder.classes) for split, items in by_split.items()},
        intensity=intensity_of(training, channels),
        warnings=len(warnings),
    )


def _decisions(
    folder: ClassFolder,
    looked: Sequence[Looked],
    num_images: dict[str, int],
    channels: int,
    warnings: Sequence[Finding],
) -> Iterator[str]:
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    yield f"layout: {folder.layout}"
    shares = ", ".join(f"{split} {count}" for split, count in num_images.items())
    yield f"images: {shares} ({folder.split_source}), {looked[0][1].dtype} {kind}"
    more = ", ..." if len(folder.classes) > CLASSES_SHOWN else ""
    order = "dataset.json's order" if folder.file else "the order of their names"
    yield f"classes: {len(folder.classes)}, in {order}: {', '.join(folder.classes[:CLASSES_SHOWN])}{more}"
    if len({seen.channels for _, seen in looked}) > 1:
        yield "some images are grey, some in colour: grey ones are repeated over three channels"
    turned = [item for item, seen in looked if seen.orientation > 1]
    if turned:
        yield f"{len(turned)} of the images are turned as their EXIF says, such as {turned[0].image}"
    if folder.ignored_files:
        count = len(folder.ignored_files)
        yield f"{count} other file{'s' if count > 1 else ''} left out, such as {folder.ignored_files[0]}"
    if warnings:
        number = f"{len(warnings)} warnings, the first" if len(warnings) > 1 else "1 warning"
        yield f"{number} (`pixelwise check` tells more): {warnings[0].text.split('; accepted')[0]}"
