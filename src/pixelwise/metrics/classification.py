"""Top-k accuracy of image classifiers, with ties defined, and accuracy by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import RequestError


def true_ranks(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return at which place the true class of each image stands, from 0.

    The place is the number of classes that are likelier, and of those that are as likely and have a lower index, so
    that place 0 is the class that `argmax` takes, and exactly k classes stand on the first k places.

    Args:
        probabilities: (N, K), or any scores by which classes are ranked; finite.
        labels: true class ids, (N,).

    Raises:
        RequestError: if the shapes do not fit, or a score is not finite.

    >>> true_ranks(np.array([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2]]), np.array([0, 1])).tolist()
    [0, 1]
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise RequestError(
            f"probabilities are {probabilities.shape} and labels {labels.shape}; accepted: (N, K) and (N,). Give one "
            "row and one class id for each image."
        )
    if not np.isfinite(probabilities).all():
        raise RequestError("probabilities hold values that are not finite; accepted: numbers. Look at the model.")
    true = np.take_along_axis(probabilities, labels[:, None].astype(np.int64), axis=1)  # (N, 1)
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > true) | ((probabilities == true) & before)  # (N, K)
    return np.asarray(np.count_nonzero(ahead, axis=1), dtype=np.int64)


def top_k(ranks: NDArray[np.int64], k: int) -> float:
    """Return the share of images whose true class is among the first k; 1 where there are no more classes than k.

    >>> top_k(np.array([0, 1, 5, 4]), 5)
    0.75
    """
    return float(np.mean(ranks < k))


def class_accuracies(confusion: NDArray[np.int64], classes: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """Return `accuracy`, `truth_images` and `predicted_images` of each class; None where no image has it.

    Args:
        confusion: int64 (K, K), rows truth, counted in images.
        classes: names in index order.
    """
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return {
        name: {
            "accuracy": float(confusion[index, index] / truth[index]) if truth[index] else None,
            "truth_images": int(truth[index]),
            "predicted_images": int(predicted[index]),
        }
        for index, name in enumerate(classes)
    }
