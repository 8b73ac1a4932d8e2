"""Where the images and masks of a data set lie: the usual arrangements, told by the names of folders and files.

Our own layout comes first; of the others exactly one must fit. What fits several is refused, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pixelwise.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES, TIFF_SUFFIXES
from pixelwise.data.problems import Finding
from pixelwise.errors import RequestError

LAYOUT_HELP = (
    "Accepted: a folder with images/ and masks/ (images/NAME.png with masks/NAME.png, or images/train/NAME.png "
    "with masks/train/NAME.png), with or without dataset.json; also train/images with train/masks, train with "
    "trainannot, NAME_mask.png beside NAME.png, VOC, stacks as train-volume.tif with train-labels.tif. Arrange the "
    "files so, or name another folder."
)

Kind = Literal["ours", "voc", "stacks", "by kind", "by split", "beside", "together", "objects"]
IMAGES = ("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "input", "inputs")
MASKS = (
    *("mask", "masks", "label", "labels", "annotation", "annotations", "annot", "gt", "groundtruth"),
    *("seg", "segmentation", "segmentations", "target", "targets"),
)
SPLITS = {
    "train": ("training", "train"),
    "val": ("validation", "valid", "val"),
    "test": ("testing", "test"),
}
_ROLES = dict.fromkeys(IMAGES, "image") | dict.fromkeys(MASKS, "mask") | {"": ""}
# Lossy masks are listed as well, so that reading them can say why they are refused.
_ANY_MASK = tuple(dict.fromkeys((*MASK_SUFFIXES, *IMAGE_SUFFIXES)))


@dataclass(frozen=True, kw_only=True)
class Part:
    """The files of one split, by their names without ending.

    Attributes:
        split: its name, "" where there are no splits.
        images: where they lie, and the files.
        masks: the same; a file may be a folder with one mask for each object.
        instances: object maps.
        places: of images and masks, for people.
    """

    split: str
    images: dict[str, Path]
    masks: dict[str, Path]
    instances: dict[str, Path] = field(default_factory=dict)
    places: tuple[Path, Path]


@dataclass(kw_only=True)
class Layout:
    """What was recognised.

    Attributes:
        kind: which of the usual arrangements.
        words: the same for people.
        parts: the splits.
        ignored: files and folders among images or masks that are no images; hidden ones are not listed.
        findings: files that cannot be told apart.
    """

    kind: Kind
    words: str
    parts: list[Part] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def files(self, folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> dict[str, Path]:
        """List the images of a folder by their names without ending."""
        found: dict[str, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith("."):
                continue
            if path.suffix.lower() not in suffixes or path.is_dir():
                self.ignored.append(path)
            elif path.stem in found:
                text = (
                    f"{path} and {found[path.stem].name} have the same name; accepted: one file a name. Rename one, "
                    "or remove it."
                )
                self.findings.append(Finding(path=path, text=text, kind="file without partner"))
            else:
                found[path.stem] = path
        return found

    def add(self, split: str, images: Path, masks: Path, instances: Path) -> None:
        """Add a split whose images, masks and object maps lie in a folder each."""
        part = Part(
            split=split,
            images=self.files(images),
            masks=self.files(masks, _ANY_MASK),
            instances=self.files(instances, MASK_SUFFIXES),
            places=(images, masks),
        )
        self.parts.append(part)


def recognise_layout(root: Path) -> Layout:
    """Tell how a folder is arranged, and list its files.

    Raises:
        RequestError: if no layout fits, or more than one.
    """
    if (ours := _ours(root)) is not None:
        return ours
    fitting = [layout for recognise in _OTHERS if (layout := recognise(root)) is not None]
    if len(fitting) > 1:
        ways = " and ".join(f"{layout.words}" for layout in fitting)
        raise RequestError(
            f"{root} can be read in {len(fitting)} ways: {ways}; accepted: one. Move what is not meant elsewhere, or "
            "name the folders images/ and masks/, which come first."
        )
    if not fitting:
        raise _unknown(root)
    return fitting[0]


def _unknown(root: Path) -> RequestError:
    missing = [name for name in ("images", "masks") if not (root / name).is_dir()]
    found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    inside = [folder for folder in _folders(root) if _fits(root / folder)]
    hint = f"Did you mean {root / inside[0]}? " if inside else ""
    from pixelwise.data.class_folder import holds_classes  # which reads names as this module does

    if not inside and holds_classes(root):
        hint = "It holds a folder for each class: train a classifier on it, such as --model resnet50. "
    return RequestError(f"{root} has no {'/ and no '.join(missing)}/ (it holds: {found}). {hint}{LAYOUT_HELP}")


def _fits(folder: Path) -> bool:
    try:
        return any(recognise(folder) is not None for recognise in (_ours, *_OTHERS))
    except (RequestError, OSError):
        return False


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]


def _holds_pictures(folder: Path) -> bool:
    return bool(_pictures(folder)) or any(_pictures(folder / name) for name in _folders(folder))


def read_name(name: str) -> tuple[str, str] | None:
    """Tell split and role of a folder by its name; "" where it says nothing, None for other words.

    >>> read_name("Train_Labels"), read_name("validation"), read_name("imgs"), read_name("notes")
    (('train', 'mask'), ('val', ''), ('', 'image'), None)
    """
    word = re.sub(r"[-_ .]", "", name.lower())
    if word in _ROLES:
        return "", _ROLES[word]
    for split, spellings in SPLITS.items():
        for spelling in spellings:
            for rest in (word.removeprefix(spelling), word.removesuffix(spelling)):
                if rest != word and rest in _ROLES:
                    return split, _ROLES[rest]
    return None


def _named(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield split, role and name of the folders whose names say something."""
    for name in _folders(folder):
        found = read_name(name)
        if found is not None:
            yield *found, name


def _folders_of(root: Path, role: str) -> Path | None:
    """Return the folder of images or of masks, None where there is none."""
    names = [
        name for split, found, name in _named(root) if (split, found) == ("", role) and _holds_pictures(root / name)
    ]
    if len(names) > 1:
        raise RequestError(
            f"{root} has {len(names)} folders of {role}s: {', '.join(names)}; accepted: one. Rename the one that is "
            f"meant to {role}s/, and move the others away."
        )
    return root / names[0] if names else None


def _ours(root: Path) -> Layout | None:
    both = (root / "images").is_dir() and (root / "masks").is_dir()
    return _by_kind(root, "ours", "images", "masks") if both else None


def _by_other_kind(root: Path) -> Layout | None:
    images = _folders_of(root, "image")
    masks = _folders_of(root, "mask") if images else None
    return _by_kind(root, "by kind", images.name, masks.name) if images and masks else None


def _by_kind(root: Path, kind: Kind, image_name: str, mask_name: str) -> Layout:
    """Images and masks in a folder each, with or without a folder for each split below."""
    images, masks = root / image_name, root / mask_name
    splits = _folders(images)
    if not splits:
        layout = Layout(kind=kind, words=f"{image_name} and {mask_name}")
        layout.add("", images, masks, root / "instances")
        return layout
    layout = Layout(kind=kind, words=f"{image_name}/<split> and {mask_name}/<split>")
    loose = _pictures(images)
    if loose:
        raise RequestError(
            f"{images} holds {len(loose)} images (such as {loose[0].name}) beside the folders {', '.join(splits)}; "
            "accepted: either images, or one folder for each split. Move the images into a split, or the folders away."
        )
    lost = [name for name in _folders(masks) if name not in splits and _pictures(masks / name)]
    if lost:
        raise RequestError(
            f"{masks / lost[0]} holds masks, but there is no folder {images / lost[0]}; accepted: the same splits in "
            f"both (images has {', '.join(splits)}). Add the images or remove the masks."
        )
    usual = [(read_name(name) or ("", ""))[0] or name for name in splits]
    if len(set(usual)) < len(usual):
        usual = splits
    for split, name in zip(usual, splits, strict=True):
        layout.add(split, images / name, masks / name, root / "instances" / name)
    return layout


def _by_split(root: Path) -> Layout | None:
    """train/images with train/masks."""
    layout = Layout(kind="by split", words="")
    for split, role, name in _named(root):
        if not split or role:
            continue
        images, masks = _folders_of(root / name, "image"), _folders_of(root / name, "mask")
        if images or masks:
            layout.add(
                split, images or root / name / "images", masks or root / name / "masks", root / name / "instances"
            )
            if images and masks:
                layout.words = f"<split>/{images.name} and <split>/{masks.name}"
    return layout if any(part.masks for part in layout.parts) else None


def _beside(root: Path) -> Layout | None:
    """train with trainannot, or train_images with train_masks."""
    named = {(split, role): root / name for split, role, name in _named(root) if split and _pictures(root / name)}
    layout = Layout(kind="beside", words="")
    if not any(role == "mask" for _, role in named):
        return None
    for split in SPLITS:
        images, masks = named.get((split, "image")) or named.get((split, "")), named.get((split, "mask"))
        if images or masks:
            layout.add(split, images or root / split, masks or root / f"{split}_masks", root / f"{split}_instances")
            if images and masks and not layout.words:
                layout.words = f"{images.name} and {masks.name}"
    return layout


def _together(root: Path) -> Layout | None:
    """NAME_mask.png beside NAME.png, in the folder itself or in one for each split."""
    if _stacks(root):
        return None
    places = [("", root), *((split, root / name) for split, role, name in _named(root) if split and not role)]
    layout = Layout(kind="together", words="masks beside the images")
    for split, folder in places:
        files = layout.files(folder, _ANY_MASK)
        masks = {stem: path for stem, path in files.items() if without_word(stem, MASKS) != stem}
        images = {stem: path for stem, path in files.items() if stem not in masks}
        if masks or (split and images):
            layout.parts.append(Part(split=split, images=images, masks=masks, places=(folder, folder)))
    if not any(part.masks for part in layout.parts):
        return None
    known = {root / "dataset.json", *(folder for _, folder in places)}
    layout.ignored = [path for path in layout.ignored if path not in known]
    return layout


def without_word(stem: str, words: tuple[str, ...]) -> str:
    """Return a file's name without the word that says what it is, unchanged where there is none.

    >>> without_word("cell_7_mask", MASKS), without_word("mask-7", MASKS), without_word("masked", MASKS)
    ('cell_7', '7', 'masked')
    """
    one = "|".join(sorted(words, key=len, reverse=True))
    found = re.fullmatch(rf"(?:{one})[-_. ]+(.+)|(.+?)[-_. ]+(?:{one})", stem, re.IGNORECASE)
    return (found[1] or found[2]) if found else stem


def _voc(root: Path) -> Layout | None:
    """JPEGImages and SegmentationClass, with lists of names for the splits."""
    images, masks = root / "JPEGImages", root / "SegmentationClass"
    if not images.is_dir() or not masks.is_dir():
        return None
    layout = Layout(kind="voc", words="VOC: JPEGImages and SegmentationClass")
    pictures, labels = layout.files(images), layout.files(masks, _ANY_MASK)
    objects = layout.files(root / "SegmentationObject", MASK_SUFFIXES)
    lists = {split: root / f"ImageSets/Segmentation/{split}.txt" for split in SPLITS}
    lists = {split: path for split, path in lists.items() if path.is_file()}
    if lists:
        layout.words += ", splits from ImageSets/Segmentation"
    # Most images of VOC have boxes and no masks.
    for split, names in {split: _lines(path) for split, path in lists.items()}.items() or [("", list(labels))]:
        wanted = {name: images / f"{name}.jpg" for name in names} if lists else {}
        layout.parts.append(
            Part(
                split=split,
                images=wanted | {name: pictures[name] for name in names if name in pictures},
                masks={name: labels[name] for name in names if name in labels},
                instances={name: objects[name] for name in names if name in objects and name in labels},
                places=(images, masks),
            )
        )
    return layout


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"list {path} cannot be read ({error}); accepted: one name a line. Mend it.") from error


def _stacks(root: Path) -> Layout | None:
    """train-volume.tif with train-labels.tif, as ISBI 2012 is distributed; a test volume has no labels."""
    layout = Layout(kind="stacks", words="stacks of pages: <split>-volume.tif and <split>-labels.tif")
    tiffs = {path.stem: path for path in _pictures(root) if path.suffix.lower() in TIFF_SUFFIXES}
    for split in SPLITS:
        volume, labels = tiffs.get(f"{split}-volume"), tiffs.get(f"{split}-labels")
        if volume is not None:
            masks = {} if labels is None else {volume.stem: labels}
            layout.parts.append(Part(split=split, images={volume.stem: volume}, masks=masks, places=(root, root)))
    return layout if any(part.masks for part in layout.parts) else None


def _one_file_per_object(root: Path) -> Layout | None:
    """ID/images/ID.png with ID/masks/*.png, one for each object, as in the Data Science Bowl 2018."""
    named = {"stage1_train": "train", "stage1_test": "test"}
    places = [(split, root / name) for name, split in named.items() if (root / name).is_dir()] or [("", root)]
    layout = Layout(kind="objects", words="NAME/images/NAME.png and NAME/masks/*.png, one for each object")
    for split, folder in places:
        images, masks = {}, {}
        for name in _folders(folder):
            pictures = _pictures(folder / name / "images") if (folder / name / "images").is_dir() else []
            if read_name(name) is not None or len(pictures) != 1 or pictures[0].stem != name:
                continue
            images[name] = pictures[0]
            if (folder / name / "masks").is_dir():
                masks[name] = folder / name / "masks"
        if images:
            layout.parts.append(Part(split=split, images=images, masks=masks, places=(folder, folder)))
    return layout if any(part.masks for part in layout.parts) else None


_OTHERS: tuple[Callable[[Path], Layout | None], ...] = (
    *(_voc, _stacks, _by_other_kind, _by_split, _beside, _together, _one_file_per_object),
)
