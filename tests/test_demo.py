"""The demo's promise: a network trained on three quarters of one photograph finds the coins of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise import api, demo
from pixelwise.data.coins import write_coins
from pixelwise.data.images import read_mask
from pixelwise.errors import RequestError


@pytest.mark.slow
def test_unseen_coins_are_found(tmp_path: Path) -> None:
    """In iterations, not minutes, so that a busy machine gives the same result."""
    folder = write_coins(tmp_path / "data")
    api.train(folder, out=tmp_path / "run", iterations=60, settings=["threads=1", "val_every=20"])
    scores = api.evaluate(tmp_path / "run", folder)
    assert scores["per_class"]["coin"]["iou"] >= 0.93


@pytest.mark.parametrize("data", ["coins", pytest.param("cells", marks=pytest.mark.slow)])
def test_the_whole_path_leaves_its_files(data: demo.DemoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "MINUTES", 0.005)  # a few iterations
    result = demo.demo(tmp_path / "out", data=data)
    assert result.report.stat().st_size > 10_000
    assert result.card.stat().st_size > 10_000
    *files, table = result.predictions
    assert len(files) == 3 * result.scores["num_images"]
    assert len(table.read_text().splitlines()) == 1 + (result.num_objects or 0)
    assert result.scores["metrics"].keys() >= {"seg", "ap50"}
    for mask in files[::3]:
        truth = read_mask(result.data / "masks" / "val" / mask.name)
        assert read_mask(mask).values.shape == truth.values.shape
        picture = np.asarray(Image.open(mask.with_name(f"{mask.stem}_overlay.png")))
        assert picture.shape == (*truth.values.shape, 3)
        assert picture.std() > 10  # not a black picture
    with pytest.raises(RequestError, match="already holds"):
        demo.demo(tmp_path / "out", data=data)
