"""Images in a folder for each class, as ImageNet is laid out, for training and scoring classifiers.

```
DATA/train/CLASS/NAME.jpg     DATA/val/CLASS/NAME.jpg     with splits
DATA/CLASS/NAME.jpg                                       without: a share of each class is validated on
```

Classes are in the order of their folders' names, or in that of `dataset.json` where there is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pixelwise.data.dataset import VALIDATION_SHARE, read_names
from pixelwise.data.dataset_file import DatasetFile, read_dataset_file
from pixelwise.data.images import IMAGE_SUFFIXES
from pixelwise.data.items import ImageItem
from pixelwise.data.layouts import MASKS, read_name, recognise_layout, without_word
from pixelwise.data.problems import Finding, errors_among, refusal
from pixelwise.errors import RequestError, closest

CLASS_LAYOUT_HELP = (
    "Accepted for image classification: a folder for each class, DATA/train/CLASS/NAME.jpg and DATA/val/CLASS/NAME.jpg "
    "as ImageNet has it, or DATA/CLASS/NAME.jpg without splits. Arrange the files so, or name another folder."
)


@dataclass(frozen=True, kw_only=True)
class ClassItem(ImageItem):
    """One image with its class.

    Attributes:
        name: CLASS/NAME, without the file's ending.
        label: index of the class.
    """

    label: int


@dataclass(frozen=True, kw_only=True)
class ClassFolder:
    """The files of a data set of classes, before any of them is opened.

    Attributes:
        root: the folder.
        file: contents of dataset.json, None without one.
        classes: names in index order.
        items: all images, sorted by split, class and file name.
        layout: in words.
        split_source: where the splits come from, in words.
        ignored_files: files and folders among the images that are none; hidden ones are not listed.
        findings: what is wrong with the arrangement.
    """

    root: Path
    file: DatasetFile | None
    classes: tuple[str, ...]
    items: tuple[ClassItem, ...]
    layout: str
    split_source: str
    ignored_files: tuple[Path, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        """Name of the data set: dataset.json's, or the folder's."""
        return self.file.name if self.file else self.root.resolve().name

    def split(self, name: str) -> list[ClassItem]:
        """Return the items of a split; an empty or unknown one is an error that lists the splits."""
        items = [item for item in self.items if item.split == name]
        if not items:
            known = ", ".join(dict.fromkeys(item.split for item in self.items))
            raise RequestError(f"{self.root} has no split {name!r}; accepted: {known}. Choose one of them.")
        return items


def holds_classes(root: Path) -> bool:
    """Say whether a folder is laid out as a folder for each class."""
    return bool(_places(root))


def may_hold_masks(root: Path) -> bool:
    """Say whether a folder can be read as images with masks."""
    try:
        recognise_layout(root)
    except RequestError as error:
        return "can be read in" in str(error)
    return True


def open_class_folder(root: Path, *, val_list: Path | None = None, test_list: Path | None = None) -> ClassFolder:
    """List the images of each class and settle the splits.

    The items of `test_list` (CLASS/NAME, one a line) are held out as split `test`. Without a `val` split, the items of
    `val_list` become the validation set; without a list, a fifth of each class does (at least one image where there
    are two), chosen by a hash of their names, the same for every seed and machine.

    Raises:
        RequestError: if the folder is missing or laid out otherwise, a class has no images, or a list does not fit.
    """
    folder = find_class_folder(root)
    errors = errors_among(folder.findings)
    if errors:
        raise refusal(folder.root, errors)
    return settle_class_splits(folder, val_list=val_list, test_list=test_list)


def find_class_folder(root: Path) -> ClassFolder:
    """List the images of each class; what is wrong with the arrangement is among the findings.

    Raises:
        RequestError: if the folder is missing or laid out otherwise.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise RequestError(f"data folder {root} {what}. {CLASS_LAYOUT_HELP}")
    places = _places(root)
    if not places:
        raise _no_classes(root)
    file = read_dataset_file(root / "dataset.json")
    names = sorted({name for folders in places.values() for name in folders})
    classes = file.classes if file else tuple(names)
    listing = _Listing(root, classes)
    for split, folders in places.items():
        for name, folder in folders.items():
            listing.add(split or "all", name, folder)
    listing.compare(places)
    splits = "" not in places
    used = {folder.parent if splits else folder for folders in places.values() for folder in folders.values()}
    others = [path for path in _files(root) if path not in used and path.name != "dataset.json"]
    return ClassFolder(
        root=root,
        file=file,
        classes=classes,
        items=tuple(sorted(listing.items, key=lambda item: (item.split, item.label, item.name))),
        layout=f"a folder for each class{', below one for each split' if splits else ''}"
        + (", with dataset.json" if file else ""),
        split_source="folders",
        ignored_files=(*others, *listing.ignored),
        findings=tuple(listing.findings),
    )


def _no_classes(root: Path) -> RequestError:
    """Say what a folder holds in place of classes."""
    found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    why = ""
    named = [path for path in _folders(root) if _pictures(path) and read_name(path.name)]
    if may_hold_masks(root):
        why = "It looks like images with masks, which segmentation models are trained on. "
    elif named:
        why = f"The name {named[0].name} means a split, images or masks: rename that folder if it is a class. "
    elif _pictures(root):
        why = "Images lie beside the folders, and have no class. "
    return RequestError(f"{root} holds no folder for each class (it holds: {found}). {why}{CLASS_LAYOUT_HELP}")


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def _pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() for path in _files(folder))


def _places(root: Path) -> dict[str, dict[str, Path]]:
    """Return the class folders by split ("" without splits) and name; empty where the layout is another one.

    Folders of names that mean a split, images or masks are no classes.
    """
    if not root.is_dir():
        return {}
    splits = {found[0]: path for path in _folders(root) if (found := read_name(path.name)) and found == (found[0], "")}
    places = {split: _classes(path) for split, path in splits.items() if split}
    if any(places.values()):
        return {split: folders for split, folders in places.items() if folders}
    classes = _classes(root)
    return {"": classes} if classes else {}


def _classes(folder: Path) -> dict[str, Path]:
    """Return the class folders in a folder; none where images lie beside them or a name means something else."""
    folders = _folders(folder)
    if _pictures(folder) or any(read_name(path.name) for path in folders) or not any(map(_pictures, folders)):
        return {}
    return {path.name: path for path in folders}


@dataclass
class _Listing:
    """Items and findings while folders are read."""

    root: Path
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        self.items: list[ClassItem] = []
        self.ignored: list[Path] = []
        self.findings: list[Finding] = []

    def add(self, split: str, name: str, folder: Path) -> None:
        """List the images of one class."""
        if name not in self.classes:
            text = (
                f"{folder} is no class of dataset.json; accepted: {', '.join(self.classes[:8])}"
                f"{', ...' if len(self.classes) > 8 else ''}; closest: {closest(name, self.classes)}. Correct the "
                "folder's name or dataset.json."
            )
            self.findings.append(Finding(path=folder, text=text, kind="unknown class"))
            return
        found: dict[str, Path] = {}
        for path in _files(folder):
            if path.is_dir() or path.suffix.lower() not in IMAGE_SUFFIXES:
                self.ignored.append(path)
            elif path.stem in found:
                text = (
                    f"{path} and {found[path.stem].name} have the same name; accepted: one file a name. Rename one, or "
                    "remove it."
                )
                self.findings.append(Finding(path=path, text=text, kind="name given twice"))
            else:
                found[path.stem] = path
        self._masks(found)
        label = self.classes.index(name)
        self.items += [
            ClassItem(name=f"{name}/{stem}", split=split, image=path, label=label) for stem, path in found.items()
        ]
        if not found:
            text = (
                f"{folder} holds no image; accepted: at least one ({', '.join(IMAGE_SUFFIXES)}) for each class. Add "
                "images, or remove the folder."
            )
            self.findings.append(Finding(path=folder, text=text, kind="empty class"))

    def _masks(self, found: Mapping[str, Path]) -> None:
        """Refuse masks beside images: a classifier would learn them as pictures of the class."""
        for stem, path in found.items():
            bare = without_word(stem, MASKS)
            if bare != stem and bare in found:
                text = (
                    f"{path} looks like the mask of {found[bare].name}, so that this may be data for segmentation or "
                    "for classification; accepted: images alone in the folder of a class. Move the masks away."
                )
                self.findings.append(Finding(path=path, text=text, kind="mask among images"))
                return  # one of a folder says enough

    def compare(self, places: Mapping[str, Mapping[str, Path]]) -> None:
        """Compare the classes of the splits."""
        if "train" not in places:
            return
        for split, folders in places.items():
            for name in [name for name in folders if name not in places["train"] and name in self.classes]:
                text = (
                    f"{folders[name]}: the class {name} is in {split} and not in train; accepted: classes with images "
                    "to train on. Move some there, or remove the folder."
                )
                keys = frozenset(item.key for item in self.items if item.split == split and self._is(item, name))
                self.findings.append(
                    Finding(path=folders[name], text=text, kind="class without training images", spoils=keys)
                )
        for name in [name for name in places["train"] if "val" in places and name not in places["val"]]:
            text = (
                f"{places['train'][name]}: the class {name} is in train and not in val; accepted, but its accuracy is "
                "not measured. Move some of its images there."
            )
            self.findings.append(
                Finding(
                    path=places["train"][name], text=text, kind="class without validation images", severity="warning"
                )
            )

    def _is(self, item: ClassItem, name: str) -> bool:
        return item.label == self.classes.index(name)


def settle_class_splits(
    folder: ClassFolder, *, val_list: Path | None = None, test_list: Path | None = None
) -> ClassFolder:
    """Hold the items of a test list out, and choose the validation items of each class where there are none.

    Raises:
        RequestError: if a list does not fit the data, or too little is left to train on.
    """
    splits = {item.split for item in folder.items}
    pool = "train" if "train" in splits else "all"
    source = folder.split_source
    if test_list is not None:
        if "test" in splits:
            raise _not_needed("--test-list", test_list, folder.root, "test")
        named = _listed(folder, test_list, {pool, "val"})
        folder = _moved(folder, named, "test")
        source += f", test items from {test_list}"
    if val_list is not None and ("val" in splits or pool not in splits):
        raise _not_needed("--val-list", val_list, folder.root, "val")
    if "val" not in splits and pool in splits:
        if val_list is not None:
            folder = _moved(folder, _listed(folder, val_list, {pool}), "val")
            source = source.replace("folders", f"validation items from {val_list}")
        else:
            chosen = _hashed(folder, pool)
            folder = _moved(folder, chosen, "val")
            total = sum(item.split == pool for item in folder.items) + len(chosen)
            words = f"no val split: {len(chosen)} of {total} images chosen by a hash of their names, class by class"
            source = source.replace("folders", words)
    items = tuple(replace(item, split="train") if item.split == pool else item for item in folder.items)
    return replace(folder, items=items, split_source=source)


def _hashed(folder: ClassFolder, pool: str) -> set[str]:
    """Choose a share of each class; a class of one image is trained on."""
    chosen: set[str] = set()
    for label in range(len(folder.classes)):
        names = [item.name for item in folder.items if item.split == pool and item.label == label]
        count = max(1, round(VALIDATION_SHARE * len(names))) if len(names) > 1 else 0
        chosen |= set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:count])
    if not chosen:
        raise RequestError(
            f"{folder.root} holds one image for each class; accepted: at least two of some class, one of them for "
            "validation. Add more."
        )
    return chosen


def _moved(folder: ClassFolder, names: set[str], split: str) -> ClassFolder:
    items = tuple(
        replace(item, split=split) if item.name in names and item.split != "test" else item for item in folder.items
    )
    return replace(folder, items=items)


def _listed(folder: ClassFolder, path: Path, pools: set[str]) -> set[str]:
    """Return the names in a list, which must leave some images of every class to train on."""
    named = read_names(path, [item.name for item in folder.items if item.split in pools])
    for label, name in enumerate(folder.classes):
        rest = [item for item in folder.items if item.label == label and item.split in pools]
        if rest and all(item.name in named for item in rest):
            raise RequestError(
                f"list {path} names all {len(rest)} images of class {name}; accepted: a list that leaves some of every "
                "class to train on. Shorten it."
            )
    return named


def _not_needed(option: str, path: Path, root: Path, split: str) -> RequestError:
    return RequestError(
        f"{option} {path} was given, but {root} has a {split} split of its own, or none to train on; accepted: a list "
        "where there is none. Leave it out, or merge the folders."
    )


def counts_per_class(items: Sequence[ClassItem], classes: Sequence[str]) -> dict[str, int]:
    """Return how many of some images each class has, by name in index order."""
    counts = [0] * len(classes)
    for item in items:
        counts[item.label] += 1
    return dict(zip(classes, counts, strict=True))
