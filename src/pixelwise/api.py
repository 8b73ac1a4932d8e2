"""The Python interface behind the command line: whole jobs, from paths to files."""

from __future__ import annotations

import glob
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.data.dataset import DatasetFile, DatasetFolder, Item, open_dataset, read_names
from pixelwise.data.images import IMAGE_SUFFIXES
from pixelwise.data.pictures import to_display
from pixelwise.data.scan import Dataset, scan
from pixelwise.engine.config import TrainConfig, build_config, read_config
from pixelwise.engine.evaluate import evaluate_items
from pixelwise.engine.predict import Segmenter, load_segmenter
from pixelwise.engine.run_folder import RunFolder
from pixelwise.engine.session import Listener
from pixelwise.engine.train import TrainResult
from pixelwise.engine.train import train as train_model
from pixelwise.errors import RequestError
from pixelwise.files import check_writable, npy, picture_png, write_atomically
from pixelwise.report.html import Example, write_report

REPORT_IMAGES = 3  # best ones, and worst ones


def train(
    data: str | Path,
    *,
    out: str | Path,
    model: str | None = None,
    minutes: float | None = None,
    cpu_minutes: float | None = None,
    epochs: float | None = None,
    iterations: int | None = None,
    val_list: str | Path | None = None,
    weights: str | Path | None = None,
    seed: int | None = None,
    settings: Sequence[str] = (),
    resume: bool = False,
    listener: Listener | None = None,
) -> TrainResult:
    """Train a model on a folder of images and masks, and write the report.

    Args:
        data: dataset folder.
        out: run folder, new or empty.
        model: public name; None takes `unet_small`.
        minutes: wall-clock budget. At most one budget may be given; without one it is 10 minutes.
        cpu_minutes: budget of process CPU time, all threads added.
        epochs: passes over the training images.
        iterations: optimiser steps.
        val_list: file that names the validation items, where the data has no val split.
        weights: safetensors file to start from.
        seed: of weights, sampling and augmentation.
        settings: "key=value" for any other key of the configuration.
        resume: go on with the run in `out`. Arguments that are given must agree with its configuration.
        listener: hears how it goes.

    Returns:
        The run folder, its length and the scores of its best model.

    Raises:
        RequestError: if data, names, values or the folder are wrong; before any training.
        WorkError: if the loss is not finite any more, or files cannot be written.
    """
    budget = {"minutes": minutes, "cpu_minutes": cpu_minutes, "epochs": epochs, "iterations": iterations}
    given = {key: value for key, value in budget.items() if value is not None}
    values: dict[str, Any] = {"data": {"path": _absolute(data)}}
    if val_list is not None:
        values["data"]["val_list"] = _absolute(val_list)
    for key, value in (
        ("model", model),
        ("weights", None if weights is None else _absolute(weights)),
        ("seed", seed),
        ("budget", given),
    ):
        if value not in (None, {}):
            values[key] = value
    run = RunFolder(Path(out))
    config = build_config(values, settings)
    if resume:
        if not run.config.exists():
            raise RequestError(
                f"--resume: {out} holds no run (no config.yaml); accepted: the --out folder of a run that had begun. "
                "Leave --resume out to begin one."
            )
        _check_unchanged(read_config(run.config), values, settings)
    elif config.iterations is not None and any(config.budget.model_dump().values()):
        raise RequestError(
            f"iterations={config.iterations} is set beside a budget ({_shown_budget(config)}), which would have no "
            "effect; accepted: one of them. Leave one out."
        )
    result = train_model(config, run.root, resume=resume, listener=listener)
    report(run.root)
    return result


def _absolute(path: str | Path) -> str:
    """Return a path that still holds when the run is resumed or reported from another folder."""
    return os.path.abspath(path)


def _shown_budget(config: TrainConfig) -> str:
    return ", ".join(f"{key}={value:g}" for key, value in config.budget.model_dump().items() if value is not None)


def _check_unchanged(stored: TrainConfig, values: dict[str, Any], settings: Sequence[str]) -> None:
    """Refuse to resume under another configuration than the run's own."""
    kept = stored.model_dump(mode="json")
    merged = {**kept, **values, "data": {**kept["data"], **values["data"]}}
    asked = build_config(merged, settings).model_dump(mode="json")
    differences = [
        f"{key}: {before!r} in the run, {after!r} asked for" for key, before, after in _differences(kept, asked)
    ]
    if differences:
        raise RequestError(
            f"--resume goes on with the run's own config.yaml, but it differs in {'; '.join(differences)}. "
            "Leave these out, or train into a new folder."
        )


def _differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for key in before.keys() | after.keys():
        one, other = before.get(key), after.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append((prefix + key, one, other))
    return sorted(found, key=lambda difference: difference[0])


def load(run: str | Path) -> Segmenter:
    """Load the best model of a run folder, or a model file, ready to predict."""
    return load_segmenter(Path(run))


def evaluate(
    run: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    names: str | Path | None = None,
    tile: int | None = None,
    flip: bool = False,
    on_image: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a run on a data set.

    Args:
        run: run folder or model file.
        data: dataset folder with the model's classes.
        split: what to score; None means "val", the run's own where the data has none.
        names: file that names the items to score, one a line, instead of a split.
        tile: input side of a window; None as in prediction.
        flip: average over the image and its mirror image.
        on_image: called with images done and in all.

    Returns:
        `metrics`, `per_class`, `protocol`, `num_images`, `confusion_matrix` and `per_image`.
    """
    if split is not None and names is not None:
        raise RequestError(f"--split {split} and --list {names} are both given; accepted: one of them.")
    segmenter = load(run)
    folder = open_dataset(Path(data), val_list=_val_list(Path(run), Path(data)))
    if names is not None:
        wanted = read_names(Path(names), [item.name for item in folder.items])
        items = [item for item in folder.items if item.name in wanted]
        split = f"list {Path(names).name}"
    else:
        split = split or "val"
        items = folder.split(split)
    dataset = _scan_for(segmenter, folder, items)
    return evaluate_items(
        segmenter,
        dataset,
        items,
        split=split,
        tile=tile,
        flip=flip,
        on_image=None if on_image is None else lambda done: on_image(done, len(items)),
    ).to_json()


def _val_list(run: Path, data: Path) -> Path | None:
    """Return the validation list that a run was trained with, if it was trained on this data."""
    config = RunFolder(run).config
    if not run.is_dir() or not config.exists():
        return None
    stored = read_config(config).data
    same = Path(stored.path).resolve() == data.resolve()
    return Path(stored.val_list) if same and stored.val_list is not None else None


def _scan_for(segmenter: Segmenter, folder: DatasetFolder, items: Sequence[Item]) -> Dataset:
    """Scan data for scoring a model: its classes must be the model's."""
    classes = segmenter.card.classes
    card = segmenter.card
    meant = DatasetFile(name=card.model, classes=classes, palette=card.palette, ignore_index=card.ignore_index)
    dataset = scan(folder, items, meant=meant, cache_bytes=0)
    if dataset.card.classes != classes:
        differing = [
            f"{index}: {ours!r} against {theirs!r}"
            for index, (ours, theirs) in enumerate(zip(classes, dataset.card.classes, strict=False))
            if ours != theirs
        ]
        counts = f"{len(classes)} classes against {len(dataset.card.classes)}"
        raise RequestError(
            f"the model's classes are not those of {folder.root}: {', '.join(differing[:4]) or counts}; accepted: the "
            "same names in the same order. Score on data with the model's classes, or train on this data."
        )
    return dataset


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a prediction run wrote.

    Attributes:
        outputs: files, in the order of the inputs.
        seconds: wall-clock time, loading included.
        peak_memory_mb: largest memory of the process so far.
    """

    outputs: tuple[Path, ...]
    seconds: float
    peak_memory_mb: float


def predict(
    run: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    tile: int | None = None,
    flip: bool = False,
    overlay: bool = False,
    probabilities: bool = False,
    on_image: Callable[[int, int], None] | None = None,
) -> Predicted:
    """Segment images and write NAME.png (class index with palette) for each, at the image's size.

    Args:
        run: run folder or model file.
        inputs: image files, folders of images, or glob patterns.
        out: folder for the results.
        tile: input side of a window; None sees images up to 1024 x 1024 at once and cuts larger ones.
        flip: average over the image and its mirror image.
        overlay: write NAME_overlay.png too, the image under the classes' colours.
        probabilities: write NAME.npy too, float16 (K, H, W).
        on_image: called with images done and in all.

    Raises:
        RequestError: if there are no such images, two have the same name, or one cannot be read. Results of the
            images before it stay.
        WorkError: if results cannot be written.
    """
    started = time.perf_counter()
    images = find_images(inputs)
    endings = [".png", *(["_overlay.png"] if overlay else []), *([".npy"] if probabilities else [])]
    outputs = _plan_outputs(images, Path(out), endings)
    segmenter = load(run)
    check_writable(Path(out))
    for done, path in enumerate(images, start=1):
        prediction = segmenter.predict(path, tile=tile, flip=flip)
        for place, ending in zip(outputs[path], endings, strict=True):
            if ending == ".png":
                prediction.save(place)
            elif ending == "_overlay.png":
                write_atomically(place, picture_png(prediction.overlay()))
            else:
                write_atomically(place, npy(prediction.probabilities.cpu().numpy().astype(np.float16)))
        if on_image is not None:
            on_image(done, len(images))
    # Linux counts in kilobytes, macOS in bytes.
    unit = 1e6 if sys.platform == "darwin" else 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    seconds = time.perf_counter() - started
    written = tuple(place for path in images for place in outputs[path])
    return Predicted(outputs=written, seconds=round(seconds, 3), peak_memory_mb=round(peak, 1))


def find_images(inputs: Sequence[str | Path]) -> list[Path]:
    """Expand files, folders and glob patterns to image files, each once, in order.

    Raises:
        RequestError: if an input matches nothing, or two images have the same name and would share a result.
    """
    found: dict[Path, None] = {}
    for given in map(str, inputs):
        path = Path(given)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
        elif path.exists():
            matches = [path]
        else:
            matches = [Path(p) for p in sorted(glob.glob(given, recursive=True)) if Path(p).is_file()]
        if not matches:
            raise RequestError(
                f"input {given} matches no image; accepted: files, folders with {', '.join(IMAGE_SUFFIXES)}, and "
                "patterns such as 'photos/*.jpg'. Check the path."
            )
        found |= dict.fromkeys(matches)
    names: dict[str, Path] = {}
    for path in found:
        if path.stem in names:
            raise RequestError(
                f"{names[path.stem]} and {path} have the same name, so their results would overwrite each other; "
                "accepted: one image a name. Predict them into different folders."
            )
        names[path.stem] = path
    return list(found)


def _plan_outputs(images: Sequence[Path], folder: Path, endings: Sequence[str]) -> dict[Path, list[Path]]:
    """Name the results of each image; none may take the place of an input or of another result."""
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"--out {folder} is a file; accepted: a folder. Choose another name.")
    inputs = {path.resolve(): path for path in images}
    makers: dict[Path, Path] = {}
    outputs = {path: [folder / f"{path.stem}{ending}" for ending in endings] for path in images}
    for path, places in outputs.items():
        for place in places:
            if place.resolve() in inputs:
                raise RequestError(
                    f"--out {folder} would overwrite the input {inputs[place.resolve()]}; accepted: a folder without "
                    "the inputs. Choose another folder."
                )
            if place in makers:
                raise RequestError(
                    f"{makers[place]} and {path} would both write {place}; accepted: names that differ. Rename one, or "
                    "predict them into different folders."
                )
            makers[place] = path
    return outputs


def report(run: str | Path) -> Path:
    """Write report.html of a run, with its best and worst validation images where the data is still there."""
    folder = RunFolder(Path(run))
    if not folder.root.is_dir():
        raise RequestError(f"run {run} does not exist. Give the --out folder of a training run.")
    config = read_config(folder.config)
    scored = [row for row in folder.read_metrics()["per_image"] if row["miou"] is not None]
    scored.sort(key=lambda row: (row["miou"], row["name"]))
    count = min(REPORT_IMAGES, len(scored))
    best = scored[::-1][:count]
    worst = [row for row in scored[:count] if row not in best]
    segmenter = load(run)
    try:
        data = open_dataset(Path(config.data.path), val_list=_val_list(folder.root, Path(config.data.path)))
        items = {item.name: item for item in data.split("val")}
        dataset = _scan_for(segmenter, data, [items[row["name"]] for row in (*best, *worst)])
    except (RequestError, KeyError) as error:  # the data has moved or changed: the rest still stands
        reason = f"no item {error} any more" if isinstance(error, KeyError) else str(error)
        return write_report(folder.root, best=[], worst=[], no_examples=f"The images could not be shown: {reason}")
    return write_report(
        folder.root,
        best=[_example(segmenter, dataset, items[row["name"]], row["miou"]) for row in best],
        worst=[_example(segmenter, dataset, items[row["name"]], row["miou"]) for row in worst],
    )


def _example(segmenter: Segmenter, dataset: Dataset, item: Item, score: float) -> Example:
    image = dataset.image(item)
    prediction = segmenter.predict(image)
    return Example(
        name=item.name,
        image=to_display(image),
        truth=dataset.labels(item),
        prediction=prediction.labels,
        score=score,
    )
