"""DeepLab v3's head on EfficientNet-Lite0: output strides of one state, rates, batches of one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelwise.errors import RequestError
from pixelwise.models import create_model
from pixelwise.models.deeplabv3_efficientnet_lite import AtrousPyramid

NAME = "deeplabv3_efficientnet_lite0"


@pytest.mark.parametrize(("output_stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
def test_output_strides_share_a_state(output_stride: int, rates: list[int]) -> None:
    with torch.device("meta"):
        model = create_model(NAME, num_classes=3, output_stride=output_stride)
        wanted = {key: tensor.shape for key, tensor in create_model(NAME, num_classes=3).state_dict().items()}
        assert model(torch.zeros(1, 3, 97, 130)).logits.shape == (1, 3, 97, 130)
    assert {key: tensor.shape for key, tensor in model.state_dict().items()} == wanted
    assert [branch[0].dilation[0] for branch in model.pyramid.branches][1:] == rates


def test_a_batch_of_one_can_be_trained() -> None:
    model = create_model(NAME, num_classes=3, decoder_channels=8).train()
    model(torch.randn(1, 3, 40, 40)).logits.square().mean().backward()
    assert model.pyramid.image.weight.grad.abs().sum() > 0


def test_the_mean_of_the_image_reaches_every_cell() -> None:
    pyramid = AtrousPyramid(2, 4, (1,)).eval()
    for branch in pyramid.branches:
        nn.init.zeros_(branch[0].weight)
    x = torch.rand(1, 2, 5, 6)
    y = pyramid(x)
    assert torch.allclose(y, y[:, :, :1, :1].expand_as(y))
    assert not torch.allclose(pyramid(x + 1), y)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(RequestError, match=r"output_stride=12; accepted: 8, 16 or 32"):
        create_model(NAME, num_classes=3, output_stride=12)
    with pytest.raises(RequestError, match=r"decoder_channels=-1; accepted: whole numbers from 1"):
        create_model(NAME, num_classes=3, decoder_channels=-1)
