"""Holds our PSPNet to the original: its networks and ours run with the same weights, which a formula gives.

    git clone https://github.com/hszhao/semseg SEMSEG && git -C SEMSEG checkout 4f274c3
    python tests/weights/semseg_parity.py SEMSEG            # at full width: prints the differences
    python tests/weights/semseg_parity.py SEMSEG --golden   # at a sixteenth of it: writes tests/golden/semseg/

Compared are the logits in evaluation, and both outputs in training without dropout. Nothing of the original is kept.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import torch
from formula import numbers, weight
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelwise.models import create_model

REPOSITORY = "hszhao/semseg 4f274c3f276778228bc14a4565822d46359f0cc8"
GOLDEN = Path(__file__).parents[1] / "golden" / "semseg"
TOLERANCE = 1e-5  # of the largest value
DEPTHS = (50, 101, 152)
DIVIDE, CLASSES, SIZE = 16, 5, (89, 121)
OUTPUTS = ("evaluation", "training", "training, auxiliary")


def fill(model: nn.Module) -> None:
    """Fill parameters and statistics by the formula; what units add is kept small, so that depth multiplies nothing."""
    state = {}
    for key, value in model.state_dict().items():
        shape = tuple(value.shape)
        if value.ndim > 1:
            state[key] = torch.from_numpy(weight(key, shape))
        elif value.ndim and key.endswith(("running_var", "weight")):
            scale = np.float32(0.2 if key.endswith("bn3.weight") else 1)
            state[key] = torch.from_numpy(scale + numbers(key, shape) * scale / np.float32(2))
        elif value.ndim:
            state[key] = torch.from_numpy(numbers(key, shape) * np.float32(0.3))
    model.load_state_dict(state, strict=False)


def picture() -> Tensor:
    return torch.from_numpy(numbers("image", (2, 3, *SIZE)))


def build_ours(depth: int, *, divide: int, classes: int) -> nn.Module:
    model = create_model(f"pspnet_resnet{depth}", num_classes=classes, base_channels=64 // divide, dropout=0.0)
    fill(model)
    return model


class Keep(nn.Module):
    """Stands for the original's loss and keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.seen.append(logits)
        return labels


def build_original(folder: Path, depth: int, *, divide: int, classes: int) -> nn.Module:
    def load(file: str, **space: object) -> types.ModuleType:
        text = (folder / "model" / file).read_text()
        narrow = re.sub(r"\b(64|128|256|512|1024|2048)\b", lambda found: str(int(found[0]) // divide), text)
        module = types.ModuleType(file)
        module.__dict__.update(space)
        exec(compile(narrow.replace("import model.resnet as models", ""), file, "exec"), module.__dict__)
        return module

    network = load("pspnet.py", models=load("resnet.py")).PSPNet
    model: nn.Module = network(layers=depth, classes=classes, dropout=0.0, pretrained=False, criterion=Keep())
    fill(model)
    return model


@torch.no_grad()
def run_original(model: nn.Module, images: Tensor) -> list[Tensor]:
    evaluated = model.eval()(images)
    model.train()(images, torch.zeros(1))
    return [evaluated, *model.criterion.seen]


@torch.no_grad()
def run_ours(model: nn.Module, images: Tensor) -> list[Tensor]:
    evaluated = model.eval()(images).logits
    trained = model.train()(images)
    return [evaluated, trained.logits, *trained.aux]


def sample(outputs: list[Tensor], side: int = 6) -> NDArray[np.float32]:
    """Keep pixels about side x side of each output, corners included."""
    found: NDArray[np.float32] = torch.stack(outputs).numpy()
    rows, columns = (np.linspace(0, length - 1, side).round().astype(int) for length in found.shape[3:])
    return found[..., rows, :][..., columns]


def difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return the largest difference of an output, relative to its largest value."""
    return max(
        float(np.abs(ours - theirs).max() / np.abs(theirs).max()) for ours, theirs in zip(found, wanted, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--golden", action="store_true")
    given = parser.parse_args()
    divide, classes = (DIVIDE, CLASSES) if given.golden else (1, 150)
    measured = {}
    for depth in DEPTHS:
        name = f"pspnet_resnet{depth}"
        original = build_original(given.folder, depth, divide=divide, classes=classes)
        ours = build_ours(depth, divide=divide, classes=classes)
        assert list(original.state_dict()) == list(ours.state_dict()), f"{name}: other names or another order"
        images = picture()
        wanted = run_original(original, images)
        off = difference(*(torch.stack(each).numpy() for each in (run_ours(ours, images), wanted)))
        print(f"{name}: {off:.1e} of {wanted[0].abs().max():g}")
        if off > TOLERANCE:
            sys.exit(f"{name} is not the original: > {TOLERANCE:g}")
        measured[name] = f"{off:.1e}"
        if given.golden:
            GOLDEN.mkdir(parents=True, exist_ok=True)
            np.save(GOLDEN / f"{name}.npy", sample(wanted))
    if given.golden:
        about = {
            "repository": REPOSITORY,
            "command": "python tests/weights/semseg_parity.py SEMSEG --golden",
            "engine": f"PyTorch {torch.__version__}",
            "widths": f"a sixteenth of the original's (base_channels {64 // DIVIDE})",
            "outputs": OUTPUTS,
            "tolerance": TOLERANCE,
            "why": "float32; the same operations, in other versions of them",
            "measured": measured,
        }
        (GOLDEN / "about.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
