"""Image classifiers: scores on a data set, and files of class probabilities."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelwise.api.run_data import lists_of
from pixelwise.data.class_folder import ClassFolder, ClassItem, open_class_folder
from pixelwise.data.class_scan import scan_classes
from pixelwise.data.dataset import read_names
from pixelwise.engine.classifier import ClassPrediction, load_classifier
from pixelwise.engine.evaluate_classes import evaluate_classes
from pixelwise.engine.model_file import Option, options_text
from pixelwise.errors import RequestError, closest
from pixelwise.files import check_writable, write_atomically

CLASS_TABLE = "classes.csv"
DIGITS = 6  # of a probability in files
OnImage = Callable[[int, int], None]


def refuse_options(run: str | Path, given: Mapping[str, object]) -> None:
    """Refuse options of segmentation, by name, that are given beside a classifier."""
    named = [name for name, value in given.items() if value not in (None, False, (), [])]
    if named:
        raise RequestError(
            f"{', '.join(named)}: no effect on {run}, an image classifier, which gives an image one class; accepted "
            f"with it: --crops 1 or 10, and what chooses images. Leave {'it' if len(named) == 1 else 'them'} out."
        )


def refuse_crops(crops: int | None) -> None:
    """Refuse crops for a model that sees whole images."""
    if crops is not None:
        raise RequestError(
            f"--crops {crops} has no effect on a segmentation model, which sees whole images; accepted: with image "
            "classifiers. Leave it out; --scales and --flip show it an image in several ways."
        )


def evaluate_classifier(
    run: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    names: str | Path | None = None,
    crops: int = 1,
    options: Mapping[str, Option] | None = None,
    on_image: OnImage | None = None,
) -> dict[str, Any]:
    """Score a classifier on a folder with a folder for each class; see `pixelwise.api.evaluate`.

    Classes are matched by name, so that the data may lack some of the model's.

    Raises:
        RequestError: if the data has a class that the model has not.
    """
    classifier = load_classifier(run, options=options)
    folder = open_class_folder(Path(data), **lists_of(Path(run), Path(data)))
    items, split = choose_class_items(folder, split, names)
    known = classifier.card.classes
    index_of = {}
    for label in sorted({item.label for item in items}):
        name = folder.classes[label]
        if name not in known:
            raise RequestError(
                f"class {name!r} of {folder.root} is none of the model's {len(known)}; accepted: "
                f"{', '.join(known[:8])}{', ...' if len(known) > 8 else ''}; closest: {closest(name, known)}. Rename "
                "the folder, or score on data with the model's classes."
            )
        index_of[label] = known.index(name)
    evaluation = evaluate_classes(
        classifier,
        scan_classes(folder, items, cache_bytes=0),
        items,
        split=split,
        crops=crops,
        index_of=index_of,
        on_image=None if on_image is None else lambda done: on_image(done, len(items)),
    )
    changed = {"options": options_text(options)} if options else {}
    return replace(evaluation, protocol={**evaluation.protocol, **changed}).to_json()


def choose_class_items(folder: ClassFolder, split: str | None, names: str | Path | None) -> tuple[list[ClassItem], str]:
    """Return the items to score and a name for them: a split ("val" if None), or those that a file names."""
    if split is not None and names is not None:
        raise RequestError(f"--split {split} and --list {names} are both given; accepted: one of them.")
    if names is None:
        return folder.split(split or "val"), split or "val"
    wanted = read_names(Path(names), [item.name for item in folder.items])
    return [item for item in folder.items if item.name in wanted], f"list {Path(names).name}"


def predict_classes(
    run: str | Path,
    images: Sequence[Path],
    *,
    out: Path,
    crops: int = 1,
    options: Mapping[str, Option] | None = None,
    on_image: OnImage | None = None,
) -> tuple[list[Path], dict[str, ClassPrediction]]:
    """Classify images and write NAME.json for each and classes.csv for all.

    Returns:
        The files, and the predictions by name of the image.
    """
    classifier = load_classifier(run, options=options)
    check_writable(out)
    found: dict[str, ClassPrediction] = {}
    written = []
    for done, path in enumerate(images, start=1):
        prediction = classifier.predict(path, crops=crops)
        found[path.stem] = prediction
        content = {
            "image": str(path),
            "class": prediction.label,
            "probability": round(prediction.top(1)[0][1], DIGITS),
            "probabilities": {name: round(value, DIGITS) for name, value in _rows(prediction)},
            "crops": classifier.protocol(crops),
        }
        written.append(out / f"{path.stem}.json")
        write_atomically(written[-1], json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        if on_image is not None:
            on_image(done, len(images))
    written.append(out / CLASS_TABLE)
    write_atomically(written[-1], _table(found, classifier.card.classes))
    return written, found


def _rows(prediction: ClassPrediction) -> list[tuple[str, float]]:
    return list(zip(prediction.classes, map(float, prediction.probabilities), strict=True))


def _table(found: Mapping[str, ClassPrediction], classes: Sequence[str]) -> bytes:
    """Return CSV: image, likeliest class, its probability, then a column for each class."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["image", "class", "probability", *(f"p({name})" for name in classes)])
    for name, prediction in found.items():
        values = [f"{value:.{DIGITS}f}" for _, value in _rows(prediction)]
        writer.writerow([name, prediction.label, f"{prediction.top(1)[0][1]:.{DIGITS}f}", *values])
    return buffer.getvalue().encode()
