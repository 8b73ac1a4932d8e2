"""Every problem of a data set of classes in one list, and a description of what can be used all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelwise.data.class_folder import (
    ClassFolder,
    counts_per_class,
    find_class_folder,
    settle_class_splits,
)
from pixelwise.data.class_scan import ClassCard, ClassDataset, survey_classes
from pixelwise.data.problems import Finding, Problem
from pixelwise.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class ClassCheck:
    """What a check of a folder for each class found.

    Attributes:
        root: the data folder.
        layout: how its files are arranged, in words.
        num_images: images that were found, good or bad.
        problems: errors first.
        dataset: the images without errors, scanned; None where errors leave nothing to describe.
    """

    root: Path
    layout: str
    num_images: int
    problems: tuple[Problem, ...]
    dataset: ClassDataset | None

    @property
    def card(self) -> ClassCard | None:
        """The card of the images without errors."""
        return None if self.dataset is None else self.dataset.card

    @property
    def ready(self) -> bool:
        """Whether the data can be trained on: no problem is an error."""
        return all(problem.severity != "error" for problem in self.problems)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in index order."""
        return () if self.card is None else self.card.classes

    @property
    def mask_encoding(self) -> None:
        """There are no masks."""

    @property
    def dataset_file(self) -> dict[str, Any] | None:
        """The dataset.json that says outright what was recognised."""
        return None if self.card is None else {"name": self.card.name, "classes": list(self.card.classes)}


def check_classes(
    root: Path,
    *,
    val_list: Path | None = None,
    test_list: Path | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> ClassCheck:
    """Look at every file of a data set of classes and list everything that is wrong with it.

    Args:
        root: the data folder.
        val_list: names of the validation items, as in `open_class_folder`.
        test_list: names of the items to hold out, as in `open_class_folder`.
        on_image: called with images done and in all.

    Raises:
        RequestError: if there is no such folder, it is laid out otherwise, or a list does not fit the data.
    """
    folder = find_class_folder(Path(root))
    findings, num_images = list(folder.findings), len(folder.items)
    spoilt = frozenset[str]().union(*(finding.spoils for finding in findings))
    folder = replace(folder, items=tuple(item for item in folder.items if item.key not in spoilt))
    try:
        folder = settle_class_splits(folder, val_list=val_list, test_list=test_list)
    except RequestError as error:
        if val_list is not None or test_list is not None:
            raise
        findings.append(Finding(path=folder.root, text=str(error), kind="splits"))
    findings += _too_few(folder)
    dataset, found = survey_classes(folder, folder.items, on_image=on_image) if folder.items else (None, [])
    problems = [finding.told(folder.root) for finding in (*findings, *found)]
    problems.sort(key=lambda problem: problem.severity != "error")
    return ClassCheck(
        root=Path(root), layout=folder.layout, num_images=num_images, problems=tuple(problems), dataset=dataset
    )


def _too_few(folder: ClassFolder) -> list[Finding]:
    """Refuse one class alone, and classes of dataset.json that have no image to train on."""
    if len(folder.classes) < 2:
        text = (
            f"{folder.root}: there is one class, {folder.classes[0]}; accepted: at least two to tell apart. Add a "
            "folder for another."
        )
        return [Finding(path=folder.root, text=text, kind="one class")]
    counts = counts_per_class([item for item in folder.items if item.split == "train"], folder.classes)
    missing = [name for name, count in counts.items() if not count]
    if folder.file is None or not missing:
        return []
    path = folder.root / "dataset.json"
    text = (
        f"{path} names {len(missing)} classes without a training image, such as {missing[0]}; accepted: images of "
        "every class. Add a folder with some, or take the class out."
    )
    return [Finding(path=path, text=text, kind="class without training images")]
