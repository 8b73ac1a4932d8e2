"""Time V_rand and V_info of one slice: ours, and scikit-image's Rand error and variation of information.

Command, from the repository root (under a minute on one core):

    .venv/bin/python benchmarks/em_metrics.py [--rounds 30]

Maps of 512 x 512: the cells of slices of ../shared/data/isbi2012-em, against an over-segmentation of the same
slice (the smoothed image, thresholded and thinned), or Voronoi cells where that folder is missing. Both see the
same maps; scikit-image gets each line pixel of the prediction as a segment of its own, which is our rule for
them, and leaves out the membrane of the truth by `ignore_labels`. Its numbers become ours by

    precision, recall of the pairs  -> V_rand:  SAB' = precision * SA', SB' = SAB' / recall, and SX = SX' + 1 / n,
                                                where SX' leaves out the n pairs of a pixel with itself
    H(B|A), H(A|B) in bits          -> V_info:  I = HA - H(A|B), HB = I + H(B|A), V_info = 2 I / (HA + HB)

with SA and HA of the truth alone; the conversion is not timed, and values must agree to 1e-9. Ours and theirs run
in turn in one process with one thread. A second row gives scikit-image all lines as one segment: fewer segments,
other values. Then the whole of a slice is timed: 11 thresholds with thinning, all scores but the warping error.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from skimage.metrics import adapted_rand_error, variation_of_information

from pixelwise.metrics import MembraneTally, partition_scores, thin_membranes

LabelMap = npt.NDArray[np.int32]
Pair = tuple[LabelMap, LabelMap]

SLICES = Path(__file__).resolve().parents[2] / "shared/data/isbi2012-em"
SIZE = 512


def ours(prediction: LabelMap, truth: LabelMap) -> tuple[float, float]:
    scores = partition_scores(prediction, truth)
    assert scores is not None
    return scores.vrand, scores.vinfo


def skimage_numbers(prediction: LabelMap, truth: LabelMap) -> tuple[float, float, float, float]:
    """Return pairs found of the true and of the predicted ones, H(B|A) and H(A|B) in bits; A is the truth."""
    _, of_truth, of_prediction = adapted_rand_error(truth, prediction, ignore_labels=(0,))  # type: ignore[no-untyped-call]
    given_truth, given_prediction = variation_of_information(truth, prediction, ignore_labels=(0,))  # type: ignore[no-untyped-call]
    return of_truth, of_prediction, given_truth, given_prediction


def converted(numbers: tuple[float, float, float, float], truth: LabelMap) -> tuple[float, float]:
    """Turn the numbers of scikit-image into V_rand and V_info."""
    areas = np.bincount(truth[truth > 0])
    areas = areas[areas > 0].astype(np.float64)
    n = float(areas.sum())
    pairs_truth = float(areas @ areas) - n
    of_truth, of_prediction, given_truth, given_prediction = numbers
    pairs_both = of_truth * pairs_truth
    pairs_prediction = pairs_both / of_prediction
    vrand = 2 * (pairs_both + n) / (pairs_truth + pairs_prediction + 2 * n)
    entropy = float(areas @ np.log(n / areas)) / n
    shared = entropy - given_prediction * math.log(2)
    vinfo = 2 * shared / (entropy + shared + given_truth * math.log(2))
    return vrand, vinfo


def with_single_pixels(prediction: LabelMap) -> LabelMap:
    """Give each pixel of 0 a label of its own."""
    lines = prediction == 0
    result = prediction.copy()
    result[lines] = prediction.max() + 1 + np.arange(np.count_nonzero(lines))
    return result


def voronoi(rng: np.random.Generator, num_cells: int) -> LabelMap:
    points = rng.integers(0, SIZE, (num_cells, 2))
    seeds = np.ones((SIZE, SIZE), np.uint8)
    seeds[points[:, 0], points[:, 1]] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    return np.asarray(labels, np.int32)


def cells_of(labels: LabelMap) -> npt.NDArray[np.bool_]:
    edge = cv2.morphologyEx(labels.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))
    return np.asarray(edge == 0)


def slices(rng: np.random.Generator) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
    """Return probabilities of interior and true interiors, (H, W) each."""
    found = []
    for path in sorted((SLICES / "images/train").glob("*.png"))[::8]:
        image = np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.float32) / 255
        mask = np.asarray(cv2.imread(str(SLICES / "masks/train" / path.name), cv2.IMREAD_UNCHANGED))
        found.append((cv2.GaussianBlur(image, (0, 0), 2.0).astype(np.float32), mask == 0))
    for _ in range(0 if found else 3):
        truth = cells_of(voronoi(rng, 140))
        noise = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)), (0, 0), 3) * 2
        probability = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 1.5) + noise
        found.append((probability.clip(0, 1).astype(np.float32), truth))
    return found


def median_ms(function: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)


def compare(pair: Pair, rounds: int) -> None:
    prediction, truth = pair
    single = with_single_pixels(prediction)
    for value, theirs in zip(ours(*pair), converted(skimage_numbers(single, truth), truth), strict=True):
        if not math.isclose(value, theirs, abs_tol=1e-9):
            raise SystemExit(f"ours gives {value}, scikit-image {theirs}")
    rows: dict[str, Callable[[], object]] = {
        "pixelwise": lambda: ours(prediction, truth),
        "skimage, equal values": lambda: skimage_numbers(single, truth),
        "skimage, lines as one": lambda: skimage_numbers(prediction, truth),
    }
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, row in rows.items():
            taken[name].append(median_ms(row, 1))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    counts = f"{truth.max()} true cells, {prediction.max()} predicted"
    print(f"\n{counts}: V_rand {ours(*pair)[0]:.6f}, V_info {ours(*pair)[1]:.6f}\n{'':24}median ms  times ours")
    for name, value in medians.items():
        print(f"{name:24}{value:9.3f}{value / medians['pixelwise']:12.1f}")


def scored(probability: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_], with_warping_error: bool) -> None:
    MembraneTally(with_warping_error=with_warping_error).add(probability, truth)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time V_rand and V_info of one slice.")
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    start = time.perf_counter()
    MembraneTally(with_warping_error=True).add(np.zeros((1, 1)), np.ones((1, 1), np.bool_))
    print(f"first call (numba import, compilation or cache): {time.perf_counter() - start:.2f} s")
    found = slices(np.random.default_rng(0))
    for probability, truth in found:
        _, cells = cv2.connectedComponents(truth.astype(np.uint8), connectivity=4)
        compare((np.ascontiguousarray(thin_membranes(probability > 0.5)), cells.astype(np.int32)), rounds)
    for title, warped, repeats in (("all but the warping error", False, rounds), ("warping error too", True, 3)):
        taken = [median_ms(functools.partial(scored, *slice_, warped), repeats) for slice_ in found]
        print(f"whole slice, 11 thresholds, {title}: {statistics.median(taken):.1f} ms")


if __name__ == "__main__":
    main()
