"""The compiled loops of joint boosting: histograms of dense features, the search for shared stumps, new weights.

Axes: N samples, F candidate features, C classes, L classes padded to a multiple of `LANES`, B bins of a feature, one
more than thresholds: bin b holds the samples that are over the first b thresholds.

Every loop does a part of the candidates or samples, and no sum is shared by parts: results don't depend on the threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelwise.crf.loops import compiled

LEAST_WEIGHT = 1e-30  # below which a weight doesn't fall: a class without pixels would end at 0


@compiled()
def dense_histograms(
    bins: Any, labels: Any, weights: Any, candidates: Any, first: Any, last: Any, sums: Any, own: Any
) -> None:
    """Sum the weights of each bin, for the candidates from `first` to `last`.

    Arguments: bins uint8 (features, N); labels uint8 (N,); weights float32 (N, L); numbers of the candidate features;
    float64 sums (F, B, C) over all samples and own (F, B, C) over those of the class, both zero at first.
    """
    classes = sums.shape[2]
    for k in range(first, last):
        feature = candidates[k]
        for i in range(labels.shape[0]):
            b = bins[feature, i]
            for c in range(classes):
                sums[k, b, c] += weights[i, c]
            own[k, b, labels[i]] += weights[i, labels[i]]


@compiled()
def gain_of(agreement: Any, weight: Any) -> Any:
    """Return by how much a constant fit lowers the squared error: (sum w z)^2 / sum w; 0 without weight."""
    return agreement * agreement / weight if weight > 0 else 0.0


@compiled()
def cumulate(sums: Any, own: Any, over: Any, under: Any) -> None:
    """Sum weights w and agreements w z over both sides of each threshold.

    Arguments: sums, own float64 (B, C) of one candidate; over and under float64 (B - 1, 2, C) to be filled. Both sides
    are added up from their ends: a difference of sums would leave rounding noise where there is nothing.
    """
    classes, last = sums.shape[1], sums.shape[0] - 2
    for c in range(classes):
        weight, agreement = 0.0, 0.0
        for t in range(last, -1, -1):
            weight += sums[t + 1, c]
            agreement += 2 * own[t + 1, c] - sums[t + 1, c]
            over[t, 0, c], over[t, 1, c] = weight, agreement
        weight, agreement = 0.0, 0.0
        for t in range(last + 1):
            weight += sums[t, c]
            agreement += 2 * own[t, c] - sums[t, c]
            under[t, 0, c], under[t, 1, c] = weight, agreement


@compiled()
def share(over: Any, under: Any, alone: Any, order: Any) -> Any:
    """Find a threshold's sharing set greedily: the class that gains most, then the best to add, up to all.

    Arguments: w and w z on both sides, float64 (2, C); each class's gain if it doesn't share, float64 (C,); int64 order
    (C,) in which the classes are added. Returns the best gain and the size that has it, the smaller of equally good.
    """
    classes = alone.shape[0]
    others = alone.sum()
    above, above_agreement, below, below_agreement = 0.0, 0.0, 0.0, 0.0
    best_gain, best_size = -1.0, 0
    for c in range(classes):
        order[c] = c
    for size in range(classes):
        best, which = -1.0, size
        for j in range(size, classes):
            c = order[j]
            gain = others - alone[c]
            gain += gain_of(above_agreement + over[1, c], above + over[0, c])
            gain += gain_of(below_agreement + under[1, c], below + under[0, c])
            if gain > best:
                best, which = gain, j
        chosen = order[which]
        order[which] = order[size]
        order[size] = chosen
        others -= alone[chosen]
        above += over[0, chosen]
        above_agreement += over[1, chosen]
        below += under[0, chosen]
        below_agreement += under[1, chosen]
        if best > best_gain:
            best_gain, best_size = best, size + 1
    return best_gain, best_size


@compiled()
def search(sums: Any, own: Any, first: Any, last: Any, gains: Any, thresholds: Any, shared: Any) -> None:
    """Find the best threshold and sharing set of the candidates from `first` to `last`.

    Arguments: sums, own float64 (F, B, C); float64 gains (F,), int32 thresholds (F,) and bool shared (F, C) to be
    filled. Of equally good thresholds the first wins.

    A stump lowers the squared error, which is sum w without one, by its gain: (sum w z)^2 / sum w, over each side of
    the threshold for the sharing classes together, and over everything for each other class.

    Source: Torralba, Murphy, Freeman, "Efficient computation of shared regression stumps" and the greedy search.
    """
    bins, classes = sums.shape[1], sums.shape[2]
    over = np.empty((bins - 1, 2, classes))
    under = np.empty((bins - 1, 2, classes))
    alone = np.empty(classes)
    order = np.empty(classes, dtype=np.int64)
    for k in range(first, last):
        cumulate(sums[k], own[k], over, under)
        for c in range(classes):
            alone[c] = gain_of(over[0, 1, c] + under[0, 1, c], over[0, 0, c] + under[0, 0, c])
        gains[k] = -1.0
        for t in range(bins - 1):
            gain, size = share(over[t], under[t], alone, order)
            if gain > gains[k]:
                gains[k] = gain
                thresholds[k] = t
                shared[k] = False
                for j in range(size):
                    shared[k, order[j]] = True


@compiled()
def reweigh(lanes: Any, weights: Any, labels: Any, over: Any, others: Any, own: Any, first: Any, last: Any) -> None:
    """Multiply the weights of samples from `first` to `last` by exp(-z h).

    Arguments: L zeros; weights float32 (N, L); labels uint8 (N,); over bool (N,); the factors float32 (2, L), first
    below the threshold, then above, for `others` and for the sample's `own` class.
    """
    least = np.float32(LEAST_WEIGHT)
    for i in range(first, last):
        side, label = np.int64(over[i]), labels[i]
        kept = weights[i, label] * own[side, label]
        for c in range(len(lanes)):
            weight = weights[i, c] * others[side, c]
            weights[i, c] = weight if weight > least else least
        weights[i, label] = kept if kept > least else least
