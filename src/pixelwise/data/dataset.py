"""A data set on disk: which image belongs to which mask, which split, which classes.

Accepted layouts, with or without `dataset.json`:

- `images/<split>/NAME.<ext>` with `masks/<split>/NAME.png` (and `instances/<split>/NAME.png`)
- `images/NAME.<ext>` with `masks/NAME.png`
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pixelwise.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from pixelwise.errors import RequestError, closest

VALIDATION_SHARE = 0.2
LAYOUT_HELP = (
    "Accepted: a folder with images/ and masks/ (images/NAME.png with masks/NAME.png, or images/train/NAME.png "
    "with masks/train/NAME.png), with or without dataset.json."
)


class DatasetFile(BaseModel):
    """What `dataset.json` says; keys that are not known here are kept by the file and ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    classes: tuple[str, ...]
    ignore_index: int | None = None
    palette: tuple[tuple[int, int, int], ...] | None = None
    boundary_class: int | str | None = None
    licence: str | None = None
    terms: str | None = None

    @model_validator(mode="after")
    def _check(self) -> DatasetFile:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must name at least one class, each once")
        if self.palette is not None and len(self.palette) < len(self.classes):
            raise ValueError(f"palette has {len(self.palette)} colours for {len(self.classes)} classes")
        return self


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image with its truth.

    Attributes:
        name: file name without its ending; the name of all that is made from it.
        split: "train", "val", ...
        image: path of the image.
        mask: path of the mask.
        instances: path of the 16-bit object map, if there is one.
    """

    name: str
    split: str
    image: Path
    mask: Path
    instances: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetFolder:
    """The files of a data set, before any of them is opened.

    Attributes:
        root: the folder.
        file: contents of dataset.json, None without one.
        items: all image/mask pairs, sorted by split and name.
        layout: the recognised layout, in words.
        split_source: where the splits come from, in words.
        ignored_files: files in images/ or masks/ that are no images.
    """

    root: Path
    file: DatasetFile | None
    items: tuple[Item, ...]
    layout: str
    split_source: str
    ignored_files: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """Name of the data set: dataset.json's, or the folder's."""
        return self.file.name if self.file else self.root.resolve().name

    def split(self, name: str) -> list[Item]:
        """Return the items of a split; an empty or unknown one is an error that lists the splits."""
        items = [item for item in self.items if item.split == name]
        if not items:
            known = ", ".join(dict.fromkeys(item.split for item in self.items))
            raise RequestError(f"{self.root} has no split {name!r}; its splits: {known}. Choose one of them.")
        return items


def open_dataset(root: Path, *, val_list: Path | None = None) -> DatasetFolder:
    """Recognise the layout of a folder, pair images with masks and settle the splits.

    Without a `val` split, the items of `val_list` (one name a line) become the validation set; without a list, a
    fifth of the items does, chosen by a hash of their names, the same for every seed and machine.

    Raises:
        RequestError: if the folder is missing or not recognised, or an image has no mask.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise RequestError(f"data folder {root} {what}. {LAYOUT_HELP}")
    file = _read_dataset_file(root / "dataset.json")
    images, masks = root / "images", root / "masks"
    missing = [folder.name for folder in (images, masks) if not folder.is_dir()]
    if missing:
        found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise RequestError(f"{root} has no {'/ and no '.join(missing)}/ (it holds: {found}). {LAYOUT_HELP}")
    splits = sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
    ignored: list[Path] = []
    items: list[Item] = []
    for split in splits or [""]:
        items += _pairs(root, split, ignored)
    if not items:
        raise RequestError(f"{images} holds no images ({', '.join(IMAGE_SUFFIXES)}). {LAYOUT_HELP}")
    layout = "images/<split> and masks/<split>" if splits else "images and masks"
    folder = DatasetFolder(
        root=root,
        file=file,
        items=tuple(items),
        layout=layout + (" with dataset.json" if file else " without dataset.json"),
        split_source="folders",
        ignored_files=tuple(ignored),
    )
    return _settle_splits(folder, val_list)


def _read_dataset_file(path: Path) -> DatasetFile | None:
    if not path.exists():
        return None
    try:
        return DatasetFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise RequestError(
            f"{path}: {where}: {first['msg']}. Required: name (text) and classes (names in index order); known: "
            "ignore_index, palette, boundary_class, licence or terms."
        ) from error
    except (ValueError, OSError) as error:
        raise RequestError(f"{path}: is not readable as JSON ({error}). Mend or remove the file.") from error


def _by_stem(folder: Path, suffixes: tuple[str, ...], ignored: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.suffix.lower() not in suffixes:
            ignored.append(path)
        elif path.stem in found:
            raise RequestError(
                f"{path} and {found[path.stem].name} have the same name; accepted: one file a name. Rename one."
            )
        else:
            found[path.stem] = path
    return found


def _pairs(root: Path, split: str, ignored: list[Path]) -> list[Item]:
    image_folder, mask_folder = root / "images" / split, root / "masks" / split
    images = _by_stem(image_folder, IMAGE_SUFFIXES, ignored)
    # Lossy masks are listed as well, so that reading them can say why they are refused.
    masks = _by_stem(mask_folder, (*MASK_SUFFIXES, *IMAGE_SUFFIXES), ignored) if mask_folder.is_dir() else {}
    if not masks and split not in ("", "train", "val"):
        return []  # a test split may come without truth
    unpaired = [path for stem, path in images.items() if stem not in masks]
    unpaired += [path for stem, path in masks.items() if stem not in images]
    if unpaired:
        shown = ", ".join(str(path) for path in unpaired[:5]) + (", ..." if len(unpaired) > 5 else "")
        raise RequestError(
            f"{len(unpaired)} file{'s have' if len(unpaired) > 1 else ' has'} no partner of the same name: {shown}. "
            f"Each image in {image_folder} needs a mask in {mask_folder} with the same name before the ending. "
            "Add the missing files or remove the others."
        )
    instances = root / "instances" / split
    objects = _by_stem(instances, MASK_SUFFIXES, ignored) if instances.is_dir() else {}
    return [
        Item(name=stem, split=split or "all", image=path, mask=masks[stem], instances=objects.get(stem))
        for stem, path in images.items()
    ]


def _settle_splits(folder: DatasetFolder, val_list: Path | None) -> DatasetFolder:
    splits = {item.split for item in folder.items}
    if "val" in splits and "train" in splits:
        if val_list is not None:
            raise RequestError(
                f"--val-list {val_list} was given, but {folder.root} has a val split of its own; a list is accepted "
                "where there is none. Leave the list out, or merge the two folders."
            )
        return folder
    pool = "train" if "train" in splits else "all"
    if pool not in splits:
        return folder  # nothing to train on, but its splits can be scored
    names = [item.name for item in folder.items if item.split == pool]
    if len(names) < 2:
        raise RequestError(
            f"{folder.root} holds one image to train on; at least two are needed, one of them for validation. "
            "Cut the image in two, or add more."
        )
    if val_list is not None:
        chosen = read_names(val_list, names)
        source = f"validation items from {val_list}"
    else:
        count = max(1, round(VALIDATION_SHARE * len(names)))
        chosen = set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:count])
        source = f"no val split: {count} of {len(names)} items chosen by a hash of their names"
    if len(chosen) == len(names):
        raise RequestError(f"{val_list} names all {len(names)} items; some must be left to train on. Shorten it.")
    items = tuple(
        replace(item, split="val" if item.name in chosen else "train") if item.split == pool else item
        for item in folder.items
    )
    return replace(folder, items=items, split_source=source)


def read_names(path: Path, known: Iterable[str]) -> set[str]:
    """Read a list of item names, one a line; a name that is not known is an error with the closest ones."""
    known = list(known)
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"list {path} cannot be read ({error}); accepted: a text file, one name a line.") from error
    names = [line.strip() for line in lines if line.strip()]
    unknown = [name for name in names if name not in set(known)]
    if unknown:
        raise RequestError(
            f"list {path} names {unknown[0]!r}, which is no item of the data ({len(unknown)} such names); "
            f"closest: {closest(unknown[0], known)}. Give file names without their ending, one a line."
        )
    if not names:
        raise RequestError(f"list {path} is empty; accepted: file names without their ending, one a line.")
    return set(names)
