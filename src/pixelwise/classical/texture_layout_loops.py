"""The compiled loops of texture-layout features.

Axes: N images, H, W image, M stumps, K classes, L classes padded, S sampled pixels, F candidate features, B bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelwise.classical.vector import add_row
from pixelwise.crf.loops import compiled


@compiled()
def integrate(textons: Any, texton: Any, first: Any, last: Any, total: Any) -> None:
    """Write the integral image of a texton in the rows from `first` to `last`: int32 (rows + 1, W + 1), 0 in front."""
    width = textons.shape[1]
    for x in range(width + 1):
        total[0, x] = 0
    for y in range(first, last):
        row = y - first + 1
        run = np.int32(0)
        total[row, 0] = 0
        for x in range(width):
            run += np.int32(textons[y, x] == texton)
            total[row, x + 1] = total[row - 1, x + 1] + run


@compiled()
def add_stumps(
    textons: Any, rectangles: Any, wanted: Any, cuts: Any, steps: Any, shared: Any, first: Any, last: Any, scores: Any
) -> None:
    """Add what stumps give where they are over their thresholds, to the scores (K, H, W) of rows `first` to `last`.

    Arguments: textons uint16 (H, W); rectangles int32 (M, 4), wanted textons (M,), in order, cuts int32 (M,), steps
    float32 (M,) and shared bool (M, K) of the stumps.
    """
    height, width = textons.shape
    top, bottom, reach = 0, 1, 1
    for m in range(rectangles.shape[0]):
        top = min(top, rectangles[m, 0])
        bottom = max(bottom, rectangles[m, 2])
        reach = max(reach, max(abs(rectangles[m, 1]), abs(rectangles[m, 3])))
    begin, end = max(0, first + top), min(height, last + bottom)
    total = np.empty((end - begin + 1, width + 1), dtype=np.int32)
    strip = np.zeros(width + 1 + 2 * reach, dtype=np.int32)  # a row of the rectangle's height, and beyond both borders
    step = np.empty(width, dtype=np.float32)
    for m in range(rectangles.shape[0]):
        if m == 0 or wanted[m] != wanted[m - 1]:
            integrate(textons, wanted[m], begin, end, total)
        left, right, cut, gain = rectangles[m, 1] + reach, rectangles[m, 3] + reach, cuts[m], steps[m]
        for y in range(first, last):
            upper = min(max(y + rectangles[m, 0], begin), end) - begin
            lower = min(max(y + rectangles[m, 2], begin), end) - begin
            if upper >= lower:
                continue
            for x in range(width + 1):
                strip[reach + x] = total[lower, x] - total[upper, x]
            most = strip[reach + width]
            if most <= cut:
                continue
            for x in range(reach):
                strip[reach + width + 1 + x] = most
            for x in range(width):
                step[x] = gain if strip[right + x] - strip[left + x] > cut else np.float32(0)
            for k in range(scores.shape[0]):
                if shared[m, k]:
                    for x in range(width):
                        scores[k, y, x] += step[x]


@compiled()
def count_grid(rows: Any, columns: Any, first: Any, last: Any, edges: Any, height: Any, width: Any, grid: Any) -> Any:
    """Count, at each place of an image's grid, the listed pixels from `first` to `last` that its rectangle holds.

    Arguments: rows, columns uint16 of pixels; edges int32 (4, H or W): first row of the grid for each row of the image
    and the one after the last, the same for columns; size of the grid; int32 grid, flat, with a row and a column more.
    Returns the first row of the grid that has a count, and the one after the last; the others are not written.
    """
    stride = width + 1
    top, bottom = height, 0
    for j in range(first, last):
        top = min(top, edges[0, rows[j]])
        bottom = max(bottom, edges[1, rows[j]])
    top, bottom = max(top, 0), min(bottom, height)
    if top >= bottom:
        return 0, 0
    for j in range(top * stride, (bottom + 1) * stride):
        grid[j] = 0
    for j in range(first, last):
        upper = min(max(edges[0, rows[j]], top), bottom) * stride
        lower = min(max(edges[1, rows[j]], top), bottom) * stride
        start = min(max(edges[2, columns[j]], 0), width)
        end = min(max(edges[3, columns[j]], 0), width)
        grid[upper + start] += 1
        grid[upper + end] -= 1
        grid[lower + start] -= 1
        grid[lower + end] += 1
    for y in range(top, bottom):
        run = np.int32(0)
        here, above = grid[y * stride : y * stride + width], grid[(y - 1) * stride : (y - 1) * stride + width]
        if y == top:
            for x in range(width):
                run += here[x]
                here[x] = run
        else:
            for x in range(width):
                run += here[x]
                here[x] = run + above[x]
    return top, bottom


@compiled()
def count(where: Any, texton: Any, edges: Any, counts: Any) -> None:
    """Count one feature at all samples, int32 (S,), zero at first; arguments as for `histograms`."""
    rows, columns, first_pixel, grids, entries, cells, first_row, row_samples = where
    grid = np.empty(entries, dtype=np.int32)
    for n in range(grids.shape[0]):
        begin, end = first_pixel[n, texton], first_pixel[n, texton + 1]
        top, bottom = count_grid(rows, columns, begin, end, edges, grids[n, 0], grids[n, 1], grid)
        for i in range(row_samples[first_row[n] + top], row_samples[first_row[n] + bottom]):
            counts[i] = grid[cells[i]]


@compiled()
def histograms(
    lanes: Any, where: Any, textons: Any, edges: Any, table: Any, offsets: Any, labels: Any, weights: Any, first: Any,
    last: Any, total: Any, own_total: Any, sums: Any, own: Any,
) -> None:  # fmt: skip
    """Sum the weights in each bin, for the candidates from `first` to `last`; image by image, whose weights stay near.

    Arguments: L zeros; what `SampledPixels` knows of where pixels and samples lie; texton of each candidate, its edges
    (F, 4, H or W), and its bins: from `offsets` on, `table` has the bin of each count, the last one for all higher;
    labels uint8 (S,), weights float32 (S, L) and their totals; float64 sums and own (F, B, L), zero at first.

    Samples in bin 0, mostly without any pixel of the texton, aren't visited: their sums are what is left of the totals.
    """
    rows, columns, first_pixel, grids, entries, cells, first_row, row_samples = where
    bins = sums.shape[1]
    grid = np.empty(entries, dtype=np.int32)
    part = np.zeros((bins, len(lanes)), dtype=np.float32)  # sums of one image
    part_own = np.zeros((bins, len(lanes)), dtype=np.float32)
    counted = np.zeros(last - first, dtype=np.int64)
    for n in range(grids.shape[0]):
        for k in range(first, last):
            begin, end = first_pixel[n, textons[k]], first_pixel[n, textons[k] + 1]
            if begin == end:
                continue
            top, bottom = count_grid(rows, columns, begin, end, edges[k], grids[n, 0], grids[n, 1], grid)
            top_count = offsets[k + 1] - offsets[k] - 1
            highest: Any = 0
            for i in range(row_samples[first_row[n] + top], row_samples[first_row[n] + bottom]):
                number = grid[cells[i]]
                if number == 0:
                    continue
                place = np.int64(table[offsets[k] + min(number, top_count)])
                if place == 0:
                    continue
                highest = max(highest, place)
                counted[k - first] += 1
                add_row(lanes, part, place, weights, i)
                part_own[place, labels[i]] += weights[i, labels[i]]
            for b in range(1, highest + 1):
                for c in range(len(lanes)):
                    sums[k, b, c] += part[b, c]
                    part[b, c] = 0
                    own[k, b, c] += part_own[b, c]
                    part_own[b, c] = 0
    for k in range(first, last):
        if counted[k - first] == labels.shape[0]:
            continue
        for c in range(len(lanes)):
            rest, own_rest = total[c], own_total[c]
            for b in range(1, bins):
                rest -= sums[k, b, c]
                own_rest -= own[k, b, c]
            sums[k, 0, c] = max(rest, 0.0)
            own[k, 0, c] = min(max(own_rest, 0.0), sums[k, 0, c])
