"""Images of any size go through networks whose own sizes are few: padded, computed, cropped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelwise.data.normalise import Normalisation
from pixelwise.engine.model_file import ModelCard
from pixelwise.engine.predict import Segmenter
from pixelwise.models import create_model, model_info
from pixelwise.structures import size_rule_of


@pytest.mark.parametrize("size", [(1, 1), (3, 600), (50, 33)])
@pytest.mark.parametrize("name", ["pspnet_resnet50", "gcn_resnet50", "fusionnet"])
def test_images_of_any_size(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    options = dict(model_info(name).debug)
    model = create_model(name, num_classes=3, in_channels=3, **options).eval()
    card = ModelCard(
        pixelwise="0",
        model=name,
        options=options,
        num_classes=3,
        in_channels=3,
        classes=("a", "b", "c"),
        palette=((0, 0, 0), (255, 0, 0), (0, 0, 255)),
        ignore_index=None,
        normalisation=Normalisation(intensity_range=(0, 255), mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2)),
        scale=1.0,
        input_rule=size_rule_of(model).describe(),
        licence=None,
        iteration=0,
        metrics={},
    )
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = Segmenter(model=model, card=card).predict(image)
    assert found.labels.shape == size
    torch.testing.assert_close(found.probabilities.sum(dim=0), torch.ones(size))
