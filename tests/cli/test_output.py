"""What people see while work goes on."""

from __future__ import annotations

import io
import sys

import pytest

from pixelwise.cli import output
from pixelwise.cli.output import Reporter, percent, scores_text, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets: its only entry is the time."""
    now = [100.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    return now


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("class", "IoU"), ("a", "0.5"), ("pavement", "-")]
    assert table(rows, right=[1]) == "class     IoU\na         0.5\npavement    -"
    assert table(rows, right=[1], width=10).splitlines()[2] == "pavement …"


def test_undefined_scores_are_a_dash() -> None:
    assert percent(None) == "-"
    assert percent(0.25) == "0.2500"


def test_plain_lines_come_every_ten_seconds_with_rate_and_time_left(clock, capsys) -> None:
    reporter = Reporter(as_json=False)
    for done in range(1, 101):
        reporter.step(done, 100, 0.5)
        clock[0] += 0.5
    assert capsys.readouterr().err.splitlines() == [
        "training 1/100, loss 0.5000",
        "training 21/100, 2.0/s, 0:40 left, loss 0.5000",
        "training 41/100, 2.0/s, 0:30 left, loss 0.5000",
        "training 61/100, 2.0/s, 0:20 left, loss 0.5000",
        "training 81/100, 2.0/s, 0:10 left, loss 0.5000",
        "training 100/100, 2.0/s, loss 0.5000",
    ]


def test_slow_work_shows_the_time_of_one(clock, capsys) -> None:
    reporter = Reporter(as_json=True)
    reporter.advance("scoring", 1, 601)
    clock[0] += 12
    reporter.advance("scoring", 2, 601)
    assert capsys.readouterr().err.splitlines()[-1] == "scoring 2/601, 12.0 s each, 1:59:48 left"


def test_one_reporter_shows_several_jobs(clock, capsys) -> None:
    reporter = Reporter(as_json=False)
    reporter.advance("training", 1, 1)
    clock[0] += 50
    reporter.advance("scoring", 1, 2)
    assert capsys.readouterr().err == "training 1/1\nscoring 1/2\n"


def test_sentences_keep_off_the_stdout_of_scripts(capsys) -> None:
    Reporter(as_json=True).say("layout: [images]")
    Reporter(as_json=False).say("layout: [masks]")
    assert capsys.readouterr() == ("layout: [masks]\n", "layout: [images]\n")


def test_a_terminal_gets_a_bar_on_stderr(monkeypatch, capsys) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    reporter = Reporter(as_json=False)
    reporter.step(1, 3, 0.75)
    reporter.validated({"iteration": 1, "miou": 0.5, "pixel_accuracy": None, "loss": 0.25, "best": True})
    reporter.step(3, 3, 0.5)
    reporter.close()
    shown = screen.getvalue()
    assert "training" in shown
    assert "3/3" in shown
    assert "loss 0.5000" in shown
    line = "iteration 1: mean IoU 0.5000, pixel accuracy -, loss 0.2500  (best so far)\n"
    assert capsys.readouterr().out == line  # stdout is a file here: the bar does not swallow the line


def test_scores_show_protocol_and_classes() -> None:
    row = {"iou": 0.5, "accuracy": None, "truth_pixels": 12, "note": "absent"}
    text = scores_text(
        {
            "metrics": {"miou": 0.5, "pixel_accuracy": 0.75, "mean_accuracy": None, "fwiou": 0.125},
            "per_class": {"coin": row},
            "protocol": {
                "split": "val",
                "resolution": "the labels' own size",
                "flip": True,
                "average": "one matrix",
                "ignored": "none",
            },
            "num_images": 3,
        }
    )
    assert "  mean accuracy           -\n" in text
    assert "  on 3 images of 'val' at the labels' own size, joined with mirror images\n" in text
    assert "  one matrix; ignored: none\n" in text
    assert text.splitlines()[-1].split() == ["coin", "0.5000", "-", "12", "absent"]
