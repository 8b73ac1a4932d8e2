"""The context network of F. Yu and V. Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016,
https://arxiv.org/abs/1511.07122, section 3 and Table 1.

3x3 convolutions whose dilation doubles see a field that grows exponentially at one resolution: 3, 5, 9, 17, 33, 65,
67, 67 cells after each of the eight layers. A ReLU follows every layer but the last, which is 1x1.

It starts as the identity: with `sigma` 0 it returns relu(x). The noise around that follows the released filler,
which draws N(0, (sigma / m)^2) for a layer of m C channels and then overwrites the identity's entries; the last layer
takes the m of the one before it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from pixelwise.errors import RequestError

ContextPadding = Literal["layers", "first"]


def context_basic(
    num_classes: int, *, layers: int = 8, padding: ContextPadding = "layers", sigma: float = 0.01
) -> nn.Sequential:
    """Build the basic module: C channels throughout, about 64 C^2 parameters for eight layers.

    Args:
        num_classes: C, channels of the score map that comes in and of the one that goes out.
        layers: 8, or 7 without dilation 16, or 10 with 32 and 64 after it.
        padding: "layers" pads every layer by its dilation; "first" pads the sum of them before the first layer, as
            the released VOC network does. They differ near the border.
        sigma: noise of the initialisation.

    Returns:
        A module from (N, C, h, w) to (N, C, h, w); its layers are called `ctx_conv1_1` to `ctx_final`.

    Raises:
        RequestError: for fewer than four layers, a negative sigma or an unknown padding.
    """
    return _context(num_classes, layers, large=False, padding=padding, sigma=sigma)


def context_large(
    num_classes: int, *, layers: int = 8, padding: ContextPadding = "first", sigma: float = 0.01
) -> nn.Sequential:
    """Build the large module: 2C, 2C, 4C, 8C, 16C, 32C, 32C and C channels for eight layers.

    Arguments, result and errors are those of `context_basic`.
    """
    return _context(num_classes, layers, large=True, padding=padding, sigma=sigma)


def _context(num_classes: int, layers: int, *, large: bool, padding: ContextPadding, sigma: float) -> nn.Sequential:
    """Build either module."""
    if layers < 4 or num_classes < 1:
        raise RequestError(
            f"context of {layers} layers for {num_classes} classes; accepted: from 4 layers (the paper's: 7, 8, 10) "
            "and from 1 class."
        )
    if sigma < 0:
        raise RequestError(f"sigma={sigma}; accepted: from 0 (the released noise is 0.01).")
    if padding not in ("layers", "first"):
        raise RequestError(f"context padding={padding!r}; accepted: 'layers' or 'first'.")
    blocks = layers - 4
    names = ["conv1_1", "conv1_2", *(f"conv{block}_1" for block in range(2, blocks + 2)), "fc1", "final"]
    doubled = [2**block for block in range(1, blocks + 1)]
    dilations = [1, 1, *doubled, 1, 0]  # 0: the last layer is 1x1
    widths = [2, 2, *(2 * rate for rate in doubled), 2 ** (blocks + 1), 1] if large else [1] * layers
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    source = 1
    for name, width, dilation in zip(names, widths, dilations, strict=True):
        first = sum(dilations) if name == "conv1_1" else 0
        convolution = nn.Conv2d(
            source * num_classes,
            width * num_classes,
            3 if dilation else 1,
            padding=dilation if padding == "layers" else first,
            dilation=max(dilation, 1),
        )
        begin_as_identity(convolution, num_classes, std=sigma / max(source, width))
        modules[f"ctx_{name}"] = convolution
        if name != "final":
            modules[f"ctx_{name}_relu"] = nn.ReLU(inplace=True)
        source = width
    return nn.Sequential(modules)


@torch.no_grad()
def begin_as_identity(convolution: nn.Conv2d, num_classes: int, *, std: float) -> None:
    """Set a convolution to pass each class on, spread over the channels of that class, in N(0, std^2) noise.

    Channels belong to classes in equal runs. The centre tap from a class's inputs to its outputs is C / outputs,
    everything else is noise; the bias is 0.

    Source: section 3, the equations of the basic and the large initialisation; `IdentityFiller` of
    fyu/caffe-dilation.
    """
    weight = convolution.weight
    outputs, inputs = weight.shape[:2]
    weight.normal_(0, std) if std else weight.zero_()
    class_of_output = torch.arange(outputs, device=weight.device) * num_classes // outputs
    class_of_input = torch.arange(inputs, device=weight.device) * num_classes // inputs
    same: Tensor = class_of_output[:, None] == class_of_input[None, :]
    middle = weight.shape[-1] // 2
    weight[:, :, middle, middle] = weight[:, :, middle, middle].masked_fill(same, num_classes / outputs)
    assert convolution.bias is not None
    convolution.bias.zero_()
