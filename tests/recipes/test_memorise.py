"""The modern recipe teaches each system eight CamVid pictures by heart, at a width and a size for tests.

Pictures are cut from the middle of eight training images of different scenes, and are trained on whole and unchanged;
what is proven is that gradients reach where they must and that the recipe's settings do not stop a network without
batch normalisation from learning. Networks that only interpolate coarse scores see the pictures enlarged, since their
boundaries are no finer than an eighth or a 32nd of them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.data.folder import FolderItem, write_dataset_folder
from pixelwise.data.loader import Batch, batches
from pixelwise.engine.beginning import Session
from pixelwise.engine.config import build_config
from pixelwise.engine.listener import Silent
from pixelwise.engine.run_folder import Progress, RunFolder
from pixelwise.engine.session import prepare
from pixelwise.engine.train import go_on
from pixelwise.recipes import find_recipe

CAMVID = Path(__file__).resolve().parents[3] / "shared" / "data" / "camvid"
NUM_IMAGES = 8
NEEDED = 0.95  # pixel accuracy that counts as known by heart
LOOK_EVERY = 20  # iterations; training ends when that is reached
# The recipe's rate is for 64 base channels; these nets have 4 to 16, and those of the second rate normalise.
NARROW, NARROW_NORMALISED = 1e-3, 1e-2
CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign_symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)

FCN: dict[str, Any] = {"base_channels": 4, "dropout": 0.0}
DEEPLAB: dict[str, Any] = {"base_channels": 4, "dropout": 0.0}
DILATED: dict[str, Any] = {"base_channels": 4, "dropout": 0.0}
SAME: dict[str, Any] = {**DILATED, "padding": "same"}  # a mirrored border of 186 pixels would take most of the time
RESNET: dict[str, Any] = {"base_channels": 4, "blocks": [1, 1, 1, 1]}
# name: (options, side of the network's input, side of the picture cut out, iterations at most)
SYSTEMS: dict[str, tuple[dict[str, Any], int, int, int]] = {
    "fcn32s_vgg16": ({**FCN, "learn_upsampling": True}, 64, 64, 200),
    "fcn16s_vgg16": ({**FCN, "learn_upsampling": True}, 64, 64, 200),
    "fcn8s_vgg16": ({**FCN, "learn_upsampling": True}, 64, 64, 200),
    "fcn8s_vgg16_atonce": ({**FCN, "learn_upsampling": True}, 64, 64, 200),
    "fcn_alexnet": ({"base_channels": 12, "dropout": 0.0, "learn_upsampling": True}, 64, 64, 200),
    "fcn_googlenet": ({"base_channels": 16, "dropout": 0.0, "learn_upsampling": True}, 64, 64, 200),
    "hypercolumn_vgg16": ({"base_channels": 4}, 64, 32, 200),
    "segnet_vgg16": ({"base_channels": 8}, 64, 32, 200),
    "segnet_basic": ({"base_channels": 16}, 64, 64, 200),
    "bayesian_segnet_vgg16": ({"base_channels": 8, "dropout": 0.1}, 64, 32, 200),
    "bayesian_segnet_basic": ({"base_channels": 16, "dropout": 0.1}, 64, 64, 200),
    "deconvnet_vgg16": ({"base_channels": 8, "fc_channels": 64}, 224, 32, 360),
    "dilated_frontend_vgg16": (DILATED, 64, 32, 200),
    "dilation8_voc": (SAME, 64, 32, 400),
    "dilation8_camvid": (SAME, 64, 32, 200),
    "dilation7_kitti": (SAME, 64, 32, 200),
    "dilation10_cityscapes": (SAME, 64, 32, 200),
    "deeplabv1_vgg16_largefov": (DEEPLAB, 64, 32, 300),
    "deeplabv1_vgg16_7x7": (DEEPLAB, 64, 32, 200),
    "deeplabv1_vgg16_4x4_r4": (DEEPLAB, 64, 32, 200),
    "deeplabv1_vgg16_4x4_r8": (DEEPLAB, 64, 32, 200),
    "deeplabv1_vgg16_msc_largefov": (DEEPLAB, 64, 32, 300),
    "deeplabv2_vgg16_largefov": (DEEPLAB, 64, 32, 300),
    "deeplabv2_vgg16_aspp_s": (DEEPLAB, 64, 32, 200),
    "deeplabv2_vgg16_aspp_l": (DEEPLAB, 64, 32, 200),
    "deeplabv2_resnet101": (RESNET, 64, 32, 300),
    "deeplabv2_resnet101_msc": (RESNET, 64, 32, 300),
    "deeplabv3_resnet50": ({**RESNET, "output_stride": 8, "dropout": 0.0}, 64, 32, 200),
    "deeplabv3_resnet101": ({**RESNET, "head": "torchvision", "dropout": 0.0}, 64, 32, 200),
    "deeplabv3_cascade_resnet50": ({**RESNET, "output_stride": 8}, 64, 32, 200),
    "fcn_resnet50": (RESNET, 64, 32, 200),
}
NORMALISED = ("segnet", "deconv", "deeplabv3", "fcn_resnet")


def write_pictures(folder: Path, side: int, cut: int) -> Path:
    """Write the middles of eight training images, enlarged to (side, side), and one of them again for validation."""
    items = []
    for path in sorted((CAMVID / "images/train").iterdir())[:: 367 // NUM_IMAGES][:NUM_IMAGES]:
        image = np.array(Image.open(path).convert("RGB"))
        labels = np.array(Image.open(CAMVID / "masks/train" / f"{path.stem}.png"))
        labels[labels >= len(CLASSES)] = 255
        top, left = (image.shape[0] - cut) // 2, (image.shape[1] - cut) // 2
        image, labels = (array[top : top + cut, left : left + cut] for array in (image, labels))
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
        items.append(FolderItem(split="train", name=path.stem, image=image, labels=labels))
    items.append(FolderItem(split="val", name="again", image=items[0].image, labels=items[0].labels))
    palette = [(9 * index, 0, 0) for index in range(len(CLASSES) + 1)]
    return write_dataset_folder(
        folder, items, name="eight", classes=CLASSES, palette=palette, ignore_index=255, terms="research"
    )


class KnownByHeart(Exception):  # noqa: N818 - no error
    """Ends a training that has reached its aim."""


class Pupil(Silent):
    """Hears a training and ends it when the pictures are known by heart."""

    def __init__(self, session: Session[Any], batch: Batch) -> None:
        self.session, self.batch = session, batch

    def step(self, iteration: int, iterations: int, loss: float) -> None:
        """Look now and then."""
        if iteration % LOOK_EVERY == 0 and self.accuracy() >= NEEDED:
            raise KnownByHeart

    def accuracy(self) -> float:
        """Return the share of the pictures' pixels that the model has right."""
        self.session.measure_statistics()
        model = self.session.judged
        training = model.training
        with torch.no_grad():
            predicted = model.eval()(self.batch.images).logits.argmax(1)
        model.train(training)
        counted = self.batch.labels != 255
        return (predicted == self.batch.labels)[counted].float().mean().item()


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not beside this checkout")
@pytest.mark.parametrize("name", SYSTEMS)
def test_memorises_eight_images(name: str, tmp_path: Path) -> None:
    options, side, cut, iterations = SYSTEMS[name]
    data = write_pictures(tmp_path / "data", side, cut)
    (stage,) = find_recipe("modern").stages
    settings = [
        *("data.whole_images=true", f"data.batch_size={NUM_IMAGES}", "loss.class_weights=none", "threads=1"),
        *(f"augment.{key}=[1,1]" for key in ("scale", "aspect")),
        *(f"augment.{key}=0" for key in ("rotation", "blur", "brightness", "contrast", "noise")),
        *(f"options.{key}={value}" for key, value in options.items()),
        f"optimizer.lr={NARROW_NORMALISED if any(kind in name for kind in NORMALISED) else NARROW}",
        *("augment.horizontal_flip=false", f"val_every={iterations}", f"model={name}"),
    ]
    values = {**stage.values(), "budget": {"iterations": iterations}}
    config = build_config({**values, "data": {**values["data"], "path": str(data)}}, settings)
    session = prepare(config, RunFolder(tmp_path / "run"), resume=False, started=0.0, listener=Silent())
    (batch,) = batches(session.crops, batch_size=NUM_IMAGES, first=0, last=1, num_workers=0)
    pupil = Pupil(session, batch)
    with suppress(KnownByHeart):
        go_on(session, Progress(), pupil)
    assert pupil.accuracy() >= NEEDED
