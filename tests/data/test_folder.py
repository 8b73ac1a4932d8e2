import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.folder import FolderItem, write_dataset_folder
from pixelwise.errors import RequestError, WorkError

LABELS = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
INSTANCES = np.array([[0, 1, 300], [65535, 1, 0]], dtype=np.uint16)
GREY = np.array([[0, 7, 255], [1, 2, 3]], dtype=np.uint8)
ITEM = FolderItem(split="train", name="a", image=GREY, labels=LABELS, instances=INSTANCES)
PALETTE = ((0, 0, 0), (255, 0, 0), (0, 0, 255))


def write(folder: Path, items: list[FolderItem], **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "name": "toy",
        "classes": ["background", "cell", "nucleus"],
        "palette": PALETTE,
        "terms": "none",
    }
    return write_dataset_folder(folder, items, **(settings | changes))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read(path: Path) -> tuple[str, np.ndarray]:
    with Image.open(path) as image:
        return image.mode, np.array(image)


def test_everything_reads_back_equal(tmp_path: Path) -> None:
    color = np.dstack([GREY, GREY[::-1], GREY])
    folder = write(tmp_path / "new" / "set", [ITEM, replace(ITEM, split="val", image=color, instances=None)])
    assert set(files(folder)) == {
        "dataset.json",
        "images/train/a.png",
        "images/val/a.png",
        "masks/train/a.png",
        "masks/val/a.png",
        "instances/train/a.png",
    }
    for path, mode, array in (
        ("images/train/a.png", "L", GREY),
        ("images/val/a.png", "RGB", color),
        ("masks/train/a.png", "P", LABELS),
        ("instances/train/a.png", "I;16", INSTANCES),
    ):
        found_mode, found = read(folder / path)
        assert found_mode == mode
        np.testing.assert_array_equal(found, array)


def test_card_holds_what_the_format_asks(tmp_path: Path) -> None:
    folder = write(tmp_path, [ITEM, replace(ITEM, name="b")], extra={"seed": 3})
    assert json.loads((folder / "dataset.json").read_text()) == {
        "name": "toy",
        "classes": ["background", "cell", "nucleus"],
        "palette": [[0, 0, 0], [255, 0, 0], [0, 0, 255]],
        "ignore_index": None,
        "terms": "none",
        "splits": {"train": 2},
        "seed": 3,
    }


def test_masks_are_eight_bits_deep_and_coloured(tmp_path: Path) -> None:
    path = write(tmp_path, [ITEM]) / "masks/train/a.png"
    assert path.read_bytes()[24:26] == bytes([8, 3])  # IHDR: bit depth 8, colour type 3 (palette)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.array(image.convert("RGB")), np.array(PALETTE, np.uint8)[LABELS])


def test_ignore_colour_sits_at_the_ignore_index(tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[0, 0] = 255
    item = replace(ITEM, labels=labels)
    folder = write(tmp_path, [item], ignore_index=255, palette=(*PALETTE, (9, 8, 7)))
    _, found = read(folder / "masks/train/a.png")
    np.testing.assert_array_equal(found, labels)
    with Image.open(folder / "masks/train/a.png") as image:
        assert image.convert("RGB").getpixel((0, 0)) == (9, 8, 7)


def test_writing_again_gives_the_same_bytes_and_spares_other_files(tmp_path: Path) -> None:
    before = files(write(tmp_path, [ITEM]))
    (tmp_path / "notes.txt").write_text("mine")
    assert files(write(tmp_path, [ITEM])) == before | {"notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": GREY.astype(np.float32)}, r"image of train/a is float32 \(2, 3\): uint8"),
        ({"image": np.zeros((2, 3, 4), np.uint8)}, r"image of train/a is uint8 \(2, 3, 4\)"),
        ({"labels": LABELS[:1]}, r"labels of train/a are uint8 \(1, 3\): uint8 \(2, 3\)"),
        ({"labels": LABELS.astype(np.int64)}, r"labels of train/a are int64 \(2, 3\)"),
        ({"instances": LABELS}, r"instances of train/a are uint8 \(2, 3\): uint16 \(2, 3\)"),
        ({"labels": LABELS + np.uint8(2)}, r"labels of train/a hold 4: 0\.\.2 and ignore_index=None"),
        ({"name": "a/b"}, r"name='a/b': a plain file name"),
        ({"split": ".."}, r"split='\.\.': a plain file name"),
    ],
)
def test_wrong_items_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        write(tmp_path, [replace(ITEM, **changes)])
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["cell", "cell", "nucleus"]}, r"classes=\['cell', 'cell', 'nucleus'\]: 1 to 256"),
        ({"palette": PALETTE[:2]}, r"palette has 2 colours: 3 are accepted"),
        (
            {"palette": ((0, 0, 0), (0, 0, 256), (1, 1, 1))},
            r"palette has \(0, 0, 256\): three values 0\.\.255",
        ),
        ({"ignore_index": 2}, r"ignore_index=2 with 3 classes: 3\.\.255 or None"),
        ({"extra": {"terms": "x", "name": "y"}}, r"extra repeats name, terms"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        write(tmp_path, [ITEM], **changes)
    assert files(tmp_path) == {}


def test_no_items_and_equal_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="items is empty: at least one image"):
        write(tmp_path, [])
    with pytest.raises(RequestError, match="train/a is given 2 times"):
        write(tmp_path, [ITEM, ITEM])


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "taken"
    place.write_text("mine")
    with pytest.raises(RequestError, match=r"taken is a file, not a folder"):
        write(place, [ITEM])
    assert place.read_text() == "mine"


def test_a_failed_write_is_reported_and_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "dataset.json" / "in the way").mkdir(parents=True)
    with pytest.raises(WorkError, match=r"dataset\.json cannot be written: "):
        write(tmp_path, [ITEM])
    assert set(files(tmp_path)) == {f"{kind}/train/a.png" for kind in ("images", "masks", "instances")}


def test_a_parent_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("mine")
    with pytest.raises(WorkError, match=r"images/train/a\.png cannot be written"):
        write(tmp_path, [ITEM])
    assert files(tmp_path) == {"images": b"mine"}
