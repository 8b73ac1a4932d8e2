"""The minimum cut of a 4- or 8-connected grid, exact, in integers.

Y. Boykov, V. Kolmogorov, "An Experimental Comparison of Min-Cut/Max-Flow Algorithms for Energy Minimization in Vision",
PAMI 26(9), 2004, https://doi.org/10.1109/TPAMI.2004.60. Map from the paper (section 3) to this file:

- growth stage: two trees, one of each terminal, take in free neighbours until they touch -> `_grow`
- augmentation: the path through the touching link is saturated, which leaves orphans     -> `_augment`, `_saturate`
- adoption: orphans look for a new parent or become free                                   -> `_adopt`, `_distance`

Two passes go before. They are augmentations too, so that the cut stays exact: flow between neighbours of opposite sign
(`_push`), and pixels whose own capacity is more than that of all their links, which are decided at once and hand the
links on to their neighbours as capacities (`_decide`).

The picture is framed by one pixel without links, so that no loop asks where the border is. A pixel's excess is the
capacity of its link from the source or, below 0, to the sink; the smaller of both is always subtracted before.

Axes: P pixels of the framed picture in reading order, D directions (4 or 8); the reverse of direction d is d ^ 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf.loops import compiled
from pixelwise.errors import RequestError

# (down, right) of the first of each pair of directions; four directions are the first two pairs.
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))
FREE, SOURCE, SINK, OUT = 0, 1, 2, 3  # a pixel's tree; OUT: decided before, or none of the picture
ROOT, ORPHAN = -1, -2  # in place of the direction of a pixel's parent
FAR = 1 << 30  # a distance no pixel has
LARGEST = 2**24  # capacity of a link, so that an excess that takes in eight links from both sides fits int32
FIRST, SIZE, ORPHANS_FIRST, ORPHANS_SIZE = 0, 1, 2, 3  # of the two rings of pixels that wait


@compiled()
def _push(offsets: Any, excess: Any, residual: Any, tree: Any) -> Any:
    """Send flow from each pixel with excess straight to neighbours that lack some; return how much."""
    flow = 0
    for p in range(excess.shape[0]):
        if tree[p] == OUT or excess[p] <= 0:
            continue
        for d in range(offsets.shape[0]):
            q = p + offsets[d]
            amount = min(excess[p], -excess[q], residual[p, d])
            if amount > 0:
                excess[p] -= amount
                excess[q] += amount
                residual[p, d] -= amount
                residual[q, d ^ 1] += amount
                flow += amount
    return flow


@compiled()
def _is_decided(offsets: Any, excess: Any, residual: Any, p: Any) -> Any:
    """Return whether a pixel's side is sure; where both sides cost the same it is the source's."""
    own = excess[p]
    total = 0
    for d in range(offsets.shape[0]):
        total += residual[p, d] if own >= 0 else residual[p + offsets[d], d ^ 1]
    return own >= total if own >= 0 else -own > total


@compiled()
def _decide(offsets: Any, excess: Any, residual: Any, tree: Any, sink: Any, stack: Any, waiting: Any) -> Any:
    """Decide pixels whose excess, or lack, is more than their links can carry away; return the flow that this makes.

    All links of such a pixel are saturated from its side, so that what comes in from the other side can go nowhere: the
    pixel leaves the graph, and each neighbour keeps the capacity of the link as excess or lack of its own.
    """
    flow = 0
    for start in range(excess.shape[0]):
        stack[0] = start
        top = 1 if tree[start] != OUT else 0
        while top > 0:
            top -= 1
            p = stack[top]
            waiting[p] = 0
            if not _is_decided(offsets, excess, residual, p):
                continue
            tree[p] = OUT
            sink[p] = excess[p] < 0
            for d in range(offsets.shape[0]):
                q = p + offsets[d]
                amount = -residual[q, d ^ 1] if sink[p] else residual[p, d]
                residual[p, d] = 0
                residual[q, d ^ 1] = 0
                if amount == 0 or tree[q] == OUT:
                    continue
                if (amount > 0) != (excess[q] > 0):
                    flow += min(abs(amount), abs(excess[q]))
                excess[q] += amount
                if not waiting[q]:
                    waiting[q] = 1
                    stack[top] = q
                    top += 1
    return flow


@compiled()
def _wait(ring: Any, state: Any, at: Any, p: Any) -> None:
    """Put a pixel at the end of a ring whose first and size are at `at` of the state."""
    last = state[at] + state[at + 1]
    if last >= ring.shape[0]:
        last -= ring.shape[0]
    ring[last] = p
    state[at + 1] += 1


@compiled()
def _next(ring: Any, state: Any, at: Any) -> Any:
    """Take the first pixel off a ring."""
    p = ring[state[at]]
    state[at] += 1
    if state[at] == ring.shape[0]:
        state[at] = 0
    state[at + 1] -= 1
    return p


@compiled()
def _grow(
    offsets: Any, residual: Any, tree: Any, parent: Any, stamp: Any, distance: Any, waiting: Any, queue: Any,
    state: Any, p: Any,
) -> Any:  # fmt: skip
    """Let a pixel take in its free neighbours; return the direction where the other tree was met, or -1."""
    own = tree[p]
    for d in range(offsets.shape[0]):
        q = p + offsets[d]
        if (residual[p, d] if own == SOURCE else residual[q, d ^ 1]) == 0:
            continue
        if tree[q] == FREE:
            tree[q] = own
            if not waiting[q]:
                waiting[q] = 1
                _wait(queue, state, FIRST, q)
        elif tree[q] != own:
            return d
        elif stamp[q] > stamp[p] or distance[q] <= distance[p]:
            continue
        parent[q] = d ^ 1  # of a free pixel, or a shorter way to the root
        stamp[q] = stamp[p]
        distance[q] = distance[p] + 1
    return -1


@compiled()
def _room(offsets: Any, excess: Any, residual: Any, parent: Any, p: Any, forward: Any) -> Any:
    """Return the smallest capacity from the root to a pixel (`forward`), or from a pixel to the root."""
    amount = FAR
    while parent[p] >= 0:
        up = parent[p]
        q = p + offsets[up]
        amount = min(amount, residual[q, up ^ 1] if forward else residual[p, up])
        p = q
    return min(amount, abs(excess[p]))


@compiled()
def _saturate(
    offsets: Any, excess: Any, residual: Any, parent: Any, orphans: Any, state: Any, p: Any, forward: Any, amount: Any
) -> None:
    """Send an amount along the path of `_room`; pixels whose link to the parent is used up become orphans."""
    sign = 1 if forward else -1
    while parent[p] >= 0:
        up = parent[p]
        q = p + offsets[up]
        residual[q, up ^ 1] -= sign * amount
        residual[p, up] += sign * amount
        if (residual[q, up ^ 1] if forward else residual[p, up]) == 0:
            parent[p] = ORPHAN
            _wait(orphans, state, ORPHANS_FIRST, p)
        p = q
    excess[p] -= sign * amount
    if excess[p] == 0:
        parent[p] = ORPHAN
        _wait(orphans, state, ORPHANS_FIRST, p)


@compiled()
def _distance(offsets: Any, parent: Any, stamp: Any, distance: Any, p: Any, now: Any) -> Any:
    """Return how far a pixel is from its root, or `FAR` if an orphan lies between; mark the path as known by `now`."""
    far = 0
    q = p
    while stamp[q] != now:
        if parent[q] == ORPHAN:
            return FAR
        if parent[q] == ROOT:
            stamp[q] = now
            distance[q] = 1
            break
        far += 1
        q += offsets[parent[q]]
    far += distance[q]
    left = far
    while stamp[p] != now:
        stamp[p] = now
        distance[p] = left
        left -= 1
        p += offsets[parent[p]]
    return far


@compiled()
def _adopt(
    offsets: Any, residual: Any, tree: Any, parent: Any, stamp: Any, distance: Any, waiting: Any, queue: Any,
    orphans: Any, state: Any, now: Any,
) -> None:  # fmt: skip
    """Make the neighbour nearest to the root each orphan's parent, or set it free and make its children orphans."""
    while state[ORPHANS_SIZE] > 0:
        p = _next(orphans, state, ORPHANS_FIRST)
        own = tree[p]
        best, nearest = ORPHAN, FAR
        for d in range(offsets.shape[0]):
            q = p + offsets[d]
            if tree[q] == own and (residual[q, d ^ 1] if own == SOURCE else residual[p, d]) > 0:
                far = _distance(offsets, parent, stamp, distance, q, now)
                if far < nearest:
                    best, nearest = d, far
        parent[p] = best
        if best != ORPHAN:
            stamp[p] = now
            distance[p] = nearest + 1
            continue
        tree[p] = FREE
        for d in range(offsets.shape[0]):
            q = p + offsets[d]
            if tree[q] != own:
                continue
            if not waiting[q] and (residual[q, d ^ 1] if own == SOURCE else residual[p, d]) > 0:
                waiting[q] = 1
                _wait(queue, state, FIRST, q)
            if parent[q] == d ^ 1:
                parent[q] = ORPHAN
                _wait(orphans, state, ORPHANS_FIRST, q)


@compiled()
def _search(
    offsets: Any, excess: Any, residual: Any, tree: Any, parent: Any, stamp: Any, distance: Any, waiting: Any,
    queue: Any, orphans: Any,
) -> Any:  # fmt: skip
    """Augment until no path is left; return the flow. What is then in the sink's tree is the smallest sink side."""
    state = np.zeros(4, dtype=np.int64)
    for p in range(excess.shape[0]):
        if tree[p] != OUT:
            stamp[p] = 0
            parent[p] = ORPHAN
        if tree[p] != OUT and excess[p] != 0:
            tree[p] = SOURCE if excess[p] > 0 else SINK
            parent[p] = ROOT
            distance[p] = 1
            waiting[p] = 1
            _wait(queue, state, FIRST, p)
    flow, now = 0, 0
    while state[SIZE] > 0:
        p = _next(queue, state, FIRST)
        waiting[p] = 0
        while tree[p] != FREE:
            d = _grow(offsets, residual, tree, parent, stamp, distance, waiting, queue, state, p)
            if d < 0:
                break
            now += 1
            a, b = p, p + offsets[d]
            if tree[p] == SINK:
                a, b, d = b, a, d ^ 1
            amount = min(residual[a, d], _room(offsets, excess, residual, parent, a, True))
            amount = min(amount, _room(offsets, excess, residual, parent, b, False))
            residual[a, d] -= amount
            residual[b, d ^ 1] += amount
            _saturate(offsets, excess, residual, parent, orphans, state, a, True, amount)
            _saturate(offsets, excess, residual, parent, orphans, state, b, False, amount)
            flow += amount
            _adopt(offsets, residual, tree, parent, stamp, distance, waiting, queue, orphans, state, now)
    return flow


class Cut:
    """The graph of a framed picture, whose buffers are used again from cut to cut.

    Attributes:
        offsets: int64 (D,), from a pixel to its neighbour in each direction.
        excess: int32 (P,), to be filled before each cut, 0 at the frame.
        residual: int32 (P, D), capacity of each link, to be filled before each cut, 0 across the frame.
        tree: int8 (P,), to be filled before each cut with `FREE`, or `OUT` where a pixel takes no part.
    """

    def __init__(self, height: int, width: int, num_directions: int) -> None:
        self.shape = (height + 2, width + 2)
        steps = STEPS[: num_directions // 2]
        self.offsets = np.array([s * (down * (width + 2) + right) for down, right in steps for s in (1, -1)])
        count = (height + 2) * (width + 2)
        self.excess = np.zeros(count, dtype=np.int32)
        self.residual = np.zeros((count, num_directions), dtype=np.int32)
        self.tree = np.full(count, OUT, dtype=np.int8)
        self._parent, self._waiting = np.zeros(count, dtype=np.int8), np.zeros(count, dtype=np.int8)
        self._stamp, self._distance = np.zeros(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
        self._queue, self._orphans = np.zeros(count, dtype=np.int32), np.zeros(count, dtype=np.int32)

    def solve(self) -> tuple[int, NDArray[np.bool_]]:
        """Return the flow and which pixels are cut off from the source, bool (P,); what was filled in is used up.

        Where several cuts are smallest, as few pixels as possible are on the sink's side.
        """
        sink = np.zeros(self.excess.shape, dtype=np.bool_)
        graph = (self.offsets, self.excess, self.residual, self.tree)
        flow = _push(*graph)
        flow += _decide(*graph, sink, self._queue, self._waiting)
        trees = (self._parent, self._stamp, self._distance, self._waiting)
        flow += _search(*graph, *trees, self._queue, self._orphans)
        sink |= self.tree == SINK
        return int(flow), sink


def min_cut(excess: NDArray[np.integer], links: NDArray[np.integer]) -> tuple[int, NDArray[np.bool_]]:
    """Cut a grid in two parts where that costs least.

    Args:
        excess: whole numbers (H, W): what a pixel costs on the sink's side if above 0, on the source's if below.
        links: whole numbers from 0, (2, H, W) or (4, H, W): what it costs that a pixel and its neighbour to the right,
            below, and for eight neighbours below to the right and below to the left, are on different sides. Those
            across the border are not read.

    Returns:
        What the cut costs, and which pixels are on the sink's side, bool (H, W): the fewest where several cuts cost the
        same.

    Raises:
        RequestError: if shapes or types are others, or a number is out of range.

    >>> cost, sink = min_cut(np.array([[5, -1, -4]]), np.array([[[2, 3, 0]], [[0, 0, 0]]]))
    >>> cost, sink.tolist()
    (2, [[False, True, True]])
    """
    if excess.ndim != 2 or links.shape not in {(pairs, *excess.shape) for pairs in (2, 4)}:
        raise RequestError(
            f"excess has shape {excess.shape}, links {links.shape}; accepted: (H, W) and (2, H, W) or (4, H, W). Give "
            "the links of each pixel in two directions, or in four."
        )
    if any(not np.issubdtype(given.dtype, np.integer) for given in (excess, links)):
        raise RequestError(
            f"excess has type {excess.dtype}, links {links.dtype}; accepted: whole numbers. Scale and round them."
        )
    height, width = excess.shape
    if links.size and not (links.min() >= 0 and links.max() <= LARGEST and abs(excess).max() <= 16 * LARGEST):
        raise RequestError(
            f"links go from {links.min()} to {links.max()}, excess from {excess.min()} to {excess.max()}; accepted: "
            f"links of 0..{LARGEST}, excess within {16 * LARGEST}. Scale them down."
        )
    cut = Cut(height, width, 2 * len(links))
    inside = (slice(1, -1), slice(1, -1))
    cut.excess.reshape(cut.shape)[inside] = excess
    cut.tree.reshape(cut.shape)[inside] = FREE
    residual = cut.residual.reshape(*cut.shape, -1)
    for pair, (down, right) in enumerate(STEPS[: len(links)]):
        rows, columns = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        residual[inside][rows, columns, 2 * pair] = links[pair, rows, columns]
        there = (slice(1 + down, 1 + height), slice(1 + max(0, right), 1 + width + min(0, right)))
        residual[(*there, 2 * pair + 1)] = links[pair, rows, columns]
    flow, sink = cut.solve()
    return flow, sink.reshape(cut.shape)[inside]
