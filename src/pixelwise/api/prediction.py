"""Prediction: from image files to files of class indices."""

from __future__ import annotations

import glob
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pixelwise.api.classes import predict_classes, refuse_crops, refuse_options
from pixelwise.api.evaluation import given_boxes, load
from pixelwise.data.images import IMAGE_SUFFIXES
from pixelwise.engine.fold import fold_batch_norm
from pixelwise.engine.model_file import Option, task_of
from pixelwise.engine.objects import OBJECT_TABLE, Method, find_objects, object_rows, object_rule, table_csv
from pixelwise.engine.predict import Segmenter, label_png
from pixelwise.engine.views import Fusion, Views, refiner_for
from pixelwise.errors import RequestError
from pixelwise.files import check_writable, npy, picture_png, write_atomically


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a prediction run wrote.

    Attributes:
        outputs: files, in the order of the inputs.
        seconds: wall-clock time, loading included.
        peak_memory_mb: largest memory of the process so far; None on Windows, which does not count it so.
        num_objects: objects of all images, None where none were asked for.
        num_boxes: boxes that were seen one by one, in all images; None for models that see images whole.
        num_whole: images that were seen whole all the same: small ones, and those without a box that is large enough.
        window: (height, width) of the sliding windows; None where there were none.
        num_windowed: images that were seen through them.
        classes: likeliest class of each image and its probability, by the image's name; None for segmentation.
        refined: what refined the probabilities and how, empty where nothing did.
    """

    outputs: tuple[Path, ...]
    seconds: float
    peak_memory_mb: float | None
    num_objects: int | None
    num_boxes: int | None = None
    num_whole: int | None = None
    window: tuple[int, int] | None = None
    num_windowed: int = 0
    classes: Mapping[str, tuple[str, float]] | None = None
    refined: Mapping[str, str] = field(default_factory=dict)


def predict(
    run: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    tile: int | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    fusion: Fusion | None = None,
    window: int | None = None,
    stride: float | None = None,
    long_side: int | None = None,
    crf: str | Path | None = None,
    overlay: bool = False,
    probabilities: bool = False,
    instances: bool = False,
    object_method: Method | None = None,
    object_classes: Sequence[str] = (),
    whole_image: bool = False,
    boxes: str | Path | None = None,
    options: Mapping[str, Option] | None = None,
    crops: int | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> Predicted:
    """Segment images and write NAME.png (class index with palette) for each, at the image's size.

    Of an image classifier: classify images and write NAME.json for each and classes.csv for all, with the
    probabilities of the classes.

    Args:
        run: run folder or model file.
        inputs: image files, folders of images, or glob patterns.
        out: folder for the results.
        tile: input side of a seamless tile; None sees images up to 1024 x 1024 at once and cuts larger ones.
        flip: join with the mirror image.
        scales: sizes of the image whose scores are joined, as factors of its own.
        fusion: how views are joined: "prob_mean" (the default), "flip_logit_sum", "logit_mean" or "max"; see
            `pixelwise.engine.views`.
        window: side of sliding windows, which are averaged where they overlap, as PSPNet was tested.
        stride: step between windows, as a share of their side; None takes two thirds.
        long_side: pixels of the image's longer side at scale 1, instead of its own size.
        crf: what refines the joined probabilities with the image: a preset of the dense CRF, "tuned" for what
            `tune_crf` found, or its file; see `pixelwise.crf.refiner.refiner_of`.
        overlay: write NAME_overlay.png too, the image under the classes' colours.
        probabilities: write NAME.npy too, float16 (K, H, W).
        instances: write NAME_instances.png too, 16-bit object ids, and objects.csv, a row for each object.
        object_method: how areas are cut into objects; see `pixelwise.engine.objects`.
        object_classes: classes whose areas are objects; all but background and boundary class if empty.
        whole_image: let a model that sees images box by box (DeconvNet) see them whole, shrunk to its input.
        boxes: file or folder of boxes that such a model sees in place of its own proposals; see
            `pixelwise.engine.given_boxes`.
        options: of the model, which beat those that it was trained with; see `load`.
        crops: of an image, for classifiers: 1 (the centre, the default) or 10.
        on_image: called with images done and in all.

    Raises:
        RequestError: if there are no such images, two have the same name, or one cannot be read. Results of the
            images before it stay.
        WorkError: if results cannot be written.
    """
    started = time.perf_counter()
    images = find_images(inputs)
    if task_of(Path(run)) == "classification":
        given_options: dict[str, object] = {"--tile": tile, "--flip": flip, "--scales": tuple(scales) != (1.0,)}
        given_options |= {"--fusion": fusion, "--window": window, "--stride": stride, "--long-side": long_side}
        given_options |= {"--crf": crf}
        given_options |= {"--overlay": overlay, "--probabilities": probabilities, "--instances": instances}
        given_options |= {"--object-method": object_method, "--object-classes": object_classes, "--boxes": boxes}
        refuse_options(run, {**given_options, "--whole-image": whole_image})
        files, found = predict_classes(run, images, out=Path(out), crops=crops or 1, options=options, on_image=on_image)
        return Predicted(
            outputs=tuple(files),
            seconds=round(time.perf_counter() - started, 3),
            peak_memory_mb=_peak_memory_mb(),
            num_objects=None,
            classes={name: prediction.top(1)[0] for name, prediction in found.items()},
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
    if not instances and (object_method or object_classes):
        raise RequestError(
            "an object method or object classes are given, which have no effect without objects; accepted: both with "
            "--instances. Add it, or leave them out."
        )
    asked = {"_overlay.png": overlay, ".npy": probabilities, "_instances.png": instances}
    endings = [".png", *(ending for ending, wanted in asked.items() if wanted)]
    outputs = _plan_outputs(images, Path(out), endings)
    segmenter = load(run, options=options)
    if isinstance(segmenter, Segmenter):
        fold_batch_norm(segmenter.model)  # evaluate does not: its scores are to the digit those that training noted
    if whole_image:
        if segmenter.instance_wise is None:
            raise RequestError(
                f"--whole-image has no effect on {segmenter.card.model}, which sees images whole anyway; accepted: "
                "with models that see them box by box (deconvnet_vgg16, edeconvnet). Leave it out."
            )
        if boxes is not None:
            raise RequestError(
                f"--whole-image and --boxes {boxes} are both given; accepted: one of them. Leave the other out."
            )
        segmenter = replace(segmenter, instance_wise=None)
    segmenter.check(views)
    given = given_boxes(segmenter, boxes, [path.name for path in images])
    seen: list[int | None] = []
    windows: list[tuple[int, int]] = []
    rule = object_rule(segmenter.card, method=object_method, classes=object_classes) if instances else None
    rows: list[tuple[object, ...]] = []
    check_writable(Path(out))
    for done, path in enumerate(images, start=1):
        prediction = segmenter.view(path, views, None if given is None else given.of(path.name))
        windows += [] if prediction.window is None else [prediction.window]
        seen.append(prediction.num_boxes)
        for place, ending in zip(outputs[path], endings, strict=True):
            if ending == ".png":
                prediction.save(place)
            elif ending == "_overlay.png":
                write_atomically(place, picture_png(prediction.overlay()))
            elif ending == "_instances.png":
                assert rule is not None
                objects = find_objects(prediction.labels, prediction.probabilities, rule)
                write_atomically(place, label_png(objects.ids16(), ()))
                rows += object_rows(path.stem, objects, segmenter.card.classes)
            else:
                write_atomically(place, npy(prediction.probabilities.cpu().numpy().astype(np.float16)))
        if on_image is not None:
            on_image(done, len(images))
    written = [place for path in images for place in outputs[path]]
    if rule is not None:
        written.append(Path(out) / OBJECT_TABLE)
        write_atomically(written[-1], table_csv(rows))
    seconds = time.perf_counter() - started
    return Predicted(
        outputs=tuple(written),
        seconds=round(seconds, 3),
        peak_memory_mb=_peak_memory_mb(),
        num_objects=len(rows) if instances else None,
        num_boxes=None if segmenter.instance_wise is None else sum(count or 0 for count in seen),
        num_whole=None if segmenter.instance_wise is None else seen.count(None),
        window=max(windows, default=None),
        num_windowed=len(windows),
        refined={} if views.refiner is None else views.refiner.protocol(),
    )


def _peak_memory_mb() -> float | None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)  # macOS counts in bytes, Linux in kilobytes


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
