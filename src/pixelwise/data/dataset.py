"""A data set on disk: which image belongs to which mask, which split, which classes.

The usual arrangements of folders and files are recognised, see `layouts`; `dataset.json` may say the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixelwise.data.dataset_file import DatasetFile, read_dataset_file
from pixelwise.data.images import IMAGE_SUFFIXES
from pixelwise.data.items import Item
from pixelwise.data.known import known_by_names
from pixelwise.data.layouts import LAYOUT_HELP, recognise_layout
from pixelwise.data.pairing import NO_PARTNER, names_twice, pair_up
from pixelwise.data.problems import Finding, errors_among, refusal
from pixelwise.errors import RequestError, closest

__all__ = [
    "DatasetFile",
    "DatasetFolder",
    "Item",
    "find_dataset",
    "nothing_found",
    "open_dataset",
    "read_names",
    "settle_splits",
]

VALIDATION_SHARE = 0.2
FILES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class DatasetFolder:
    """The files of a data set, before any of them is opened.

    Attributes:
        root: the folder.
        file: contents of dataset.json, None without one.
        known: what is known of a public data set, recognised by the names of its files.
        items: all image/mask pairs, sorted by split and file name.
        layout: the recognised layout, in words.
        split_source: where the splits come from, in words.
        ignored_files: files and folders in images/ or masks/ that are no images; hidden ones are not listed.
        unlabelled: number of images of the splits that have no masks; these splits have no items.
        findings: files that have no partner.
    """

    root: Path
    file: DatasetFile | None
    known: DatasetFile | None = None
    items: tuple[Item, ...]
    layout: str
    split_source: str
    ignored_files: tuple[Path, ...] = ()
    unlabelled: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        """Name of the data set: dataset.json's, or the folder's."""
        return self.file.name if self.file else self.root.resolve().name

    def split(self, name: str) -> list[Item]:
        """Return the items of a split; an empty or unknown one is an error that lists the splits."""
        items = [item for item in self.items if item.split == name]
        if not items:
            known = ", ".join(dict.fromkeys(item.split for item in self.items))
            if name in self.unlabelled:
                raise RequestError(
                    f"{self.root}: the {self.unlabelled[name]} images of split {name!r} have no masks; "
                    f"accepted: splits with masks ({known}). Choose one of them, or add masks/{name}."
                )
            raise RequestError(f"{self.root} has no split {name!r}; accepted: {known}. Choose one of them.")
        return items


def open_dataset(root: Path, *, val_list: Path | None = None, test_list: Path | None = None) -> DatasetFolder:
    """Recognise the layout of a folder, pair images with masks and settle the splits.

    The items of `test_list` (one name a line) are held out as split `test`. Without a `val` split, the items of
    `val_list` become the validation set; without a list, a fifth of the items does, chosen by a hash of their names,
    the same for every seed and machine.

    Raises:
        RequestError: if the folder is missing or not recognised, an image has no mask, or a list does not fit.
    """
    folder = find_dataset(Path(root), read_dataset_file(Path(root) / "dataset.json"))
    errors = errors_among(folder.findings)
    if errors:
        raise _without_partner(folder.root, errors)
    if not folder.items:
        raise RequestError(nothing_found(folder))
    return settle_splits(folder, val_list=val_list, test_list=test_list)


def find_dataset(root: Path, file: DatasetFile | None) -> DatasetFolder:
    """Recognise the layout of a folder and pair images with masks; what has no partner is among the findings.

    Raises:
        RequestError: if the folder is missing or not recognised.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise RequestError(f"data folder {root} {what}. {LAYOUT_HELP}")
    layout = recognise_layout(root)
    items, findings, unlabelled = pair_up(layout)
    known = known_by_names((stem for part in layout.parts for stem in part.images), layout.kind)
    return DatasetFolder(
        root=root,
        file=file,
        known=known,
        items=tuple(items),
        layout=layout.words + (" with dataset.json" if file else " without dataset.json"),
        split_source="folders" if layout.kind not in ("voc", "stacks") else "file names and lists",
        ignored_files=tuple(layout.ignored),
        unlabelled=unlabelled,
        findings=(*layout.findings, *findings, *names_twice(items)),
    )


def _without_partner(root: Path, errors: Sequence[Finding]) -> RequestError:
    """Return one error for all files; many without partner are named in a row."""
    if len(errors) == 1 or any(error.kind != NO_PARTNER for error in errors):
        return refusal(root, errors)
    shown = ", ".join(str(error.path) for error in errors[:FILES_SHOWN])
    more = f", ... (`pixelwise check {root}` lists all)" if len(errors) > FILES_SHOWN else ""
    return RequestError(
        f"{len(errors)} files have no partner of the same name: {shown}{more}; accepted: one mask for each image, with "
        "the same name before the ending. Add the missing files or remove the others."
    )


def nothing_found(folder: DatasetFolder) -> str:
    """Say that a recognised layout holds no pairs."""
    what = "no images with masks" if folder.unlabelled else f"no images ({', '.join(IMAGE_SUFFIXES)})"
    return f"{folder.root} ({folder.layout}) holds {what}. {LAYOUT_HELP}"


def settle_splits(
    folder: DatasetFolder, *, val_list: Path | None = None, test_list: Path | None = None
) -> DatasetFolder:
    """Hold the items of a test list out, and choose the validation items where there are none.

    Raises:
        RequestError: if a list does not fit the data, or too little is left to train on.
    """
    if test_list is not None:
        folder = _hold_out(folder, test_list)
    splits = {item.split for item in folder.items}
    pool = "train" if "train" in splits else "all"
    if val_list is not None and ("val" in splits or pool not in splits):
        own = "a val split of its own" if "val" in splits else f"the splits {', '.join(sorted(splits))} only"
        raise RequestError(
            f"--val-list {val_list} was given, but {folder.root} has {own}; a list is accepted where there is a train "
            "split or none, and no val split. Leave the list out, or merge the folders."
        )
    if "val" in splits or pool not in splits:
        return folder  # without a train split there is nothing to train on, but the others can be scored
    names = [item.name for item in folder.items if item.split == pool]
    if len(names) < 2:
        raise RequestError(
            f"{folder.root} holds one image to train on; accepted: at least two, one of them for validation. Cut "
            "the image in two, or add more."
        )
    if val_list is None:
        count = max(1, round(VALIDATION_SHARE * len(names)))
        chosen = set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:count])
        source = f"no val split: {count} of {len(names)} items chosen by a hash of their names"
    else:
        chosen, source = _listed(folder, names, val_list, test_list), f"validation items from {val_list}"
    moved = _move(folder.items, chosen, "val", {pool})
    items = tuple(replace(item, split="train") if item.split == pool else item for item in moved)
    held = f", {folder.split_source}" if test_list is not None else ""
    return replace(folder, items=items, split_source=source + held)


def _listed(folder: DatasetFolder, names: Sequence[str], val_list: Path, test_list: Path | None) -> set[str]:
    """Return the items of a validation list, which must leave some to train on and none that are held out."""
    held_out = {item.name for item in folder.items if test_list is not None and item.split == "test"}
    chosen = read_names(val_list, {*names, *held_out})
    if both := sorted(chosen & held_out):
        raise RequestError(
            f"lists {val_list} and {test_list} both name {both[0]!r} ({len(both)} such names); accepted: an item "
            "is validated on or held out. Take it out of one of them."
        )
    if len(chosen) == len(names):
        raise _all_named(val_list, folder.root, len(names))
    return chosen


def _hold_out(folder: DatasetFolder, test_list: Path) -> DatasetFolder:
    """Make the items of a list the split `test`."""
    if any(item.split == "test" for item in folder.items):
        raise RequestError(
            f"--test-list {test_list} was given, but {folder.root} has a test split of its own; a list is accepted "
            "where there is none. Leave the list out, or merge the folders."
        )
    pools = {"train", "all", "val"}
    names = [item.name for item in folder.items if item.split in pools]
    chosen = read_names(test_list, names)
    twice = sorted(name for name in chosen if names.count(name) > 1)
    if twice:
        raise RequestError(
            f"list {test_list} names {twice[0]!r}, which is an item of train and of val ({len(twice)} such names); "
            "accepted: names of one item. Rename one of the two."
        )
    if len(chosen) == len(names):
        raise _all_named(test_list, folder.root, len(names))
    source = f"test items from {test_list}"
    own = folder.split_source if any(item.split == "val" for item in folder.items) else ""
    items = _move(folder.items, chosen, "test", pools)
    return replace(folder, items=items, split_source=f"{own}, {source}" if own else source)


def _move(items: Iterable[Item], names: set[str], split: str, pools: set[str]) -> tuple[Item, ...]:
    return tuple(replace(item, split=split) if item.name in names and item.split in pools else item for item in items)


def _all_named(path: Path, root: Path, count: int) -> RequestError:
    return RequestError(
        f"list {path} names all {count} items of {root}; accepted: at most {count - 1}, so that some are left to train "
        "on. Shorten it."
    )


def read_names(path: Path, known: Iterable[str]) -> set[str]:
    """Read a list of item names, one a line; a name that is not known is an error with the closest ones."""
    known = list(known)
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise RequestError(
            f"list {path} cannot be read ({error}); accepted: a text file, one name a line. Check the path."
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    unknown = [name for name in names if name not in set(known)]
    if unknown:
        raise RequestError(
            f"list {path} names {unknown[0]!r}, which is no item of the data ({len(unknown)} such names); "
            f"accepted: file names without their ending, one a line; closest: {closest(unknown[0], known)}. Correct it."
        )
    if not names:
        raise RequestError(
            f"list {path} is empty; accepted: file names without their ending, one a line. Write at least one."
        )
    return set(names)
