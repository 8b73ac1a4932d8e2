"""Curves of classes: few and many, gaps, and the best model's values."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.report.class_curves import FRAME, MAX_CHARTS, MAX_POINTS, class_curves
from pixelwise.report.run_files import RunFiles
from pixelwise.report.tables import Classes


def run_of(ious: list[dict[str, float | None]], best: int | None = None) -> RunFiles:
    """Return a run whose validations, every 10 iterations, gave these IoU."""
    events = [{"event": "validation", "iteration": 10 * n, "per_class_iou": one} for n, one in enumerate(ious, start=1)]
    return RunFiles(
        config={},
        config_text="",
        environment={},
        card={},
        metrics={} if best is None else {"iteration": best},
        training=[],
        validation=events,
        problems={},
    )


def classes_of(names: list[str]) -> Classes:
    colors = [[index, 0, 0] for index in range(len(names))]
    return Classes(names=names, palette=colors, outside=[9, 9, 9], ignore_index=None)


def test_two_classes_are_charts_with_the_best_models_value_lowest_first() -> None:
    ious = [{"a": 0.5, "b": 0.25}, {"a": 0.75, "b": 1.0}, {"a": 0.7, "b": 0.2}]
    found = class_curves(run_of(ious, best=20), classes_of(["a", "b"]))
    ((title, curves),) = found.groups
    assert (title, found.rest, found.last) == ("", [], "30")
    assert [(one.name, one.kept, one.first, one.highest) for one in curves] == [
        ("a", "75.0 %", "50.0 %", "75.0 % at 20"),
        ("b", "100.0 %", "25.0 %", "100.0 % at 20"),
    ]
    third = (FRAME.right - FRAME.left) / 3
    assert found.best_x == round(FRAME.left + 2 * third, 1)
    x, y = f"{round(FRAME.left + third, 1):g}", f"{(FRAME.top + FRAME.bottom) / 2:g}"
    assert curves[0].path.startswith(f"M{x},{y}L")
    assert curves[1].markers[1].y == FRAME.top
    assert curves[1].markers[1].text == "b, iteration 20: 100.0 %"
    assert "25.0 % at iteration 10, 20.0 % at iteration 30, highest 100.0 % at iteration 20" in curves[1].description


@pytest.mark.parametrize(("count", "charts"), [(2, 2), (11, 11), (12, 12), (13, 12), (133, 12)])
def test_every_class_is_shown_once(count: int, charts: int) -> None:
    names = [f"c{index}" for index in range(count)]
    ious = [{name: index / count for index, name in enumerate(names)} for _ in range(3)]
    found = class_curves(run_of(ious), classes_of(names))
    shown = [one.name for _, group in found.groups for one in group]
    assert len(shown) == charts
    assert sorted([*shown, *(one.name for one in found.rest)]) == sorted(names)
    if count > MAX_CHARTS:
        assert [title for title, _ in found.groups] == ["The 6 classes of lowest IoU", "The 6 of highest IoU"]
        assert shown == [*names[:6], *names[-6:]]


def test_a_validation_without_a_score_breaks_the_line_and_a_class_without_any_is_named() -> None:
    ious = [{"a": 0.5, "gone": None}, {"a": None, "gone": None}, {"a": 0.5, "gone": None}]
    found = class_curves(run_of(ious), classes_of(["a", "gone"]))
    ((_, curves),) = found.groups
    assert [one.name for one in curves] == ["a"]
    assert curves[0].path.count("M") == 2
    assert "L" not in curves[0].path
    assert len(curves[0].markers) == 2
    assert found.remark == "Without a score in all validations: gone."


@pytest.mark.parametrize(
    ("ious", "note"),
    [
        ([], None),
        ([{"a": 0.5}], "There was one validation only, so no class has a curve yet."),
        ([{}, {}], "The validations in log.jsonl hold no IoU per class."),
    ],
)
def test_what_is_missing_is_said(ious: list[dict[str, float | None]], note: str | None) -> None:
    found = class_curves(run_of(ious), classes_of(["a"]))
    assert found.groups == []
    assert found.notes == ([] if note is None else [note])


@given(st.lists(st.none() | st.floats(0, 1), min_size=2, max_size=200))
def test_lines_stay_in_the_frame_and_within_their_number_of_points(values: list[float | None]) -> None:
    found = class_curves(run_of([{"a": value} for value in values]), classes_of(["a"]))
    for _, group in found.groups:
        for one in group:
            points = re.findall(r"([\d.]+),([\d.]+)", one.path)
            assert 0 < len(points) <= MAX_POINTS or not one.path
            assert all(FRAME.left <= float(x) <= FRAME.right for x, _ in points)
            assert all(FRAME.top <= float(y) <= FRAME.bottom for _, y in points)
