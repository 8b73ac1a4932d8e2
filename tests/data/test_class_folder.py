"""Folders for each class: recognised, listed in order, split class by class, and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.class_folder import find_class_folder, holds_classes, may_hold_masks, open_class_folder
from pixelwise.data.class_scan import scan_classes, survey_classes
from pixelwise.data.dataset import open_dataset
from pixelwise.errors import RequestError


def picture(path: Path, *, seed: int | None = None, size: tuple[int, int] = (6, 5), grey: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(abs(hash(str(path))) % 2**32 if seed is None else seed)
    Image.fromarray(rng.integers(0, 256, size if grey else (*size, 3), dtype=np.uint8)).save(path)
    return path


def flat(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        for index in range(count):
            picture(root / name / f"{index:03d}.png")
    return root


def splits(root: Path, *names: str, train: int = 3, val: int = 1) -> Path:
    for name in names:
        for split, count in (("train", train), ("val", val)):
            for index in range(count):
                picture(root / split / name / f"{index:03d}.jpg")
    return root


def test_imagenets_layout_is_recognised_and_classes_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = open_class_folder(splits(tmp_path, "n02", "n01"))
    assert folder.classes == ("n01", "n02")
    assert [item.name for item in folder.split("val")] == ["n01/000", "n02/000"]
    assert [item.label for item in folder.split("train")] == [0, 0, 0, 1, 1, 1]
    assert folder.split_source == "folders"


def test_the_order_is_dataset_jsons_where_there_is_one(tmp_path: Path) -> None:
    splits(tmp_path, "a", "b")
    (tmp_path / "dataset.json").write_text('{"name": "letters", "classes": ["b", "a"]}')
    folder = open_class_folder(tmp_path)
    assert (folder.name, folder.classes) == ("letters", ("b", "a"))
    assert {item.image.parent.name for item in folder.split("train") if item.label == 0} == {"b"}


def test_without_splits_a_fifth_of_each_class_is_validated_on_and_adding_a_class_changes_no_other(
    tmp_path: Path,
) -> None:
    flat(tmp_path, cat=10, dog=5, owl=2, one=1)
    folder = open_class_folder(tmp_path)
    by_class = {name: [i.name for i in folder.split("val") if i.label == k] for k, name in enumerate(folder.classes)}
    assert {name: len(names) for name, names in by_class.items()} == {"cat": 2, "dog": 1, "one": 0, "owl": 1}
    flat(tmp_path, zebra=6)
    again = open_class_folder(tmp_path)
    assert {i.name for i in folder.split("val")} < {i.name for i in again.split("val")}
    assert "5 of 24 images chosen by a hash of their names, class by class" in again.split_source


def test_lists_choose_validation_and_test_items(tmp_path: Path) -> None:
    flat(tmp_path / "d", cat=4, dog=4)
    (tmp_path / "val.txt").write_text("cat/000\ndog/001\n")
    (tmp_path / "test.txt").write_text("cat/003\n")
    folder = open_class_folder(tmp_path / "d", val_list=tmp_path / "val.txt", test_list=tmp_path / "test.txt")
    assert [item.name for item in folder.split("val")] == ["cat/000", "dog/001"]
    assert [item.name for item in folder.split("test")] == ["cat/003"]
    assert len(folder.split("train")) == 5


def test_lists_that_do_not_fit(tmp_path: Path) -> None:
    data = flat(tmp_path / "d", cat=2, dog=3)
    (tmp_path / "all.txt").write_text("cat/000\ncat/001\n")
    with pytest.raises(RequestError, match=r"names all 2 images of class cat; accepted: .* Shorten it"):
        open_class_folder(data, val_list=tmp_path / "all.txt")
    (tmp_path / "wrong.txt").write_text("cat/007\n")
    with pytest.raises(RequestError, match=r"names 'cat/007', which is no item.*closest: cat/00"):
        open_class_folder(data, val_list=tmp_path / "wrong.txt")
    own = splits(tmp_path / "own", "a", "b")
    (tmp_path / "a.txt").write_text("a/000\n")
    with pytest.raises(RequestError, match=r"--val-list .*a\.txt was given, but .*own has a val split of its own"):
        open_class_folder(own, val_list=tmp_path / "a.txt")
    with pytest.raises(RequestError, match=r"holds one image for each class; accepted: at least two of some class"):
        open_class_folder(flat(tmp_path / "few", cat=1, dog=1))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["images/a.png", "masks/a.png"], "looks like images with masks, which segmentation models are trained on"),
        (["train/images/a.png", "train/masks/a.png"], "looks like images with masks"),
        (["cat/a.png", "mask/b.png"], "name mask means a split, images or masks: rename that folder"),
        (["cat/a.png", "b.png"], "Images lie beside the folders, and have no class"),
        (["notes/readme.txt"], "holds no folder for each class (it holds: notes)"),
    ],
)
def test_other_layouts_are_no_classes(tmp_path: Path, files: list[str], said: str) -> None:
    for name in files:
        if name.endswith("txt"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text("")
        else:
            picture(tmp_path / name, grey="mask" in name)
    assert not holds_classes(tmp_path)
    with pytest.raises(RequestError, match=re.escape(said)):
        open_class_folder(tmp_path)
    with pytest.raises(RequestError, match=r"data folder .*none does not exist. Accepted for image classification"):
        open_class_folder(tmp_path / "none")


def test_a_folder_that_can_be_both_is_known_as_both(tmp_path: Path) -> None:
    splits(tmp_path, "a", "b")
    assert holds_classes(tmp_path)
    assert not may_hold_masks(tmp_path)
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "masks/a.png", grey=True)
    assert holds_classes(tmp_path)
    assert may_hold_masks(tmp_path)


def test_segmentation_says_that_a_folder_holds_classes(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"It holds a folder for each class.*--model resnet50"):
        open_dataset(splits(tmp_path, "a", "b"))


def test_what_is_wrong_with_the_arrangement(tmp_path: Path) -> None:
    splits(tmp_path, "a", "b")
    picture(tmp_path / "val/c/1.png")
    picture(tmp_path / "train/d/1.png")
    (tmp_path / "train/e").mkdir()
    picture(tmp_path / "train/a/000.png")
    picture(tmp_path / "train/b/000_mask.png", grey=True)
    (tmp_path / "train/b/notes.txt").write_text("")
    folder = find_class_folder(tmp_path)
    found = {finding.kind: (finding.severity, finding.text) for finding in folder.findings}
    assert {kind: severity for kind, (severity, _) in found.items()} == {
        "class without training images": "error",
        "empty class": "error",
        "name given twice": "error",
        "mask among images": "error",
        "class without validation images": "warning",
    }
    assert "the class c is in val and not in train" in found["class without training images"][1]
    assert "for segmentation or for classification" in found["mask among images"][1]
    assert [path.name for path in folder.ignored_files] == ["notes.txt"]
    with pytest.raises(RequestError, match=r"4 problems stop the work before it begins"):
        open_class_folder(tmp_path)


def test_a_folder_that_dataset_json_does_not_name(tmp_path: Path) -> None:
    splits(tmp_path, "cat", "dgo")
    (tmp_path / "dataset.json").write_text('{"name": "x", "classes": ["cat", "dog"]}')
    with pytest.raises(RequestError, match=r"dgo is no class of dataset\.json; accepted: cat, dog; closest: dog"):
        open_class_folder(tmp_path)


def test_the_scan_names_bad_files_and_what_is_worth_a_look(tmp_path: Path) -> None:
    splits(tmp_path, "a", "b", train=2)
    picture(tmp_path / "train/lone/x.png", seed=7)
    picture(tmp_path / "train/a/copy.png", seed=7)
    picture(tmp_path / "val/lone/leak.png", seed=7)
    Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(tmp_path / "train/a/flat.png")
    (tmp_path / "train/b/cut.jpg").write_bytes((tmp_path / "train/b/000.jpg").read_bytes()[:300])
    folder = find_class_folder(tmp_path)
    dataset, findings = survey_classes(folder, folder.items)
    kinds = [finding.kind for finding in findings]
    assert sorted(kinds) == sorted(
        [
            "unreadable file",
            "class of one image",
            "constant image",
            "same image in two classes",
            "same image in two classes",
        ]
    )
    assert dataset is not None
    assert dataset.card.images_per_class["train"] == {"a": 4, "b": 2, "lone": 1}
    with pytest.raises(RequestError, match=r"cut\.jpg"):
        scan_classes(folder, folder.items)


def test_grey_images_stand_beside_colour_and_other_mixtures_do_not(tmp_path: Path) -> None:
    flat(tmp_path, a=3, b=3)
    picture(tmp_path / "a/grey.png", grey=True)
    folder = open_class_folder(tmp_path)
    dataset = scan_classes(folder, folder.items)
    assert dataset.card.channels == 3
    assert all(dataset.image(item).shape[2] == 3 for item in folder.items)
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "b/deep.png")
    folder = open_class_folder(tmp_path)
    with pytest.raises(RequestError, match=r"different types: uint8 in 7 .*, uint16 in 1"):
        scan_classes(folder, folder.items)


def test_images_are_kept_up_to_the_limit(tmp_path: Path) -> None:
    folder = open_class_folder(flat(tmp_path, a=3, b=3))
    dataset = scan_classes(folder, folder.items, cache_bytes=2 * 6 * 5 * 3)
    for item in folder.items:
        dataset.image(item)
    assert len(dataset._kept) == 2
    first = folder.items[0]
    assert dataset.image(first) is dataset.image(first)
