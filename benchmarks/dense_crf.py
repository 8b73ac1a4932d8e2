"""Dense CRF against pydensecrf: seconds, processor seconds, peak memory, and whether the beliefs agree.

    python3 -m venv PEER && PEER/bin/pip install cython numpy setuptools wheel
    PEER/bin/pip install --no-build-isolation pydensecrf2
    python benchmarks/dense_crf.py PEER/bin/python [--sizes 240x180x5,500x375x21,2048x1024x19] [--rounds 3]

Each measurement is a process of its own, in turn; setup and 10 iterations are timed, the best of several calls after
one that is not counted. Images are scikit-image's astronaut at that size, probabilities smooth noise. Parameters are
pydensecrf's usual ones (`pydensecrf_default`), normalisation symmetric. A ratio above 1 says how much faster ours is.
Memory is the peak of the whole process up to the end of the first call, with its libraries and the case, and what of
it came after they were loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

PEER = """
import json, resource, sys, time
import numpy as np
import pydensecrf.densecrf as dcrf
case = np.load(sys.argv[1])
image, probabilities = np.ascontiguousarray(case["image"]), case["probabilities"]
labels, height, width = probabilities.shape
unary = np.ascontiguousarray(-np.log(np.clip(probabilities, 1e-5, 1)).reshape(labels, -1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def run():
    crf = dcrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(unary)
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    return np.array(crf.inference(10))
"""
OURS = """
import json, os, resource, sys, time
import numpy as np
from pixelwise.crf.dense import PRESETS, refine
case = np.load(sys.argv[1])
image, probabilities = case["image"], case["probabilities"]
labels = len(probabilities)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
threads = int(sys.argv[4])
def run():
    return refine(image, probabilities, PRESETS["pydensecrf_default"], num_threads=threads).reshape(labels, -1)
"""
TIMING = """
started = time.perf_counter()
result = run()
first = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
best = []
for _ in range(int(sys.argv[3])):
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    best.append((time.perf_counter() - wall, time.process_time() - cpu))
np.save(sys.argv[2], result)
found = {"first": first, "wall": min(w for w, _ in best), "cpu": min(c for _, c in best), "mb": (peak - before) / 1024,
         "peak": peak / 1024}
print(json.dumps(found))
"""


def write_case(path: Path, width: int, height: int, labels: int) -> None:
    """Write an image and smooth random probabilities."""
    rng = np.random.default_rng(0)
    image = cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_AREA)
    coarse = rng.random((labels, height // 8 + 1, width // 8 + 1)).astype(np.float32) ** 4
    maps = np.stack([cv2.resize(each, (width, height)) for each in coarse]) + np.float32(1e-3)
    np.savez(path, image=image, probabilities=maps / maps.sum(axis=0))


def measure(python: str, program: str, case: Path, out: Path, rounds: int, *extra: str) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    command = [python, "-c", program + TIMING, str(case), str(out), str(rounds), *extra]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def memory(found: dict[str, float]) -> str:
    """Say how much memory a process took."""
    return f"{found['peak']:.0f} MB at the peak ({found['mb']:.0f} of them since the start)"


def compare(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> str:
    """Say how far the beliefs lie apart."""
    error = np.abs(ours - theirs)
    same = (ours.argmax(axis=0) == theirs.argmax(axis=0)).mean()
    return f"largest difference {error.max():.1e}, above 1e-4: {(error > 1e-4).mean():.4%}, equal labels {same:.4%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", help="Python with pydensecrf2.")
    parser.add_argument("--sizes", default="240x180x5,500x375x21,2048x1024x19", help="WIDTHxHEIGHTxLABELS, ...")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in given.sizes.split(","):
            case = folder / "case.npz"
            write_case(case, *map(int, size.split("x")))
            peer = measure(given.peer, PEER, case, folder / "peer.npy", given.rounds)
            print(f"{size}: pydensecrf {peer['wall']:.3f} s, {peer['cpu']:.3f} s of processor, {memory(peer)}")
            for threads in (1, 2):
                ours = measure(sys.executable, OURS, case, folder / "ours.npy", given.rounds, str(threads))
                print(
                    f"  ours, {threads} threads: {ours['wall']:.3f} s ({peer['wall'] / ours['wall']:.1f} times as "
                    f"fast), {ours['cpu']:.3f} s of processor ({peer['cpu'] / ours['cpu']:.1f}), {memory(ours)}, "
                    f"first call {ours['first'] - ours['wall']:.2f} s longer"
                )
            print("  " + compare(np.load(folder / "ours.npy"), np.load(folder / "peer.npy")))


if __name__ == "__main__":
    main()
