"""Labellings of least energy on a 4- or 8-connected grid with Potts links, by alpha-expansion.

E(c) = sum_i U(c_i, i) + sum_ij w_ij [c_i != c_j] over neighbours i, j, w_ij >= 0.

Y. Boykov, O. Veksler, R. Zabih, "Fast Approximate Energy Minimization via Graph Cuts", PAMI 23(11), 2001,
https://doi.org/10.1109/34.969114: a move lets every pixel keep its label or change to label alpha, whichever is best
for all together, which is a minimum cut; moves are repeated until none lowers the energy. The result is optimal for two
labels; for more its energy is at most twice the least (theorem 6.1, where U is not negative).

Not in the paper: where it starts. Any start ends in a labelling that no move can better, but from a near one the cuts
are fewer and easier. So the problem is first solved for blocks of 2 x 2 pixels of one label each, whose energy is exact
(`_halved`), before that for blocks of 4 x 4, and so on; the start is the better one of that and of each pixel's
cheapest label. Labels take their turns by their total cost, so that the result does not hang on how they are
numbered.

Axes: K labels, H x W pixels, P pixels of the framed picture, S = 2 or 4 links of a pixel, in the order of `STEPS`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf.lattice import Float
from pixelwise.crf.loops import compiled
from pixelwise.crf.min_cut import FREE, LARGEST, OUT, STEPS, Cut

Labels = NDArray[np.int64]
SMALLEST = 8  # side of a picture below which it is not halved any more
STEP_ROWS = tuple(down for down, _ in STEPS)
STEP_COLUMNS = tuple(right for _, right in STEPS)


@compiled()
def _energy(labels: Any, unary: Any, links: Any) -> Any:
    """Return the energy of labels (H, W), in float64."""
    total = 0.0
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            total += np.float64(unary[labels[y, x], y, x])
            for s in range(links.shape[0]):
                if links[s, y, x] > 0 and labels[y + STEP_ROWS[s], x + STEP_COLUMNS[s]] != labels[y, x]:
                    total += np.float64(links[s, y, x])
    return total


@compiled()
def _halved(unary: Any, links: Any) -> Any:
    """Return unary energies and links of blocks of 2 x 2 pixels; the last row and column may be blocks of fewer."""
    num_labels, height, width = unary.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    blocks = np.zeros((num_labels, rows, columns), dtype=np.float32)
    block_links = np.zeros((links.shape[0], rows, columns), dtype=np.float32)
    for k in range(num_labels):
        for y in range(height):
            for x in range(width):
                blocks[k, y // 2, x // 2] += unary[k, y, x]
    for s in range(links.shape[0]):
        for y in range(height):
            for x in range(width):
                if links[s, y, x] > 0:
                    down = (y + STEP_ROWS[s]) // 2 - y // 2
                    right = (x + STEP_COLUMNS[s]) // 2 - x // 2
                    column = x // 2
                    if down == 0 and right == -1:  # from a block to the one on its left, which keeps that link
                        column, right = column - 1, 1
                    for t in range(links.shape[0]):
                        if STEP_ROWS[t] == down and STEP_COLUMNS[t] == right:
                            block_links[t, y // 2, column] += links[s, y, x]
    return blocks, block_links


@compiled()
def _fill(
    alpha: Any, unary: Any, least: Any, scale: Any, limit: Any, labels: Any, halves: Any, offsets: Any, excess: Any,
    residual: Any, tree: Any,
) -> None:  # fmt: skip
    """Fill the graph of a move: a pixel on the sink's side changes to label alpha.

    Arguments: alpha; unary float32 (K, H, W); its least over the labels, (H, W); what both are multiplied by; how much
    more than the least matters; labels int32 (P,), -1 at the frame; half of each link, int32 (P, S), in the same units;
    the arrays of a `Cut`.

    A link w of two pixels of one label is a link w of the graph. With two labels it costs w unless both change: half a
    link, and half of w less for each pixel that changes. Beside a pixel of label alpha, staying costs w.
    Source: V. Kolmogorov, R. Zabih, "What Energy Functions Can Be Minimized via Graph Cuts?", PAMI 26(2), 2004, section
    4.1, written symmetrically.
    """
    height, width = unary.shape[1:]
    for y in range(height):
        for x in range(width):
            p = (y + 1) * (width + 2) + x + 1
            tree[p] = OUT if labels[p] == alpha else FREE
            floor = np.float64(least[y, x])
            changed = np.rint(min(scale * (unary[alpha, y, x] - floor), limit))
            excess[p] = np.int64(changed - np.rint(min(scale * (unary[labels[p], y, x] - floor), limit)))
    for y in range(height):
        for x in range(width):
            p = (y + 1) * (width + 2) + x + 1
            for s in range(halves.shape[1]):
                q = p + offsets[2 * s]
                half, link = halves[p, s], 0
                if labels[p] == alpha:
                    excess[q] -= 2 * half
                elif labels[q] == alpha:
                    excess[p] -= 2 * half
                elif labels[p] == labels[q]:
                    link = 2 * half
                else:
                    link = half
                    excess[p] -= half
                    excess[q] -= half
                residual[p, 2 * s] = residual[q, 2 * s + 1] = link


def energy_of(labels: Labels, unary: Float, links: Float) -> float:
    """Return the energy of labels (H, W) under unary energies (K, H, W) and links (S, H, W)."""
    return float(_energy(np.ascontiguousarray(labels), unary, links))


def expand(unary: Float, links: Float, start: Labels | None = None) -> Labels:
    """Return labels that no expansion move can better.

    Args:
        unary: float32 (K, H, W), finite.
        links: float32 (S, H, W), finite, from 0, and 0 across the border.
        start: int64 (H, W); None lets the expansion choose. The result's energy is never above the start's.

    Returns:
        int64 (H, W).
    """
    largest = float(links.max(initial=0))
    if not largest or len(unary) == 1:
        return _cheapest(unary)
    if start is None:
        start = _start(unary, links)
    height, width = unary.shape[1:]
    scale = 2.0 ** math.floor(math.log2(2 * LARGEST / largest))
    cut = Cut(height, width, 2 * len(links))
    labels = np.full(cut.shape, -1, dtype=np.int32)
    labels[1:-1, 1:-1] = start
    halves = np.zeros((*cut.shape, len(links)), dtype=np.int32)
    halves[1:-1, 1:-1] = np.rint(links.transpose(1, 2, 0).astype(np.float64) * (scale / 2))
    limit = (
        2.0 * halves.max() * 2 * len(links) + 1
    )  # a label that costs more than this above the cheapest is no pixel's
    least = unary.min(axis=0)
    flat, flat_halves = labels.reshape(-1), halves.reshape(-1, len(links))
    turns = np.argsort(unary.sum(axis=(1, 2), dtype=np.float64), kind="stable")
    quiet = 0
    while True:
        for alpha in turns:
            _fill(alpha, unary, least, scale, limit, flat, flat_halves, cut.offsets, cut.excess, cut.residual, cut.tree)
            changed = cut.solve()[1]
            flat[changed] = alpha
            quiet = 1 if changed.any() else quiet + 1  # right after a move to alpha, another changes nothing
            if quiet == len(unary):
                return labels[1:-1, 1:-1].astype(np.int64)


def _cheapest(unary: Float) -> Labels:
    """Return each pixel's cheapest label, the first one of equals, int64 (H, W)."""
    labels: Labels = unary.argmin(axis=0).astype(np.int64)
    return labels


def _start(unary: Float, links: Float) -> Labels:
    """Return the cheaper one of each pixel's cheapest label and of what is found for blocks of 2 x 2 pixels."""
    height, width = unary.shape[1:]
    single = _cheapest(unary)
    if min(height, width) < SMALLEST:
        return single
    blocks = expand(*_halved(unary, links)).repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return min(single, blocks, key=lambda labels: energy_of(labels, unary, links))


def iterated_conditional_modes(unary: Float, links: Float, start: Labels | None = None) -> Labels:
    """Return labels that no change of a single pixel can better: what graph cuts are compared with.

    Arguments and result as `expand`'s; without a start it is each pixel's cheapest label. Pixels are visited in reading
    order.

    Source: J. Besag, "On the Statistical Analysis of Dirty Pictures", Journal of the Royal Statistical Society B 48(3),
    1986.
    """
    labels = _cheapest(unary) if start is None else start.copy()
    while _sweep(labels, unary, links):
        pass
    return labels


@compiled()
def _sweep(labels: Any, unary: Any, links: Any) -> Any:
    """Give each pixel in turn its best label beside its neighbours' labels; return how many changed."""
    num_labels, height, width = unary.shape
    changed = 0
    costs = np.empty(num_labels)
    for y in range(height):
        for x in range(width):
            total = 0.0
            for k in range(num_labels):
                costs[k] = unary[k, y, x]
            for s in range(links.shape[0]):
                for sign in (-1, 1):
                    v, u = y + sign * STEP_ROWS[s], x + sign * STEP_COLUMNS[s]
                    if 0 <= v < height and 0 <= u < width:
                        link = links[s, y, x] if sign > 0 else links[s, v, u]
                        total += link
                        costs[labels[v, u]] -= link
            best = labels[y, x]
            for k in range(num_labels):
                if costs[k] < costs[best] - 1e-9 * (total + abs(costs[best])):
                    best = k
            changed += best != labels[y, x]
            labels[y, x] = best
    return changed
