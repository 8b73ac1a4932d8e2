"""Fully connected layers: the matrix product gives the convolution's numbers, and is taken only where it is faster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from pixelwise.layers import fully_connected
from pixelwise.layers.fully_connected import MOST_POSITIONS, FullyConnected2d, FullyConnectedTranspose2d
from pixelwise.models import create_model, model_info

FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Note each layer's decision."""
    decide, noted = fully_connected.by_product, []

    def note(x: Tensor, positions: int) -> bool:
        noted.append(decide(x, positions))
        return noted[-1]

    monkeypatch.setattr(fully_connected, "by_product", note)
    return noted


def both(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute by convolution and as at inference."""
    with torch.no_grad():
        convolved = layer(x)
    with torch.inference_mode():
        return convolved, layer(x)


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("images", FORMATS)
@pytest.mark.parametrize(
    ("window", "padding", "dilation", "size"),
    [
        (7, 0, 1, (7, 7)),
        (7, 0, 1, (9, 12)),
        (7, 3, 1, (1, 5)),
        (1, 0, 1, (3, 4)),
        (7, 12, 4, (3, 5)),
        (4, 6, 4, (8, 5)),
    ],
)
def test_the_product_is_the_convolution(window, padding, dilation, size, images, weights, products) -> None:
    torch.manual_seed(0)
    layer = FullyConnected2d(6, 5, window, padding=padding, dilation=dilation).double().to(memory_format=weights)
    x = torch.randn(2, 6, *size, dtype=torch.float64).contiguous(memory_format=images)
    convolved, product = both(layer, x)
    assert products == [False, True]
    torch.testing.assert_close(product, convolved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weights", FORMATS)
def test_the_transposed_product_is_the_transposed_convolution(weights, products) -> None:
    torch.manual_seed(0)
    layer = FullyConnectedTranspose2d(6, 5, 7).double().to(memory_format=weights)
    convolved, product = both(layer, torch.randn(3, 6, 1, 1, dtype=torch.float64))
    assert products == [False, True]
    torch.testing.assert_close(product, convolved, rtol=0, atol=1e-12)
    assert layer(torch.randn(1, 6, 2, 1, dtype=torch.float64)).shape == (1, 5, 8, 7)


def test_many_positions_are_convolved(products) -> None:
    layer = FullyConnected2d(1, 1, 1)
    with torch.inference_mode():
        layer(torch.zeros(2, 1, 16, MOST_POSITIONS // 32))
        layer(torch.zeros(2, 1, 16, MOST_POSITIONS // 32 + 1))
    assert products == [True, False]


def test_a_map_smaller_than_the_window_is_refused_as_a_convolution_refuses_it() -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input"):
        FullyConnected2d(1, 1, 7)(torch.zeros(1, 1, 5, 5))


def test_gradients_and_half_precision(products) -> None:
    layer = FullyConnected2d(4, 3, 3, padding=1)
    layer(torch.randn(1, 4, 5, 5)).sum().backward()
    assert layer.weight.grad is not None
    convolved, product = both(layer.bfloat16(), torch.randn(1, 4, 5, 5).bfloat16())
    assert products == [False, False, True]
    torch.testing.assert_close(product, convolved, rtol=0.02, atol=0.02)


NETWORKS = ["fcn8s_vgg16", "fcn_alexnet", "deconvnet_vgg16", "dilated_frontend_vgg16", "deeplabv1_vgg16_7x7"]


@pytest.mark.parametrize("name", [*NETWORKS, "hypercolumn_vgg16"])
def test_networks_give_the_same_logits_both_ways(name: str, products) -> None:
    torch.manual_seed(0)
    debug = {**model_info(name).debug, **({"columns": "all_fc7"} if name == "hypercolumn_vgg16" else {})}
    model = create_model(name, num_classes=3, **debug).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    side = model_info(name).input_size[0] if name == "deconvnet_vgg16" else 64
    convolved, product = both(lambda x: model(x).logits, torch.randn(1, 3, side, side))
    layers = 3 if name == "deconvnet_vgg16" else 2
    assert products == [False] * layers + [True] * layers
    torch.testing.assert_close(product, convolved, rtol=1e-4, atol=1e-5 * float(convolved.abs().max()))


def test_an_exported_program_holds_the_convolution() -> None:
    with torch.inference_mode():
        program = torch.export.export(FullyConnected2d(2, 3, 3).eval(), (torch.randn(1, 2, 4, 4),))
    names = {str(node.target) for node in program.graph.nodes}
    assert "aten.conv2d.default" in names
    assert not {"aten.linear.default", "aten.unfold.default"} & names
