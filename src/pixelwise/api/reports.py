"""Reports of runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.api.evaluation import load, scan_for
from pixelwise.api.run_data import lists_of
from pixelwise.crf.refiner import refiner_of
from pixelwise.data.check import check_dataset
from pixelwise.data.class_folder import open_class_folder
from pixelwise.data.dataset import DatasetFolder, Item, open_dataset
from pixelwise.data.images import read_image
from pixelwise.data.pictures import to_display
from pixelwise.data.problems import Problem
from pixelwise.data.scan import Dataset
from pixelwise.engine.config import read_config
from pixelwise.engine.crf_tally import KEY, NONE, SHOWN, labels_by
from pixelwise.engine.model_file import task_of
from pixelwise.engine.predict import AnySegmenter
from pixelwise.engine.run_folder import RunFolder
from pixelwise.engine.scoring import Case
from pixelwise.errors import RequestError
from pixelwise.report.classes import write_class_report, wrong_rows
from pixelwise.report.crfs import CRFExample
from pixelwise.report.data_section import choose_samples, make_samples, read_card
from pixelwise.report.examples import Example, Group
from pixelwise.report.html import write_report
from pixelwise.report.run_files import read_run

REPORT_IMAGES = 3  # best ones, and worst ones


def report(run: str | Path) -> Path:
    """Write report.html of a run, with images, where the data is still there.

    It shows the best and the worst validation images, places of the largest confusions and a few training images.
    """
    folder = RunFolder(Path(run))
    if not folder.root.is_dir():
        raise RequestError(f"run {run} does not exist. Give the --out folder of a training run.")
    data_path = Path(read_config(folder.config).data.path)
    metrics = folder.read_metrics()
    if task_of(folder.root) == "classification":
        return _of_classes(folder, data_path, metrics)
    groups = choose_images(metrics)
    segmenter = load(run)
    try:
        data = open_dataset(data_path, **lists_of(folder.root, data_path))
        items = {item.name: item for item in data.split("val")}
        shown = {items[name]: group for name, group in groups.items()}
        samples = choose_samples(data.split("train"))
        dataset = scan_for(segmenter, data, [*shown, *samples])
    except (RequestError, KeyError) as error:  # the data has moved or changed: the rest still stands
        reason = f"no item {error} any more" if isinstance(error, KeyError) else str(error)
        return write_report(folder.root, no_examples=f"The images could not be shown: {reason}")
    return write_report(
        folder.root,
        examples=_examples(segmenter, dataset, shown, metrics),
        samples=make_samples(dataset, samples),
        problems=_problems(folder, data),
        crf_examples=_crf_examples(segmenter, dataset, shown) if KEY in metrics else (),
    )


def _of_classes(folder: RunFolder, data_path: Path, metrics: Mapping[str, Any]) -> Path:
    """Write the report of a classifier, with the wrong images where the data is still there."""
    names = [str(row["name"]) for row in wrong_rows(metrics)]
    try:
        data = open_class_folder(data_path, **lists_of(folder.root, data_path))
        items = {item.name: item for item in data.split("val")}
        pictures = [(name, to_display(read_image(items[name].image))) for name in names]
    except (RequestError, KeyError) as error:  # the data has moved or changed: the rest still stands
        reason = f"no item {error} any more" if isinstance(error, KeyError) else str(error)
        return write_class_report(folder.root, no_pictures=f"The images could not be shown: {reason}")
    return write_class_report(folder.root, pictures=pictures)


def choose_images(metrics: Mapping[str, Any]) -> dict[str, Group | None]:
    """Return the names of the validation images to show: best first, then worst, then those for confusions alone."""
    scored = [row for row in metrics["per_image"] if row["miou"] is not None]
    scored.sort(key=lambda row: (row["miou"], row["name"]))
    names = [row["name"] for row in scored]
    num_best = min(REPORT_IMAGES, math.ceil(len(names) / 2))
    groups: dict[str, Group | None] = dict.fromkeys(names[::-1][:num_best], "best")
    groups |= dict.fromkeys(names[: min(REPORT_IMAGES, len(names) - num_best)], "worst")
    for confusion in metrics.get("confusions", ()):
        groups.setdefault(confusion["image"], None)
    return groups


def _examples(
    segmenter: AnySegmenter, dataset: Dataset, shown: Mapping[Item, Group | None], metrics: Mapping[str, Any]
) -> Iterator[Example]:
    """Predict the images, one at a time."""
    scores = {row["name"]: row["miou"] for row in metrics["per_image"]}
    for item, group in shown.items():
        image = dataset.image(item)
        yield Example(
            name=item.name,
            image=to_display(image),
            truth=dataset.labels(item),
            prediction=segmenter.predict(image).labels,
            score=float("nan") if scores.get(item.name) is None else scores[item.name],
            group=group,
        )


def _crf_examples(
    segmenter: AnySegmenter, dataset: Dataset, shown: Mapping[Item, Group | None]
) -> Iterator[CRFExample]:
    """Let CRFs label the best image and the worst one, one at a time."""
    firsts = {group: item for item, group in reversed(list(shown.items()))}
    refiners = {NONE: None, **{name: refiner_of(name) for name in SHOWN}}
    for item in (firsts[group] for group in ("best", "worst") if group in firsts):
        image, truth = dataset.image(item), dataset.labels(item)
        prediction = segmenter.predict(image)
        case = Case(labels=prediction.labels, truth=truth, image=image, unary=prediction.unary)
        maps = {name: labels_by(refiner, case) for name, refiner in refiners.items()}
        yield CRFExample(name=item.name, image=image, truth=truth, maps=maps)


def _problems(folder: RunFolder, data: DatasetFolder) -> Sequence[Problem]:
    """List the problems of the data where training was warned of any; what it saw of files is remembered."""
    card = read_card(read_run(folder.root))
    if card is None or not card.warnings:
        return ()
    lists = lists_of(folder.root, data.root)
    return check_dataset(data.root, val_list=lists.get("val_list"), test_list=lists.get("test_list")).problems
