"""A scan finds every problem before the work begins, and its statistics are plain numpy's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.augment_config import microscopy, no_augmentation
from pixelwise.data.dataset import DatasetFile, open_dataset
from pixelwise.data.loader import Crops, batches
from pixelwise.data.scan import Dataset, scan
from pixelwise.errors import RequestError

Array = NDArray[Any]
RNG = np.random.default_rng(0)
MASK = np.array([[0, 0, 0, 1, 1, 2]] * 4, np.uint8)  # 12, 8 and 4 pixels


def image(seed: int = 0, shape: tuple[int, ...] = (4, 6), dtype: type = np.uint8, below: int = 256) -> Array:
    return np.random.default_rng(seed).integers(0, below, shape).astype(dtype)


def save(path: Path, array: Array | Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig" if array.ndim == 3 else None)
    else:
        (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path, **options)


def write(root: Path, pairs: dict[str, tuple[Array, Array | Image.Image]], **card: Any) -> Path:
    """Write images and masks by `split/name`; with keywords, dataset.json as well."""
    for name, (picture, mask) in pairs.items():
        save(root / "images" / f"{name}{'.tif' if picture.dtype.kind == 'f' else '.png'}", picture)
        save(root / "masks" / f"{name}.png", mask)
    if card:
        (root / "dataset.json").write_text(json.dumps({"name": "toy"} | card))
    return root


def look(root: Path, **options: Any) -> Dataset:
    folder = open_dataset(root)
    return scan(folder, folder.items, **options)


def refusal(root: Path, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        look(root, **options)
    text = str(caught.value)
    for line in text.splitlines():
        if " problems stop the work" not in line:
            assert re.search(r"; accepted: .+\. .+\.$", line), line
    return text


def palette_mask(indices: Array, colours: list[int]) -> Image.Image:
    mask = Image.fromarray(indices)
    mask.putpalette(colours)
    return mask


def three(mask: Array = MASK) -> dict[str, tuple[Array, Array | Image.Image]]:
    return {"train/a": (image(0), mask), "train/b": (image(1), mask), "val/c": (image(2), mask)}


def test_the_card(tmp_path: Path) -> None:
    root = write(tmp_path / "data", three(), classes=["sky", "tree", "car"], palette=[[1, 2, 3]] * 4, licence="CC0")
    (root / "images/train/notes.txt").write_text("x")
    save(root / "images/test/t.png", image())
    save(root / "instances/train/a.png", MASK.astype(np.uint16))
    dataset = look(root)
    card = dataset.card
    assert (card.name, card.root, card.licence) == ("toy", str(root), "CC0")
    assert (card.classes, card.palette, card.ignore_index) == (("sky", "tree", "car"), ((1, 2, 3),) * 4, None)
    assert card.num_images == {"train": 2, "val": 1}
    assert card.pixel_counts == {
        "train": {"sky": 24, "tree": 16, "car": 8, "(ignored)": 0},
        "val": {"sky": 12, "tree": 8, "car": 4, "(ignored)": 0},
    }
    assert card.image_sizes == [(4, 6, 2)]
    assert (card.channels, card.dtype, card.split_source) == (1, "uint8", "folders")
    assert card.decisions == (
        "layout: images/<split> and masks/<split> with dataset.json",
        "images: train 2, val 1 (folders), uint8 grey",
        "masks: values are class numbers, classes named by dataset.json",
        "classes: sky, tree, car",
        "object ids: for 1 of 3 images",
        "split test: 1 images without masks, left out",
        f"1 other file left out, such as {root / 'images/train/notes.txt'}",
    )
    assert type(card).model_validate_json(card.model_dump_json()) == card
    objects = dataset.instances(dataset.folder.split("train")[0])
    assert objects is not None
    np.testing.assert_array_equal(objects, MASK)
    assert dataset.instances(dataset.folder.split("val")[0]) is None


def test_values_outside_the_classes_stop_with_file_value_and_count(tmp_path: Path) -> None:
    wrong = MASK.copy()
    wrong[0, :3] = 7
    wrong[1, 0] = 9
    root = write(tmp_path, three() | {"train/b": (image(), wrong)}, classes=["a", "b", "c"], ignore_index=255)
    text = refusal(root)
    assert text == (
        f"{root / 'masks/train/b.png'} holds value 7 (3 pixels), value 9 (1 pixel); accepted: 0 to 2 (a, b, c) and 255 "
        '(ignored). Correct the mask, add the class, or write "ignore_index": 7 into dataset.json if these pixels '
        "should not count."
    )
    many = np.arange(24, dtype=np.uint8).reshape(4, 6)
    save(root / "masks/train/b.png", many)
    text = refusal(root)
    assert "holds value 3 (1 pixel), value 4 (1 pixel), value 5 (1 pixel), value 6 (1 pixel), ...; accepted" in text


def test_all_problems_are_counted_and_the_first_shown(tmp_path: Path) -> None:
    root = write(tmp_path, {f"train/{i}": (image(i), MASK) for i in range(9)} | {"val/v": (image(), MASK)})
    save(root / "masks/train/1.png", MASK[:2])
    size = (
        f"{root / 'images/train/1.png'} is 4 x 6 (height x width), but {root / 'masks/train/1.png'} is 2 x 6; "
        "accepted: equal sizes. Export the mask again at the image's size."
    )
    assert refusal(root) == size
    (root / "images/train/0.png").write_bytes(b"")
    text = refusal(root)
    assert text.startswith(
        f"{root}: 2 problems stop the work before it begins:\n  {root / 'images/train/0.png'}: cannot be read"
    )
    assert text.endswith(f"\n  {size}")
    save(root / "masks/train/2.png", np.dstack([MASK, MASK * 2, MASK]))
    first = f"begins (the first 2 here; `pixelwise check {root}` lists all):"
    assert refusal(root) == text.replace("2 problems", "3 problems").replace("begins:", first)
    for i in range(3, 8):
        (root / f"masks/train/{i}.png").write_bytes(b"")
    save(root / "instances/val/v.png", MASK[:, :3])
    text = refusal(root)
    assert text.startswith(f"{root}: 9 problems stop the work before it begins (the first 2 here; `")
    assert text.count("\n") == 2


def test_images_that_do_not_go_together(tmp_path: Path) -> None:
    colour, four = image(0, (4, 6, 3)), image(0, (4, 6, 4), np.float32)
    root = write(tmp_path / "channels", three() | {"train/a": (colour.astype(np.float32), MASK), "val/c": (four, MASK)})
    text = refusal(root)
    assert "different numbers of channels: 3 in 1 image (such as " in text
    assert f"1 in 1 image (such as {root / 'images/train/b.png'}), 4 in 1 image (such as " in text
    root = write(tmp_path / "depth", three() | {"val/c": (image(3, dtype=np.uint16), MASK)})
    text = refusal(root)
    assert (
        f"the images have different types: uint8 in 2 images (such as {root / 'images/train/a.png'}), uint16 in "
        f"1 image (such as {root / 'images/val/c.png'}); accepted: one type for all." in text
    )
    holes = image(3, dtype=np.float32)
    holes[0, 0] = np.nan
    root = write(tmp_path / "nan", three() | {"val/c": (holes, MASK)})
    assert f"{root / 'images/val/c.tif'}: 1 of 24 values are NaN or infinite" in refusal(root)


def test_grey_beside_colour_is_repeated_and_said(tmp_path: Path) -> None:
    colour = image(5, (4, 6, 3))
    dataset = look(write(tmp_path, three() | {"train/b": (colour, MASK)}))
    assert dataset.card.channels == 3
    assert "some images are grey, some in colour: grey ones are repeated over three channels" in dataset.card.decisions
    first, second = dataset.folder.split("train")
    np.testing.assert_array_equal(dataset.image(first), np.dstack([image(0)] * 3))
    np.testing.assert_array_equal(dataset.image(second), colour)
    pixels = np.concatenate([np.dstack([image(0)] * 3), colour]).reshape(-1, 3) / 255
    np.testing.assert_allclose(dataset.card.normalisation.mean, pixels.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(dataset.card.normalisation.std, pixels.std(axis=0), rtol=1e-9)


@pytest.mark.parametrize(("dtype", "below"), [(np.uint8, 256), (np.uint16, 4000), (np.float32, 900)])
def test_statistics_are_those_of_all_training_pixels(dtype: type, below: int, tmp_path: Path) -> None:
    pictures = [image(1, (4, 6), dtype, below), image(2, (9, 5), dtype, below // 2), image(3, (4, 6), dtype, below)]
    masks = [np.resize(MASK, picture.shape) for picture in pictures]
    names = ("train/a", "train/b", "val/c")
    card = look(write(tmp_path, dict(zip(names, zip(pictures, masks, strict=True), strict=True)))).card
    pixels = np.concatenate([picture.ravel() for picture in pictures[:2]]).astype(np.float64)
    low, high = (0.0, 255.0) if dtype is np.uint8 else (pixels.min(), pixels.max())
    found = card.normalisation
    assert found.intensity_range == (low, high)
    np.testing.assert_allclose(found.mean, [(pixels.mean() - low) / (high - low)], rtol=1e-9)
    np.testing.assert_allclose(found.std, [pixels.std() / (high - low)], rtol=1e-9)
    assert card.image_sizes in ([(4, 6, 1), (9, 5, 1)], [(9, 5, 1), (4, 6, 1)])


def test_large_images_are_sampled_well(tmp_path: Path) -> None:
    rows = np.linspace(0, 200, 300)[:, None] + np.random.default_rng(0).normal(0, 20, (300, 301))
    large = rows.clip(0, 255).astype(np.uint8)
    labels = np.random.default_rng(0).integers(0, 3, large.shape, dtype=np.uint8)
    found = look(write(tmp_path, {"train/a": (large, labels), "val/b": (large, labels)})).card.normalisation
    assert found.mean[0] == pytest.approx(large.mean() / 255, rel=0.01)
    assert found.std[0] == pytest.approx(large.std() / 255, rel=0.01)


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_constant_images_give_finite_input(dtype: type, value: int, tmp_path: Path) -> None:
    constant = np.full((4, 6), value, dtype) / dtype(10 if dtype is np.float32 else 1)
    constant = constant.astype(dtype)
    dataset = look(write(tmp_path, {"train/a": (constant, MASK), "val/b": (constant, MASK)}))
    found = dataset.card.normalisation(dataset.image(dataset.folder.items[0]))
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 1e-3


def test_images_that_differ_more_than_their_pixels_are_normalised_one_by_one(tmp_path: Path) -> None:
    dark, light = image(0, below=20), image(1, below=20) + np.uint8(200)
    pairs = three() | {"train/a": (dark, MASK), "train/b": (light, MASK)}
    dataset = look(write(tmp_path / "a", pairs))
    assert dataset.card.normalisation.per_image
    for item in dataset.folder.items:
        found = dataset.card.normalisation(dataset.image(item))
        np.testing.assert_allclose([found.mean(), found.std()], [0, 1], atol=1e-5)
    assert not look(write(tmp_path / "b", three())).card.normalisation.per_image


def test_ignored_pixels_are_counted_apart_even_if_they_have_a_class(tmp_path: Path) -> None:
    masks = MASK.copy()
    masks[0] = 255
    card = look(write(tmp_path / "a", three(masks), classes=["a", "b", "c"], ignore_index=255)).card
    assert card.pixel_counts["train"] == {"a": 18, "b": 12, "c": 6, "(ignored)": 12}
    card = look(write(tmp_path / "b", three(), classes=["a", "b", "void"], ignore_index=2)).card
    assert card.pixel_counts["train"] == {"a": 24, "b": 16, "void": 0, "(ignored)": 8}
    card = look(write(tmp_path / "c", three(masks))).card
    assert (card.classes, card.ignore_index) == (("class_0", "class_1", "class_2"), 255)
    assert card.pixel_counts["val"] == {"class_0": 9, "class_1": 6, "class_2": 3, "(ignored)": 6}


def test_black_and_white_masks(tmp_path: Path) -> None:
    binary = (MASK > 0).astype(np.uint8) * 255
    pairs = three(binary) | {"train/b": (image(), Image.fromarray(MASK > 1))}  # one with 1 bit
    dataset = look(write(tmp_path / "a", pairs))
    assert (dataset.card.classes, dataset.card.mask_encoding.kind) == (("background", "foreground"), "binary_255")
    assert dataset.card.pixel_counts["train"] == {"background": 12 + 20, "foreground": 12 + 4, "(ignored)": 0}
    np.testing.assert_array_equal(dataset.labels(dataset.folder.split("train")[1]), MASK > 1)
    pairs = three(MASK) | {"train/b": (image(), Image.fromarray(MASK > 1))}
    root = write(tmp_path / "b", pairs)
    text = refusal(root)
    assert (
        f"{root / 'masks/train/b.png'} is a black and white (1-bit) file with 4 pixels of white, but the masks" in text
    )
    (root / "dataset.json").write_text(json.dumps({"name": "x", "classes": ["a", "b", "c"], "ignore_index": 255}))
    assert refusal(root) == text.replace(": classes 0 to 2, 255 is ignored", ", classes named by dataset.json")


def test_255_that_may_mean_two_things_is_asked_about(tmp_path: Path) -> None:
    one, white = (MASK > 1).astype(np.uint8), (MASK > 0).astype(np.uint8) * 255
    root = write(tmp_path, three(one) | {"val/c": (image(), white)})
    text = refusal(root)
    assert (
        f"{root / 'masks/train/a.png'} holds the value 1 (4 pixels), {root / 'masks/val/c.png'} the value 255 (12 pix"
        in text
    )
    (root / "dataset.json").write_text(json.dumps({"name": "x", "classes": ["a", "b"], "ignore_index": 255}))
    assert look(root).card.pixel_counts["val"] == {"a": 12, "b": 0, "(ignored)": 12}


def test_palettes(tmp_path: Path) -> None:
    colours = [0, 0, 0, 200, 0, 0, 0, 200, 0]
    mask = palette_mask(MASK, colours)
    pairs = {name: (image(), mask) for name in ("train/a", "train/b", "val/c")}
    root = write(tmp_path, pairs)
    card = look(root).card
    assert (card.mask_encoding.kind, card.palette) == ("palette", ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
    save(root / "masks/train/b.png", palette_mask(MASK, [0, 0, 0, 0, 200, 0, 200, 0, 0]))
    text = refusal(root)
    assert text.startswith(
        f"{root / 'masks/train/b.png'} shows the palette index 1 as [0, 200, 0], {root / 'masks/train/a.png'} as "
        "[200, 0, 0]; accepted: one palette for all masks"
    )
    (root / "dataset.json").write_text(json.dumps({"name": "x", "classes": ["a", "b", "c"]}))
    assert look(root).card.palette == card.palette


def test_meant_classes_stand_in_for_a_missing_file_only(tmp_path: Path) -> None:
    meant = DatasetFile(name="model", classes=("x", "y", "z", "w"), palette=None, ignore_index=9)
    root = write(tmp_path, three())
    card = look(root, meant=meant).card
    assert (card.classes, card.ignore_index, card.pixel_counts["val"]["w"]) == (("x", "y", "z", "w"), 9, 0)
    (root / "dataset.json").write_text(json.dumps({"name": "x", "classes": ["a", "b", "c"]}))
    assert look(root, meant=meant).card.classes == ("a", "b", "c")


def test_masks_follow_the_rotation_of_a_photograph(tmp_path: Path) -> None:
    """A phone's picture is stored lying; a mask drawn on the stored pixels has its size, one drawn as shown has not."""
    stored, mask = image(0, (4, 6)), MASK
    exif = Image.Exif()
    exif[274] = 6
    for name in ("train/a", "train/b", "val/c"):
        save(tmp_path / f"images/{name}.png", stored, exif=exif)
        save(tmp_path / f"masks/{name}.png", mask)
        save(tmp_path / f"instances/{name}.png", mask.astype(np.uint16))
    save(tmp_path / "masks/val/c.png", np.rot90(mask, -1).copy())
    save(tmp_path / "instances/val/c.png", np.rot90(mask, -1).astype(np.uint16))
    dataset = look(tmp_path)
    for item in dataset.folder.items:
        np.testing.assert_array_equal(dataset.image(item)[:, :, 0], np.rot90(stored, -1))
        np.testing.assert_array_equal(dataset.labels(item), np.rot90(mask, -1))
        objects = dataset.instances(item)
        assert objects is not None
        np.testing.assert_array_equal(objects, np.rot90(mask, -1))
    assert dataset.card.image_sizes == [(6, 4, 2)]
    said = "\n".join(dataset.card.decisions)
    assert f"3 of the images are turned as their EXIF says, such as {tmp_path / 'images/train/a.png'}" in said
    assert "2 of the masks are turned with them, since they have the size of the image before turning" in said


def test_the_cache_keeps_what_fits(tmp_path: Path) -> None:
    root = write(tmp_path, three())
    size = 4 * 6
    for limit, kept in ((0, 0), (size - 1, 0), (size, 1), (3 * size, 3), (2**31, 6)):
        dataset = look(root, cache_bytes=limit)
        for _ in range(2):
            for item in dataset.folder.items:
                seed = "abc".index(item.name)
                np.testing.assert_array_equal(dataset.image(item)[:, :, 0], image(seed))
                np.testing.assert_array_equal(dataset.labels(item), MASK)
        assert dataset.free_bytes == limit - kept * size
    item = dataset.folder.items[0]
    assert dataset.image(item) is dataset.image(item) is dataset.read_image(item)
    assert dataset.labels(item) is dataset.read_labels(item)


def test_nothing_to_scan(tmp_path: Path) -> None:
    folder = open_dataset(write(tmp_path, three()))
    with pytest.raises(RequestError, match=r"no items are to be scanned; accepted: at least one\. Choose"):
        scan(folder, [])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [2, 4, 5, 12])
def test_any_number_of_channels_reaches_the_network(channels: int, dtype: type, tmp_path: Path) -> None:
    """Each channel comes out with mean 0 and deviation 1 over the training images, in the file's order."""
    rng = np.random.default_rng(channels)
    bands = np.arange(1, channels + 1, dtype=np.float32) * (10 if dtype is np.uint8 else 500)
    for name in ("train/a", "train/b", "val/c"):
        picture = (bands + rng.normal(0, 1, (24, 24, channels)) * bands / 5).round().astype(dtype)
        save(tmp_path / f"images/{name}.tif", picture)
        save(tmp_path / f"masks/{name}.png", np.resize(MASK, (24, 24)))
    dataset = look(tmp_path)
    assert (dataset.card.channels, dataset.card.dtype) == (channels, np.dtype(dtype).name)
    assert [len(row) for row in dataset.card.intensity.values()] == [channels] * 3
    np.testing.assert_allclose(dataset.card.intensity["mean"], bands, rtol=0.05)
    items = dataset.folder.split("train")
    for augment in (microscopy(crop_side=24), no_augmentation()):
        windows = Crops(dataset, items, crop=(24, 24), margin=0, scale=1.0, augment=augment, seed=0)
        (batch,) = batches(windows, batch_size=2, first=0, last=1, num_workers=0)
        assert batch.images.shape == (2, channels, 24, 24)
        assert torch.isfinite(batch.images).all()
    np.testing.assert_allclose(batch.images.mean(dim=(0, 2, 3)), np.zeros(channels), atol=1e-3)
    np.testing.assert_allclose(batch.images.std(dim=(0, 2, 3)), np.ones(channels), atol=5e-3)
