"""Several sizes, mirror images and sliding windows from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pixelwise.engine.predict import load_segmenter

MANY = (
    "--scales",
    "0.5,1, 1.75",
    "--flip",
    "--window",
    "30",
    "--stride",
    "1/2",
    "--fusion",
    "max",
    "--long-side",
    "50",
)


def test_evaluate_says_how_it_looked(pixelwise, trained) -> None:
    data = trained.parent / "data"
    plain = json.loads(pixelwise("evaluate", trained, data, "--json").out)
    outcome = pixelwise("evaluate", trained, data, *MANY, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["metrics"] != plain["metrics"]
    assert result["protocol"] | {"scales": "0.5, 1, 1.75", "fusion": "max", "flip": True} == result["protocol"]
    assert result["protocol"]["window"] == "32 x 32, every 0.5 of that, averaged"
    text = pixelwise("evaluate", trained, data, *MANY).out
    assert "at the labels' own size, joined with mirror images" in text
    assert "  scales: 0.5, 1, 1.75\n" in text
    assert "  window: 32 x 32, every 0.5 of that, averaged\n" in text


def test_predict_gives_what_python_gives(pixelwise, trained, data, tmp_path) -> None:
    image = data / "images/val/disc4.png"
    outcome = pixelwise("predict", trained, image, "--out", tmp_path / "out", "--probabilities", "--json", *MANY)
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["window"], found["num_windowed"]) == ([32, 32], 1)
    ways = {"scales": (0.5, 1, 1.75), "flip": True, "window": 30, "stride": 0.5, "fusion": "max", "long_side": 50}
    expected = load_segmenter(trained).predict(image, **ways)
    assert np.array_equal(np.load(tmp_path / "out/disc4.npy"), expected.probabilities.numpy().astype(np.float16))
    again = pixelwise("predict", trained, image, "--out", tmp_path / "again", *MANY)
    assert ", 1 image seen through windows of 32 x 32," in again.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scales", "0.5,big"], "--scales: 'big' is no number; accepted: numbers such as 0.5,0.75,1"),
        (["--scales", "0"], "scales: 0; accepted: factors above 0"),
        (["--window", "32", "--stride", "2/"], "--stride: '' is no number; accepted: a share such as 2/3"),
        (["--window", "32", "--stride", "1/0"], "stride is inf; accepted: a share of the window"),
        (["--flip", "--fusion", "prob"], "fusion is 'prob'; closest: prob_mean"),
        (["--window", "32", "--tile", "32"], "window 32 and tile 32 are both given"),
    ],
)
def test_views_that_are_refused(refused, trained, data, tmp_path, words, message) -> None:
    assert message in refused("evaluate", trained, data, *words).err
    assert message in refused("predict", trained, data / "images/val", "--out", tmp_path / "out", *words).err
