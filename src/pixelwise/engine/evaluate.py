"""Scoring a model on a data set: one histogram over all pixels, at the labels' own size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pixelwise.data.dataset import Item
from pixelwise.data.images import AnyArray
from pixelwise.data.scan import Dataset
from pixelwise.engine import processes
from pixelwise.engine.given_boxes import GivenBoxes
from pixelwise.engine.objects import Objects, find_objects, given_objects, object_rule
from pixelwise.engine.predict import AnySegmenter
from pixelwise.engine.scoring import OBJECTS, BorderSplit, Case, Known, Reliability, Tally, build_tallies, check_metrics
from pixelwise.engine.views import STRIDE, Views
from pixelwise.metrics import confusion_matrix, semantic_scores

Protocol = dict[str, str | int | float | bool | None]
CONFUSIONS = 8  # the largest ones, for the report


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
        loss: mean of -log p(true class) over all counted pixels, in nats; None without probabilities.
        per_image: in the order of the items.
        protocol: how it was measured.
        more_metrics: scores beside those of the confusion matrix, by name.
        details: what else a report shows, by name.
        with_maps: label maps were compared; otherwise only objects were, and classes have no scores.
    """

    confusion: NDArray[np.int64]
    classes: tuple[str, ...]
    loss: float | None
    per_image: tuple[ImageScore, ...]
    protocol: Protocol
    more_metrics: Mapping[str, float | None] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    with_maps: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the object that `evaluate --json` prints and `metrics.json` holds."""
        scores = semantic_scores(self.confusion, self.classes).to_json()
        maps = scores if self.with_maps else {"metrics": {}, "per_class": {}}
        return {
            "metrics": {**maps["metrics"], **self.more_metrics},
            "per_class": maps["per_class"],
            "protocol": self.protocol,
            "num_images": len(self.per_image),
            "loss": self.loss,
            "confusion_matrix": self.confusion.tolist(),
            "per_image": [vars(score) for score in self.per_image],
            **self.details,
        }


def evaluate_items(
    segmenter: AnySegmenter,
    dataset: Dataset,
    items: Sequence[Item],
    *,
    split: str,
    metrics: Sequence[str] = (),
    views: Views | None = None,
    boxes: GivenBoxes | None = None,
    share: tuple[int, int] = (0, 1),
    more: Sequence[Tally] = (),
    on_image: Callable[[int], None] | None = None,
) -> Evaluation:
    """Predict every item and compare it with its labels, at their own size.

    With a share (k, n) this process takes every n-th item from k on, and all n of them end with the scores of all.

    Args:
        segmenter: the model, or a classical pipeline.
        dataset: scanned images and masks with the model's classes.
        items: what to score.
        split: name of the set, for the protocol.
        metrics: names of scores beside those of the confusion matrix and the calibration.
        views: how images are looked at; None sees them once, in their own size.
        boxes: what an instance-wise model sees of each item, in place of its own proposals.
        share: number of this process and of all, which score together; without metrics of their own.
        more: scores that have no name; by one process.
        on_image: called with the number of images done.
    """
    card, views = segmenter.card, views or Views()
    windows: list[tuple[int, int]] = []
    segmenter.check(views)
    known = known_of(segmenter, dataset, items)
    names = check_metrics(metrics, known)
    rule = object_rule(card) if set(names) & set(OBJECTS) else None
    scorer = Scorer(known, names, with_probabilities=True, more=more)
    for done, item in enumerate(items[share[0] :: share[1]], start=1):
        labels = dataset.labels(item)
        prediction = segmenter.view(dataset.image(item), views, None if boxes is None else boxes.of(item.name))
        windows += [] if prediction.window is None else [prediction.window]
        case = Case(
            labels=prediction.labels,
            truth=labels,
            probabilities=prediction.probabilities,
            objects=None if rule is None else find_objects(prediction.labels, prediction.probabilities, rule),
            true_objects=None if rule is None else true_objects(dataset, item, labels),
            image=prediction.image,
            unary=prediction.unary,
        )
        scorer.add(item.name, case)
        if on_image is not None:
            on_image(done)
    if share[1] > 1:
        scorer = merged(processes.gathered(scorer))
        windows = [window for part in processes.gathered(windows) for window in part]
    protocol: Protocol = {"split": split, "scale": card.scale, **views.protocol()}
    if windows:
        height, width = max(windows)
        where = "" if len(windows) == len(items) else f" for {len(windows)} large images"
        protocol["window"] = f"{height} x {width}, every {views.stride or STRIDE:.3g} of that, averaged{where}"
    if views.refiner is not None and (
        card.in_channels not in (1, 3) or card.normalisation.intensity_range != (0.0, 255.0)
    ):
        protocol["crf_image"] = "as a viewer shows it: 8 bits, stretched where deep, the first three channels"
    if segmenter.instance_wise is not None:
        protocol["boxes"] = segmenter.instance_wise.num_proposals
        protocol["proposals"] = "own" if boxes is None else f"given in {boxes.source.name}"
    if rule is not None:
        protocol["objects"] = f"watershed on the {'border' if rule.border is not None else 'distance'}"
    return scorer.result(protocol)


class Scorer:
    """All scores of a data set, fed image by image.

    Args:
        known: what is known of the data.
        names: metrics beside those of the confusion matrix.
        with_maps: there are label maps to score; without them there are objects only.
        with_probabilities: every image comes with probabilities: calibration is measured as well.
        more: scores that have no name.
    """

    def __init__(
        self,
        known: Known,
        names: Sequence[str],
        *,
        with_maps: bool = True,
        with_probabilities: bool = False,
        more: Sequence[Tally] = (),
    ) -> None:
        self.known = known
        self.with_maps = with_maps
        self.with_probabilities = with_probabilities
        # The first two are cheap, and every report shows them.
        always: list[Tally] = [Reliability(known)] if with_probabilities or "ece" in names else []
        always += [BorderSplit(known)] if with_maps else []
        self.tallies = [*always, *build_tallies([name for name in names if name != "ece"], known), *more]
        self.confusion = np.zeros((len(known.classes), len(known.classes)), dtype=np.int64)
        self.mixed = Confusions(known.classes)
        self.per_image: list[ImageScore] = []
        self.losses: list[tuple[float, int]] = []

    def add(self, name: str, case: Case) -> None:
        """Count one image."""
        classes, ignore = self.known.classes, self.known.ignore_index
        score = ImageScore(name=name, miou=None, pixel_accuracy=None)
        if self.with_maps:
            matrix = confusion_matrix(case.labels, case.truth, len(classes), ignore)
            self.confusion += matrix
            self.mixed.add(name, matrix)
            scores = semantic_scores(matrix, classes)
            score = ImageScore(name=name, miou=scores.miou, pixel_accuracy=scores.pixel_accuracy)
        self.per_image.append(score)
        if case.probabilities is not None:
            self.losses.append(_log_loss(case.probabilities, case.truth, ignore))
        for tally in self.tallies:
            tally.add(case)

    def result(self, protocol: Protocol) -> Evaluation:
        """Return the scores of all images so far, and how they were measured after what `protocol` says."""
        ignore = self.known.ignore_index
        pixels = sum(counted for _, counted in self.losses)
        loss = sum(summed for summed, _ in self.losses) / max(1, pixels)
        said: Protocol = {
            **protocol,
            "resolution": "the labels' own size",
            "ignored": "none" if ignore is None else f"pixels with value {ignore}",
            "average": "one confusion matrix over all images",
            "absent_classes": "a class neither in truth nor predicted is left out of the means",
        }
        details: dict[str, Any] = {"confusions": self.mixed.largest(self.confusion)} if self.with_maps else {}
        return Evaluation(
            confusion=self.confusion,
            classes=self.known.classes,
            loss=loss if self.with_probabilities else None,
            per_image=tuple(self.per_image),
            protocol=said | {key: value for tally in self.tallies for key, value in tally.protocol().items()},
            more_metrics={key: value for tally in self.tallies for key, value in tally.values().items()},
            details=details | {key: value for tally in self.tallies for key, value in tally.details().items()},
            with_maps=self.with_maps,
        )


def merged(parts: Sequence[Scorer]) -> Scorer:
    """Return the scores of all images together, as if the first one of the parts had seen them all.

    Args:
        parts: fed with images that were dealt out to them one after the other, without metrics of their own.
    """
    whole, *others = parts
    whole.per_image, per_image = [], [part.per_image for part in parts]
    whole.losses, losses = [], [part.losses for part in parts]
    for turn in range(len(per_image[0])):
        whole.per_image += [scores[turn] for scores in per_image if turn < len(scores)]
        whole.losses += [values[turn] for values in losses if turn < len(values)]
    order = [score.name for score in whole.per_image]
    for other in others:
        whole.confusion += other.confusion
        whole.mixed.merge(other.mixed, order)
        for mine, theirs in zip(whole.tallies, other.tallies, strict=True):
            assert isinstance(mine, Reliability | BorderSplit), f"{type(mine).__name__} is not shared"
            mine.merge(theirs)  # type: ignore[arg-type]
    return whole


def known_of(segmenter: AnySegmenter, dataset: Dataset, items: Sequence[Item]) -> Known:
    """Say what is known of the data, and of the model where the data is silent."""
    boundary = dataset.card.boundary_class
    return Known(
        classes=segmenter.card.classes,
        ignore_index=dataset.card.ignore_index,
        boundary_class=segmenter.card.boundary_class if boundary is None else boundary,
        has_objects=all(dataset.has_objects(item) for item in items),
    )


def true_objects(dataset: Dataset, item: Item, labels: AnyArray) -> Objects:
    """Return the true objects of an item that has them, each with the class of most of its pixels."""
    ids = dataset.instances(item)
    assert ids is not None
    return given_objects(ids, labels)


class Confusions:
    """Which image shows each confusion of two classes best."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.most = np.zeros((len(classes), len(classes)), dtype=np.int64)
        self.where: dict[tuple[int, int], str] = {}

    def add(self, name: str, matrix: NDArray[np.int64]) -> None:
        """Take in the confusion matrix of one image."""
        for truth, prediction in np.argwhere(matrix > self.most).tolist():
            self.where[truth, prediction] = name
        np.maximum(self.most, matrix, out=self.most)

    def merge(self, other: Confusions, order: Sequence[str]) -> None:
        """Take in those of other images; of equals the image that comes first in order counts, as it does in one."""
        rank = {name: place for place, name in enumerate(order)}
        for place, name in other.where.items():
            more = other.most[place] - self.most[place]
            if more > 0 or (more == 0 and rank[name] < rank[self.where[place]]):
                self.where[place] = name
        np.maximum(self.most, other.most, out=self.most)

    def largest(self, total: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Return the confusions of most pixels, each with its share of the true class and the image of most pixels."""
        wrong = total - np.diag(np.diag(total))
        order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
        pairs = [divmod(int(place), len(self.classes)) for place in order]
        return [
            {
                "truth": self.classes[truth],
                "prediction": self.classes[prediction],
                "pixels": int(wrong[truth, prediction]),
                "share": float(wrong[truth, prediction] / total[truth].sum()),
                "image": self.where[truth, prediction],
            }
            for truth, prediction in pairs
            if wrong[truth, prediction]
        ]


def _log_loss(probabilities: torch.Tensor, labels: NDArray[Any], ignore: int | None) -> tuple[float, int]:
    """Return the sum of -log p(true class) over the counted pixels, and their number."""
    truth = torch.from_numpy(labels.astype(np.int64)).to(probabilities.device)
    valid = torch.ones_like(truth, dtype=torch.bool) if ignore is None else truth != ignore
    chosen = probabilities.gather(0, truth.where(valid, 0)[None])[0]
    # Probabilities that underflow to 0 would make the mean infinite.
    total = -chosen.clamp(min=1e-12).log()[valid].sum()
    return float(total), int(valid.sum())
