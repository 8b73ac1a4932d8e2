"""Time a pixel of the confusion matrix: ours, numpy's bincount, and other libraries where installed.

Command, from the repository root (under a minute on one core):

    .venv/bin/python benchmarks/confusion.py [--rounds 15]

Maps: eight masks of the CamVid validation set from ../shared/data/camvid (11 classes, 255 = void), or label
maps of smooth noise where that folder is missing, and 512 x 512 maps of two classes. The prediction is the
truth moved by (2, 3) pixels with 5 % of the pixels replaced by a random class; the third set predicts
uniformly random classes, which suits bincount best. All counters run in turn, round after round; min and
median over the rounds are shown, and every counter must return the same matrix as the slowest, plainest one.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pixelwise.metrics import confusion_matrix

ByteMap = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.int64]
Pairs = list[tuple[ByteMap, ByteMap]]
Counter = Callable[[ByteMap, ByteMap, int], Matrix]

IGNORE_INDEX = 255
CAMVID_MASKS = Path(__file__).resolve().parents[2] / "shared/data/camvid/masks/val"
OURS, PEER = "pixelwise", "bincount uint16"


def ours(truth: ByteMap, prediction: ByteMap, num_classes: int) -> Matrix:
    return confusion_matrix(prediction, truth, num_classes, IGNORE_INDEX)


def bincount_uint16(truth: ByteMap, prediction: ByteMap, num_classes: int) -> Matrix:
    """Count all rows up to 255 and keep the first: cheaper than masking the void pixels."""
    codes = np.multiply(truth, num_classes, dtype=np.uint16)
    codes += prediction
    counts = np.bincount(codes.reshape(-1), minlength=num_classes**2)
    return counts[: num_classes**2].reshape(num_classes, num_classes)


def bincount_uint16_blocks(truth: ByteMap, prediction: ByteMap, num_classes: int) -> Matrix:
    """Do the same on blocks whose 64-bit copy inside bincount stays in the cache."""
    codes = np.multiply(truth, num_classes, dtype=np.uint16)
    codes += prediction
    flat, cells = codes.reshape(-1), num_classes**2
    counts = np.zeros(cells, np.int64)
    for start in range(0, flat.size, 16384):
        counts += np.bincount(flat[start : start + 16384], minlength=cells)[:cells]
    return counts.reshape(num_classes, num_classes)


def bincount_int64(truth: ByteMap, prediction: ByteMap, num_classes: int) -> Matrix:
    codes = truth.astype(np.int64) * num_classes + prediction
    counts = np.bincount(codes.reshape(-1), minlength=num_classes**2)
    return counts[: num_classes**2].reshape(num_classes, num_classes)


def torchmetrics_counts(truth: ByteMap, prediction: ByteMap, num_classes: int) -> Matrix:
    import torch
    from torchmetrics.functional.classification import (  # type: ignore[import-not-found, unused-ignore]
        multiclass_confusion_matrix,
    )

    counts = multiclass_confusion_matrix(
        torch.from_numpy(prediction).long(),
        torch.from_numpy(truth).long(),
        num_classes,
        ignore_index=IGNORE_INDEX,
        validate_args=False,
    )
    return np.asarray(counts, np.int64)


def sklearn_counts(truth: ByteMap, prediction: ByteMap, num_classes: int) -> Matrix:
    from sklearn.metrics import confusion_matrix as sklearn_matrix  # type: ignore[import-not-found, unused-ignore]

    counted = truth != IGNORE_INDEX
    counts = sklearn_matrix(truth[counted], prediction[counted], labels=range(num_classes))
    return np.asarray(counts, np.int64)


def counters() -> dict[str, Counter]:
    """List the counters; libraries that are not installed are named and left out."""
    found: dict[str, Counter] = {
        OURS: ours,
        PEER: bincount_uint16,
        f"{PEER} blocks": bincount_uint16_blocks,
        "bincount int64": bincount_int64,
    }
    for module, counter in (("torchmetrics", torchmetrics_counts), ("sklearn", sklearn_counts)):
        if importlib.util.find_spec(module):
            found[module] = counter
        else:
            print(f"{module}: not installed")
    return found


def smooth_maps(rng: np.random.Generator, num_classes: int, shape: tuple[int, int], count: int) -> list[ByteMap]:
    maps = []
    for _ in range(count):
        noise = cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), 20)
        bounds = np.quantile(noise, np.linspace(0, 1, num_classes + 1)[1:-1])
        maps.append(np.digitize(noise, bounds).astype(np.uint8))
    return maps


def moved_with_noise(rng: np.random.Generator, truth: ByteMap, num_classes: int) -> ByteMap:
    moved = np.roll(np.where(truth < num_classes, truth, 0), (2, 3), axis=(0, 1))
    random = rng.integers(0, num_classes, truth.shape)
    return np.where(rng.random(truth.shape) < 0.05, random, moved).astype(np.uint8)


def map_sets(rng: np.random.Generator) -> dict[str, tuple[int, Pairs]]:
    paths = sorted(CAMVID_MASKS.glob("*.png"))[::13]
    if paths:
        name = "CamVid"
        truths = [np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.uint8) for path in paths]
    else:
        name = "smooth noise"
        truths = smooth_maps(rng, 11, (360, 480), 8)
    two = smooth_maps(rng, 2, (512, 512), 4)
    return {
        f"{name} 480x360, 11 classes": (11, [(t, moved_with_noise(rng, t, 11)) for t in truths]),
        "blobs 512x512, 2 classes": (2, [(t, moved_with_noise(rng, t, 2)) for t in two]),
        f"{name} 480x360, random prediction": (
            11,
            [(t, rng.integers(0, 11, t.shape).astype(np.uint8)) for t in truths],
        ),
    }


def time_set(title: str, num_classes: int, pairs: Pairs, found: dict[str, Counter], rounds: int) -> None:
    for name, counter in found.items():
        for truth, prediction in pairs:
            if not np.array_equal(
                counter(truth, prediction, num_classes), bincount_int64(truth, prediction, num_classes)
            ):
                raise SystemExit(f"{name} counts differently from bincount int64 on {title}")
    pixels = sum(truth.size for truth, _ in pairs)
    taken: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, counter in found.items():
            start = time.perf_counter()
            for truth, prediction in pairs:
                counter(truth, prediction, num_classes)
            taken[name].append((time.perf_counter() - start) / pixels * 1e9)
    print(f"\n{title} ({len(pairs)} maps, equal counts)\n{'':26}ns/pixel min  median   times ours (min)")
    for name, values in taken.items():
        ratio = min(values) / min(taken[OURS])
        print(f"{name:26}{min(values):12.3f}{statistics.median(values):8.3f}{ratio:12.2f}")
    peer = min(min(values) for name, values in taken.items() if name.startswith(PEER))
    print(f"ratio to the best uint16 bincount: {peer / min(taken[OURS]):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a pixel of the confusion matrix.")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    found = counters()
    label = np.zeros((1, 1), np.uint8)
    start = time.perf_counter()
    ours(label, label, 1)
    print(f"first call of {OURS} (numba import, compilation or cache): {time.perf_counter() - start:.2f} s")
    for title, (num_classes, pairs) in map_sets(np.random.default_rng(0)).items():
        time_set(title, num_classes, pairs, found, rounds)


if __name__ == "__main__":
    main()
