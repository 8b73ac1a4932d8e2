"""What can be wrong with single pairs and with masks together, told from what was seen of each pair."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pixelwise.data.encoding import MaskEncoding
from pixelwise.data.images import unpack_colour
from pixelwise.data.pairs import Pair, Seen
from pixelwise.data.problems import Finding, Severity

VALUES_SHOWN = 4
CLASSES_SHOWN = 4
Kind = TypeVar("Kind", bound=Hashable)


def finding(pair: Pair, text: str, kind: str, severity: Severity = "error", path: Path | None = None) -> Finding:
    """Return a finding on one pair; an error spoils it."""
    spoils = frozenset({pair.item.key}) if severity == "error" else frozenset[str]()
    return Finding(path=path or pair.item.mask, text=text, kind=kind, severity=severity, spoils=spoils)


def pixels(count: int) -> str:
    """Return a number of pixels in words."""
    return f"{count} pixel{'' if count == 1 else 's'}"


def images(count: int) -> str:
    """Return a number of images in words."""
    return f"{count} image{'' if count == 1 else 's'}"


def value_words(value: int, *, coloured: bool) -> str:
    """Return a value of a mask as it is written: a number, or a colour [r, g, b]."""
    return str(list(unpack_colour(value))) if coloured else str(value)


def mixed_images(pairs: Sequence[Pair]) -> list[Finding]:
    """Refuse images of different channels or types; grey ones may stand beside colour."""
    found = _minority(
        pairs,
        lambda seen: seen.channels,
        lambda kinds: len([kind for kind in kinds if kind > 1]) > 1,
        "the images have different numbers of channels: {}; accepted: one number for all, or grey beside colour. "
        "Convert the images to one kind.",
        always=1,
    )
    return found + _minority(
        pairs,
        lambda seen: seen.dtype,
        lambda kinds: len(kinds) > 1,
        "the images have different types: {}; accepted: one type for all. Convert the images to one bit depth.",
    )


def mixed_masks(pairs: Sequence[Pair]) -> list[Finding]:
    """Refuse masks in colour beside masks of one channel."""

    def form(seen: Seen) -> str:
        return "palette" if seen.palette is not None else "colour" if seen.mask_channels == 3 else "one channel"

    if not any(pair.seen.coloured for pair in pairs):
        return []
    return _minority(
        pairs,
        form,
        lambda kinds: len(kinds) > 1,
        "the masks are of different kinds: {}; accepted: all in colour, or all with class numbers. Export them in one "
        "way.",
        of_mask=True,
    )


def grouped(pairs: Iterable[Pair], kind_of: Callable[[Seen], Kind]) -> dict[Kind, list[Pair]]:
    """Group pairs by something that they have in common."""
    groups: dict[Kind, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(kind_of(pair.seen), []).append(pair)
    return groups


def _minority(
    pairs: Sequence[Pair],
    kind_of: Callable[[Seen], Kind],
    refused: Callable[[set[Kind]], bool],
    text: str,
    *,
    always: Kind | None = None,
    of_mask: bool = False,
) -> list[Finding]:
    """Refuse a mixture of kinds in one sentence; all but the most frequent kind are spoilt, `always` is not."""
    groups = grouped(pairs, kind_of)
    if not refused(set(groups)):
        return []
    usual = max((kind for kind in groups if kind != always), key=lambda kind: len(groups[kind]))
    others = [pair for kind, group in groups.items() if kind not in (usual, always) for pair in group]

    def file(pair: Pair) -> Path:
        return pair.item.mask if of_mask else pair.item.image

    shown = ", ".join(f"{kind} in {images(len(group))} (such as {file(group[0])})" for kind, group in groups.items())
    return [
        Finding(
            path=file(others[0]),
            text=text.format(shown),
            kind="masks of different kinds" if of_mask else "images of different kinds",
            spoils=frozenset(pair.item.key for pair in others),
        )
    ]


def scattered_values(pair: Pair) -> Finding | None:
    """Refuse a mask whose values were scattered by compression."""
    seen, scatter = pair.seen, pair.seen.scatter
    if scatter is None:
        return None
    what = "colours" if seen.coloured else "values"
    shown = ", ".join(
        f"{value_words(value, coloured=seen.coloured)} in {share:.0%}" for value, share in scatter.centres
    )
    threshold = " or set values from 128 on to 255 and the others to 0," if scatter.two_sided else ""
    text = (
        f"{pair.item.mask} holds {scatter.num_values} {what}, many in single pixels around a few ({shown}), as JPEG "
        "compression or smooth resizing leaves them; accepted: masks that were never compressed or resized so. Export "
        f"the labels again,{threshold} since saving as PNG does not bring them back; if these all are classes, name "
        "them in dataset.json."
    )
    return finding(pair, text, "compressed mask")


def outside(pair: Pair, encoding: MaskEncoding, names: Sequence[str]) -> Finding | None:
    """Name the values of a mask that mean no class."""
    seen = pair.seen
    # The white of a 1-bit file is 255 only because we say so, and is not what a data set ignores.
    wrong = [
        value
        for value, label in encoding.labels(seen.counts, len(names)).items()
        if label is None or (seen.bilevel and value == 255 == encoding.ignore_index)
    ]
    if not wrong:
        return None
    text = _outside_bilevel if seen.bilevel else _outside_colours if seen.coloured else _outside_values
    return finding(pair, text(pair, wrong, encoding, names), "value without class")


def _outside_bilevel(pair: Pair, wrong: Sequence[int], encoding: MaskEncoding, names: Sequence[str]) -> str:
    return (
        f"{pair.item.mask} is a black and white (1-bit) file with {pixels(pair.seen.counts[255])} of white, but the "
        f"masks are recognised as class numbers ({encoding.words}); accepted: one kind for all. Save it with "
        "8 bits and class numbers, or all masks in black and white."
    )


def _outside_colours(pair: Pair, wrong: Sequence[int], encoding: MaskEncoding, names: Sequence[str]) -> str:
    counts = pair.seen.counts
    wrong = sorted(wrong, key=lambda value: -counts[value])
    shown = ", ".join(f"{list(unpack_colour(value))} ({pixels(counts[value])})" for value in wrong[:VALUES_SHOWN])
    return (
        f"{pair.item.mask} holds {'the colour' if len(wrong) == 1 else f'{len(wrong)} colours'} {shown}"
        f"{', ...' if len(wrong) > VALUES_SHOWN else ''}; accepted: the {len(encoding.colours or ())} colours of the "
        "palette in dataset.json. Correct the mask, add class and colour, or add the colour of ignored pixels at the "
        "end of the palette."
    )


def _outside_values(pair: Pair, wrong: Sequence[int], encoding: MaskEncoding, names: Sequence[str]) -> str:
    counts, palette = pair.seen.counts, pair.seen.palette or ()

    def told(value: int) -> str:
        colour = f", shown as {list(palette[value])}" if value < len(palette) else ""
        return f"value {value} ({pixels(counts[value])}{colour})"

    shown = ", ".join(told(value) for value in wrong[:VALUES_SHOWN])
    ignored = f" and {encoding.ignore_index} (ignored)" if encoding.ignore_index is not None else ""
    accepted = "0 and 255" if encoding.kind == "binary_255" else f"0 to {len(names) - 1}"
    return (
        f"{pair.item.mask} holds {shown}{', ...' if len(wrong) > VALUES_SHOWN else ''}; accepted: {accepted} "
        f"({', '.join(names[:CLASSES_SHOWN])}{', ...' if len(names) > CLASSES_SHOWN else ''}){ignored}. Correct the "
        f'mask, add the class, or write "ignore_index": {wrong[0]} into dataset.json if these pixels should not count.'
    )


def two_meanings(pairs: Sequence[Pair]) -> list[Finding]:
    """Refuse a mixture of 0/1 and 0/255 masks, whose 255 would count as ignored."""
    values = set[int]().union(*(pair.seen.counts for pair in pairs))
    both = [pair for pair in pairs if {1, 255} <= pair.seen.counts.keys()]
    if values != {0, 1, 255} or both:
        return []
    groups = {value: [pair for pair in pairs if value in pair.seen.counts] for value in (1, 255)}
    one, white = groups[1][0], groups[255][0]
    text = (
        f"{one.item.mask} holds the value 1 ({pixels(one.seen.counts[1])}), {white.item.mask} the value 255 "
        f"({pixels(white.seen.counts[255])}), and no mask both, so that 255 may mean class 1 or ignored pixels; "
        "accepted: one meaning. Give all masks the same values, or write dataset.json with name, classes and "
        '"ignore_index": 255.'
    )
    spoils = frozenset(pair.item.key for pair in min(groups.values(), key=len))
    return [Finding(path=one.item.mask, text=text, kind="masks of different kinds", spoils=spoils)]


def changing_colours(pairs: Sequence[Pair], encoding: MaskEncoding) -> list[Finding]:
    """Refuse palette masks in which the same index has different colours: each file then numbers its own classes."""
    if encoding.kind != "palette":
        return []
    first: dict[int, tuple[tuple[int, int, int], Path]] = {}
    found = []
    for pair in pairs:
        palette = pair.seen.palette or ()
        for value in pair.seen.counts:
            if value >= len(palette):
                continue
            colour, path = first.setdefault(value, (palette[value], pair.item.mask))
            if colour != palette[value]:
                text = (
                    f"{pair.item.mask} shows the palette index {value} as {list(palette[value])}, {path} as "
                    f"{list(colour)}; accepted: one palette for all masks, since indices are class numbers. Save the "
                    "masks with the same palette, or write dataset.json with name and classes if only the colours "
                    'differ, with palette and "mask_encoding": "colours" if the colours are the classes.'
                )
                found.append(finding(pair, text, "masks of different kinds"))
                break
    return found
