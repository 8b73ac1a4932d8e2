"""Alpha-expansion on a grid: seconds, and its minimum cut against scipy's maximum flow and, beside it, PyMaxflow's.

    python benchmarks/grid_crf.py [--sizes 240x180x11,480x360x11] [--connectivity 4,8] [--peer PEER/bin/python]

scipy is the peer with a permissive licence. PyMaxflow (GPL) and gco-wrapper (whose C++ part is for research only) are
measured only where somebody has an environment with them, in processes of their own:

    python3 -m venv PEER && PEER/bin/pip install numpy PyMaxflow gco-wrapper

Images are scikit-image's astronaut at that size. A classifier is imitated: smooth regions of random classes, whose
logits have noise of standard deviation 1 and an advantage of 1.5 for the true class, so that every other pixel is
wrong. The single cut divides the first half of the labels from the second. Seconds are of the processor, the best of
the rounds after one call that is not counted; the graph is built within the time for ours and scipy, before it for
PyMaxflow and gco, whose times are those of `maxflow` and of the expansion alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import maximum_flow
from skimage import data

from pixelwise.crf.expansion import energy_of, iterated_conditional_modes
from pixelwise.crf.grid import GRIDS, GridCRF
from pixelwise.crf.min_cut import STEPS, min_cut

SCALE = 1000  # whole numbers of an energy of 1, for the single cut

PEERS = """
import json, sys, time
import numpy as np
case, rounds = np.load(sys.argv[1]), int(sys.argv[2])
excess, links, unary, float_links, steps = (case[k] for k in ("excess", "links", "unary", "float_links", "steps"))
height, width = excess.shape
found = {}

def best(run):
    times = []
    for _ in range(rounds):
        times.append(run())
    return min(times)

def cut():
    import maxflow
    graph = maxflow.GraphInt(excess.size, excess.size * len(links))
    nodes = graph.add_grid_nodes(excess.shape)
    for link, (down, right) in zip(links, steps):
        structure = np.zeros((3, 3)); structure[1 + down, 1 + right] = 1
        graph.add_grid_edges(nodes, weights=link, structure=structure, symmetric=True)
    graph.add_grid_tedges(nodes, np.maximum(excess, 0), np.maximum(-excess, 0))
    started = time.process_time()
    found["cost"] = graph.maxflow()
    return time.process_time() - started

def swap():
    import gco
    numbers = np.arange(excess.size).reshape(excess.shape)
    first, second, weights = [], [], []
    for link, (down, right) in zip(float_links, steps):
        here = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        there = slice(down, height), slice(max(0, right), width + min(0, right))
        first.append(numbers[here].ravel()); second.append(numbers[there].ravel()); weights.append(link[here].ravel())
    edges = np.stack([np.concatenate(first), np.concatenate(second)], axis=1)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    costs = np.ascontiguousarray(unary.reshape(len(unary), -1).T, dtype=np.float64)
    smooth = 1 - np.eye(len(unary))
    started = time.process_time()
    found["labels"] = gco.cut_general_graph(
        edges[order].astype(np.int32), np.concatenate(weights)[order].astype(np.float64), costs, smooth, n_iter=-1,
        algorithm="expansion",
    )
    return time.process_time() - started

seconds = {}
for name, run in (("PyMaxflow", cut), ("gco", swap)):
    try:
        seconds[name] = best(run)
    except ImportError:
        pass
if "labels" in found:
    np.save(sys.argv[3], np.asarray(found.pop("labels")).reshape(excess.shape))
print(json.dumps({"seconds": seconds, "cost": found.get("cost")}))
"""


def classified(width: int, height: int, labels: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return an image and the probabilities of an imitated classifier."""
    rng = np.random.default_rng(0)
    image = cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_AREA)
    coarse = rng.random((labels, height // 40 + 2, width // 40 + 2)).astype(np.float32)
    truth = np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC) for one in coarse]).argmax(axis=0)
    logits = rng.normal(size=(labels, height, width)) + 1.5 * (np.arange(labels)[:, None, None] == truth)
    probabilities = np.exp(logits)
    return image, (probabilities / probabilities.sum(axis=0)).astype(np.float32)


def two_halves(unary: NDArray[np.float32], links: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return excess and links of the cut between the first half of the labels and the second."""
    half = len(unary) // 2
    excess = np.rint(SCALE * (unary[half:].min(axis=0) - unary[:half].min(axis=0))).astype(np.int64)
    return excess, np.rint(SCALE * links).astype(np.int64)


def scipy_cut(excess: NDArray[np.int64], links: NDArray[np.int64]) -> int:
    """Return the largest flow of a grid, by scipy."""
    height, width = excess.shape
    numbers = np.arange(excess.size).reshape(excess.shape)
    source, sink = np.full(excess.size, excess.size), np.full(excess.size, excess.size + 1)
    edges = [(source, numbers, np.maximum(excess, 0)), (numbers, sink, np.maximum(-excess, 0))]
    for link, (down, right) in zip(links, STEPS, strict=False):
        here = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        there = slice(down, height), slice(max(0, right), width + min(0, right))
        edges += [(numbers[here], numbers[there], link[here]), (numbers[there], numbers[here], link[here])]
    start, end, capacity = (np.concatenate([np.ravel(part[i]) for part in edges]) for i in range(3))
    shape = (excess.size + 2, excess.size + 2)
    graph = coo_matrix((capacity.astype(np.int32), (start, end)), shape=shape).tocsr()
    return int(maximum_flow(graph, excess.size, excess.size + 1).flow_value)


def best(run: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Return the least processor seconds of some calls, and the result."""
    times, result = [], None
    for _ in range(rounds):
        started = time.process_time()
        result = run()
        times.append(time.process_time() - started)
    return min(times), result


def measure(size: str, crf: GridCRF, peer: str | None, rounds: int) -> None:
    """Print the measurements of one size."""
    width, height, labels = map(int, size.split("x"))
    image, probabilities = classified(width, height, labels)
    unary = -np.log(probabilities)
    links = crf.links(image)
    crf.map_labels(image[:32, :32], probabilities[:, :32, :32])  # compiles, or reads the cache
    seconds, found = best(lambda: crf.map_labels(image, probabilities), rounds)
    cheapest = unary.argmin(axis=0)
    modes_seconds, modes = best(lambda: iterated_conditional_modes(unary, links), rounds)
    energies = [energy_of(one, unary, links) for one in (cheapest, modes, found)]
    print(f"{size}, {crf.connectivity} neighbours, weights {crf.contrast_weight:g} and {crf.constant_weight:g}")
    print(f"  expansion {seconds:.3f} s, iterated conditional modes {modes_seconds:.3f} s")
    print("  energy: cheapest labels {:.0f}, conditional modes {:.0f}, expansion {:.0f}".format(*energies))
    excess, whole = two_halves(unary, links)
    min_cut(excess[:8, :8], whole[:, :8, :8])
    ours, (cost, _) = best(lambda: min_cut(excess, whole), rounds)
    theirs, flow = best(lambda: scipy_cut(excess, whole), rounds)
    assert cost == flow, f"the cut costs {cost}, scipy's flow is {flow}"
    print(f"  one cut {ours:.3f} s, scipy {theirs:.2f} s ({theirs / ours:.0f} times as long), cost {cost} both")
    if peer is None:
        return
    with tempfile.TemporaryDirectory() as name:
        case, out = Path(name) / "case.npz", Path(name) / "labels.npy"
        np.savez(case, excess=excess, links=whole, unary=unary, float_links=links, steps=STEPS)
        command = [peer, "-c", PEERS, str(case), str(rounds), str(out)]
        found_there = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for name, spent in found_there["seconds"].items():
            mine = ours if name == "PyMaxflow" else seconds
            print(f"  {name} {spent:.3f} s ({spent / mine:.1f} times as long)")
        assert found_there["cost"] in (None, cost), f"PyMaxflow's cut costs {found_there['cost']}, ours {cost}"
        if out.exists():
            print(f"  energy of gco's expansion {energy_of(np.load(out).astype(np.int64), unary, links):.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="240x180x11,480x360x11", help="WIDTHxHEIGHTxLABELS, ...")
    parser.add_argument("--connectivity", default="4,8")
    parser.add_argument("--weights", help="Contrast and constant weight, for others than those of grid4 and grid8.")
    parser.add_argument("--peer", help="Python with PyMaxflow, gco-wrapper or both.")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for size in given.sizes.split(","):
        for connectivity in given.connectivity.split(","):
            crf = GRIDS[f"grid{connectivity}"]
            if given.weights is not None:
                contrast, constant = map(float, given.weights.split(","))
                crf = replace(crf, contrast_weight=contrast, constant_weight=constant)
            measure(size, crf, given.peer, given.rounds)


if __name__ == "__main__":
    main()
