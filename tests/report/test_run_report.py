"""Reports of real runs: what training wrote is what the page says, and each image is predicted once."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise import api
from pixelwise.api.reports import choose_images
from pixelwise.data.microscopy import write_microscopy
from pixelwise.engine.predict import Prediction, Segmenter

SETTINGS = ("options.base_channels=2", "data.crop=[32,32]", "data.batch_size=2", "threads=1", "val_every=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return data with two equal training images, and a run of two iterations on it."""
    root = tmp_path_factory.mktemp("report")
    data = write_microscopy(root / "data", num_train=7, num_val=8, size=(72, 80), seed=0)
    first, second, *_ = sorted((data / "images" / "train").iterdir())
    shutil.copy(first, second)
    api.train(data, out=root / "run", iterations=2, settings=SETTINGS)
    return data, root / "run"


def page_of(run: Path) -> str:
    return api.report(run).read_text(encoding="utf-8").replace("\u00a0", " ")


def test_the_page_says_what_training_measured(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = trained
    metrics = json.loads((run / "metrics.json").read_text())
    predicted = []
    predict = Segmenter.predict

    def counted(self: Segmenter, image: np.ndarray, **options: int) -> Prediction:
        predicted.append(image.tobytes())
        return predict(self, image, **options)

    monkeypatch.setattr(Segmenter, "predict", counted)
    page = page_of(run)
    wanted = choose_images(metrics)
    assert {"best", "worst"} <= set(wanted.values())
    assert len(predicted) == len(set(predicted)) == len(wanted)
    assert len(re.findall("<img ", page)) == 4 * 6 + 3 * len(metrics["confusions"]) + 2 * 6
    assert f"{100 * metrics['metrics']['ece']:.2f} %" in page
    split = metrics["border_split"]
    wrong = [split[side]["wrong_pixels"] for side in ("boundary", "interior")]
    assert f"{100 * wrong[0] / sum(wrong):.0f} % of the wrong pixels lie within 7 pixels" in page
    first = metrics["confusions"][0]
    assert f"{first['pixels']:,} pixels: " in page
    for entry in metrics["confusions"]:
        assert f"{entry['image']}, rows " in page
    assert "earlier version" not in page


def test_the_warnings_of_the_data_are_listed(trained: tuple[Path, Path]) -> None:
    data, run = trained
    names = sorted(path.stem for path in (data / "images" / "train").iterdir())[:2]
    page = page_of(run)
    assert "<h3>Warning: " in page
    assert all(f"{name}.png" in page for name in names)
    assert "Look at the " in page


def test_without_the_data_everything_else_stands(trained: tuple[Path, Path]) -> None:
    data, run = trained
    whole = page_of(run)
    data.rename(data.with_name("elsewhere"))
    try:
        page = page_of(run)
    finally:
        data.with_name("elsewhere").rename(data)
    assert "<img " not in page
    assert page.count("The images could not be shown: data folder") == 2
    assert re.search(r"\d+ warnings?(, the first)? \(`pixelwise check` tells more\): ", page)
    for words in ("taken for", "Is it as sure as it is right?", "Classes and how common they are"):
        assert words in page
    assert page_of(run) == whole


def test_masks_that_changed_after_training_do_not_stop_the_report(trained: tuple[Path, Path]) -> None:
    data, run = trained
    shown = choose_images(json.loads((run / "metrics.json").read_text()))
    mask = data / "masks" / "val" / f"{next(iter(shown))}.png"
    before = mask.read_bytes()
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(mask)
    try:
        page = page_of(run)
    finally:
        mask.write_bytes(before)
    assert "<img " not in page
    assert "The images could not be shown: " in page
    assert f"{mask.stem}.png" in page


@pytest.mark.parametrize(
    ("scores", "best", "worst"),
    [
        ([0.5], ["a"], []),
        ([0.5, 0.7], ["b"], ["a"]),
        ([0.5, 0.7, 0.1], ["b", "a"], ["c"]),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], ["g", "f", "e"], ["a", "b", "c"]),
        ([None, 0.4], ["b"], []),
    ],
)
def test_few_images_are_best_or_worst_once(scores: list[float | None], best: list[str], worst: list[str]) -> None:
    rows = [{"name": name, "miou": score} for name, score in zip("abcdefg", scores, strict=False)]
    chosen = choose_images({"per_image": rows, "confusions": [{"image": "z"}, {"image": "a"}]})
    assert [name for name, group in chosen.items() if group == "best"] == best
    assert [name for name, group in chosen.items() if group == "worst"] == worst
    assert "z" in chosen
    assert choose_images({"per_image": []}) == {}
