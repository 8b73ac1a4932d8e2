"""Scores by name: which parts of a prediction each needs, and one tally that is fed image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.data.images import AnyArray
from pixelwise.engine.objects import MOST_OBJECTS, Objects
from pixelwise.errors import RequestError, closest
from pixelwise.metrics.boundary import BoundaryBands, BoundaryIoU
from pixelwise.metrics.boundary_f1 import BoundaryF1
from pixelwise.metrics.calibration import Calibration
from pixelwise.metrics.cells import CellTally
from pixelwise.metrics.electron_microscopy import MembraneTally
from pixelwise.metrics.objects import ObjectTally

BASIC = ("miou", "pixel_accuracy", "mean_accuracy", "fwiou")
MEMBRANES = ("vrand", "vinfo", "rand_error", "pixel_error", "warping_error")
OBJECTS = ("seg", "ap", "ap50", "ap75", "pq", "dsb2018")
METRICS = (*BASIC, "boundary_iou", "bf", *MEMBRANES, *OBJECTS, "ece")
BOUNDARY_PIXELS = 7.0  # from a true border: the split of Peng et al., "Large Kernel Matters"

Values = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image's prediction and truth.

    Attributes:
        labels: predicted class ids (H, W).
        truth: true class ids (H, W).
        probabilities: float (K, H, W), None where the prediction is labels only.
        objects: predicted objects, None where none were asked for.
        true_objects: true objects, None where the data has none.
        image: stored values (H, W, C), None where the prediction came without.
        unary: float (K, H, W), the probabilities before any CRF; None likewise.
    """

    labels: AnyArray
    truth: AnyArray
    probabilities: Tensor | None = None
    objects: Objects | None = None
    true_objects: Objects | None = None
    image: AnyArray | None = None
    unary: Tensor | None = None


class Tally(Protocol):
    """A score, or several that share their work."""

    def add(self, case: Case) -> None:
        """Count one image."""

    def values(self) -> Values:
        """Return the scores of all images so far."""

    def details(self) -> dict[str, Any]:
        """Return what else is worth keeping, for a report."""

    def protocol(self) -> dict[str, str]:
        """Return how it was measured."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of the data that is scored.

    Attributes:
        classes: names in index order.
        ignore_index: label that does not count.
        boundary_class: id of the class between objects.
        has_objects: every scored image comes with true objects.
    """

    classes: tuple[str, ...]
    ignore_index: int | None
    boundary_class: int | None = None
    has_objects: bool = False

    def counted(self, truth: AnyArray) -> NDArray[np.bool_]:
        """Return the pixels that count, bool (H, W)."""
        counted: NDArray[np.bool_] = np.ones(truth.shape, np.bool_)
        return counted if self.ignore_index is None else np.asarray(truth != self.ignore_index)


def check_metrics(names: Sequence[str], known: Known) -> tuple[str, ...]:
    """Return the names in the order of `METRICS`, each once.

    Raises:
        RequestError: one is unknown, or asks of the data what it does not hold.
    """
    for name in names:
        if name not in METRICS:
            raise RequestError(
                f"unknown metric {name!r}; closest: {closest(name, METRICS)}. Accepted: {', '.join(METRICS)}."
            )
        if name in MEMBRANES and known.boundary_class is None:
            raise RequestError(
                f"metric {name} compares cells between boundaries, and it is not known which class is the boundary "
                f'(classes: {", ".join(known.classes[:8])}); accepted: data with "boundary_class" in dataset.json, its '
                "name or number. Add it there, or give --boundary-class."
            )
        if name in OBJECTS and not known.has_objects:
            raise RequestError(
                f"metric {name} compares objects, and the data has no object ids; accepted: data with "
                "instances/<split>/NAME.png (16-bit object ids) for every image. Add them, or leave the metric out."
            )
    return tuple(name for name in METRICS if name in names)


def build_tallies(names: Sequence[str], known: Known) -> list[Tally]:
    """Return what counts the metrics of these names; `BASIC` ones come from the confusion matrix elsewhere."""
    wanted = set(names)
    makers: list[tuple[tuple[str, ...], Callable[[], Tally]]] = [
        (("boundary_iou",), lambda: _BoundaryIoU(known)),
        (("bf",), lambda: _BF(known)),
        (MEMBRANES, lambda: _Membranes(known, sorted(wanted & set(MEMBRANES), key=MEMBRANES.index))),
        (OBJECTS, lambda: _ObjectScores(known, sorted(wanted & set(OBJECTS), key=OBJECTS.index))),
        (("ece",), lambda: Reliability(known)),
    ]
    return [make() for group, make in makers if wanted & set(group)]


class Reliability:
    """Calibration of the confidence in the predicted class."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.tally = Calibration()

    def add(self, case: Case) -> None:
        """Count one image."""
        if case.probabilities is None:
            raise RequestError(
                "metric ece needs probabilities, and the predictions are labels only; accepted: NAME.npy, float "
                "(classes, height, width), as predict --probabilities writes. Add them, or leave ece out."
            )
        confidence = case.probabilities.amax(dim=0).cpu().numpy()
        self.tally.add(confidence, case.labels == case.truth, self.known.counted(case.truth))

    def merge(self, other: Reliability) -> None:
        """Add what another one has counted."""
        self.tally.merge(other.tally)

    def values(self) -> Values:
        """Return the expected calibration error."""
        return {"ece": self.tally.result().ece}

    def details(self) -> dict[str, Any]:
        """Return the bins of the reliability diagram."""
        scores = self.tally.result()
        return {"calibration": {"mce": scores.mce, "bins": [vars(entry) for entry in scores.bins]}}

    def protocol(self) -> dict[str, str]:
        """Say how it was measured."""
        return {"ece": "15 bins of the predicted class's probability, all counted pixels (Guo et al. 2017)"}


class BorderSplit:
    """Scores near true borders and in the interior."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.tally = BoundaryBands(len(known.classes), ignore_index=known.ignore_index, distances=(BOUNDARY_PIXELS,))

    def add(self, case: Case) -> None:
        """Count one image."""
        self.tally.add(case.labels, case.truth)

    def merge(self, other: BorderSplit) -> None:
        """Add what another one has counted."""
        self.tally.merge(other.tally)

    def values(self) -> Values:
        """Return nothing: the split is a detail of other scores."""
        return {}

    def details(self) -> dict[str, Any]:
        """Return accuracy and mean IoU of both sides, and how the wrong pixels divide among them."""
        (band,) = self.tally.result(self.known.classes)
        sides = {}
        for name, scores in (("boundary", band.within), ("interior", band.beyond)):
            pixels = sum(row.truth_pixels for row in scores.per_class)
            right = 0.0 if scores.pixel_accuracy is None else scores.pixel_accuracy * pixels
            sides[name] = {
                "pixel_accuracy": scores.pixel_accuracy,
                "miou": scores.miou,
                "pixels": pixels,
                "wrong_pixels": round(pixels - right),
            }
        return {"border_split": {"distance": BOUNDARY_PIXELS, **sides}}

    def protocol(self) -> dict[str, str]:
        """Say how it was measured."""
        return {}


class _BoundaryIoU:
    def __init__(self, known: Known) -> None:
        self.known = known
        self.tally = BoundaryIoU(len(known.classes), ignore_index=known.ignore_index)

    def add(self, case: Case) -> None:
        self.tally.add(case.labels, case.truth)

    def values(self) -> Values:
        return {"boundary_iou": self.tally.result().boundary_iou}

    def details(self) -> dict[str, Any]:
        per_class = self.tally.result().per_class
        return {"boundary_iou_per_class": dict(zip(self.known.classes, per_class, strict=True))}

    def protocol(self) -> dict[str, str]:
        return {"boundary_iou": "bands of 2 % of the image diagonal, summed over all images (Cheng et al. 2021)"}


class _BF:
    def __init__(self, known: Known) -> None:
        self.known = known
        self.tally = BoundaryF1(len(known.classes), ignore_index=known.ignore_index)

    def add(self, case: Case) -> None:
        self.tally.add(case.labels, case.truth)

    def values(self) -> Values:
        return {"bf": self.tally.result().bf}

    def details(self) -> dict[str, Any]:
        per_class = self.tally.result().per_class
        return {"bf_per_class": dict(zip(self.known.classes, per_class, strict=True))}

    def protocol(self) -> dict[str, str]:
        return {
            "bf": "outlines matched one to one within 0.75 % of the image diagonal; mean over the classes of an image, "
            "then over images (SegNet)"
        }


class _Membranes:
    def __init__(self, known: Known, names: Sequence[str]) -> None:
        assert known.boundary_class is not None
        self.known, self.names, self.boundary = known, names, known.boundary_class
        self.tally = MembraneTally(with_warping_error="warping_error" in names)
        self.labels_only = False

    def add(self, case: Case) -> None:
        if case.probabilities is None:
            interior: AnyArray = case.labels != self.boundary
            self.labels_only = True
        else:
            interior = (1 - case.probabilities[self.boundary].float()).clamp(0, 1).cpu().numpy()
        # Ignored pixels count as membrane of the truth: V_rand and V_info look at true cells only.
        self.tally.add(interior, (case.truth != self.boundary) & self.known.counted(case.truth))

    def values(self) -> Values:
        best = self.tally.result().best
        return {name: getattr(best[name], name) if name in best else None for name in self.names}

    def details(self) -> dict[str, Any]:
        return {"membranes": self.tally.result().to_json()}

    def protocol(self) -> dict[str, str]:
        best = self.tally.result().best
        thresholds = ", ".join(f"{name} {best[name].threshold:.1f}" for name in self.names if name in best)
        said = f"boundary class {self.known.classes[self.boundary]!r}; mean over slices"
        if not self.labels_only:
            said += f"; best of 11 thresholds of the interior's probability for each ({thresholds})"
        return {"membranes": said + "; V_rand and V_info after thinning, 4-connected (ISBI 2012)"}


class _ObjectScores:
    def __init__(self, known: Known, names: Sequence[str]) -> None:
        self.known, self.names = known, names
        self.cells = CellTally()
        self.tally = ObjectTally(max_detections=MOST_OBJECTS)
        self.limited = {"ap", "ap50", "ap75"} & set(names)

    def add(self, case: Case) -> None:
        found, true = case.objects, case.true_objects
        assert found is not None
        assert true is not None
        if self.limited and found.scores is None:
            raise RequestError(
                f"metric {min(self.limited)} ranks objects by their confidence, and the predictions have none; "
                "accepted: objects.csv beside them with the columns image, id and score, as predict --instances "
                "writes. Add it, or leave the metric out."
            )
        self.cells.add(found.ids, true.ids)
        self.tally.add(
            found.ids,
            true.ids,
            scores=None if found.scores is None else dict(enumerate(found.scores.tolist(), start=1)),
            predicted_classes=dict(enumerate(found.classes.tolist(), start=1)),
            true_classes=dict(enumerate(true.classes.tolist(), start=1)),
        )

    def values(self) -> Values:
        found = {**vars(self.tally.result()), "seg": self.cells.result().seg}
        return {name: found[name] for name in self.names}

    def details(self) -> dict[str, Any]:
        return {"objects": {"cells": self.cells.result().to_json(), **self.tally.result().to_json()}}

    def protocol(self) -> dict[str, str]:
        scores = self.cells.result()
        said = (
            f"{scores.num_predicted} predicted, {scores.num_reference} true ones; {scores.false_positives} predicted "
            f"ones match nothing, {scores.num_reference - scores.num_matched} true ones are missed (cover of one half)"
        )
        return {"objects_found": said, "object_scores": "no limit of objects an image; SEG without margin"}
