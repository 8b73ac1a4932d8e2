"""Scores of predictions that any program made, against the truth of a data set."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelwise.api.evaluation import choose_items, with_boundary
from pixelwise.data.dataset import Item, open_dataset
from pixelwise.data.images import MASK_SUFFIXES, AnyArray, read_mask, unpack_colour
from pixelwise.data.scan import Dataset, scan
from pixelwise.engine.evaluate import Scorer, true_objects
from pixelwise.engine.objects import OBJECT_TABLE, Objects, given_objects
from pixelwise.engine.scoring import OBJECTS, Case, Known, check_metrics
from pixelwise.errors import RequestError, WorkError
from pixelwise.files import check_writable, write_atomically

SHOWN = 4  # names in an error
ROUNDING = 1e-2  # of a pixel's probabilities, which are often stored in 16 bits
_FIX = "Check the path, or write the predictions there under the images' names."


def score(
    predictions: str | Path,
    truth: str | Path,
    *,
    metrics: Sequence[str] = ("miou",),
    split: str | None = None,
    names: str | Path | None = None,
    boundary_class: str | None = None,
    out: str | Path | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score prediction files against a data set, with the measures and protocol of `evaluate`.

    Args:
        predictions: folder with a label map NAME.png (or .tif, .bmp) for every image NAME that is scored: class
            numbers, or 0/255 or colours where the truth is so. NAME.npy beside it, or in its place, holds probabilities
            (K, H, W).
            Objects: NAME_instances.png (or NAME.png, where only object scores are asked for) with 16-bit ids, and
            objects.csv (columns image, id, score) for AP.
        truth: dataset folder.
        metrics: names; see `pixelwise.engine.scoring.METRICS`.
        split: what to score; None means "val".
        names: file that names the items to score, one a line, instead of a split.
        boundary_class: name of the class between objects, where dataset.json does not say it.
        out: JSON file for the result; None takes scores.json in the folder of predictions, if that can be written to.
        on_image: called with images done and in all.

    Returns:
        `metrics`, `per_class`, `protocol`, `num_images`, ... as `evaluate`, and `stored`, the JSON file's path or None.

    Raises:
        RequestError: files are missing, of another size than the truth, or hold what is no class.
    """
    if out is not None:
        check_writable(Path(out).parent)
    folder = open_dataset(Path(truth))
    items, split = choose_items(folder, split, names)
    dataset = with_boundary(scan(folder, items, cache_bytes=0), boundary_class)
    known = Known(
        classes=dataset.card.classes,
        ignore_index=dataset.card.ignore_index,
        boundary_class=dataset.card.boundary_class,
        has_objects=all(dataset.has_objects(item) for item in items),
    )
    wanted = set(check_metrics(metrics, known))
    found = Found(
        Path(predictions), dataset, items, objects=bool(wanted & set(OBJECTS)), maps=bool(wanted - set(OBJECTS))
    )
    scorer = Scorer(known, sorted(wanted), with_maps=found.maps, with_probabilities=found.probabilities)
    for done, item in enumerate(items, start=1):
        scorer.add(item.name, found.case(item))
        if on_image is not None:
            on_image(done, len(items))
    result = scorer.result({"split": split, "predictions": found.words}).to_json()
    place = Path(predictions) / "scores.json" if out is None else Path(out)
    try:
        write_atomically(place, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except WorkError:
        if out is not None:
            raise
        return {**result, "stored": None}
    return {**result, "stored": str(place)}


class Found:
    """The prediction files of items, and what their values mean.

    Attributes:
        maps: there are label maps or probabilities.
        probabilities: there are probabilities for every item.
        objects: there are object ids.
        words: what was found, for the protocol.
    """

    def __init__(self, folder: Path, dataset: Dataset, items: Sequence[Item], *, objects: bool, maps: bool) -> None:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise RequestError(f"predictions {folder} {what}; accepted: a folder with NAME.png for every image. {_FIX}")
        self.folder, self.dataset, self.maps, self.objects = folder, dataset, maps, objects
        self.names = {path.name for path in folder.iterdir()}
        self.probabilities = maps and all(f"{item.name}.npy" in self.names for item in items)
        endings = MASK_SUFFIXES if not self.probabilities else (".npy",)
        self.map_files = self._files(items, endings) if maps else {}
        # Where there are no label maps, files of the images' own names hold the ids.
        id_endings = [f"_instances{ending}" for ending in MASK_SUFFIXES] + ([] if maps else list(MASK_SUFFIXES))
        self.id_files = self._files(items, id_endings) if objects else {}
        table = folder / OBJECT_TABLE
        self.confidences = _read_confidences(table) if objects and table.exists() else None
        self.white = maps and not self.probabilities and self._white_is_one(items)
        kind = "probabilities" if self.probabilities else f"label maps{', 255 as class 1' * self.white}"
        parts = [kind] * maps + ["object ids" + ", of all classes together" * (not maps)] * objects
        self.words = f"{folder} ({' and '.join(parts)})"

    def _files(self, items: Sequence[Item], endings: Sequence[str]) -> dict[str, Path]:
        found = {}
        for item in items:
            names = [item.name + ending for ending in endings if item.name + ending in self.names]
            if names:
                found[item.name] = self.folder / names[0]
        missing = [item.name for item in items if item.name not in found]
        if missing:
            shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
            raise RequestError(
                f"predictions {self.folder} lack {len(missing)} of {len(items)} images: {shown}; accepted: a file "
                f"for each (NAME{', NAME'.join(endings)}). {_FIX}"
            )
        return found

    def _white_is_one(self, items: Sequence[Item]) -> bool:
        """Say whether the maps hold 0 and 255 for the two classes of a data set."""
        if len(self.dataset.card.classes) != 2:
            return False
        return all(set(np.unique(read_mask(self.map_files[item.name]).values)) <= {0, 255} for item in items)

    def case(self, item: Item) -> Case:
        """Read what was predicted for an item."""
        truth = self.dataset.labels(item)
        labels, probabilities = truth, None
        if self.probabilities:
            probabilities = self._probabilities(self.map_files[item.name], truth)
            labels = probabilities.argmax(dim=0).numpy()
        elif self.maps:
            labels = self._labels(self.map_files[item.name], truth)
        predicted, true = None, None
        if self.objects:
            predicted = self._objects(item.name, labels, truth)
            true = true_objects(self.dataset, item, truth)
            if not self.maps:
                predicted, true = _without_classes(predicted), _without_classes(true)
        return Case(labels=labels, truth=truth, probabilities=probabilities, objects=predicted, true_objects=true)

    def _labels(self, path: Path, truth: AnyArray) -> AnyArray:
        mask = read_mask(path)
        values = _same_size(path, mask.values, truth)
        classes = self.dataset.card.classes
        if mask.coloured:
            return self._of_colours(path, values)
        if self.white:
            return np.asarray(values == 255, np.uint8)
        largest = int(values.max())
        if largest >= len(classes):
            count = int((values >= len(classes)).sum())
            raise RequestError(
                f"{path} holds values up to {largest} ({count} pixels are no class); accepted: class numbers 0 to "
                f"{len(classes) - 1} ({', '.join(classes[:SHOWN])}{', ...' if len(classes) > SHOWN else ''})"
                f"{', or 0 and 255 in all files' if len(classes) == 2 else ''}. Write the argmax of the classes."
            )
        return values

    def _of_colours(self, path: Path, values: AnyArray) -> AnyArray:
        """Turn packed colours (H, W) into class numbers, where the truth's own masks are in colour."""
        encoding, num_classes = self.dataset.card.mask_encoding, len(self.dataset.card.classes)
        found, place = np.unique(values, return_inverse=True)
        known = encoding.labels(found.tolist(), num_classes) if encoding.kind == "colours" else {}
        labels = [known.get(value) for value in found.tolist()]
        for value, label in zip(found.tolist(), labels, strict=True):
            if label is None or label >= num_classes:
                also = ", or the colours of the truth's classes" if encoding.kind == "colours" else ""
                raise RequestError(
                    f"{path} is a picture in colour, such as {list(unpack_colour(value))}; accepted: class numbers "
                    f"0 to {num_classes - 1}{also}. Write the argmax of the classes."
                )
        return np.asarray(labels, np.uint16)[place.reshape(values.shape)]

    def _probabilities(self, path: Path, truth: AnyArray) -> torch.Tensor:
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RequestError(
                f"{path}: cannot be read ({error}); accepted: an .npy file of numbers. Write it again."
            ) from error
        wanted = (len(self.dataset.card.classes), *truth.shape)
        if array.shape != wanted or array.dtype.kind != "f":
            raise RequestError(
                f"{path}: has shape {array.shape}, {array.dtype}; accepted: float {wanted} (classes, height, width), "
                "the truth's size. Write the probabilities at the size of the labels."
            )
        values = torch.from_numpy(array.astype(np.float32))
        off = float((values.sum(dim=0) - 1).abs().max())
        if not math.isfinite(off) or off > ROUNDING or float(values.min()) < 0:
            raise RequestError(
                f"{path}: values from {float(values.min()):g}, whose sums over the classes differ from 1 by up to "
                f"{off:g}; accepted: probabilities from 0 that add up to 1 within {ROUNDING:g}. Take the softmax first."
            )
        return values / values.sum(dim=0)

    def _objects(self, name: str, labels: AnyArray, truth: AnyArray) -> Objects:
        path = self.id_files[name]
        ids = _same_size(path, read_mask(path).values, truth)
        if self.confidences is None:
            return given_objects(ids, labels)
        scores = self.confidences.get(name, {})
        unknown = [int(number) for number in np.unique(ids) if number and int(number) not in scores]
        if unknown:
            raise RequestError(
                f"{path} holds the object {unknown[0]} ({len(unknown)} such objects), which has no row in "
                f"{self.folder / OBJECT_TABLE}; accepted: a row with image, id and score for every object. Add them, "
                "or remove the file if there are no scores."
            )
        return given_objects(ids, labels, scores)


def _without_classes(objects: Objects) -> Objects:
    return replace(objects, classes=np.zeros_like(objects.classes))


def _same_size(path: Path, values: AnyArray, truth: AnyArray) -> AnyArray:
    if values.shape != truth.shape:
        raise RequestError(
            f"{path} is {values.shape[0]} x {values.shape[1]} (height x width), but the truth is {truth.shape[0]} x "
            f"{truth.shape[1]}; accepted: equal sizes, since label maps are never resized here. Predict at the labels' "
            "size."
        )
    return values


def _read_confidences(path: Path) -> Mapping[str, Mapping[int, float]]:
    """Read the scores of objects: by image name, then by id."""
    found: dict[str, dict[int, float]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["image"], {})[int(row["id"])] = float(row["score"])
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        what = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise RequestError(
            f"{path}: cannot be read as a table of objects ({what}); accepted: CSV with the columns image, id and "
            "score. Correct or remove it."
        ) from error
    return found
