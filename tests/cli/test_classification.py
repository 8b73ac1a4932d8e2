"""Image classification from the command line: a folder for each class, trained, scored, predicted, reported."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.cli import run as run_command

CLASSES = ("bright", "dark", "red")
QUICK = (
    *("--model", "resnet50"),
    *("--iterations", "2"),
    *("--set", "options.base_channels=2"),
    *("--set", "options.blocks=[1,1,1,1]"),
    *("--set", "data.batch_size=4"),
    *("--set", "threads=1"),
)


def write_classes(root: Path, *, train: int = 4, val: int = 2) -> Path:
    """Write noisy images of three plain colours."""
    rng = np.random.default_rng(0)
    colours = {"bright": (220, 220, 220), "dark": (30, 30, 30), "red": (210, 40, 40)}
    for split, count in (("train", train), ("val", val)):
        for name in CLASSES:
            for index in range(count):
                path = root / split / name / f"{split}_{name}{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.normal(0, 12, (40, 44, 3))
                Image.fromarray(np.clip(noise + colours[name], 0, 255).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="session")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a classifier, not to be changed; its data lies beside it, under the name `data`."""
    root = tmp_path_factory.mktemp("classified")
    data = write_classes(root / "data")
    assert run_command(["train", str(data), "--out", str(root / "run"), *QUICK]) == 0
    return root / "run"


def test_training_leaves_a_whole_run_folder(classified) -> None:
    names = {path.name for path in classified.iterdir()}
    assert {"config.yaml", "data_card.json", "log.jsonl", "metrics.json", "best.safetensors", "report.html"} <= names
    metrics = json.loads((classified / "metrics.json").read_text())
    assert metrics["metrics"].keys() == {"top1", "top5"}
    assert metrics["metrics"]["top5"] == 1.0
    assert metrics["protocol"]["top5_says_nothing"] == "there are 3 classes"
    config = (classified / "config.yaml").read_text()
    assert "crop: 35" in config  # images of 40 pixels
    assert "area: [0.08, 1.0]" in config
    page = (classified / "report.html").read_text()
    assert "Top-1 accuracy" in page
    assert "http" not in page.replace("http-equiv", "").replace("www.w3.org", "")


def test_what_train_says(pixelwise, tmp_path) -> None:
    data = write_classes(tmp_path / "data")
    outcome = pixelwise("train", data, "--out", tmp_path / "run", *QUICK)
    assert outcome.code == 0
    assert "images: train 12, val 6 (folders)" in outcome.out
    assert "planned: data.crop = 35 (images are mostly 40 x 44)" in outcome.out
    assert "brightness and colour may tell classes apart" in outcome.out
    assert "iteration 2: top-1 accuracy" in outcome.out
    assert "crops: 1 of 35 x 35 (the centre) of the image resized to a shorter side of 40" in outcome.out


@pytest.mark.parametrize("crops", [None, 10])
def test_evaluate_prints_the_keys_that_scripts_read(pixelwise, classified, crops) -> None:
    more = () if crops is None else ("--crops", crops)
    outcome = pixelwise("evaluate", classified, classified.parent / "data", "--json", *more)
    assert outcome.code == 0
    result = json.loads(outcome.out)
    assert result["num_images"] == 6
    assert set(result["per_class"]) == set(CLASSES)
    assert np.array(result["confusion_matrix"]).sum() == 6
    right = sum(row["truth"] == row["prediction"] for row in result["per_image"])
    assert result["metrics"]["top1"] == pytest.approx(right / 6)
    assert result["protocol"]["crops"].startswith(f"{crops or 1} of 35 x 35")


def test_evaluate_scores_another_split_a_list_and_a_part_of_the_classes(pixelwise, classified, tmp_path) -> None:
    data = classified.parent / "data"
    assert json.loads(pixelwise("evaluate", classified, data, "--split", "train", "--json").out)["num_images"] == 12
    (tmp_path / "names.txt").write_text("red/val_red0\n")
    listed = json.loads(pixelwise("evaluate", classified, data, "--list", tmp_path / "names.txt", "--json").out)
    assert [row["truth"] for row in listed["per_image"]] == ["red"]
    part = write_classes(tmp_path / "part")
    for split in ("train", "val"):
        for path in (part / split / "bright").iterdir():
            path.unlink()
        (part / split / "bright").rmdir()
    scored = json.loads(pixelwise("evaluate", classified, part, "--json").out)
    assert scored["per_class"]["bright"]["accuracy"] is None
    assert {row["truth"] for row in scored["per_image"]} == {"dark", "red"}


def test_predict_writes_probabilities(pixelwise, classified, tmp_path) -> None:
    images = classified.parent / "data/val/red"
    outcome = pixelwise("predict", classified, images, "--out", tmp_path / "out", "--crops", "10", "--json")
    assert outcome.code == 0
    result = json.loads(outcome.out)
    assert [Path(path).name for path in result["outputs"]] == ["val_red0.json", "val_red1.json", "classes.csv"]
    one = json.loads((tmp_path / "out/val_red0.json").read_text())
    assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert one["class"] == max(one["probabilities"], key=one["probabilities"].get) == result["classes"]["val_red0"]
    with (tmp_path / "out/classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["val_red0", "val_red1"]
    assert float(rows[0]["p(red)"]) == pytest.approx(one["probabilities"]["red"])
    assert "val_red0" in pixelwise("predict", classified, images, "--out", tmp_path / "again").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tile", 64), r"--tile: no effect on .*, an image classifier"),
        (("--flip", "--scales", "0.5,1"), "--flip, --scales: no effect"),
        (("--crf", "deeplab_vgg16"), "--crf: no effect on .* an image classifier"),
        (("--metrics", "miou"), "--metrics: no effect"),
        (("--crops", 7), "7 crops; accepted: 1 .the centre. or 10"),
        (("--split", "test"), "no split 'test'; accepted: train, val"),
    ],
)
def test_evaluate_refuses_what_has_no_meaning(refused, classified, arguments, said) -> None:
    import re

    assert re.search(said, refused("evaluate", classified, classified.parent / "data", *arguments).err)


def test_predict_refuses_what_has_no_meaning(refused, classified, trained, tmp_path) -> None:
    image = classified.parent / "data/val/red/val_red0.png"
    assert (
        "--overlay, --instances: no effect"
        in refused("predict", classified, image, "--out", tmp_path / "out", "--overlay", "--instances").err
    )
    message = refused("predict", trained, image, "--out", tmp_path / "out", "--crops", 10).err
    assert "--crops 10 has no effect on a segmentation model" in message
    data = trained.parent / "data"
    assert "--crops 1 has no effect" in refused("evaluate", trained, data, "--crops", 1).err


def test_models_and_data_of_different_tasks(refused, classified, trained, tmp_path) -> None:
    classes, masks = classified.parent / "data", trained.parent / "data"
    message = refused("train", classes, "--out", tmp_path / "run", "--iterations", 1).err
    assert "It holds a folder for each class: train a classifier on it, such as --model resnet50" in message
    message = refused("train", masks, "--out", tmp_path / "run", *QUICK).err
    assert "looks like images with masks, which segmentation models are trained on" in message
    assert "looks like images with masks" in refused("evaluate", classified, masks).err
    assert "It holds a folder for each class" in refused("evaluate", trained, classes).err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.scale=0.5", "key 'data.scale' has no effect here: it is for the training of semantic models"),
        ("loss.dice=0", "key 'loss.dice' has no effect here"),
        ("data.crop=[32,32]", "data.crop is [32, 32]; accepted: a valid integer"),
        ("data.crop=8", "data.crop=8; accepted by resnet50: any side, from 33; nearest: 33"),
        ("augment.area=[0.5,2]", "shares of the image's area, up to 1"),
        ("loss.label_smoothing=1", "loss.label_smoothing is 1; accepted: less than 1"),
        ("data.crops=224", "unknown key 'data.crops'; closest: data.crop"),
    ],
)
def test_settings_that_are_not_a_classifiers(refused, classified, tmp_path, setting, said) -> None:
    message = refused("train", classified.parent / "data", "--out", tmp_path / "run", *QUICK, "--set", setting).err
    assert said in message


def test_a_recipe_of_segmentation_is_refused_in_words(pixelwise, classified, tmp_path) -> None:
    arguments = ("--recipe", "modern", "--model", "resnet50", "--out", tmp_path / "run", "--iterations", 1)
    outcome = pixelwise("train", classified.parent / "data", *arguments)
    assert outcome.code == 2
    assert "key 'data.scale' has no effect here: it is for the training of semantic models" in outcome.err


def test_one_class_is_nothing_to_tell_apart(refused, tmp_path) -> None:
    for index in range(3):
        path = tmp_path / f"data/only/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 40 * index, np.uint8)).save(path)
    message = refused("train", tmp_path / "data", "--out", tmp_path / "run", *QUICK).err
    assert "holds one class, only; accepted: at least two" in message


def test_classes_of_other_names_are_not_scored(refused, classified, tmp_path) -> None:
    data = write_classes(tmp_path / "data")
    for split in ("train", "val"):
        (data / split / "red").rename(data / split / "rde")
    message = refused("evaluate", classified, data).err
    assert "class 'rde' of" in message
    assert "closest: red" in message


def test_the_report_is_written_again_without_the_data(pixelwise, classified, tmp_path) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(classified, copy)
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace(str(classified.parent / "data"), str(tmp_path / "gone")))
    assert pixelwise("report", copy).code == 0
    page = (copy / "report.html").read_text()
    assert "Confusion matrix" in page


def test_describe_and_models_know_classifiers(pixelwise) -> None:
    listed = json.loads(pixelwise("models", "--json").out)
    assert {row["task"] for row in listed if row["name"] in ("vgg16", "resnet101", "drn_c_26")} == {"classification"}
    described = json.loads(pixelwise("describe", "alexnet", "--num-classes", "1000", "--json").out)
    assert described["parameters"] == 61_100_840
    assert described["receptive_field"] is None


def test_check_recognises_classes_and_draws_a_card(pixelwise, tmp_path) -> None:
    data = write_classes(tmp_path / "data")
    outcome = pixelwise("check", data, "--out", tmp_path / "card.html")
    assert outcome.code == 0
    assert "layout: a folder for each class, below one for each split" in outcome.out
    assert "bright             4           2" in outcome.out
    assert f"pixelwise train {data} --model resnet50 --out runs/first" in outcome.out
    page = (tmp_path / "card.html").read_text()
    assert page.count("data:image/jpeg") == 12
    assert "Ready to train a classifier" in page
    result = json.loads(pixelwise("check", data, "--json").out)
    assert result["classes"] == list(CLASSES)
    assert (result["num_images"], result["mask_encoding"], result["problems"]) == (18, None, [])


def test_check_lists_every_problem(pixelwise, tmp_path) -> None:
    data = write_classes(tmp_path / "data")
    (data / "train/dark/cut.png").write_bytes((data / "train/dark/train_dark0.png").read_bytes()[:200])
    (data / "train/empty").mkdir()
    (data / "val/only").mkdir()
    (data / "val/only/a.png").write_bytes((data / "val/red/val_red0.png").read_bytes())
    outcome = pixelwise("check", data, "--json", "--out", tmp_path / "card.html")
    assert outcome.code == 1
    problems = {problem["kind"]: problem for problem in json.loads(outcome.out)["problems"]}
    assert problems["unreadable file"]["file"] == "train/dark/cut.png"
    assert problems["empty class"]["file"] == "train/empty"
    assert problems["class without training images"]["severity"] == "error"
    assert "is not ready: 3 errors" in outcome.err
    assert "Not ready" in (tmp_path / "card.html").read_text()


def test_check_asks_where_a_folder_can_be_both(pixelwise, refused, tmp_path) -> None:
    data = write_classes(tmp_path / "data")
    for kind in ("images", "masks"):
        (data / kind).mkdir()
        Image.fromarray(np.eye(40, dtype=np.uint8) * (1 if kind == "masks" else 200)).save(data / kind / "a.png")
        Image.fromarray(np.eye(40, dtype=np.uint8) * (1 if kind == "masks" else 90)).save(data / kind / "b.png")
    message = refused("check", data).err
    assert "can be read in 2 ways: as images with masks, and as a folder for each class" in message
    assert "--task semantic or --task classification" in message
    chosen = json.loads(pixelwise("check", data, "--task", "classification", "--json").out)
    assert chosen["classes"] == list(CLASSES)
    masks = json.loads(pixelwise("check", data, "--task", "semantic", "--json").out)
    assert masks["num_images"] == 2
