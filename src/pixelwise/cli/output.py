"""What all commands share: people's text, JSON for scripts, tables and progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, for scripts.")


def print_json(value: object) -> None:
    """Print one JSON value on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Lay rows out in columns; the first row is the head, columns in `right` are flush right.

    >>> print(table([("name", "n"), ("coin", "24")], right=[1]))
    name   n
    coin  24
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """Show a fraction with four digits, or a dash where it is not defined."""
    return "-" if value is None else f"{value:.4f}"


def scores_text(result: dict[str, Any]) -> str:
    """Show an evaluation: the scores, the protocol beside them, and the table per class."""
    names = {
        "miou": "mean IoU",
        "pixel_accuracy": "pixel accuracy",
        "mean_accuracy": "mean accuracy",
        "fwiou": "frequency-weighted IoU",
    }
    rows = [("class", "IoU", "accuracy", "true pixels", "note")]
    for name, row in result["per_class"].items():
        rows.append((name, percent(row["iou"]), percent(row["accuracy"]), str(row["truth_pixels"]), row["note"] or ""))
    protocol = result["protocol"]
    lines = [f"  {names[key]:24}{percent(result['metrics'][key])}" for key in names]
    flip = ", mirrored twice" if protocol["flip"] else ""
    return "\n".join(
        [
            *lines,
            f"  on {result['num_images']} images of {protocol['split']!r} at {protocol['resolution']}{flip}; "
            f"{protocol['average']}; ignored: {protocol['ignored']}",
            "",
            table(rows, right=(1, 2, 3)),
        ]
    )


class Reporter:
    """Shows people how work goes: a bar on a terminal, plain lines elsewhere, on stderr if stdout is for scripts."""

    def __init__(self, *, as_json: bool) -> None:
        self.err = as_json
        self._bar: Any = None
        self._task: Any = None
        self._next = 0.0
        self._begun: tuple[float, int] | None = None

    def say(self, line: str) -> None:
        """Print a line."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(line, err=self.err)

    def step(self, iteration: int, iterations: int, loss: float) -> None:
        """Show an iteration of training."""
        self.advance("training", iteration, iterations, f"loss {loss:.4f}")

    def validated(self, event: dict[str, Any]) -> None:
        """Print the scores of a validation."""
        mark = "  (best)" if event["best"] else ""
        self.say(
            f"iteration {event['iteration']}: mean IoU {percent(event['miou'])}, pixel accuracy "
            f"{percent(event['pixel_accuracy'])}, loss {event['loss']:.4f}{mark}"
        )

    def advance(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that so many of so many are done, with rate and time left."""
        stream = sys.stderr if self.err else sys.stdout
        now = time.monotonic()
        if self._begun is None:
            self._begun = (now, done - 1)
        if stream.isatty():
            self._advance_bar(what, done, total, note)
        elif now >= self._next or done == total:
            first, before = self._begun
            rate = (done - before) / max(now - first, 1e-9)
            left = (total - done) / rate if rate else 0.0
            shown = f", {rate:.2f}/s, {_clock(left)} left" if now > first else ""
            self.say(f"{what} {done}/{total}{shown}{', ' + note if note else ''}")
            self._next = now + 10

        if done == total:
            self.close()

    def _advance_bar(self, what: str, done: int, total: int, note: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=self.err),
            )
            self._bar.start()
            self._task = self._bar.add_task(what, total=total, note=note, rate="")
        assert self._begun is not None
        rate = (done - self._begun[1]) / max(time.monotonic() - self._begun[0], 1e-9)
        self._bar.update(self._task, completed=done, note=note, rate=f"{rate:.2f}/s")

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
        self._begun = None
        self._next = 0.0

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """Return a function that shows the number of items done."""
        return lambda done: self.advance(what, done, total)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
