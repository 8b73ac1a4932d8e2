"""Every problem of a data set in one list, and a description of what can be used all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelwise.data.dataset import DatasetFolder, find_dataset, nothing_found, settle_splits
from pixelwise.data.dataset_file import read_dataset_file
from pixelwise.data.problems import Finding, Problem, Severity
from pixelwise.data.scan import UNCLEAR, DataCard, Dataset, Survey, survey
from pixelwise.errors import RequestError

__all__ = ["Check", "Problem", "Severity", "check_dataset"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a check found.

    Attributes:
        root: the data folder.
        layout: how its files are arranged, in words; None where that was not recognised.
        num_images: images with masks that were found, good or bad.
        problems: errors first.
        dataset: the items without errors, scanned; None where errors leave nothing to describe.
    """

    root: Path
    layout: str | None
    num_images: int
    problems: tuple[Problem, ...]
    dataset: Dataset | None

    @property
    def card(self) -> DataCard | None:
        """The card of the items without errors."""
        return None if self.dataset is None else self.dataset.card

    @property
    def ready(self) -> bool:
        """Whether the data can be trained on: no problem is an error."""
        return all(problem.severity != "error" for problem in self.problems)

    @property
    def mask_encoding(self) -> str | None:
        """How masks mean classes, in words."""
        return None if self.card is None else self.card.mask_encoding.words

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in index order, none where they could not be settled."""
        return () if self.card is None else self.card.classes

    @property
    def dataset_file(self) -> dict[str, Any] | None:
        """The dataset.json that says outright what was recognised."""
        card = self.card
        if card is None:
            return None
        content: dict[str, Any] = {"name": card.name, "classes": list(card.classes)}
        if card.ignore_index is not None:
            content["ignore_index"] = card.ignore_index
        if card.palette is not None:
            content["palette"] = [list(colour) for colour in card.palette]
        if card.boundary_class is not None:
            content["boundary_class"] = card.classes[card.boundary_class]
        if card.licence is not None:
            content["licence"] = card.licence
        return content | {"mask_encoding": card.mask_encoding.declared}


def check_dataset(
    root: Path,
    *,
    val_list: Path | None = None,
    test_list: Path | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> Check:
    """Look at every file of a data set and list everything that is wrong with it.

    Args:
        root: the data folder.
        val_list: names of the validation items, as in `open_dataset`.
        test_list: names of the items to hold out, as in `open_dataset`.
        on_image: called with images done and in all.

    Raises:
        RequestError: if there is no such folder, or a list does not fit the data.
    """
    root = Path(root)
    if not root.is_dir():
        find_dataset(root, None)  # says what is missing
    file, findings = None, list[Finding]()
    try:
        file = read_dataset_file(root / "dataset.json")
    except RequestError as error:
        findings.append(Finding(path=root / "dataset.json", text=str(error), kind="dataset.json"))
    try:
        folder = find_dataset(root, file)
    except RequestError as error:
        unknown = Finding(path=root, text=str(error), kind="folders and files")
        return _result(root, None, 0, [*findings, unknown], None)
    num_images = len(folder.items)
    folder, found = _settled(folder, val_list, test_list)
    findings += found
    survey_of_items = survey(folder, folder.items, on_image=on_image) if folder.items else Survey(None, [])
    broken = root / "dataset.json" in {finding.path for finding in findings}
    # Without the classes of a broken dataset.json, nothing can be said of what masks mean.
    findings += [found for found in survey_of_items.findings if not (broken and found.kind == UNCLEAR)]
    return _result(root, folder.layout, num_images, findings, survey_of_items.dataset)


def _settled(
    folder: DatasetFolder, val_list: Path | None, test_list: Path | None
) -> tuple[DatasetFolder, list[Finding]]:
    """Leave out items that cannot be told apart, and settle the splits if that is possible."""
    findings = list(folder.findings)
    spoilt = frozenset[str]().union(*(finding.spoils for finding in findings))
    folder = replace(folder, items=tuple(item for item in folder.items if item.key not in spoilt))
    if not folder.items:
        return folder, findings or [Finding(path=folder.root, text=nothing_found(folder), kind="folders and files")]
    try:
        return settle_splits(folder, val_list=val_list, test_list=test_list), findings
    except RequestError as error:
        if val_list is not None or test_list is not None:
            raise
        return folder, [*findings, Finding(path=folder.root, text=str(error), kind="splits")]


def _result(root: Path, layout: str | None, num_images: int, findings: list[Finding], dataset: Dataset | None) -> Check:
    problems = [finding.told(root) for finding in findings]
    problems.sort(key=lambda problem: problem.severity != "error")
    return Check(root=root, layout=layout, num_images=num_images, problems=tuple(problems), dataset=dataset)
