"""Inference of networks on ResNet against torchvision's own: the same architecture, the same weights, the same image.

    python benchmarks/resnet_inference.py [--passes 5] [--threads 2] [--names fcn_resnet50]

One image of 480 x 360 and 21 classes, random weights. Four ways in the same process, in turn: torchvision eager, ours
eager, torchvision in channels_last, and what `pixelwise predict` does, which also normalises the image, takes the
softmax and returns labels. The shortest of the passes counts, since other programs only ever add time. Ratios are
ours to torchvision's, below 1 is faster; labels must be equal.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor, nn

from pixelwise.engine.fold import fold_batch_norm
from pixelwise.engine.import_state import normalisation_of
from pixelwise.engine.model_file import ModelCard
from pixelwise.engine.predict import Segmenter
from pixelwise.models import create_model
from pixelwise.weights.state_format import IMAGENET

SIZE = (360, 480)
CLASSES = 21
# Options with which our models are torchvision's.
NAMES = {"fcn_resnet50": {}, "deeplabv3_resnet50": {"head": "torchvision"}}


def torchvisions(name: str, image: Tensor) -> nn.Module:
    """Build torchvision's network with random weights, and biases with which all classes occur in the image."""
    from torchvision.models import segmentation

    torch.manual_seed(0)
    build: Callable[..., nn.Module] = getattr(segmentation, name)
    model = build(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True)
    model.aux_classifier = None
    model.eval()
    model.get_submodule("classifier")[-1].bias -= model(image)["out"].mean(dim=(0, 2, 3))
    return model


def segmenter(name: str, model: nn.Module) -> Segmenter:
    """Return our model as `pixelwise predict` runs it: in channels_last, with batch normalisations folded."""
    fold_batch_norm(model)
    card = ModelCard(
        pixelwise=version("pixelwise"),
        model=name,
        options=dict(NAMES[name]),
        num_classes=CLASSES,
        in_channels=3,
        classes=tuple(map(str, range(CLASSES))),
        palette=((0, 0, 0),) * CLASSES,
        ignore_index=None,
        normalisation=normalisation_of(IMAGENET),
        scale=1.0,
        input_rule="any",
        licence=None,
        iteration=0,
        metrics={},
    )
    return Segmenter(model=model.to(memory_format=torch.channels_last), card=card)


@torch.inference_mode()
def measure(name: str, passes: int, clock: Callable[[], float]) -> None:
    """Measure one network in four ways and print the seconds and the ratios."""
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    image = torch.from_numpy(normalisation_of(IMAGENET)(picture)).permute(2, 0, 1)[None].contiguous()
    last = image.contiguous(memory_format=torch.channels_last)
    theirs = torchvisions(name, image)
    theirs_last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    ours, ours_last = (create_model(name, num_classes=CLASSES, aux=False, **NAMES[name]).eval() for _ in range(2))
    for model in (ours, ours_last):
        model.load_state_dict(theirs.state_dict())
    whole = segmenter(name, ours_last)
    ways: dict[str, Callable[[], Tensor | np.ndarray]] = {
        "torchvision eager": lambda: theirs(image)["out"],
        "ours eager": lambda: ours(image).logits,
        "torchvision channels_last": lambda: theirs_last(last)["out"],
        "ours predict": lambda: whole.predict(picture).labels,
    }
    labels = ways["torchvision eager"]().argmax(1)[0].numpy()
    assert len(np.unique(labels)) > 3, "numbers that decide nothing"
    agree = float((ways["ours predict"]() == labels).mean())
    best = dict.fromkeys(ways, float("inf"))
    order = list(ways)
    for _ in range(passes):
        order.append(order.pop(0))  # who comes after whom makes a difference of some per cent
        for way in order:
            start = clock()
            ways[way]()
            best[way] = min(best[way], clock() - start)
    print(f"{name}: " + ", ".join(f"{way} {seconds:.3f} s" for way, seconds in best.items()))
    print(
        f"  eager {best['ours eager'] / best['torchvision eager']:.3f}, predict to channels_last "
        f"{best['ours predict'] / best['torchvision channels_last']:.3f}, equal labels {agree:.6f}"
    )


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--names", default=",".join(NAMES))
    parser.add_argument("--cpu-time", action="store_true", help="of the process, where others use the machine")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {SIZE[1]} x {SIZE[0]}")
    for name in given.names.split(","):
        measure(name, given.passes, time.process_time if given.cpu_time else time.perf_counter)


if __name__ == "__main__":
    main()
