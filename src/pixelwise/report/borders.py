"""Where the wrong pixels lie: along the true borders, or in the interior of regions."""

from __future__ import annotations

from dataclasses import dataclass

from pixelwise.report.run_files import Table, as_number, as_numbers, as_table
from pixelwise.report.tables import percent

MOST = 0.6  # share of the wrong pixels from which one side is called the place of most errors


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of the split as text; the lengths of bars are 0 to 100."""

    name: str
    pixels: str
    pixels_length: float
    wrong: str
    wrong_length: float
    accuracy: str
    miou: str


@dataclass(frozen=True, kw_only=True)
class Borders:
    """How pixels and errors divide between the two sides.

    Attributes:
        distance: from a true border, in pixels.
        near_pixels: share of all pixels within that distance, 0 to 1.
        near_wrong: share of the wrong pixels there; None where no pixel is wrong.
        sides: near a border, and the interior.
    """

    distance: float
    near_pixels: float
    near_wrong: float | None
    sides: list[Side]

    @property
    def sentence(self) -> str:
        """What was measured."""
        within = f"within {self.distance:g} pixels of a true border"
        if self.near_wrong is None:
            return f"No pixel is wrong. {percent(self.near_pixels, 0)} of all pixels lie {within}."
        return (
            f"{percent(self.near_wrong, 0)} of the wrong pixels lie {within}; that band holds "
            f"{percent(self.near_pixels, 0)} of all pixels."
        )

    @property
    def meaning(self) -> str:
        """What follows from it."""
        if self.near_wrong is None:
            return ""
        if self.near_wrong <= self.near_pixels:
            return "Borders are no harder than the interior: whole regions get a wrong class; the confusions say which."
        if self.near_wrong > MOST:
            return (
                "Most errors are outlines drawn a little beside the true ones, by the model or in the labels; the "
                "regions themselves are mostly found."
            )
        if self.near_wrong < 1 - MOST:
            return (
                "Outlines are the harder part, yet most errors lie in the interior, where whole regions get a wrong "
                "class; the confusions say which."
            )
        return "Outlines drawn a little beside the true ones and whole regions of a wrong class cost about the same."


def borders(metrics: Table) -> Borders | None:
    """Return the split; None where metrics.json does not hold it."""
    split = as_table(metrics.get("border_split"))
    near, far = as_table(split.get("boundary")), as_table(split.get("interior"))
    near_counts, far_counts = (as_numbers(side, "pixels", "wrong_pixels") for side in (near, far))
    distance = as_number(split.get("distance"))
    if distance is None or near_counts is None or far_counts is None:
        return None
    pixels, wrong = near_counts[0] + far_counts[0], near_counts[1] + far_counts[1]
    if not pixels:
        return None
    of_pixels, of_wrong = near_counts[0] / pixels, near_counts[1] / wrong if wrong else None
    sides = [
        _side(f"Within {distance:g} pixels of a border", near, of_pixels, of_wrong),
        _side("Interior", far, 1 - of_pixels, None if of_wrong is None else 1 - of_wrong),
    ]
    return Borders(distance=distance, near_pixels=of_pixels, near_wrong=of_wrong, sides=sides)


def _side(name: str, side: Table, pixels: float, wrong: float | None) -> Side:
    return Side(
        name=name,
        pixels=percent(pixels),
        pixels_length=round(100 * pixels, 1),
        wrong=percent(wrong),
        wrong_length=round(100 * (wrong or 0), 1),
        accuracy=percent(as_number(side.get("pixel_accuracy"))),
        miou=percent(as_number(side.get("miou"))),
    )
