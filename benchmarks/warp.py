"""Time the fused warp of a 512x512 colour image and its mask against albumentations' elastic step alone.

Ours does scale, aspect, rotation, flip, crop and elastic deformation; the peer's GridElasticDeform the
elastic deformation only. One thread (`cv2.setNumThreads(1)`); the two alternate, so that other load hits both.

    python3 -m venv peer-venv
    peer-venv/bin/pip install albumentations==2.0.8 opencv-python-headless numpy scipy pydantic
    PYTHONPATH=src peer-venv/bin/python benchmarks/warp.py

Target: at most half the peer's time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelwise.data.augment import photometric, sample_rng, sample_warp
from pixelwise.data.augment_config import AugmentConfig, microscopy, mild

SIDE = 512
Step = Callable[[int], object]


def fused(config: AugmentConfig, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Step:
    def step(index: int) -> object:
        rng = sample_rng(0, 0, index)
        warp = sample_warp(rng, config, image_size=(SIDE, SIDE), output_size=(SIDE, SIDE))
        return warp.image(image), warp.labels(mask)

    return step


def grey_values(image: NDArray[np.uint8]) -> Step:
    return lambda index: photometric(sample_rng(0, 0, index), mild(), image)


def peer(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Step | None:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations
    except ImportError:
        return None
    transform = albumentations.Compose(
        [albumentations.GridElasticDeform(num_grid_xy=(3, 3), magnitude=10, p=1)], seed=0
    )
    return lambda _: transform(image=image, mask=mask)


def measure(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each round of each step, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(-1, rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step(max(index, 0))
            if index >= 0:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8), (0, 0), 2)
    mask = (image[..., 0] > 127).astype(np.uint8)
    grey = image[..., :1].copy()
    ours = "fused warp, colour, linear"
    steps = {
        ours: fused(microscopy(), image, mask),
        "fused warp, grey, linear": fused(microscopy(), grey, mask),
        "fused warp, colour, cubic": fused(microscopy().model_copy(update={"interpolation": "cubic"}), image, mask),
        "brightness, contrast, blur, noise, colour": grey_values(image),
    }
    other = peer(image, mask)
    if other is not None:
        steps["albumentations GridElasticDeform"] = other
    times = measure(steps, rounds)
    print(f"OpenCV {cv2.__version__}, numpy {np.__version__}, {SIDE}x{SIDE}, one thread, {rounds} rounds")
    for name, values in times.items():
        print(f"{name:45s} best {min(values):7.2f} ms   median {statistics.median(values):7.2f} ms")
    if other is None:
        print("albumentations is not installed here; the first lines of this file say how to compare with it")
        return
    theirs = times["albumentations GridElasticDeform"]
    print(
        f"ratio ours / theirs (target at most 0.50): best {min(times[ours]) / min(theirs):.2f}, "
        f"median {statistics.median(times[ours]) / statistics.median(theirs):.2f}"
    )


if __name__ == "__main__":
    main()
