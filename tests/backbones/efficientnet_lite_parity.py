"""Golden logits of EfficientNet-Lite0: the PyPI package efficientnet-lite-pytorch with weights by a formula.

    pip install --no-deps --target /tmp/lite efficientnet-lite-pytorch==0.1.0
    PYTHONPATH=/tmp/lite .venv/bin/python tests/backbones/efficientnet_lite_parity.py

writes tests/golden/efficientnet_lite/lite0.json. The package is not needed for the tests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "weights"))
from formula import numbers, weight

GOLDEN = Path(__file__).parents[1] / "golden/efficientnet_lite/lite0.json"
NUM_CLASSES = 7
SIDES = ((64, 96), (128, 64))  # multiples of 32, where the two pad alike


def fill(model: nn.Module) -> None:
    """Give every tensor numbers that depend on its name, which is the same in the original but for underscores."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        plain = name.removeprefix("encoder.").removeprefix("_").replace("._", ".")
        tensors[name] = torch.from_numpy(values(plain, tuple(tensor.shape))).to(tensor.dtype)
    model.load_state_dict(tensors)


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    if len(shape) > 1:
        return weight(name, shape)
    if kind in ("weight", "running_var"):
        return 1 + 0.3 * numbers(name, shape)
    return 0.1 * numbers(name, shape)


def images(height: int, width: int) -> Tensor:
    return torch.from_numpy(numbers("image", (2, 3, height, width)))


def logits(model: nn.Module) -> list[list[list[float]]]:
    with torch.no_grad():
        outputs = [model.eval()(images(*side)) for side in SIDES]
    return [getattr(output, "logits", output).tolist() for output in outputs]


if __name__ == "__main__":
    from efficientnet_lite_pytorch import EfficientNet

    original = EfficientNet.from_name("efficientnet-lite0", num_classes=NUM_CLASSES)
    fill(original)
    about = {
        "source": "PyPI efficientnet-lite-pytorch 0.1.0, EfficientNet.from_name('efficientnet-lite0'), Apache-2.0",
        "command": "tests/backbones/efficientnet_lite_parity.py",
        "tolerance": "1e-5 of the largest logit: float32, another order of sums",
        "logits": logits(original),
    }
    GOLDEN.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
