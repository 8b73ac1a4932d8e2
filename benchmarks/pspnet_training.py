"""Training of `pspnet_resnet50` against hszhao/semseg's: memory and seconds a step, 473 x 473, both losses, SGD.

    git clone https://github.com/hszhao/semseg SEMSEG && git -C SEMSEG checkout 4f274c3
    python benchmarks/pspnet_training.py SEMSEG [--batch 2] [--side 473] [--steps 3] [--rounds 2] [--threads 1]

Each measurement is a process of its own: the peak of its resident memory, less what it had before the network was
built, and the least CPU time of a step, the first left out. Resident memory varies by some per cent between runs; what
the forward pass keeps for the backward pass, counted in the first step, does not. The networks take turns. Weights and
images are the same random ones, and so are the losses, which are compared. Ours has the memory format in which
`pixelwise train` trains it. A ratio below 1 means less than the original's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.engine.memory_format import training_format
from pixelwise.models import create_model

CLASSES, AUX_WEIGHT = 150, 0.4
NAMES = ("semseg", "ours")
Losses = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def original(folder: Path) -> tuple[nn.Module, Losses]:
    """Build the original, which computes its losses itself."""
    sys.path.insert(0, str(folder))
    from model.pspnet import PSPNet

    model = PSPNet(layers=50, classes=CLASSES, pretrained=False)

    def losses(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        _, main, aux = model(images, labels)
        return main, aux

    return model, losses


def ours() -> tuple[nn.Module, Losses]:
    """Build our network and the same two losses."""
    model = create_model("pspnet_resnet50", num_classes=CLASSES)

    def losses(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits, (aux,) = model(images)
        return (
            functional.cross_entropy(logits, labels, ignore_index=255),
            functional.cross_entropy(aux, labels, ignore_index=255),
        )

    return model, losses


def peak() -> float:
    """Return the largest resident memory so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def keeping(losses: Losses, images: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], float]:
    """Return the losses and the memory that is kept for the backward pass, parameters included, MB."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = losses(images, labels)
    return found, sum(kept.values()) / 2**20


def measure(given: argparse.Namespace) -> None:
    """Train a few steps and print what they took."""
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    before = peak()
    model, losses = original(given.semseg) if given.measure == "semseg" else ours()
    layout = torch.contiguous_format if given.measure == "semseg" else training_format(model, "cpu")
    model.train().to(memory_format=layout)
    torch.manual_seed(1)
    for parameter in model.parameters():  # the same names in the same order
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(given.batch, 3, given.side, given.side).contiguous(memory_format=layout)
    labels = torch.randint(0, CLASSES, (given.batch, given.side, given.side))
    seconds, values, kept = [], [], 0.0
    for step in range(given.steps + 1):
        start = time.process_time()
        if step == 0:
            (main, aux), kept = keeping(losses, images, labels)
        else:
            main, aux = losses(images, labels)
        loss = main + AUX_WEIGHT * aux
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.process_time() - start)
        values.append(loss.item())
    print(json.dumps({"seconds": min(seconds[1:]), "megabytes": peak() - before, "kept": kept, "loss": values[0]}))


def main() -> None:
    """Measure all in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("semseg", type=Path, help="a checkout of hszhao/semseg")
    for name, number in (("batch", 2), ("side", 473), ("steps", 3), ("rounds", 2), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--measure", choices=NAMES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given)
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    for _ in range(given.rounds):
        for name in NAMES:
            command = [sys.executable, __file__, *sys.argv[1:], "--measure", name]
            found[name].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    print(f"{given.threads} threads, torch {torch.__version__}, {given.batch} x 3 x {given.side} x {given.side}")
    best = {name: {key: min(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}
    for name in NAMES:
        row, peer = best[name], best["semseg"]
        print(
            f"{name:15}{row['seconds']:8.2f} s a step, ratio {row['seconds'] / peer['seconds']:.3f}"
            f"{row['megabytes']:8.0f} MB, ratio {row['megabytes'] / peer['megabytes']:.3f}"
            f"{row['kept']:8.0f} MB kept, ratio {row['kept'] / peer['kept']:.4f}   loss {row['loss']:.4f}"
        )


if __name__ == "__main__":
    main()
