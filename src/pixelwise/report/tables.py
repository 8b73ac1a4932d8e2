"""The numbers of a run as rows for the template: headline and classes, and what all sections build theirs from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pixelwise.data.pictures import MAX_CLASSES, OUTSIDE_COLOR, default_palette
from pixelwise.metrics.names import METRIC_NAMES
from pixelwise.report.progress import training_end
from pixelwise.report.run_files import RunFiles, Table, as_list, as_number, as_table, as_words, humanize

DASH = "–"
BACKGROUND_NAMES = ("background", "_background_", "bg", "__background__")
# Scores of each class that are measured when they are asked for: the key in metrics.json, and its column.
EXTRA_COLUMNS = {"boundary_iou_per_class": "Boundary IoU", "bf_per_class": "Boundary F1"}


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A name and what is known about it, as text."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """One of the scores in the headline."""

    name: str
    text: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Headline:
    """What the reader sees first."""

    model: str
    data: str
    scores: list[Score]
    protocol: list[Fact]
    facts: list[Fact]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class in the table of scores; `iou_share` is the length of its bar, 0 to 100, `more` of extra columns."""

    name: str
    color: str
    iou: str
    iou_share: float | None
    accuracy: str
    dice: str
    truth_share: str
    more: list[str]
    note: str


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Names and colours of the classes, in index order; `outside` is the colour of ignored pixels."""

    names: list[str]
    palette: list[list[int]]
    outside: list[int]
    ignore_index: int | None

    def color(self, name: str) -> str:
        """Return the CSS colour of a class; that of ignored pixels for an unknown name."""
        known = name in self.names
        return css(self.palette[self.names.index(name)] if known else self.outside)


def css(color: Sequence[int]) -> str:
    """Return a colour for the style sheet."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def percent(share: float | None, digits: int = 1) -> str:
    """Return a fraction as a percentage, a dash where there is none.

    >>> percent(0.4567), percent(None)
    ('45.7 %', '–')
    """
    return DASH if share is None else f"{100 * share:.{digits}f} %"


def find_classes(files: RunFiles) -> Classes:
    """Return the classes from the data card, or from what else the run tells about them."""
    names = [str(name) for name in as_list(files.card.get("classes"))] or list(as_table(files.metrics.get("per_class")))
    count = max(len(names), len(as_list(files.metrics.get("confusion_matrix"))))
    names += [f"class {index}" for index in range(len(names), count)]
    colors = _colors(files.card.get("palette"))
    ignore = as_number(files.card.get("ignore_index"))
    outside = colors[count] if len(colors) > count else list(OUTSIDE_COLOR)
    if len(colors) < count:
        colors = _own_colors(names)
    return Classes(
        names=names,
        palette=colors[:count],
        outside=outside,
        ignore_index=None if ignore is None else int(ignore),
    )


def _own_colors(names: list[str]) -> list[list[int]]:
    """Return our palette, repeated where a data set has more classes than it has colours."""
    background = names[0].lower() in BACKGROUND_NAMES
    base = default_palette(min(len(names), MAX_CLASSES), background=background)
    return [base[index % len(base)] for index in range(len(names))]


def _colors(value: object) -> list[list[int]]:
    """Return the colours of a data card; none where any of them is not [r, g, b]."""
    colors = [[as_number(part) for part in as_list(entry)] for entry in as_list(value)]
    valid = all(len(color) == 3 and all(p is not None and 0 <= p <= 255 for p in color) for color in colors)
    return [[int(part or 0) for part in color] for color in colors] if valid else []


def headline(files: RunFiles) -> Headline:
    """Return model, data set, scores and the conditions they were measured under."""
    model = files.config.get("model")
    name = model if isinstance(model, str) else as_table(model).get("name", "unnamed model")
    notes = [files.problems["metrics.json"]] if "metrics.json" in files.problems else []
    protocol = _protocol(files.metrics)
    if files.metrics and not protocol:
        notes.append("metrics.json holds no protocol; without it the scores compare with nothing.")
    data = files.card.get("name") or "unnamed data set"
    scores = _scores(as_table(files.metrics.get("metrics")))
    return Headline(
        model=str(name),
        data=str(data),
        scores=scores,
        protocol=protocol,
        facts=_model_facts(files),
        notes=notes,
    )


def _scores(metrics: Table) -> list[Score]:
    """Return the scores that have a name in its order, then any others as they are called in the file."""
    order = [key for key in METRIC_NAMES if key in metrics] + [key for key in metrics if key not in METRIC_NAMES]
    scores = []
    for key in order:
        value = as_number(metrics[key])
        known = METRIC_NAMES.get(key)
        if known is not None:
            text = percent(value, 2) if known.in_percent else DASH if value is None else f"{value:.4f}"
            scores.append(Score(name=capitalised(known.name), text=text, hint=known.meaning))
        elif value is not None:
            scores.append(Score(name=humanize(key), text=f"{value:.4g}", hint=""))
    return scores


def capitalised(text: str) -> str:
    """Return a text that begins a line.

    >>> capitalised("mean IoU")
    'Mean IoU'
    """
    return text[:1].upper() + text[1:]


def _protocol(metrics: Table) -> list[Fact]:
    """Return split, number of images and every entry of the protocol, in words."""
    entries: dict[str, object] = {key: metrics[key] for key in ("split", "num_images") if key in metrics}
    entries |= as_table(metrics.get("protocol"))
    names = {key: METRIC_NAMES[key].name if key in METRIC_NAMES else humanize(key) for key in entries}
    facts = [Fact(name=names[key], text=as_words(value)) for key, value in entries.items()]
    per_image = [as_number(as_table(row).get("miou")) for row in as_list(metrics.get("per_image"))]
    known = [score for score in per_image if score is not None]
    if known:
        text = f"lowest {percent(min(known))}, median {percent(median(known))}, highest {percent(max(known))}"
        facts.append(Fact(name="mean IoU of single images", text=text))
    return facts


def _model_facts(files: RunFiles) -> list[Fact]:
    """Return the size of the model, how long it trained, and where."""
    facts = []
    parameters = as_number(files.metrics.get("parameters"))
    if parameters is not None:
        facts.append(Fact(name="parameters", text=f"{parameters:,.0f}"))
    end = training_end(files)
    if end is not None:
        facts.append(Fact(name="training", text=end.words))
    best = as_number(files.metrics.get("iteration"))
    if best is not None:
        facts.append(Fact(name="best model", text=f"of iteration {best:,.0f}: the one that is scored and kept"))
    for key in ("pixelwise", "commit", "device"):
        if key in files.environment:
            facts.append(Fact(name=key, text=as_words(files.environment[key])))
    return facts


def extra_columns(metrics: Table) -> list[str]:
    """Return the heads of the columns of scores that were asked for."""
    return [head for key, head in EXTRA_COLUMNS.items() if key in metrics]


def class_rows(metrics: Table, classes: Classes) -> list[ClassRow]:
    """Return the scores of each class; a class without a score says why in its note."""
    per_class = {name: as_table(row) for name, row in as_table(metrics.get("per_class")).items()}
    total = sum(as_number(row.get("truth_pixels")) or 0 for row in per_class.values())
    extra = [as_table(metrics[key]) for key in EXTRA_COLUMNS if key in metrics]
    return [
        _class_row(name, row, total, classes.color(name), [percent(as_number(column.get(name))) for column in extra])
        for name, row in per_class.items()
    ]


def _class_row(name: str, row: Table, total: float, color: str, more: list[str]) -> ClassRow:
    """Return one class's scores as text."""
    iou = as_number(row.get("iou"))
    truth = as_number(row.get("truth_pixels"))
    return ClassRow(
        name=name,
        color=color,
        iou=percent(iou),
        iou_share=None if iou is None else round(100 * iou, 1),
        accuracy=percent(as_number(row.get("accuracy"))),
        dice=percent(as_number(row.get("dice"))),
        truth_share=percent(None if truth is None or not total else truth / total, 2),
        more=more,
        note=str(row.get("note") or _note(truth, as_number(row.get("predicted_pixels")), iou)),
    )


def _note(truth: float | None, predicted: float | None, iou: float | None) -> str:
    """Say what is special about a class from its pixel counts."""
    if truth == 0:
        return "absent from the labels" + ("" if predicted else ", never predicted")
    if predicted == 0:
        return "never predicted"
    return "no score was recorded" if iou is None else ""
