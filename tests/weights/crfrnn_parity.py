"""Holds our CRF-RNN to its authors' code for PyTorch: network, layer and gradients, with weights that a formula gives.

    git clone https://github.com/sadeepj/crfasrnn_pytorch PORT && git -C PORT checkout 24899c5
    python tests/weights/crfrnn_parity.py PORT            # prints the differences, at full width as well
    python tests/weights/crfrnn_parity.py PORT --golden   # at a sixteenth of it: writes tests/golden/crfrnn/

The port's lattice is C++, which is compiled here (a compiler and ninja are needed). The port has a compatibility of the
opposite sign, which it adds. Nothing of it is kept.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from formula import numbers, weight
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelwise.models import create_model

REPOSITORY = "sadeepj/crfasrnn_pytorch 24899c528981dfbc14f1212869a3eae328dc6570"
GOLDEN = Path(__file__).parents[1] / "golden" / "crfrnn"
NAME = "crfrnn_fcn8s_vgg16"
TOLERANCE = 5e-5  # of the largest value; ten iterations amplify the rounding of a filter, 3e-6
# The port fills points up to a multiple of four with zeros, which lie at the mean colour: a size without a rest.
GRADIENTS = 1e-3  # likewise: another processor's convolutions, 1e-6 off, move them by 4e-4
CLASSES, SIZE, DIVIDE = 5, (60, 84), 16
LEARNT = ("spatial", "bilateral", "compatibility")


def fill(model: nn.Module) -> dict[str, Tensor]:
    """Fill a network of ours by the formula, but for the fixed upsampling; return its state."""
    state = model.state_dict()
    for key, value in state.items():
        shape = tuple(value.shape)
        if key.startswith("crf."):
            value += torch.from_numpy(numbers(key, shape)) * 0.3
        elif key.startswith("up") and len(shape) == 4 and shape[1] > 1:
            value += torch.from_numpy(numbers(key, shape)) * 0.05
        elif not key.startswith("up") or key.endswith("bias"):
            filled = weight(key, shape) if len(shape) > 1 else numbers(key, shape) * np.float32(0.3)
            state[key] = torch.from_numpy(filled) * (0.05 if key.startswith("score") else 1)  # so that classes compete
    model.load_state_dict(state)
    return state


def picture() -> Tensor:
    """Return an image as the network sees it, R, G, B: smooth whole numbers of 0..255 less a mean, (1, 3, H, W)."""
    grid = torch.from_numpy(numbers("colours", (1, 3, 7, 9))).double()
    smooth = nn.functional.interpolate(grid, size=SIZE, mode="bilinear", align_corners=True)
    return (110 * smooth + 128).round().float() - torch.tensor([122.67892, 116.66877, 104.00699])[:, None, None]


def probe() -> Tensor:
    return torch.from_numpy(numbers("probe", (1, CLASSES, *SIZE)))


def build_ours(*, divide: int) -> nn.Module:
    model = create_model(NAME, num_classes=CLASSES, base_channels=64 // divide)
    fill(model)
    return model


def run_ours(model: nn.Module) -> tuple[Tensor, list[Tensor]]:
    """Return logits in evaluation, and in training without dropout the gradients of what the CRF learns."""
    with torch.no_grad():
        logits = model.eval()(picture()).logits
    model.crf.train()  # type: ignore[union-attr]
    model.zero_grad()
    (model(picture()).logits * probe()).sum().backward()
    gradients = [model.get_parameter(f"crf.{name}.weight").grad for name in LEARNT]
    return logits, [gradient for gradient in gradients if gradient is not None]


def load_original(folder: Path, *, divide: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return the port's FCN-8s, at a part of its width, and its CRF-RNN for evaluation and for training."""
    from torch.utils.cpp_extension import load

    package = folder / "crfasrnn"
    sources = [str(package / name) for name in ("permuto.cpp", "permutohedral.cpp")]
    sys.modules["permuto_cpp"] = load("permuto_cpp", sources)
    sys.path.insert(0, str(folder))
    crf: Any = __import__("crfasrnn.crfrnn", fromlist=["CrfRnn"])
    text = (package / "fcn8s.py").read_text()
    narrow = re.sub(r"\b(64|128|256|512|4096)\b", lambda found: str(int(found[0]) // divide), text)
    fcn8s = types.ModuleType("fcn8s")
    exec(compile(narrow, "fcn8s.py", "exec"), fcn8s.__dict__)
    return fcn8s.Fcn8s(CLASSES), crf.CrfRnn(CLASSES, 10), crf.CrfRnn(CLASSES, 5)


def fill_port(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights as the port's state dict has them: blue first, a dense last upsampling, the CRF's names."""
    state = {key: value.clone() for key, value in ours.items() if not key.startswith("crf.")}
    state["conv1_1.weight"] = state["conv1_1.weight"].flip(1)
    state["upscore8.weight"] = torch.diag_embed(state["upscore8.weight"][:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)
    state["crfrnn.spatial_ker_weights"] = ours["crf.spatial.weight"].clone()
    state["crfrnn.bilateral_ker_weights"] = ours["crf.bilateral.weight"].clone()
    state["crfrnn.compatibility_matrix"] = -ours["crf.compatibility.weight"]
    return state


def fill_original(front: nn.Module, layers: tuple[nn.Module, ...], ours: dict[str, Tensor]) -> None:
    """Give the port our weights."""
    state = fill_port(ours)
    front.load_state_dict({key: value for key, value in state.items() if not key.startswith("crfrnn.")})
    for layer in layers:
        layer.load_state_dict({key.removeprefix("crfrnn."): state[key] for key in state if key.startswith("crfrnn.")})


def run_original(folder: Path, ours: dict[str, Tensor], *, divide: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the port's scores before the CRF, its logits, and the gradients of what the CRF learns."""
    front, testing, training = load_original(folder, divide=divide)
    fill_original(front, (testing, training), ours)
    images = picture().flip(1)
    with torch.no_grad():
        scores = front.eval()(images)
        logits: Tensor = testing(images, scores)
    (training(images, scores) * probe()).sum().backward()
    parameters = dict(training.named_parameters())
    names = ("spatial_ker_weights", "bilateral_ker_weights", "compatibility_matrix")
    gradients = [gradient for name in names if (gradient := parameters[name].grad) is not None]
    gradients[2] = -gradients[2]
    return scores, logits, gradients


def run_part_by_part(model: nn.Module, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return our scores before the CRF, and what our CRF makes of the port's."""
    seen: list[Tensor] = []
    handle = model.crf.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))  # type: ignore[union-attr]
    with torch.no_grad():
        model.eval()(picture())
        handle.remove()
        return seen[0], model.crf(scores, picture().flip(1))  # type: ignore[operator]


def sample(logits: Tensor) -> NDArray[np.float32]:
    """Keep every seventh pixel."""
    kept: NDArray[np.float32] = logits[:, :, ::7, ::7].numpy()
    return kept


def difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return the largest difference, relative to the largest wanted value."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def compare(folder: Path, *, divide: int) -> tuple[Tensor, list[Tensor], dict[str, str]]:
    """Return what the original gives, and the differences of ours: part by part, and of the whole at the golden width.

    At full width scores differ by 2e-6, and a pixel in 2000 stands between two classes, where ten iterations make
    a thousandth of that: there the whole is only told.
    """
    model = build_ours(divide=divide)
    logits, gradients = run_ours(model)
    scores, wanted, slopes = run_original(folder, model.state_dict(), divide=divide)
    own, refined = run_part_by_part(model, scores)
    whole = difference(logits.numpy(), wanted.numpy())
    off = {"scores": difference(own.numpy(), scores.numpy()), "CRF": difference(refined.numpy(), wanted.numpy())}
    if divide == DIVIDE:
        off["logits"] = whole
    slope_off = {
        f"gradient of {name}": difference(found.numpy(), slope.numpy())
        for name, found, slope in zip(LEARNT, gradients, slopes, strict=True)
    }
    measured = {key: f"{value:.1e}" for key, value in {**off, **slope_off}.items()}
    print(f"1/{divide} of the width: logits up to {wanted.abs().max():g}, differ by {whole:.1e}; {measured}")
    if max(off.values()) > TOLERANCE or max(slope_off.values()) > GRADIENTS:
        sys.exit(f"{NAME} is not the original: > {TOLERANCE:g}")
    return wanted, slopes, measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--golden", action="store_true")
    given = parser.parse_args()
    logits, gradients, measured = compare(given.folder, divide=DIVIDE)
    if not given.golden:
        compare(given.folder, divide=1)
        return
    GOLDEN.mkdir(parents=True, exist_ok=True)
    np.save(GOLDEN / f"{NAME}.npy", sample(logits))
    np.save(GOLDEN / "gradients.npy", torch.stack(gradients).numpy())
    about = {
        "repository": REPOSITORY,
        "command": "python tests/weights/crfrnn_parity.py PORT --golden",
        "engine": f"PyTorch {torch.__version__}, the port's C++ lattice",
        "widths": f"a sixteenth of the original's (base_channels {64 // DIVIDE}), {CLASSES} classes",
        "tolerance": TOLERANCE,
        "tolerance of gradients": GRADIENTS,
        "why": "float32; the same operations in another order, whose rounding ten iterations amplify",
        "measured": measured,
    }
    (GOLDEN / "about.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
