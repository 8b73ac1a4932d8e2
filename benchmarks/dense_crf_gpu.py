"""Dense CRF in PyTorch on one device against the compiled loops: milliseconds, memory, and whether the beliefs agree.

    python benchmarks/dense_crf_gpu.py [--device cuda] [--sizes 240x180x5,500x375x21,2048x1024x19] [--rounds 10]
    python benchmarks/dense_crf_gpu.py --device cpu --sizes 240x180x5 --rounds 2 --threads 1
    python benchmarks/dense_crf_gpu.py --forms

Times are medians after two calls that are not counted; the device is waited for before the clock is read. `setup`
builds lattices and norms, `inference` does 10 iterations on them, `call` is `dense_crf_torch` on tensors of the
device, checks included. A size of four numbers, the last of images, refines a batch. Images are scikit-image's
astronaut, probabilities smooth noise, parameters those of `pydensecrf_default`. The compiled loops run on the CPU,
whatever the device. With `--forms`, the ways of splatting and slicing that PyTorch has are timed side by side instead:
`embedding_bag`, which is ours, sparse matrix products, `index_add_` and indexing.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import cv2
import numpy as np
import torch
from skimage import data
from torch import Tensor

from pixelwise.crf.dense import PRESETS, refine
from pixelwise.crf.torch_dense import dense_crf_torch, pixel_features
from pixelwise.crf.torch_lattice import Sums, TorchLattice
from pixelwise.crf.torch_mean_field import TorchMeanField

PARAMETERS = PRESETS["pydensecrf_default"]


def case(width: int, height: int, labels: int, images: int) -> tuple[Tensor, Tensor]:
    """Make images (B, H, W, 3) and smooth random probabilities (B, K, H, W)."""
    rng = np.random.default_rng(0)
    image = cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_AREA)
    coarse = rng.random((images * labels, height // 8 + 1, width // 8 + 1)).astype(np.float32) ** 4
    maps = np.stack([cv2.resize(each, (width, height)) for each in coarse]) + np.float32(1e-3)
    maps = maps.reshape(images, labels, height, width)
    turned = np.stack([np.roll(image, 7 * index, axis=1) for index in range(images)])
    return torch.from_numpy(turned), torch.from_numpy(maps / maps.sum(axis=1, keepdims=True))


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def milliseconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Return the median time of a call, after two that are not counted."""
    found = []
    for _ in range(rounds + 2):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        found.append(1000 * (time.perf_counter() - started))
    return statistics.median(found[2:])


def features_of(images: Tensor) -> list[Tensor]:
    """Return the features of both kernels."""
    sigmas = PARAMETERS.bilateral_spatial_sigma, PARAMETERS.bilateral_color_sigma
    return [pixel_features(images, PARAMETERS.spatial_sigma), pixel_features(images, *sigmas)]


def measure(size: str, device: torch.device, rounds: int) -> None:
    """Time one size and compare its beliefs."""
    width, height, labels, *rest = map(int, size.split("x"))
    images, maps = (each.to(device) for each in case(width, height, labels, rest[0] if rest else 1))
    weights = [PARAMETERS.spatial_weight, PARAMETERS.bilateral_weight]

    def build() -> TorchMeanField:
        return TorchMeanField(features_of(images), PARAMETERS.normalization)

    field = build()
    points = maps.flatten(2)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    call = milliseconds(lambda: dense_crf_torch(images, maps, PARAMETERS), device, rounds)
    memory = f", {torch.cuda.max_memory_allocated(device) / 1e6:.0f} MB" if device.type == "cuda" else ""
    setup = milliseconds(build, device, rounds)
    inference = milliseconds(lambda: field.infer(points, weights, iterations=10), device, rounds)
    print(f"{size} on {device}: call {call:.1f} ms (setup {setup:.1f}, inference {inference:.1f}){memory}")
    on_cpu = [(each.numpy(), own.numpy()) for each, own in zip(images.cpu(), maps.cpu(), strict=True)]
    compiled = milliseconds(lambda: [refine(*pair, PARAMETERS) for pair in on_cpu], torch.device("cpu"), rounds)
    print(f"  compiled loops on the CPU: {compiled:.1f} ms, {compiled / call:.2f} times as long")
    found = dense_crf_torch(images, maps, PARAMETERS)
    again = torch.equal(found, dense_crf_torch(images, maps, PARAMETERS))
    ours, wanted = found.cpu().numpy(), np.stack([refine(*pair, PARAMETERS) for pair in on_cpu])
    error, same = np.abs(ours - wanted), (ours.argmax(axis=1) == wanted.argmax(axis=1)).mean()
    print(
        f"  largest difference {error.max():.1e}, above 1e-4: {(error > 1e-4).mean():.4%}, equal labels {same:.4%}, "
        f"two calls equal to the bit: {'yes' if again else 'NO'}"
    )


def forms_of(lattice: TorchLattice, values: Tensor, table: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return the ways of splatting values (P, C) and of slicing a table (M, C)."""
    columns, weights = lattice.ids.long().unbind(1), lattice.weights.unbind(1)
    first = lattice.counts.cumsum(0) - lattice.counts
    splatting = sparse(lattice.splats[0], first, len(values))
    slicing = sparse(lattice.slice, lattice.slice.starts, len(table))

    def bags() -> Tensor:
        sums = values
        for splat in lattice.splats:
            sums = splat(sums)
        return sums

    def added() -> Tensor:
        sums = torch.zeros_like(table)
        for column, weight in zip(columns, weights, strict=True):
            sums.index_add_(0, column, values * weight[:, None])
        return sums

    def indexed() -> Tensor:
        sums = torch.zeros_like(values)
        for column, weight in zip(columns, weights, strict=True):
            sums += table[column] * weight[:, None]
        return sums

    return {
        "splat, embedding_bag": bags,
        "splat, sparse product": lambda: torch.sparse.mm(splatting, values),
        "splat, index_add_": added,
        "slice, embedding_bag": lambda: lattice.slice(table),
        "slice, sparse product": lambda: torch.sparse.mm(slicing, table),
        "slice, indexing": indexed,
    }


def sparse(sums: Sums, starts: Tensor, columns: int) -> Tensor:
    """Return the weighted sums that begin at `starts` as a sparse matrix of so many columns."""
    assert sums.weights is not None
    ends = torch.cat([starts.to(sums.rows.dtype), sums.rows.new_tensor([len(sums.rows)])])
    return torch.sparse_csr_tensor(ends, sums.rows, sums.weights, (len(starts), columns), check_invariants=False)


def compare_forms(device: torch.device, rounds: int) -> None:
    """Time the ways of splatting and slicing 21 labels on both lattices of a picture of 500 x 375."""
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    images, _ = case(500, 375, 21, 1)
    values = torch.rand(500 * 375, 21, device=device)
    for name, features in zip(("smoothness", "appearance"), features_of(images[0].to(device)), strict=True):
        lattice = TorchLattice(features)
        table = torch.rand(lattice.num_vertices, 21, device=device)
        fullest = int(lattice.counts.max())
        print(f"{name} kernel on {device}, {lattice.num_vertices} vertices, the fullest of {fullest} points")
        for form, work in forms_of(lattice, values, table).items():
            print(f"  {form}: {milliseconds(work, device, rounds):.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=torch.device, default=torch.device(default))
    parser.add_argument(
        "--sizes", default="240x180x5,500x375x21,2048x1024x19", help="WIDTHxHEIGHTxLABELS[xIMAGES], ..."
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, help="of PyTorch on the CPU.")
    parser.add_argument("--forms", action="store_true", help="Time the ways of splatting and slicing instead.")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.forms:
        compare_forms(given.device, given.rounds)
        return
    for size in given.sizes.split(","):
        measure(size, given.device, given.rounds)


if __name__ == "__main__":
    main()
