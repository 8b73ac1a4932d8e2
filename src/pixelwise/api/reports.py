"""Reports of runs."""

from __future__ import annotations

from pathlib import Path

from pixelwise.api.evaluation import lists_of, load, scan_for
from pixelwise.data.dataset import Item, open_dataset
from pixelwise.data.pictures import to_display
from pixelwise.data.scan import Dataset
from pixelwise.engine.config import read_config
from pixelwise.engine.predict import Segmenter
from pixelwise.engine.run_folder import RunFolder
from pixelwise.errors import RequestError
from pixelwise.report.html import Example, write_report

REPORT_IMAGES = 3  # best ones, and worst ones


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
        data = open_dataset(Path(config.data.path), **lists_of(folder.root, Path(config.data.path)))
        items = {item.name: item for item in data.split("val")}
        dataset = scan_for(segmenter, data, [items[row["name"]] for row in (*best, *worst)])
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
