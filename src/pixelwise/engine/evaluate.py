"""Scoring a model on a data set: one histogram over all pixels, at the labels' own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pixelwise.data.dataset import Item
from pixelwise.data.scan import Dataset
from pixelwise.engine.predict import Segmenter
from pixelwise.metrics import confusion_matrix, semantic_scores

Protocol = dict[str, str | int | float | bool | None]


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """Scores of one image; None where it has no labelled pixel."""

    name: str
    miou: float | None
    pixel_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result over a data set.

    Attributes:
        confusion: int64 (K, K), rows truth.
        classes: names in index order.
        loss: mean of -log p(true class) over all counted pixels, in nats.
        per_image: in the order of the items.
        protocol: how it was measured.
    """

    confusion: NDArray[np.int64]
    classes: tuple[str, ...]
    loss: float
    per_image: tuple[ImageScore, ...]
    protocol: Protocol

    def to_json(self) -> dict[str, Any]:
        """Return the object that `evaluate --json` prints and `metrics.json` holds."""
        scores = semantic_scores(self.confusion, self.classes).to_json()
        return {
            "metrics": scores["metrics"],
            "per_class": scores["per_class"],
            "protocol": self.protocol,
            "num_images": len(self.per_image),
            "loss": self.loss,
            "confusion_matrix": self.confusion.tolist(),
            "per_image": [vars(score) for score in self.per_image],
        }


def evaluate_items(
    segmenter: Segmenter,
    dataset: Dataset,
    items: Sequence[Item],
    *,
    split: str,
    tile: int | None = None,
    flip: bool = False,
    on_image: Callable[[int], None] | None = None,
) -> Evaluation:
    """Predict every item and compare it with its labels, at their own size.

    Args:
        segmenter: the model.
        dataset: scanned images and masks with the model's classes.
        items: what to score.
        split: name of the set, for the protocol.
        tile: input side of a window; None as in `Segmenter.predict`.
        flip: average over mirrored images.
        on_image: called with the number of images done.
    """
    card = segmenter.card
    ignore = dataset.card.ignore_index
    confusion = np.zeros((card.num_classes, card.num_classes), dtype=np.int64)
    per_image: list[ImageScore] = []
    loss, counted = 0.0, 0
    for done, item in enumerate(items, start=1):
        labels = dataset.labels(item)
        prediction = segmenter.predict(dataset.image(item), tile=tile, flip=flip)
        matrix = confusion_matrix(prediction.labels, labels, card.num_classes, ignore)
        confusion += matrix
        image_loss, pixels = _log_loss(prediction.probabilities, labels, ignore)
        loss, counted = loss + image_loss, counted + pixels
        scores = semantic_scores(matrix, card.classes)
        per_image.append(ImageScore(name=item.name, miou=scores.miou, pixel_accuracy=scores.pixel_accuracy))
        if on_image is not None:
            on_image(done)
    protocol: Protocol = {
        "split": split,
        "resolution": "the labels' own size",
        "scale": card.scale,
        "flip": flip,
        "tile": tile,
        "ignored": "none" if ignore is None else f"pixels with value {ignore}",
        "average": "one confusion matrix over all images",
        "absent_classes": "a class neither in truth nor predicted is left out of the means",
    }
    return Evaluation(
        confusion=confusion,
        classes=card.classes,
        loss=loss / max(1, counted),
        per_image=tuple(per_image),
        protocol=protocol,
    )


def _log_loss(probabilities: torch.Tensor, labels: NDArray[Any], ignore: int | None) -> tuple[float, int]:
    """Return the sum of -log p(true class) over the counted pixels, and their number."""
    truth = torch.from_numpy(labels.astype(np.int64)).to(probabilities.device)
    valid = torch.ones_like(truth, dtype=torch.bool) if ignore is None else truth != ignore
    chosen = probabilities.gather(0, truth.where(valid, 0)[None])[0]
    # Probabilities that underflow to 0 would make the mean infinite.
    total = -chosen.clamp(min=1e-12).log()[valid].sum()
    return float(total), int(valid.sum())
