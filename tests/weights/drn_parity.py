"""Holds our DRN to the original: its networks and ours run with the same weights, which a formula gives.

    git clone https://github.com/fyu/drn DRN && git -C DRN checkout d75db2e
    python tests/weights/drn_parity.py DRN            # all networks at their full width: prints the differences
    python tests/weights/drn_parity.py DRN --golden   # at an eighth of it: writes tests/golden/drn/

The release was written for PyTorch 0.2. Its `drn.py` still runs; of `segment.py`, which has a syntax error today
(`async` as a name), only `DRNSeg` and what it needs are taken, as text. Nothing of the release is kept.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from formula import numbers, weight
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelwise.models import create_model, list_models

REPOSITORY = "fyu/drn d75db2ee7070426db7a9264ee61cf489f8cf178c"
GOLDEN = Path(__file__).parents[1] / "golden" / "drn"
TOLERANCE = 1e-5  # of the largest value
NAMES = [name for name in list_models() if name.startswith("drn")]
DIVIDE = 8  # of all widths, for the golden tensors
CLASSES = {"classification": 10, "semantic": 5}
SIZES = {"classification": (224, 224), "semantic": (72, 104)}  # the original takes no other for classification


def task_of(name: str) -> str:
    return "semantic" if name.startswith("drnseg") else "classification"


def fill(model: nn.Module) -> None:
    """Fill parameters and statistics by the formula; the fixed upsampling is left as its own code makes it."""
    state = {}
    for key, value in model.state_dict().items():
        if key in ("up.weight",) or value.ndim == 0:
            continue
        shape = tuple(value.shape)
        if value.ndim > 1:
            filled = weight(key, shape)
        elif key.endswith(("running_var", "weight")):
            filled = np.float32(1) + numbers(key, shape) / np.float32(2)
        else:
            filled = numbers(key, shape) * np.float32(0.3)
        state[key] = torch.from_numpy(filled)
    model.load_state_dict(state, strict=False)


def picture(name: str) -> Tensor:
    return torch.from_numpy(numbers("image", (2, 3, *SIZES[task_of(name)])))


def build_ours(name: str, *, divide: int, classes: int) -> nn.Module:
    base = 64 if name.removeprefix("drnseg_").removeprefix("drn_").startswith("a") else 16
    model = create_model(name, num_classes=classes, base_channels=base // divide)
    fill(model)
    return model


def build_original(folder: Path, name: str, *, divide: int, classes: int) -> nn.Module:
    text = (folder / "drn.py").read_text()
    start = text.index("class DRN_A")
    end = text.index("def drn_a_50")
    narrow = re.sub(r"\b(64|128|256|512)\b", lambda found: str(int(found[0]) // divide), text[start:end])
    channels = "(16, 32, 64, 128, 256, 512, 512, 512)"
    assert channels in text
    narrowed = str(tuple(int(number) // divide for number in channels.strip("()").split(",")))
    text = text[:start].replace(channels, narrowed) + narrow + text[end:]
    drn = types.ModuleType("drn")
    exec(compile(text, "drn.py", "exec"), drn.__dict__)
    # Networks of the paper that the release has the classes for, but no functions.
    drn.drn_a_18 = lambda pretrained=False, **given: drn.DRN_A(drn.BasicBlock, [2, 2, 2, 2], **given)
    drn.drn_a_34 = lambda pretrained=False, **given: drn.DRN_A(drn.BasicBlock, [3, 4, 6, 3], **given)
    drn.drn_b_26 = lambda pretrained=False, **given: with_shortcuts(drn.drn_c_26(**given))
    if task_of(name) == "classification":
        model = drn.__dict__[name](num_classes=classes)
    else:
        segment = (folder / "segment.py").read_text()
        part = segment[segment.index("def fill_up_weights") : segment.index("class SegList")]
        space = {"nn": nn, "torch": torch, "math": __import__("math"), "drn": drn}
        exec(compile(part, "segment.py", "exec"), space)
        model = space["DRNSeg"](name.replace("drnseg", "drn"), classes, pretrained=False)
    fill(model)
    return model


def with_shortcuts(model: Any) -> Any:
    """Turn the release's DRN-C into the paper's DRN-B."""
    for level in (model.layer7, model.layer8):
        for block in level:
            block.residual = True
    return model


def run_original(model: nn.Module, images: Tensor) -> Tensor:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # LogSoftmax without an axis
        out = model(images)
    return out[0] if isinstance(out, tuple) else out


def run_ours(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(images).logits
    return logits.log_softmax(dim=1) if logits.ndim == 4 else logits


def sample(output: Tensor, side: int = 6) -> NDArray[np.float32]:
    """Keep the numbers of both images, of pixels about side x side, corners included."""
    found: NDArray[np.float32] = output.numpy()
    if found.ndim == 4:
        rows, columns = (np.linspace(0, length - 1, side).round().astype(int) for length in found.shape[2:])
        found = found[:, :, rows][:, :, :, columns]
    return found


def difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return the largest difference, relative to the largest wanted value."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def compare(folder: Path, name: str, *, divide: int, classes: int) -> tuple[float, float, Tensor]:
    """Return the differences in evaluation and in training, and the original's output in evaluation."""
    original = build_original(folder, name, divide=divide, classes=classes)
    ours = build_ours(name, divide=divide, classes=classes)
    assert list(original.state_dict()) == list(ours.state_dict()), f"{name}: other names or another order"
    images, off = picture(name), []
    wanted = run_original(original.eval(), images)
    for mode in (False, True):
        theirs = run_original(original.train(mode), images).numpy()
        off.append(difference(run_ours(ours.train(mode), images).numpy(), theirs))
    return off[0], off[1], wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--golden", action="store_true")
    given = parser.parse_args()
    measured = {}
    for name in NAMES:
        classes = CLASSES[task_of(name)]
        if not given.golden:
            classes = 1000 if task_of(name) == "classification" else 19
        evaluation, training, wanted = compare(
            given.folder, name, divide=DIVIDE if given.golden else 1, classes=classes
        )
        print(f"{name}: {evaluation:.1e} in evaluation, {training:.1e} in training, of {wanted.abs().max():g}")
        if max(evaluation, training) > TOLERANCE:
            sys.exit(f"{name} is not the original: > {TOLERANCE:g}")
        measured[name] = f"{evaluation:.1e}"
        if given.golden:
            GOLDEN.mkdir(parents=True, exist_ok=True)
            np.save(GOLDEN / f"{name}.npy", sample(wanted))
    if given.golden:
        about = {
            "repository": REPOSITORY,
            "command": "python tests/weights/drn_parity.py DRN --golden",
            "engine": f"PyTorch {torch.__version__}",
            "widths": f"an eighth of the original's (base_channels {64 // DIVIDE} and {16 // DIVIDE})",
            "tolerance": TOLERANCE,
            "why": "float32; the same operations in another order, and other versions of them",
            "measured": measured,
        }
        (GOLDEN / "about.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
