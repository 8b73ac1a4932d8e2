"""`--boxes` of predict and evaluate: DeconvNet is shown a user's boxes; whatever cannot be meant is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.data.normalise import Normalisation
from pixelwise.engine.model_file import ModelCard, save_model
from pixelwise.models import create_model

OPTIONS = {"base_channels": 2, "fc_channels": 16}
SIZE = (230, 260)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A DeconvNet with random weights."""
    torch.manual_seed(0)
    card = ModelCard(
        pixelwise="0",
        model="deconvnet_vgg16",
        options=OPTIONS,
        num_classes=2,
        in_channels=3,
        classes=("ground", "thing"),
        palette=((0, 0, 0), (255, 0, 0)),
        ignore_index=None,
        normalisation=Normalisation(intensity_range=(0.0, 255.0), mean=(0.5,) * 3, std=(0.5,) * 3),
        scale=1.0,
        input_rule="",
        licence=None,
        iteration=1,
        metrics={},
    )
    save_model(tmp_path / "m.safetensors", create_model("deconvnet_vgg16", num_classes=2, **OPTIONS), card)
    return tmp_path / "m.safetensors"


@pytest.fixture
def things(tmp_path: Path) -> Path:
    """A data set of two images, and boxes for them."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / f"things/{kind}/val").mkdir(parents=True)
    for name in ("one", "two"):
        image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"things/images/val/{name}.png")
        Image.fromarray(image[:, :, 0] // 128).save(tmp_path / f"things/masks/val/{name}.png")
    (tmp_path / "things/dataset.json").write_text(json.dumps({"name": "things", "classes": ["ground", "thing"]}))
    (tmp_path / "boxes.csv").write_text(
        "image,x1,y1,x2,y2,score\none.png,10,20,150,200,0.5\none.png,0,0,260,230,0.9\ntwo.png,,,,,\n"
    )
    return tmp_path


def test_predict_shows_the_given_boxes(pixelwise, model, things) -> None:
    call = ("predict", model, things / "things/images/val", "--out", things / "out", "--boxes", things / "boxes.csv")
    done = pixelwise(*call)
    assert done.code == 0
    assert "seen box by box (2 boxes), 1 of them whole: small, or without a box that is large enough" in done.out
    answer = json.loads(pixelwise(*call, "--json").out)
    assert (answer["num_boxes"], answer["num_whole"]) == (2, 1)
    with Image.open(things / "out/one.png") as labels:
        assert labels.size == SIZE[::-1]


def test_evaluate_says_whose_boxes(pixelwise, model, things) -> None:
    answer = pixelwise("evaluate", model, things / "things", "--boxes", things / "boxes.csv", "--json")
    assert json.loads(answer.out)["protocol"].items() >= {"boxes": 50, "proposals": "given in boxes.csv"}.items()


def test_boxes_that_cannot_be_meant_are_refused(refused, model, things) -> None:
    def answer(content: str, *more: object) -> str:
        (things / "b.csv").write_text(f"image,x1,y1,x2,y2\n{content}")
        call = ("predict", model, things / "things/images/val", "--out", things / "no", "--boxes", things / "b.csv")
        message = refused(*call, *more).err
        assert not (things / "no").exists()
        return message

    assert "b.csv names 1 images, but not two.png; closest: " in answer("one,1,2,30,40\n")
    assert "--whole-image and --boxes" in answer("one,1,2,3,4\n", "--whole-image")
    outside = answer("one,10,20,150,231\ntwo,,,,\n")
    assert "box 10, 20, 150, 231 is not inside " in outside
    assert "one.png, 230 x 260 pixels; accepted: x1 and y1 from 0, x2 up to 260, y2 up to 230" in outside


def test_boxes_for_a_model_that_sees_images_whole_are_refused(refused, trained, data, things) -> None:
    boxes = ("--boxes", things / "boxes.csv")
    words = "--boxes has no effect on unet_small, which sees images whole; accepted: with models"
    assert words in refused("predict", trained, data / "images/val", "--out", things / "out", *boxes).err
    assert words in refused("evaluate", trained, data, *boxes).err
