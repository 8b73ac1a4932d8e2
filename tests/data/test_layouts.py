"""The usual arrangements of folders and files are recognised; what fits several, or none, is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pixelwise.data.dataset import open_dataset
from pixelwise.data.known import CAMVID, ISBI, VOC, voc_colour
from pixelwise.data.layouts import MASKS, read_name, without_word
from pixelwise.errors import RequestError


def put(root: Path, *names: str) -> Path:
    """Make small files: images for names with such an ending, text for others."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg"):
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
        else:
            path.write_text("text", encoding="utf-8")
    return root


def stack(path: Path, pages: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.zeros((pages, 4, 5), np.uint8), photometric="minisblack")


def found(root: Path) -> tuple[str, dict[str, list[tuple[str, str]]]]:
    """Return the layout, and for each split the files of its pairs below the root."""
    folder = open_dataset(root)
    splits: dict[str, list[tuple[str, str]]] = {}
    for item in folder.items:
        files = (str(item.image.relative_to(root)), str(item.mask.relative_to(root)))
        splits.setdefault(item.split, []).append(files)
    return folder.layout.removesuffix(" without dataset.json"), splits


def refusal(root: Path) -> str:
    with pytest.raises(RequestError) as caught:
        open_dataset(root)
    text = str(caught.value)
    assert "ccepted" in text
    assert len(text.splitlines()) <= 3
    return text


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        ("imgs/{split}/a{i}.jpg", "labels/{split}/a{i}.png", "imgs/<split> and labels/<split>"),
        ("Images/{split}/a{i}.jpg", "GT/{split}/a{i}.png", "Images/<split> and GT/<split>"),
        ("{split}/images/a{i}.jpg", "{split}/masks/a{i}.png", "<split>/images and <split>/masks"),
        ("{split}/img/a{i}.png", "{split}/Annotations/a{i}_label.png", "<split>/img and <split>/Annotations"),
        ("{split}/a{i}.png", "{split}annot/a{i}.png", "train and trainannot"),
        ("{split}/a{i}.png", "{split}_labels/a{i}_L.png", "train and train_labels"),
        ("{split}_images/a{i}.jpg", "{split}_masks/a{i}.png", "train_images and train_masks"),
        ("images_{split}/a{i}.jpg", "masks_{split}/a{i}.png", "images_train and masks_train"),
        ("{split}/a{i}.jpg", "{split}/a{i}_mask.png", "masks beside the images"),
        ("images/{split}/image_{i}.jpg", "masks/{split}/mask_{i}.png", "images/<split> and masks/<split>"),
        ("images/{split}/a{i}_sat.jpg", "masks/{split}/a{i}_mask.png", "images/<split> and masks/<split>"),
        ("images/{split}/a{i}.jpg", "masks/{split}/mask-a{i}.png", "images/<split> and masks/<split>"),
    ],
)
@pytest.mark.parametrize("names", [("train", "val"), ("training", "validation")])
def test_layouts_with_splits(images: str, masks: str, words: str, names: tuple[str, str], tmp_path: Path) -> None:
    files: dict[str, list[tuple[str, str]]] = {}
    for split, name, count in zip(("train", "val"), names, (3, 2), strict=True):
        files[split] = [(images.format(split=name, i=i), masks.format(split=name, i=i)) for i in range(count)]
    put(tmp_path, *(name for pairs in files.values() for pair in pairs for name in pair))
    layout, splits = found(tmp_path)
    assert layout == words.replace("train", names[0])
    assert splits == files


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        ("img/a{i}.jpg", "gt/a{i}.png", "img and gt"),
        ("photos/a{i}.jpg", "ground_truth/a{i}_gt.png", "photos and ground_truth"),
        ("a{i}.jpg", "a{i}_mask.png", "masks beside the images"),
        ("cell_{i}.png", "mask_cell_{i}.png", "masks beside the images"),
        ("img_{i}.png", "label_{i}.png", "masks beside the images"),
    ],
)
def test_layouts_without_splits(images: str, masks: str, words: str, tmp_path: Path) -> None:
    files = [(images.format(i=i), masks.format(i=i)) for i in range(4)]
    put(tmp_path, "readme.txt", "dataset.txt", *(name for pair in files for name in pair))
    layout, splits = found(tmp_path)
    assert layout == words
    assert sorted(pair for pairs in splits.values() for pair in pairs) == files
    assert set(splits) == {"train", "val"}


def test_a_test_split_may_lack_masks_in_every_layout(tmp_path: Path) -> None:
    kinds = {
        "by split": ("{split}/images/a.png", "{split}/masks/a.png"),
        "beside": ("{split}/a.png", "{split}annot/a.png"),
        "together": ("{split}/a.png", "{split}/a_mask.png"),
    }
    for kind, (image, mask) in kinds.items():
        root = tmp_path / kind
        put(root, *(name.format(split=split) for split in ("train", "val") for name in (image, mask)))
        put(root, image.format(split="test"))
        folder = open_dataset(root)
        assert folder.unlabelled == {"test": 1}, kind
        assert [item.split for item in folder.items] == ["train", "val"]
        put(root, image.format(split="val").replace("a.png", "b.png"))
        assert f"{root / image.format(split='val').replace('a.png', 'b.png')} has no mask of the same name" in refusal(
            root
        )
    root = put(tmp_path / "no val masks", "train/a.png", "trainannot/a.png", "val/b.png")
    assert f"{root / 'val/b.png'} has no mask of the same name in {root / 'val_masks'}" in refusal(root)


def voc(root: Path, names: dict[str, list[str]]) -> Path:
    for split, chosen in names.items():
        for name in chosen:
            put(root, f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png", f"SegmentationObject/{name}.png")
        path = root / f"ImageSets/Segmentation/{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(chosen) + "\n")
    return root


def test_voc(tmp_path: Path) -> None:
    root = voc(tmp_path / "VOC2012", {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]})
    put(root, "JPEGImages/2007_000027.jpg", "Annotations/2007_000032.xml")  # an image with boxes alone
    (root / "ImageSets/Segmentation/trainval.txt").write_text("2007_000032\n2007_000033\n2007_000039\n")
    folder = open_dataset(root)
    assert folder.layout == (
        "VOC: JPEGImages and SegmentationClass, splits from ImageSets/Segmentation without dataset.json"
    )
    assert [(item.split, item.name) for item in folder.items] == [
        ("train", "2007_000032"),
        ("train", "2007_000039"),
        ("val", "2007_000033"),
    ]
    assert folder.items[0].instances == root / "SegmentationObject/2007_000032.png"
    assert folder.known is VOC
    outer = refusal(tmp_path)
    assert f"(it holds: VOC2012). Did you mean {root}?" in outer
    (root / "ImageSets/Segmentation/test.txt").write_text("2007_000027\n")
    assert open_dataset(root).unlabelled == {"test": 1}
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_000033 2007_000099\n")
    text = refusal(root)
    assert f"{root / 'JPEGImages/2007_000099.jpg'} has no mask of the same name in {root / 'SegmentationClass'}" in text
    (root / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xfe\x00")
    assert f"list {root / 'ImageSets/Segmentation/val.txt'} cannot be read (" in refusal(root)


def test_voc_without_lists_takes_the_images_with_masks(tmp_path: Path) -> None:
    root = put(
        tmp_path, *(f"JPEGImages/x{i}.jpg" for i in range(9)), *(f"SegmentationClass/x{i}.png" for i in range(5))
    )
    folder = open_dataset(root)
    assert sorted(item.name for item in folder.items) == ["x0", "x1", "x2", "x3", "x4"]
    assert folder.known is None


def test_isbi_stacks_as_distributed(tmp_path: Path) -> None:
    for name in ("train-volume", "train-labels", "test-volume"):
        stack(tmp_path / f"{name}.tif", 5)
    folder = open_dataset(tmp_path)
    assert folder.layout == "stacks of pages: <split>-volume.tif and <split>-labels.tif without dataset.json"
    assert folder.known is ISBI
    assert folder.unlabelled == {"test": 5}
    assert sorted((item.name, item.page) for item in folder.items) == [(f"train-volume_00{i}", i) for i in range(5)]
    assert sorted({item.split for item in folder.items}) == ["train", "val"]
    assert {item.mask for item in folder.items} == {tmp_path / "train-labels.tif"}


def test_pairs_of_stacks(tmp_path: Path) -> None:
    stack(tmp_path / "images/a.tif", 2)
    stack(tmp_path / "masks/a.tif", 2)
    stack(tmp_path / "instances/a.tif", 2)
    put(tmp_path, "images/b.png", "masks/b.png")
    folder = open_dataset(tmp_path)
    assert sorted((item.name, item.page) for item in folder.items if item.page is not None) == [
        ("a_000", 0),
        ("a_001", 1),
    ]
    assert [item.page for item in folder.items if item.name == "b"] == [None]
    stack(tmp_path / "masks/a.tif", 3)
    text = refusal(tmp_path)
    assert f"{tmp_path / 'images/a.tif'} holds 2 images (pages), but there are 3 in {tmp_path / 'masks/a.tif'}" in text
    stack(tmp_path / "masks/a.tif", 2)
    put(tmp_path, "images/a_001.png", "masks/a_001.png")
    assert f"{tmp_path / 'images/a_001.png'} and {tmp_path / 'images/a.tif'} both make the item 'a_001'" in refusal(
        tmp_path
    )


def test_one_file_for_each_object(tmp_path: Path) -> None:
    names = [f"{i:064x}" for i in range(3)]
    for name in names:
        put(tmp_path, *(f"stage1_train/{name}/{kind}.png" for kind in (f"images/{name}", "masks/x", "masks/y")))
    put(tmp_path, f"stage1_test/{names[0]}/images/{names[0]}.png", "stage1_train_labels.csv")
    folder = open_dataset(tmp_path)
    assert folder.layout == "NAME/images/NAME.png and NAME/masks/*.png, one for each object without dataset.json"
    assert sorted(item.name for item in folder.items) == names
    assert folder.items[0].mask == tmp_path / "stage1_train" / folder.items[0].name / "masks"
    assert folder.unlabelled == {"test": 1}
    assert len(open_dataset(tmp_path / "stage1_train").items) == 3


def test_segnets_camvid_is_known_by_its_names(tmp_path: Path) -> None:
    names = ["0001TP_006690", "0016E5_00390", "Seq05VD_f00000", "0006R0_f00930"]
    put(tmp_path, *(f"{folder}/{name}.png" for folder in ("train", "trainannot") for name in names))
    assert open_dataset(tmp_path).known is CAMVID
    put(tmp_path, "train/other.png", "trainannot/other.png")
    assert open_dataset(tmp_path).known is None


def test_the_palette_of_voc() -> None:
    """By the table of the development kit: aeroplane, bicycle, person and the borders."""
    assert [voc_colour(index) for index in (0, 1, 2, 15, 20, 255)] == [
        *((0, 0, 0), (128, 0, 0), (0, 128, 0), (192, 128, 128)),
        *((0, 64, 128), (224, 224, 192)),
    ]


def test_our_own_layout_comes_first(tmp_path: Path) -> None:
    kinds = ("images", "masks", "labels", "img")
    put(tmp_path, *(f"{kind}/{split}/a.png" for kind in kinds for split in ("train", "val")))
    assert found(tmp_path)[0] == "images/<split> and masks/<split>"


def test_what_fits_several_is_refused(tmp_path: Path) -> None:
    root = put(tmp_path / "a", *(f"{kind}/a{i}.png" for kind in ("img", "gt", "labels") for i in range(3)))
    text = refusal(root)
    assert text.startswith(
        f"{root} has 2 folders of masks: gt, labels; accepted: one. Rename the one that is meant to "
    )
    (root / "labels").rename(root / "old")  # a word that says nothing
    assert found(root)[0] == "img and gt"
    put(root, *(f"{kind}/b{i}.png" for kind in ("train", "trainannot") for i in range(3)))
    text = refusal(root)
    assert text.startswith(
        f"{root} can be read in 2 ways: img and gt and train and trainannot; accepted: one. Move what"
    )
    root = put(
        tmp_path / "b", "images/a.png", "masks/a_mask.png", "masks/a_label.png", "images/b.png", "masks/b_mask.png"
    )
    text = refusal(root)
    assert re.search(
        r"a_mask\.png and a_label\.png are both the mask of 'a' by their names; accepted: one mask a", text
    )
    both = [f"{name}/{name}{i}.png" for name in ("train", "training") for i in range(2)]
    root = put(tmp_path / "c", *(f"{kind}/{name}" for kind in ("images", "masks") for name in both))
    assert {item.split for item in open_dataset(root).items} >= {"training"}  # both stay what they are called


def test_an_unknown_layout_says_what_was_found(tmp_path: Path) -> None:
    root = put(tmp_path, "left/a.png", "right/a.png", "notes.txt")
    text = refusal(root)
    assert text.startswith(
        f"{root} has no images/ and no masks/ (it holds: left, notes.txt, right). It holds a folder for each class: "
        "train a classifier on it, such as --model resnet50. Accepted: a folder with images/ and masks/ "
    )
    assert text.endswith("Arrange the files so, or name another folder.")
    for name in ("images", "masks"):
        put(root, f"inner/{name}/a.png")
    assert f"(it holds: inner, left, notes.txt, right). Did you mean {root / 'inner'}? Accepted" in refusal(root)


def test_words_in_names() -> None:
    assert [read_name(name) for name in ("train", "Test_Images", "valannot", "labels-training", "IMG", "gt")] == [
        ("train", ""),
        ("test", "image"),
        ("val", "mask"),
        ("train", "mask"),
        ("", "image"),
        ("", "mask"),
    ]
    assert [read_name(name) for name in ("notes", "trainer", "old masks", "", "images2")] == [
        None,
        None,
        None,
        ("", ""),
        None,
    ]
    stems = ["a_mask", "MASK-a", "a.label", "mask", "masked_a", "a_b_seg", "seg"]
    assert [without_word(stem, MASKS) for stem in stems] == ["a", "a", "a", "mask", "masked_a", "a_b", "seg"]
