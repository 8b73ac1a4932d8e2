"""Wrong requests and failing work: one clear message, the right exit code, and no file changed.

`refused` checks all of that for each call; the tests here look at the words and the numbers.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pixelwise import files
from pixelwise.structures import SizeRule


def change(path: Path, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    with Image.open(path) as image:
        array = np.array(image)
    Image.fromarray(edit(array)).save(path)


# ---- the data


def test_missing_data_folder(refused, quick, tmp_path) -> None:
    missing = tmp_path / "nowhere"
    message = refused("train", missing, "--out", tmp_path / "a/b/run", *quick).err
    assert f"data folder {missing} does not exist" in message
    assert "images/NAME.png with masks/NAME.png" in message


def test_data_that_is_a_file(refused, quick, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in refused("train", tmp_path / "file", "--out", tmp_path / "run", *quick).err


def test_folder_of_another_layout(refused, quick, data, tmp_path) -> None:
    (data / "masks").rename(data / "labels")
    message = refused("train", data, "--out", tmp_path / "run", *quick).err
    assert "has no masks/ (it holds: images, labels)" in message


def test_image_without_mask(refused, data, quick, tmp_path) -> None:
    (data / "masks/train/disc1.png").unlink()
    message = refused("train", data, "--out", tmp_path / "run", *quick).err
    assert f"1 file has no partner of the same name: {data / 'images/train/disc1.png'}" in message
    assert "Add the missing files or remove the others" in message


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


# ---- sizes


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


# ---- places to write


@pytest.mark.parametrize("command", ["train", "predict", "demo"])
def test_folder_below_a_file(refused, trained, data, quick, tmp_path, command) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file/run"
    words = {
        "train": ("train", data, *quick),
        "predict": ("predict", trained, data / "images/val"),
        "demo": ("demo",),
    }[command]
    message = refused(*words, "--out", out, code=1).err
    assert f"{out} cannot be written: Not a directory. Free space there, change its rights" in message


@pytest.mark.parametrize("command", ["train", "predict"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_folder_that_takes_no_file(refused, trained, data, quick, tmp_path, monkeypatch, command, number) -> None:
    def no(self: Path, content: bytes) -> int:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "write_bytes", no)
    out = tmp_path / "run"
    words = ("train", data, *quick) if command == "train" else ("predict", trained, data / "images/val")
    message = refused(*words, "--out", out, code=1).err
    assert f"{out} cannot be written: {os.strerror(number)}." in message


def test_disk_that_fills_up_during_training_leaves_whole_files(pixelwise, data, quick, tmp_path, monkeypatch) -> None:
    """The second model file does not fit; what was there stays, and training goes on once there is space."""
    write, sizes = files.Path.write_bytes, []

    def full(self: Path, content: bytes) -> int:
        if self.name.startswith(".checkpoint"):
            sizes.append(len(content))
            if len(sizes) == 2:
                write(self, content[:1000])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, content)

    monkeypatch.setattr(files.Path, "write_bytes", full)
    run = tmp_path / "run"
    stopped = pixelwise("train", data, "--out", run, *quick, "--set", "val_every=1")
    assert stopped.code == 1
    assert f"error: {run / 'last/checkpoint.safetensors'} cannot be written: No space left on device." in stopped.err
    assert not [path for path in run.rglob("*") if path.name.startswith(".")]
    assert pixelwise("evaluate", run, data).code == 0
    monkeypatch.undo()
    resumed = pixelwise("train", data, "--out", run, "--resume")
    assert resumed.code == 0
    assert "resuming after iteration 1" in resumed.out


def test_really_full_disk(pixelwise, trained, data, quick, tmp_path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs the right to mount a small file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", place], check=False, timeout=10)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        images = trained.parent / "data/images/val"
        for words in (("train", data, *quick), ("predict", trained, images)):
            outcome = pixelwise(*words, "--out", place / "out")
            assert outcome.code == 1
            assert f"{place / 'out'} cannot be written: No space left on device." in outcome.err
            assert not list(place.iterdir())
    finally:
        subprocess.run(["umount", place], check=True, timeout=10)


def test_run_folder_that_is_a_file(refused, data, quick, tmp_path) -> None:
    (tmp_path / "run").write_text("")
    message = refused("train", data, "--out", tmp_path / "run", *quick).err
    assert "is a file; accepted: a new or empty folder" in message


def test_run_folder_that_was_used(refused, data, quick, trained, tmp_path) -> None:
    message = refused("train", data, "--out", trained, *quick).err
    assert f"--out {trained} already holds a run" in message
    assert "or go on with --resume" in message
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/todo.txt").write_text("mine")
    assert "already holds other files" in refused("train", data, "--out", tmp_path / "notes", *quick).err
    assert "already holds other files" in refused("demo", "--out", tmp_path / "notes").err


# ---- resuming


def test_resume_with_other_settings(refused, trained) -> None:
    data = trained.parent / "data"
    words = ("--seed", "3", "--iterations", "9", "--set", "optimizer.lr=0.5", "--model", "unet")
    message = refused("train", data, "--out", trained, "--resume", *words).err
    for difference in (
        "seed: 0 in the run, 3 asked for",
        "budget.iterations: 2 in the run, 9 asked for",
        "optimizer.lr: 0.003 in the run, 0.5 asked for",
        "model: 'unet_small' in the run, 'unet' asked for",
    ):
        assert difference in message
    assert "Leave these out, or train into a new folder" in message


def test_resume_on_other_data(refused, trained, data) -> None:
    message = refused("train", data, "--out", trained, "--resume").err
    assert f"data.path: '{trained.parent / 'data'}' in the run, '{data}' asked for" in message


def test_resume_without_a_run(refused, data, tmp_path) -> None:
    for out in (tmp_path / "nothing", data):
        message = refused("train", data, "--out", out, "--resume").err
        assert f"--resume: {out} holds no run" in message
        assert "Leave --resume out to begin one" in message


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A run folder that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "copied"))


def test_resume_from_a_damaged_state(refused, trained, copied) -> None:
    path = copied / "last/checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    message = refused("train", trained.parent / "data", "--out", copied, "--resume").err
    assert f"{path} cannot be read as a safetensors file" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "cannot be read"),
        ("- 1", "holds no mapping"),
        ("seed: 1", "data is missing"),
        ("{data: {path: x}, sed: 1}", "closest: seed"),
    ],
)
def test_damaged_config(refused, trained, copied, text, words) -> None:
    (copied / "config.yaml").write_text(text)
    message = refused("train", trained.parent / "data", "--out", copied, "--resume").err
    assert str(copied / "config.yaml") in message
    assert words in message


@pytest.mark.parametrize("text", ["", "{}", "[1]", "7"])
def test_damaged_metrics(refused, copied, text) -> None:
    (copied / "metrics.json").write_text(text)
    message = refused("report", copied).err
    assert str(copied / "metrics.json") in message
    assert "Restore" in message


def test_report_of_no_run(refused, data, tmp_path) -> None:
    assert "does not exist. Give the --out folder" in refused("report", tmp_path / "nothing").err
    assert f"{data / 'config.yaml'} does not exist" in refused("report", data).err


def test_report_of_a_run_without_scores(refused, copied) -> None:
    (copied / "metrics.json").unlink()
    assert "holds no metrics.json; accepted: a run that was validated" in refused("report", copied).err


# ---- model files


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="cut off"),
        pytest.param(lambda content: content[:4], id="cut off early"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: np.random.default_rng(0).bytes(5000), id="random bytes"),
    ],
)
def test_corrupt_checkpoint(refused, copied, trained, tmp_path, damage) -> None:
    path = copied / "best.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    data = trained.parent / "data"
    for words in (("predict", copied, data / "images/val", "--out", tmp_path / "out"), ("evaluate", path, data)):
        message = refused(*words).err
        assert f"{path} cannot be read as a safetensors file" in message
        assert "Copy it again, or give another file" in message


def test_foreign_checkpoint(refused, trained, tmp_path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    message = refused("predict", path, trained.parent / "data/images/val", "--out", tmp_path / "out").err
    assert f"{path} is a safetensors file of another program" in message
    assert "accepted: best.safetensors of a pixelwise run" in message


def test_pickle_is_never_opened(refused, trained, tmp_path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(3)}, path)
    message = refused("predict", path, trained.parent / "data/images/val", "--out", tmp_path / "out").err
    assert f"{path} cannot be read as a safetensors file" in message
    assert "pickle files (.pt, .pth) never" in message


def test_weights_that_do_not_fit(refused, data, quick, trained, tmp_path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    message = refused("train", data, "--weights", path, "--out", tmp_path / "run", *quick).err
    assert "do not fit this model" in message
    assert "missing down.0.0.weight" in message
    wider = ("--set", "options.base_channels=3")
    best = trained / "best.safetensors"
    message = refused("train", data, "--weights", best, "--out", tmp_path / "run", *quick, *wider).err
    assert "down.0.0.weight is (2, 1, 3, 3), model wants (3, 1, 3, 3)" in message
    missing = tmp_path / "nothing.safetensors"
    message = refused("train", data, "--weights", missing, "--out", tmp_path / "run", *quick).err
    assert f"weights {missing} is not a file" in message


def test_run_that_is_none(refused, data, tmp_path) -> None:
    message = refused("evaluate", tmp_path / "nothing", data).err
    assert f"run {tmp_path / 'nothing'} does not exist" in message
    assert "holds no best.safetensors" in refused("evaluate", data, data).err


# ---- names and values


def test_unknown_model(refused, data, quick, tmp_path) -> None:
    message = refused("train", data, "--model", "unet-smal", "--out", tmp_path / "run", *quick).err
    assert "unknown model 'unet-smal'; closest names: unet_small" in message
    assert "`pixelwise models` lists all of them" in message
    assert "closest names: unet" in refused("describe", "UNet").err


def test_unknown_task(refused) -> None:
    assert "unknown task 'semantics'; accepted: semantic." in refused("models", "--task", "semantics").err


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("optimizer.lrr=1", "unknown key 'optimizer.lrr'; closest: optimizer.lr"),
        ("lr=1", "unknown key 'lr'; closest: optimizer.lr"),
        ("croop=1", "closest: data.crop"),
        ("optimizer=1", "unknown key 'optimizer'"),
        ("optimizer.lr", "has no '='; accepted: key=value"),
        ("optimizer.lr=-1", "optimizer.lr is -1; accepted: greater than 0"),
        ("optimizer.lr=fast", "optimizer.lr is 'fast'; accepted: a valid number."),
        ("optimizer.name=adam", "optimizer.name is 'adam'; accepted: 'adamw' or 'sgd'"),
        ("data.crop=100", "data.crop is 100; accepted: a list, such as [256,256]"),
        ("data.crop=[", "is not readable as a YAML value"),
        ("data.batch_size=0", "data.batch_size is 0; accepted: greater than or equal to 1"),
        ("augment.rotation=999", "augment.rotation: rotation=999: accepted are"),
        ("options.widht=3", "model 'unet_small' has no option 'widht'"),
        (
            "options.base_channels=wide",
            "option base_channels of model 'unet_small' is 'wide'; accepted: a whole number",
        ),
        ("options.depth=true", "option depth of model 'unet_small' is True; accepted: a whole number, such as 4"),
        ("options.dropout=2", "dropout=2; accepted: 0 up to, not including, 1"),
        ("budget.minutes=3", "minutes and iterations are given; accepted: one of"),
        ("iterations=3", "iterations=3 is set beside a budget (iterations=2)"),
        ("device=abacus", "device='abacus' is not usable"),
        ("seed=-1", "seed is -1; accepted: greater than or equal to 0"),
    ],
)
def test_wrong_setting(refused, data, quick, tmp_path, setting, words) -> None:
    assert words in refused("train", data, "--out", tmp_path / "run", *quick, "--set", setting).err


def test_precision_that_a_cpu_only_emulates(refused, data, quick, tmp_path) -> None:
    words = ("--set", "precision=bfloat16", "--set", "device=cpu")
    message = refused("train", data, "--out", tmp_path / "run", *quick, *words).err
    assert "precision='bfloat16' on cpu" in message
    assert "Accepted: float32 on a CPU" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "0"], "budget.minutes is 0.0; accepted: greater than 0"),
        (["--minutes", "nan"], "budget.minutes is nan; accepted: a finite number"),
        (["--epochs", "inf"], "budget.epochs is inf; accepted: a finite number"),
        (["--cpu-minutes", "-2"], "budget.cpu_minutes is -2.0; accepted: greater than 0"),
        (["--iterations", "-3"], "budget.iterations is -3; accepted: greater than or equal to 1"),
        (["--minutes", "1", "--epochs", "2"], "minutes and epochs are given; accepted: one of minutes, cpu_minutes"),
        (["--seed", "-1"], "seed is -1; accepted: greater than or equal to 0"),
        (["--iterations", "many"], "Invalid value for '--iterations': 'many' is not a valid integer"),
    ],
)
def test_wrong_budget_or_seed(refused, data, tmp_path, words, message) -> None:
    assert message in refused("train", data, "--out", tmp_path / "run", *words).err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_where_there_is_none(refused, data, quick, tmp_path) -> None:
    message = refused("train", data, "--out", tmp_path / "run", *quick, "--set", "device=cuda").err
    assert "device='cuda' is not usable" in message
    assert "accepted: cpu (no GPU was found), or auto" in message


@pytest.mark.parametrize("setting", ["base_channels=[", "base_channels", "base_channels=[1]"])
def test_unreadable_option(refused, setting) -> None:
    message = refused("describe", "unet_small", "--set", setting).err
    assert f"--set {setting!r}; accepted: option=value, such as base_channels=32" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "x"], "Unknown command 'trian'. Closest: train."),
        (["train"], "Missing argument 'DATA'"),
        (["train", "x"], "Missing option '--out'"),
        (["train", "x", "--modle", "unet"], "No such option '--modle'. Did you mean '--model'?"),
        (["predict", "run", "--out", "x"], "Missing argument 'INPUTS...'"),
        (["--jsn"], "No such option '--jsn'"),
    ],
)
def test_wrong_words(refused, words, message) -> None:
    error = refused(*words).err
    assert message in error
    assert "Accepted: pixelwise" in error
    assert "--help)." in error


# ---- images to predict


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
    assert f"{path} holds values of type uint16; accepted: 8-bit images (uint8), as the model was trained on" in message


@pytest.mark.parametrize(("problem", "code"), [(MemoryError(), 1), (RuntimeError("CUDA out of memory. Tried"), 1)])
def test_memory_that_runs_out(refused, trained, data, tmp_path, monkeypatch, problem, code) -> None:
    def fail(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr("pixelwise.engine.predict.predict_logits", fail)
    message = refused("predict", trained, data / "images/val", "--out", tmp_path / "out", code=code).err
    assert "memory ran out. Use a smaller --tile, crop or batch" in message


def test_errors_of_our_own_are_not_hidden(pixelwise, trained, data, tmp_path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("pixelwise.engine.predict.predict_logits", fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        pixelwise("predict", trained, data / "images/val", "--out", tmp_path / "out")
