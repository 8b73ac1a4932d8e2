"""Real data sets, read in place: recognised without a configuration, trained on for a moment, scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixelwise import api
from pixelwise.data.dataset import open_dataset
from pixelwise.data.scan import scan

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FACTS = {
    "isbi2012-em": (("cell", "membrane"), 1, (512, 512, 24), False),
    "dsb2018-nuclei": (("background", "nucleus"), 3, (256, 256, 170), True),
    "camvid": (("sky", "building", "pole"), 3, (360, 480, 367), False),
}

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside this checkout")


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", FACTS)
def test_recognised_trained_and_scored_without_a_configuration(name: str, tmp_path: Path) -> None:
    classes, channels, size, per_image = FACTS[name]
    folder = open_dataset(DATA / name)
    card = scan(folder, folder.split("train")).card
    assert card.classes[:3] == classes[:3]
    assert card.channels == channels
    assert card.image_sizes[0][:2] == size[:2]
    assert card.normalisation.per_image == per_image
    settings = ["options.base_channels=2", "data.crop=[64,64]", "data.batch_size=2", "threads=1", "val_every=2"]
    api.train(DATA / name, out=tmp_path / "run", iterations=2, settings=settings)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(item.name for item in folder.split("val")[:2]))
    scores = api.evaluate(tmp_path / "run", DATA / name, names=names)
    pixels = sum(row["truth_pixels"] for row in scores["per_class"].values())
    truth = scan(folder, folder.split("val")[:2]).card.pixel_counts["val"]
    assert pixels == sum(truth.values()) - truth["(ignored)"]
