"""The split of errors: shares by hand, and what is said of them."""

from __future__ import annotations

import pytest

from pixelwise.report.borders import borders


def split(near: tuple[int, int], far: tuple[int, int]) -> dict[str, object]:
    """Return metrics.json's entry for (pixels, wrong pixels) on both sides."""
    sides = {
        name: {"pixel_accuracy": 1 - wrong / pixels, "miou": 0.5, "pixels": pixels, "wrong_pixels": wrong}
        for name, (pixels, wrong) in (("boundary", near), ("interior", far))
    }
    return {"border_split": {"distance": 7.0, **sides}}


def test_shares_are_of_all_pixels_and_of_all_wrong_ones() -> None:
    found = borders(split((200, 31), (800, 19)))
    assert found is not None
    assert (found.near_pixels, found.near_wrong) == (0.2, 0.62)
    assert found.sentence == (
        "62 % of the wrong pixels lie within 7 pixels of a true border; that band holds 20 % of all pixels."
    )
    near, far = found.sides
    assert (near.pixels, near.wrong, near.accuracy, near.miou) == ("20.0 %", "62.0 %", "84.5 %", "50.0 %")
    assert (far.pixels, far.wrong, far.accuracy) == ("80.0 %", "38.0 %", "97.6 %")
    assert (near.pixels_length, far.wrong_length) == (20.0, 38.0)


@pytest.mark.parametrize(
    ("wrong_near", "wrong_far", "words"),
    [
        (70, 30, "Most errors are outlines"),
        (50, 50, "cost about the same"),
        (30, 70, "yet most errors lie in the interior"),
        (15, 85, "Borders are no harder"),
    ],
)
def test_what_it_means_follows_from_the_share(wrong_near: int, wrong_far: int, words: str) -> None:
    found = borders(split((200, wrong_near), (800, wrong_far)))
    assert found is not None
    assert words in found.meaning


def test_without_a_wrong_pixel_nothing_is_divided_by_zero() -> None:
    found = borders(split((200, 0), (800, 0)))
    assert found is not None
    assert found.near_wrong is None
    assert found.sentence.startswith("No pixel is wrong. 20 %")
    assert found.meaning == ""
    assert found.sides[0].wrong == "–"


@pytest.mark.parametrize("metrics", [{}, {"border_split": 3}, {"border_split": {"distance": 7, "boundary": {}}}])
def test_runs_without_the_split_have_none(metrics: dict[str, object]) -> None:
    assert borders(metrics) is None


def test_a_split_without_pixels_is_none() -> None:
    side = {"pixel_accuracy": None, "miou": None, "pixels": 0, "wrong_pixels": 0}
    assert borders({"border_split": {"distance": 7.0, "boundary": side, "interior": side}}) is None
