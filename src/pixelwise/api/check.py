"""Checking: a data set before any work on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pixelwise.data.check import Check, check_dataset
from pixelwise.files import check_writable
from pixelwise.report.card import check_place, write_card


def check(
    data: str | Path,
    *,
    out: str | Path | None = None,
    val_list: str | Path | None = None,
    test_list: str | Path | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> Check:
    """Recognise layout and masks of a data set, list every problem, and draw a data card.

    Args:
        data: dataset folder.
        out: file for the card, ending in .html; an earlier card there is replaced. None draws none.
        val_list: file that names the validation items, where the data has no val split.
        test_list: file that names the items to hold out.
        on_image: called with images done and in all.

    Returns:
        What was recognised, the problems, errors first, and whether the data is ready to train on.

    Raises:
        RequestError: if there is no such folder, a list does not fit, or `out` is no place for a card.
        WorkError: if the card cannot be written.
    """
    if out is not None:
        check_place(Path(out))
        check_writable(Path(out).parent)
    lists = {"val_list": _path(val_list), "test_list": _path(test_list)}
    found = check_dataset(Path(data), **lists, on_image=on_image)
    if out is not None:
        write_card(found, Path(out), **lists)
    return found


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
