"""The U-Nets over a classifier's encoder: sizes, grids, and where the pretrained weights go."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pixelwise.errors import RequestError
from pixelwise.models import create_model
from pixelwise.models.unet_encoder import upsample
from pixelwise.structures import size_rule_of


def test_any_size_is_legal() -> None:
    model = create_model("unet_efficientnet_lite0", num_classes=3).eval()
    for height, width in ((1, 1), (33, 50), (90, 120)):
        with torch.no_grad():
            assert model(torch.zeros(1, 3, height, width)).logits.shape == (1, 3, height, width)
    assert size_rule_of(model).period == 32


def test_upsampling_is_anchored_at_the_top_left_corner() -> None:
    """A map that is cut on the right gives the same values on the left."""
    x, like = torch.randn(1, 2, 4, 5), torch.empty(1, 1, 7, 10)
    whole, part = upsample(x, 2, like), upsample(x[:, :, :, :4], 2, torch.empty(1, 1, 7, 7))
    assert whole.shape == (1, 2, 7, 10)
    torch.testing.assert_close(part, whole[:, :, :, :7])


def test_widths_of_the_expanding_path() -> None:
    with torch.device("meta"):
        model = create_model("unet_efficientnet_lite0", num_classes=3, decoder_channels=8)
    assert [merge.conv.out_channels for merge in model.merges] == [32, 24, 16, 8]
    with pytest.raises(RequestError, match=r"decoder_channels=0; accepted: whole numbers from 1"):
        create_model("unet_efficientnet_lite0", num_classes=3, decoder_channels=0)


@pytest.mark.parametrize("name", ["unet_efficientnet_lite0", "deeplabv3_efficientnet_lite0"])
def test_pretrained_weights_fill_the_encoder_alone(name: str, lite0: Path) -> None:
    published = torch.load(lite0, weights_only=True)
    torch.manual_seed(0)
    random = create_model(name, num_classes=3).state_dict()
    torch.manual_seed(0)
    taught = create_model(name, num_classes=3, weights="pretrained").state_dict()
    assert torch.equal(taught["encoder.blocks.15.bn2.running_mean"], published["_blocks.15._bn2.running_mean"])
    assert torch.equal(taught["encoder.conv_stem.weight"], published["_conv_stem.weight"])
    assert all(torch.equal(taught[key], random[key]) for key in random if not key.startswith("encoder."))
