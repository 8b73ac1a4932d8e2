"""Which values in a mask file mean which class: recognised once for a data set, then applied by a table.

Recognition looks at the values of all masks together. What does not decide itself is refused with the reason, and
`"mask_encoding"` in dataset.json settles it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pixelwise.data.dataset_file import Colour, DatasetFile, DeclaredEncoding
from pixelwise.data.images import RawMask, pack_colour, unpack_colour
from pixelwise.errors import RequestError

Kind = Literal["index", "palette", "binary_255", "binary_01", "colours", "objects"]
IGNORE = 255  # the usual value of pixels that must not count, where nothing else is said
MOST_COLOURS = 64  # that become classes without a palette in dataset.json


class MaskEncoding(BaseModel):
    """How the values of mask files become class indices.

    Attributes:
        kind: "index" (values are class numbers), "palette" (the same, in palette PNGs), "binary_255" (0 and
            255), "binary_01" (0 and 1), "colours" (each colour is a class) or "objects" (each value but 0 is an
            object of the second class).
        ignore_index: label of pixels that are neither trained on nor scored, None if there are none.
        words: the decision in a sentence, for people.
        colours: of the classes in order, and of ignored pixels last where they have one; None for other kinds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    ignore_index: int | None
    words: str
    colours: tuple[Colour, ...] | None = None

    @property
    def declared(self) -> DeclaredEncoding:
        """The word for it in dataset.json."""
        return "binary" if self.kind == "binary_255" or self.kind == "binary_01" else self.kind

    def labels(self, values: Iterable[int], num_classes: int) -> dict[int, int | None]:
        """Return the class that each value of a mask means, None for those that mean none."""
        if self.kind == "colours":
            known = self._labels_of_colours(num_classes)
            return {value: known.get(value) for value in values}
        return {value: self._label(value, num_classes) for value in values}

    def _label(self, value: int, num_classes: int) -> int | None:
        if value == self.ignore_index:
            return value
        if self.kind == "objects":
            return int(value > 0)
        if self.kind == "binary_255":
            return {0: 0, 255: 1}.get(value)
        return value if value < num_classes else None

    def decode(self, mask: RawMask, num_classes: int) -> NDArray[Any]:
        """Turn a mask into class indices (H, W), uint8 or uint16.

        Raises:
            RequestError: if the mask holds a colour of no class.
        """
        if self.kind == "colours":
            return self._decode_colours(mask, num_classes)
        if self.kind in ("index", "palette", "binary_01"):
            return mask.values
        labels = (mask.values > 0 if self.kind == "objects" else mask.values == 255).astype(mask.values.dtype)
        if self.ignore_index is not None:
            labels[mask.values == self.ignore_index] = self.ignore_index
        return labels.astype(np.uint8) if (self.ignore_index or 0) < 256 else labels

    def object_ids(self, mask: RawMask) -> NDArray[Any]:
        """Return the objects (H, W) that the values of an "objects" mask number."""
        return mask.values if self.ignore_index is None else mask.values * (mask.values != self.ignore_index)

    def _labels_of_colours(self, num_classes: int) -> dict[int, int]:
        colours = self.colours or ()
        labels = {pack_colour(colour): index for index, colour in enumerate(colours[:num_classes])}
        if len(colours) > num_classes and self.ignore_index is not None:
            labels[pack_colour(colours[num_classes])] = self.ignore_index
        return labels

    def _decode_colours(self, mask: RawMask, num_classes: int) -> NDArray[Any]:
        labels = self._labels_of_colours(num_classes)
        known = np.array(sorted(labels), dtype=np.uint32)
        dtype = np.uint8 if max(labels.values()) < 256 else np.uint16
        values = mask.colours
        place = np.minimum(np.searchsorted(known, values), len(known) - 1)
        wrong = known[place] != values
        if wrong.any():
            colour = list(unpack_colour(int(values[wrong][0])))
            raise RequestError(
                f"a mask holds the colour {colour}, which means no class; accepted: the colours that were found when "
                "the data was read first. Start again."
            )
        return np.array([labels[int(value)] for value in known], dtype=dtype)[place]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What all masks of a data set hold together.

    Attributes:
        counts: pixels of each value; colours are packed in a number.
        coloured: some masks are pictures in colour.
        palettes: all masks are palette PNGs.
        example: a mask file, for error messages.
        numbering: whether values number objects: True, False, or None where that cannot be told.
    """

    counts: Mapping[int, int]
    coloured: bool
    palettes: bool
    example: str
    numbering: Callable[[], bool | None]

    @property
    def values(self) -> list[int]:
        """All values in rising order."""
        return sorted(self.counts)


def recognise_encoding(evidence: Evidence, file: DatasetFile | None, *, said_by: str = "dataset.json") -> MaskEncoding:
    """Decide how masks are encoded.

    Args:
        evidence: all masks together.
        file: what dataset.json says, None without one.
        said_by: who says so, if it is not dataset.json.

    Raises:
        RequestError: if the values fit none of the encodings, or more than one.
    """
    if file is not None and file.mask_encoding is not None:
        return _as_declared(evidence, file, said_by)
    if evidence.coloured:
        return _colours(evidence, file, said_by)
    return _with_classes(evidence, file, said_by) if file is not None else _by_values(evidence)


def _as_declared(evidence: Evidence, file: DatasetFile, said_by: str) -> MaskEncoding:
    kind, ignore = file.mask_encoding, file.ignore_index
    said = f"as {said_by} says"
    if kind == "colours":
        return _colours(evidence, file, said_by)
    if evidence.coloured:
        raise RequestError(
            f"dataset.json says mask_encoding {kind!r}, but masks (such as {evidence.example}) are in colour; accepted "
            'for them: "colours" with a palette. Correct the line, or export the masks again.'
        )
    if kind == "palette" and not evidence.palettes:
        raise RequestError(
            f"dataset.json says mask_encoding 'palette', but masks (such as {evidence.example}) have no palette; "
            'accepted for class numbers without one: "index". Correct the line.'
        )
    if kind == "objects":
        return _encoding("objects", ignore, f"{_HOW['objects']}, {said}")
    if kind == "binary":
        white = 255 in evidence.counts and ignore != 255
        return _encoding("binary_255" if white else "binary_01", ignore, f"{_BINARY[white]}, {said}")
    plain: Kind = "palette" if kind == "palette" else "index"
    return _encoding(plain, ignore, f"{_HOW[plain]}, {said}")


def _with_classes(evidence: Evidence, file: DatasetFile, said_by: str) -> MaskEncoding:
    present, ignore, count = set(evidence.counts), file.ignore_index, len(file.classes)
    if count == 2 and 255 in present and present <= {0, 255} and ignore not in present:
        return _encoding("binary_255", None, "binary 0/255 masks: 0 is the first class, 255 the second")
    outside = [value for value in present if value >= count and value != ignore]
    if count == 2 and outside and not evidence.palettes and evidence.numbering():
        return _encoding("objects", ignore, f"{_HOW['objects']} of the second class")
    kind: Kind = "palette" if evidence.palettes else "index"
    return _encoding(kind, ignore, f"{_HOW[kind]}, classes named by {said_by}")


def _by_values(evidence: Evidence) -> MaskEncoding:
    present, values = set(evidence.counts), evidence.values
    if len(present) == 1:
        raise RequestError(
            f"the masks (such as {evidence.example}) hold the value {values[0]} only, so there is nothing to tell "
            "apart; accepted: masks with at least two values. Check how they were exported, or write dataset.json with "
            f"{_DATASET_JSON} beside the folders."
        )
    if present == {0, 255}:
        return _encoding("binary_255", None, f"{_BINARY[True]}: 0 is background, 255 is foreground")
    if present == {0, 1}:
        return _encoding("binary_01", None, f"{_BINARY[False]}: 0 is background, 1 is foreground")
    classes = sorted(present - {IGNORE})
    numbering = False if evidence.palettes else evidence.numbering()
    if numbering:
        return _encoding("objects", None, _HOW["objects"])
    # Class numbers are small and mostly all present; grey levels (0, 85, 170) leave wide gaps.
    if numbering is False and classes[-1] < IGNORE and 2 * len(classes) >= classes[-1] + 1:
        kind: Kind = "palette" if evidence.palettes else "index"
        ignore = IGNORE if IGNORE in present else None
        ignored = ", 255 is ignored" if ignore is not None else ""
        return _encoding(kind, ignore, f"{_HOW[kind]}: classes 0 to {classes[-1]}{ignored}")
    shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    raise RequestError(
        f"the masks (such as {evidence.example}) hold {len(values)} values: {shown}, whose meaning would be a guess; "
        "accepted: class numbers from 0 without wide gaps, 0/1 and 0/255 masks, and what dataset.json settles. If "
        f"each value is an object, write dataset.json with {_OBJECTS_JSON}; if they are class numbers, with "
        f"{_DATASET_JSON}."
    )


def _colours(evidence: Evidence, file: DatasetFile | None, said_by: str) -> MaskEncoding:
    found = [unpack_colour(value) for value in evidence.values]  # black first, then by red, green, blue
    if file is not None and file.palette is not None:
        ignored = len(file.palette) > len(file.classes)
        ignore = file.ignore_index
        if ignored and ignore is None:
            ignore = IGNORE if len(file.classes) <= IGNORE else 65535
        words = f"{_HOW['colours']} by the palette of {said_by}"
        return MaskEncoding(kind="colours", ignore_index=ignore, words=words, colours=file.palette)
    told = MOST_COLOURS if file is not None else 8
    shown = ", ".join(str(list(colour)) for colour in found[:told]) + (", ..." if len(found) > told else "")
    if file is not None:
        raise RequestError(
            f"the masks (such as {evidence.example}) are in colour ({len(found)} colours), but {said_by} does not say "
            f"which colour is which of the {len(file.classes)} classes; accepted: a palette. Add the line "
            f'"palette": [{shown}] to dataset.json, with the colours in the order of the classes, that of ignored '
            "pixels last."
        )
    if len(found) > MOST_COLOURS:
        raise RequestError(
            f"the masks (such as {evidence.example}) hold {len(found)} colours: {shown}; accepted without "
            f"dataset.json: up to {MOST_COLOURS}, each of them a class. Write dataset.json with name, classes and "
            "palette, or check whether these are masks."
        )
    words = f"{_HOW['colours']}: {len(found)} colours, classes in the order of red, green, blue"
    return MaskEncoding(kind="colours", ignore_index=None, words=words, colours=tuple(found))


_DATASET_JSON = '{"name": ..., "classes": [...]}'
_OBJECTS_JSON = '{"name": "cells", "classes": ["background", "object"], "mask_encoding": "objects"}'
_BINARY = {True: "binary 0/255 masks", False: "binary 0/1 masks"}
_HOW = {
    "index": "values are class numbers",
    "palette": "palette PNGs, whose indices are class numbers",
    "colours": "pictures in colour, each colour a class",
    "objects": "values are object ids: 0 is background, every other value is one object",
}


def _encoding(kind: Kind, ignore_index: int | None, words: str) -> MaskEncoding:
    return MaskEncoding(kind=kind, ignore_index=ignore_index, words=words)


def default_names(encoding: MaskEncoding, values: Mapping[int, int]) -> tuple[str, ...]:
    """Return names for the classes of masks that come without dataset.json."""
    if encoding.colours is not None:
        return tuple(f"#{pack_colour(colour):06x}" for colour in encoding.colours)
    if encoding.kind in ("binary_255", "binary_01"):
        return ("background", "foreground")
    if encoding.kind == "objects":
        return ("background", "object")
    return tuple(f"class_{index}" for index in range(max(set(values) - {encoding.ignore_index}) + 1))
