"""Which mask belongs to which image: by name, by name with a word such as `_mask`, and page by page in stacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pixelwise.data.images import TIFF_SUFFIXES
from pixelwise.data.items import Item
from pixelwise.data.layouts import IMAGES, MASKS, Layout, Part, without_word
from pixelwise.data.problems import Finding
from pixelwise.data.tiff import whole_pages

NO_PARTNER = "file without partner"
_Key = Callable[[str], str]


def pair_up(layout: Layout) -> tuple[list[Item], list[Finding], dict[str, int]]:
    """Pair the images of a layout with their masks.

    Returns:
        The items, sorted by split and name; files that have no partner; and the number of images of each split
        that comes without masks.
    """
    items: list[Item] = []
    findings: list[Finding] = []
    unlabelled: dict[str, int] = {}
    for part in layout.parts:
        if part.images and not part.masks and part.split not in ("", "train", "val"):
            unlabelled[part.split] = sum(len(_pages(path)) for path in part.images.values())
            continue
        pairs, problems = _pairs(part)
        findings += problems
        for pair in pairs:
            pages = _page_by_page(pair)
            if isinstance(pages, Finding):
                findings.append(pages)
            else:
                items += pages
    return items, findings, unlabelled


def _pairs(part: Part) -> tuple[list[Item], list[Finding]]:
    of_image, of_mask = _keys(part)
    images, findings = _by_key(part.images, of_image, "image")
    masks, twice = _by_key(part.masks, of_mask, "mask")
    findings += twice
    for path in [path for key, path in images.items() if key not in masks]:
        findings.append(_alone(path, part, f"{path} has no mask of the same name in {part.places[1]}"))
    for key, path in [*masks.items(), *part.instances.items()]:
        if key not in images:
            findings.append(_alone(path, part, f"{path} has no image of the same name in {part.places[0]}"))
    pairs = [
        Item(name=path.stem, split=part.split or "all", image=path, mask=masks[key], instances=part.instances.get(key))
        for key, path in images.items()
        if key in masks
    ]
    return pairs, findings


def _keys(part: Part) -> tuple[_Key, _Key]:
    """Return what images and masks of one pair have in common: the name, else the name without `_mask`, ..."""

    def same(stem: str) -> str:
        return stem

    def image_word(stem: str) -> str:
        return without_word(stem, (*IMAGES, "sat", "leftImg8bit"))

    def mask_word(stem: str) -> str:
        return without_word(stem, (*MASKS, "L"))  # _L: CamVid

    ways: list[tuple[_Key, _Key]] = [(same, same), (same, mask_word), (image_word, mask_word)]
    for of_image, of_mask in ways:
        if {of_image(stem) for stem in part.images} & {of_mask(stem) for stem in part.masks}:
            return of_image, of_mask
    return same, same


def _by_key(files: Mapping[str, Path], key: _Key, what: str) -> tuple[dict[str, Path], list[Finding]]:
    found: dict[str, Path] = {}
    findings = []
    for stem, path in files.items():
        if key(stem) in found:
            text = (
                f"{path} and {found[key(stem)].name} are both the {what} of {key(stem)!r} by their names; accepted: "
                f"one {what} a name. Move one of them away."
            )
            findings.append(Finding(path=path, text=text, kind=NO_PARTNER))
        else:
            found[key(stem)] = path
    return found, findings


def _alone(path: Path, part: Part, what: str) -> Finding:
    text = (
        f"{what}; accepted: the same name before the ending, or that name with a word such as _mask. Add the missing "
        "file, or remove this one."
    )
    return Finding(path=path, text=text, kind=NO_PARTNER)


def _page_by_page(pair: Item) -> Sequence[Item] | Finding:
    """Return the pair itself, or one item for each page of a pair of stacks."""
    pages = [_pages(path) for path in (pair.image, pair.mask, pair.instances) if path is not None]
    if all(len(one) == 1 for one in pages):
        return [pair]
    if len({len(one) for one in pages}) > 1 or len(set(pages)) > 1:
        what = " and ".join(
            f"{len(one)} in {path}" for one, path in zip(pages[1:], (pair.mask, pair.instances), strict=False)
        )
        text = (
            f"{pair.image} holds {len(pages[0])} images (pages), but there are {what}; accepted: stacks with the same "
            "number of pages. Export both again, or save each page as a file of its own; pages that are channels "
            "belong into one image of so many channels."
        )
        return Finding(path=pair.image, text=text, kind=NO_PARTNER)
    digits = max(3, len(str(len(pages[0]) - 1)))
    return [replace(pair, name=f"{pair.name}_{i:0{digits}}", page=page) for i, page in enumerate(pages[0])]


def _pages(path: Path) -> tuple[int, ...]:
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return (0,)
    try:
        return whole_pages(path)
    except Exception:  # broken in one of many ways, which reading it will tell
        return (0,)


def names_twice(items: Sequence[Item]) -> Iterator[Finding]:
    """Name items that cannot be told apart, such as the page of one stack and an image of that name."""
    first: dict[str, Item] = {}
    for item in items:
        other = first.setdefault(item.key, item)
        if other is not item:
            text = (
                f"{item.image} and {other.image} both make the item {item.name!r}; accepted: one item a name. Rename "
                "one of them."
            )
            yield Finding(path=item.image, text=text, kind=NO_PARTNER, spoils=frozenset({item.key}))
