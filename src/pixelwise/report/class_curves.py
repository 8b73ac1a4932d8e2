"""IoU of each class over the validations: small charts of equal axes, and of many classes lines in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pixelwise.report.curves import Frame, Marker
from pixelwise.report.run_files import RunFiles, Table, as_number, as_table
from pixelwise.report.tables import Classes, percent

FRAME = Frame(width=240, height=116, left=32, right=232, top=8, bottom=92)
MAX_CHARTS = 12  # up to so many classes each has a chart; of more, half of this number lowest and highest ones
MAX_POINTS = 60  # of a line


@dataclass(frozen=True, kw_only=True)
class ClassCurve:
    """One class: its line in the frame, and its numbers as text.

    Attributes:
        name: of the class.
        color: CSS colour of its swatch.
        path: SVG path, broken where the class had no score.
        markers: a dot for each validation.
        first: IoU at the first validation that has one.
        highest: highest IoU, and when.
        kept: IoU of the best model, the one that is kept.
        description: the line in words.
    """

    name: str
    color: str
    path: str
    markers: list[Marker]
    first: str
    highest: str
    kept: str
    description: str


@dataclass(frozen=True, kw_only=True)
class ClassCurves:
    """The section; `best_x` is where the best model's iteration lies in the frame, None if that is not known."""

    groups: list[tuple[str, list[ClassCurve]]] = field(default_factory=list)
    rest: list[ClassCurve] = field(default_factory=list)
    best_x: float | None = None
    last: str = ""
    notes: list[str] = field(default_factory=list)
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class _Line:
    """IoU of one class: (iteration, IoU) of each validation, None without a score."""

    name: str
    points: list[tuple[float, float | None]]
    kept: float


def class_curves(files: RunFiles, classes: Classes) -> ClassCurves:
    """Return the charts, classes of low IoU first."""
    validations = [(as_number(event.get("iteration")) or 0.0, _ious(event)) for event in files.validation]
    validations = [(iteration, ious) for iteration, ious in validations if ious]
    if len(validations) < 2:
        return ClassCurves(notes=_notes(files, len(validations)))
    best, last = as_number(files.metrics.get("iteration")), validations[-1][0]
    lines, without = [], []
    for name in validations[-1][1]:
        line = _line(name, [(iteration, ious.get(name)) for iteration, ious in validations], best)
        if line is None:
            without.append(name)
        else:
            lines.append(line)
    lines.sort(key=lambda line: line.kept)
    curves = [_curve(line, last, classes.color(line.name)) for line in lines]
    groups, rest = _grouped(curves)
    return ClassCurves(
        groups=groups,
        rest=rest,
        best_x=None if best is None or not 0 < best <= last else _place(best, 0, last)[0],
        last=f"{last:,.0f}",
        remark=f"Without a score in all validations: {', '.join(without)}." if without else "",
    )


def _ious(event: Table) -> dict[str, float | None]:
    return {name: as_number(iou) for name, iou in as_table(event.get("per_class_iou")).items()}


def _notes(files: RunFiles, number: int) -> list[str]:
    """Say why there are no curves, where no other section says it."""
    if number == 1:
        return ["There was one validation only, so no class has a curve yet."]
    return ["The validations in log.jsonl hold no IoU per class."] if files.validation else []


def _line(name: str, points: list[tuple[float, float | None]], best: float | None) -> _Line | None:
    """Return the line of one class; None where it never has a score."""
    known = [(x, y) for x, y in points if y is not None]
    if not known:
        return None
    kept = dict(known).get(best, known[-1][1]) if best is not None else known[-1][1]
    return _Line(name=name, points=points, kept=kept)


def _grouped(curves: list[ClassCurve]) -> tuple[list[tuple[str, list[ClassCurve]]], list[ClassCurve]]:
    """Return the classes that have charts, and those that have lines in the table."""
    if len(curves) <= MAX_CHARTS:
        return [("", curves)], []
    half = MAX_CHARTS // 2
    groups = [(f"The {half} classes of lowest IoU", curves[:half]), (f"The {half} of highest IoU", curves[-half:])]
    return groups, curves[half:-half]


def _curve(line: _Line, last: float, color: str) -> ClassCurve:
    shown = _thinned(line.points)
    known = [(x, y) for x, y in line.points if y is not None]
    at, highest = max(known, key=lambda point: point[1])
    placed = [None if y is None else (*_place(x, y, last), x, y) for x, y in shown]
    markers = [
        Marker(x=point[0], y=point[1], text=f"{line.name}, iteration {point[2]:,.0f}: {percent(point[3])}")
        for point in placed
        if point is not None
    ]
    return ClassCurve(
        name=line.name,
        color=color,
        path=_path([None if point is None else point[:2] for point in placed]),
        markers=markers,
        first=percent(known[0][1]),
        highest=f"{percent(highest)} at {at:,.0f}",
        kept=percent(line.kept),
        description=(
            f"IoU of {line.name}: {percent(known[0][1])} at iteration {known[0][0]:,.0f}, {percent(known[-1][1])} at "
            f"iteration {known[-1][0]:,.0f}, highest {percent(highest)} at iteration {at:,.0f}"
        ),
    )


def _thinned(points: list[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """Return points evenly, with the first and the last one, where there are more than can be told apart."""
    if len(points) <= MAX_POINTS:
        return points
    return [points[round(index * (len(points) - 1) / (MAX_POINTS - 1))] for index in range(MAX_POINTS)]


def _place(iteration: float, iou: float, last: float) -> tuple[float, float]:
    """Return a point in pixels of the frame: iterations from 0 to the last one, IoU from 0 to 1."""
    x = FRAME.left + iteration / last * (FRAME.right - FRAME.left)
    return round(x, 1), round(FRAME.bottom - iou * (FRAME.bottom - FRAME.top), 1)


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """Return an SVG path that is broken where a point is missing.

    >>> _path([(0, 1), (2, 3), None, (4, 5)])
    'M0,1L2,3M4,5'
    """
    parts, drawing = [], False
    for point in points:
        if point is not None:
            parts.append(f"{'L' if drawing else 'M'}{point[0]:g},{point[1]:g}")
        drawing = point is not None
    return "".join(parts)
