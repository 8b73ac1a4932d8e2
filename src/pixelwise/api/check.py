"""Checking: a data set before any work on it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pixelwise.data.check import Check, check_dataset
from pixelwise.data.class_check import ClassCheck, check_classes
from pixelwise.data.class_folder import holds_classes, may_hold_masks
from pixelwise.errors import RequestError
from pixelwise.files import check_writable
from pixelwise.report.card import check_place, write_card
from pixelwise.report.class_card import write_class_card
from pixelwise.report.ready import RUN_FOLDER

Task = Literal["semantic", "classification"]


def check(
    data: str | Path,
    *,
    out: str | Path | None = None,
    val_list: str | Path | None = None,
    test_list: str | Path | None = None,
    task: Task | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> Check | ClassCheck:
    """Recognise layout and masks of a data set, list every problem, and draw a data card.

    Args:
        data: dataset folder.
        out: file for the card, ending in .html; an earlier card there is replaced. None draws none.
        val_list: file that names the validation items, where the data has no val split.
        test_list: file that names the items to hold out.
        task: "semantic" (images with masks) or "classification" (a folder for each class); None recognises which.
        on_image: called with images done and in all.

    Returns:
        What was recognised, the problems, errors first, and whether the data is ready to train on; a `ClassCheck` of a
        folder for each class.

    Raises:
        RequestError: if there is no such folder, it can be read as data of both tasks, a list does not fit, or `out` is
            no place for a card.
        WorkError: if the card cannot be written.
    """
    if out is not None:
        check_place(Path(out))
        check_writable(Path(out).parent)
    lists = {"val_list": _path(val_list), "test_list": _path(test_list)}
    if (task or task_of_data(Path(data))) == "classification":
        classes = check_classes(Path(data), **lists, on_image=on_image)
        if out is not None:
            write_class_card(classes, Path(out), command=class_command(Path(data), **lists))
        return classes
    found = check_dataset(Path(data), **lists, on_image=on_image)
    if out is not None:
        write_card(found, Path(out), **lists)
    return found


def task_of_data(root: Path) -> Task:
    """Tell by the layout what a data set is for.

    Raises:
        RequestError: if it can be read as images with masks and as a folder for each class.
    """
    if not holds_classes(root):
        return "semantic"
    if may_hold_masks(root):
        raise RequestError(
            f"{root} can be read in 2 ways: as images with masks, and as a folder for each class; accepted: one. Give "
            "--task semantic or --task classification, or move what is not meant elsewhere."
        )
    return "classification"


def class_command(root: Path, *, val_list: Path | None = None, test_list: Path | None = None) -> str:
    """Return how to train a classifier on a data set."""
    words = ["pixelwise", "train", str(root), "--model", "resnet50", "--out", RUN_FOLDER]
    for option, path in (("--val-list", val_list), ("--test-list", test_list)):
        words += [] if path is None else [option, str(path)]
    return shlex.join(words)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
