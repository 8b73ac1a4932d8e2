"""Folders are recognised or refused with the reason; splits are the same everywhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.dataset import DatasetFile, DatasetFolder, open_dataset, read_names
from pixelwise.errors import RequestError

CLASSES = {"name": "toy", "classes": ["background", "cell"]}


def put(root: Path, *names: str) -> Path:
    """Make small files: images for names with such an ending, text for others."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg", ".tif", ".PNG"):
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
        else:
            path.write_text("text", encoding="utf-8")
    return root


def flat(root: Path, count: int = 10) -> Path:
    names = [f"{i:02}" for i in range(count)]
    return put(root, *(f"images/{name}.png" for name in names), *(f"masks/{name}.png" for name in names))


def split_folders(root: Path, **counts: int) -> Path:
    for split, count in counts.items():
        for i in range(count):
            put(root, f"images/{split}/{split}{i}.jpg", f"masks/{split}/{split}{i}.png")
    return root


def names(folder: DatasetFolder, split: str) -> list[str]:
    return [item.name for item in folder.split(split)]


def refusal(root: Path, **options: Any) -> str:
    """Return the text of the refusal: what was given, what is accepted, what to do."""
    with pytest.raises(RequestError) as caught:
        open_dataset(root, **options)
    text = str(caught.value)
    assert re.search(r"ccepted|Required", text), text
    assert re.search(r"\. [A-Z][^.]+.*\.$", text), text
    return text


def test_split_folders_with_a_dataset_file(tmp_path: Path) -> None:
    root = split_folders(tmp_path, train=3, val=2)
    put(root, "instances/train/train1.png")
    (root / "dataset.json").write_text(json.dumps(CLASSES | {"palette": [[0, 0, 0], [1, 2, 3]], "other": 1}))
    folder = open_dataset(root)
    assert (folder.name, folder.split_source, folder.ignored_files) == ("toy", "folders", ())
    assert folder.layout == "images/<split> and masks/<split> with dataset.json"
    assert folder.file == DatasetFile(
        name="toy", classes=("background", "cell"), palette=((0, 0, 0), (1, 2, 3)), ignore_index=None
    )
    assert names(folder, "train") == ["train0", "train1", "train2"]
    assert names(folder, "val") == ["val0", "val1"]
    item = folder.split("train")[1]
    assert item.image == root / "images/train/train1.jpg"
    assert item.mask == root / "masks/train/train1.png"
    assert item.instances == root / "instances/train/train1.png"
    assert folder.split("train")[0].instances is None


def test_flat_folder_without_a_dataset_file(tmp_path: Path) -> None:
    folder = open_dataset(flat(tmp_path / "cells"))
    assert (folder.name, folder.file) == ("cells", None)
    assert folder.layout == "images and masks without dataset.json"
    assert folder.split_source == "no val split: 2 of 10 items chosen by a hash of their names"
    assert len(names(folder, "train")) == 8
    assert names(folder, "val") == ["03", "07"]  # pinned: the same on every machine and in every version


def test_the_split_does_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    first, second = flat(tmp_path / "a"), tmp_path / "b"
    for name in reversed([f"{i:02}" for i in range(10)]):
        put(second, f"masks/{name}.png", f"images/{name}.png")
    assert names(open_dataset(first), "val") == names(open_dataset(second), "val")


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (3, 1), (7, 1), (8, 2), (12, 2), (13, 3)])
def test_a_fifth_is_for_validation(count: int, expected: int, tmp_path: Path) -> None:
    folder = open_dataset(flat(tmp_path, count))
    assert len(names(folder, "val")) == expected
    assert len(names(folder, "train")) == count - expected


def test_a_train_split_without_val_is_divided_and_others_stay(tmp_path: Path) -> None:
    folder = open_dataset(split_folders(tmp_path, train=5, test=2))
    assert len(names(folder, "train")) == 4
    assert len(names(folder, "val")) == 1
    assert names(folder, "test") == ["test0", "test1"]
    assert folder.split_source == "no val split: 1 of 5 items chosen by a hash of their names"


def test_splits_without_train_can_be_opened(tmp_path: Path) -> None:
    folder = open_dataset(split_folders(tmp_path, val=2, test=1))
    assert names(folder, "val") == ["val0", "val1"]
    with pytest.raises(RequestError, match=r"has no split 'train'; accepted: test, val\. Choose one of them\.$"):
        folder.split("train")


def test_a_test_split_may_lack_masks_but_that_is_said(tmp_path: Path) -> None:
    root = split_folders(tmp_path, train=3, val=2)
    put(root, "images/test/a.png", "images/test/b.png")
    folder = open_dataset(root)
    assert folder.unlabelled == {"test": 2}
    assert {item.split for item in folder.items} == {"train", "val"}
    with pytest.raises(RequestError, match=r"the 2 images of split 'test' have no masks; accepted: .*\(train, val\)"):
        folder.split("test")
    put(root, "masks/test/a.png")
    assert f"{root / 'images/test/b.png'} has no mask of the same name in {root / 'masks/test'}" in refusal(root)
    only = put(tmp_path / "only", "images/test/a.png", "masks/notes.txt")
    assert "holds no images with masks" in refusal(only)


def test_the_validation_list(tmp_path: Path) -> None:
    root = flat(tmp_path / "data")
    chosen = tmp_path / "val.txt"
    chosen.write_text("\ufeff03\n\n 07 \r\n03\n", encoding="utf-8")
    folder = open_dataset(root, val_list=chosen)
    assert names(folder, "val") == ["03", "07"]
    assert len(names(folder, "train")) == 8
    assert folder.split_source == f"validation items from {chosen}"


def test_validation_lists_that_do_not_fit(tmp_path: Path) -> None:
    root = put(tmp_path / "data", *(f"{kind}/cell_{i}.png" for kind in ("images", "masks") for i in range(4)))
    chosen = tmp_path / "val.txt"
    assert f"list {chosen} cannot be read (" in refusal(root, val_list=chosen)
    assert f"list {tmp_path} cannot be read (" in refusal(root, val_list=tmp_path)
    chosen.write_bytes(b"\xff\xfe\x00")
    assert f"list {chosen} cannot be read (" in refusal(root, val_list=chosen)
    chosen.write_text("cell_1.png\ncell1\n")
    text = refusal(root, val_list=chosen)
    assert f"list {chosen} names 'cell_1.png', which is no item of the data (2 such names); accepted: file" in text
    assert "; closest: cell_1, " in text
    chosen.write_text("\n \n")
    assert f"list {chosen} is empty" in refusal(root, val_list=chosen)
    chosen.write_text("\n".join(f"cell_{i}" for i in range(4)))
    assert f"list {chosen} names all 4 items of {root}; accepted: at most 3" in refusal(root, val_list=chosen)
    chosen.write_text("val0\n")
    both = split_folders(tmp_path / "both", train=2, val=2)
    text = refusal(both, val_list=chosen)
    assert f"--val-list {chosen} was given, but {both} has a val split of its own" in text
    alone = split_folders(tmp_path / "alone", val=2)
    assert f"{alone} has a val split of its own" in refusal(alone, val_list=chosen)
    other = split_folders(tmp_path / "other", morning=2, evening=2)
    assert f"{other} has the splits evening, morning only" in refusal(other, val_list=chosen)


def test_read_names_returns_each_once(tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_text("b\na\nb\n")
    assert read_names(path, iter(["a", "b", "c"])) == {"a", "b"}


def test_folders_that_are_none(tmp_path: Path) -> None:
    assert f"data folder {tmp_path / 'none'} does not exist. Accepted:" in refusal(tmp_path / "none")
    (tmp_path / "file.zip").write_text("")
    assert f"data folder {tmp_path / 'file.zip'} is a file, not a folder. Accepted:" in refusal(tmp_path / "file.zip")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} has no images/ and no masks/ (it holds: nothing)." in refusal(empty)
    put(empty, "images/notes.txt", "drawings/a.png")
    assert f"{empty} has no masks/ (it holds: drawings, images)." in refusal(empty)
    (empty / "masks").mkdir()
    assert f"{empty} (images and masks without dataset.json) holds no images (.png, .jpg, .jpeg" in refusal(empty)
    assert "holds one image to train on; accepted: at least two, one" in refusal(flat(tmp_path / "one", 1))


def test_images_and_masks_without_partner(tmp_path: Path) -> None:
    root = flat(tmp_path, 3)
    put(root, "images/lonely.png", "masks/left.png")
    text = refusal(root)
    assert f"2 files have no partner of the same name: {root / 'images/lonely.png'}, {root / 'masks/left.png'};" in text
    assert "accepted: one mask for each image, with the same name before the ending. Add the missing files" in text
    (root / "images/lonely.png").unlink()
    assert f"{root / 'masks/left.png'} has no image of the same name in {root / 'images'}; accepted:" in refusal(root)
    (root / "masks/left.png").unlink()
    put(root, "instances/other.png")
    assert f"{root / 'instances/other.png'} has no image of the same name in {root / 'images'}; acc" in refusal(root)
    many = put(tmp_path / "many", *(f"images/{i}.png" for i in range(7)), "masks/none.txt")
    text = refusal(many)
    assert "7 files have no partner" in text
    assert text.count(".png,") == 5
    assert f", ... (`pixelwise check {many}` lists all); accepted" in text


def test_duplicate_names_and_mixed_layouts(tmp_path: Path) -> None:
    root = flat(tmp_path / "a", 3)
    put(root, "images/01.jpg")
    text = refusal(root)
    assert f"{root / 'images/01.png'} and 01.jpg have the same name; accepted: one file a name. Rename one, or" in text
    root = put(split_folders(tmp_path / "b", train=2, val=1), "images/loose.png")
    text = refusal(root)
    assert f"{root / 'images'} holds 1 images (such as loose.png) beside the folders train, val" in text
    root = put(split_folders(tmp_path / "c", train=3), "masks/val/a.png")
    text = refusal(root)
    assert f"{root / 'masks/val'} holds masks, but there is no folder {root / 'images/val'}" in text
    assert "(images has train)" in text


def test_other_files_are_left_out_and_reported_but_hidden_ones(tmp_path: Path) -> None:
    root = flat(tmp_path, 3)
    put(root, "images/Thumbs.db", "images/.DS_Store", "images/.a.png", "masks/readme.txt", "masks/.ipynb/a.png")
    (root / "masks/old.png").mkdir()
    (root / "images/.cache").mkdir()
    folder = open_dataset(root)
    assert len(folder.items) == 3
    assert [str(path.relative_to(root)) for path in folder.ignored_files] == [
        "images/Thumbs.db",
        "masks/old.png",
        "masks/readme.txt",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as JSON (Expecting property name"),
        ("", "cannot be read as JSON (Expecting value"),
        ("[1]", "Input should be"),
        ({"name": "a"}, "classes: Field required. Required: name (text) and classes"),
        ({"classes": ["a"]}, "name: Field required"),
        ({"name": "a", "classes": []}, "classes is empty; name at least one"),
        ({"name": "a", "classes": ["x", "y", "x"]}, "classes names 'x' 2 times; name each once"),
        ({"name": "a", "classes": [1]}, "classes: [0]: Input should be a valid string (given: 1)"),
        (
            {"name": "a", "classes": ["x", "y"], "palette": [[0, 0, 0]]},
            "palette has 1 colours for 2 classes; give 2, or 3",
        ),
        ({"name": "a", "classes": ["x"], "palette": [[0, 0, 256]]}, "equal to 255 (given: 256)"),
        (
            {"name": "a", "classes": ["x"], "ignore_index": -1},
            "ignore_index: Input should be greater than or equal to 0",
        ),
        ({"name": "a", "classes": ["x"], "ignore_index": 70000}, "equal to 65535 (given: 70000)"),
        (
            {"name": "a", "classes": ["x"], "mask_encoding": "rgb"},
            "mask_encoding: Input should be 'index', 'palette', ",
        ),
        (
            {"name": "a", "classes": ["x", "y", "z"], "mask_encoding": "objects"},
            "mask_encoding 'objects' has two classes, classes names 3; name two",
        ),
        ({"name": "a", "classes": ["x"], "mask_encoding": "binary"}, "'binary' has two classes, classes names 1"),
        ({"name": "a", "classes": ["x"], "mask_encoding": "colours"}, "mask_encoding 'colours' needs palette; give"),
        (
            {"name": "a", "classes": ["cell", "membrane"], "boundary_class": "membran"},
            "boundary_class 'membran' is no class; give 0 to 1 or a name such as membrane",
        ),
        ({"name": "a", "classes": ["cell", "membrane"], "boundary_class": 2}, "boundary_class 2 is no class; give 0"),
        ("[" * 100_000, "cannot be read as JSON ("),
    ],
)
def test_dataset_files_that_are_wrong(content: object, words: str, tmp_path: Path) -> None:
    root = flat(tmp_path, 3)
    (root / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
    text = refusal(root)
    assert text.startswith(f"{root / 'dataset.json'}: ")
    assert words in text


@pytest.mark.parametrize(("given", "index"), [("membrane", 1), (1, 1), (0, 0), (None, None)])
def test_the_boundary_class_is_a_number_or_a_name(given: object, index: int | None) -> None:
    file = DatasetFile.model_validate({"name": "em", "classes": ["cell", "membrane"], "boundary_class": given})
    assert file.boundary_index() == index


def test_the_test_list_holds_items_out(tmp_path: Path) -> None:
    root = flat(tmp_path / "data")
    chosen = tmp_path / "test.txt"
    chosen.write_text("03\n05\n")
    folder = open_dataset(root, test_list=chosen)
    assert names(folder, "test") == ["03", "05"]
    assert names(folder, "val") == ["07", "08"]  # two of the eight that are left
    assert len(names(folder, "train")) == 6
    assert folder.split_source == (
        f"no val split: 2 of 8 items chosen by a hash of their names, test items from {chosen}"
    )
    val = tmp_path / "val.txt"
    val.write_text("00\n")
    folder = open_dataset(root, val_list=val, test_list=chosen)
    assert (names(folder, "val"), names(folder, "test"), len(names(folder, "train"))) == (["00"], ["03", "05"], 7)
    assert folder.split_source == f"validation items from {val}, test items from {chosen}"


def test_the_test_list_beside_splits(tmp_path: Path) -> None:
    root = split_folders(tmp_path / "data", train=3, val=3)
    chosen = tmp_path / "test.txt"
    chosen.write_text("train1\nval2\n")
    folder = open_dataset(root, test_list=chosen)
    assert [names(folder, split) for split in ("train", "val", "test")] == [
        ["train0", "train2"],
        ["val0", "val1"],
        ["train1", "val2"],
    ]
    assert folder.split_source == f"folders, test items from {chosen}"
    put(root, "images/test/a.png")  # images without masks are no test split
    assert names(open_dataset(root, test_list=chosen), "test") == ["train1", "val2"]


def test_test_lists_that_do_not_fit(tmp_path: Path) -> None:
    root, chosen, val = flat(tmp_path / "data", 4), tmp_path / "test.txt", tmp_path / "val.txt"
    chosen.write_text("01\n02\n")
    val.write_text("02\n03\n")
    text = refusal(root, val_list=val, test_list=chosen)
    assert f"lists {val} and {chosen} both name '02' (1 such names); accepted" in text
    chosen.write_text("1\n")
    assert f"list {chosen} names '1', which is no item of the data" in refusal(root, test_list=chosen)
    chosen.write_text("00\n01\n02\n03\n")
    assert f"list {chosen} names all 4 items of {root}; accepted: at most 3" in refusal(root, test_list=chosen)
    chosen.write_text("00\n01\n02\n")
    assert "holds one image to train on; accepted: at least two" in refusal(root, test_list=chosen)
    own = split_folders(tmp_path / "own", train=2, test=2)
    assert f"--test-list {chosen} was given, but {own} has a test split of its own" in refusal(own, test_list=chosen)
    twice = put(
        tmp_path / "twice", *(f"{kind}/{split}/a.png" for kind in ("images", "masks") for split in ("train", "val"))
    )
    put(twice, "images/train/b.png", "masks/train/b.png")
    chosen.write_text("a\n")
    assert f"list {chosen} names 'a', which is an item of train and of val (1 such names)" in refusal(
        twice, test_list=chosen
    )


def test_a_dataset_file_may_begin_with_a_mark_and_have_an_ignore_colour(tmp_path: Path) -> None:
    root = flat(tmp_path, 3)
    content = CLASSES | {"palette": [[0, 0, 0], [9, 9, 9], [255, 0, 0]], "ignore_index": 255}
    (root / "dataset.json").write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    file = open_dataset(root).file
    assert file is not None
    assert file.palette == ((0, 0, 0), (9, 9, 9), (255, 0, 0))
