"""Anchored interpolation against the sizes of Caffe's layer and a loop over neighbours."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pixelwise.layers.zoom import pad_to_grid, zoom


def by_neighbours(x: Tensor, factor: int, height: int, width: int) -> Tensor:
    """Interpolate between the cells floor(p / z) and floor(p / z) + 1, one pixel at a time."""
    out = torch.empty(*x.shape[:2], height, width, dtype=x.dtype)
    for row in range(height):
        for column in range(width):
            top, down = divmod(row, factor)
            left, across = divmod(column, factor)
            bottom, right = min(top + 1, x.shape[2] - 1), min(left + 1, x.shape[3] - 1)
            above = x[:, :, top, left] * (factor - across) + x[:, :, top, right] * across
            below = x[:, :, bottom, left] * (factor - across) + x[:, :, bottom, right] * across
            out[:, :, row, column] = (above * (factor - down) + below * down) / factor**2
    return out


@pytest.mark.parametrize(
    ("cells", "factor", "pixels"), [(41, 8, 321), (65, 8, 513), (67, 8, 529), (1, 8, 1), (5, 1, 5)]
)
def test_sizes_of_the_interp_layer(cells: int, factor: int, pixels: int) -> None:
    """41 -> 321 and 65 -> 513 of LargeFOV, 67 -> 529 of the 4x4 network: in + (in - 1) (z - 1)."""
    assert zoom(torch.zeros(1, 1, cells, cells + 2), factor).shape == (1, 1, pixels, pixels + 2 * factor)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_interpolation_is_that_of_the_two_neighbours(factor: int) -> None:
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = zoom(x, factor)
    torch.testing.assert_close(whole, by_neighbours(x, factor, whole.shape[2], whole.shape[3]))
    torch.testing.assert_close(whole[:, :, ::factor, ::factor], x)


def test_a_window_is_cut_out_of_the_whole() -> None:
    x = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(zoom(x, 8, size=(20, 10), offset=7), zoom(x, 8)[:, :, 7:27, 7:17])


def test_padding_puts_the_last_pixel_on_a_cell() -> None:
    images = torch.ones(2, 3, 40, 33)
    padded = pad_to_grid(images, 8)
    assert padded.shape == (2, 3, 41, 33)
    assert torch.equal(padded[:, :, :40], images)
    assert not padded[:, :, 40:].any()
    assert pad_to_grid(padded, 8) is padded
