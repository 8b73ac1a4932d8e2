"""The reliability diagram: bars at their places, sentences with the right numbers."""

from __future__ import annotations

import numpy as np
import pytest

from pixelwise.metrics import Calibration
from pixelwise.report.calibration import FRAME, SHARE_BOTTOM, SHARE_TOP, reliability


def measured(confidence: list[float], correct: list[bool], num_bins: int = 4) -> dict[str, object]:
    """Return metrics.json's entries, as the scorer writes them."""
    tally = Calibration(num_bins=num_bins)
    tally.add(np.array(confidence), np.array(correct))
    scores = tally.result()
    bins = [vars(entry) for entry in scores.bins]
    return {"metrics": {"ece": scores.ece}, "calibration": {"mce": scores.mce, "bins": bins}}


def test_bars_and_sentences_of_a_case_by_hand() -> None:
    # 6 pixels of confidence 0.9, half of them right, and 2 of 0.6, both right: ECE (6 * 0.4 + 2 * 0.4) / 8.
    found = reliability(measured([0.9] * 6 + [0.6] * 2, [True, False] * 3 + [True] * 2))
    assert found is not None
    assert found.ece == pytest.approx(0.4, abs=1e-6)
    low, high = found.bars
    assert (low.confidence, low.accuracy, low.pixels) == ("50 % to 75 %", "100.0 %", "25.00 %")
    assert (high.confidence, high.accuracy, high.pixels) == ("75 % to 100 %", "50.0 %", "75.00 %")
    assert low.top == FRAME.top
    assert high.top == (FRAME.top + FRAME.bottom) / 2
    assert low.x == FRAME.left + (FRAME.right - FRAME.left) / 2 + 1
    assert high.share_top == SHARE_TOP
    assert low.share_top == pytest.approx(SHARE_BOTTOM - (SHARE_BOTTOM - SHARE_TOP) / 3, abs=0.1)
    text = " ".join(found.sentences)
    assert "probability of 82.5 % on average; it is right in 62.5 % of the pixels" in text
    assert "differ by 40.0 % on average" in text
    assert "by 40.0 % at most" in text
    assert found.description == text


@pytest.mark.parametrize(
    ("confidence", "right", "words"),
    [
        ([0.9] * 10, 9, "taken at their word"),
        ([0.9] * 10, 5, "over-confident"),
        ([0.6] * 10, 10, "under-confident"),
        ([0.99] * 5 + [0.51] * 5, 5, "too high in some places"),
    ],
)
def test_what_it_means(confidence: list[float], right: int, words: str) -> None:
    correct = [index >= len(confidence) - right for index in range(len(confidence))]
    found = reliability(measured(confidence, correct))
    assert found is not None
    assert words in found.meaning


def test_a_bin_of_few_pixels_is_pale_and_said_to_hold_few() -> None:
    found = reliability(measured([0.9] * 2000 + [0.3], [True] * 1800 + [False] * 200 + [True]))
    assert found is not None
    assert [bar.rare for bar in found.bars] == [True, False]
    assert "which holds less than 0.1 % of the pixels" in found.sentences[1]


@pytest.mark.parametrize("metrics", [{}, {"calibration": {"mce": 0.1, "bins": []}, "metrics": {"ece": 0.1}}])
def test_runs_without_it_have_none(metrics: dict[str, object]) -> None:
    assert reliability(metrics) is None
