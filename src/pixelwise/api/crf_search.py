"""Parameters of the dense CRF for a run: found by trying them on labelled images, and kept in the run folder."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from pixelwise.api.evaluation import choose_items
from pixelwise.api.maps import Maps, holds_maps, maps_of
from pixelwise.crf.mean_field import Normalization
from pixelwise.crf.refiner import TUNED_FILE, labels_of, read_parameters
from pixelwise.data.dataset import Item
from pixelwise.data.pictures import to_display
from pixelwise.data.scan import Dataset
from pixelwise.engine.crf_grid import Search
from pixelwise.engine.crf_search import Found, Plan, half_of
from pixelwise.engine.crf_search import search as try_parameters
from pixelwise.engine.unaries import Unaries, Unary
from pixelwise.engine.views import Fusion, Views
from pixelwise.errors import RequestError
from pixelwise.files import check_writable, write_atomically
from pixelwise.metrics import confusion_matrix, semantic_scores

OnStep = Callable[[str, int, int], None]


def tune_crf(
    run: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    names: str | Path | None = None,
    search: Search = "grid",
    trials: int | None = None,
    seed: int | None = None,
    minutes: float | None = None,
    iterations: Sequence[int] = (10,),
    normalization: str = "after",
    metric: str = "miou",
    out: str | Path | None = None,
    tile: int | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    fusion: Fusion | None = None,
    window: int | None = None,
    stride: float | None = None,
    long_side: int | None = None,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Find parameters of the dense CRF that make a run's label maps better, if there are any.

    Args:
        run: run folder or model file; or a folder of probabilities that any program wrote, NAME.npy or NAME.npz for
            every image NAME, see `read_probabilities`. Smaller ones are enlarged bilinearly.
        data: dataset folder with the classes of the run.
        split: what to try them on; None means "val".
        names: file that names the items to try them on, one a line, instead of a split.
        search: "grid", coarse to fine as DeepLab's, or "random"; see `pixelwise.engine.crf_grid`.
        trials: at most so many sets of parameters; None takes the whole grid, or 200 random ones.
        seed: of random trials; None takes 0.
        minutes: of search, without the probabilities; None for no end.
        iterations: of mean field; each number is tried.
        normalization: of the kernels; DeepLab's and CRF-RNN's is "after".
        metric: what the best parameters have most of: "miou" or "pixel_accuracy".
        out: file for the parameters; None takes crf.json in the run folder.
        tile: how the model sees the images, as in `evaluate`; and so are those that follow.
        flip: join with the mirror image.
        scales: sizes of the image whose scores are joined.
        fusion: how views are joined.
        window: side of sliding windows.
        stride: step between windows.
        long_side: pixels of the image's longer side at scale 1.
        on_step: called with what is done, how many are done and how many there are.

    Returns:
        `helps`; `output` (the file, None where the CRF does not help: nothing is written then, and `earlier` names a
        file that was there before, which stays); `parameters` and `scores` (`unary`, `best`, `gain`,
        `cross_validated_gain`, `per_class`) of the best trial; `trials`, `num_images`, `protocol`, `seconds`.

    Raises:
        RequestError: if run and data do not fit, or the search cannot be done so.
        WorkError: if the file cannot be written.
    """
    started = time.perf_counter()
    plan = Plan(
        search=search,
        trials=trials,
        seed=seed,
        minutes=minutes,
        iterations=tuple(iterations),
        normalization=cast("Normalization", normalization),
        metric=metric,
    )
    views = Views(
        scales=tuple(scales), flip=flip, fusion=fusion, tile=tile, window=window, stride=stride, long_side=long_side
    )
    place = _place(Path(run), out)
    check_writable(place.parent)
    source = maps_of(Path(run), Path(data), views)
    items, split = choose_items(source.folder, split, names)
    dataset = source.scan(items)
    with Unaries() as unaries:
        found = _look(source, dataset, items, unaries, plan, on_step)
        longer_side = float(np.median([max(unaries[index].truth.shape) for index in range(len(unaries))]))
        try_parameters(
            unaries,
            found,
            plan,
            longer_side=longer_side,
            ignore_index=dataset.card.ignore_index,
            on_step=None if on_step is None else lambda done, total: on_step("trying", done, total),
        )
    protocol = {
        "split": split,
        **source.protocol(),
        "search": _search_text(plan, found),
        "sigmas": f"in pixels, for images of {longer_side:g} pixels on the longer side",
        "chosen_on": "the images that the scores are of",
    }
    result = _result(found, protocol)
    seconds = round(time.perf_counter() - started, 3)
    if not result["helps"]:
        return {**result, "output": None, "earlier": str(place) if place.exists() else None, "seconds": seconds}
    kept = {"crf": "dense", **result, "seconds": seconds, "data": str(data), "run": str(run), "command": _command()}
    write_atomically(place, json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return {**result, "output": str(place), "seconds": seconds}


def _place(run: Path, out: str | Path | None) -> Path:
    """Return the file for the parameters; an existing one must be of the same kind."""
    if out is None and (not run.is_dir() or holds_maps(run)) and run.exists():
        what = "is a folder of probabilities" if run.is_dir() else "is a file"
        raise RequestError(
            f"{run} {what}, so that there is no run folder to keep parameters in; accepted: with --out FILE. Name a "
            "file for them."
        )
    place = run / TUNED_FILE if out is None else Path(out)
    if place.is_dir() or place.suffix.lower() != ".json":
        raise RequestError(f"--out {place}: accepted: a file name with the ending .json. Choose such a name.")
    if place.exists():
        try:
            read_parameters(place)
        except RequestError as error:
            raise RequestError(
                f"{place} is there already, and holds no parameters of a CRF; accepted: a new file, or one that "
                "tune-crf wrote. Choose another name."
            ) from error
    return place


def _look(
    source: Maps,
    dataset: Dataset,
    items: Sequence[Item],
    unaries: Unaries,
    plan: Plan,
    on_step: OnStep | None,
) -> Found:
    """Keep all images with their probabilities and labels, and count what the probabilities alone are worth."""
    classes, ignore = dataset.card.classes, dataset.card.ignore_index
    halves = np.zeros((2, len(classes), len(classes)), dtype=np.int64)
    for index, item in enumerate(items):
        image, maps = source.maps(dataset, item)
        truth = dataset.labels(item)
        halves[half_of(index, len(items))] += confusion_matrix(labels_of(maps), truth, len(classes), ignore)
        unaries.add(Unary(picture=to_display(image), probabilities=maps.astype(np.float16), truth=truth))
        if on_step is not None:
            on_step("probabilities", index + 1, len(items))
    if not halves.any():
        raise RequestError(
            f"{dataset.folder.root}: none of the pixels to score is labelled; accepted: labels. Add some."
        )
    return Found(classes=classes, metric=plan.metric, num_images=len(items), unary=halves)


def _search_text(plan: Plan, found: Found) -> str:
    """Say what was searched, for the protocol."""
    how = "grid, coarse to fine" if plan.search == "grid" else f"random, seed {plan.seed or 0}"
    short = len(found.trials) < found.num_planned
    return f"{how}; {len(found.trials)} trials" + (f" of {found.num_planned} before time was over" if short else "")


def _result(found: Found, protocol: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of a search."""
    best, crossed = found.best, found.cross_validated()
    shown = max(found.trials, key=lambda trial: found.score(trial.confusion)) if best is None else best
    alone, refined = (semantic_scores(counts, found.classes) for counts in (found.unary.sum(axis=0), shown.confusion))
    own, other = alone.to_json(), refined.to_json()
    per_class = {
        name: {"unary": row["iou"], "best": other["per_class"][name]["iou"]} for name, row in own["per_class"].items()
    }
    base = found.score(found.unary.sum(axis=0))
    scores = {
        "metric": found.metric,
        "unary": own["metrics"],
        "best": other["metrics"],
        "gain": found.score(shown.confusion) - base,
        "cross_validated_gain": None if crossed is None else crossed - base,
        "per_class": per_class,
    }
    return {
        "helps": best is not None,
        "parameters": asdict(shown.parameters),
        "scores": scores,
        "trials": len(found.trials),
        "num_images": found.num_images,
        "protocol": protocol,
    }


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
