"""`--crf` of predict and evaluate."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pixelwise as pw
from pixelwise.crf.dense import PRESETS, CRFParameters
from pixelwise.crf.refiner import DenseRefiner, Refined
from pixelwise.data.images import read_image
from pixelwise.data.pictures import to_display
from pixelwise.engine import refinement
from pixelwise.engine.predict import load_segmenter
from pixelwise.engine.refinement import refined
from pixelwise.engine.views import Views

CASE = ("--crf", "deeplab_vgg16")
MANY = ("--scales", "0.5,1", "--flip", "--window", "32")
WAYS = {"scales": (0.5, 1), "flip": True, "window": 32}


def mask(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_predict_refines_what_all_views_give_together(pixelwise, trained, data, tmp_path) -> None:
    image, out = data / "images/val/disc4.png", tmp_path / "out"
    outcome = pixelwise("predict", trained, image, "--out", out, "--probabilities", "--overlay", *CASE, *MANY)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("refined: dense, preset deeplab_vgg16 (spatial_sigma 2, ")
    joined = load_segmenter(trained).predict(image, **WAYS).probabilities
    beliefs = pw.dense_crf(to_display(read_image(image)), joined.numpy(), preset="deeplab_vgg16")
    # predict folds batch norm into the convolutions, which changes last digits
    np.testing.assert_allclose(np.load(out / "disc4.npy"), beliefs, atol=2e-3)
    assert np.mean(mask(out / "disc4.png") != beliefs.argmax(axis=0)) < 1e-3
    in_python = pw.load(trained).predict(image, crf="deeplab_vgg16", **WAYS)
    assert np.array_equal(in_python.labels, beliefs.argmax(axis=0))
    assert np.mean(mask(out / "disc4_overlay.png") != in_python.overlay()) < 1e-3


def test_objects_are_found_in_the_refined_map(pixelwise, trained, data, tmp_path) -> None:
    image = data / "images/val"
    strong = tmp_path / "crf.json"  # one class wins everywhere
    values = {"spatial_sigma": 50.0, "spatial_weight": 1000.0, "bilateral_weight": 0.0, "normalization": "after"}
    strong.write_text(json.dumps({"parameters": {**asdict(PRESETS["crfrnn"]), **values}}))
    words = ("predict", trained, image, "--out", tmp_path / "out", "--instances", "--json", "--crf", strong)
    found = json.loads(pixelwise(*words).out)
    assert found["crf"] == f"dense, parameters of {strong}"
    labels = mask(tmp_path / "out/disc4.png")
    assert len(np.unique(labels)) == 1
    assert found["num_objects"] == sum(int(mask(tmp_path / f"out/disc{n}_instances.png").max()) for n in (4, 5))


def test_evaluate_scores_the_refined_map_and_says_so(pixelwise, trained, tmp_path) -> None:
    data = trained.parent / "data"
    result = json.loads(pixelwise("evaluate", trained, data, "--window", "32", *CASE, "--json").out)
    assert result["protocol"]["crf"] == "dense, preset deeplab_vgg16"
    assert "bilateral_weight 4, iterations 10, normalization after" in result["protocol"]["crf_parameters"]
    assert pixelwise("predict", trained, data / "images/val", "--out", tmp_path, "--window", "32", *CASE).code == 0
    files = json.loads(pixelwise("score", tmp_path, data, "--json").out)
    assert files["metrics"]["pixel_accuracy"] == pytest.approx(result["metrics"]["pixel_accuracy"], abs=1e-3)
    plain = json.loads(pixelwise("evaluate", trained, data, "--window", "32", "--json").out)
    assert result["loss"] != plain["loss"]
    assert result["metrics"]["ece"] != plain["metrics"]["ece"]
    assert "crf" not in plain["protocol"]
    assert "  crf: dense, preset deeplab_vgg16\n" in pixelwise("evaluate", trained, data, *CASE).out
    assert pw.evaluate(trained, data, window=32, crf="deeplab_vgg16")["metrics"] == result["metrics"]


def test_deep_images_are_refined_as_they_are_shown() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4000, (6, 7, 4)).astype(np.uint16)
    maps = torch.tensor(rng.dirichlet(np.ones(3), (6, 7)).transpose(2, 0, 1), dtype=torch.float32)
    labels, beliefs = refined(DenseRefiner(parameters=CRFParameters(), name="x"), image, maps)
    wanted = pw.dense_crf(to_display(image), maps.numpy())
    assert np.array_equal(beliefs.numpy(), wanted)
    assert np.array_equal(labels, wanted.argmax(axis=0))


def test_on_a_gpu_beliefs_are_the_same(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    maps = torch.tensor(rng.dirichlet(np.ones(3), (6, 7)).transpose(2, 0, 1), dtype=torch.float32)
    refiner = DenseRefiner(parameters=PRESETS["deeplab_vgg16"], name="x")
    here = refined(refiner, image, maps)
    monkeypatch.setattr(refinement, "on_gpu", lambda probabilities: True)
    there = refined(refiner, image, maps)
    np.testing.assert_allclose(there[1], here[1], atol=1e-5)
    assert np.array_equal(there[0], here[0])
    assert there[0].dtype == np.uint8


def test_labels_are_the_refiners_own(trained, data) -> None:
    """A refiner may label by another rule than the largest probability."""

    class Last:
        def refine(self, image: np.ndarray, probabilities: np.ndarray) -> Refined:
            return Refined(labels=np.ones(image.shape[:2], np.uint8), probabilities=probabilities)

        def protocol(self) -> dict[str, str]:
            return {"crf": "the last class"}

    views = Views(refiner=Last())
    prediction = load_segmenter(trained).view(data / "images/val/disc4.png", views)
    assert (prediction.labels == 1).all()
    assert views.protocol()["crf"] == "the last class"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deeplab", "unknown CRF 'deeplab'; closest: deeplab_"),
        ("tuned", "so nothing was tuned for it; accepted: pydensecrf_default, deeplab_vgg16"),
        (".", ". has no crf.json, so nothing was tuned for it"),
        ("data/images/val/disc4.png", "disc4.png: cannot be read as JSON"),
    ],
)
def test_names_that_are_refused(refused, trained, data, tmp_path, monkeypatch, name, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused("evaluate", trained, data, "--crf", name).err
    assert message in refused("predict", trained, data / "images/val", "--out", tmp_path / "out", "--crf", name).err
