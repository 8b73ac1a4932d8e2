"""One pass over a data set before any work: every problem found, statistics taken, arrays kept for later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pixelwise.data.dataset import DatasetFile, DatasetFolder, Item
from pixelwise.data.encoding import MaskEncoding, recognise_encoding
from pixelwise.data.images import AnyArray, as_channels, read_image, read_mask
from pixelwise.data.normalise import Normalisation
from pixelwise.data.pairs import Seen, changing_colours, look_at, outside, two_meanings
from pixelwise.data.tiff import turned
from pixelwise.errors import RequestError

PROBLEMS_SHOWN = 2  # an error is three lines at most
LEAST_CONTRAST = 1e-6  # of the intensity range; below, an image is constant but for rounding


class DataCard(BaseModel):
    """What is known of a data set after the scan; stored with every run.

    Attributes:
        classes: names in index order.
        palette: colours [r, g, b] in the same order; one more is the colour of ignored pixels. None if unknown.
        num_images: images per split.
        pixel_counts: pixels per split and class; ignored pixels are under "(ignored)".
        image_sizes: [height, width, count] of the training images (of all, without such), most frequent first.
        channels: of the images; grey ones are repeated where some are in colour.
        normalisation: from stored values to network input. The intensity range is the type's for 8 bits, the
            training images' own for 16 bits and floats; mean and deviation are the training images', or each
            image's own where images differ more from each other than within.
        decisions: what was recognised, in sentences.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    root: str
    layout: str
    mask_encoding: MaskEncoding
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None
    ignore_index: int | None
    licence: str | None
    num_images: dict[str, int]
    split_source: str
    pixel_counts: dict[str, dict[str, int]]
    image_sizes: list[tuple[int, int, int]]
    channels: int
    dtype: str
    normalisation: Normalisation
    decisions: tuple[str, ...]


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
    _kept: dict[Path, AnyArray] = field(default_factory=dict, repr=False)
    _bytes: int = 0

    def image(self, item: Item) -> AnyArray:
        """Return an image (H, W, C) with the card's number of channels."""
        return self._keep(item.image, lambda: self.read_image(item))

    def labels(self, item: Item) -> AnyArray:
        """Return the class indices (H, W) of an item, uint8 or uint16."""
        return self._keep(item.mask, lambda: self.read_labels(item))

    def instances(self, item: Item) -> AnyArray | None:
        """Return the object ids (H, W) of an item, None where there is no file; they are used once and not kept."""
        path = item.instances
        return None if path is None else self._upright(item, read_mask(path).values)

    def read_image(self, item: Item) -> AnyArray:
        """Read an image without keeping it."""
        kept = self._kept.get(item.image)
        if kept is not None:
            return kept
        return as_channels(read_image(item.image), self.card.channels, str(item.image))

    def read_labels(self, item: Item) -> AnyArray:
        """Read the class indices without keeping them."""
        kept = self._kept.get(item.mask)
        if kept is not None:
            return kept
        return self._upright(item, self.card.mask_encoding.decode(read_mask(item.mask).values))

    @property
    def free_bytes(self) -> int:
        """Bytes that may still be kept."""
        return self.cache_bytes - self._bytes

    def _upright(self, item: Item, values: AnyArray) -> AnyArray:
        return turned(values, self.turned_items.get(_key(item), 1))

    def _keep(self, path: Path, read: Callable[[], AnyArray]) -> AnyArray:
        if path not in self._kept:
            array = read()
            if array.nbytes > self.free_bytes:
                return array
            self._kept[path] = array
            self._bytes += array.nbytes
        return self._kept[path]


def _key(item: Item) -> str:
    return f"{item.split}/{item.name}"


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
    seen, problems = look_at(items)
    if problems:
        raise _too_many(folder.root, problems)
    names, palette, ignore = _classes_of(folder.file or meant)
    values = sorted(set().union(*(pair.counts for pair in seen)))
    encoding = recognise_encoding(
        values,
        has_palette=all(pair.palette is not None for pair in seen),
        num_classes=len(names) if names else None,
        ignore_index=ignore,
        example=str(seen[0].item.mask),
    )
    declared = names is not None
    names = names or _default_names(encoding, max(value for value in values if value != encoding.ignore_index))
    problems = [problem for pair in seen if (problem := outside(pair, encoding, names))]
    if not declared:
        problems += two_meanings(seen, encoding) + changing_colours(seen, encoding)
    if problems:
        raise _too_many(folder.root, problems)
    if palette is None and encoding.kind == "palette":
        longest = max((pair.palette or () for pair in seen), key=len)
        palette = longest[: len(names)] if len(longest) >= len(names) else None
    card = _card(folder, seen, [_class_counts(pair, encoding, len(names)) for pair in seen], encoding, names, palette)
    turned_items = {_key(pair.item): pair.mask_orientation for pair in seen if pair.mask_orientation > 1}
    return Dataset(folder, card, cache_bytes, turned_items)


def _classes_of(
    file: DatasetFile | None,
) -> tuple[tuple[str, ...] | None, tuple[tuple[int, int, int], ...] | None, int | None]:
    return (file.classes, file.palette, file.ignore_index) if file else (None, None, None)


def _default_names(encoding: MaskEncoding, largest: int) -> tuple[str, ...]:
    if encoding.kind in ("binary_255", "binary_01"):
        return ("background", "foreground")
    return tuple(f"class_{index}" for index in range(largest + 1))


def _class_counts(pair: Seen, encoding: MaskEncoding, num_classes: int) -> NDArray[np.int64]:
    """Count the pixels of each class, ignored ones last and there alone."""
    source = [0, 255] if encoding.kind == "binary_255" else list(range(num_classes))
    counts = [0 if value == encoding.ignore_index else pair.counts.get(value, 0) for value in source]
    ignored = 0 if encoding.ignore_index is None else pair.counts.get(encoding.ignore_index, 0)
    return np.array([*counts, ignored], dtype=np.int64)


def _too_many(root: Path, problems: list[str]) -> RequestError:
    if len(problems) == 1:
        return RequestError(problems[0].rstrip(".") + ".")
    shown = "\n".join(f"  {problem.rstrip('.')}." for problem in problems[:PROBLEMS_SHOWN])
    first = f" (the first {PROBLEMS_SHOWN} here)" if len(problems) > PROBLEMS_SHOWN else ""
    return RequestError(f"{root}: {len(problems)} problems stop the work before it begins{first}:\n{shown}")


def _card(
    folder: DatasetFolder,
    seen: list[Seen],
    counts: list[NDArray[np.int64]],
    encoding: MaskEncoding,
    names: tuple[str, ...],
    palette: tuple[tuple[int, int, int], ...] | None,
) -> DataCard:
    channels = _common_channels(seen)
    training = [pair for pair in seen if pair.item.split == "train"] or seen
    low, high = _intensity_range(seen, training)
    mean, std = _mean_and_deviation(training, channels)
    std = np.where(std > LEAST_CONTRAST * (high - low), std, high - low)  # no contrast to bring to one
    per_split: dict[str, dict[str, int]] = {}
    for split in dict.fromkeys(pair.item.split for pair in seen):
        total = np.sum([c for pair, c in zip(seen, counts, strict=True) if pair.item.split == split], axis=0)
        per_split[split] = dict(zip([*names, "(ignored)"], map(int, total), strict=True))
    sizes, repeats = np.unique([pair.size for pair in training], axis=0, return_counts=True)
    order = np.argsort(-repeats, kind="stable")
    splits = {split: sum(pair.item.split == split for pair in seen) for split in per_split}
    file = folder.file
    return DataCard(
        name=folder.name,
        root=str(folder.root.resolve()),
        layout=folder.layout,
        mask_encoding=encoding,
        classes=names,
        palette=palette,
        ignore_index=encoding.ignore_index,
        licence=(file.licence or file.terms) if file else None,
        num_images=splits,
        split_source=folder.split_source,
        pixel_counts=per_split,
        image_sizes=[(int(sizes[i][0]), int(sizes[i][1]), int(repeats[i])) for i in order],
        channels=channels,
        dtype="/".join(sorted({pair.dtype for pair in seen})),
        normalisation=Normalisation(
            intensity_range=(low, high),
            mean=tuple(float(value) for value in (mean - low) / (high - low)),
            std=tuple(float(value) for value in std / (high - low)),
            per_image=_images_differ(training, channels),
        ),
        decisions=tuple(_decisions(folder, seen, encoding, names, splits, channels)),
    )


def _mean_and_deviation(seen: Sequence[Seen], channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation per channel over the pixels of all images together."""
    means = np.array([np.broadcast_to(pair.mean, channels) for pair in seen])
    variances = np.array([np.broadcast_to(pair.variance, channels) for pair in seen])
    areas = np.array([pair.size[0] * pair.size[1] for pair in seen], dtype=np.float64)
    mean = np.average(means, axis=0, weights=areas)
    variance = np.average(variances + (means - mean) ** 2, axis=0, weights=areas)
    return mean, np.sqrt(variance)


def _images_differ(seen: Sequence[Seen], channels: int) -> bool:
    """Say whether images differ more from each other, in their means, than their pixels differ within them."""
    means = np.array([np.broadcast_to(pair.mean, channels) for pair in seen])
    within = np.mean([np.broadcast_to(pair.variance, channels) for pair in seen])
    return bool(means.var(axis=0).mean() > within)


def _common_channels(seen: list[Seen]) -> int:
    kinds = sorted({pair.channels for pair in seen})
    if len([kind for kind in kinds if kind > 1]) > 1:
        raise RequestError(
            f"the images have different numbers of channels: {_examples(seen, lambda pair: pair.channels)}; accepted: "
            "one number for all, or grey beside colour. Convert the images to one kind."
        )
    return kinds[-1]


def _examples(seen: Iterable[Seen], kind: Callable[[Seen], str | int]) -> str:
    """Count the images of each kind and name one."""
    groups: dict[str | int, list[Seen]] = {}
    for pair in seen:
        groups.setdefault(kind(pair), []).append(pair)
    return ", ".join(
        f"{name} in {len(pairs)} image{'' if len(pairs) == 1 else 's'} (such as {pairs[0].item.image})"
        for name, pairs in groups.items()
    )


def _intensity_range(seen: list[Seen], training: list[Seen]) -> tuple[float, float]:
    """Return the values that become 0 and 1; images of different bit depth cannot share them."""
    dtypes = sorted({pair.dtype for pair in seen})
    if len(dtypes) > 1:
        raise RequestError(
            f"the images have different types: {_examples(seen, lambda pair: pair.dtype)}; accepted: one type for "
            "all. Convert the images to one bit depth."
        )
    if dtypes == ["uint8"]:
        return 0.0, 255.0
    low, high = min(pair.low for pair in training), max(pair.high for pair in training)
    return (low, high) if high > low else (low, low + 1.0)


def _decisions(
    folder: DatasetFolder,
    seen: list[Seen],
    encoding: MaskEncoding,
    names: tuple[str, ...],
    splits: dict[str, int],
    channels: int,
) -> list[str]:
    shares = ", ".join(f"{split} {count}" for split, count in splits.items())
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    lines = [
        f"layout: {folder.layout}",
        f"images: {shares} ({folder.split_source}), {seen[0].dtype} {kind}",
        f"masks: {encoding.words}",
        f"classes: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}",
    ]
    if len({pair.channels for pair in seen}) > 1:
        lines.append("some images are grey, some in colour: grey ones are repeated over three channels")
    rotated = [pair for pair in seen if pair.orientation > 1]
    if rotated:
        lines.append(f"{len(rotated)} of the images are turned as their EXIF says, such as {rotated[0].item.image}")
    masks = [pair for pair in rotated if pair.mask_orientation > 1]
    if masks:
        lines.append(
            f"{len(masks)} of the masks are turned with them, since they have the size of the image before turning, "
            f"such as {masks[0].item.mask}"
        )
    with_objects = sum(pair.item.instances is not None for pair in seen)
    if with_objects:
        lines.append(f"object ids: for {with_objects} of {len(seen)} images")
    for split, count in folder.unlabelled.items():
        lines.append(f"split {split}: {count} images without masks, left out")
    if folder.ignored_files:
        count = len(folder.ignored_files)
        lines.append(f"{count} other file{'s' if count > 1 else ''} left out, such as {folder.ignored_files[0]}")
    return lines
