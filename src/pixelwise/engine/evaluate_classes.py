"""Scoring a classifier on a data set: top-1 and top-5, accuracy by class, the confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.class_folder import ClassItem
from pixelwise.data.class_scan import ClassDataset
from pixelwise.engine import processes
from pixelwise.engine.classifier import BATCH, TOP, Classifier
from pixelwise.metrics import confusion_matrix
from pixelwise.metrics.classification import class_accuracies, top_k, true_ranks

CONFUSIONS = 8  # the largest ones, for the report
LEAST = 1e-12  # a probability that underflows to 0 would make the loss infinite
Protocol = dict[str, str | int | float | bool | None]


@dataclass(frozen=True, kw_only=True)
class ClassEvaluation:
    """The result over a data set.

    Attributes:
        classes: names in index order.
        names: of the images.
        labels: their true class ids, int64 (N,).
        probabilities: float32 (N, K).
        protocol: how it was measured.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    protocol: Protocol

    @property
    def loss(self) -> float:
        """Mean of -log p(true class) over the images, in nats."""
        true = np.take_along_axis(self.probabilities, self.labels[:, None], axis=1).astype(np.float64)
        return float(-np.log(np.maximum(true, LEAST)).mean())

    def to_json(self) -> dict[str, Any]:
        """Return the object that `evaluate --json` prints and `metrics.json` holds."""
        ranks = true_ranks(self.probabilities, self.labels)
        predicted = self.probabilities.argmax(axis=1)
        confusion = confusion_matrix(predicted, self.labels, len(self.classes))
        return {
            "metrics": {"top1": top_k(ranks, 1), "top5": top_k(ranks, TOP)},
            "per_class": class_accuracies(confusion, self.classes),
            "protocol": self.protocol,
            "num_images": len(self.names),
            "loss": self.loss,
            "confusion_matrix": confusion.tolist(),
            "per_image": [self._row(index, int(predicted[index]), int(ranks[index])) for index in range(len(ranks))],
            "confusions": self._confusions(confusion, predicted),
        }

    def _row(self, index: int, predicted: int, rank: int) -> dict[str, Any]:
        truth, row = int(self.labels[index]), self.probabilities[index]
        return {
            "name": self.names[index],
            "truth": self.classes[truth],
            "prediction": self.classes[predicted],
            "probability": round(float(row[predicted]), 6),
            "truth_probability": round(float(row[truth]), 6),
            "rank": rank + 1,
        }

    def _confusions(self, confusion: NDArray[np.int64], predicted: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Return the confusions of most images, each with its share of the true class and its most certain image."""
        wrong = confusion - np.diag(np.diag(confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
        found = []
        for truth, other in (divmod(int(place), len(self.classes)) for place in order):
            if not wrong[truth, other]:
                break
            here = np.flatnonzero((self.labels == truth) & (predicted == other))
            surest = here[self.probabilities[here, other].argmax()]
            found.append(
                {
                    "truth": self.classes[truth],
                    "prediction": self.classes[other],
                    "images": int(wrong[truth, other]),
                    "share": float(wrong[truth, other] / confusion[truth].sum()),
                    "image": self.names[surest],
                }
            )
        return found


def evaluate_classes(
    classifier: Classifier,
    dataset: ClassDataset,
    items: Sequence[ClassItem],
    *,
    split: str,
    crops: int = 1,
    index_of: Mapping[int, int] | None = None,
    share: tuple[int, int] = (0, 1),
    on_image: Callable[[int], None] | None = None,
) -> ClassEvaluation:
    """Classify every item and compare with its class.

    Args:
        classifier: the model.
        dataset: scanned images.
        items: what to score.
        split: name of the set, for the protocol.
        crops: 1 or 10.
        index_of: from the data's class ids to the model's; None where they are the same.
        share: (k, n) where n processes score together: this one takes every n-th item from k on.
        on_image: called with the number of images done.
    """
    part, parts = share
    own = items[part::parts]
    found = [np.empty((0, len(classifier.card.classes)), np.float32)]
    for start in range(0, len(own), BATCH):
        chunk = own[start : start + BATCH]
        found.append(classifier.probabilities([dataset.image(item) for item in chunk], crops=crops))
        if on_image is not None:
            on_image(start + len(chunk))
    classes = classifier.card.classes
    labels = [item.label if index_of is None else index_of[item.label] for item in items]
    protocol: Protocol = {
        "split": split,
        "crops": classifier.protocol(crops),
        "ties": "of equally likely classes the first in index order counts as the likelier",
        "average": "each image counts once",
    }
    if len(classes) <= TOP:
        protocol["top5_says_nothing"] = f"there are {len(classes)} classes"
    return ClassEvaluation(
        classes=classes,
        names=tuple(item.name for item in items),
        labels=np.array(labels, dtype=np.int64),
        probabilities=_interleaved(processes.gathered(np.concatenate(found))) if parts > 1 else np.concatenate(found),
        protocol=protocol,
    )


def _interleaved(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Put rows that were dealt out one after the other back into their order."""
    rows = np.empty((sum(len(part) for part in parts), parts[0].shape[1]), np.float32)
    for number, part in enumerate(parts):
        rows[number :: len(parts)] = part
    return rows
