"""The report of a training run: one HTML file that needs nothing else.

It is made from the files of the run folder, and from pictures where the data is there, without a date, so that
writing it again gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.data.problems import Problem
from pixelwise.errors import RequestError
from pixelwise.files import write_atomically
from pixelwise.report import calibration
from pixelwise.report.borders import borders
from pixelwise.report.class_curves import FRAME as CLASS_FRAME
from pixelwise.report.class_curves import class_curves
from pixelwise.report.confusions import Confusion, confusion_matrix, largest_confusions
from pixelwise.report.crfs import CRFExample, CRFPictures, crf_comparison, crf_pictures
from pixelwise.report.curves import FRAME, training_curves
from pixelwise.report.cut_outs import CutOut, cut_out
from pixelwise.report.data_section import Samples, data_section, read_card
from pixelwise.report.examples import (
    MAX_EXAMPLES,
    Example,
    ExampleRow,
    class_legend,
    error_legend,
    example_row,
    labels_seen,
)
from pixelwise.report.page import environment
from pixelwise.report.progress import training_end
from pixelwise.report.run_files import RunFiles, as_words, read_run
from pixelwise.report.summary import Known, summarise
from pixelwise.report.tables import Classes, Fact, class_rows, extra_columns, find_classes, headline

REPORT_NAME = "report.html"
TEMPLATE_NAME = "report.html.j2"
NO_EXAMPLES = "No example images were given for this report."


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What the examples became: whole images by group, cut-outs by confusion, and the labels that are seen."""

    best: list[ExampleRow] = field(default_factory=list)
    worst: list[ExampleRow] = field(default_factory=list)
    cut_outs: dict[Confusion, CutOut] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    @property
    def seen_in_cut_outs(self) -> set[int]:
        """The labels in the cut-outs."""
        return set[int]().union(*(one.seen for one in self.cut_outs.values()))


def write_report(
    run: Path,
    *,
    examples: Iterable[Example] = (),
    samples: Samples | None = None,
    problems: Sequence[Problem] = (),
    no_examples: str = NO_EXAMPLES,
    crf_examples: Iterable[CRFExample] = (),
) -> Path:
    """Write `report.html` into a run folder.

    What the run folder lacks is named in the section that would show it. The file appears at once and
    whole: it is written under a temporary name first.

    Args:
        run: The run folder.
        examples: Images with their predictions, each once; they are taken one after the other, so that large ones
            need not be in memory together. At most 4 of a group. Those that metrics.json names for a confusion are
            cut out there.
        samples: A few training images.
        problems: What a check of the data found; its warnings are listed.
        no_examples: Why there are no examples, shown in their place.
        crf_examples: images with what several CRFs made of them, where metrics.json compares these.

    Returns:
        The path of the report.

    Raises:
        RequestError: If `run` is no folder, or there are more examples than a report holds.
        WorkError: If the file cannot be written.
    """
    if not run.is_dir():
        raise RequestError(f"{run} is not a folder: a report is made from a run folder. Give the folder of a run.")
    files = read_run(run)
    classes = find_classes(files)
    confusions = largest_confusions(files.metrics, classes)
    pictures = take_pictures(examples, classes, confusions)
    crfs = [crf_pictures(example, classes) for example in crf_examples]
    text = _render(files, classes, confusions, pictures, samples or Samples(), problems, no_examples, crfs)
    target = run / REPORT_NAME
    write_atomically(target, text)
    return target


def take_pictures(examples: Iterable[Example], classes: Classes, confusions: Sequence[Confusion]) -> Pictures:
    """Make the pictures of all examples."""
    pictures = Pictures()
    for example in examples:
        if example.group is not None:
            rows = pictures.best if example.group == "best" else pictures.worst
            if len(rows) == MAX_EXAMPLES:
                raise RequestError(
                    f"more than {MAX_EXAMPLES} examples are of group {example.group!r}: a report holds at most "
                    f"{MAX_EXAMPLES}. Give fewer."
                )
            rows.append(example_row(example, classes))
            pictures.seen.update(labels_seen(example.truth, example.prediction))
        for confusion in confusions:
            part = cut_out(example, confusion, classes) if confusion.image == example.name else None
            if part is not None:
                pictures.cut_outs[confusion] = part
    return pictures


def _render(
    files: RunFiles,
    classes: Classes,
    confusions: Sequence[Confusion],
    pictures: Pictures,
    samples: Samples,
    problems: Sequence[Problem],
    no_examples: str,
    crfs: Sequence[CRFPictures],
) -> str:
    split, reliability = borders(files.metrics), calibration.reliability(files.metrics)
    known = Known(files=files, card=read_card(files), confusions=confusions, borders=split, reliability=reliability)
    end = training_end(files)
    return (
        environment()
        .get_template(TEMPLATE_NAME)
        .render(
            headline=headline(files),
            summary=summarise(known),
            problems=files.problems,
            classes=classes,
            class_rows=class_rows(files.metrics, classes),
            extra_columns=extra_columns(files.metrics),
            groups=[("Best images", pictures.best), ("Worst images", pictures.worst)],
            no_examples=no_examples,
            legend=class_legend(pictures.seen, classes),
            error_legend=error_legend(classes),
            crfs=crf_comparison(files.metrics),
            crf_pictures=crfs,
            matrix=confusion_matrix(files.metrics, classes),
            confusions=confusions,
            cut_outs=pictures.cut_outs,
            cut_out_legend=class_legend(pictures.seen_in_cut_outs, classes),
            borders=split,
            reliability=reliability,
            reliability_frame=calibration,
            curves=training_curves(files),
            frame=FRAME,
            class_curves=class_curves(files, classes),
            class_frame=CLASS_FRAME,
            training_end=end,
            data=data_section(files, classes, problems),
            samples=samples,
            config_text=files.config_text,
            environment=[Fact(name=key, text=as_words(value)) for key, value in files.environment.items()],
        )
    )
