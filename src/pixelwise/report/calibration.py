"""Whether the model is as often right as it is sure: the reliability diagram, as coordinates for SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pixelwise.report.curves import Frame, Tick
from pixelwise.report.run_files import Table, as_list, as_number, as_numbers, as_table
from pixelwise.report.tables import percent

# The upper drawing holds accuracy over confidence, the lower one (from `bottom` + gap) the share of pixels.
FRAME = Frame(width=480, height=420, left=58, right=466, top=12, bottom=280)
SHARE_TOP, SHARE_BOTTOM = 306, 376
GOOD = 0.02  # calibration error below which probabilities are called right
ONE_SIDED = 0.5  # of the error: from which on it is called over- or under-confidence
RARE = 0.001  # share of the pixels below which a bin's accuracy says little


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bin in pixels of the drawing, y downwards, and in words."""

    x: float
    width: float
    top: float
    share_top: float
    rare: bool
    title: str
    confidence: str
    accuracy: str
    pixels: str


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """The diagram, and what it says."""

    bars: list[Bar]
    ticks: list[Tick]
    y_ticks: list[Tick]
    share_tick: str
    description: str
    sentences: list[str]
    ece: float
    meaning: str


@dataclass(frozen=True, kw_only=True)
class _Bin:
    low: float
    high: float
    pixels: float
    confidence: float
    accuracy: float


def reliability(metrics: Table) -> Reliability | None:
    """Return the reliability diagram; None where metrics.json does not hold it."""
    stored = as_table(metrics.get("calibration"))
    bins = [found for entry in as_list(stored.get("bins")) if (found := _bin(as_table(entry))) is not None]
    ece, mce = as_number(as_table(metrics.get("metrics")).get("ece")), as_number(stored.get("mce"))
    total = sum(one.pixels for one in bins)
    if ece is None or mce is None or not total:
        return None
    most = max(one.pixels for one in bins) / total
    sentences = _sentences(bins, total, ece, mce)
    places = [index / 5 for index in range(6)]
    return Reliability(
        bars=[_bar(one, total, most) for one in bins],
        ticks=[Tick(position=_x(place), text=f"{100 * place:.0f}") for place in places],
        y_ticks=[Tick(position=_y(place), text=f"{100 * place:.0f}") for place in places],
        share_tick=percent(most, 0),
        description=" ".join(sentences),
        sentences=sentences,
        ece=ece,
        meaning=_meaning(bins, total, ece),
    )


def _bin(entry: Table) -> _Bin | None:
    """Return a bin that holds pixels."""
    numbers = as_numbers(entry, "low", "high", "pixels", "confidence", "accuracy")
    if numbers is None or not numbers[2]:
        return None
    low, high, pixels, confidence, accuracy = numbers
    return _Bin(low=low, high=high, pixels=pixels, confidence=confidence, accuracy=accuracy)


def _x(confidence: float) -> float:
    return round(FRAME.left + confidence * (FRAME.right - FRAME.left), 1)


def _y(accuracy: float) -> float:
    return round(FRAME.bottom - accuracy * (FRAME.bottom - FRAME.top), 1)


def _bar(one: _Bin, total: float, most: float) -> Bar:
    share = one.pixels / total
    words = f"{percent(one.low, 0)} to {percent(one.high, 0)}"
    return Bar(
        x=_x(one.low) + 1,
        width=round(_x(one.high) - _x(one.low) - 2, 1),
        top=_y(one.accuracy),
        share_top=round(SHARE_BOTTOM - share / most * (SHARE_BOTTOM - SHARE_TOP), 1),
        rare=share < RARE,
        title=f"Confidence {words}: right in {percent(one.accuracy)}; {percent(share, 2)} of the pixels",
        confidence=words,
        accuracy=percent(one.accuracy),
        pixels=percent(share, 2),
    )


def _excess(bins: list[_Bin], total: float) -> float:
    """Return mean confidence less accuracy over all pixels."""
    return math.fsum(one.pixels * (one.confidence - one.accuracy) for one in bins) / total


def _sentences(bins: list[_Bin], total: float, ece: float, mce: float) -> list[str]:
    right = math.fsum(one.pixels * one.accuracy for one in bins) / total
    worst = max(bins, key=lambda one: abs(one.confidence - one.accuracy))
    return [
        f"The model gives the class it predicts a probability of {percent(right + _excess(bins, total))} on average; "
        f"it is right in {percent(right)} of the pixels.",
        f"Taken by confidence, the two differ by {percent(ece)} on average (expected calibration error, ECE), and by "
        f"{percent(mce)} at most (MCE): where it is {percent(worst.low, 0)} to {percent(worst.high, 0)} sure, which "
        f"holds {_share(worst.pixels / total)} of the pixels.",
    ]


def _share(share: float) -> str:
    """Return a share that does not read as 0 where it is none."""
    return percent(share) if share >= RARE else f"less than {percent(RARE)}"


def _meaning(bins: list[_Bin], total: float, ece: float) -> str:
    """Say what a user of the probabilities must know."""
    excess = _excess(bins, total)
    if ece < GOOD:
        return "Its probabilities can be taken at their word."
    if excess > ONE_SIDED * ece:
        return "It is over-confident: more often wrong than its probabilities say."
    if -excess > ONE_SIDED * ece:
        return "It is under-confident: more often right than its probabilities say."
    return "Its probabilities are too high in some places and too low in others: take them as an order, not as numbers."
