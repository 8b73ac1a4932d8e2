"""Fully connected layers as convolutions and as matrix products: where the one is faster and where the other.

    python benchmarks/fully_connected.py

A 7x7 window of 512 channels to 1024, over maps of more and more positions: processor time of one thread, the least of
several passes, which other work on the machine changes little. `layers.fully_connected` takes the product up to
`MOST_POSITIONS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from pixelwise.layers import fully_connected
from pixelwise.layers.fully_connected import MOST_POSITIONS, FullyConnected2d

MAPS = ((1, 1), (3, 3), (7, 7), (12, 16), (16, 32), (20, 30), (30, 40))
PASSES = 5


def seconds(compute: Callable[[], Tensor]) -> float:
    """Return the least processor time of several passes."""
    times = []
    for _ in range(PASSES):
        start = time.thread_time()
        compute()
        times.append(time.thread_time() - start)
    return min(times)


@torch.inference_mode()
def main() -> None:
    """Print both times and their ratio for each map, for weights and images in either memory format."""
    torch.set_num_threads(1)
    print(f"1 thread, torch {torch.__version__}; MOST_POSITIONS is {MOST_POSITIONS}")
    for layout in (torch.channels_last, torch.contiguous_format):
        layer = FullyConnected2d(512, 1024, 7).to(memory_format=layout)
        for height, width in MAPS:
            x = torch.randn(1, 512, height + 6, width + 6).contiguous(memory_format=layout)
            times = {}
            for product in (False, True):
                fully_connected.by_product = lambda *_, product=product: product
                times[product] = seconds(lambda layer=layer, x=x: layer(x))
            print(
                f"{str(layout).removeprefix('torch.'):18}{height * width:6} positions"
                f"{1e3 * times[False]:9.1f} ms convolution{1e3 * times[True]:9.1f} ms product"
                f"   ratio {times[True] / times[False]:.2f}"
            )


if __name__ == "__main__":
    main()
