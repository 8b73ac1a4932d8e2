"""What DeconvNet is trained on: crops around objects (stage 1) and around proposals (stage 2).

H. Noh, S. Hong, B. Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015, section 3.3, and the
release's data layer (HyeonwooNoh/DeconvNet, 87dd133): boxes are enlarged 1.2 times, filled with 0 and ignored labels
where they leave the image, and brought to 250 x 250 whatever their shape. The overlap from which on a proposal counts,
0.5, was not verified.

Axes: H, W of the image; boxes float64 (N, 4) are x1, y1, x2, y2 in pixels from the outer corner of the first pixel, so
that the box of all pixels is 0, 0, W, H.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset import DatasetFolder, Item
from pixelwise.data.folder import FolderItem, write_dataset_folder
from pixelwise.data.images import AnyArray
from pixelwise.data.scan import Dataset, scan
from pixelwise.data.separation import label_components
from pixelwise.engine.proposals import propose
from pixelwise.engine.session import palette_of
from pixelwise.engine.targets import background_of
from pixelwise.errors import RequestError

SIDE = 250
CONTEXT = 1.2
VOID = 255
LEAST_OVERLAP = 0.5
PROPOSALS = 2000  # of an image, before those that overlap with no object are left out

Crop = tuple[NDArray[np.uint8], NDArray[np.uint8]]
BoxArray = NDArray[np.float64]


def objects_of(labels: AnyArray, background: int, void: int | None) -> NDArray[np.int32]:
    """Number the connected areas of each class but the background: objects for data that numbers none, int32 (H, W)."""
    objects = np.zeros(labels.shape, np.int32)
    for value in np.unique(labels):
        if value not in (background, void):
            areas = label_components(labels, labels == value)
            objects = np.where(areas > 0, areas + objects.max(), objects)
    return objects.astype(np.int32)


def object_boxes(instances: AnyArray) -> tuple[AnyArray, BoxArray]:
    """Return the ids of objects (N,) and their tight boxes (N, 4)."""
    ids = np.unique(instances)
    ids = ids[ids > 0]
    boxes = np.empty((len(ids), 4))
    for row, number in enumerate(ids):
        rows, columns = np.nonzero(instances == number)
        boxes[row] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return ids, boxes


def enlarge(boxes: BoxArray, factor: float = CONTEXT) -> BoxArray:
    """Return boxes (N, 4) of the same centres and so many times the sides.

    >>> enlarge(np.array([[10.0, 20.0, 20.0, 40.0]])).tolist()
    [[9.0, 18.0, 21.0, 42.0]]
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    halves = (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    return np.concatenate([centres - halves, centres + halves], axis=1)


def overlaps(boxes: BoxArray, others: BoxArray) -> BoxArray:
    """Return the intersection over union of each box (N, 4) with each other one (M, 4), (N, M)."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    opposite = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.clip(opposite - corner, 0, None), axis=2)
    areas = [np.prod(some[:, 2:] - some[:, :2], axis=1) for some in (boxes, others)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None] - shared))


def cut(image: NDArray[np.uint8], labels: NDArray[np.uint8], box: BoxArray, *, side: int = SIDE) -> Crop:
    """Cut a box (4,) out of an image (H, W, C) and labels (H, W), and bring both to (side, side).

    Outside of the image there is 0 and `VOID`. Images are interpolated linearly, labels by the nearest pixel.
    """
    x1, y1, x2, y2 = (int(value) for value in np.rint(box))
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    height, width = labels.shape
    window = np.zeros((y2 - y1, x2 - x1, image.shape[2]), np.uint8)
    truth = np.full((y2 - y1, x2 - x1), VOID, np.uint8)
    source = slice(max(y1, 0), max(min(y2, height), 0)), slice(max(x1, 0), max(min(x2, width), 0))
    place = tuple(slice(part.start - first, part.stop - first) for part, first in zip(source, (y1, x1), strict=True))
    window[place], truth[place] = image[source], labels[source]
    scaled = cv2.resize(window, (side, side), interpolation=cv2.INTER_LINEAR).reshape(side, side, -1)
    return scaled.astype(np.uint8), cv2.resize(truth, (side, side), interpolation=cv2.INTER_NEAREST_EXACT).astype(
        np.uint8
    )


def make_stage1_crops(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], instances: AnyArray, *, background: int, side: int = SIDE
) -> list[Crop]:
    """Cut out each object; pixels of all other classes than its own become background, void ones stay void.

    Args:
        image: uint8 (H, W, C).
        labels: class ids (H, W), `VOID` where they do not count.
        instances: object ids (H, W), 0 for none.
        background: class id.
        side: of the crops.

    Returns:
        A crop for each object that has a class, in the order of ids: image (side, side, C) and labels (side, side).
    """
    crops = []
    for number, box in zip(*object_boxes(instances), strict=True):
        inside = labels[(instances == number) & (labels != VOID) & (labels != background)]
        if not inside.size:
            continue
        own = np.bincount(inside).argmax()
        kept = np.where((labels == own) | (labels == VOID), labels, background).astype(np.uint8)
        crops.append(cut(image, kept, enlarge(box[None])[0], side=side))
    return crops


def make_stage2_crops(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    instances: AnyArray,
    boxes: BoxArray,
    *,
    least_overlap: float = LEAST_OVERLAP,
    side: int = SIDE,
) -> list[Crop]:
    """Cut out each proposal (N, 4) that overlaps with an object's box by so much; all classes stay."""
    _, truth = object_boxes(instances)
    if not len(truth) or not len(boxes):
        return []
    chosen = boxes[overlaps(boxes, truth).max(axis=1) >= least_overlap]
    return [cut(image, labels, box, side=side) for box in enlarge(chosen)]


def write_stage1(folder: DatasetFolder, out: Path) -> Path:
    """Write the crops of stage 1 as a data set."""

    def crops(image: NDArray[np.uint8], labels: NDArray[np.uint8], instances: AnyArray, background: int) -> list[Crop]:
        return make_stage1_crops(image, labels, instances, background=background)

    return _write(folder, out, crops, "objects")


def write_stage2(folder: DatasetFolder, out: Path) -> Path:
    """Write the crops of stage 2 as a data set, of our own proposals."""

    def crops(image: NDArray[np.uint8], labels: NDArray[np.uint8], instances: AnyArray, _: int) -> list[Crop]:
        return make_stage2_crops(image, labels, instances, propose(image, count=PROPOSALS).corners)

    return _write(folder, out, crops, "proposals")


def _write(
    folder: DatasetFolder,
    out: Path,
    crops: Callable[[NDArray[np.uint8], NDArray[np.uint8], AnyArray, int], list[Crop]],
    kind: str,
) -> Path:
    """Write the crops of all training and validation images; the folder appears when it is whole."""
    if out.exists():
        return out
    items = [*folder.split("train"), *folder.split("val")]
    dataset = scan(folder, items)
    background = background_of(dataset.card)
    if background is None:
        raise RequestError(
            f"{folder.root}: DeconvNet's stages need objects before a background, and none of the classes "
            f"{', '.join(dataset.card.classes[:5])} is called background; accepted: such data. Use --recipe modern."
        )
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    counts = {"train": 0, "val": 0}
    for item in items:
        made = crops(*_arrays(dataset, item, background), background)
        counts[item.split] += len(made)
        if made:
            _write_crops(dataset, partial, item, made, kind)
    if not all(counts.values()):
        raise RequestError(
            f"{folder.root}: {counts['train']} crops of training and {counts['val']} of validation images ({kind}); "
            "accepted: one of each or more. Give data with objects in both splits."
        )
    partial.rename(out)
    return out


def _arrays(dataset: Dataset, item: Item, background: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], AnyArray]:
    """Return image, labels with `VOID`, and object ids."""
    image, labels, void = dataset.read_image(item), dataset.read_labels(item), dataset.card.ignore_index
    if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
        raise RequestError(
            f"{item.image} is {image.dtype} with {image.shape[2]} channels; accepted: 8 bits, grey or red, green, "
            "blue, from which crops are written. Convert the images."
        )
    instances = dataset.instances(item)
    if instances is None:
        instances = objects_of(labels, background, void)
    if void is not None:
        labels = np.where(labels == void, VOID, labels)
    return image, labels.astype(np.uint8), instances


def _write_crops(dataset: Dataset, out: Path, item: Item, crops: Iterable[Crop], kind: str) -> None:
    card = dataset.card
    write_dataset_folder(
        out,
        [
            FolderItem(
                split=item.split,
                name=f"{item.name}_{number:04d}",
                image=image[:, :, 0] if image.shape[2] == 1 else image,
                labels=labels,
            )
            for number, (image, labels) in enumerate(crops)
        ],
        name=f"{dataset.folder.name}-{kind}",
        classes=card.classes,
        palette=[*palette_of(card), (255, 255, 255)],
        ignore_index=VOID,
        terms=card.licence or "Those of the images that these were cut from.",
    )
