"""The report's section on CRFs."""

from __future__ import annotations

import numpy as np
import pytest

from pixelwise.report.crfs import CRFExample, crf_comparison, crf_pictures
from pixelwise.report.tables import Classes


def metrics(**scores: float) -> dict[str, object]:
    rows = [{"crf": name, "miou": miou, "pixel_accuracy": 0.5, "mean_accuracy": None} for name, miou in scores.items()]
    return {"crf_comparison": {"num_images": 8, "rows": rows}}


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"none": 0.5, "grid4": 0.52, "grid8": 0.51}, "grid4 raises mean IoU most, by 2.0 points: give --crf grid4"),
        ({"none": 0.5, "grid4": 0.501, "grid8": 0.4}, "None of the CRFs raises mean IoU here"),
    ],
)
def test_what_follows_is_said(scores: dict[str, float], words: str) -> None:
    compared = crf_comparison(metrics(**scores))
    assert compared is not None
    assert compared.sentence.startswith("Measured on 8 validation images")
    assert words in compared.sentence
    assert compared.rows[0].name == "none: the likeliest class of each pixel"
    assert compared.rows[0].scores == ["50.0 %", "50.0 %", "–"]


@pytest.mark.parametrize("broken", [{}, {"crf_comparison": 3}, {"crf_comparison": {"rows": [{"crf": "grid4"}, 1]}}])
def test_without_a_comparison_there_is_no_section(broken: dict[str, object]) -> None:
    assert crf_comparison(broken) is None


def test_pictures_of_every_map() -> None:
    labels = np.zeros((6, 8), np.uint8)
    example = CRFExample(
        name="a", image=np.zeros((6, 8, 1), np.uint8), truth=labels, maps={"none": labels, "grid8": labels}
    )
    classes = Classes(names=["a", "b"], palette=[[0, 0, 0], [9, 9, 9]], outside=[1, 1, 1], ignore_index=None)
    captions = [one.caption for one in crf_pictures(example, classes).pictures]
    assert captions == ["Input", "Truth", "Without a CRF", "grid8"]
