"""DeepLab's smaller fc6 and fc7, cut out of VGG-16's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pixelwise.errors import RequestError
from pixelwise.models.deeplabv1 import deeplabv1_vgg16_largefov
from pixelwise.weights.cut_down import cut_down


def vgg(filters: int, channels: int) -> dict[str, Tensor]:
    """fc6 and fc7 whose numbers say where they come from."""
    index = torch.arange(filters, dtype=torch.float64)
    taps = torch.arange(7, dtype=torch.float64)
    fc6 = index[:, None, None, None] * 100 + 10 * taps[:, None] + taps
    return {
        "conv1_1.weight": torch.zeros(1),
        "fc6.weight": fc6.expand(filters, channels, 7, 7).clone(),
        "fc6.bias": index.clone(),
        "fc7.weight": (index[:, None] * 1000 + index)[:, :, None, None].clone(),
        "fc7.bias": index.clone(),
    }


@pytest.mark.parametrize(("kernel", "taps"), [(7, [0, 1, 2, 3, 4, 5, 6]), (4, [0, 2, 4, 6]), (3, [0, 3, 6])])
def test_windows_are_decimated_and_filters_drawn(kernel: int, taps: list[int]) -> None:
    cut = cut_down(vgg(64, 3), kernel=kernel, channels=16, generator=torch.Generator().manual_seed(0))
    assert cut["fc6.weight"].shape == (16, 3, kernel, kernel)
    first, second = cut["fc6.bias"], cut["fc7.bias"]
    assert len(first.unique()) == len(second.unique()) == 16
    assert first.tolist() != second.tolist()
    rows = (first * 100)[:, None, None] + 10 * torch.tensor(taps)[:, None] + torch.tensor(taps)
    assert torch.equal(cut["fc6.weight"][:, 1], rows)
    assert torch.equal(cut["fc7.weight"][:, :, 0, 0], second[:, None] * 1000 + first)
    assert "conv1_1.weight" in cut
    again = cut_down(vgg(64, 3), kernel=kernel, channels=16, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(cut[key], again[key]) for key in cut)


def test_nothing_changes_without_a_cut_and_the_result_fits_the_network() -> None:
    state = vgg(64, 8)
    assert all(torch.equal(state[key], kept) for key, kept in cut_down(state, kernel=7, channels=64).items())
    model = deeplabv1_vgg16_largefov(num_classes=2, base_channels=1)
    cut = cut_down(state, kernel=3, channels=16)
    for name in ("fc6", "fc7"):
        model.get_submodule(name).load_state_dict({kind: cut[f"{name}.{kind}"] for kind in ("weight", "bias")})


@pytest.mark.parametrize(("kernel", "channels"), [(8, 16), (1, 16), (4, 65), (4, 0)])
def test_cuts_that_cannot_be_made(kernel: int, channels: int) -> None:
    text = (
        rf"kernel={kernel}, channels={channels} of a fc6 with 7 x 7 taps and 64 filters; accepted: kernel from 2 to 7"
    )
    with pytest.raises(RequestError, match=text):
        cut_down(vgg(64, 3), kernel=kernel, channels=channels)
