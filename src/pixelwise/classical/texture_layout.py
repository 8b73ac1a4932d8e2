"""Texture-layout features: how much of a rectangle near a pixel a texton fills.

J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost for Image Understanding: Multi-Class Object Recognition and
Segmentation by Jointly Modeling Texture, Layout, and Context", IJCV 81(1), 2009, section 4.2: v(i, r, t) is the number
of pixels of texton t in rectangle r moved to pixel i, over the area of r. Pixels outside the image have no texton, but
count in the area.

Counts are whole numbers and thresholds are compared as such: no rounding anywhere.

Axes: N images, H, W image, R rectangles, T textons, K classes, L classes padded to a multiple of 8, S sampled pixels, B
bins of a feature, one more than thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelwise.classical import texture_layout_loops as loops
from pixelwise.classical.joint_boost import Stumps, Sums, halves
from pixelwise.crf.lattice import each, shares

HIGHEST = 0.5  # share of a rectangle above which there is no threshold
FEWEST_ROWS = 16  # of an image for which a further thread pays


@dataclass(frozen=True, kw_only=True, eq=False)
class TextureLayoutFeatures:
    """The features: R * T pairs of a rectangle and a texton; number r * T + t.

    Attributes:
        num_textons: T.
        rectangles: int32 (R, 4), first row and column, and those after the last, from the pixel.
        thresholds: float64 (B - 1,), ascending shares of the rectangle.
    """

    num_textons: int
    rectangles: NDArray[np.int32]
    thresholds: NDArray[np.float64]

    @classmethod
    def random(
        cls, num_textons: int, *, num_rectangles: int = 100, box: int = 200, num_thresholds: int = 32, seed: int = 0
    ) -> TextureLayoutFeatures:
        """Draw rectangles: two opposite corners anywhere in the box around the pixel.

        Thresholds grow with the square: 0, which asks whether the texton is there at all, to a half.
        """
        rng = np.random.default_rng((seed, 1))
        half = box // 2
        edges = np.sort(rng.integers(-half, half + 1, (2, num_rectangles, 2)), axis=-1)  # rows, columns
        edges[edges[..., 0] == edges[..., 1], 1] += 1  # never empty
        rectangles = np.stack([edges[0, :, 0], edges[1, :, 0], edges[0, :, 1], edges[1, :, 1]], axis=-1)
        return cls(
            num_textons=num_textons,
            rectangles=rectangles.astype(np.int32),
            thresholds=HIGHEST * (np.arange(num_thresholds) / num_thresholds) ** 2,
        )

    @property
    def num_features(self) -> int:
        """R * T."""
        return len(self.rectangles) * self.num_textons

    @property
    def areas(self) -> NDArray[np.int64]:
        """Pixels of each rectangle, int64 (R,)."""
        top, left, bottom, right = self.rectangles.astype(np.int64).T
        areas: NDArray[np.int64] = (bottom - top) * (right - left)
        return areas

    @property
    def cuts(self) -> NDArray[np.int32]:
        """The thresholds as counts, int32 (R, B - 1): v > theta where the count is larger."""
        return np.floor(self.areas[:, None] * self.thresholds).astype(np.int32)

    def counts(self, textons: NDArray[np.uint16], feature: int) -> NDArray[np.int32]:
        """Count a feature's texton in its rectangle around each pixel.

        Args:
            textons: uint16 (H, W).
            feature: its number.

        Returns:
            int32 (H, W).
        """
        rectangle, texton = divmod(feature, self.num_textons)
        total = np.zeros((textons.shape[0] + 1, textons.shape[1] + 1), np.int32)
        total[1:, 1:] = (textons == texton).cumsum(axis=0).cumsum(axis=1)
        top, left, bottom, right = self.rectangles[rectangle]
        rows, columns = (np.arange(size) for size in textons.shape)
        upper, lower = (np.clip(rows + edge, 0, len(rows))[:, None] for edge in (top, bottom))
        start, end = (np.clip(columns + edge, 0, len(columns)) for edge in (left, right))
        counts: NDArray[np.int32] = total[lower, end] - total[upper, end] - total[lower, start] + total[upper, start]
        return counts

    def scores(self, textons: NDArray[np.uint16], stumps: Stumps, *, num_threads: int = 1) -> NDArray[np.float32]:
        """Add up the stumps at every pixel of an image.

        Args:
            textons: uint16 (H, W).
            stumps: M stumps over these features.
            num_threads: that share the rows; the result is the same.

        Returns:
            float32 (K, H, W).
        """
        order = np.argsort(stumps.features % self.num_textons, kind="stable")
        rectangle, texton = np.divmod(stumps.features[order].astype(np.int64), self.num_textons)
        cuts = self.cuts[rectangle, stumps.thresholds[order]]
        steps = (stumps.above - stumps.below)[order]
        floor = (stumps.constants + stumps.shared * stumps.below[:, None]).sum(axis=0, dtype=np.float64)
        scores = np.empty((stumps.shared.shape[1], *textons.shape), np.float32)
        scores[...] = floor.astype(np.float32)[:, None, None]
        shared = np.ascontiguousarray(stumps.shared[order])
        weak = (self.rectangles[rectangle], texton, cuts, steps, shared)
        # A part for each thread: a part integrates the rows around its own too.
        parts = shares(len(textons), min(num_threads, max(1, len(textons) // FEWEST_ROWS)))
        with ThreadPoolExecutor(len(parts)) as pool:
            each(pool, lambda part: loops.add_stumps(textons, *weak, *part, scores), parts)
        return scores


class SampledPixels:
    """Texture-layout features of the pixels on a grid in each image: what the boosting is trained on.

    Nothing of the size of samples times features is kept: the pixels of each texton are listed, and a feature is
    counted where it is looked at, on the grid, from the pixels of its texton: each adds 1 to a rectangle of the grid,
    which costs four entries of a table of differences; the table's sums are the counts.

    Args:
        features: the features.
        maps: N texton maps, uint16 (H, W), of any sizes.
        kept: N masks, bool (H, W): pixels that may be sampled.
        step: every which row and column is sampled, from step // 2.

    Attributes:
        pixels: the rows and columns of the sampled pixels of each image, in the order of the samples.
    """

    def __init__(
        self,
        features: TextureLayoutFeatures,
        maps: Sequence[NDArray[np.uint16]],
        kept: Sequence[NDArray[np.bool_]],
        *,
        step: int,
    ) -> None:
        self.features, self.step = features, step
        first = step // 2
        grids = [mask[first::step, first::step] for mask in kept]
        chosen = [np.nonzero(grid) for grid in grids]
        self.pixels = [(rows * step + first, columns * step + first) for rows, columns in chosen]
        # A grid has a column more than the image: differences end there.
        cells = [rows * (grid.shape[1] + 1) + columns for (rows, columns), grid in zip(chosen, grids, strict=True)]
        self._cells = np.concatenate(cells).astype(np.int32)
        # Samples of image n's row y of the grid: from row_samples[first_row[n] + y] to the next entry.
        per_row = [
            np.append(np.bincount(rows, minlength=len(grid)), 0) for (rows, _), grid in zip(chosen, grids, strict=True)
        ]
        first_row = np.cumsum([0, *(len(part) for part in per_row)])
        row_samples = np.cumsum([0, *np.concatenate(per_row)])
        self._longest = max(max(textons.shape) for textons in maps)
        sizes = np.array([grid.shape for grid in grids], np.int64)
        entries = int((sizes + 1).prod(axis=1).max())  # of the largest table of differences
        self._where = (*self._listed(maps), sizes, entries, self._cells, first_row, row_samples)

    def _listed(
        self, maps: Sequence[NDArray[np.uint16]]
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.int64]]:
        """List the rows and the columns of each image's pixels, texton by texton.

        Returns:
            uint16, uint16: pixels of all images; int64 (N, T + 1): where each texton's begin.
        """
        count = self.features.num_textons
        starts = np.cumsum([0, *(textons.size for textons in maps)])
        rows, columns = np.empty((2, starts[-1]), np.uint16)
        first_pixel = np.empty((len(maps), count + 1), np.int64)
        for n, textons in enumerate(maps):
            where = slice(starts[n], starts[n + 1])
            order = np.argsort(textons, axis=None, kind="stable")
            rows[where], columns[where] = np.divmod(order, textons.shape[1])
            first_pixel[n, 0] = starts[n]
            first_pixel[n, 1:] = starts[n] + np.cumsum(np.bincount(textons.ravel(), minlength=count))
        return rows, columns, first_pixel

    @property
    def num_features(self) -> int:
        """R * T."""
        return self.features.num_features

    def histograms(
        self,
        features: NDArray[np.int64],
        labels: NDArray[np.uint8],
        weights: NDArray[np.float32],
        num_classes: int,
        pool: ThreadPoolExecutor | None,
    ) -> tuple[Sums, Sums]:
        """Sum the weights of the samples in each bin of some features: see `FeatureSource`."""
        cuts, (rectangles, textons) = self.features.cuts, np.divmod(features, self.features.num_textons)
        num_bins, padded = cuts.shape[1] + 1, weights.shape[1]
        sums, own = np.zeros((2, len(features), num_bins, padded))
        own_weights = weights[np.arange(len(labels)), labels]
        totals = (weights.sum(axis=0, dtype=np.float64), np.bincount(labels, weights=own_weights, minlength=padded))
        bins = [np.searchsorted(cuts[r], np.arange(cuts[r, -1] + 2), side="left").astype(np.uint8) for r in rectangles]
        lookup = (np.concatenate(bins), np.cumsum([0, *(len(table) for table in bins)]))
        lanes, edges = (0,) * padded, self._edges(rectangles)

        def work(part: tuple[int, int]) -> None:
            loops.histograms(lanes, self._where, textons, edges, *lookup, labels, weights, *part, *totals, sums, own)

        each(pool, work, halves(len(features), pool))
        return np.ascontiguousarray(sums[..., :num_classes]), np.ascontiguousarray(own[..., :num_classes])

    def _edges(self, rectangles: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return which rows and columns of the grid have a pixel in their rectangle.

        Returns:
            int32 (F, 4, H or W): first row of the grid for each row of the image, and the one after the last; the same
            for columns. They may lie outside the grid.
        """
        places = np.arange(self._longest)
        top, left, bottom, right = (edge[:, None] for edge in self.features.rectangles[rectangles].T)
        # Sample g at first + step g has row y in its rectangle if y - bottom < first + step g <= y - top.
        edges = [(places - edge - self.step // 2) // self.step + 1 for edge in (bottom, top, right, left)]
        return np.stack(edges, axis=1).astype(np.int32)

    def over(self, feature: int, threshold: int) -> NDArray[np.bool_]:
        """Return which samples have a value over one of the thresholds, bool (S,)."""
        rectangle, texton = divmod(feature, self.features.num_textons)
        counts = np.zeros(len(self._cells), np.int32)
        edges = self._edges(np.array([rectangle]))[0]
        loops.count(self._where, texton, edges, counts)
        over: NDArray[np.bool_] = counts > self.features.cuts[rectangle, threshold]
        return over
