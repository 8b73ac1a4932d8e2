"""One pass over a data set before any work: every problem found, statistics taken, arrays kept for later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pixelwise.data.card import DataCard, make_card
from pixelwise.data.dataset import DatasetFile, DatasetFolder, Item
from pixelwise.data.encoding import Evidence, MaskEncoding, default_names, recognise_encoding
from pixelwise.data.faults import (
    changing_colours,
    mixed_images,
    mixed_masks,
    outside,
    scattered_values,
    two_meanings,
)
from pixelwise.data.hints import Labelled, count_classes, hints
from pixelwise.data.images import AnyArray, as_channels, read_image, read_mask
from pixelwise.data.numbering import numbers_objects
from pixelwise.data.pairs import Pair, look_at
from pixelwise.data.problems import Finding, errors_among, refusal
from pixelwise.data.tiff import turned
from pixelwise.errors import RequestError

__all__ = ["UNCLEAR", "DataCard", "Dataset", "Survey", "scan", "survey"]

UNCLEAR = "masks whose meaning is unclear"
OnImage = Callable[[int, int], None]


@dataclass
class Dataset:
    """A scanned data set: its card, and its arrays, decoded once and kept while they fit into memory.

    Attributes:
        folder: the files.
        card: the result of the scan.
        cache_bytes: bytes of decoded arrays that may be kept.
        turned_items: EXIF orientation by which the masks of some items (split/name) are turned to fit the image.
    """

    folder: DatasetFolder
    card: DataCard
    cache_bytes: int = 2**31
    turned_items: Mapping[str, int] = field(default_factory=dict)
    _kept: dict[tuple[str, str], AnyArray] = field(default_factory=dict, repr=False)
    _bytes: int = 0

    def image(self, item: Item) -> AnyArray:
        """Return an image (H, W, C) with the card's number of channels."""
        return self._keep(("image", item.key), lambda: self.read_image(item))

    def labels(self, item: Item) -> AnyArray:
        """Return the class indices (H, W) of an item, uint8 or uint16."""
        return self._keep(("labels", item.key), lambda: self.read_labels(item))

    def has_objects(self, item: Item) -> bool:
        """Say whether the objects of an item are numbered, in a file of their own or by its mask."""
        return item.instances is not None or self.card.mask_encoding.kind == "objects"

    def instances(self, item: Item) -> AnyArray | None:
        """Return the object ids (H, W) of an item, 0 for none; they are used once and not kept.

        They come from the item's object map, or from masks whose values are object ids; None without either. Where
        the labels have the ignore index and the map has the same number, there is no object.
        """
        encoding = self.card.mask_encoding
        if item.instances is None and encoding.kind != "objects":
            return None
        if item.instances is None:
            return self._upright(item, encoding.object_ids(read_mask(item.mask, page=item.page)))
        ids = self._upright(item, read_mask(item.instances, page=item.page).values)
        ignore = self.card.ignore_index
        void = ids == ignore if ignore is not None else np.zeros(ids.shape, dtype=bool)
        return np.where(void & (self.read_labels(item) == ignore), 0, ids) if void.any() else ids

    def read_image(self, item: Item) -> AnyArray:
        """Read an image without keeping it."""
        kept = self._kept.get(("image", item.key))
        if kept is not None:
            return kept
        return as_channels(read_image(item.image, page=item.page), self.card.channels, str(item.image))

    def read_labels(self, item: Item) -> AnyArray:
        """Read the class indices without keeping them."""
        kept = self._kept.get(("labels", item.key))
        if kept is not None:
            return kept
        mask = read_mask(item.mask, page=item.page)
        return self._upright(item, self.card.mask_encoding.decode(mask, len(self.card.classes)))

    @property
    def free_bytes(self) -> int:
        """Bytes that may still be kept."""
        return self.cache_bytes - self._bytes

    def _upright(self, item: Item, values: AnyArray) -> AnyArray:
        return turned(values, self.turned_items.get(item.key, 1))

    def _keep(self, key: tuple[str, str], read: Callable[[], AnyArray]) -> AnyArray:
        if key not in self._kept:
            array = read()
            if array.nbytes > self.free_bytes:
                return array
            self._kept[key] = array
            self._bytes += array.nbytes
        return self._kept[key]


@dataclass(frozen=True)
class Survey:
    """What one pass found.

    Attributes:
        dataset: the items without errors; None where there are none, or where masks cannot be understood.
        findings: all problems.
    """

    dataset: Dataset | None
    findings: list[Finding]


def scan(
    folder: DatasetFolder,
    items: Sequence[Item],
    *,
    meant: DatasetFile | None = None,
    cache_bytes: int = 2**31,
) -> Dataset:
    """Read every image and mask once; stop with the files, values and pixel counts if anything is wrong.

    Args:
        folder: an opened data set.
        items: those of its items to look at.
        meant: classes that a folder without dataset.json is meant to have, such as those of a trained model.
        cache_bytes: bytes of decoded arrays that may be kept for later.

    Raises:
        RequestError: with the first problems and their number: unreadable files, image and mask of different
            size, mask values outside the classes.
    """
    if not items:
        raise RequestError(f"{folder.root}: no items are to be scanned; accepted: at least one. Choose another split.")
    found = survey(folder, items, meant=meant, cache_bytes=cache_bytes)
    errors = errors_among(found.findings)
    if errors:
        raise refusal(folder.root, errors)
    assert found.dataset is not None
    return found.dataset


def survey(
    folder: DatasetFolder,
    items: Sequence[Item],
    *,
    meant: DatasetFile | None = None,
    cache_bytes: int = 2**31,
    on_image: OnImage | None = None,
) -> Survey:
    """Read every image and mask once, list all problems, and describe what has no error; arguments as for `scan`."""
    pairs, findings = look_at(items, on_image)
    sieve = _Sieve(pairs, findings)
    sieve.drop(mixed_images(sieve.pairs))
    sieve.drop(mixed_masks(sieve.pairs))
    file, said_by = _declared(folder, sieve.pairs, meant)
    if file is None:
        sieve.drop([found for pair in sieve.pairs if (found := scattered_values(pair))])
        sieve.drop(two_meanings(sieve.pairs))
    if not sieve.pairs:
        return Survey(None, sieve.findings)
    try:
        encoding = _recognise(sieve.pairs, file, said_by)
    except RequestError as error:
        unclear = Finding(path=folder.root, text=str(error), kind=UNCLEAR)
        return Survey(None, [*sieve.findings, unclear])
    if encoding.kind == "colours":
        sieve.pairs = [Pair(pair.item, pair.seen.as_colours) for pair in sieve.pairs]
    names = file.classes if file else default_names(encoding, _counts(sieve.pairs))
    sieve.drop([_explained(pair, found) for pair in sieve.pairs if (found := outside(pair, encoding, names))])
    if file is None:
        sieve.drop(changing_colours(sieve.pairs, encoding))
    if not sieve.pairs:
        return Survey(None, sieve.findings)
    return _described(folder, sieve, encoding, names, file, cache_bytes)


def _described(
    folder: DatasetFolder,
    sieve: _Sieve,
    encoding: MaskEncoding,
    names: Sequence[str],
    file: DatasetFile | None,
    cache_bytes: int,
) -> Survey:
    counts = np.array([count_classes(pair, encoding, len(names)) for pair in sieve.pairs])
    data = Labelled(root=folder.root, pairs=sieve.pairs, encoding=encoding, names=names, counts=counts)
    worth_a_look = hints(data)
    sieve.findings += worth_a_look
    warnings = [found for found in sieve.findings if found.severity == "warning"]
    card = make_card(folder, data, file, warnings)
    turned_items = {pair.item.key: pair.seen.mask_orientation for pair in data.pairs if pair.seen.mask_orientation > 1}
    return Survey(Dataset(folder, card, cache_bytes, turned_items), sieve.findings)


@dataclass
class _Sieve:
    """Pairs without errors so far, and all findings."""

    pairs: list[Pair]
    findings: list[Finding]

    def drop(self, findings: Sequence[Finding]) -> None:
        """Take note of findings, and leave out the pairs that they spoil."""
        self.findings += findings
        spoilt = frozenset[str]().union(*(finding.spoils for finding in findings))
        self.pairs = [pair for pair in self.pairs if pair.item.key not in spoilt]


def _counts(pairs: Sequence[Pair]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for pair in pairs:
        for value, count in pair.seen.counts.items():
            counts[value] = counts.get(value, 0) + count
    return counts


def _recognise(pairs: Sequence[Pair], file: DatasetFile | None, said_by: str) -> MaskEncoding:
    coloured = any(pair.seen.coloured for pair in pairs)
    declared = file is not None and file.mask_encoding == "colours"
    evidence = Evidence(
        counts=_counts([Pair(pair.item, pair.seen.as_colours) for pair in pairs] if coloured or declared else pairs),
        coloured=coloured,
        palettes=all(pair.seen.palette is not None for pair in pairs),
        example=str(pairs[0].item.mask),
        numbering=lambda: numbers_objects(pairs),
    )
    return recognise_encoding(evidence, file, said_by=said_by)


def _declared(
    folder: DatasetFolder, pairs: Sequence[Pair], meant: DatasetFile | None
) -> tuple[DatasetFile | None, str]:
    """Return what is said of classes and masks, and by whom: dataset.json, a public data set, a trained model."""
    if folder.file is not None:
        return folder.file, "dataset.json"
    if folder.known is not None and pairs and _fits(pairs, folder.known):
        return folder.known, f"the description of {folder.known.name}"
    return meant, "the model"


def _fits(pairs: Sequence[Pair], known: DatasetFile) -> bool:
    try:
        encoding = _recognise(pairs, known, known.name)
    except RequestError:
        return False
    return all(outside(pair, encoding, known.classes) is None for pair in pairs)


def _explained(pair: Pair, found: Finding) -> Finding:
    """Return why values mean no class, where compression is the reason."""
    return scattered_values(pair) or found
