"""`pixelwise score`, and predictions with objects, as a user calls them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.microscopy import write_microscopy


@pytest.fixture
def predicted(pixelwise, data, trained, tmp_path) -> Path:
    folder = tmp_path / "predicted"
    words = ("--probabilities", "--json")
    assert pixelwise("predict", trained, data / "images/val", "--out", folder, *words).code == 0
    return folder


@pytest.fixture
def nuclei(tmp_path) -> Path:
    """Two classes with object ids."""
    root = write_microscopy(tmp_path / "nuclei", num_train=1, num_val=2, size=(64, 72), seed=4)
    shutil.rmtree(root / "images/train")
    shutil.rmtree(root / "masks/train")
    shutil.rmtree(root / "instances/train")
    return root


def test_scores_of_files_are_those_of_the_run(pixelwise, data, trained, predicted) -> None:
    run = json.loads(pixelwise("evaluate", trained, data, "--metrics", "boundary_iou,bf", "--json").out)
    names = "miou,boundary_iou,bf,ece"
    files = json.loads(pixelwise("score", predicted, data, "--metrics", names, "--json").out)
    assert files["metrics"].keys() == run["metrics"].keys()
    assert files["metrics"] == pytest.approx(run["metrics"], abs=1e-3)  # probabilities are stored in 16 bits
    assert files["num_images"] == run["num_images"] == 2
    assert json.loads((predicted / "scores.json").read_text())["metrics"] == files["metrics"]
    for npy in predicted.glob("*.npy"):
        npy.unlink()
    labels = json.loads(pixelwise("score", predicted, data, "--json").out)
    assert labels["metrics"] == {key: run["metrics"][key] for key in labels["metrics"]}
    assert labels["confusion_matrix"] == run["confusion_matrix"]
    assert labels["protocol"]["predictions"].endswith("(label maps)")


def test_black_and_white_files_score_like_class_numbers(pixelwise, data, predicted, tmp_path) -> None:
    for npy in predicted.glob("*.npy"):
        npy.unlink()
    white = tmp_path / "white"
    white.mkdir()
    for path in predicted.glob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)).astype(bool).astype(np.uint8) * 255).save(white / path.name)
    one, other = (json.loads(pixelwise("score", place, data, "--json").out) for place in (predicted, white))
    assert one["metrics"] == other["metrics"]
    assert other["protocol"]["predictions"].endswith("(label maps, 255 as class 1)")


def test_text_says_scores_protocol_and_place(pixelwise, data, predicted, tmp_path) -> None:
    place = tmp_path / "kept.json"
    done = pixelwise("score", predicted, data, "--metrics", "miou,bf", "--out", place)
    assert done.code == 0
    assert "boundary F1 (BF)" in done.out
    assert "on 2 images of 'val' at the labels' own size" in done.out
    assert f"scores and protocol: {place}" in done.out
    assert json.loads(place.read_text())["protocol"]["split"] == "val"


def test_objects_of_any_program_are_scored(pixelwise, nuclei, tmp_path) -> None:
    """The truth itself as prediction, in the two ways that files may come."""
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    rows = ["image,id,score"]
    for path in sorted((nuclei / "instances/val").glob("*.png")):
        ids = np.asarray(Image.open(path))
        rows += [f"{path.stem},{number},0.5" for number in np.unique(ids) if number]
        for folder, name in ((alone, path.name), (beside, f"{path.stem}_instances.png")):
            folder.mkdir(exist_ok=True)
            shutil.copy(path, folder / name)
        shutil.copy(nuclei / "masks/val" / path.name, beside / path.name)
    found = json.loads(pixelwise("score", alone, nuclei, "--metrics", "seg,pq", "--json").out)
    assert found["metrics"] == {"seg": 1.0, "pq": 1.0}
    assert found["per_class"] == {}
    assert "object ids, of all classes together" in found["protocol"]["predictions"]
    (beside / "objects.csv").write_text("\n".join(rows))
    found = json.loads(pixelwise("score", beside, nuclei, "--metrics", "miou,ap,ap50", "--json").out)
    assert found["metrics"] == {"miou": 1, "pixel_accuracy": 1, "mean_accuracy": 1, "fwiou": 1, "ap": 1, "ap50": 1}


def test_objects_are_predicted_counted_and_scored(pixelwise, nuclei, tmp_path, quick) -> None:
    for kind in ("images", "masks", "instances"):
        shutil.copytree(nuclei / kind / "val", nuclei / kind / "train")
    run, out = tmp_path / "run", tmp_path / "out"
    assert pixelwise("train", nuclei, "--out", run, *quick).code == 0
    found = json.loads(pixelwise("predict", run, nuclei / "images/val", "--out", out, "--instances", "--json").out)
    names = sorted(path.stem for path in (nuclei / "images/val").iterdir())
    maps = [np.asarray(Image.open(out / f"{name}_instances.png")) for name in names]
    assert all(array.dtype == np.uint16 for array in maps)
    assert found["num_objects"] == sum(int(array.max()) for array in maps)
    rows = list(csv.DictReader((out / "objects.csv").read_text().splitlines()))
    assert len(rows) == found["num_objects"]
    assert str(out / "objects.csv") in found["outputs"]
    wanted = "seg,ap,ap50,ap75,pq,dsb2018"
    scores = [
        json.loads(pixelwise(*words, "--metrics", wanted, "--json").out)["metrics"]
        for words in (("evaluate", run, nuclei), ("score", out, nuclei))
    ]
    assert {key: scores[1][key] for key in wanted.split(",")} == pytest.approx(
        {key: scores[0][key] for key in wanted.split(",")}, abs=1e-3
    )


def test_what_is_wrong_with_files_is_said(pixelwise, data, trained, predicted, tmp_path) -> None:
    names = sorted(path.stem for path in predicted.glob("*.png"))

    def said(*words: object) -> str:
        done = pixelwise("score", predicted, data, *words)
        assert done.code == 2, done.out
        assert 1 <= len(done.err.strip().splitlines()) <= 3
        return done.err

    assert "no-such does not exist" in pixelwise("score", predicted / "no-such", data).err
    assert "metric vrand compares cells between boundaries" in said("--metrics", "vrand")
    assert "unknown metric 'mio'; closest: miou" in said("--metrics", "mio")
    half = np.full((2, 64, 64), 0.7, np.float16)
    np.save(predicted / f"{names[0]}.npy", half)
    assert f"{names[0]}.npy: values from 0.7" in said()
    np.save(predicted / f"{names[0]}.npy", half[:, :32])
    assert "has shape (2, 32, 64), float16; accepted: float (2, 64, 64)" in said()
    (predicted / f"{names[0]}.npy").write_bytes(b"nonsense")
    assert f"{names[0]}.npy: cannot be read" in said()
    for npy in predicted.glob("*.npy"):
        npy.unlink()
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(predicted / f"{names[0]}.png")
    assert "holds values up to 7 (4096 pixels are no class); accepted: class numbers 0 to 1" in said()
    Image.fromarray(np.zeros((32, 64), np.uint8)).save(predicted / f"{names[0]}.png")
    assert "is 32 x 64 (height x width), but the truth is 64 x 64" in said()
    (predicted / f"{names[0]}.png").unlink()
    assert f"lack 1 of 2 images: {names[0]}" in said()


def test_masks_of_object_ids_train_and_score_as_objects(pixelwise, tmp_path, quick) -> None:
    """Without dataset.json and instances/: the masks themselves hold the ids."""
    root = tmp_path / "ids"
    for number in range(4):
        ids = np.zeros((64, 64), np.uint16)
        for cell in range(6 + 2 * number):
            row, column = divmod(cell, 4)
            ids[12 * row + 2 : 12 * row + 10, 16 * column + 2 : 16 * column + 12] = cell + 1
        for kind, array in (("images", ((ids > 0) * 90 + 50 + number).astype(np.uint8)), ("masks", ids)):
            place = root / kind / ("val" if number == 3 else "train")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(place / f"{number}.png")
    run = tmp_path / "run"
    done = pixelwise("train", root, "--out", run, *quick)
    assert done.code == 0, done.err
    assert "values are object ids" in done.out
    found = json.loads(pixelwise("evaluate", run, root, "--metrics", "seg,pq", "--json").out)
    assert list(found["per_class"]) == ["background", "object"]
    assert 0 <= found["metrics"]["seg"] <= 1


def test_predictions_in_the_colours_of_the_truth_score_like_class_numbers(pixelwise, tmp_path) -> None:
    colours = np.array([[0, 0, 0], [0, 128, 0], [128, 0, 0]], np.uint8)
    root, painted, numbered = tmp_path / "data", tmp_path / "painted", tmp_path / "numbered"
    rng = np.random.default_rng(1)
    for number in range(4):
        truth = rng.integers(0, 3, (4, 5)).repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
        found = np.roll(truth, 3, axis=1)
        split = "val" if number > 1 else "train"
        for place, array in (
            (root / "images" / split, rng.integers(0, 255, (32, 40, 3), dtype=np.uint8)),
            (root / "masks" / split, colours[truth]),
            (painted, colours[found]),
            (numbered, found),
        ):
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(place / f"{number}.png")
    scores = [json.loads(pixelwise("score", place, root, "--json").out)["metrics"] for place in (painted, numbered)]
    assert scores[0] == scores[1]
    assert 0 < scores[0]["miou"] < 1
    Image.fromarray(np.full((32, 40, 3), (9, 9, 8), np.uint8)).save(painted / "2.png")
    assert "[9, 9, 8]" in pixelwise("score", painted, root).err


def test_a_coloured_prediction_of_numbered_classes_is_refused(pixelwise, data, predicted) -> None:
    for path in predicted.glob("*.npy"):
        path.unlink()
    name = sorted(predicted.glob("*.png"))[0]
    Image.fromarray(np.full((64, 64, 3), (200, 30, 0), np.uint8)).save(name)
    done = pixelwise("score", predicted, data)
    assert done.code == 2
    assert f"{name} is a picture in colour, such as [200, 30, 0]; accepted: class numbers 0 to 1" in done.err
