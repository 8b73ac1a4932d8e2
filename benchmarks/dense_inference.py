"""Inference of the VGG generation against torchvision's FCN, per operation: one image of 500 x 375, all cores.

    python benchmarks/dense_inference.py

The networks differ, so that seconds are divided by counted operations (a multiply-add is two), in the same process, in
turn, random weights. The least of several passes counts: it is the one that other work on the machine disturbed least.
A ratio below 1 means fewer seconds per operation than torchvision's.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pixelwise.models import create_model

SIZE = (375, 500)
PASSES = 5
PEER = "torchvision fcn_resnet50"
OURS = ("fcn8s_vgg16", "deeplabv1_vgg16_largefov")


def peer() -> nn.Module:
    """Build torchvision's FCN, which is another network than the paper's."""
    from torchvision.models.segmentation import fcn_resnet50

    model: nn.Module = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21)
    return model


def operations(model: nn.Module, image: Tensor) -> int:
    """Count the operations of one pass."""
    with FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops())


@torch.inference_mode()
def main() -> None:
    """Measure all networks in turn and print seconds, operations and the ratio to the peer."""
    models = {PEER: peer(), **{name: create_model(name, num_classes=21) for name in OURS}}
    image = torch.randn(1, 3, *SIZE)
    given = {name: image if name == PEER else image.contiguous(memory_format=torch.channels_last) for name in models}
    for name, model in models.items():
        model.eval()
        if name != PEER:
            model.to(memory_format=torch.channels_last)  # as predict runs it
    counts = {name: operations(model, given[name]) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(PASSES):
        for name, model in models.items():
            start = time.perf_counter()
            model(given[name])
            seconds[name].append(time.perf_counter() - start)
    speeds = {name: min(seconds[name]) / counts[name] for name in models}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {SIZE[1]} x {SIZE[0]}")
    for name in models:
        print(
            f"{name:28}{min(seconds[name]):8.2f} s{counts[name] / 1e9:9.1f} G operations"
            f"{1e12 * speeds[name]:8.2f} s per 10^12   ratio {speeds[name] / speeds[PEER]:.2f}"
        )


if __name__ == "__main__":
    main()
