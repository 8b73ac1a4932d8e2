"""The data card: what is known of a data set after every file was looked at; stored with every run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pixelwise.data.dataset import DatasetFolder
from pixelwise.data.dataset_file import Colour, DatasetFile
from pixelwise.data.encoding import MaskEncoding
from pixelwise.data.hints import Labelled
from pixelwise.data.normalise import Normalisation
from pixelwise.data.pairs import Pair, SeenImage
from pixelwise.data.problems import Finding

LEAST_CONTRAST = 1e-6  # of the intensity range; below, an image is constant but for rounding


class ImagesCard(BaseModel):
    """What is known of a data set after the scan, whatever its truth is.

    Attributes:
        classes: names in index order.
        num_images: images per split.
        image_sizes: [height, width, count] of the training images (of all, without such), most frequent first.
        channels: of the images; grey ones are repeated where some are in colour.
        normalisation: from stored values to network input. The intensity range is the type's for 8 bits, the
            training images' own for 16 bits and floats; mean and deviation are the training images', or each
            image's own where images differ more from each other than within.
        decisions: what was recognised, in sentences.
        images_per_class: images that hold a class, per split and class.
        intensity: "min", "max" and "mean" of the stored values of the training images, per channel.
        warnings: number of problems that do not stop training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    root: str
    layout: str
    classes: tuple[str, ...]
    licence: str | None
    num_images: dict[str, int]
    split_source: str
    image_sizes: list[tuple[int, int, int]]
    channels: int
    dtype: str
    normalisation: Normalisation
    decisions: tuple[str, ...]
    images_per_class: dict[str, dict[str, int]] = {}
    intensity: dict[str, tuple[float, ...]] = {}
    warnings: int = 0


class DataCard(ImagesCard):
    """What is known of images with masks.

    Attributes:
        palette: colours [r, g, b] of the classes; one more is the colour of ignored pixels. None if unknown.
        pixel_counts: pixels per split and class; ignored pixels are under "(ignored)".
        cooccurrence: (K, K), images of all splits that hold both classes; the diagonal holds those with one.
        boundary_class: index of the class that separates objects, such as a membrane; None without one.
        num_objects: objects per split, None where none are numbered.
    """

    mask_encoding: MaskEncoding
    palette: tuple[Colour, ...] | None
    ignore_index: int | None
    pixel_counts: dict[str, dict[str, int]]
    cooccurrence: tuple[tuple[int, ...], ...] = ()
    boundary_class: int | None = None
    num_objects: dict[str, int] | None = None


def make_card(folder: DatasetFolder, data: Labelled, file: DatasetFile | None, warnings: Sequence[Finding]) -> DataCard:
    """Describe a data set.

    Args:
        folder: the files.
        data: what was seen of them; images go together.
        file: what dataset.json says, or what is known without it.
        warnings: what is worth a look.
    """
    pairs, names, encoding = data.pairs, tuple(data.names), data.encoding
    training = [pair for pair in pairs if pair.item.split == "train"] or list(pairs)
    channels = max(pair.seen.channels for pair in pairs)
    splits = in_usual_order(pair.item.split for pair in pairs)
    num_images = {split: sum(pair.item.split == split for pair in pairs) for split in splits}
    seen = [pair.seen for pair in training]
    return DataCard(
        name=folder.name,
        root=str(folder.root.resolve()),
        layout=folder.layout,
        mask_encoding=encoding,
        classes=names,
        palette=_palette(data, file),
        ignore_index=encoding.ignore_index,
        licence=(folder.file.licence or folder.file.terms) if folder.file else None,
        num_images=num_images,
        split_source=folder.split_source,
        pixel_counts={split: _named(data, split) for split in splits},
        image_sizes=sizes_of(seen),
        channels=channels,
        dtype=pairs[0].seen.dtype,
        normalisation=normalisation_of(seen, channels),
        decisions=tuple(_decisions(folder, data, file, num_images, channels, warnings)),
        images_per_class={split: dict(zip(names, map(int, data.held_by(split)), strict=True)) for split in splits},
        cooccurrence=_cooccurrence(data),
        boundary_class=file.boundary_index() if file else None,
        num_objects=_num_objects(pairs, encoding),
        intensity=intensity_of(seen, channels),
        warnings=len(warnings),
    )


def in_usual_order(splits: Iterable[str]) -> list[str]:
    """Return the different ones of some splits: train, val, test, then any others."""
    usual = {"train": 0, "val": 1, "test": 2}
    return sorted(set(splits), key=lambda split: (usual.get(split, 3), split))


def sizes_of(training: Sequence[SeenImage]) -> list[tuple[int, int, int]]:
    """Return [height, width, count] of images, most frequent first."""
    sizes, repeats = np.unique([seen.size for seen in training], axis=0, return_counts=True)
    order = np.argsort(-repeats, kind="stable")
    return [(int(sizes[i][0]), int(sizes[i][1]), int(repeats[i])) for i in order]


def _named(data: Labelled, split: str) -> dict[str, int]:
    total = sum(
        (row for pair, row in zip(data.pairs, data.counts, strict=True) if pair.item.split == split),
        start=np.zeros(len(data.names) + 1, dtype=np.int64),
    )
    return dict(zip([*data.names, "(ignored)"], map(int, total), strict=True))


def _cooccurrence(data: Labelled) -> tuple[tuple[int, ...], ...]:
    held = (data.counts[:, :-1] > 0).astype(np.int64)  # (N, K)
    return tuple(tuple(map(int, row)) for row in held.T @ held)


def _palette(data: Labelled, file: DatasetFile | None) -> tuple[Colour, ...] | None:
    if file is not None and file.palette is not None:
        return file.palette
    if data.encoding.kind == "palette":
        longest = max((pair.seen.palette or () for pair in data.pairs), key=len)
        return longest[: len(data.names)] if len(longest) >= len(data.names) else None
    return data.encoding.colours


def _num_objects(pairs: Sequence[Pair], encoding: MaskEncoding) -> dict[str, int] | None:
    numbered = encoding.kind == "objects"
    if not numbered and all(pair.seen.num_objects is None for pair in pairs):
        return None
    found: dict[str, int] = {}
    for pair in pairs:
        count = pair.seen.num_objects or 0
        if numbered:
            count = len(pair.seen.counts.keys() - {0, encoding.ignore_index})
        elif pair.seen.void_object and encoding.ignore_index == 255:
            count -= 1
        found[pair.item.split] = found.get(pair.item.split, 0) + count
    return found


def normalisation_of(training: Sequence[SeenImage], channels: int) -> Normalisation:
    """Return what brings training images of one type to mean 0 and deviation 1."""
    low, high = 0.0, 255.0
    if training[0].dtype != "uint8":
        low = min(min(seen.low) for seen in training)
        high = max(max(seen.high) for seen in training)
        high = high if high > low else low + 1.0
    means, variances = _moments(training, channels)
    areas = np.array([seen.pixels for seen in training], dtype=np.float64)
    mean = np.average(means, axis=0, weights=areas)
    std = np.sqrt(np.average(variances + (means - mean) ** 2, axis=0, weights=areas))
    std = np.where(std > LEAST_CONTRAST * (high - low), std, high - low)  # no contrast to bring to one
    return Normalisation(
        intensity_range=(low, high),
        mean=tuple(float(value) for value in (mean - low) / (high - low)),
        std=tuple(float(value) for value in std / (high - low)),
        # images that differ more from each other, in their means, than their pixels differ within them
        per_image=bool(means.var(axis=0).mean() > variances.mean()),
    )


def _moments(images: Sequence[SeenImage], channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of each image and channel, (N, C) each."""
    means = np.array([np.broadcast_to(seen.mean, channels) for seen in images])
    variances = np.array([np.broadcast_to(seen.variance, channels) for seen in images])
    return means, variances


def intensity_of(training: Sequence[SeenImage], channels: int) -> dict[str, tuple[float, ...]]:
    """Return least, largest and mean value of images, per channel."""
    low = np.array([np.broadcast_to(seen.low, channels) for seen in training]).min(axis=0)
    high = np.array([np.broadcast_to(seen.high, channels) for seen in training]).max(axis=0)
    areas = np.array([seen.pixels for seen in training], dtype=np.float64)
    mean = np.average(_moments(training, channels)[0], axis=0, weights=areas)
    return {name: tuple(map(float, row)) for name, row in (("min", low), ("max", high), ("mean", mean))}


def _decisions(
    folder: DatasetFolder,
    data: Labelled,
    file: DatasetFile | None,
    num_images: dict[str, int],
    channels: int,
    warnings: Sequence[Finding],
) -> list[str]:
    pairs, names = data.pairs, data.names
    shares = ", ".join(f"{split} {count}" for split, count in num_images.items())
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    known = f" (known from the file names of {file.name})" if file and file is folder.known else ""
    lines = [
        f"layout: {folder.layout}",
        f"images: {shares} ({folder.split_source}), {pairs[0].seen.dtype} {kind}",
        f"masks: {data.encoding.words}",
        f"classes: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}{known}",
    ]
    if len({pair.seen.channels for pair in pairs}) > 1:
        lines.append("some images are grey, some in colour: grey ones are repeated over three channels")
    lines += _turned(pairs)
    objects = _num_objects(pairs, data.encoding)
    with_map = sum(pair.item.instances is not None for pair in pairs)
    if with_map:
        lines.append(f"object ids: for {with_map} of {len(pairs)} images")
    elif objects is not None:
        lines.append(f"object ids: {sum(objects.values())} objects, from the masks")
    for split, count in folder.unlabelled.items():
        lines.append(f"split {split}: {count} images without masks, left out")
    if folder.ignored_files:
        count = len(folder.ignored_files)
        lines.append(f"{count} other file{'s' if count > 1 else ''} left out, such as {folder.ignored_files[0]}")
    if warnings:
        number = f"{len(warnings)} warnings, the first" if len(warnings) > 1 else "1 warning"
        lines.append(f"{number} (`pixelwise check` tells more): {warnings[0].text.split('; accepted')[0]}")
    return lines


def _turned(pairs: Sequence[Pair]) -> list[str]:
    lines = []
    rotated = [pair for pair in pairs if pair.seen.orientation > 1]
    if rotated:
        lines.append(f"{len(rotated)} of the images are turned as their EXIF says, such as {rotated[0].item.image}")
    masks = [pair for pair in rotated if pair.seen.mask_orientation > 1]
    if masks:
        lines.append(
            f"{len(masks)} of the masks are turned with them, since they have the size of the image before turning, "
            f"such as {masks[0].item.mask}"
        )
    return lines
