"""Fully connected layers as convolutions, exactly; classifiers as networks to heat maps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pixelwise.backbones.alexnet import AlexNet, CaffeNet
from pixelwise.backbones.convolutionalise import as_kernel, convolutionalise
from pixelwise.backbones.googlenet import CAFFE, TORCHVISION, GoogLeNet
from pixelwise.backbones.vgg import VGG16
from pixelwise.errors import RequestError

Classifier = VGG16 | AlexNet | CaffeNet | GoogLeNet

# Builder at a small width, its own input side, and a side that gives a 3 x 2 heat map with its width.
CLASSIFIERS: dict[str, tuple[Callable[[], Classifier], int, tuple[int, int]]] = {
    "vgg16": (lambda: VGG16(num_classes=10, base_channels=2), 224, (288, 256)),
    "alexnet": (lambda: AlexNet(num_classes=10, base_channels=4), 224, (288, 256)),
    "caffenet": (lambda: CaffeNet(num_classes=10, base_channels=6), 227, (291, 259)),
    "googlenet_caffe": (lambda: GoogLeNet(style=CAFFE, num_classes=10, base_channels=8), 224, (288, 256)),
    "googlenet_torchvision": (lambda: GoogLeNet(style=TORCHVISION, num_classes=10, base_channels=8), 224, (288, 256)),
}
every_classifier = pytest.mark.parametrize("name", CLASSIFIERS)


def build(name: str) -> Classifier:
    torch.manual_seed(0)
    model = CLASSIFIERS[name][0]().eval()
    for layer in model.modules():  # biases that matter
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.normal_(layer.bias, std=0.1)
    return model


def image(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@every_classifier
def test_heat_map_network_gives_the_classifiers_logits(name: str) -> None:
    model = build(name)
    side = CLASSIFIERS[name][1]
    x = image(side, side)
    with torch.no_grad():
        logits, heat = model(x), model.convolutional().eval()(x)
    assert heat.shape == (1, 10, 1, 1)
    assert float(logits.std()) > 1e-3
    torch.testing.assert_close(heat[:, :, 0, 0], logits, rtol=1e-5, atol=1e-5 * float(logits.abs().max()))


@every_classifier
def test_larger_images_give_a_heat_map_of_the_windows(name: str) -> None:
    """A cell of the map is what the classifier says of its window, but for zeros around a window."""
    model = build(name)
    height, width = CLASSIFIERS[name][2]
    with torch.no_grad():
        heat = model.convolutional().eval()(image(height, width))
    assert heat.shape == (1, 10, 3, 2)
    assert float(heat.std(dim=(2, 3)).min()) > 0


def test_unpadded_network_gives_exactly_the_classifier_of_each_window() -> None:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2))
    linear = nn.Linear(2 * 3 * 3, 4)
    network = nn.Sequential(features, convolutionalise(linear, 3))
    x = torch.randn(1, 1, 21, 17)
    heat = network(x)
    assert heat.shape == (1, 4, 3, 2)
    for row in range(3):
        for column in range(2):
            window = x[:, :, 4 * row : 4 * row + 13, 4 * column : 4 * column + 13]
            torch.testing.assert_close(heat[0, :, row, column], linear(features(window).flatten(1))[0])


@every_classifier
def test_class_layer_gives_way_to_a_score_layer_of_zeros(name: str) -> None:
    model = build(name)
    network = model.convolutional(num_classes=21)
    assert not [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    score = network[-1]
    assert isinstance(score, nn.Conv2d)
    assert (score.out_channels, score.kernel_size) == (21, (1, 1))
    assert not any(parameter.any() for parameter in score.parameters())
    classes = sum(p.numel() for p in list(model.parameters())[-2:])
    counts = [sum(p.numel() for p in m.parameters()) for m in (network, score, model)]
    assert counts[0] - counts[1] == counts[2] - classes


def test_kernel_of_fc6_is_the_same_numbers_in_channel_row_column_order() -> None:
    weight = torch.arange(2.0 * 3 * 7 * 7).reshape(2, 147)
    kernel = as_kernel(weight, 7)
    assert kernel.shape == (2, 3, 7, 7)
    assert kernel[1, 2, 3, 4] == 147 + 2 * 49 + 3 * 7 + 4
    assert as_kernel(torch.empty(4096, 25088, device="meta"), 7).shape == (4096, 512, 7, 7)
    assert as_kernel(torch.empty(4096, 9216, device="meta"), 6).shape == (4096, 256, 6, 6)
    assert as_kernel(torch.empty(4096, 4096, device="meta"), 1).shape == (4096, 4096, 1, 1)


def test_convolution_owns_its_numbers() -> None:
    linear = nn.Linear(8, 3, bias=False)
    convolution = convolutionalise(linear, 2)
    assert convolution.bias is None
    with torch.no_grad():
        linear.weight.zero_()
    assert convolution.weight.any()


@pytest.mark.parametrize("shape", [(4, 50), (4, 2, 7, 7)])
def test_weight_that_saw_no_such_map_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match=rf"shape \({shape[0]}, {shape[1]}.*; accepted: \(outputs, a multiple of 49"):
        as_kernel(torch.zeros(shape), 7)
