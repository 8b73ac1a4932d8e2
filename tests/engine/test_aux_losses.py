"""Auxiliary losses: weighted as the model says, and only where it has such outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pixelwise.data.loader import Batch
from pixelwise.data.microscopy import write_microscopy
from pixelwise.engine import session as sessions
from pixelwise.engine.config import build_config
from pixelwise.engine.listener import Silent
from pixelwise.engine.run_folder import RunFolder
from pixelwise.engine.session import SemanticSession
from pixelwise.structures import SegmentationOutput, SizeRule


class TwoHeads(nn.Module):
    """Scores a pixel by its value, and in training once more by another layer."""

    size_rule = SizeRule()
    aux_weights = (0.4,)

    def __init__(self) -> None:
        super().__init__()
        self.main, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> SegmentationOutput:
        return SegmentationOutput(self.main(images), (self.other(images),) if self.training else ())


@pytest.fixture
def session(tmp_path: Path) -> SemanticSession:
    write_microscopy(tmp_path / "data", num_train=2, num_val=1, size=(64, 64))
    config = build_config(
        {"data": {"path": str(tmp_path / "data")}, "budget": {"iterations": 1}},
        ("options.base_channels=2", "data.batch_size=2", "data.crop=[32,32]", "threads=1"),
    )
    return sessions.prepare(config, RunFolder(tmp_path / "run"), resume=False, started=0.0, listener=Silent())


def batch() -> Batch:
    torch.manual_seed(0)
    return Batch(images=torch.randn(2, 3, 8, 8), labels=torch.randint(0, 3, (2, 8, 8)), weights=None, names=("a", "b"))


def test_loss_is_the_weighted_sum(session: SemanticSession) -> None:
    torch.manual_seed(1)
    model, given = TwoHeads(), batch()
    main, other = (session.loss(layer(given.images), given.labels, None) for layer in (model.main, model.other))
    torch.testing.assert_close(session.loss_of(model, given), main + 0.4 * other)
    torch.testing.assert_close(session.loss_of(model.eval(), given), main)


def test_weights_must_match_the_outputs(session: SemanticSession) -> None:
    model = TwoHeads()
    model.aux_weights = (0.4, 0.4)
    with pytest.raises(ValueError, match="zip"):
        session.loss_of(model, batch())
