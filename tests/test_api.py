"""The Python interface, as the example in the documentation uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pixelwise as pw
from pixelwise.api import find_images
from pixelwise.api import report as pw_report
from pixelwise.data.microscopy import write_microscopy
from pixelwise.errors import RequestError

TINY = (
    "options.base_channels=2",
    "options.depth=2",
    "data.crop=[32,32]",
    "data.batch_size=2",
    "threads=1",
)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_microscopy(tmp_path_factory.mktemp("cells"), num_train=3, num_val=2, size=(64, 72), seed=2)


@pytest.fixture(scope="module")
def run(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cells"
    trained = pw.train(cells, model="unet_small", out=out, iterations=2, settings=TINY)
    assert trained.run == out
    assert trained.iterations == 2
    assert trained.seconds > 0
    assert trained.best["metrics"]["miou"] == trained.best["metrics"]["miou"]
    return out


def test_create_model_gives_a_module_with_one_output_type() -> None:
    model = pw.create_model("unet_small", num_classes=21, base_channels=2)
    output = model(torch.zeros(1, 3, 32, 48))
    assert isinstance(output, pw.SegmentationOutput)
    assert output.logits.shape == (1, 21, 32, 48)
    assert output.aux == ()


def test_a_direct_call_with_an_illegal_size_names_the_nearest_legal_ones() -> None:
    model = pw.create_model("unet", num_classes=2, in_channels=1, base_channels=1)
    with pytest.raises(
        RequestError, match=r"height 100 \(nearest legal: 188\), width 573 \(nearest legal: 572 or 588\)"
    ):
        model(torch.zeros(1, 1, 100, 573))


def test_load_predicts_from_a_path(run, cells, tmp_path) -> None:
    path = sorted(cells.glob("images/val/*.png"))[0]
    result = pw.load(run).predict(path)
    assert result.labels.shape == (64, 72)
    assert result.labels.dtype == np.uint8
    assert result.probabilities.shape == (3, 64, 72)
    np.testing.assert_allclose(result.probabilities.sum(0).numpy(), 1, atol=1e-5)
    assert (result.probabilities.argmax(0).numpy() == result.labels).all()
    overlay = result.overlay()
    assert overlay.shape == (64, 72, 3)
    assert overlay.dtype == np.uint8
    result.save(tmp_path / "new/mask.png")
    with Image.open(tmp_path / "new/mask.png") as mask:
        assert mask.mode == "P"
        assert (np.asarray(mask) == result.labels).all()


def test_load_predicts_from_an_array_as_from_its_file(run, cells) -> None:
    path = sorted(cells.glob("images/val/*.png"))[0]
    with Image.open(path) as image:
        array = np.asarray(image)
    segmenter = pw.load(str(run / "best.safetensors"))
    assert (segmenter.predict(array).labels == segmenter.predict(str(path)).labels).all()


@pytest.mark.parametrize("shape", [(1, 64, 64, 1), (0, 5), (64, 64, 2)])
def test_predict_refuses_other_shapes(run, shape) -> None:
    with pytest.raises(RequestError, match=r"the image has (shape|2 channels).*accepted: "):
        pw.load(run).predict(np.zeros(shape, np.uint8))


def test_predict_refuses_other_types(run) -> None:
    with pytest.raises(RequestError, match=r"the image holds float64 values up to 3000; accepted: 8-bit images"):
        pw.load(run).predict(np.full((64, 64), 3000.0))


def test_evaluate_counts_images_and_takes_a_list(run, cells, tmp_path) -> None:
    heard: list[tuple[int, int]] = []
    scores = pw.evaluate(run, cells, split="train", on_image=lambda done, total: heard.append((done, total)))
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert scores["protocol"]["split"] == "train"
    assert set(scores["per_class"]) == {"background", "cell", "nucleus"}
    assert np.array(scores["confusion_matrix"]).sum() == 3 * 64 * 72
    name = scores["per_image"][0]["name"]
    (tmp_path / "one.txt").write_text(f"{name}\n\n")
    assert pw.evaluate(run, cells, names=tmp_path / "one.txt")["per_image"] == scores["per_image"][:1]


def test_tiles_and_the_whole_image_agree(run, tmp_path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (90, 110, pw.load(run).card.in_channels), dtype=np.uint8)
    segmenter = pw.load(run)
    whole, tiled = segmenter.predict(image), segmenter.predict(image, tile=80)
    torch.testing.assert_close(whole.probabilities, tiled.probabilities, atol=1e-5, rtol=1e-4)


def test_flip_averages_the_image_and_its_mirror_image(run) -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 50, pw.load(run).card.in_channels), dtype=np.uint8)
    segmenter = pw.load(run)
    turned = segmenter.predict(image[:, ::-1], flip=True).probabilities.flip(2)
    torch.testing.assert_close(segmenter.predict(image, flip=True).probabilities, turned, atol=1e-5, rtol=1e-4)


def test_predict_writes_files(run, cells, tmp_path) -> None:
    made = pw.predict(run, [cells / "images/val", str(cells / "images/train/*.png")], out=tmp_path, overlay=True)
    assert len(made.outputs) == 10
    assert all(path.exists() for path in made.outputs)
    assert made.seconds > 0


def test_find_images_expands_folders_patterns_and_files_once_each(cells) -> None:
    folder = cells / "images/val"
    images = sorted(folder.glob("*.png"))
    assert find_images([images[0], folder, str(folder / "*.png")]) == images


def test_a_listener_hears_every_step(cells, tmp_path) -> None:
    said: list[str] = []
    steps: list[tuple[int, int]] = []
    events: list[dict[str, Any]] = []

    class Listener:
        def say(self, line: str) -> None:
            said.append(line)

        def step(self, iteration: int, iterations: int, loss: float) -> None:
            steps.append((iteration, iterations))

        def validated(self, event: dict[str, Any]) -> None:
            events.append(event)

    settings = (*TINY, "val_every=2")
    pw.train(cells, out=tmp_path / "run", iterations=3, seed=1, settings=settings, listener=Listener())
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert [event["iteration"] for event in events] == [2, 3]
    assert any(line.startswith("classes: background, cell, nucleus") for line in said)


def test_describe_from_python() -> None:
    description = pw.describe("unet", input_size=(188, 204))
    assert description.parameters == 31_030_658
    assert description.output_size == [4, 20]


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = pw.trian
    assert "train" in dir(pw)


def test_report_says_why_it_has_no_pictures(tmp_path: Path) -> None:
    data = write_microscopy(tmp_path / "data", num_train=2, num_val=1, size=(80, 80), seed=0)
    settings = ("options.base_channels=2", "data.crop=[32,32]", "threads=1")
    pw.train(data, out=tmp_path / "run", iterations=1, settings=settings)
    data.rename(tmp_path / "elsewhere")
    page = pw_report(tmp_path / "run").read_text()
    assert "The images could not be shown: data folder" in page
    assert "does not exist" in page
