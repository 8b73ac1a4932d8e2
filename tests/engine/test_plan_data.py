"""What the data, or the weights to start from, decide."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pixelwise.data.normalise import Normalisation
from pixelwise.engine.config import build_config, read_config
from pixelwise.engine.model_file import ModelCard, card_of, load_model, save_model
from pixelwise.engine.train import train
from pixelwise.models import create_model

TINY = ("options.base_channels=2", "options.depth=2", "data.crop=[32,48]", "data.batch_size=2", "threads=1")
MEAN = (113.0,)


@pytest.fixture
def published(cells: Path, tmp_path: Path) -> Path:
    """Weights that want a mean subtracted from 0..255, as those of the Caffe age do."""
    torch.manual_seed(0)
    model = create_model("unet_small", num_classes=3, in_channels=1, base_channels=2, depth=2)
    card = ModelCard(
        pixelwise="0",
        model="unet_small",
        options={"base_channels": 2, "depth": 2},
        num_classes=3,
        in_channels=1,
        classes=("a", "b", "c"),
        palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
        ignore_index=None,
        normalisation=Normalisation(
            intensity_range=(0.0, 255.0), mean=tuple(value / 255 for value in MEAN), std=(1 / 255,)
        ),
        scale=1.0,
        input_rule="any",
        licence=None,
        iteration=0,
        metrics={},
    )
    save_model(tmp_path / "published.safetensors", model, card)
    return tmp_path / "published.safetensors"


def test_published_weights_bring_their_normalisation(cells: Path, published: Path, tmp_path: Path) -> None:
    values = {"data": {"path": str(cells)}, "weights": str(published), "budget": {"iterations": 2}}
    train(build_config(values, TINY), tmp_path / "run")
    assert read_config(tmp_path / "run/config.yaml").data.mean == pytest.approx(MEAN)
    _, card = load_model(tmp_path / "run/best.safetensors")
    assert card.normalisation.std == (1 / 255,)
    assert card.normalisation.mean == pytest.approx([value / 255 for value in MEAN])


def test_what_is_asked_for_beats_it(cells: Path, published: Path, tmp_path: Path) -> None:
    values = {"data": {"path": str(cells)}, "weights": str(published), "budget": {"iterations": 2}}
    train(build_config(values, (*TINY, "data.normalise_per_image=false")), tmp_path / "run")
    assert read_config(tmp_path / "run/config.yaml").data.mean is None


def test_a_file_without_a_card_has_none(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    assert card_of(tmp_path / "x.safetensors") is None
    assert card_of(tmp_path / "missing.safetensors") is None
