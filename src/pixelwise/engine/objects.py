"""Objects from a semantic prediction: what can be counted, cut apart by a watershed.

Two ways, by what the model knows:

- `distance`: objects of a class touch each other. The class's area is cut where it is narrow: seeds are the maxima of
  the distance to the area's border, and each grows to the watershed line.
- `border`: a class of its own runs between the objects (membranes). Seeds are the minima of its probability, and
  each grows to the crest; pixels of the border class belong to no object.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from pixelwise.data.images import AnyArray
from pixelwise.engine.model_file import ModelCard
from pixelwise.errors import RequestError, WorkError, closest

Method = Literal["distance", "border"]
MOST_OBJECTS = 65535  # in a 16-bit file

# Measured on the nuclei of DSB 2018 (true areas of every second training image): SEG 0.93, against 0.85 for plain
# components; 0.92 without smoothing and a depth of 1, 0.91 with a smoothing of 2.
SMOOTHING = 1.0  # of the distance, pixels
DEPTH = 0.5  # pixels by which a seed's distance stands above the narrowest way to a deeper one
# Measured on ISBI 2012 (a U-Net's membranes on four held-out slices): V_rand 0.955 for 0.05 to 0.2, 0.90 for 0.4;
# 0.88 for the components below a probability of 0.5.
BORDER_DEPTH = 0.2  # the same of a border's probability
SPECK = 1 / 20  # of the median area of the image's objects; what is smaller is a slip of single pixels, not an object


@dataclass(frozen=True, kw_only=True)
class ObjectRule:
    """How objects are found.

    Attributes:
        method: "distance" or "border".
        classes: ids of the classes whose areas are objects.
        border: id of the class between objects, for "border".
    """

    method: Method
    classes: tuple[int, ...]
    border: int | None = None


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The objects of one image.

    Attributes:
        ids: int32 (H, W), 1 to N, 0 where there is none.
        classes: int64 (N,), class id of each.
        scores: float64 (N,), mean probability of its class over its pixels; None where nobody says.
    """

    ids: NDArray[np.int32]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64] | None

    def ids16(self) -> NDArray[np.uint16]:
        """Return the ids for a 16-bit file."""
        if len(self.classes) > MOST_OBJECTS:
            raise WorkError(
                f"{len(self.classes)} objects were found in one image; a 16-bit file holds {MOST_OBJECTS} at most. Cut "
                "the image into parts."
            )
        return self.ids.astype(np.uint16)


def object_rule(card: ModelCard, *, method: Method | None = None, classes: Sequence[str] | None = None) -> ObjectRule:
    """Decide how a model's predictions become objects.

    Args:
        card: the model's.
        method: None takes "border" where the model knows its boundary class, else "distance".
        classes: names of the classes whose areas are objects; None takes all but the boundary class and a first class
            named background.

    Raises:
        RequestError: the model has no such class, or "border" is asked of one without a boundary class.
    """
    border = card.boundary_class
    if method == "border" and border is None:
        raise RequestError(
            f"border is asked of a model that knows no boundary class (its classes: {', '.join(card.classes[:8])}); "
            'accepted: models of data whose dataset.json has "boundary_class". Add it and train, or use distance.'
        )
    method = method or ("distance" if border is None else "border")
    unknown = [name for name in classes or () if name not in card.classes]
    if unknown:
        raise RequestError(
            f"the model has no class {unknown[0]!r}; accepted: {', '.join(card.classes[:12])}; closest: "
            f"{closest(unknown[0], card.classes)}. Correct the name."
        )
    if classes:
        chosen = tuple(card.classes.index(name) for name in classes)
    else:
        background = 0 if card.classes[0] == "background" and card.num_classes > 1 else None
        chosen = tuple(index for index in range(card.num_classes) if index not in (background, border))
    if border in chosen or not chosen:
        raise RequestError(
            f"no class is left whose areas are objects ({', '.join(card.classes[:8])}); accepted: classes beside the "
            "background and the boundary class. Name them."
        )
    return ObjectRule(method=method, classes=chosen, border=border if method == "border" else None)


def find_objects(labels: AnyArray, probabilities: Tensor, rule: ObjectRule) -> Objects:
    """Cut a prediction into objects; specks, below a twentieth of the median area, are none.

    Args:
        labels: class ids (H, W).
        probabilities: float (K, H, W).
        rule: see `object_rule`.
    """
    ids = np.zeros(labels.shape, np.int32)
    if rule.border is not None:
        areas = np.isin(labels, rule.classes)
        ids = _flood(probabilities[rule.border].float().cpu().numpy(), areas, depth=BORDER_DEPTH)
    else:
        for class_id in rule.classes:
            area = labels == class_id
            found = _flood(-_distance(area), area, depth=DEPTH)
            ids += np.where(area, found + ids.max(), 0).astype(np.int32)
    return _describe(_without_specks(ids), labels, probabilities, rule)


def _without_specks(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Drop the objects that are far smaller than the others of the image, and number the rest anew."""
    areas = np.bincount(ids.ravel())
    if len(areas) == 1:
        return ids
    kept = areas >= SPECK * np.median(areas[1:])
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return np.asarray(numbers[ids], np.int32)


def _distance(area: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the smoothed distance to the border of an area, pixels; the image's edge is none."""
    if area.all():
        return np.zeros(area.shape, np.float32)
    distance = cv2.distanceTransform(area.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    smooth: NDArray[np.float32] = np.asarray(cv2.GaussianBlur(distance, (0, 0), SMOOTHING), np.float32)
    return smooth


def _flood(height: NDArray[np.float32], area: NDArray[np.bool_], *, depth: float) -> NDArray[np.int32]:
    """Grow the minima of `height` (H, W) that are at least `depth` deep over the area, to the crests between them."""
    from skimage.morphology import local_minima, reconstruction
    from skimage.segmentation import watershed

    ids, above = np.zeros(area.shape, np.int32), np.float32(height.max() + 1 + depth)
    # Within the window of each connected area: most of an image is often empty.
    components, _ = ndimage.label(area)
    for index, box in enumerate(ndimage.find_objects(components), start=1):
        inside = np.pad(components[box] == index, 1)  # a rim all around, for an area that fills its window
        lowest = np.full(inside.shape, above)
        lowest[inside] = height[box][inside[1:-1, 1:-1]]
        filled = reconstruction(lowest + depth, lowest, method="erosion")  # type: ignore[no-untyped-call]
        # Plateaus of equal height are one seed; rounding must not split them.
        minima = local_minima(np.round(filled, 4))  # type: ignore[no-untyped-call]
        seeds, _ = ndimage.label(minima & inside, np.ones((3, 3)))
        found = watershed(lowest, seeds, mask=inside)[1:-1, 1:-1]  # type: ignore[no-untyped-call]
        ids[box] += np.where(found > 0, found + ids.max(), 0).astype(np.int32)
    return ids


def _describe(ids: NDArray[np.int32], labels: AnyArray, probabilities: Tensor, rule: ObjectRule) -> Objects:
    """Give each object the class that most of its pixels have, and its mean probability."""
    num = int(ids.max(initial=0))
    if num == 0:
        return Objects(ids=ids, classes=np.zeros(0, np.int64), scores=np.zeros(0))
    where = np.arange(1, num + 1)
    votes = np.stack([ndimage.sum_labels(labels == class_id, ids, where) for class_id in rule.classes])  # (C, N)
    best = votes.argmax(axis=0)
    means = np.stack(
        [ndimage.mean(probabilities[class_id].float().cpu().numpy(), ids, where) for class_id in rule.classes]
    )
    return Objects(
        ids=ids,
        classes=np.asarray(rule.classes)[best],
        scores=means[best, np.arange(num)].astype(np.float64),
    )


def given_objects(ids: AnyArray, labels: AnyArray, scores: Mapping[int, float] | None = None) -> Objects:
    """Return objects that are numbered already (true ones, or those of another program): ids (H, W), any numbers.

    Each has the class that most of its pixels have in `labels` (H, W), and the score that is given for its number.
    """
    numbers, dense = np.unique(ids, return_inverse=True)
    numbered = np.asarray(dense.reshape(ids.shape) + int(numbers[0] != 0), np.int32)
    num = int(numbered.max())
    votes = np.zeros((num + 1, int(labels.max()) + 1), np.int64)
    np.add.at(votes, (numbered.ravel(), labels.ravel()), 1)
    confidence = None if scores is None else np.array([scores[int(number)] for number in numbers if number], float)
    return Objects(ids=numbered, classes=votes[1:].argmax(axis=1), scores=confidence)


OBJECT_TABLE = "objects.csv"
HEAD = ("image", "id", "class", "area", "x", "y", "left", "top", "width", "height", "score")


def object_rows(name: str, objects: Objects, classes: Sequence[str]) -> list[tuple[object, ...]]:
    """Return a table row for each object: area in pixels, centre (x, y), box and score; see `HEAD`."""
    rows: list[tuple[object, ...]] = []
    where = range(1, len(objects.classes) + 1)
    centres = ndimage.center_of_mass(np.ones_like(objects.ids), objects.ids, where) if where else []
    areas = np.bincount(objects.ids.ravel(), minlength=len(objects.classes) + 1)
    for index, (box, centre) in enumerate(zip(ndimage.find_objects(objects.ids), centres, strict=True)):
        rows.append(
            (
                name,
                index + 1,
                classes[objects.classes[index]],
                int(areas[index + 1]),
                round(float(centre[1]), 2),
                round(float(centre[0]), 2),
                box[1].start,
                box[0].start,
                box[1].stop - box[1].start,
                box[0].stop - box[0].start,
                "" if objects.scores is None else round(float(objects.scores[index]), 4),
            )
        )
    return rows


def table_csv(rows: Sequence[tuple[object, ...]]) -> str:
    """Return the objects of all images as CSV, with a head."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEAD)
    writer.writerows(rows)
    return buffer.getvalue()
