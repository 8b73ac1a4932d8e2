"""Every score that can be asked for has a name for people."""

from __future__ import annotations

from pixelwise.cli.output import scores_text
from pixelwise.engine.scoring import METRICS
from pixelwise.metrics.names import METRIC_NAMES

OF_CLASSIFIERS = {"top1", "top5"}


def test_every_metric_has_a_name_of_its_own() -> None:
    assert set(METRIC_NAMES) == set(METRICS) | OF_CLASSIFIERS
    assert len({one.name for one in METRIC_NAMES.values()}) == len(METRIC_NAMES)
    assert all(one.meaning for one in METRIC_NAMES.values())


def test_the_command_line_uses_the_names_and_shows_unknown_scores_as_they_are_called() -> None:
    result = {
        "metrics": {"vrand": 0.97125, "own_score": None},
        "per_class": {},
        "protocol": {"split": "val", "resolution": "full", "average": "over images", "ignored": "none"},
        "num_images": 2,
    }
    lines = scores_text(result).splitlines()
    assert lines[:2] == ["  V_rand                  0.9712", "  own_score               -"]
