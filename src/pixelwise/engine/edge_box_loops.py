"""The loops of EdgeBoxes, compiled; imported at their first use, since numba takes a second to load."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Loop = TypeVar("Loop", bound=Callable[..., Any])
Map = NDArray[np.float32]
Ids = NDArray[np.int32]
Sums = NDArray[np.float64]
Box = tuple[int, int, int, int]  # first and last column, first and last row

FAINT = 0.05  # paths of a smaller product of affinities are not followed


def compiled(loop: Loop) -> Loop:
    """Compile a loop at its first call; the result is kept on disk where there is a place for it."""
    try:
        return cast(Loop, numba.njit(cache=True, nogil=True)(loop))
    except (RuntimeError, OSError):
        return cast(Loop, numba.njit(nogil=True)(loop))


class Tables(NamedTuple):
    """What scores of boxes are computed from.

    Attributes:
        strength: summed-area table (H + 1, W + 1) of edge strengths.
        mass: summed-area table (H + 1, W + 1) of the groups' strengths, each at its group's anchor.
        row_run: (H, W) number of the run of equal ids along the row that a pixel belongs to.
        row_group: group of each such run.
        column_run: the same along columns.
        column_group: group of each such run.
        weight: (G + 1) strength of each group; groups count from 1.
        anchor: (G + 1, 2) column and row of a pixel that stands for the group.
        first: (G + 2) start of each group's neighbours in the next two.
        neighbour: groups.
        affinity: of the group and its neighbour, 0 to 1.
        kappa: exponent of the box size.
        least: scores below it count as 0.
    """

    strength: Sums
    mass: Sums
    row_run: Ids
    row_group: Ids
    column_run: Ids
    column_group: Ids
    weight: Sums
    anchor: Ids
    first: Ids
    neighbour: Ids
    affinity: Sums
    kappa: float
    least: float


class Scratch(NamedTuple):
    """Work space of a score: `call` counts scores, `seen` holds the last one that met a group."""

    call: NDArray[np.int64]
    seen: NDArray[np.int64]
    slot: Ids
    group: Ids
    joined: Sums


@compiled
def grow_groups(ids: Ids, direction: Map, most: float) -> int:
    """Give pixels of id 0 the ids 1, 2, ... of groups in place; (H, W), others and the border are negative.

    A group takes the neighbour of least change of direction until the changes sum to `most`, in units of pi.
    """
    height, width = ids.shape
    met = np.zeros((height, width), np.int32)  # the last group that a pixel was a candidate of
    xs, ys, changes = np.empty(ids.size, np.int32), np.empty(ids.size, np.int32), np.empty(ids.size, np.float32)
    count = 0
    for left in range(1, width - 1):
        for top in range(1, height - 1):
            if ids[top, left] != 0:
                continue
            count += 1
            x, y, waiting, total = left, top, 0, np.float32(0)
            while total < most:
                ids[y, x] = count
                for i in range(x - 1, x + 2):
                    for j in range(y - 1, y + 2):
                        if ids[j, i] == 0 and met[j, i] != count:
                            met[j, i] = count
                            change = np.float32(abs(direction[j, i] - direction[y, x]) / np.float32(math.pi))
                            xs[waiting], ys[waiting] = i, j
                            changes[waiting] = change if change <= 0.5 else 1 - change
                            waiting += 1
                if waiting == 0:
                    break
                best = np.argmin(changes[:waiting])
                x, y, total = xs[best], ys[best], total + changes[best]
                waiting -= 1
                for k in range(best, waiting):
                    xs[k], ys[k], changes[k] = xs[k + 1], ys[k + 1], changes[k + 1]
    return count


@compiled
def join_orphans(ids: Ids, direction: Map) -> int:
    """Give pixels of id 0 the neighbouring group of most similar direction, in place; return how many found one."""
    joined = 0
    for x in range(1, ids.shape[1] - 1):
        for y in range(1, ids.shape[0] - 1):
            if ids[y, x] != 0:
                continue
            least, found = np.float32(1), 0
            for i in range(x - 1, x + 2):
                for j in range(y - 1, y + 2):
                    change = np.float32(abs(direction[j, i] - direction[y, x]) / np.float32(math.pi))
                    change = change if change <= 0.5 else 1 - change
                    if ids[j, i] > 0 and change < least:
                        least, found = change, ids[j, i]
            ids[y, x] = found
            joined += found > 0
    return joined


@compiled
def inside(table: Sums, left: int, right: int, top: int, bottom: int) -> float:
    """Return the sum over a box, both ends included, from a summed-area table."""
    total: float = table[bottom + 1, right + 1] - table[top, right + 1] - table[bottom + 1, left] + table[top, left]
    return total


@compiled
def holds(box: Box, place: Ids) -> bool:
    """Say whether a pixel (column, row) lies in a box."""
    left, right, top, bottom = box
    return bool(left <= place[0] <= right and top <= place[1] <= bottom)


@compiled
def meet(box: Box, tables: Tables, work: Scratch) -> int:
    """Collect the groups that cross the border of a box, each fully joined to it; return their number."""
    left, right, top, bottom = box
    call, found = work.call[0], 0
    for side in range(4):
        if side < 2:
            row = bottom if side else top
            group, start, stop = tables.row_group, tables.row_run[row, left], tables.row_run[row, right]
        else:
            column = right if side == 3 else left
            group, start, stop = tables.column_group, tables.column_run[top, column], tables.column_run[bottom, column]
        for run in range(start, stop + 1):
            own = group[run]
            if own > 0 and work.seen[own] != call:
                work.seen[own], work.slot[own] = call, found
                work.group[found], work.joined[found] = own, 1.0
                found += 1
    return found


@compiled
def follow(box: Box, found: int, tables: Tables, work: Scratch) -> int:
    """Carry the joining on along the best paths between groups inside of a box; return the number of groups met."""
    call, place = work.call[0], 0
    while place < found:
        own, joined, again = work.group[place], work.joined[place], place + 1
        for k in range(tables.first[own], tables.first[own + 1]):
            other, product = tables.neighbour[k], joined * tables.affinity[k]
            if product < FAINT:
                continue
            if work.seen[other] != call:
                if holds(box, tables.anchor[other]):
                    work.seen[other], work.slot[other] = call, found
                    work.group[found], work.joined[found] = other, product
                    found += 1
            elif product > work.joined[work.slot[other]]:
                work.joined[work.slot[other]] = product
                again = min(again, work.slot[other])
        place = again
    return found


@compiled
def score(box: Box, tables: Tables, work: Scratch) -> float:
    """Return how much edge lies in a box that does not cross its border, for its size."""
    left, right, top, bottom = box
    wide, high = (right - left) // 2, (bottom - top) // 2
    if wide + high == 0:
        return 0.0
    x, y = left + wide // 2, top + high // 2
    total = inside(tables.mass, left, right, top, bottom) - inside(tables.strength, x, x + wide, y, y + high)
    size = float(wide + high) ** tables.kappa
    if total < tables.least * size:
        return 0.0
    work.call[0] += 1
    found = follow(box, meet(box, tables, work), tables, work)
    for k in range(found):
        own = work.group[k]
        if holds(box, tables.anchor[own]):
            total -= work.joined[k] * tables.weight[own]
    return total / size if total >= tables.least * size else 0.0


@compiled
def shifted(box: Box, side: int, step: int, width: int, height: int) -> Box:
    """Move one side of a box outwards by `step` pixels, not beyond the image."""
    left, right, top, bottom = box
    if side == 0:
        return left, right, min(max(top - step, 0), height - 1), bottom
    if side == 1:
        return left, right, top, min(max(bottom + step, top), height - 1)
    if side == 2:
        return min(max(left - step, 0), width - 1), right, top, bottom
    return left, min(max(right + step, left), width - 1), top, bottom


@compiled
def refine(box: Box, value: float, ratio: float, tables: Tables, work: Scratch) -> tuple[Box, float]:
    """Move the sides of a box, one after the other, as long as steps are above two pixels and the score grows."""
    height, width = tables.row_run.shape
    across, down = int((box[1] - box[0]) * ratio) // 2, int((box[3] - box[2]) * ratio) // 2
    while across > 2 or down > 2:
        for side in range(4):
            step = max(1, down if side < 2 else across)
            tried = shifted(box, side, step, width, height)
            other = score(tried, tables, work)
            if other <= value:
                tried = shifted(box, side, -step, width, height)
                other = score(tried, tables, work)
            if other > value:
                box, value = tried, other
        across, down = across // 2, down // 2
    return box, value


@compiled
def search(windows: NDArray[np.int32], ratio: float, tables: Tables, work: Scratch) -> Sums:
    """Score windows (M, 4) and refine those above 0; return rows of a box and its score (N, 5)."""
    height, width = tables.row_run.shape
    found = np.empty((len(windows), 5), np.float64)
    count = 0
    for left, right, top, bottom in windows:
        box = (int(left), min(int(right), width - 1), int(top), min(int(bottom), height - 1))
        value = score(box, tables, work)
        if value > 0:
            box, value = refine(box, value, ratio, tables, work)
            found[count, 0], found[count, 1], found[count, 2], found[count, 3] = box
            found[count, 4] = value
            count += 1
    return found[:count]


@compiled
def suppress(boxes: Sums, most: float, count: int) -> NDArray[np.int64]:
    """Return which boxes (N, 4+), best first, overlap no better one by an IoU above `most`; at most `count`."""
    kept = np.empty(min(count, len(boxes)), np.int64)
    number = 0
    for i in range(len(boxes)):
        if number == len(kept):
            break
        left, right, top, bottom = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        free = True
        for k in kept[:number]:
            wide = min(right, boxes[k, 1]) - max(left, boxes[k, 0])
            high = min(bottom, boxes[k, 3]) - max(top, boxes[k, 2])
            if wide > 0 and high > 0:
                other = (boxes[k, 1] - boxes[k, 0]) * (boxes[k, 3] - boxes[k, 2])
                union = (right - left) * (bottom - top) + other - wide * high
                if wide * high > most * union:
                    free = False
                    break
        if free:
            kept[number] = i
            number += 1
    return kept[:number]
