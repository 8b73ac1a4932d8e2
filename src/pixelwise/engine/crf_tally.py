"""Several CRFs side by side: what each makes of the same probabilities, in the scores of a data set.

Before deep learning a pixel classifier's labels were noisy, and a CRF cleaned them up: first one of short range, whose
price for different labels of neighbours falls with the contrast between them, then one that connects all pixels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pixelwise.classical.location import LocationPotential
from pixelwise.classical.texton_crf import TextonCRF
from pixelwise.crf.refiner import Refiner, refiner_of
from pixelwise.data.images import AnyArray
from pixelwise.engine.refinement import refined
from pixelwise.engine.scoring import Case, Known, Values
from pixelwise.engine.texton_refiner import TextonRefiner
from pixelwise.engine.views import TEXTON
from pixelwise.metrics import confusion_matrix, semantic_scores

KEY = "crf_comparison"  # in metrics.json and what `evaluate --json` prints
NONE = "none"
GRIDS = ("grid4", "grid8")
DENSE = "pydensecrf_default"
SHOWN = (GRIDS[-1], DENSE)  # in the report's pictures
SCORES = ("miou", "pixel_accuracy", "mean_accuracy")


def compared_refiners(location: LocationPotential | None) -> dict[str, Refiner | None]:
    """Return what is compared, by name: nothing, the CRFs of 4 and 8 neighbours, TextonBoost's, the dense one.

    Args:
        location: of a run, for TextonBoost's; None leaves that out.
    """
    own: dict[str, Refiner | None] = {}
    if location is not None:
        own[TEXTON] = TextonRefiner(crf=TextonCRF(location=location))
    return {NONE: None, **{name: refiner_of(name) for name in GRIDS}, **own, DENSE: refiner_of(DENSE)}


class CRFTally:
    """Scores of the labels that CRFs make of each image's probabilities, before any other CRF; a `Tally`.

    Args:
        known: what is known of the data.
        refiners: by name; None takes the likeliest classes.
        timed: note the seconds of each, too, which differ from run to run.
    """

    def __init__(self, known: Known, refiners: Mapping[str, Refiner | None], *, timed: bool = False) -> None:
        self.known = known
        self.refiners = dict(refiners)
        self.timed = timed
        size = len(known.classes)
        self.confusions = {name: np.zeros((size, size), dtype=np.int64) for name in refiners}
        self.seconds = dict.fromkeys(refiners, 0.0)
        self.num_images = 0

    def add(self, case: Case) -> None:
        """Count one image, whose case holds the image and its unary."""
        assert case.image is not None
        assert case.unary is not None
        if self.timed and not self.num_images:  # the first time compiles
            for refiner in self.refiners.values():
                labels_by(refiner, case)
        self.num_images += 1
        for name, refiner in self.refiners.items():
            begun = time.perf_counter()
            labels = labels_by(refiner, case)
            self.seconds[name] += time.perf_counter() - begun
            self.confusions[name] += confusion_matrix(
                labels, case.truth, len(self.known.classes), self.known.ignore_index
            )

    def values(self) -> Values:
        """Return no scores: those of the run are another matter."""
        return {}

    def details(self) -> dict[str, Any]:
        """Return a row for each CRF: name, scores, what it is, and on how many images that was measured."""
        return {KEY: {"num_images": self.num_images, "rows": [self._row(name) for name in self.refiners]}}

    def protocol(self) -> dict[str, str]:
        """Return nothing: the rows say how they were made."""
        return {}

    def _row(self, name: str) -> dict[str, Any]:
        refiner = self.refiners[name]
        scores = semantic_scores(self.confusions[name], self.known.classes).to_json()["metrics"]
        row: dict[str, Any] = {"crf": name, **{key: scores[key] for key in SCORES}}
        if self.timed:
            row["seconds"] = round(self.seconds[name] / max(1, self.num_images), 4)
        return row | ({} if refiner is None else {"protocol": refiner.protocol()})


def labels_by(refiner: Refiner | None, case: Case) -> AnyArray:
    """Return the labels (H, W) that a refiner makes of a case's unary; None takes the likeliest."""
    assert case.image is not None
    assert case.unary is not None
    if refiner is None:
        return case.unary.argmax(dim=0).cpu().numpy()
    return refined(refiner, case.image, case.unary)[0]


def some_of(items: Sequence[Any], count: int) -> list[Any]:
    """Return so many items, evenly spread."""
    return list(items[:: -(-len(items) // count)])
