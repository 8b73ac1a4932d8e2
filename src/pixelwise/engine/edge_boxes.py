"""EdgeBoxes: boxes that hold whole outlines, from an edge map.

C. L. Zitnick, P. Dollar, "Edge Boxes: Locating Object Proposals from Edges", ECCV 2014. Map from the paper:

- section 3.1, groups of edges that change direction by less than pi / 2, and their affinities -> `Groups`
- section 3.2, the score of a box                        -> `edge_box_loops.score`
- section 3.3, sliding windows, refinement, suppression  -> `edge_boxes`

Where the paper says little (the order of growth, small groups, the pixel that stands for a group, paths of faint
affinity) this follows the reference code as OpenCV's port has it. Not taken over: the adaptive suppression (eta, off
there by default). Scores are in double precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.engine.edges import Edges
from pixelwise.errors import RequestError

if TYPE_CHECKING:
    from pixelwise.engine.edge_box_loops import Scratch, Tables

REACH = 2  # pixels between neighbouring groups, at most


@dataclass(frozen=True, kw_only=True)
class EdgeBoxSettings:
    """The numbers of the method; the paper's and the reference code's by default.

    Attributes:
        alpha: IoU of neighbouring sliding windows.
        beta: boxes that overlap a better one by a larger IoU are dropped.
        gamma: exponent of affinities.
        kappa: exponent of the size that scores are divided by.
        least_score: lower scores count as 0.
        least_edge: edges up to this strength are dropped.
        most_turn: changes of direction in a group, summed, in units of pi.
        least_group: groups up to this strength are divided among their neighbours.
        least_area: of a window, in pixels.
        most_aspect: of a window's sides.
    """

    alpha: float = 0.65
    beta: float = 0.75
    gamma: float = 2.0
    kappa: float = 1.5
    least_score: float = 0.01
    least_edge: float = 0.1
    most_turn: float = 0.5
    least_group: float = 0.5
    least_area: float = 1000.0
    most_aspect: float = 3.0

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}; accepted: an IoU above 0 and below 1. Change it.")


DEFAULT = EdgeBoxSettings()


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Connected edges of similar direction.

    Attributes:
        ids: int32 (H, W); groups count from 1, all else is 0 or below.
        weight: float64 (G + 1), summed strength.
        anchor: int32 (G + 1, 2), column and row of the last pixel, column by column; it stands for the group.
        pairs: int64 (P, 2), neighbouring groups, the smaller id first.
        affinity: float64 (P), from 0 to 1.
    """

    ids: NDArray[np.int32]
    weight: NDArray[np.float64]
    anchor: NDArray[np.int32]
    pairs: NDArray[np.int64]
    affinity: NDArray[np.float64]


def edge_boxes(
    edges: Edges, *, count: int = 2000, settings: EdgeBoxSettings = DEFAULT
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return boxes around whole outlines, best first.

    Args:
        edges: a thinned map.
        count: boxes at most.
        settings: of the method.

    Returns:
        Corners x1, y1, x2, y2 (N, 4) in pixels, the second ones not included, and scores (N).
    """
    from pixelwise.engine.edge_box_loops import search, suppress

    height, width = edges.strength.shape
    groups = group_edges(edges, settings)
    tables, work = tabulate(edges, groups, settings)
    ratio = (1 - settings.alpha) / (1 + settings.alpha)
    found = search(sliding_windows(height, width, settings), ratio, tables, work)
    found = found[np.argsort(-found[:, 4], kind="stable")]
    found = found[suppress(found, settings.beta, count)]
    left, right, top, bottom, scores = found.T
    return np.stack([left, top, right + 1, bottom + 1], axis=1), scores.copy()


def group_edges(edges: Edges, settings: EdgeBoxSettings = DEFAULT) -> Groups:
    """Divide edges into groups, and say how well neighbouring groups continue each other."""
    from pixelwise.engine.edge_box_loops import grow_groups, join_orphans

    strength, direction = (np.ascontiguousarray(values, np.float32) for values in (edges.strength, edges.direction))
    ids = np.where(strength > settings.least_edge, 0, -1).astype(np.int32)
    ids[[0, -1]] = -1
    ids[:, [0, -1]] = -1
    grow_groups(ids, direction, settings.most_turn)
    light = _sums(ids, strength) <= settings.least_group
    ids[(ids > 0) & light[np.maximum(ids, 0)]] = 0
    while join_orphans(ids, direction):
        pass
    left = np.unique(ids[ids > 0])
    ids = np.where(ids > 0, np.searchsorted(left, ids) + 1, ids).astype(np.int32)
    anchor = np.zeros((left.size + 1, 2), np.int32)
    columns, rows = np.nonzero(ids.T > 0)
    anchor[ids[rows, columns]] = np.stack([columns, rows], axis=1)  # the last of equal ids stays
    pairs = _neighbours(ids, left.size)
    affinity = _affinities(ids, strength, direction, pairs, settings.gamma)
    return Groups(ids=ids, weight=_sums(ids, strength), anchor=anchor, pairs=pairs, affinity=affinity)


def sliding_windows(height: int, width: int, settings: EdgeBoxSettings = DEFAULT) -> NDArray[np.int32]:
    """Return windows (M, 4) as first and last column, first and last row, of all sizes and aspects.

    A step in place, size or aspect leaves an IoU of about alpha. The last ones may reach beyond the image.
    """
    alpha, smallest = settings.alpha, math.sqrt(settings.least_area)
    size_step, aspect_step, ratio = math.sqrt(1 / alpha), (1 + alpha) / (2 * alpha), (1 - alpha) / (1 + alpha)
    aspects = int(math.log(settings.most_aspect) / math.log(aspect_step**2))
    sizes = math.ceil(math.log(max(height, width) / smallest) / math.log(size_step))
    windows = [np.empty((0, 4), np.int32)]
    for size in (smallest * size_step**k for k in range(sizes)):
        for aspect in (aspect_step**k for k in range(-aspects, aspects + 1)):
            high, wide = int(size / aspect), int(size * aspect)
            down, across = max(2, int(high * ratio)), max(2, int(wide * ratio))
            columns, rows = np.arange(0, width - wide + across, across), np.arange(0, height - high + down, down)
            x, y = (axis.ravel() for axis in np.meshgrid(columns, rows, indexing="ij"))
            x, y = x[x < width], y[x < width]
            x, y = x[y < height], y[y < height]
            windows.append(np.stack([x, x + wide, y, y + high], axis=1).astype(np.int32))
    return np.concatenate(windows)


def tabulate(edges: Edges, groups: Groups, settings: EdgeBoxSettings = DEFAULT) -> tuple[Tables, Scratch]:
    """Return what scores are computed from, and work space for them."""
    from pixelwise.engine.edge_box_loops import Scratch, Tables

    number = groups.weight.size
    strong = np.where(edges.strength > settings.least_edge, edges.strength, 0)
    mass = np.zeros(edges.strength.shape)
    mass[groups.anchor[1:, 1], groups.anchor[1:, 0]] = groups.weight[1:]
    both = np.concatenate([groups.pairs, groups.pairs[:, ::-1]])
    order = np.lexsort((both[:, 1], both[:, 0]))
    row_run, row_group = _runs(groups.ids)
    column_run, column_group = _runs(groups.ids.T)
    tables = Tables(
        strength=_summed(strong),
        mass=_summed(mass),
        row_run=row_run,
        row_group=row_group,
        column_run=np.ascontiguousarray(column_run.T),
        column_group=column_group,
        weight=groups.weight,
        anchor=groups.anchor,
        first=np.searchsorted(both[order, 0], np.arange(number + 1)).astype(np.int32),
        neighbour=both[order, 1].astype(np.int32),
        affinity=np.tile(groups.affinity, 2)[order],
        kappa=settings.kappa,
        least=settings.least_score,
    )
    work = Scratch(
        call=np.zeros(1, np.int64),
        seen=np.zeros(number, np.int64),
        slot=np.zeros(number, np.int32),
        group=np.zeros(number, np.int32),
        joined=np.zeros(number),
    )
    return tables, work


def _sums(ids: NDArray[np.int32], values: NDArray[Any]) -> NDArray[np.float64]:
    """Sum values (H, W) over groups (G + 1); group 0 has none."""
    inside = ids > 0
    sums = np.bincount(ids[inside], values[inside], minlength=int(ids.max(initial=0)) + 1)
    return sums.astype(np.float64)  # whole numbers where there is no group


def _neighbours(ids: NDArray[np.int32], number: int) -> NDArray[np.int64]:
    """Return the pairs of groups that have pixels within reach of each other, (P, 2), each once."""
    found = [np.empty(0, np.int64)]
    height, width = ids.shape
    for down in range(REACH + 1):
        for across in range(-REACH if down else 1, REACH + 1):
            lower = ids[down:, max(across, 0) : width + min(across, 0)]
            upper = ids[: height - down, max(-across, 0) : width + min(-across, 0)]
            small, large = np.minimum(lower, upper), np.maximum(lower, upper)
            apart = (small > 0) & (small < large)
            found.append(np.unique(small[apart].astype(np.int64) * (number + 1) + large[apart]))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), number + 1), axis=1)


def _affinities(
    ids: NDArray[np.int32],
    strength: NDArray[np.float32],
    direction: NDArray[np.float32],
    pairs: NDArray[np.int64],
    gamma: float,
) -> NDArray[np.float64]:
    """Return how well pairs of groups continue each other: both point along the line between their centres."""
    rows, columns = np.indices(ids.shape)
    weight = np.maximum(_sums(ids, strength), np.finfo(np.float32).tiny)
    x, y = _sums(ids, strength * columns) / weight, _sums(ids, strength * rows) / weight
    normal = np.arctan2(_sums(ids, strength * np.sin(2 * direction)), _sums(ids, strength * np.cos(2 * direction))) / 2
    one, other = pairs.T
    across = np.arctan2(y[one] - y[other], x[one] - x[other]) + np.pi / 2
    affinity: NDArray[np.float64] = np.abs(np.cos(normal[one] - across) * np.cos(normal[other] - across)) ** gamma
    return affinity


def _runs(ids: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number the runs of equal ids along the rows; return each pixel's run (H, W), and each run's id."""
    new = np.ones(ids.shape, dtype=bool)
    new[:, 1:] = ids[:, 1:] != ids[:, :-1]
    runs = (np.cumsum(new.ravel()) - 1).astype(np.int32)
    return runs.reshape(ids.shape), np.ascontiguousarray(ids[new])


def _summed(values: NDArray[Any]) -> NDArray[np.float64]:
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    table[1:, 1:] = values.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    return table
