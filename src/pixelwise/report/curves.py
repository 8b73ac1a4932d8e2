"""Training curves as coordinates; the template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pixelwise.report.run_files import RunFiles, Table, as_number

MAX_POINTS = 400
# A first loss far above the last ones flattens a linear curve; from this ratio on the axis is logarithmic.
LOG_RATIO = 30.0


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Size of a drawing and the pixels of its four axis ends, y downwards."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int


FRAME = Frame(width=480, height=280, left=58, right=466, top=12, bottom=234)


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values over iterations; `style` is the class of its line in the style sheet."""

    label: str
    style: str
    points: Sequence[tuple[float, float]]
    marked: bool = False


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A labelled position on an axis, in pixels of the drawing."""

    position: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A dot with the text that appears when the pointer rests on it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One drawn series; `path` is an SVG path."""

    label: str
    style: str
    path: str
    markers: list[Marker]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One drawing in the frame, with its words."""

    title: str
    description: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The charts for which there are values; `notes` say what is missing, `remark` how to read the charts."""

    charts: list[Chart]
    notes: list[str]
    remark: str


def training_curves(files: RunFiles) -> Curves:
    """Return the charts of a run, over the same iterations: loss, validation score, and what its training logs."""
    loss, per_point = _merge(_values(files.training, "loss"))
    rate, _ = _merge(_values(files.training, "lr"))
    checked = _values(files.validation, "loss")
    of_scores = {key: [(x, 100 * y) for x, y in _values(files.validation, key)] for key in ("miou", "top1")}
    iterations = [as_number(event.get("iteration")) or 0 for event in (*files.training, *files.validation)]
    last = max(iterations, default=0)
    losses = [
        Series(label="training", style="s1", points=loss),
        Series(label="validation", style="s2", points=checked, marked=True),
    ]
    miou, top1 = ([Series(label="validation", style="s2", points=of_scores[key], marked=True)] for key in of_scores)
    rates = [Series(label="learning rate", style="s1", points=rate)]
    wanted = [("Loss", losses, True), ("Mean IoU, %", miou, False), ("Top-1 accuracy, %", top1, False)]
    wanted += [("Learning rate", rates, False), *_of_boosting(files)]
    charts = [draw(title, series, last, may_log=log) for title, series, log in wanted if _has_points(series)]
    merged = f"Each point of the training curves is the mean of {per_point} logged values."
    return Curves(charts=charts, notes=_notes(files), remark=merged if per_point > 1 else "")


def _of_boosting(files: RunFiles) -> list[tuple[str, list[Series], bool]]:
    """Return the charts of rounds of boosting: pixel accuracy, and the error that their weights leave."""
    error, _ = _merge(_values(files.training, "weighted_error"))
    if not error:
        return []
    sampled, _ = _merge([(x, 100 * y) for x, y in _values(files.training, "sample_accuracy")])
    checked = [(x, 100 * y) for x, y in _values(files.validation, "pixel_accuracy")]
    accuracy = [
        Series(label="sampled training pixels", style="s1", points=sampled),
        Series(label="validation", style="s2", points=checked, marked=True),
    ]
    errors = [Series(label="weighted error", style="s1", points=error)]
    return [("Pixel accuracy, %", accuracy, False), ("Weighted error of the rounds", errors, False)]


def _has_points(series: Sequence[Series]) -> bool:
    """Say whether any series has a value."""
    return any(one.points for one in series)


def _values(events: Sequence[Table], key: str) -> list[tuple[float, float]]:
    """Return (iteration, value) of the events that have a finite value."""
    pairs = ((as_number(event.get("iteration")), as_number(event.get(key))) for event in events)
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _merge(points: list[tuple[float, float]]) -> tuple[list[tuple[float, float]], int]:
    """Average neighbours where a curve has more points than pixels; also return how many make one."""
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    if size == 1:
        return points, 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups], size


def _notes(files: RunFiles) -> list[str]:
    """Return what is missing from the curves."""
    notes = [files.problems["log.jsonl"]] if "log.jsonl" in files.problems else []
    if "log.jsonl" not in files.problems and not files.training:
        notes.append("log.jsonl holds no training events yet.")
    if files.training and not files.validation:
        notes.append("There is no validation in the log yet.")
    lost = sum("loss" in event for event in files.training) - len(_values(files.training, "loss"))
    if lost:
        notes.append(f"{lost} logged training loss(es) are missing or not finite and are not drawn.")
    return notes


def draw(title: str, series: Sequence[Series], last: float, *, may_log: bool = False) -> Chart:
    """Turn series into a chart.

    Args:
        title: Shown above the chart.
        series: At least one has a point; those without are left out.
        last: The iteration at the right end of the x axis, which begins at 0.
        may_log: Whether the y axis becomes logarithmic where all values are positive and spread widely.

    Returns:
        Coordinates in pixels, y downwards. Linear axes begin at 0 unless values are negative.
    """
    shown = [one for one in series if one.points]
    ys = [y for one in shown for _, y in one.points]
    log = may_log and min(ys) > 0 and max(ys) / min(ys) > LOG_RATIO
    x_place = _axis(*_widened(0, last), FRAME.left, FRAME.right)
    y_low, y_high = _y_range(ys, log=log)
    linear = _axis(y_low, y_high, FRAME.bottom, FRAME.top)

    def y_place(value: float) -> float:
        return linear(math.log10(value) if log else value)

    y_values = _log_ticks(min(ys), max(ys)) if log else _ticks(y_low, y_high)
    return Chart(
        title=f"{title} (logarithmic axis)" if log else title,
        description="; ".join(_describe(one) for one in shown),
        lines=[_line(one, x_place, y_place) for one in shown],
        x_ticks=[Tick(position=x_place(v), text=f"{v:,.0f}") for v in _whole_ticks(last)],
        y_ticks=[Tick(position=y_place(value), text=f"{value:.4g}") for value in y_values],
    )


def _describe(series: Series) -> str:
    """Say in words what a line shows, for people who cannot see it."""
    values = [y for _, y in series.points]
    return (
        f"{series.label}: from {values[0]:.4g} at iteration {series.points[0][0]:,.0f} to {values[-1]:.4g} "
        f"at iteration {series.points[-1][0]:,.0f}, lowest {min(values):.4g}, highest {max(values):.4g}"
    )


def _line(series: Series, x_place: Callable[[float], float], y_place: Callable[[float], float]) -> Line:
    """Place the points of one series."""
    placed = [(round(x_place(x), 1), round(y_place(y), 1)) for x, y in series.points]
    path = "M" + "L".join(f"{x:g},{y:g}" for x, y in placed)
    marked = series.marked or len(placed) == 1
    texts = [f"{series.label}, iteration {x:,.0f}: {y:.4g}" for x, y in series.points]
    markers = [Marker(x=x, y=y, text=text) for (x, y), text in zip(placed, texts, strict=True)] if marked else []
    return Line(label=series.label, style=series.style, path=path, markers=markers)


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return the function that maps values low..high to pixels start..end."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return a range that is not empty."""
    return (low, high) if high > low else (low, low + 1)


def _y_range(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """Return the ends of the y axis; of the logarithm of the values where `log`."""
    if log:
        low, high = math.log10(min(values)), math.log10(max(values))
        return low - 0.04 * (high - low), high + 0.04 * (high - low)
    low, high = min(0.0, min(values)), max(0.0, max(values))
    return _widened(low, high + 0.05 * (high - low))


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round values within a range.

    >>> _ticks(0, 0.93)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _whole_ticks(last: float) -> list[float]:
    """Return round iterations from 0 to the last one."""
    return [value for value in _ticks(*_widened(0, last), 4) if value == int(value)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 times powers of ten within a range; powers of ten alone over more than two decades."""
    factors = (1, 2, 5) if high / low <= 100 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**decade for decade in decades for factor in factors if low <= factor * 10.0**decade <= high]
