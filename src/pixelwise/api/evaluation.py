"""Scores: of a run on a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pixelwise.data.dataset import DatasetFile, DatasetFolder, Item, open_dataset, read_names
from pixelwise.data.scan import Dataset, scan
from pixelwise.engine.config import read_config
from pixelwise.engine.evaluate import evaluate_items
from pixelwise.engine.predict import Segmenter, load_segmenter
from pixelwise.engine.run_folder import RunFolder
from pixelwise.errors import RequestError


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
    folder = open_dataset(Path(data), val_list=val_list_of(Path(run), Path(data)))
    if names is not None:
        wanted = read_names(Path(names), [item.name for item in folder.items])
        items = [item for item in folder.items if item.name in wanted]
        split = f"list {Path(names).name}"
    else:
        split = split or "val"
        items = folder.split(split)
    dataset = scan_for(segmenter, folder, items)
    return evaluate_items(
        segmenter,
        dataset,
        items,
        split=split,
        tile=tile,
        flip=flip,
        on_image=None if on_image is None else lambda done: on_image(done, len(items)),
    ).to_json()


def val_list_of(run: Path, data: Path) -> Path | None:
    """Return the validation list that a run was trained with, if it was trained on this data."""
    config = RunFolder(run).config
    if not run.is_dir() or not config.exists():
        return None
    stored = read_config(config).data
    same = Path(stored.path).resolve() == data.resolve()
    return Path(stored.val_list) if same and stored.val_list is not None else None


def scan_for(segmenter: Segmenter, folder: DatasetFolder, items: Sequence[Item]) -> Dataset:
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
