"""A data set on disk: which image belongs to which mask, which split, which classes.

Accepted layouts, with or without `dataset.json`:

- `images/<split>/NAME.<ext>` with `masks/<split>/NAME.png` (and `instances/<split>/NAME.png`)
- `images/NAME.<ext>` with `masks/NAME.png`
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pixelwise.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from pixelwise.errors import RequestError, closest

VALIDATION_SHARE = 0.2
LAYOUT_HELP = (
    "Accepted: a folder with images/ and masks/ (images/NAME.png with masks/NAME.png, or images/train/NAME.png "
    "with masks/train/NAME.png), with or without dataset.json. Arrange the files so, or name another folder."
)

_Colour = Annotated[int, Field(ge=0, le=255)]


class DatasetFile(BaseModel):
    """What `dataset.json` says; keys that are not known here are kept by the file and ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    classes: tuple[str, ...]
    ignore_index: Annotated[int, Field(ge=0, le=65535)] | None = None
    palette: tuple[tuple[_Colour, _Colour, _Colour], ...] | None = None
    boundary_class: int | str | None = None
    licence: str | None = None
    terms: str | None = None

    @model_validator(mode="after")
    def _check(self) -> DatasetFile:
        count = len(self.classes)
        if not count:
            raise ValueError("classes is empty; name at least one")
        twice = [name for name in dict.fromkeys(self.classes) if self.classes.count(name) > 1]
        if twice:
            raise ValueError(f"classes names {twice[0]!r} {self.classes.count(twice[0])} times; name each once")
        if self.palette is not None and len(self.palette) not in (count, count + 1):
            raise ValueError(
                f"palette has {len(self.palette)} colours for {count} classes; give {count}, or {count + 1} with that "
                "of ignored pixels"
            )
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
        items: all image/mask pairs, sorted by split and file name.
        layout: the recognised layout, in words.
        split_source: where the splits come from, in words.
        ignored_files: files and folders in images/ or masks/ that are no images; hidden ones are not listed.
        unlabelled: number of images of the splits that have no masks; these splits have no items.
    """

    root: Path
    file: DatasetFile | None
    items: tuple[Item, ...]
    layout: str
    split_source: str
    ignored_files: tuple[Path, ...] = ()
    unlabelled: Mapping[str, int] = field(default_factory=dict)

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
    splits = _splits(images, masks)
    ignored: list[Path] = []
    unlabelled: dict[str, int] = {}
    items: list[Item] = []
    for split in splits or [""]:
        items += _pairs(root, split, ignored, unlabelled)
    if not items:
        what = "no images with masks" if unlabelled else f"no images ({', '.join(IMAGE_SUFFIXES)})"
        raise RequestError(f"{images} holds {what}. {LAYOUT_HELP}")
    layout = "images/<split> and masks/<split>" if splits else "images and masks"
    folder = DatasetFolder(
        root=root,
        file=file,
        items=tuple(items),
        layout=layout + (" with dataset.json" if file else " without dataset.json"),
        split_source="folders",
        ignored_files=tuple(ignored),
        unlabelled=unlabelled,
    )
    return _settle_splits(folder, val_list)


def _read_dataset_file(path: Path) -> DatasetFile | None:
    if not path.exists():
        return None
    try:
        # utf-8-sig: editors on Windows put a mark before the text
        return DatasetFile.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " if isinstance(part, str) else f"[{part}]: " for part in first["loc"][:2])
        given = f" (given: {str(first['input'])[:60]})" if first["type"] not in ("missing", "value_error") else ""
        raise RequestError(
            f"{path}: {where}{first['msg'].removeprefix('Value error, ')}{given}. Required: name (text) and classes "
            "(names in index order); known: ignore_index (0 to 65535), palette, boundary_class, licence or terms. "
            "Correct the file."
        ) from error
    except (ValueError, OSError) as error:
        raise RequestError(
            f"{path}: cannot be read as JSON ({error}); accepted: a JSON object with name and classes. Mend or remove "
            "the file."
        ) from error


def _splits(images: Path, masks: Path) -> list[str]:
    """Return the folders below images/, none where the images lie in it themselves."""
    splits, with_masks = _folders(images), _folders(masks)
    if not splits:
        return []
    loose = [path.name for path in sorted(images.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if loose:
        raise RequestError(
            f"{images} holds {len(loose)} images (such as {loose[0]}) beside the folders {', '.join(splits)}; "
            "accepted: either images, or one folder for each split. Move the images into a split, or the folders away."
        )
    lost = [split for split in with_masks if split not in splits and _by_stem(masks / split, IMAGE_SUFFIXES, [])]
    if lost:
        raise RequestError(
            f"{masks / lost[0]} holds masks, but there is no folder {images / lost[0]}; accepted: the same splits in "
            f"both (images has {', '.join(splits)}). Add the images or remove the masks."
        )
    return splits


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _by_stem(folder: Path, suffixes: tuple[str, ...], ignored: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in suffixes or path.is_dir():
            ignored.append(path)
        elif path.stem in found:
            raise RequestError(
                f"{path} and {found[path.stem].name} have the same name; accepted: one file a name. Rename one."
            )
        else:
            found[path.stem] = path
    return found


def _pairs(root: Path, split: str, ignored: list[Path], unlabelled: dict[str, int]) -> list[Item]:
    image_folder, mask_folder = root / "images" / split, root / "masks" / split
    images = _by_stem(image_folder, IMAGE_SUFFIXES, ignored)
    # Lossy masks are listed as well, so that reading them can say why they are refused.
    masks = _by_stem(mask_folder, (*MASK_SUFFIXES, *IMAGE_SUFFIXES), ignored) if mask_folder.is_dir() else {}
    if images and not masks and split not in ("", "train", "val"):
        unlabelled[split] = len(images)  # a test split may come without truth
        return []
    instances = root / "instances" / split
    objects = _by_stem(instances, MASK_SUFFIXES, ignored) if instances.is_dir() else {}
    unpaired = [path for stem, path in images.items() if stem not in masks]
    unpaired += [path for stem, path in (*masks.items(), *objects.items()) if stem not in images]
    if unpaired:
        shown = ", ".join(str(path) for path in unpaired[:5]) + (", ..." if len(unpaired) > 5 else "")
        raise RequestError(
            f"{len(unpaired)} file{'s have' if len(unpaired) > 1 else ' has'} no partner of the same name: {shown}. "
            f"Each image in {image_folder} needs a mask in {mask_folder} with the same name before the ending. "
            "Add the missing files or remove the others."
        )
    return [
        Item(name=stem, split=split or "all", image=path, mask=masks[stem], instances=objects.get(stem))
        for stem, path in images.items()
    ]


def _settle_splits(folder: DatasetFolder, val_list: Path | None) -> DatasetFolder:
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
    if val_list is not None:
        chosen = read_names(val_list, names)
        source = f"validation items from {val_list}"
    else:
        count = max(1, round(VALIDATION_SHARE * len(names)))
        chosen = set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:count])
        source = f"no val split: {count} of {len(names)} items chosen by a hash of their names"
    if len(chosen) == len(names):
        raise RequestError(
            f"list {val_list} names all {len(names)} items of {folder.root}; accepted: at most {len(names) - 1}, "
            "so that some are left to train on. Shorten it."
        )
    items = tuple(
        replace(item, split="val" if item.name in chosen else "train") if item.split == pool else item
        for item in folder.items
    )
    return replace(folder, items=items, split_source=source)


def read_names(path: Path, known: Iterable[str]) -> set[str]:
    """Read a list of item names, one a line; a name that is not known is an error with the closest ones."""
    known = list(known)
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
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
