"""Smaller layers out of VGG-16's: DeepLab's start from an ImageNet classifier."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from pixelwise.errors import RequestError


def cut_down(
    state: Mapping[str, Tensor], *, kernel: int, channels: int, generator: Generator | None = None
) -> dict[str, Tensor]:
    """Make fc6 and fc7 of VGG-16 smaller, to start a network of this file from them.

    Args:
        state: VGG-16 as `backbones.vgg.by_layer_name` names it, fc6 (4096, 512, 7, 7) and fc7 (4096, 4096, 1, 1).
        kernel: side k of the new fc6; of 7 taps every second stays for 4, every third for 3.
        channels: filters that stay in either layer, a random subset.
        generator: for the subset.

    Returns:
        `state` with new fc6 and fc7; the inputs of fc7 are the filters of fc6 that stayed.

    Raises:
        RequestError: if the layers have not so many taps or filters.

    Source: section 3.2: decimation of the window, a random subset for 1024 filters.
    """
    weight = state["fc6.weight"]
    filters, _, taps, _ = weight.shape
    if not 2 <= kernel <= taps or not 1 <= channels <= filters:
        raise RequestError(
            f"kernel={kernel}, channels={channels} of a fc6 with {taps} x {taps} taps and {filters} filters; "
            f"accepted: kernel from 2 to {taps}, channels from 1 to {filters}. Give less."
        )
    kept = torch.linspace(0, taps - 1, kernel).round().long()
    first, second = (torch.randperm(filters, generator=generator)[:channels].sort().values for _ in range(2))
    return {
        **state,
        "fc6.weight": weight[first][:, :, kept][:, :, :, kept],
        "fc6.bias": state["fc6.bias"][first],
        "fc7.weight": state["fc7.weight"][second][:, first],
        "fc7.bias": state["fc7.bias"][second],
    }
