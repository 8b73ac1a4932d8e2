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
from pixelwise.models.deeplabv2_resnet import deeplabv2_resnet101_msc
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


def test_deeplab_trains_on_four_score_maps(session: SemanticSession) -> None:
    """The fused scores, scale 1 and scale 0.75 on every eighth label, scale 0.5 on every sixteenth, equal weights."""
    session.config = session.config.model_copy(update={"train_on": "scores"})
    torch.manual_seed(0)
    model = deeplabv2_resnet101_msc(num_classes=3, base_channels=1, blocks=(1, 1, 1, 1))
    images, labels = torch.randn(2, 3, 65, 40), torch.randint(0, 3, (2, 65, 40))
    given = Batch(images=images, labels=labels, weights=None, names=("a", "b"))
    maps = model.scores(images)
    steps = (8, 8, 8, 16)
    losses = [
        session.loss(scores, labels[:, ::step, ::step], None)
        for step, scores in zip(steps, (maps.logits, *maps.aux), strict=True)
    ]
    torch.testing.assert_close(session.loss_of(model, given), sum(losses))
