"""The report of an image classifier: one HTML file as for segmentation, with whole images in place of label maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pixelwise.data.card import in_usual_order
from pixelwise.data.pictures import Picture
from pixelwise.files import write_atomically
from pixelwise.report.confusions import Confusion, confusion_matrix, largest_confusions
from pixelwise.report.curves import FRAME, training_curves
from pixelwise.report.html import REPORT_NAME
from pixelwise.report.page import environment, jpeg_uri
from pixelwise.report.progress import training_end
from pixelwise.report.run_files import RunFiles, Table, as_list, as_number, as_table, as_words, read_run
from pixelwise.report.summary import Sentence, Summary
from pixelwise.report.tables import Classes, Fact, find_classes, headline, percent

TEMPLATE_NAME = "report_classes.html.j2"
MOST_WRONG = 12  # images
SIDE = 200  # pixels of a picture, at most
QUALITY, LIMIT = 85, 60_000
FEW_IMAGES = 100  # below, a point of top-1 is an image or two
WEAK = 0.5  # of the top-1 accuracy
GAIN = 0.01


@dataclass(frozen=True, kw_only=True)
class WrongImage:
    """An image that is classified wrongly; `source` is its picture, "" where it could not be read."""

    name: str
    truth: str
    prediction: str
    probability: str
    truth_probability: str
    rank: str
    source: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class ClassLine:
    """One class in the table; `share` is the length of its bar, 0 to 100."""

    name: str
    color: str
    accuracy: str
    share: float | None
    truth: str
    predicted: str
    images: list[str]


def wrong_rows(metrics: Table) -> list[Table]:
    """Return the rows of `per_image` that are wrong, the surest first, as many as a report shows."""
    rows = [as_table(row) for row in as_list(metrics.get("per_image"))]
    wrong = [row for row in rows if row.get("truth") != row.get("prediction")]
    wrong.sort(key=lambda row: (-(as_number(row.get("probability")) or 0.0), str(row.get("name"))))
    return wrong[:MOST_WRONG]


def write_class_report(run: Path, *, pictures: Iterable[tuple[str, Picture]] = (), no_pictures: str = "") -> Path:
    """Write `report.html` of a classifier's run.

    Args:
        run: the run folder; what it lacks is named in the section that would show it.
        pictures: name and picture, uint8 (H, W, 3), of images that `wrong_rows` names.
        no_pictures: why there are none, shown in their place.

    Raises:
        WorkError: if the file cannot be written.
    """
    files = read_run(run)
    classes = find_classes(files)
    shown = dict(pictures)
    splits = in_usual_order(as_table(files.card.get("images_per_class")))
    text = (
        environment()
        .get_template(TEMPLATE_NAME)
        .render(
            headline=headline(files),
            summary=summarise_classes(files, classes),
            problems=files.problems,
            classes=classes,
            splits=splits,
            lines=class_lines(files, classes, splits),
            wrong=[_wrong(row, shown.get(str(row.get("name")))) for row in wrong_rows(files.metrics)],
            num_wrong=sum(
                as_table(row).get("truth") != as_table(row).get("prediction")
                for row in as_list(files.metrics.get("per_image"))
            ),
            no_pictures=no_pictures,
            matrix=confusion_matrix(files.metrics, classes, unit="images"),
            confusions=largest_confusions(files.metrics, classes),
            curves=training_curves(files),
            frame=FRAME,
            training_end=training_end(files),
            decisions=[str(line) for line in as_list(files.card.get("decisions"))],
            config_text=files.config_text,
            environment=[Fact(name=key, text=as_words(value)) for key, value in files.environment.items()],
        )
    )
    target = run / REPORT_NAME
    write_atomically(target, text)
    return target


def class_lines(files: RunFiles, classes: Classes, splits: Sequence[str]) -> list[ClassLine]:
    """Return the classes with their accuracy and numbers of images, lowest accuracy first."""
    counts = as_table(files.card.get("images_per_class"))
    found = []
    for name, entry in as_table(files.metrics.get("per_class")).items():
        row = as_table(entry)
        accuracy = as_number(row.get("accuracy"))
        found.append(
            ClassLine(
                name=name,
                color=classes.color(name),
                accuracy=percent(accuracy),
                share=None if accuracy is None else round(100 * accuracy, 1),
                truth=as_words(row.get("truth_images")),
                predicted=as_words(row.get("predicted_images")),
                images=[as_words(as_table(counts.get(split)).get(name)) for split in splits],
            )
        )
    return sorted(found, key=lambda line: (line.share is None, line.share or 0.0, line.name))


def _wrong(row: Table, picture: Picture | None) -> WrongImage:
    """Return a wrong image for the page."""
    source, height, width = "", 0, 0
    if picture is not None:
        picture = smaller(picture, SIDE)
        height, width = picture.shape[:2]
        source = jpeg_uri(picture, quality=QUALITY, limit=LIMIT)
    return WrongImage(
        name=str(row.get("name")),
        truth=str(row.get("truth")),
        prediction=str(row.get("prediction")),
        probability=percent(as_number(row.get("probability"))),
        truth_probability=percent(as_number(row.get("truth_probability"))),
        rank=as_words(row.get("rank")),
        source=source,
        width=width,
        height=height,
    )


def smaller(picture: Picture, side: int) -> Picture:
    """Return a picture with no side above `side`."""
    factor = min(1.0, side / max(picture.shape[:2]))
    if factor == 1:
        return picture
    height, width = (max(1, round(length * factor)) for length in picture.shape[:2])
    small = cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def summarise_classes(files: RunFiles, classes: Classes) -> Summary | None:
    """Say how good the classifier is, where it fails and what to do; None without scores."""
    metrics = as_table(files.metrics.get("metrics"))
    top1, top5 = as_number(metrics.get("top1")), as_number(metrics.get("top5"))
    rows = {name: as_table(row) for name, row in as_table(files.metrics.get("per_class")).items()}
    if top1 is None or not rows:
        return None
    most, count = max(
        ((name, as_number(row.get("truth_images")) or 0.0) for name, row in rows.items()), key=lambda one: one[1]
    )
    images = as_number(files.metrics.get("num_images")) or 0.0
    always = count / max(1.0, images)
    good = [
        f"{percent(top1)} of {images:,.0f} validation images get the right class; calling all of them “{most}” would "
        f"reach {percent(always)}."
    ]
    if top5 is not None and len(rows) > 5:
        good.append(f"For {percent(top5)} it is among the five likeliest.")
    confusions = largest_confusions(files.metrics, classes)
    advice = _advice(files, top1, always, images, confusions) or [
        Sentence(text="Nothing stands out. See whether the wrong images are wrong in their labels.", section="images")
    ]
    return Summary(
        good=[Sentence(text=text, section="classes") for text in good],
        fails=_fails(rows, top1, confusions),
        advice=advice,
    )


def _fails(rows: dict[str, Table], top1: float, confusions: Sequence[Confusion]) -> list[Sentence]:
    scores = {name: as_number(row.get("accuracy")) for name, row in rows.items()}
    known = sorted((value, name) for name, value in scores.items() if value is not None)
    weak = [f"{name} {percent(value, 0)}" for value, name in known if value < WEAK * top1][:3]
    found = [Sentence(text=f"Least often right: {', '.join(weak)}.", section="classes")] if weak else []
    if confusions:
        first = confusions[0]
        text = (
            f"Largest confusion: {first.truth} taken for {first.prediction}, {first.pixels} images, {first.share} of "
            f"all {first.truth}."
        )
        found.append(Sentence(text=text, section="confusion"))
    return found or [Sentence(text="No validation image is wrong.")]


def _advice(
    files: RunFiles, top1: float, always: float, images: float, confusions: Sequence[Confusion]
) -> list[Sentence]:
    found = []
    end = training_end(files)
    if end is not None and not end.complete:
        found.append(Sentence(text=f"Training stands {end.words}. Go on with --resume.", section="curves"))
    warnings = as_number(files.card.get("warnings"))
    if warnings:
        found.append(Sentence(text=f"Look at the {warnings:,.0f} warnings about the data.", section="data"))
    scores = [score for event in files.validation if (score := as_number(event.get("top1"))) is not None]
    if top1 <= always:
        text = "Train longer: it is no better than one answer for all images."
        found.append(Sentence(text=text, section="curves"))
    elif len(scores) > 2 and scores[-1] >= max(scores) and scores[-1] - scores[-max(2, len(scores) // 3)] > GAIN:
        found.append(Sentence(text="Train longer: top-1 accuracy was still rising.", section="curves"))
    if confusions and confusions[0].of_wrong > 0.25 and len(scores) > 0:
        first = confusions[0]
        text = f"See whether the labels tell {first.truth} from {first.prediction} in all images as you would."
        found.append(Sentence(text=text, section="images"))
    if images < FEW_IMAGES:
        text = f"Validate on more images: with {images:,.0f}, one more or less is {percent(1 / max(1.0, images))}."
        found.append(Sentence(text=text, section="classes"))
    return found
