"""A classifier as a fully convolutional network (J. Long, E. Shelhamer, T. Darrell, CVPR 2015, section 3.1).

A fully connected layer that sees a map of C x k x k numbers is a convolution with a k x k window; the weights
stay the same numbers in the same order. On the classifier's own input size the network gives one position
with the classifier's logits, on larger images a heat map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.layers.fully_connected import FullyConnected2d


def as_kernel(weight: Tensor, window: int) -> Tensor:
    """Return the weight (out, C * window * window) of a fully connected layer as (out, C, window, window).

    Args:
        weight: its inputs were flattened in the order channel, row, column.
        window: side of the map that the layer sees: 7 for fc6 of VGG-16, 6 for AlexNet, 1 for later layers.

    Raises:
        RequestError: if the inputs are no whole number of such maps.

    >>> import torch
    >>> as_kernel(torch.zeros(4096, 25088), 7).shape
    torch.Size([4096, 512, 7, 7])
    """
    if weight.ndim != 2 or weight.shape[1] % window**2:
        raise RequestError(
            f"weight has shape {tuple(weight.shape)}; accepted: (outputs, a multiple of {window**2}) for a layer over "
            f"{window} x {window} cells. Give the side of the map that this layer sees."
        )
    return weight.reshape(weight.shape[0], -1, window, window)


def convolutionalise(layer: nn.Linear, window: int) -> FullyConnected2d:
    """Return a fully connected layer as a convolution with copies of its parameters; `as_kernel` says how."""
    kernel = as_kernel(layer.weight.detach(), window).clone()
    with torch.device("meta"):
        convolution = FullyConnected2d(kernel.shape[1], kernel.shape[0], window, bias=layer.bias is not None)
    convolution.weight = nn.Parameter(kernel)
    if layer.bias is not None:
        convolution.bias = nn.Parameter(layer.bias.detach().clone())
    return convolution


def heat_map_network(
    features: nn.Module, head: nn.Sequential, *, window: int, num_classes: int | None = None
) -> nn.Sequential:
    """Turn a classifier into a network from images of any size to a map of scores.

    Args:
        features: from images to the map that the head sees.
        head: the layers behind the map, the class layer last.
        window: side of the map at the classifier's own input size.
        num_classes: None keeps the class layer as a 1x1 convolution; a number removes it and adds a 1x1 score
            layer for so many classes, which starts at zero.

    Returns:
        The features, shared with the classifier, and a head of convolutions with copied weights.
    """
    layers: list[nn.Module] = []
    for layer in head:
        layers.append(convolutionalise(layer, window) if isinstance(layer, nn.Linear) else layer)
        window = 1 if isinstance(layer, nn.Linear) else window
    if num_classes is not None:
        last = layers[-1]
        assert isinstance(last, nn.Conv2d)
        score = nn.Conv2d(last.in_channels, num_classes, 1)
        for parameter in score.parameters():
            nn.init.zeros_(parameter)
        layers[-1] = score
    return nn.Sequential(features, *layers)
