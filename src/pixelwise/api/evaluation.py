"""Scores: of a run on a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelwise.api.classes import evaluate_classifier, refuse_crops, refuse_options
from pixelwise.api.run_data import lists_of
from pixelwise.data.dataset import DatasetFile, DatasetFolder, Item, open_dataset, read_names
from pixelwise.data.scan import Dataset, scan
from pixelwise.engine.classical_segmenter import ClassicalSegmenter
from pixelwise.engine.crf_tally import CRFTally, compared_refiners
from pixelwise.engine.evaluate import evaluate_items, known_of
from pixelwise.engine.given_boxes import GivenBoxes, read_given_boxes
from pixelwise.engine.model_file import Option, options_text, task_of
from pixelwise.engine.predict import AnySegmenter, load_segmenter
from pixelwise.engine.scoring import Known, Tally
from pixelwise.engine.views import Fusion, Views, refiner_for
from pixelwise.errors import RequestError, closest


def load(run: str | Path, *, options: Mapping[str, Option] | None = None) -> AnySegmenter:
    """Load the best model of a run folder, or a model file, ready to predict.

    Args:
        run: run folder or model file.
        options: of the model, which beat those that it was trained with and leave its weights as they are, such as
            `{"output_stride": 8}` of DeepLab v3.
    """
    return load_segmenter(Path(run), options=options)


def evaluate(
    run: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    names: str | Path | None = None,
    metrics: Sequence[str] = (),
    boundary_class: str | None = None,
    tile: int | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    fusion: Fusion | None = None,
    window: int | None = None,
    stride: float | None = None,
    long_side: int | None = None,
    crf: str | Path | None = None,
    boxes: str | Path | None = None,
    options: Mapping[str, Option] | None = None,
    crops: int | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a run on a data set.

    Args:
        run: run folder or model file.
        data: dataset folder with the model's classes.
        split: what to score; None means "val", the run's own where the data has none.
        names: file that names the items to score, one a line, instead of a split.
        metrics: scores beside those of the confusion matrix; see `pixelwise.engine.scoring.METRICS`.
        boundary_class: name of the class between objects, where dataset.json does not say it.
        tile: input side of a seamless tile; None as in prediction.
        flip: join with the mirror image.
        scales: sizes of the image whose scores are joined, as factors of its own.
        fusion: how views are joined: "prob_mean" (the default), "flip_logit_sum", "logit_mean" or "max"; see
            `pixelwise.engine.views`.
        window: side of sliding windows, which are averaged where they overlap, as PSPNet was tested.
        stride: step between windows, as a share of their side; None takes two thirds.
        long_side: pixels of the image's longer side at scale 1, instead of its own size.
        crf: what refines the joined probabilities with the image: a preset of the dense CRF, "tuned" for what
            `tune_crf` found, or its file; see `pixelwise.crf.refiner.refiner_of`.
        boxes: file or folder of boxes that an instance-wise model (DeconvNet) sees in place of its own proposals; see
            `pixelwise.engine.given_boxes`.
        options: of the model, see `load`.
        crops: of an image, for classifiers: 1 (the centre, the default) or 10.
        on_image: called with images done and in all.

    Returns:
        `metrics`, `per_class`, `protocol`, `num_images`, `confusion_matrix`, `per_image` and details of the scores; of
        a classical pipeline `crf_comparison`, too: scores without a CRF, with short-range and fully connected ones.
    """
    if task_of(Path(run)) == "classification":
        given: dict[str, object] = {"--metrics": sorted(set(metrics) - {"top1", "top5"})}
        given |= {"--boundary-class": boundary_class, "--tile": tile, "--flip": flip, "--boxes": boxes}
        given |= {"--scales": tuple(scales) != (1.0,), "--fusion": fusion, "--window": window}
        refuse_options(run, {**given, "--stride": stride, "--long-side": long_side, "--crf": crf})
        return evaluate_classifier(
            run, data, split=split, names=names, crops=crops or 1, options=options, on_image=on_image
        )
    refuse_crops(crops)
    views = Views(
        scales=tuple(scales),
        flip=flip,
        fusion=fusion,
        tile=tile,
        window=window,
        stride=stride,
        long_side=long_side,
        refiner=refiner_for(crf, run),
    )
    segmenter = load(run, options=options)
    segmenter.check(views)
    folder = open_dataset(Path(data), **lists_of(Path(run), Path(data)))
    items, split = choose_items(folder, split, names)
    seen = given_boxes(segmenter, boxes, [item.name for item in items])
    dataset = with_boundary(scan_for(segmenter, folder, items), boundary_class)
    evaluation = evaluate_items(
        segmenter,
        dataset,
        items,
        split=split,
        metrics=metrics,
        views=views,
        boxes=seen,
        more=crf_tallies(segmenter, known_of(segmenter, dataset, items), crf, views),
        on_image=None if on_image is None else lambda done: on_image(done, len(items)),
    )
    changed = {"options": options_text(options)} if options else {}
    return replace(evaluation, protocol={**evaluation.protocol, **changed}).to_json()


def crf_tallies(segmenter: AnySegmenter, known: Known, crf: str | Path | None, views: Views) -> list[Tally]:
    """Return what compares CRFs on a classical pipeline, for whose labels they were made; nothing for networks.

    The CRF that was asked for is one of them.
    """
    if not isinstance(segmenter, ClassicalSegmenter):
        return []
    refiners = compared_refiners(segmenter.location)
    if crf is not None:
        refiners.setdefault(str(crf), views.refiner)
    return [CRFTally(known, refiners, timed=True)]


def given_boxes(segmenter: AnySegmenter, path: str | Path | None, images: Sequence[str]) -> GivenBoxes | None:
    """Read the boxes that a user gives for images of these names, or None where none are given."""
    if path is None:
        return None
    if segmenter.instance_wise is None:
        raise RequestError(
            f"--boxes has no effect on {segmenter.card.model}, which sees images whole; accepted: with models that see "
            "them box by box (deconvnet_vgg16, edeconvnet). Leave it out."
        )
    boxes = read_given_boxes(path)
    boxes.check_names(images)
    return boxes


def choose_items(folder: DatasetFolder, split: str | None, names: str | Path | None) -> tuple[list[Item], str]:
    """Return the items to score and a name for them: a split ("val" if None), or those that a file names."""
    if split is not None and names is not None:
        raise RequestError(f"--split {split} and --list {names} are both given; accepted: one of them.")
    if names is None:
        return folder.split(split or "val"), split or "val"
    wanted = read_names(Path(names), [item.name for item in folder.items])
    return [item for item in folder.items if item.name in wanted], f"list {Path(names).name}"


def with_boundary(dataset: Dataset, name: str | None) -> Dataset:
    """Return a data set whose boundary class is the one of this name; None leaves what the data says."""
    if name is None:
        return dataset
    classes = dataset.card.classes
    if name not in classes:
        raise RequestError(
            f"--boundary-class {name!r} is no class; accepted: {', '.join(classes[:12])}; closest: "
            f"{closest(name, classes)}. Correct the name."
        )
    card = dataset.card.model_copy(update={"boundary_class": classes.index(name)})
    return replace(dataset, card=card)


def scan_for(segmenter: AnySegmenter, folder: DatasetFolder, items: Sequence[Item]) -> Dataset:
    """Scan data for scoring a model: its classes must be the model's."""
    classes = segmenter.card.classes
    card = segmenter.card
    meant = DatasetFile(
        name=card.model,
        classes=classes,
        palette=card.palette,
        ignore_index=card.ignore_index,
        # Object ids would be taken for classes beyond the model's.
        mask_encoding="objects" if card.mask_encoding == "objects" else None,
    )
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
