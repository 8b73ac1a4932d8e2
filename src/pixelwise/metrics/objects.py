"""Scores of maps of objects: COCO's mask AP, the score of the 2018 Data Science Bowl, panoptic quality.

Objects of one map do not overlap, and crowd regions and void are unknown; under these terms the numbers are
those of pycocotools (areas "all"), of the rules of the DSB 2018 and of panopticapi. IoU is the number of pixels that
a true and a predicted object of the same class share, divided by the pixels of both.

| score    | matches                    | formula                                                               |
|----------|----------------------------|-----------------------------------------------------------------------|
| AP       | IoU >= t, best score first | mean over t and over recall 0, 0.01 ... 1 of the best precision there |
| DSB 2018 | IoU > t                    | mean over t of TP / (TP + FP + FN)                                    |
| PQ       | IoU > 0.5                  | sum of IoU / (TP + FP / 2 + FN / 2) = SQ * RQ, panoptic quality       |

The thresholds t are 0.50, 0.55 ... 0.95. AP ranks the predictions of the whole data set by their score; PQ sums
over the data set; the score of the DSB is the mean over the images. Sources: Lin et al., "Microsoft COCO", ECCV
2014, and cocoapi's `cocoeval.py`; Caicedo et al., Nature Methods 2019; Kirillov et al., "Panoptic segmentation",
CVPR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pixelwise.errors import RequestError
from pixelwise.metrics.contingency import Contingency, Counts, contingency_table, label_areas

Floats = npt.NDArray[np.float64]
_Places = npt.NDArray[np.intp]

_THRESHOLDS = np.arange(10, 20) / 20
_RECALLS = np.linspace(0, 1, 101)
_ONLY_CLASS = 1


@dataclass(frozen=True, kw_only=True)
class ObjectClassScores:
    """Scores of one class, in [0, 1]; None where not defined.

    Attributes:
        class_id: the class.
        ap: average precision over IoU 0.50 to 0.95; None without true objects or without scores.
        ap50: average precision at IoU 0.50.
        ap75: average precision at IoU 0.75.
        dsb2018: mean over the images that hold or predict the class; None without true objects.
        pq: panoptic quality; 0 for a class that is predicted only.
        sq: segmentation quality, mean IoU of the matches; 0 without matches.
        rq: recognition quality, F1 of the matches.
        num_truth: true objects.
        num_predicted: predicted objects.
    """

    class_id: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    dsb2018: float | None
    pq: float
    sq: float
    rq: float
    num_truth: int
    num_predicted: int


@dataclass(frozen=True, kw_only=True)
class ObjectScores:
    """Scores of a data set: means over the classes where they are defined, None without any.

    Attributes:
        ap: mean over the classes with true objects, as the next three.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        dsb2018: score of the 2018 Data Science Bowl.
        pq: mean over the classes that occur, also those that are predicted only, as the next two.
        sq: segmentation quality.
        rq: recognition quality.
        per_class: by ascending class id.
        num_images: images added.
        num_cut: predictions beyond `max_detections` of their image and class, which AP does not see.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    dsb2018: float | None
    pq: float | None
    sq: float | None
    rq: float | None
    per_class: tuple[ObjectClassScores, ...]
    num_images: int
    num_cut: int

    def to_json(self) -> dict[str, object]:
        """Return plain dicts, lists and numbers; None where not defined."""
        return {
            "metrics": {name: getattr(self, name) for name in _MEANS},
            "per_class": [vars(scores) for scores in self.per_class],
            "num_images": self.num_images,
            "num_cut": self.num_cut,
        }


_MEANS = ("ap", "ap50", "ap75", "dsb2018", "pq", "sq", "rq")


@dataclass(kw_only=True)
class _ClassSums:
    """What the images have added to one class; `ranked` holds scores (D,) and matches (T, D) of each image."""

    ranked: list[tuple[Floats, npt.NDArray[np.bool_]]] = field(default_factory=list)
    num_truth: int = 0
    num_predicted: int = 0
    num_matched: int = 0
    iou_of_matched: float = 0.0
    dsb: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Objects:
    """Objects of one class in one map: ids (N,) ascending and areas (N,) in pixels."""

    ids: Counts
    areas: Counts


_NOTHING = _Objects(ids=np.empty(0, np.int64), areas=np.empty(0, np.int64))


class ObjectTally:
    """Scores of objects, summed over images; of each image only scores and matches are kept, not the maps.

    Args:
        max_detections: predictions of one class in one image that AP looks at, best scores first. COCO's 100
            hides objects of crowded images: raise it for cells.

    >>> tally = ObjectTally()
    >>> tally.add([[1, 1, 0, 2]], [[5, 5, 5, 0]], scores={1: 0.9, 2: 0.4})
    >>> scores = tally.result()
    >>> round(scores.ap50, 6), scores.ap75, round(scores.pq, 6)
    (1.0, 0.0, 0.444444)
    """

    def __init__(self, *, max_detections: int = 100) -> None:
        if max_detections < 1:
            raise RequestError(f"max_detections is {max_detections}. Accepted are 1 or more. COCO takes 100.")
        self._max_detections = max_detections
        self._classes: dict[int, _ClassSums] = {}
        self._with_scores: bool | None = None
        self._num_images = self._num_cut = 0

    def add(
        self,
        prediction: npt.ArrayLike,
        truth: npt.ArrayLike,
        *,
        scores: Mapping[int, float] | None = None,
        predicted_classes: Mapping[int, int] | None = None,
        true_classes: Mapping[int, int] | None = None,
    ) -> None:
        """Compare one image.

        Args:
            prediction: (H, W) integer ids of objects, 0 = background.
            truth: the same. Ids mean nothing beyond their map.
            scores: confidence by id of the prediction, any finite numbers; None for all images leaves AP out.
                Equal scores rank in the order of the images, then by id. Ids without pixels are left out.
            predicted_classes: class by id of the prediction; None where all objects are of one class (id 1).
            true_classes: the same for the truth.

        Raises:
            RequestError: A map is no label map, the shapes differ, an object has no score or class, a score is
                not finite, or some images have scores and others have none.
        """
        table = contingency_table(prediction, truth)
        predicted = _by_class("prediction", *label_areas(table.prediction, table.pixels), predicted_classes)
        true = _by_class("truth", *label_areas(table.truth, table.pixels), true_classes)
        self._check_scores(scores, [number for objects in predicted.values() for number in objects.ids.tolist()])
        self._num_images += 1
        for class_id in sorted(predicted.keys() | true.keys()):
            sums = self._classes.setdefault(class_id, _ClassSums())
            found, wanted = predicted.get(class_id, _NOTHING), true.get(class_id, _NOTHING)
            column, row, iou = _overlaps(table, found, wanted)
            _add_counts(sums, iou[iou > 0.5], len(found.ids), len(wanted.ids))
            if scores is not None:
                confidence = np.array([scores[number] for number in found.ids.tolist()], np.float64)
                self._num_cut += max(0, confidence.size - self._max_detections)
                sums.ranked.append(_ranked(confidence, column, row, iou, self._max_detections))

    def _check_scores(self, scores: Mapping[int, float] | None, ids: Sequence[int]) -> None:
        if self._with_scores not in (None, scores is not None):
            raise RequestError(
                f"scores {'are' if scores is not None else 'are not'} given for image {self._num_images + 1}, unlike "
                "for the images before it. AP ranks all images together. Give scores for every image or for none."
            )
        for number in ids if scores is not None else ():
            if scores is not None and not math.isfinite(scores.get(number, math.nan)):
                raise RequestError(
                    f"object {number} of the prediction has the score {scores.get(number)}. Every id of the map needs "
                    "a finite number. Give the confidence of each object."
                )
        self._with_scores = scores is not None

    def result(self) -> ObjectScores:
        """Return the scores of everything added so far."""
        per_class = tuple(self._class_scores(class_id) for class_id in sorted(self._classes))
        means = {name: _mean([getattr(scores, name) for scores in per_class]) for name in _MEANS}
        return ObjectScores(**means, per_class=per_class, num_images=self._num_images, num_cut=self._num_cut)

    def _class_scores(self, class_id: int) -> ObjectClassScores:
        sums = self._classes[class_id]
        ap: Sequence[float | None] = (None, None, None)
        if sums.num_truth and self._with_scores:
            by_threshold = _average_precision(sums.ranked, sums.num_truth)
            ap = [float(by_threshold.mean()), float(by_threshold[0]), float(by_threshold[5])]
        objects = (sums.num_truth + sums.num_predicted) / 2
        return ObjectClassScores(
            class_id=class_id,
            ap=ap[0],
            ap50=ap[1],
            ap75=ap[2],
            dsb2018=_mean(sums.dsb) if sums.num_truth else None,
            pq=sums.iou_of_matched / objects,
            sq=sums.iou_of_matched / sums.num_matched if sums.num_matched else 0.0,
            rq=sums.num_matched / objects,
            num_truth=sums.num_truth,
            num_predicted=sums.num_predicted,
        )


def _by_class(name: str, labels: Counts, areas: Counts, classes: Mapping[int, int] | None) -> dict[int, _Objects]:
    """Sort the objects of a map into classes; the background is none."""
    labels, areas = labels[labels > 0], areas[labels > 0]
    missing = [number for number in labels.tolist() if classes is not None and number not in classes]
    if missing:
        raise RequestError(
            f"object {missing[0]} of the {name} has no class ({len(missing)} of {len(labels)} objects without). Every "
            "id of the map needs one. Add the ids to the classes, or give no classes where all objects are alike."
        )
    of_object = np.array([_ONLY_CLASS if classes is None else classes[number] for number in labels.tolist()], np.int64)
    return {
        class_id: _Objects(ids=labels[of_object == class_id], areas=areas[of_object == class_id])
        for class_id in np.unique(of_object).tolist()
    }


def _overlaps(table: Contingency, found: _Objects, wanted: _Objects) -> tuple[_Places, _Places, Floats]:
    """Return the pairs that share pixels: places in `found` and in `wanted`, and IoU, (M,) each."""
    shared = np.isin(table.prediction, found.ids) & np.isin(table.truth, wanted.ids)
    column = np.searchsorted(found.ids, table.prediction[shared])
    row = np.searchsorted(wanted.ids, table.truth[shared])
    pixels = table.pixels[shared]
    return column, row, pixels / (found.areas[column] + wanted.areas[row] - pixels)


def _add_counts(sums: _ClassSums, iou: Floats, num_predicted: int, num_truth: int) -> None:
    """Add one image to PQ and DSB; iou (M,) of the pairs above 0.5, where each object is in one pair at most."""
    sums.num_predicted += num_predicted
    sums.num_truth += num_truth
    sums.num_matched += iou.size
    sums.iou_of_matched += float(iou.sum())
    hits = (iou[:, None] > _THRESHOLDS).sum(axis=0)  # (T,)
    sums.dsb.append(float((hits / (num_predicted + num_truth - hits)).mean()))


def _ranked(
    scores: Floats, column: _Places, row: _Places, iou: Floats, max_detections: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Match one image as COCO does: (D,) scores, best first, and (T, D) whether they found an object.

    Predictions choose by descending score among the free objects. More than one can only be near at IoU 0.5,
    where a prediction has two equal halves: which one it finds makes no difference to the others.
    """
    order = np.argsort(-scores, kind="stable")[:max_detections]
    place = np.full(scores.size, scores.size)
    place[order] = np.arange(order.size)
    near = np.flatnonzero((iou >= _THRESHOLDS[0]) & (place[column] < order.size))
    near = near[np.argsort(place[column[near]], kind="stable")]
    pairs = list(zip(place[column[near]].tolist(), row[near].tolist(), iou[near].tolist(), strict=True))
    found = np.zeros((len(_THRESHOLDS), order.size), np.bool_)
    for hits, threshold in zip(found, _THRESHOLDS.tolist(), strict=True):
        taken: set[int] = set()
        for candidate, wanted, overlap in pairs:
            if overlap >= threshold and not hits[candidate] and wanted not in taken:
                hits[candidate] = True
                taken.add(wanted)
    return scores[order], found


def _average_precision(ranked: Sequence[tuple[Floats, npt.NDArray[np.bool_]]], num_truth: int) -> Floats:
    """Return the average precision at each IoU threshold, (T,), from the matches of all images."""
    order = np.argsort(-np.concatenate([scores for scores, _ in ranked]), kind="stable")
    found = np.concatenate([hits for _, hits in ranked], axis=1)[:, order]  # (T, D)
    right, wrong = np.cumsum(found, axis=1), np.cumsum(~found, axis=1)
    precision = right / (right + wrong + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # Beyond the last recall the precision is 0.
    best = np.pad(best, ((0, 0), (0, 1)))
    recall = right / num_truth
    at = [np.searchsorted(row, _RECALLS, side="left") for row in recall]
    return np.array([values[index].mean() for values, index in zip(best, at, strict=True)])


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None
