"""The card of a data set: one HTML file that says what was recognised, lists every problem and shows pictures.

It is made without a date, so that writing it again gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pixelwise.data.check import Check
from pixelwise.errors import RequestError
from pixelwise.files import write_atomically
from pixelwise.report.card_images import Gallery, colours, galleries
from pixelwise.report.card_tables import (
    amount,
    class_rows,
    cooccurrence,
    facts,
    other_decisions,
    problem_groups,
    size_rows,
    tiles,
    verdict,
)
from pixelwise.report.page import LegendEntry, environment
from pixelwise.report.ready import make_ready

TEMPLATE_NAME = "card.html.j2"
MARK = '<meta name="generator" content="pixelwise data card">'  # a file with it may be written over
MARK_WITHIN = 1024  # bytes from the file's beginning


def write_card(check: Check, out: Path, *, val_list: Path | None = None, test_list: Path | None = None) -> Path:
    """Write the card of a data set; an earlier card of this name is replaced.

    Args:
        check: what is shown.
        out: the file, ending in .html.
        val_list: list that the check was made with, for the training command.
        test_list: likewise.

    Returns:
        The path of the card.

    Raises:
        RequestError: If `out` does not end in .html, or is something other than a card.
        WorkError: If the file cannot be written.
    """
    check_place(out)
    write_atomically(out, render_card(check, val_list=val_list, test_list=test_list))
    return out


def check_place(out: Path) -> None:
    """Refuse a place for a card before work is spent.

    Raises:
        RequestError: If `out` does not end in .html, or is something other than a card.
    """
    if out.suffix.lower() != ".html":
        raise RequestError(
            f"--out {out} does not end in .html; accepted: a file name such as card.html. Give one, in any folder."
        )
    if out.exists() and not _is_card(out):
        raise RequestError(
            f"--out {out} exists and is no data card; accepted: a new file, or an earlier card, which is replaced. "
            "Choose another name, or remove it."
        )


def _is_card(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(MARK_WITHIN)


def render_card(check: Check, *, val_list: Path | None = None, test_list: Path | None = None) -> str:
    """Return the card as HTML; arguments as for `write_card`."""
    card = check.card
    shown: list[Gallery] = []
    legend: list[LegendEntry] = []
    if check.dataset is not None:
        shown, legend = galleries(check, check.dataset)
    palette, own_colours = ([], True) if card is None else colours(card)
    return (
        environment()
        .get_template(TEMPLATE_NAME)
        .render(
            mark=MARK,
            name=check.root.resolve().name if card is None else card.name,
            root=str(check.root),
            card=card,
            verdict=verdict(check),
            tiles=tiles(check),
            facts=facts(check),
            decisions=other_decisions(card),
            problems=problem_groups(check.problems),
            num_problems=len(check.problems),
            galleries=shown,
            legend=legend,
            own_colours=own_colours,
            class_rows=[] if card is None else class_rows(card, palette),
            together=None if card is None else cooccurrence(card),
            sizes=[] if card is None else size_rows(card),
            ready=make_ready(check, val_list=val_list, test_list=test_list),
            dataset_file=None if check.dataset_file is None else dataset_json(check.dataset_file),
            has_dataset_file=(check.root / "dataset.json").is_file(),
            amount=amount,
        )
    )


def dataset_json(content: Mapping[str, object]) -> str:
    """Return dataset.json as text with one line for each key.

    >>> print(dataset_json({"name": "cells", "classes": ["background", "cell"]}))
    {
      "name": "cells",
      "classes": ["background", "cell"]
    }
    """
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}"
