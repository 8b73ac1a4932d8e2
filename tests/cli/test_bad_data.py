"""Data, sizes and images that cannot be used. `refused` checks exit code, length and that no file changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.structures import SizeRule


def change(path: Path, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    with Image.open(path) as image:
        array = np.array(image)
    Image.fromarray(edit(array)).save(path)


def test_missing_data_folder(refused, quick, tmp_path) -> None:
    missing = tmp_path / "nowhere"
    message = refused("train", missing, "--out", tmp_path / "a/b/run", *quick).err
    assert f"data folder {missing} does not exist" in message
    assert "images/NAME.png with masks/NAME.png" in message


def test_data_that_is_a_file(refused, quick, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in refused("train", tmp_path / "file", "--out", tmp_path / "run", *quick).err


def test_folder_of_another_layout(refused, quick, data, tmp_path) -> None:
    (data / "masks").rename(data / "drawings")
    message = refused("train", data, "--out", tmp_path / "run", *quick).err
    assert "has no masks/ (it holds: drawings, images)" in message
    assert "also train/images with train/masks" in message


def test_image_without_mask(refused, data, quick, tmp_path) -> None:
    (data / "masks/train/disc1.png").unlink()
    message = refused("train", data, "--out", tmp_path / "run", *quick).err
    assert f"{data / 'images/train/disc1.png'} has no mask of the same name in {data / 'masks/train'}" in message
    assert "Add the missing file, or remove this one" in message


def test_image_and_mask_of_different_size(refused, data, quick, tmp_path) -> None:
    change(data / "masks/train/disc1.png", lambda mask: mask[:60])
    message = refused("train", data, "--out", tmp_path / "run", *quick).err
    assert f"{data / 'images/train/disc1.png'} is 64 x 64 (height x width)" in message
    assert f"{data / 'masks/train/disc1.png'} is 60 x 64" in message


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Pillow's, of files that it does not understand
@pytest.mark.parametrize("kept", [0, 60, 300])
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_unreadable_file(refused, data, quick, tmp_path, kind, kept) -> None:
    path = data / kind / "train/disc1.png"
    content = path.read_bytes()
    path.write_bytes(content[: min(kept, len(content) // 2)])
    message = refused("train", data, "--out", tmp_path / "run", *quick).err
    assert f"{path}: cannot be read as an image" in message
    assert "Copy or export the file again" in message


def test_value_outside_the_classes(refused, data, quick, tmp_path) -> None:
    for path in data.glob("masks/*/*.png"):
        change(path, lambda mask: mask // 255)
    (data / "dataset.json").write_text('{"name": "discs", "classes": ["ground", "disc"]}')

    def spoil(mask: np.ndarray) -> np.ndarray:
        mask[:2, :5] = 7
        return mask

    change(data / "masks/val/disc5.png", spoil)
    message = refused("train", data, "--out", tmp_path / "run", *quick).err
    assert f"{data / 'masks/val/disc5.png'} holds value 7 (10 pixels)" in message
    assert "accepted: 0 to 1 (ground, disc)" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"name": "x"', "JSON"), ('{"name": "x"}', "classes"), ("[]", "Required: name (text)")],
)
def test_broken_dataset_json(refused, data, quick, tmp_path, text, words) -> None:
    (data / "dataset.json").write_text(text)
    message = refused("train", data, "--out", tmp_path / "run", *quick).err
    assert str(data / "dataset.json") in message
    assert words in message


def test_validation_list_beside_a_split(refused, data, quick, tmp_path) -> None:
    (tmp_path / "val.txt").write_text("disc1\n")
    message = refused("train", data, "--val-list", tmp_path / "val.txt", "--out", tmp_path / "run", *quick).err
    assert "has a val split of its own" in message


def test_unknown_name_in_a_list(refused, trained, tmp_path) -> None:
    (tmp_path / "names.txt").write_text("disk4\n")
    message = refused("evaluate", trained, trained.parent / "data", "--list", tmp_path / "names.txt").err
    assert "names 'disk4', which is no item of the data" in message
    assert "closest: disc4" in message


def test_missing_list(refused, trained, tmp_path) -> None:
    message = refused("evaluate", trained, trained.parent / "data", "--list", tmp_path / "nothing.txt").err
    assert f"list {tmp_path / 'nothing.txt'} cannot be read" in message


def test_unknown_split(refused, trained) -> None:
    message = refused("evaluate", trained, trained.parent / "data", "--split", "test").err
    assert "has no split 'test'; accepted: train, val." in message


def test_split_and_list_together(refused, trained) -> None:
    message = refused("evaluate", trained, trained.parent / "data", "--split", "val", "--list", "x").err
    assert "--split val and --list x are both given" in message


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ('["sky", "foreground"]', "0: 'background' against 'sky'"),
        ('["background", "foreground", "ridge"]', "2 classes against 3"),
    ],
)
def test_data_of_other_classes(refused, trained, data, classes, words) -> None:
    (data / "dataset.json").write_text(f'{{"name": "x", "classes": {classes}}}')
    if "ridge" in classes:
        for path in data.glob("masks/*/*.png"):
            change(path, lambda mask: mask // 255 * 2)
    message = refused("evaluate", trained, data).err
    assert words in message
    assert "accepted: the same names in the same order" in message


def test_describe_names_the_nearest_legal_sizes(refused) -> None:
    message = refused("describe", "unet", "--input-size", "100", "100").err
    assert "input size 100 x 100 is not legal: height 100 (nearest legal: 188)" in message
    message = refused("describe", "unet", "--input-size", "572", "580").err
    assert "width 580 (nearest legal: 572 or 588)" in message
    assert "height" not in message.split("Accepted")[0]


def test_crop_of_an_illegal_size(refused, data, quick, tmp_path) -> None:
    message = refused("train", data, "--out", tmp_path / "run", *quick, "--set", "data.crop=[101,32]").err
    assert "100 or 104" in message


def test_tile_of_an_illegal_size(refused, trained, tmp_path) -> None:
    images = trained.parent / "data/images/val"
    message = refused("predict", trained, images, "--out", tmp_path / "out", "--tile", "50").err
    assert "tile 50 is not legal for this model" in message
    assert "Nearest: 48 or 52." in message
    message = refused("evaluate", trained, trained.parent / "data", "--tile", "-3").err
    assert "Nearest: 4." in message
    assert SizeRule(step=4, minimum=4).nearest(50) == "48 or 52"


def test_input_that_matches_nothing(refused, trained, tmp_path) -> None:
    message = refused("predict", trained, tmp_path / "*.jpg", "--out", tmp_path / "out").err
    assert f"input {tmp_path / '*.jpg'} matches no image; accepted: files, folders with .png, .jpg" in message


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Pillow's, of files that it does not understand
def test_input_that_is_no_image(refused, trained, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    message = refused("predict", trained, tmp_path / "notes.txt", "--out", tmp_path / "out").err
    assert f"{tmp_path / 'notes.txt'}: cannot be read as an image" in message


def test_inputs_of_the_same_name(refused, trained, data, tmp_path) -> None:
    shutil.copy(data / "images/val/disc4.png", data / "images/train/disc4.png")
    message = refused("predict", trained, data / "images/train", data / "images/val", "--out", tmp_path / "out").err
    assert "images/train/disc4.png and" in message
    assert "have the same name" in message


def test_results_in_place_of_inputs(refused, trained, data, tmp_path) -> None:
    message = refused("predict", trained, data / "images/val", "--out", data / "images/val").err
    assert "would overwrite the input" in message
    assert "Choose another folder" in message
    (tmp_path / "photos").mkdir()
    (data / "images/val/disc4.png").rename(tmp_path / "photos/a.bmp")
    (data / "images/val/disc5.png").rename(tmp_path / "photos/a_overlay.png")
    message = refused("predict", trained, tmp_path / "photos", "--out", tmp_path / "photos", "--overlay").err
    assert f"would overwrite the input {tmp_path / 'photos/a_overlay.png'}" in message
    message = refused("predict", trained, tmp_path / "photos", "--out", tmp_path / "out", "--overlay").err
    assert f"would both write {tmp_path / 'out/a_overlay.png'}" in message


def test_result_folder_that_is_a_file(refused, trained, data, tmp_path) -> None:
    (tmp_path / "out").write_text("")
    message = refused("predict", trained, data / "images/val", "--out", tmp_path / "out").err
    assert f"--out {tmp_path / 'out'} is a file; accepted: a folder" in message


def test_images_of_other_channels(refused, trained, data, tmp_path) -> None:
    for path in data.glob("images/val/*.png"):
        change(path, lambda image: np.stack([image, image // 2, image], axis=2))
    path = data / "images/val/disc4.png"
    message = refused("predict", trained, path, "--out", tmp_path / "out").err
    assert f"{path} has 3 channels; accepted: 1, as the model was trained on" in message
    assert "has 3 channels; accepted: 1" in refused("evaluate", trained, data).err


def test_images_of_another_bit_depth(refused, trained, tmp_path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((64, 64), 40000, np.uint16)).save(path)
    message = refused("predict", trained, path, "--out", tmp_path / "out").err
    assert f"{path} holds uint16 values up to 40000; accepted: 8-bit images, as the model was trained on" in message


def test_bytes_for_a_model_of_deep_images(refused, pixelwise, trained, data, quick, tmp_path) -> None:
    for path in data.glob("images/*/*.png"):
        change(path, lambda image: image.astype(np.uint16) * 100)
    assert pixelwise("train", data, "--out", tmp_path / "run", *quick).code == 0
    image = trained.parent / "data/images/val/disc4.png"
    message = refused("predict", tmp_path / "run", image, "--out", tmp_path / "out").err
    assert f"{image} holds uint8 values up to" in message
    assert "accepted: 16-bit or float images" in message


@pytest.mark.parametrize(("problem", "code"), [(MemoryError(), 1), (RuntimeError("CUDA out of memory. Tried"), 1)])
def test_memory_that_runs_out(refused, trained, data, tmp_path, monkeypatch, problem, code) -> None:
    def fail(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr("pixelwise.engine.passes.predict_logits", fail)
    message = refused("predict", trained, data / "images/val", "--out", tmp_path / "out", code=code).err
    assert "memory ran out. Use a smaller --tile, crop or batch" in message


def test_errors_of_our_own_are_not_hidden(pixelwise, trained, data, tmp_path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("pixelwise.engine.passes.predict_logits", fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        pixelwise("predict", trained, data / "images/val", "--out", tmp_path / "out")
