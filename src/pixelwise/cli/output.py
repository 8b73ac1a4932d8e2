"""What all commands share: people's text, JSON for scripts, tables and progress."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from pixelwise.errors import RequestError

SECONDS_BETWEEN_LINES = 10.0  # of progress, where stderr is no terminal

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, for scripts.")


crf_option = click.option(
    "--crf",
    metavar="NAME|FILE",
    help="Refine with the image's colours: pydensecrf_default, deeplab_vgg16, deeplab_resnet101, deconvnet, crfrnn, or "
    "tuned, what tune-crf found; or with neighbours only: grid4, grid8; or texton, TextonBoost's own.",
)


def process_count() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    begun = {"RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return int(os.environ.get("WORLD_SIZE", "1")) if begun else 1


def is_first_process() -> bool:
    """Say whether this process speaks; of those that torchrun started the first one alone does."""
    return process_count() == 1 or os.environ["RANK"] == "0"


def view_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of how an image is looked at."""
    options = (
        click.option("--flip", is_flag=True, help="Join with the mirror image."),
        click.option("--scales", metavar="A,B", help="Sizes to join, as factors: 0.5,0.75,1,1.25,1.5,1.75."),
        click.option(
            "--fusion",
            metavar="RULE",
            help="How views are joined: prob_mean, flip_logit_sum, logit_mean or max.  [default: prob_mean]",
        ),
        click.option("--window", type=int, help="Side of sliding windows in pixels, averaged where they overlap."),
        click.option("--stride", metavar="SHARE", help="Step between windows, as a share of them.  [default: 2/3]"),
        click.option("--long-side", type=int, help="Pixels of the longer side at scale 1, not the image's own."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def print_json(value: object) -> None:
    """Print one JSON value on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), width: int | None = None) -> str:
    """Lay rows out in columns; the first row is the head, columns in `right` are flush right.

    Lines longer than `width` characters are cut, and end in an ellipsis.

    >>> print(table([("name", "n"), ("coin", "24")], right=[1]))
    name   n
    coin  24
    """
    columns = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(size) if column in right else cell.ljust(size)
            for column, (cell, size) in enumerate(zip(row, columns, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        lines.append(line if width is None or len(line) <= width else line[: width - 1] + "…")
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """Show a fraction with four digits, or a dash where it is not defined."""
    return "-" if value is None else f"{value:.4f}"


_SHOWN = ("miou", "pixel_accuracy", "top1", "top5")  # while training goes on
# The scores of a class and the heads of their columns.
_COLUMNS = {
    "iou": "IoU",
    "accuracy": "accuracy",
    "truth_pixels": "true pixels",
    "truth_images": "true images",
    "predicted_images": "predicted",
    "note": "note",
}
# Of the protocol, what the first lines say already.
_SAID = ("split", "resolution", "flip", "average", "ignored", "scale", "tile", "absent_classes", "ece")


def listed(given: str | None) -> list[str]:
    """Split a comma-separated option."""
    return [word.strip() for word in (given or "").split(",") if word.strip()]


def numbers(option: str, given: str | None) -> tuple[float, ...]:
    """Read the comma-separated numbers of an option."""
    return tuple(_number(option, word, "numbers such as 0.5,0.75,1") for word in listed(given))


def whole_numbers(option: str, given: str) -> tuple[int, ...]:
    """Read the comma-separated whole numbers of an option."""
    values = tuple(_number(option, word, "whole numbers such as 2,5,10") for word in listed(given))
    wrong = [value for value in values if value != int(value)] if all(map(math.isfinite, values)) else values
    if wrong:
        raise RequestError(f"{option}: {wrong[0]:g}; accepted: whole numbers such as 2,5,10. Correct it.")
    return tuple(map(int, values))


def share(option: str, given: str) -> float:
    """Read a share, such as 2/3 or 0.5."""
    above, slash, below = given.partition("/")
    accepted = "a share such as 2/3 or 0.5"
    divisor = _number(option, below, accepted) if slash else 1.0
    return _number(option, above, accepted) / divisor if divisor else math.inf


def _number(option: str, word: str, accepted: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise RequestError(f"{option}: {word!r} is no number; accepted: {accepted}. Correct it.") from None


def scores_text(result: dict[str, Any]) -> str:
    """Show an evaluation: the scores, the protocol beside them, and the table per class."""
    from pixelwise.metrics.names import METRIC_NAMES

    per_class = result["per_class"]
    columns = {key: head for key, head in _COLUMNS.items() if any(key in row for row in per_class.values())}
    rows = [["class", *columns.values()]]
    rows += [[name, *(_cell(row[key], key) for key in columns)] for name, row in per_class.items()]
    right = [number for number, key in enumerate(columns, start=1) if key != "note"]
    protocol, metrics = result["protocol"], result["metrics"]
    names = {key: METRIC_NAMES[key].name if key in METRIC_NAMES else key for key in metrics}
    lines = [f"  {names[key]:24}{percent(value)}" for key, value in metrics.items()]
    images = f"{result['num_images']} image{'s' if result['num_images'] > 1 else ''}"
    flip = ", joined with mirror images" if protocol.get("flip") else ""
    at = f" at {protocol['resolution']}" if "resolution" in protocol else ""
    ignored = f"; ignored: {protocol['ignored']}" if "ignored" in protocol else ""
    return "\n".join(
        [
            *lines,
            f"  on {images} of {protocol['split']!r}{at}{flip}",
            f"  {protocol['average']}{ignored}",
            *(f"  {key.replace('_', ' ')}: {said}" for key, said in protocol.items() if key not in _SAID),
            *(["", table(rows, right=right)] if len(rows) > 1 else []),
            *crf_lines(result),
        ]
    )


def crf_lines(result: dict[str, Any]) -> list[str]:
    """Show what CRFs make of the same probabilities, where that was measured."""
    compared = result.get("crf_comparison")
    if not compared:
        return []
    images = f"{compared['num_images']} image{'s' if compared['num_images'] > 1 else ''}"
    rows = [["crf", "mean IoU", "pixel accuracy", "mean accuracy", "s an image"]]
    for row in compared["rows"]:
        seconds = f"{row['seconds']:.3f}" if "seconds" in row else ""
        rows.append([row["crf"], *(percent(row[key]) for key in ("miou", "pixel_accuracy", "mean_accuracy")), seconds])
    return ["", f"CRFs side by side, on {images}:", table(rows, right=[1, 2, 3, 4])]


def _cell(value: object, key: str) -> str:
    if key in ("iou", "accuracy"):
        return percent(value if isinstance(value, float) else None)
    return "" if value is None else str(value)


class Reporter:
    """Shows people how work goes.

    Progress is a bar on a terminal and plain lines elsewhere, always on stderr; sentences go to stdout, or to
    stderr as well where stdout is for scripts.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.err = as_json
        self.speaks = is_first_process()
        self._bar: Any = None
        self._task: Any = None
        self._next = 0.0
        self._begun: tuple[float, int] | None = None

    def say(self, line: str) -> None:
        """Print a line; a bar moves down before it."""
        if not self.speaks:
            return
        stream = sys.stderr if self.err else sys.stdout
        if self._bar is not None and stream.isatty():
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(line, file=stream)

    def stage(self, what: str, done: int, total: int) -> None:
        """Show how far the work before the first iteration is."""
        self.advance(what, done, total)

    def step(self, iteration: int, iterations: int, loss: float) -> None:
        """Show an iteration of training."""
        self.advance("training", iteration, iterations, f"loss {loss:.4f}")

    def validated(self, event: dict[str, Any]) -> None:
        """Print the scores of a validation."""
        from pixelwise.metrics.names import METRIC_NAMES

        mark = "  (best so far)" if event["best"] else ""
        scores = [f"{METRIC_NAMES[key].name} {percent(event[key])}" for key in _SHOWN if key in event]
        self.say(f"iteration {event['iteration']}: {', '.join(scores)}, loss {event['loss']:.4f}{mark}")

    def advance(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that so many of so many are done, with rate and time left."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = (now, done)  # the first one's own time is not known
        first, before = self._begun
        rate = (done - before) / (now - first) if now > first else 0.0
        pace = f"{_rate(rate)}, {_clock((total - done) / rate)} left" if rate and done < total else _rate(rate)
        if sys.stderr.isatty():
            self._show_bar(what, done, total, pace, note)
        elif now >= self._next or done == total:
            click.echo(", ".join(part for part in (f"{what} {done}/{total}", pace, note) if part), err=True)
            self._next = now + SECONDS_BETWEEN_LINES
        if done == total:
            self.close()

    def _show_bar(self, what: str, done: int, total: int, pace: str, note: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[pace]}"),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.start()
            self._task = self._bar.add_task(what, total=total, pace="", note="")
        self._bar.update(self._task, completed=done, pace=pace, note=note, refresh=done == total)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
        self._begun = None
        self._next = 0.0


def _rate(rate: float) -> str:
    """Show how fast work goes; slow work by the time of one.

    >>> _rate(2.0), _rate(0.25), _rate(0.0)
    ('2.0/s', '4.0 s each', '')
    """
    if not rate:
        return ""
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


def _clock(seconds: float) -> str:
    """Show a duration as on a watch.

    >>> _clock(65), _clock(3725)
    ('1:05', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
