"""A check lists all problems in one run, and describes what has no error all the same."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.check import Check, check_dataset
from pixelwise.data.dataset import open_dataset
from pixelwise.data.dataset_file import DatasetFile
from pixelwise.data.scan import scan
from pixelwise.errors import RequestError

Array = NDArray[Any]
MASK = np.array([[0, 0, 0, 1, 1, 2]] * 4, np.uint8)
THREE = {"classes": ["sky", "tree", "car"]}


def image(seed: int = 0, shape: tuple[int, ...] = (4, 6), dtype: type = np.uint8) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def save(path: Path, array: Array | Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig" if array.ndim == 3 else None)
    else:
        (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path, **options)


def write(root: Path, **card: Any) -> Path:
    """Write four images for training and two for validation, all different, with the same mask."""
    for number, name in enumerate(("train/a", "train/b", "train/c", "train/d", "val/e", "val/f")):
        save(root / f"images/{name}.png", image(number))
        save(root / f"masks/{name}.png", MASK)
    if card:
        (root / "dataset.json").write_text(json.dumps({"name": "toy"} | card))
    return root


def image_of(mask: Path) -> Path:
    return mask.parents[2] / "images" / mask.relative_to(mask.parents[1])


def told(check: Check, severity: str = "error") -> list[tuple[str, str]]:
    """Return file and kind of all problems of a severity."""
    return [(problem.file, problem.kind) for problem in check.problems if problem.severity == severity]


def sentence(check: Check, file: str, kind: str) -> str:
    (text,) = [problem.problem for problem in check.problems if (problem.file, problem.kind) == (file, kind)]
    assert re.search(r"accepted.*\. [A-Z].*\.$", text), text
    assert str(check.root) not in text
    return text


def test_clean_data_has_no_problems(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    check = check_dataset(write(tmp_path, **THREE), on_image=lambda done, total: calls.append((done, total)))
    assert (check.problems, check.ready, check.num_images, check.root) == ((), True, 6, tmp_path)
    assert check.layout == "images/<split> and masks/<split> with dataset.json"
    assert check.classes == ("sky", "tree", "car")
    assert check.mask_encoding == "values are class numbers, classes named by dataset.json"
    assert calls == [(i, 6) for i in range(1, 7)]
    card = check.card
    assert card is not None
    assert card.images_per_class == {
        "train": dict.fromkeys(THREE["classes"], 4),
        "val": dict.fromkeys(THREE["classes"], 2),
    }
    assert card.cooccurrence == ((6, 6, 6),) * 3
    assert (card.boundary_class, card.num_objects, card.warnings) == (None, None, 0)
    assert type(card).model_validate_json(card.model_dump_json()) == card


def test_every_problem_in_one_run(tmp_path: Path) -> None:
    root = write(tmp_path, **THREE, ignore_index=255)
    save(root / "masks/train/a.png", MASK[:2])
    (root / "images/train/b.png").write_bytes(b"")
    wrong = MASK.copy()
    wrong[0, :3] = 7
    save(root / "masks/train/c.png", wrong)
    (root / "masks/val/e.png").rename(root / "masks/val/left.png")
    (root / "masks/val/f.png").write_bytes((root / "masks/val/f.png").read_bytes()[:40])
    save(root / "images/train/x.png", image(7))
    save(root / "masks/train/x.png", np.full_like(MASK, 255))
    check = check_dataset(root)
    assert not check.ready
    assert sorted(told(check)) == [
        ("images/train/a.png", "different size"),
        ("images/train/b.png", "unreadable file"),
        ("images/val/e.png", "file without partner"),
        ("masks/train/c.png", "value without class"),
        ("masks/train/x.png", "nothing labelled"),
        ("masks/val/f.png", "unreadable file"),
        ("masks/val/left.png", "file without partner"),
    ]
    assert sentence(check, "images/train/a.png", "different size") == (
        "is 4 x 6 (height x width), but masks/train/a.png is 2 x 6; accepted: equal sizes. Export the mask again at "
        "the image's size."
    )
    assert sentence(check, "masks/train/c.png", "value without class").startswith(
        "holds value 7 (3 pixels); accepted: 0 to"
    )
    assert sentence(check, "masks/train/x.png", "nothing labelled").startswith("has no labelled pixel: all 24 are ign")
    assert sentence(check, "images/train/b.png", "unreadable file").startswith("cannot be read as an image (")
    assert sentence(check, "images/val/e.png", "file without partner").startswith(
        "has no mask of the same name in masks"
    )
    # what has no error is described
    assert check.num_images == 6
    assert check.dataset is not None
    assert check.dataset.card.num_images == {"train": 2}
    for item in check.dataset.folder.items:
        if item.name == "d":
            np.testing.assert_array_equal(check.dataset.labels(item), MASK)
    with pytest.raises(RequestError, match=r"2 files have no partner of the same name: "):
        open_dataset(root)


def test_errors_come_before_warnings(tmp_path: Path) -> None:
    root = write(tmp_path, classes=["sky", "tree", "car", "boat"])
    save(root / "images/train/b.png", image(0))
    (root / "masks/val/f.png").write_bytes(b"")
    check = check_dataset(root)
    assert [problem.severity for problem in check.problems] == ["error", "warning", "warning"]
    assert told(check, "warning") == [
        ("images/train/b.png", "same image twice"),
        ("dataset.json", "class without training pixels"),
    ]
    assert check.card is not None
    assert check.card.warnings == 2
    assert check.card.decisions[-1] == (
        "2 warnings, the first (`pixelwise check` tells more): "
        f"{root / 'images/train/b.png'} is the same image as {root / 'images/train/a.png'}"
    )


def test_equal_images_are_found_by_their_pixels(tmp_path: Path) -> None:
    root = write(tmp_path, **THREE)
    (root / "images/val/e.png").unlink()
    save(root / "images/val/e.bmp", image(1))  # as train/b
    save(root / "images/val/f.png", image(0), compress_level=0)  # as train/a
    save(root / "masks/val/f.png", MASK.T.reshape(4, 6))
    check = check_dataset(root)
    assert check.ready
    assert told(check) == []
    assert told(check, "warning") == [
        ("images/val/f.png", "same image in two splits"),
        ("masks/val/f.png", "same image, different masks"),
        ("images/val/e.bmp", "same image in two splits"),
    ]
    assert sentence(check, "images/val/e.bmp", "same image in two splits").startswith(
        "is the same image as images/train/b.png of split train, so that what is learnt from one leaks"
    )


def test_empty_constant_and_copied_files_are_worth_a_look(tmp_path: Path) -> None:
    root = write(tmp_path, classes=["background", "tree", "car"])
    save(root / "masks/train/a.png", MASK * 0)
    save(root / "images/train/b.png", np.full_like(MASK, 9))
    save(root / "images/train/c.png", MASK)
    check = check_dataset(root)
    assert told(check, "warning") == [
        ("masks/train/a.png", "only background"),
        ("images/train/b.png", "constant image"),
        ("masks/train/c.png", "mask like image"),
    ]
    assert sentence(check, "masks/train/a.png", "only background").startswith("is background all over; accepted, if")
    plain = write(tmp_path / "b", classes=["sky", "tree", "car"])
    save(plain / "masks/train/a.png", MASK * 0)
    assert check_dataset(plain).problems == ()  # the whole image may be sky


@pytest.mark.parametrize(
    ("orientation", "shape", "warns"),
    [
        (1, (4, 6), False),
        (2, (4, 6), True),
        (3, (4, 6), True),
        (4, (4, 6), True),
        (6, (4, 6), False),
        (6, (6, 6), True),
    ],
)
def test_orientations_that_sizes_do_not_settle(
    orientation: int, shape: tuple[int, int], warns: bool, tmp_path: Path
) -> None:
    """A mask without the note has the same size either way where an image is mirrored, turned half round or square."""
    root = write(tmp_path, **THREE)
    exif = Image.Exif()
    exif[274] = orientation
    mask = np.resize(MASK, shape)
    save(root / "images/train/a.png", image(9, shape), exif=exif)
    save(root / "masks/train/a.png", mask)
    warned = [("images/train/a.png", "orientation")] if warns else []
    assert told(check_dataset(root), "warning") == warned
    if warns:
        text = sentence(check_dataset(root), "images/train/a.png", "orientation")
        assert f"(orientation {orientation}), but its mask has no such note, and its size does not tell" in text
        save(root / "masks/train/a.png", mask, exif=exif)
        assert check_dataset(root).problems == ()


def test_classes_that_are_missing_where_they_are_learnt(tmp_path: Path) -> None:
    root = write(tmp_path, classes=["sky", "tree", "car", "boat", "void"], ignore_index=4)
    boat = MASK.copy()
    boat[0] = 3
    save(root / "masks/val/e.png", boat)
    for name in "abcd":
        save(root / f"masks/train/{name}.png", MASK.clip(0, 1))
    check = check_dataset(root)
    assert [problem.problem.split("; accepted")[0] for problem in check.problems] == [
        "2 classes occur in val but not in train: car (in 2 images), boat (in 1 image)",
    ]
    (root / "dataset.json").write_text(json.dumps({"name": "x", "classes": ["sky", "tree", "car", "boat", "x", "y"]}))
    assert [problem.problem.split("; accepted")[0] for problem in check_dataset(root).problems][1:] == [
        "2 classes never occur in train: x, y",
    ]


def test_object_maps_are_held_against_the_masks(tmp_path: Path) -> None:
    root = write(tmp_path, classes=["background", "cell", "debris"])
    ids = np.zeros((4, 6), np.uint16)
    ids[:, 3:5] = [5, 9]  # two cells
    save(root / "instances/train/a.png", ids)
    ids[0, :4] = 9  # three pixels of background; a pixel of another cell
    ids[1, 3] = 0
    save(root / "instances/train/b.png", ids)
    check = check_dataset(root)
    assert told(check, "warning") == [("instances/train/b.png", "objects against masks")]
    assert sentence(check, "instances/train/b.png", "objects against masks").startswith(
        "disagrees with the mask: 3 pixels of background with an object id, 1 pixel of cell without one; accepted"
    )
    assert check.card is not None
    assert check.card.num_objects == {"train": 4, "val": 0}


def test_borders_of_voc_are_no_objects(tmp_path: Path) -> None:
    """255 in both maps marks the borders of objects."""
    root = write(tmp_path, **THREE, ignore_index=255)
    mask, ids = MASK.copy(), np.zeros((4, 6), np.uint8)
    mask[:, 2], ids[:, 2], ids[:, 3] = 255, 255, 1
    save(root / "masks/train/a.png", mask)
    save(root / "instances/train/a.png", ids)
    check = check_dataset(root)
    assert check.card is not None
    assert check.card.num_objects == {"train": 1, "val": 0}
    assert check.dataset is not None
    found = check.dataset.instances(check.dataset.folder.items[0])
    np.testing.assert_array_equal(found, np.where(ids == 255, 0, ids))


def test_images_and_masks_of_several_kinds(tmp_path: Path) -> None:
    root = write(tmp_path, **THREE)
    for name, channels in (("train/a", 4), ("train/b", 4), ("val/e", 5)):
        (root / f"images/{name}.png").unlink()
        save(root / f"images/{name}.tif", image(8, (4, 6, channels)))
    save(root / "images/val/f.png", image(3, dtype=np.uint16))
    save(root / "masks/train/c.png", np.dstack([MASK, MASK * 2, MASK]))
    check = check_dataset(root)
    assert told(check) == [
        ("images/val/e.tif", "images of different kinds"),
        ("images/val/f.png", "images of different kinds"),
        ("masks/train/c.png", "masks of different kinds"),
    ]
    assert sentence(check, "images/val/e.tif", "images of different kinds").startswith(
        "the images have different numbers of channels: 4 in 2 images (such as images/train/a.tif), 1 in 3 images "
        "(such as images/train/c.png), 5 in 1 image (such as images/val/e.tif); accepted: one number for all"
    )
    text = sentence(check, "masks/train/c.png", "masks of different kinds")
    assert "one channel in 3 images (such as masks/train/a.png), colour in 1 image (such as masks/train/c.png)" in text
    assert check.card is not None
    assert (check.card.num_images, check.card.channels, check.card.dtype) == ({"train": 3}, 4, "uint8")


def colour_set(root: Path, **card: Any) -> Path:
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [224, 224, 192]], np.uint8)
    write(root, **card)
    for path in root.glob("masks/*/*.png"):
        save(path, colours[MASK])
    # all grey: black and another
    save(root / "masks/val/f.png", colours[MASK * 0])
    return root


def test_masks_in_colour(tmp_path: Path) -> None:
    root = colour_set(tmp_path / "a")
    check = check_dataset(root)
    assert check.classes == ("#000000", "#008000", "#800000")
    assert check.card is not None
    assert check.card.palette == ((0, 0, 0), (0, 128, 0), (128, 0, 0))
    assert check.card.pixel_counts["train"] == {"#000000": 48, "#008000": 16, "#800000": 32, "(ignored)": 0}
    assert check.dataset is not None
    np.testing.assert_array_equal(check.dataset.labels(check.dataset.folder.items[0]), np.array([0, 2, 1])[MASK])
    named = colour_set(tmp_path / "b", **THREE, palette=[[0, 0, 0], [128, 0, 0], [0, 128, 0]])
    check = check_dataset(named)
    assert (check.ready, check.classes) == (True, ("sky", "tree", "car"))
    assert check.dataset is not None
    np.testing.assert_array_equal(check.dataset.labels(check.dataset.folder.items[0]), MASK)
    odd = np.zeros((4, 6, 3), np.uint8)
    odd[0, :2], odd[1, 0] = (9, 8, 7), (1, 1, 1)
    save(named / "masks/train/c.png", odd)
    assert sentence(check_dataset(named), "masks/train/c.png", "value without class").startswith(
        "holds 2 colours [9, 8, 7] (2 pixels), [1, 1, 1] (1 pixel); accepted: the 3 colours of the palette in dataset"
    )


def test_palettes_that_number_their_colours_anew_can_be_read_by_colour(tmp_path: Path) -> None:
    root = write(tmp_path)
    colours = {"a": [0, 0, 0, 200, 0, 0, 0, 200, 0], "b": [200, 0, 0, 0, 0, 0, 0, 200, 0]}
    swapped = np.array([1, 0, 2], np.uint8)
    for number, path in enumerate(sorted(root.glob("masks/*/*.png"))):
        picture = Image.fromarray(swapped[MASK] if number == 0 else MASK)
        picture.putpalette(colours["b" if number == 0 else "a"])
        picture.save(path)
    check = check_dataset(root)
    assert {kind for _, kind in told(check)} == {"masks of different kinds"}
    assert '"mask_encoding": "colours" if the colours are the classes' in check.problems[0].problem
    file = {"name": "x", **THREE, "mask_encoding": "colours", "palette": [[0, 0, 0], [200, 0, 0], [0, 200, 0]]}
    (root / "dataset.json").write_text(json.dumps(file))
    check = check_dataset(root)
    assert check.problems == ()
    assert check.dataset is not None
    for item in check.dataset.folder.items:
        np.testing.assert_array_equal(check.dataset.labels(item), MASK)


def blobs(seed: int, count: int, side: int = 48) -> Array:
    """Return object ids: `count` squares of 4 pixels a side on a grid, numbered from 1."""
    ids = np.zeros((side, side), np.uint16)
    places = np.random.default_rng(seed).permutation(64)[:count]
    for number, place in enumerate(places, start=1):
        row, column = divmod(int(place), 8)
        ids[row * 6 : row * 6 + 4, column * 6 : column * 6 + 4] = number
    return ids


@pytest.mark.parametrize(("dtype", "counts"), [(np.uint16, (5, 30, 12, 9, 7, 40)), (np.uint8, (5, 30, 12, 9, 7, 40))])
def test_object_ids_become_two_classes_and_objects(dtype: type, counts: tuple[int, ...], tmp_path: Path) -> None:
    root = write(tmp_path)
    for seed, (path, count) in enumerate(zip(sorted(root.glob("masks/*/*.png")), counts, strict=True)):
        save(path, blobs(seed, count).astype(dtype))
        save(image_of(path), image(seed, (48, 48)))
    check = check_dataset(root)
    assert (check.problems, check.classes) == ((), ("background", "object"))
    assert check.card is not None
    assert check.card.num_objects == {"train": sum(counts[:4]), "val": sum(counts[4:])}
    assert check.card.pixel_counts["val"]["object"] == 16 * sum(counts[4:])
    assert check.dataset is not None
    item = check.dataset.folder.items[1]
    np.testing.assert_array_equal(check.dataset.labels(item), blobs(1, 30) > 0)
    np.testing.assert_array_equal(check.dataset.instances(item), blobs(1, 30))


def test_few_objects_in_eight_bits_are_asked_about(tmp_path: Path) -> None:
    root = write(tmp_path)
    for seed, path in enumerate(sorted(root.glob("masks/*/*.png"))):
        save(path, blobs(seed, 3 + seed).astype(np.uint8))
        save(image_of(path), image(seed, (48, 48)))
    check = check_dataset(root)
    assert told(check) == [(".", "masks whose meaning is unclear")]
    assert check.dataset is None
    assert (check.card, check.classes, check.mask_encoding, check.dataset_file) == (None, (), None, None)
    line = re.search(
        r"write dataset\.json with (\{.*?\]?, \"mask_encoding\": \"objects\"\})", check.problems[0].problem
    )
    assert line is not None
    (root / "dataset.json").write_text(line[1])  # as it stands
    check = check_dataset(root)
    assert check.problems == ()
    assert check.card is not None
    assert check.card.num_objects == {"train": 3 + 4 + 5 + 6, "val": 7 + 8}
    (root / "dataset.json").write_text(
        json.dumps({"name": "x", "classes": list("abcdefghi"), "mask_encoding": "index"})
    )
    assert check_dataset(root).ready


def through_jpeg(array: Array, quality: int = 90) -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize(
    ("paint", "told_values", "hint"),
    [
        (lambda labels: (labels > 0).astype(np.uint8) * 255, "0 in ", "set values from 128 on to 255"),
        (lambda labels: labels * 40, "0 in ", None),
        (lambda labels: np.array([[0, 0, 0], [200, 0, 0], [0, 0, 200]], np.uint8)[labels], "[0, 0, 0] in ", None),
    ],
)
def test_masks_that_were_a_jpeg_once_are_refused(
    paint: Callable[[Array], Array], told_values: str, hint: str | None, tmp_path: Path
) -> None:
    root = write(tmp_path)
    rows, columns = np.mgrid[:64, :64]
    for seed, path in enumerate(sorted(root.glob("masks/*/*.png"))):
        labels = ((rows - 30) ** 2 + (columns - 28 - seed) ** 2 < 400).astype(np.uint8) + (columns > 50)
        save(path, through_jpeg(paint(labels)))
        save(image_of(path), image(seed, (64, 64)))
    check = check_dataset(root)
    assert {kind for _, kind in told(check)} == {"compressed mask"}
    assert len(check.problems) == 6
    text = sentence(check, "masks/train/a.png", "compressed mask")
    assert re.match(r"holds \d+ (values|colours), many in single pixels around a few \(", text)
    assert told_values in text
    assert "saving as PNG does not bring them back" in text
    assert hint is None or hint in text
    if hint is not None:  # with classes named, the reason is still the compression, not the values
        (root / "dataset.json").write_text(json.dumps({"name": "x", "classes": ["a", "b"]}))
        assert {kind for _, kind in told(check_dataset(root))} == {"compressed mask"}


def test_a_jpeg_mask_is_refused_with_the_reason(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "masks/train/a.png").unlink()
    save(root / "masks/train/a.jpg", MASK)
    check = check_dataset(root)
    assert told(check) == [("masks/train/a.jpg", "compressed mask")]
    assert "saving this file as PNG does not bring them back" in check.problems[0].problem


@pytest.mark.parametrize("case", ["index", "palette", "binary", "colours", "objects", "boundary", "ignored"])
def test_the_ready_dataset_file_says_the_same_outright(case: str, tmp_path: Path) -> None:
    root = colour_set(tmp_path) if case == "colours" else write(tmp_path)
    for number, path in enumerate(sorted(root.glob("masks/*/*.png"))):
        if case == "palette":
            picture = Image.fromarray(MASK)
            picture.putpalette([1, 2, 3, 4, 5, 6, 7, 8, 9])
            picture.save(path)
        elif case == "binary":
            save(path, (MASK > 0).astype(np.uint8) * 255)
        elif case == "ignored":
            save(path, np.where(MASK == 2, 255, MASK % 2 + number % 2).astype(np.uint8))
        elif case == "objects":
            save(path, blobs(number, 9 + number))
            save(image_of(path), image(number, (48, 48)))
    if case == "boundary":
        (root / "dataset.json").write_text(json.dumps({"name": "x", **THREE, "boundary_class": 2}))
    first = check_dataset(root)
    content = first.dataset_file
    assert content is not None
    assert DatasetFile.model_validate(content).classes == first.classes
    (root / "dataset.json").write_text(json.dumps(content))
    second = check_dataset(root)
    assert second.dataset_file == content
    assert first.card is not None
    assert second.card is not None
    same = {"classes", "palette", "ignore_index", "pixel_counts", "boundary_class", "num_objects", "cooccurrence"}
    assert first.card.model_dump(include=same) == second.card.model_dump(include=same)


def test_a_broken_dataset_file_does_not_hide_the_rest(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "dataset.json").write_text('{"name": "x"}')
    for path in root.glob("masks/*/*.png"):
        save(path, MASK * 80)  # unclear without the classes
    (root / "images/train/a.png").write_bytes(b"")
    assert told(check_dataset(root)) == [("dataset.json", "dataset.json"), ("images/train/a.png", "unreadable file")]


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        check_dataset(tmp_path / "none")
    check = check_dataset(tmp_path)
    assert (check.layout, check.num_images, told(check)) == (None, 0, [(".", "folders and files")])
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    check = check_dataset(tmp_path)
    assert (check.num_images, told(check)) == (0, [(".", "folders and files")])
    save(tmp_path / "images/a.png", image())
    save(tmp_path / "masks/a.png", MASK)
    check = check_dataset(tmp_path)
    assert (check.num_images, told(check)) == (1, [(".", "splits")])
    assert check.card is not None
    save(tmp_path / "images/a.jpg", image())
    assert told(check_dataset(tmp_path))[0] == ("images/a.png", "file without partner")


def test_lists_are_followed_or_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "data", **THREE)
    chosen = tmp_path / "test.txt"
    chosen.write_text("b\ne\n")
    check = check_dataset(root, test_list=chosen)
    assert check.card is not None
    assert check.card.num_images == {"train": 3, "val": 1, "test": 2}
    with pytest.raises(RequestError, match="has a val split of its own"):
        check_dataset(root, val_list=chosen)


def test_a_scan_stops_at_errors_and_passes_warnings_on(tmp_path: Path) -> None:
    root = write(tmp_path, **THREE)
    save(root / "images/val/f.png", image(0))
    folder = open_dataset(root)
    card = scan(folder, folder.items).card
    assert card.warnings == 1
    assert card.decisions[-1].startswith("1 warning (`pixelwise check` tells more): ")
    save(root / "masks/val/f.png", np.full_like(MASK, 9))
    with pytest.raises(RequestError, match=r"masks/val/f\.png holds value 9 \(24 pixels\)"):
        scan(folder, folder.items)
