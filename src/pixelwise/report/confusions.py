"""Which classes are taken for which: the confusion matrix, and the confusions that cost most."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pixelwise.report.run_files import Table, as_list, as_number, as_table
from pixelwise.report.tables import Classes, percent

Counts: TypeAlias = NDArray[np.float64]

# With more classes the cells of the matrix are too small for numbers.
MAX_NUMBERED_CLASSES = 30
SMALLEST_CELL = 0.005
# Of so many classes that each cell counts for the size of the file, only larger shares are drawn.
MANY_CLASSES = 150
SMALLEST_CELL_OF_MANY = 0.02
MOST_BY_SHARE = 10
MOST_BY_PIXELS = 8


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the confusion matrix: `share` of the true class's pixels, 0 to 1."""

    column: int
    share: float
    text: str
    title: str


@dataclass(frozen=True, kw_only=True)
class MatrixRow:
    """The cells of one true class; none where the class has no pixels."""

    name: str
    index: int
    total: str
    cells: list[Cell]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """One kind of mistake.

    Attributes:
        truth: true class.
        prediction: class that was predicted.
        share: of the true class's pixels, as text.
        pixels: how many, as text.
        of_wrong: share of all wrong pixels, 0 to 1.
        image: the image that shows it best, "" where that is not known.
    """

    truth: str
    prediction: str
    share: str
    pixels: str
    of_wrong: float
    image: str = ""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """The confusion matrix, each row divided by its sum; `smallest` is the share from which on a cell is drawn."""

    names: list[str]
    rows: list[MatrixRow]
    numbered: bool
    smallest: str
    worst: list[Confusion]


def confusion_matrix(metrics: Table, classes: Classes, *, unit: str = "pixels") -> Matrix | None:
    """Return the confusion matrix (rows: truth, columns: prediction), counted in a unit; None where there is none."""
    counts = _counts(metrics)
    if not counts.size:
        return None
    names = classes.names[: len(counts)]
    numbered = len(names) <= MAX_NUMBERED_CLASSES
    smallest = SMALLEST_CELL if len(names) <= MANY_CLASSES else SMALLEST_CELL_OF_MANY
    rows = enumerate(counts.tolist())
    return Matrix(
        names=names,
        rows=[_matrix_row(index, row, names, smallest, numbered=numbered, unit=unit) for index, row in rows],
        numbered=numbered,
        smallest=percent(smallest),
        worst=_largest(counts, names, MOST_BY_SHARE, by_share=True),
    )


def largest_confusions(metrics: Table, classes: Classes) -> list[Confusion]:
    """Return the confusions of most pixels, with the image that shows each best where metrics.json names it."""
    counts = _counts(metrics)
    entries = [as_table(entry) for entry in as_list(metrics.get("confusions"))]
    images = {(entry.get("truth"), entry.get("prediction")): entry.get("image") for entry in entries}
    found = _largest(counts, classes.names, MOST_BY_PIXELS) if counts.size else []
    return [replace(one, image=str(images.get((one.truth, one.prediction)) or "")) for one in found]


def _counts(metrics: Table) -> Counts:
    """Return the confusion matrix (K, K); empty where there is no square one."""
    rows = [[as_number(value) or 0.0 for value in as_list(row)] for row in as_list(metrics.get("confusion_matrix"))]
    return np.array(rows if all(len(row) == len(rows) for row in rows) else [], dtype=np.float64)


def _largest(counts: Counts, names: list[str], number: int, *, by_share: bool = False) -> list[Confusion]:
    """Return the confusions of most pixels, or of the largest shares of their true classes."""
    wrong = counts - np.diag(np.diag(counts))
    shares = wrong / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    order = np.lexsort((-wrong.ravel(), -shares.ravel()) if by_share else (-wrong.ravel(),))[:number]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [
        Confusion(
            truth=names[truth],
            prediction=names[other],
            share=percent(float(shares[truth, other])),
            pixels=f"{wrong[truth, other]:,.0f}",
            of_wrong=float(wrong[truth, other] / wrong.sum()),
        )
        for truth, other in pairs
        if wrong[truth, other]
    ]


def _matrix_row(
    index: int, counts: list[float], names: list[str], smallest: float, *, numbered: bool, unit: str
) -> MatrixRow:
    """Return the cells of one true class; without numbers only those that one can see."""
    total = sum(counts)
    cells = []
    for column, pixels in enumerate(counts if total else []):
        share = pixels / total
        if numbered or share >= smallest:
            title = f"{names[index]} → {names[column]}: {percent(share)} ({pixels:,.0f} {unit})"
            text = f"{100 * share:.0f}" if share >= smallest else ("·" if pixels else "")
            cells.append(Cell(column=column, share=round(share, 3), text=text, title=title))
    return MatrixRow(name=names[index], index=index, total=f"{total:,.0f}", cells=cells)
