"""Holds our test-time views to the original: its sliding windows, its mirror images and ours over the same PSPNet.

    git clone https://github.com/hszhao/semseg SEMSEG && git -C SEMSEG checkout 4f274c3
    python tests/weights/semseg_testing.py SEMSEG            # prints the difference
    python tests/weights/semseg_testing.py SEMSEG --golden   # and writes tests/golden/semseg_testing/

Compared are class probabilities at the image's size, of several scales. The original's `scale_process` and
`net_process` (tool/test.py) run as they are, on a CPU; the image is resized by us, which rounds it to 8 bits.
Nothing of the original is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from formula import numbers
from numpy.typing import NDArray
from semseg_parity import DIVIDE, REPOSITORY, build_ours
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.data.normalise import Normalisation, resize_image
from pixelwise.engine.model_file import ModelCard
from pixelwise.engine.predict import Segmenter
from pixelwise.engine.views import Views

GOLDEN = Path(__file__).parents[1] / "golden" / "semseg_testing"
TOLERANCE = 1e-5
CLASSES = 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIEWS = Views(scales=(0.5, 1.0, 1.75), flip=True, window=65, long_side=90)  # 1, 2 x 2, 3 x 4 windows


def picture() -> NDArray[np.uint8]:
    """Return an image (60, 75, 3) of 20 x 25 squares."""
    values = (numbers("picture", (20, 25, 3)) * 127 + 128).astype(np.uint8)
    return values.repeat(3, axis=0).repeat(3, axis=1)


def segmenter() -> Segmenter:
    model = build_ours(50, divide=DIVIDE, classes=CLASSES).eval()
    card = ModelCard(
        pixelwise="0",
        model="pspnet_resnet50",
        options={"base_channels": 64 // DIVIDE},
        num_classes=CLASSES,
        in_channels=3,
        classes=tuple("abcde"),
        palette=((0, 0, 0),) * CLASSES,
        ignore_index=None,
        normalisation=Normalisation(intensity_range=(0, 255), mean=MEAN, std=STD),
        scale=1.0,
        input_rule="",
        licence=None,
        iteration=0,
        metrics={},
    )
    return Segmenter(model=model, card=card)


def run_ours() -> NDArray[np.float32]:
    """Return probabilities (H, W, K)."""
    return segmenter().view(picture(), VIEWS).probabilities.permute(1, 2, 0).numpy()


class Logits(nn.Module):
    """Our network as the original calls its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


def run_original(folder: Path) -> NDArray[np.float32]:
    """Return what `test` of the original takes the largest class of, (H, W, K)."""
    text = (folder / "tool" / "test.py").read_text()
    text = text[text.index("def net_process") : text.index("def test(")]
    space: dict[str, Any] = {"torch": torch, "np": np, "cv2": cv2, "F": functional}
    exec(compile(text.replace(".cuda()", ""), "test.py", "exec"), space)
    network, image = Logits(segmenter().model), picture()
    mean, std = ([255 * value for value in values] for values in (MEAN, STD))
    height, width = image.shape[:2]
    total = np.zeros((height, width, CLASSES))
    for factor in VIEWS.factors((height, width), 1.0):
        scaled = resize_image(image, factor).astype(np.float32)
        total += space["scale_process"](network, scaled, CLASSES, VIEWS.window, VIEWS.window, height, width, mean, std)
    return (total / len(VIEWS.scales)).astype(np.float32)


def sample(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keep 8 x 8 pixels, corners included."""
    rows, columns = (np.linspace(0, side - 1, 8).round().astype(int) for side in probabilities.shape[:2])
    return probabilities[rows][:, columns]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--golden", action="store_true")
    given = parser.parse_args()
    wanted = run_original(given.folder)
    off = float(np.abs(run_ours() - wanted).max())
    print(f"probabilities from {wanted.min():.2g} to {wanted.max():.2g}: {off:.1e}")
    if off > TOLERANCE:
        sys.exit(f"these are not the original's: > {TOLERANCE:g}")
    if given.golden:
        GOLDEN.mkdir(parents=True, exist_ok=True)
        np.save(GOLDEN / "probabilities.npy", sample(wanted))
        about = {
            "repository": REPOSITORY,
            "command": "python tests/weights/semseg_testing.py SEMSEG --golden",
            "engine": f"PyTorch {torch.__version__}, OpenCV {cv2.__version__}",
            "tolerance": TOLERANCE,
            "why": "float32; the original adds up in float64 and interpolates with OpenCV",
            "measured": f"{off:.1e}",
        }
        (GOLDEN / "about.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
