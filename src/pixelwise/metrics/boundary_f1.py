"""BF, the F1 score of class outlines: how much of them lies within a small distance of the other map's.

Per image and class, recall is the share of the truth's outline with a partner on the predicted outline no further
than r pixels away, precision the share of the predicted one with a partner on the truth's, and
F1 = 2 precision recall / (precision + recall). The score of an image is the mean over the classes that have an
outline in its truth or its prediction, the score of the data set the mean over its images.

Two variants, named by what a partner is:

| matching     | outline                                       | partner                                              |
|--------------|-----------------------------------------------|------------------------------------------------------|
| one_to_one   | pixels whose 2 x 2 block, down and right, is  | each pixel serves one other, as many pairs as can be |
|              | partly of the class                           | (maximum matching)                                   |
| distance     | pixels of the class with a 4-neighbour that   | any pixel, also one that serves others               |
|              | is not                                        |                                                      |

"one_to_one" is the script of SegNet (Badrinarayanan, Kendall and Cipolla, PAMI 2017; SegNet-Tutorial, commit
bb68b64, Scripts/computeBFmeasure.m), which calls the Berkeley benchmark. That minimises a cost in which a pixel
without a partner weighs 100 times the largest distance: a maximum matching, up to a random thinning of its graph
that loses 0.1 % of the pairs on CamVid (BF 0.5228 against 0.5230 here). "distance" is the measure of Csurka et al.,
"What is a good evaluation measure for semantic segmentation?", BMVC 2013, as most programs have it; its values are
mostly higher.

The edge of the image is no outline in either. Departures from the script: ignored pixels (see `score_ignored`), and
an image without any outline is left out, where the script counts it as 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from pixelwise.errors import RequestError
from pixelwise.metrics.boundary import ClassMap, border_pixels, class_maps, diagonal, empty_confusion
from pixelwise.metrics.compiled import compile_loop

Matching: TypeAlias = Literal["one_to_one", "distance"]
Indices: TypeAlias = npt.NDArray[np.int64]
Nodes: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class BoundaryF1Scores:
    """BF of a data set; every value is in [0, 1].

    Attributes:
        bf: mean over the images that have an outline in truth or prediction; None without any.
        per_class: by class id, mean F1 over the images where the class has an outline; None for one without any.
        per_image: in the order of adding; None for an image without any outline.
    """

    bf: float | None
    per_class: tuple[float | None, ...]
    per_image: tuple[float | None, ...]


class BoundaryF1:
    """BF of a data set, image by image.

    Args:
        num_classes: K.
        ignore_index: truth value of the pixels to leave out. A border to them is an outline of the class.
        matching: "one_to_one" or "distance", as in the table above.
        max_distance: r as a share of the image diagonal, above 0 and at most 1; 0.0075 gives 4.5 pixels at
            480 x 360.
        score_ignored: take the prediction on ignored pixels as it is, so that outlines there count as false: the
            script of SegNet does. Otherwise it is free there.

    >>> scored = BoundaryF1(2, matching="distance", max_distance=0.2)
    >>> scored.add([[0, 0, 0, 0, 1, 1]], [[0, 0, 0, 1, 1, 1]])
    >>> scored.result().bf
    1.0
    """

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_index: int | None = None,
        matching: Matching = "one_to_one",
        max_distance: float = 0.0075,
        score_ignored: bool = False,
    ) -> None:
        if matching not in get_args(Matching):
            raise RequestError(
                f"matching is {matching!r}. Accepted are 'one_to_one' (the script of SegNet) and 'distance' "
                "(Csurka et al.). Choose one of them."
            )
        if not 0 < max_distance <= 1:
            raise RequestError(
                f"max_distance is {max_distance}. Accepted are shares of the image diagonal above 0, up to 1. "
                "SegNet's is 0.0075."
            )
        self.num_classes = len(empty_confusion(num_classes))
        self.ignore_index = ignore_index
        self.matching = matching
        self.max_distance = max_distance
        self.score_ignored = score_ignored
        self._images: list[list[float | None]] = []

    def add(self, prediction: npt.ArrayLike, truth: npt.ArrayLike) -> None:
        """Score one image; both (H, W), integer or bool."""
        predicted, true = class_maps(
            prediction, truth, self.num_classes, self.ignore_index, score_ignored=self.score_ignored
        )
        grid = _grid(true.shape, self.max_distance * diagonal(true))
        if self.matching == "one_to_one":
            find, score = _mixed_blocks, _one_to_one_f1
        else:
            find, score = _inner_outlines, _distance_f1
        predicted_outlines, true_outlines = (
            _by_class(find(labels), self.num_classes, grid) for labels in (predicted, true)
        )
        self._images.append(
            [
                score(of_prediction, of_truth, grid) if of_prediction.size or of_truth.size else None
                for of_prediction, of_truth in zip(predicted_outlines, true_outlines, strict=True)
            ]
        )

    def result(self) -> BoundaryF1Scores:
        """Return the scores of everything added so far."""
        per_image = tuple(_mean(image) for image in self._images)
        return BoundaryF1Scores(
            bf=_mean(per_image),
            per_class=tuple(_mean([image[k] for image in self._images]) for k in range(self.num_classes)),
            per_image=per_image,
        )


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def _mixed_blocks(labels: ClassMap) -> tuple[Indices, ClassMap]:
    """Find the outlines of SegNet's script, which lie half a pixel up and left of the true ones.

    Returns:
        Flat index in the image of each pixel whose block of itself, the one below, the one to the right and the
        one between these holds several labels, once for each of the labels; and that label. (P,) both.
    """
    padded = np.pad(labels, ((0, 1), (0, 1)), "edge")
    block = [padded[:-1, :-1], padded[1:, :-1], padded[:-1, 1:], padded[1:, 1:]]
    pixels = np.flatnonzero((block[0] != block[1]) | (block[0] != block[2]) | (block[0] != block[3]))
    corners = np.stack([corner[np.unravel_index(pixels, labels.shape)] for corner in block])  # (4, P)
    new = np.ones(corners.shape, np.bool_)
    for i in range(1, 4):
        new[i] = (corners[i] != corners[:i]).all(axis=0)
    return np.broadcast_to(pixels, corners.shape)[new], corners[new]


def _inner_outlines(labels: ClassMap) -> tuple[Indices, ClassMap]:
    """Find the pixels on the inner side of each outline: flat index in the image and label, (P,) both."""
    pixels = np.flatnonzero(border_pixels(labels))
    return pixels, labels.reshape(-1)[pixels]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Grid:
    """The image with a margin as wide as the search, flat, so that a step never leaves it.

    Attributes:
        width: of the image.
        margin: pixels added on each side.
        steps: offsets of flat indices to all pixels within the radius, the nearest first.
        nodes: for each pixel of the grid the number of the node that stands there, or -1; scratch.
    """

    width: int
    margin: int
    steps: Indices
    nodes: Nodes


def _grid(shape: tuple[int, int], radius: float) -> _Grid:
    height, width = shape
    margin = min(int(radius), max(shape))
    row_length = width + 2 * margin
    rows, columns = np.mgrid[-margin : margin + 1, -margin : margin + 1]
    squares = rows**2 + columns**2
    nearest_first = np.argsort(squares, axis=None, kind="stable")[: np.count_nonzero(squares <= radius**2)]
    return _Grid(
        width=width,
        margin=margin,
        steps=(rows * row_length + columns).reshape(-1)[nearest_first],
        nodes=np.full((height + 2 * margin) * row_length, -1, np.int32),
    )


def _by_class(outlines: tuple[Indices, ClassMap], num_classes: int, grid: _Grid) -> list[Indices]:
    """Split flat indices in the image by their labels, into K arrays of indices in the grid."""
    pixels, labels = outlines
    order = np.argsort(labels, kind="stable")
    rows, columns = np.divmod(pixels[order], grid.width)
    places = (rows + grid.margin) * (grid.width + 2 * grid.margin) + columns + grid.margin
    ends = np.searchsorted(labels[order], np.arange(num_classes), side="right")
    return np.split(places, ends)[:num_classes]


def _one_to_one_f1(prediction: Indices, truth: Indices, grid: _Grid) -> float:
    of_prediction, of_truth = np.full(prediction.size, -1, np.int32), np.full(truth.size, -1, np.int32)
    grid.nodes[prediction] = np.arange(prediction.size)
    for pair in _loops().pair_nearest, _loops().pair_others:
        pair(truth, grid.steps, grid.nodes, of_truth, of_prediction)
    grid.nodes[prediction] = -1
    return 2 * int(np.count_nonzero(of_truth >= 0)) / (prediction.size + truth.size)


def _distance_f1(prediction: Indices, truth: Indices, grid: _Grid) -> float:
    precision, recall = _share_near(prediction, truth, grid), _share_near(truth, prediction, grid)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _share_near(pixels: Indices, others: Indices, grid: _Grid) -> float:
    grid.nodes[others] = 0
    near = _loops().count_near(pixels, grid.steps, grid.nodes)
    grid.nodes[others] = -1
    return near / max(1, pixels.size)


class _Loops(NamedTuple):
    pair_nearest: Callable[[Indices, Indices, Nodes, Nodes, Nodes], None]
    pair_others: Callable[[Indices, Indices, Nodes, Nodes, Nodes], None]
    count_near: Callable[[Indices, Indices, Nodes], int]


@functools.cache
def _loops() -> _Loops:
    pairing = "void(int64[::1], int64[::1], int32[::1], int32[::1], int32[::1])"
    return _Loops(
        pair_nearest=compile_loop(_pair_nearest, [pairing]),
        pair_others=compile_loop(_pair_others, [pairing]),
        count_near=compile_loop(_count_near, ["int64(int64[::1], int64[::1], int32[::1])"]),
    )


def _pair_nearest(truth: Indices, steps: Indices, nodes: Nodes, of_truth: Nodes, of_prediction: Nodes) -> None:
    """Give each pixel of the truth the nearest free one of the prediction, the shortest distances first."""
    free = np.arange(truth.size)
    num_free = truth.size
    for step in steps:
        still_free = 0
        for i in range(num_free):
            a = free[i]
            b = nodes[truth[a] + step]
            if b >= 0 and of_prediction[b] < 0:
                of_truth[a] = b
                of_prediction[b] = a
            else:
                free[still_free] = a
                still_free += 1
        num_free = still_free


def _pair_others(truth: Indices, steps: Indices, nodes: Nodes, of_truth: Nodes, of_prediction: Nodes) -> None:
    """Raise the number of pairs to the maximum along shortest augmenting paths.

    From each pixel without a partner, breadth first: to a pixel of the prediction, on to its partner, until one of
    the prediction is free; then all on the way change partners. What a search without success has seen can be on
    no later path (Hungarian trees), and stays seen.
    """
    seen = np.zeros(of_prediction.size, np.bool_)
    reached_from = np.empty(of_prediction.size, np.int32)
    path_nodes = np.empty(of_prediction.size, np.int32)
    queue = np.empty(truth.size, np.int32)
    for start in range(truth.size):
        if of_truth[start] >= 0:
            continue
        queue[0], head, tail, num_seen, end = start, 0, 1, 0, -1
        while head < tail and end < 0:
            a = queue[head]
            head += 1
            for step in steps:
                b = nodes[truth[a] + step]
                if b < 0 or seen[b]:
                    continue
                seen[b], reached_from[b], path_nodes[num_seen] = True, a, b
                num_seen += 1
                if of_prediction[b] < 0:
                    end = b
                    break
                queue[tail] = of_prediction[b]
                tail += 1
        if end < 0:
            continue
        for i in range(num_seen):
            seen[path_nodes[i]] = False
        while end >= 0:
            a = reached_from[end]
            of_prediction[end] = a
            of_truth[a], end = end, of_truth[a]


def _count_near(pixels: Indices, steps: Indices, nodes: Nodes) -> int:
    """Count the pixels with a node within the radius."""
    found = 0
    for pixel in pixels:
        for step in steps:
            if nodes[pixel + step] >= 0:
                found += 1
                break
    return found
