"""`pixelwise check`: what a data set is, and everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pixelwise.cli.output import Reporter, json_option, print_json, table
from pixelwise.errors import WorkError

if TYPE_CHECKING:
    from pixelwise.data.card import DataCard
    from pixelwise.data.check import Check
    from pixelwise.data.class_check import ClassCheck
    from pixelwise.data.class_scan import ClassCard


@click.command("check", short_help="Recognise layout and masks, list every problem, draw a data card.")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", metavar="CARD.html", type=click.Path(path_type=Path), help="Write a data card with pictures.")
@click.option("--val-list", type=click.Path(path_type=Path), help="File that names the validation items, one a line.")
@click.option("--test-list", type=click.Path(path_type=Path), help="File that names the items to hold out, one a line.")
@click.option(
    "--task",
    type=click.Choice(["semantic", "classification"]),
    help="Images with masks, or a folder for each class.  [default: recognised]",
)
@json_option
def command(
    data: Path,
    out: Path | None,
    val_list: Path | None,
    test_list: Path | None,
    task: Literal["semantic", "classification"] | None,
    as_json: bool,
) -> None:
    """Look at every file of DATA, a folder with images and masks, or with a folder for each class.

    Prints what was recognised, the classes, and every problem with its file. Exit code 0: ready to train; 1: errors
    come first. Nothing in DATA is changed.
    """
    from pixelwise import api
    from pixelwise.api.check import class_command
    from pixelwise.data.check import Check
    from pixelwise.data.class_check import ClassCheck
    from pixelwise.report.ready import make_ready

    reporter = Reporter(as_json=as_json)
    try:
        found = api.check(
            data,
            out=out,
            val_list=val_list,
            test_list=test_list,
            task=task,
            on_image=lambda done, total: reporter.advance("checking", done, total),
        )
    finally:
        reporter.close()
    ready = make_ready(found, val_list=val_list, test_list=test_list) if isinstance(found, Check) else None
    if as_json:
        card = None if out is None else str(out)
        print_json({**_as_json(found), "card": card, "config": None if ready is None else ready.config})
    else:
        click.echo("\n".join(_lines(found)))
        if out is not None:
            click.echo(f"\ndata card: {out}")
        if found.ready and ready is not None:
            click.echo(f"\nready to train:\n  {ready.command}")
        elif found.ready and isinstance(found, ClassCheck):
            how = class_command(data, val_list=val_list, test_list=test_list)
            click.echo(f"\nready to train a classifier:\n  {how}")
    errors = sum(problem.severity == "error" for problem in found.problems)
    if errors:
        raise WorkError(
            f"{data} is not ready: {errors} error{'s' if errors > 1 else ''}, listed above; accepted: data without "
            "errors (warnings do not count). Mend them and check again."
        )


def _as_json(found: Check | ClassCheck) -> dict[str, object]:
    return {
        "layout": found.layout,
        "mask_encoding": found.mask_encoding,
        "num_images": found.num_images,
        "classes": list(found.classes),
        "ready": found.ready,
        "problems": [problem.model_dump() for problem in found.problems],
        "decisions": [] if found.card is None else list(found.card.decisions),
        "dataset_json": found.dataset_file,
    }


def _lines(found: Check | ClassCheck) -> list[str]:
    """Show what was recognised, then the classes, then every problem."""
    from pixelwise.data.card import DataCard
    from pixelwise.report.card_tables import decisions

    card = found.card
    if card is None:
        lines = [f"layout: {found.layout or 'not recognised'}"]
    elif isinstance(card, DataCard):
        lines = [*decisions(card), "", _classes(card)]
    else:
        lines = [*card.decisions, "", _images(card)]
    if not found.problems:
        return [*lines, "", "no problems"]
    lines += ["", "problems:"]
    files: dict[tuple[str, str], list[str]] = {}
    for problem in found.problems:
        files.setdefault((problem.severity, problem.problem), []).append(problem.file)
    for (severity, text), names in files.items():
        if len(names) == 1:
            lines.append(f"  {severity:8}{names[0]}: {text}")
        else:  # the sentence once, then every file
            lines += [f"  {severity:8}{len(names)} files: each {text}", *(f"            {name}" for name in names)]
    return lines


def _images(card: ClassCard) -> str:
    """Show how many images each class has."""
    head = ["index", "class", *(f"{split} images" for split in card.images_per_class)]
    rows = [
        [str(index), name, *(str(counts[name]) for counts in card.images_per_class.values())]
        for index, name in enumerate(card.classes)
    ]
    return table([head, *rows], right=[0, *range(2, len(head))])


def _classes(card: DataCard) -> str:
    """Show how common each class is: its share of the labelled pixels, and the images that hold it."""
    head = ["index", "class"]
    for split in card.pixel_counts:
        head += [f"{split} pixels", f"{split} images"]
    rows = [head]
    for index, name in enumerate(card.classes):
        row = [str(index), name]
        for split, counts in card.pixel_counts.items():
            share = counts[name] / max(1, sum(counts[known] for known in card.classes))
            row += [f"{share:.2%}", str(card.images_per_class.get(split, {}).get(name, ""))]
        rows.append(row)
    return table(rows, right=[0, *range(2, len(head))])
