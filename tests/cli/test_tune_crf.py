"""`pixelwise tune-crf` as a user calls it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.cli.output import Reporter

FEW = ("--trials", "8")


def write_maps(data: Path, folder: Path, *, noise: float, step: int = 1) -> Path:
    """Write probabilities of the discs of the validation images, a share of whose pixels says the other class."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for path in sorted((data / "masks/val").iterdir()):
        with Image.open(path) as image:
            disc = (np.asarray(image) > 0)[::step, ::step]
        likely = np.where(disc ^ (rng.random(disc.shape) < noise), 0.7, 0.2)
        maps = np.stack([1 - likely, likely])
        if step == 1:
            np.save(folder / f"{path.stem}.npy", maps.astype(np.float16))
        else:
            np.savez(folder / f"{path.stem}.npz", prob_u8=np.rint(maps * 255).astype(np.uint8))
    return folder


@pytest.fixture
def maps(data: Path, tmp_path: Path) -> Path:
    return write_maps(data, tmp_path / "maps", noise=0.2)


def test_what_was_found_is_what_it_scores(pixelwise, data, maps, tmp_path) -> None:
    """The file's score is that of refining every image with it and scoring the masks."""
    out, masks = tmp_path / "found/crf.json", tmp_path / "masks"
    outcome = pixelwise("tune-crf", maps, data, "--out", out, "--json", *FEW)
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["helps"]
    assert result["output"] == str(out)
    assert (result["trials"], result["num_images"]) == (8, 2)
    kept = json.loads(out.read_text())
    assert kept["parameters"] == result["parameters"]
    assert kept["scores"] == result["scores"]
    assert {"command", "data", "protocol"} <= kept.keys()
    assert [path.name for path in out.parent.iterdir()] == ["crf.json"]
    for path in sorted((data / "images/val").iterdir()):
        words = ("refine", path, maps / f"{path.stem}.npy", "--out", masks / path.name, "--preset", out)
        assert pixelwise(*words).code == 0
    scored = json.loads(pixelwise("score", masks, data, "--json").out)["metrics"]
    assert scored == pytest.approx(result["scores"]["best"])
    assert result["scores"]["gain"] == pytest.approx(scored["miou"] - result["scores"]["unary"]["miou"])
    assert result["scores"]["gain"] > 0.1


def test_text_says_scores_parameters_and_what_they_are_worth(pixelwise, data, maps, tmp_path) -> None:
    outcome = pixelwise("tune-crf", maps, data, "--out", tmp_path / "crf.json", "--metric", "pixel_accuracy", *FEW)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("pixel accuracy, probabilities alone:  0.")
    assert "pixel accuracy, best of 8 trials: 0." in outcome.out
    assert "  sigmas: in pixels, for images of 64 pixels on the longer side\n" in outcome.out
    assert "foreground" in outcome.out
    assert "chosen on the images that they are scored on" in outcome.out
    assert "Score other images to see what it is worth." in outcome.out  # too few for two halves
    assert outcome.out.endswith(f"parameters: {tmp_path / 'crf.json'}\n")
    assert "probabilities 2/2" in outcome.err
    assert "trying 2/2" in outcome.err


def test_a_crf_that_does_not_help_is_said_and_not_written(pixelwise, data, tmp_path) -> None:
    perfect = write_maps(data, tmp_path / "perfect", noise=0)
    outcome = pixelwise("tune-crf", perfect, data, "--out", tmp_path / "crf.json", *FEW)
    assert outcome.code == 0, outcome.err
    assert "mean IoU, probabilities alone:  1.0000" in outcome.out
    assert outcome.out.endswith(
        "The CRF does not help here: no trial is better than the probabilities alone. Nothing was written.\n"
    )
    assert not (tmp_path / "crf.json").exists()
    assert "chosen on" in outcome.out  # of the protocol
    noisy = write_maps(data, tmp_path / "noisy", noise=0.2)
    assert pixelwise("tune-crf", noisy, data, "--out", tmp_path / "crf.json", *FEW).code == 0
    before = (tmp_path / "crf.json").read_bytes()
    again = pixelwise("tune-crf", perfect, data, "--out", tmp_path / "crf.json", *FEW)
    assert again.out.endswith(f"Nothing was written. {tmp_path / 'crf.json'} of an earlier search stays.\n")
    assert (tmp_path / "crf.json").read_bytes() == before


def test_small_maps_are_enlarged_and_that_is_said(pixelwise, data, tmp_path) -> None:
    small = write_maps(data, tmp_path / "small", noise=0.1, step=4)
    words = ("tune-crf", small, data, "--out", tmp_path / "crf.json", "--search", "random", "--seed", "3", "--json")
    result = json.loads(pixelwise(*words, *FEW).out)
    assert result["protocol"]["enlarged"] == "probabilities from 16 x 16 to 64 x 64, bilinear, align_corners=False"
    assert result["protocol"]["search"] == "random, seed 3; 8 trials"
    assert json.loads(pixelwise(*words, *FEW).out)["parameters"] == result["parameters"]


def test_tuned_for_a_run(pixelwise, trained, data, maps, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    outcome = pixelwise("tune-crf", run, data, "--flip", "--trials", "16", "--iterations", "1,5", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["protocol"]["flip"]
    alone = json.loads(pixelwise("evaluate", run, data, "--flip", "--json").out)
    assert result["scores"]["unary"] == {key: alone["metrics"][key] for key in result["scores"]["unary"]}
    assert (run / "crf.json").exists() == result["helps"]
    assert pixelwise("tune-crf", maps, data, "--out", run / "crf.json", *FEW).code == 0
    parameters = json.loads((run / "crf.json").read_text())["parameters"]
    protocol = json.loads(pixelwise("evaluate", run, data, "--crf", "tuned", "--json").out)["protocol"]
    assert protocol["crf"] == f"dense, tuned ({run / 'crf.json'})"
    assert f"bilateral_weight {parameters['bilateral_weight']:g}, " in protocol["crf_parameters"]
    assert pixelwise("predict", run, data / "images/val", "--out", tmp_path / "out", "--crf", "tuned").code == 0


def test_ctrl_c_leaves_nothing(pixelwise, data, maps, tmp_path, monkeypatch) -> None:
    def stop(self: Reporter, what: str, done: int, total: int, note: str = "") -> None:
        if what == "trying":
            raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "advance", stop)
    outcome = pixelwise("tune-crf", maps, data, "--out", tmp_path / "new/crf.json")
    assert (outcome.code, outcome.err.strip()) == (1, "stopped.")
    assert not (tmp_path / "new").exists()


def test_requests_that_are_refused(refused, data, maps, tmp_path) -> None:
    def said(*words: object, given: object = maps, out: object = tmp_path / "crf.json") -> str:
        return refused("tune-crf", given, data, *(("--out", out) if out else ()), *words).err

    assert "is a folder of probabilities, so that there is no run folder" in said(out=None)
    assert "--flip, --scales, --tile, --window" in said("--flip")
    assert "seed 3 has no effect on a grid" in said("--seed", "3")
    assert "trials is 0" in said("--trials", "0")
    assert "--iterations: 'x' is no number; accepted: whole numbers such as 2,5,10" in said("--iterations", "x")
    assert "--iterations: 2.5; accepted: whole numbers" in said("--iterations", "5,2.5")
    assert "--iterations: inf" in said("--iterations", "inf")
    assert "metric is 'iou'; closest: miou" in said("--metric", "iou")
    assert "no split 'test'" in said("--split", "test")
    assert "lacks probabilities for 4 of 4 images: disc0, disc1" in said("--split", "train")
    assert "accepted: a file name with the ending .json" in said(out=tmp_path / "crf.yaml")
    (tmp_path / "other.json").write_text("{}")
    assert "other.json is there already, and holds no parameters" in said(out=tmp_path / "other.json")
    assert "run " in said(given=tmp_path / "nowhere")
    assert "holds no best.safetensors" in said(given=data, out=None)


def test_too_few_minutes(pixelwise, data, maps, tmp_path) -> None:
    outcome = pixelwise("tune-crf", maps, data, "--out", tmp_path / "crf.json", "--minutes", "1e-9")
    assert outcome.code == 2
    assert "over before 8 sets of parameters were tried on all 2 images" in outcome.err
    assert not (tmp_path / "crf.json").exists()


def test_maps_that_are_refused(refused, data, maps, tmp_path) -> None:
    words = ("tune-crf", maps, data, "--out", tmp_path / "crf.json")
    np.save(maps / "disc4.npy", np.full((3, 64, 64), 1 / 3))
    assert "disc4.npy: has 3 classes" in refused(*words).err
    np.save(maps / "disc4.npy", np.full((64, 64, 2), 0.5))
    assert "Move the last axis to the front" in refused(*words).err
    (maps / "disc4.npy").write_bytes(b"nonsense")
    assert "disc4.npy: cannot be read" in refused(*words).err
    (maps / "disc4.npy").unlink()
    assert "lacks probabilities for 1 of 2 images: disc4" in refused(*words).err
