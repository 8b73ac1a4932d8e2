"""Caffe's layers once more, in NumPy and double precision, as an independent reading of the definitions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

Map = NDArray[np.float64]  # (N, C, H, W)


@dataclass
class CaffeLayers:
    """Runs layers by name with the weights of a network of ours, and keeps pooling masks by level."""

    model: nn.Module
    training: bool = False
    masks: dict[str, tuple[NDArray[np.int64], tuple[int, int]]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def weight(self, name: str) -> Map:
        return self.model.get_submodule(name).weight.detach().double().numpy()

    def bias(self, name: str) -> Map:
        bias = self.model.get_submodule(name).bias
        return np.zeros(self.model.get_submodule(name).out_channels) if bias is None else bias.detach().double().numpy()

    def convolution(self, x: Map, name: str, *, pad: int) -> Map:
        weight = self.weight(name)  # (out, in, k, k)
        kernel = weight.shape[2]
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        height, width = (side + 2 * pad - kernel + 1 for side in x.shape[2:])
        out = np.zeros((x.shape[0], weight.shape[0], height, width))
        for dy in range(kernel):
            for dx in range(kernel):
                part = padded[:, :, dy : dy + height, dx : dx + width]
                out += np.einsum("nchw,oc->nohw", part, weight[:, :, dy, dx])
        return out + self.bias(name)[:, None, None]

    def deconvolution(self, x: Map, name: str, *, pad: int) -> Map:
        """Each input value stamps its kernel onto the output; the margin is cut off."""
        weight = self.weight(name)  # (in, out, k, k)
        kernel = weight.shape[2]
        height, width = x.shape[2:]
        out = np.zeros((x.shape[0], weight.shape[1], height + kernel - 1, width + kernel - 1))
        for dy in range(kernel):
            for dx in range(kernel):
                out[:, :, dy : dy + height, dx : dx + width] += np.einsum("nchw,co->nohw", x, weight[:, :, dy, dx])
        return out[:, :, pad : out.shape[2] - pad, pad : out.shape[3] - pad] + self.bias(name)[:, None, None]

    def batch_norm(self, x: Map, name: str, *, eps: float = 1e-9) -> Map:
        layer = self.model.get_submodule(name)
        if self.training:
            mean = x.mean(axis=(0, 2, 3))
            variance = (x**2).mean(axis=(0, 2, 3)) - mean**2
        else:
            mean, variance = layer.running_mean.double().numpy(), layer.running_var.double().numpy()
        scale, shift = self.weight(name), layer.bias.detach().double().numpy()
        normal = (x - mean[:, None, None]) / np.sqrt(variance + eps)[:, None, None]
        return normal * scale[:, None, None] + shift[:, None, None]

    def pool(self, x: Map, level: str) -> Map:
        """The largest value of each 2x2 window, the first of equal ones, and where it was in its channel."""
        height, width = x.shape[2:]
        out = np.full((*x.shape[:2], -(-height // 2), -(-width // 2)), -np.inf)
        mask = np.zeros(out.shape, dtype=np.int64)
        for row in range(height):
            for column in range(width):
                window = (slice(None), slice(None), row // 2, column // 2)
                larger = x[:, :, row, column] > out[window]
                out[window] = np.where(larger, x[:, :, row, column], out[window])
                mask[window] = np.where(larger, row * width + column, mask[window])
        self.masks[level] = (mask, (height, width))
        return out

    def upsample(self, x: Map, level: str) -> Map:
        mask, (height, width) = self.masks[level]
        out = np.zeros((*x.shape[:2], height * width))
        for n, c, row, column in np.ndindex(*x.shape):
            out[n, c, mask[n, c, row, column]] = x[n, c, row, column]
        return out.reshape(*x.shape[:2], height, width)

    def keep(self, name: str, x: Map) -> Map:
        self.shapes[name] = x.shape[1:]
        return x


@pytest.fixture
def caffe() -> type[CaffeLayers]:
    return CaffeLayers


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Fill a network with random weights and statistics, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.weight[:, 0].numel()
            nn.init.normal_(module.weight, std=(2 / fan) ** 0.5, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, std=0.3, generator=generator)
            nn.init.normal_(module.running_mean, std=0.3, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
    return model.double()


@pytest.fixture(name="randomise")
def randomise_fixture() -> object:
    return randomise
