"""Holds our networks to the originals: an original definition runs in OpenCV, the same weights in ours.

Two steps in two environments, since OpenCV 5 no longer reads Caffe's files (see docs/parity.md):

    python tests/weights/caffe_parity.py original NAME FILE.prototxt WORK   # needs numpy and OpenCV 4
    python tests/weights/caffe_parity.py ours NAME WORK [--golden]          # needs this package

The first fills the definition with weights by a formula (`formula.py`), writes them as WORK/net.caffemodel and runs
the network. The second imports that file, runs our model, compares, and with --golden keeps a few numbers and what is
needed to make the weights again in tests/golden/caffe/. The definition itself is never kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from caffe_filling import CONVOLUTIONS, NORMALISATIONS, in_two, is_copy, listed, make_layer
from caffe_writer import Form, LayerToWrite, caffemodel
from formula import image
from numpy.typing import NDArray

GOLDEN = Path(__file__).parents[1] / "golden" / "caffe"
TOLERANCE = 1e-4  # of the largest logit
Message = list[tuple[str, Any]]  # fields of a message in text form: (key, text or message), in order


@dataclass(frozen=True, kw_only=True)
class Original:
    """An original definition and how it is compared.

    Attributes:
        repository: on GitHub, with the commit.
        path: of the definition in it.
        size: (height, width) of the image: large enough for every dilation to matter.
        classes: K.
        form: of the weights file, as it was then.
        options: of our model, at a sixteenth of the original's widths.
        method: of our model that ends where the definition does.
        copies: what the names of layers that share the parameters of another have more than its name.
    """

    repository: str
    path: str
    size: tuple[int, int]
    classes: int = 21
    form: Form = "2015"
    options: dict[str, Any] = field(default_factory=lambda: {"base_channels": 4})
    method: str = "forward"
    copies: tuple[str, ...] = ()


FCN = "shelhamer/fcn.berkeleyvision.org 1305c73"
DILATION = "fyu/dilation 0f10574"
DEEPLAB1 = "TheLegendAli/DeepLab-Context2 4aa3327"
DEEPLAB2 = "zbxzc35/deeplab_v2_python e290633"
DEEPLAB2_RESNET = "DrSleep/tensorflow-deeplab-resnet 066023c"
DEEPLAB2_MSC = "isht7/pytorch-deeplab-resnet ba81363"
PSPNET = "hszhao/PSPNet 798bdc9"
VALID: dict[str, Any] = {"base_channels": 4, "padding": "valid"}
NETS = {
    "fcn32s_vgg16": Original(repository=FCN, path="voc-fcn32s/val.prototxt", size=(97, 131)),
    "fcn16s_vgg16": Original(repository=FCN, path="voc-fcn16s/val.prototxt", size=(97, 131)),
    "fcn8s_vgg16": Original(repository=FCN, path="voc-fcn8s/val.prototxt", size=(97, 131)),
    "fcn8s_vgg16_atonce": Original(repository=FCN, path="voc-fcn8s-atonce/val.prototxt", size=(97, 131)),
    "fcn_alexnet": Original(
        repository=FCN, path="voc-fcn-alexnet/val.prototxt", size=(97, 131), options={"base_channels": 6}
    ),
    "dilation8_voc": Original(
        repository=DILATION,
        path="models/dilation8_pascal_voc_deploy.prototxt",
        size=(532, 468),
        options=VALID,
        method="cells",
    ),
    "dilation8_camvid": Original(
        repository=DILATION,
        path="models/dilation8_camvid_deploy.prototxt",
        size=(532, 468),
        classes=11,
        options=VALID,
        method="cells",
    ),
    "dilation7_kitti": Original(
        repository=DILATION,
        path="models/dilation7_kitti_deploy.prototxt",
        size=(468, 472),  # 472 - 372 is no multiple of 8, as 1640 - 372 of the original's width: pools round up
        classes=11,
        options=VALID,
        method="cells",
    ),
    "dilation10_cityscapes": Original(
        repository=DILATION,
        path="models/dilation10_cityscapes_deploy.prototxt",
        size=(948, 452),
        classes=19,
        options=VALID,
    ),
    "deeplabv1_vgg16_largefov": Original(
        repository=DEEPLAB1, path="config/DeepLab-LargeFOV/test.prototxt", size=(161, 193), form="2014"
    ),
    "deeplabv1_vgg16_msc_largefov": Original(
        repository=DEEPLAB1, path="config/DeepLab-MSc-LargeFOV/test.prototxt", size=(161, 193), form="2014"
    ),
    "deeplabv1_vgg16_4x4_r4": Original(
        repository=DEEPLAB1, path="config/DeepLab/test.prototxt", size=(162, 194), form="2014"
    ),
    "deeplabv2_vgg16_aspp_l": Original(
        repository=DEEPLAB2,
        path="voc12/deeplab_v2_vgg16/config/train_train_aug.prototxt",
        size=(417, 449),
        method="scores",
    ),
    "deeplabv2_resnet101": Original(
        repository=DEEPLAB2_RESNET, path="misc/deploy.prototxt", size=(257, 289), method="scores"
    ),
    "deeplabv2_resnet101_msc": Original(
        repository=DEEPLAB2_MSC, path="data/test.prototxt", size=(257, 289), copies=("_res05", "_res075")
    ),
    "pspnet_resnet50": Original(
        repository=PSPNET, path="evaluation/prototxt/pspnet50_ADE20K_473.prototxt", size=(473, 473), classes=150
    ),
    "pspnet_resnet101": Original(
        repository=PSPNET, path="evaluation/prototxt/pspnet101_VOC2012_473.prototxt", size=(473, 473)
    ),
}
DIVIDE = 16  # of all widths but those of the classes, unless --full

# Layers that feed, score or print; and the softmax, whose input is compared.
REMOVED = (
    r"\w*Data|\w*DATA|Python|Softmax\w*|SOFTMAX\w*|Silence|SILENCE|MAT_WRITE|SEG_ACCURACY|\w*Accuracy|Input|PADDING"
)
OLD_TYPES = {"RELU": "ReLU", "LRN": "LRN", "BN": "BN"}


def parse(text: str, classes: int) -> Message:
    """Read a message in text form; of DeepLab's variables, ${EXP} is the data set and others the number of classes."""
    text = re.sub(r"#[^\n]*", "", text).replace("${EXP}", "voc12")
    text = re.sub(r"\$\s*\{[^}]*\}", str(classes), text)
    tokens = iter(re.findall(r"\"[^\"]*\"|'[^']*'|[{}]|[^\s{}:\"']+", text))
    return _message(tokens)


def _message(tokens: Iterator[str]) -> Message:
    found: Message = []
    for key in tokens:
        if key == "}":
            break
        value = next(tokens)
        found.append((key, _message(tokens) if value == "{" else value))
    return found


def show(message: Message, indent: str = "") -> str:
    """Write a message in text form."""
    lines = []
    for key, value in message:
        if isinstance(value, list):
            lines.append(f"{indent}{key} {{\n{show(value, indent + '  ')}{indent}}}\n")
        else:
            lines.append(f"{indent}{key}: {value}\n")
    return "".join(lines)


def first(message: Message, key: str, default: Any = "") -> Any:
    return next(
        (value.strip("\"'") if isinstance(value, str) else value for name, value in message if name == key), default
    )


def deploy(definition: Message, height: int, width: int, divide: int, classes: int) -> Message:
    """Return a definition that takes one image and gives the scores; other widths than the classes' are divided."""
    out: Message = [("input", '"data"'), *(("input_dim", str(side)) for side in (1, 3, height, width))]
    known = {"data"}
    for key, layer in definition:
        if key not in ("layer", "layers") or re.fullmatch(REMOVED, first(layer, "type")):
            continue
        if not known.issuperset(value.strip("\"'") for name, value in layer if name == "bottom"):
            continue  # works on labels
        known.add(first(layer, "top"))
        kept: Message = []
        for name, value in layer:
            if name in ("param", "blobs_lr", "weight_decay", "include", "loss_weight"):
                continue
            if name == "type":
                word = value.strip("\"'")
                value = f'"{OLD_TYPES.get(word, word.title() if word.isupper() else word)}"'
            if name == "interp_param" and not first(value, "height"):
                value = [("zoom_factor", zoom_factor(value))]
            if name == "convolution_param":
                value = [_narrow(item, divide, classes) for item in value if item[0] != "engine"]
            kept.append((name, value))
        out.append(("layer", kept))
    return out


def zoom_factor(interp: Message) -> str:
    """Return enlargement and reduction of a layer "Interp" as the one number that OpenCV knows, rounded up."""
    factor = int(first(interp, "zoom_factor", "1")) / int(first(interp, "shrink_factor", "1"))
    return str(math.ceil(factor * 1e7) / 1e7)


def border(definition: Message) -> tuple[int, int]:
    """Return what DeepLab's layer "Padding", which OpenCV does not know, cuts from the output before and after."""
    paddings = [
        first(layer, "padding_param", [])
        for _, layer in definition
        if isinstance(layer, list) and first(layer, "type") == "PADDING"
    ]
    return (
        (-int(first(paddings[-1], "pad_beg", "0")), -int(first(paddings[-1], "pad_end", "0"))) if paddings else (0, 0)
    )


def _narrow(item: tuple[str, Any], divide: int, classes: int) -> tuple[str, Any]:
    """Divide a width; the field that DeepLab's fork calls "hole" is "dilation" elsewhere."""
    key, value = item
    if key == "num_output" and int(value) % classes:
        return key, str(int(value) // divide)
    return ("dilation" if key == "hole" else key), value


def fill(net: Message, copies: Sequence[str] = ()) -> list[LayerToWrite]:
    """Make weights for a definition, following the channels from layer to layer."""
    channels = {"data": 3}
    layers = []
    for _, layer in ((key, value) for key, value in net if key == "layer"):
        kind, name, bottom, top = (first(layer, key) for key in ("type", "name", "bottom", "top"))
        width = channels[bottom]
        if kind in CONVOLUTIONS:
            setting = first(layer, "convolution_param")
            groups, out = int(first(setting, "group", "1")), int(first(setting, "num_output"))
            side = int(first(setting, "kernel_size"))
            shape = (out, width // groups, side, side) if kind == "Convolution" else (width, out // groups, side, side)
            bias = first(setting, "bias_term", "true") != "false"
            layers.append(make_layer(name, kind, shape, out if bias else 0, copies))
            width = out
        elif kind in NORMALISATIONS:
            filler = first(first(layer, "scale_param", []), "filler", None)
            constant = None if filler is None else float(first(filler, "value"))
            layers.append(make_layer(name, kind, (width,), constant, copies))
        elif kind == "Concat":
            width = sum(channels[value.strip("\"'")] for key, value in layer if key == "bottom")
        channels[top] = width
    return layers


def without_bn(net: Message) -> Message:
    """Write each layer "BN", which OpenCV does not know, as the two layers "BatchNorm" and "Scale" in place."""
    out: Message = []
    for key, layer in net:
        if key != "layer" or first(layer, "type") != "BN":
            out.append((key, layer))
            continue
        name, top = first(layer, "name"), [("bottom", f'"{first(layer, "top")}"'), ("top", f'"{first(layer, "top")}"')]
        out.append(("layer", [("name", f'"{name}"'), ("type", '"BatchNorm"'), *top]))
        bias = ("scale_param", [("bias_term", "true")])
        out.append(("layer", [("name", f'"{name}/scale"'), ("type", '"Scale"'), *top, bias]))
    return out


def run_original(given: argparse.Namespace) -> None:
    import cv2

    net = NETS[given.name]
    text = given.prototxt.read_text()
    definition = parse(text, net.classes)
    runnable = deploy(definition, *net.size, 1 if given.full else DIVIDE, net.classes)
    layers = fill(runnable, net.copies)
    given.work.mkdir(parents=True, exist_ok=True)
    (given.work / "net.caffemodel").write_bytes(caffemodel(layers, form=net.form))
    run = given.work / "run.caffemodel"
    run.write_bytes(caffemodel([part for layer in layers for part in in_two(layer)], form=net.form))
    run.with_suffix(".prototxt").write_text(show(without_bn(runnable)))
    engine = cv2.dnn.readNetFromCaffe(str(run.with_suffix(".prototxt")), str(run))
    engine.enableWinograd(False)
    engine.setInput(image(*net.size))
    before, after = border(definition)
    output = engine.forward()
    output = output[:, :, before : output.shape[2] - after, before : output.shape[3] - after]
    np.save(given.work / "output.npy", output)
    about = {
        "model": given.name,
        "definition": f"{net.repository} {net.path}",
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "engine": f"OpenCV {cv2.__version__}, dnn.readNetFromCaffe, Winograd off",
        "size": list(net.size),
        "form": net.form,
        "options": {**net.options, "base_channels": net.options["base_channels"] * DIVIDE}
        if given.full
        else net.options,
        "method": net.method,
        "copies": net.copies,
        "layers": [listed(one) for one in layers if not is_copy(one.name, net.copies)],
    }
    (given.work / "about.json").write_text(json.dumps(about, indent=1))
    print(f"{given.prototxt}: output {output.shape}")


def run_ours(name: str, file: Path, about: dict[str, Any]) -> NDArray[np.float32]:
    """Import the weights and return our scores of the formula's image, turned to R, G, B as our models want it."""
    import torch

    import pixelwise.models  # noqa: F401
    from pixelwise.engine.import_weights import import_weights
    from pixelwise.engine.model_file import load_model

    out = file.with_suffix(".safetensors")
    import_weights(name, file, out=out, options=about["options"], mean="0,0,0")
    model, _ = load_model(out)
    with torch.no_grad():
        seen = torch.from_numpy(image(*about["size"])[:, ::-1].copy())
        scores = model(seen).logits if about["method"] == "forward" else getattr(model, about["method"])(seen)
    found: NDArray[np.float32] = scores.numpy()
    return found


def sample(output: NDArray[np.float32], side: int = 8) -> NDArray[np.float32]:
    """Keep about side x side pixels of an output (1, K, H, W), corners included."""
    rows, columns = (np.linspace(0, length - 1, min(side, length)).round().astype(int) for length in output.shape[2:])
    return output[0][:, rows][:, :, columns]


def difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return the largest difference, relative to the largest wanted value."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def compare(given: argparse.Namespace) -> None:
    about = json.loads((given.work / "about.json").read_text())
    ours = run_ours(given.name, given.work / "net.caffemodel", about)
    original = np.load(given.work / "output.npy")
    if ours.shape != original.shape:
        sys.exit(f"{given.name}: {ours.shape}, the original gives {original.shape}")
    off = difference(ours, original)
    print(f"{given.name}: {original.shape}, largest difference {off:.1e} of the largest logit {abs(original).max():g}")
    if off > TOLERANCE:
        sys.exit(f"{given.name} is not the original: {off:.1e} > {TOLERANCE:g}")
    if given.golden:
        keep(about | {"tolerance": TOLERANCE, "measured": f"{off:.1e}"}, original)


def keep(about: dict[str, Any], original: NDArray[np.float32]) -> None:
    """Write the golden files of a network, one line for each layer."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    facts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items() if key != "layers"]
    layers = ",\n  ".join(json.dumps(row) for row in about["layers"])
    facts.append(f'"layers": [\n  {layers}\n ]')
    (GOLDEN / f"{about['model']}.json").write_text("{\n " + ",\n ".join(facts) + "\n}\n")
    np.save(GOLDEN / f"{about['model']}.npy", sample(original))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    original = commands.add_parser("original")
    original.add_argument("name", choices=NETS)
    original.add_argument("prototxt", type=Path)
    original.add_argument("work", type=Path)
    original.add_argument("--full", action="store_true", help="all widths as they are, not a sixteenth")
    original.set_defaults(run=run_original)
    ours = commands.add_parser("ours")
    ours.add_argument("name", choices=NETS)
    ours.add_argument("work", type=Path)
    ours.add_argument("--golden", action="store_true")
    ours.set_defaults(run=compare)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
