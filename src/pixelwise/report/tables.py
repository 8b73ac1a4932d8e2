"""The numbers of a run as rows for the template: headline, classes, confusion matrix, data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pixelwise.data.pictures import MAX_CLASSES, OUTSIDE_COLOR, default_palette
from pixelwise.report.run_files import RunFiles, Table, as_list, as_number, as_table, as_words, humanize

DASH = "–"
BACKGROUND_NAMES = ("background", "_background_", "bg", "__background__")
# With more classes the cells of the confusion matrix are too small for numbers.
MAX_NUMBERED_CLASSES = 20
SMALLEST_CELL = 0.005
SCORES = {
    "miou": ("Mean IoU", "intersection over union, mean over the classes"),
    "pixel_accuracy": ("Pixel accuracy", "share of pixels with the right class"),
    "mean_accuracy": ("Mean class accuracy", "share of each class's pixels found, mean over the classes"),
    "fwiou": ("Frequency-weighted IoU", "IoU weighted by how common each class is"),
}


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
    """One class in the table of scores; `iou_share` is the length of its bar, 0 to 100."""

    name: str
    color: str
    iou: str
    iou_share: float | None
    accuracy: str
    dice: str
    truth_share: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the confusion matrix: `share` of the true class's pixels, 0 to 1."""

    column: int
    share: float
    text: str
    title: str


@dataclass(frozen=True, kw_only=True)
class MatrixRow:
    """The cells of one true class; none where the class has no pixels."""

    name: str
    index: int
    total: str
    cells: list[Cell]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """One of the most frequent mistakes."""

    truth: str
    prediction: str
    share: str
    pixels: str


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """The confusion matrix, each row divided by its sum."""

    names: list[str]
    rows: list[MatrixRow]
    numbered: bool
    worst: list[Confusion]


@dataclass(frozen=True, kw_only=True)
class Frequency:
    """How common one class is in each split."""

    name: str
    color: str
    shares: list[str]
    lengths: list[float]


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """What the data card says."""

    facts: list[Fact]
    splits: list[str]
    frequencies: list[Frequency]
    notes: list[str]


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


def find_classes(files: RunFiles, highest_label: int = -1) -> Classes:
    """Return the classes from the data card, or from what else the run tells about them.

    Args:
        files: The run.
        highest_label: The highest class index in the example pictures; -1 without pictures.
    """
    names = [str(name) for name in as_list(files.card.get("classes"))] or list(as_table(files.metrics.get("per_class")))
    count = max(len(names), len(as_list(files.metrics.get("confusion_matrix"))), highest_label + 1)
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
    """Return the known scores first, then any others under their own names."""
    order = [key for key in SCORES if key in metrics] + [key for key in metrics if key not in SCORES]
    scores = []
    for key in order:
        value = as_number(metrics[key])
        if key in SCORES:
            scores.append(Score(name=SCORES[key][0], text=percent(value, 2), hint=SCORES[key][1]))
        elif value is not None:
            scores.append(Score(name=humanize(key), text=f"{value:.4g}", hint=""))
    return scores


def _protocol(metrics: Table) -> list[Fact]:
    """Return split, number of images and every entry of the protocol, in words."""
    entries: dict[str, object] = {key: metrics[key] for key in ("split", "num_images", "iteration") if key in metrics}
    entries |= as_table(metrics.get("protocol"))
    facts = [Fact(name=humanize(key), text=as_words(value)) for key, value in entries.items()]
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
    if files.training:
        facts.append(Fact(name="iterations", text=as_words(files.training[-1].get("iteration"))))
    for key in ("pixelwise", "commit", "device"):
        if key in files.environment:
            facts.append(Fact(name=key, text=as_words(files.environment[key])))
    return facts


def class_rows(metrics: Table, classes: Classes) -> list[ClassRow]:
    """Return the scores of each class; a class without a score says why in its note."""
    per_class = {name: as_table(row) for name, row in as_table(metrics.get("per_class")).items()}
    total = sum(as_number(row.get("truth_pixels")) or 0 for row in per_class.values())
    return [_class_row(name, row, total, classes.color(name)) for name, row in per_class.items()]


def _class_row(name: str, row: Table, total: float, color: str) -> ClassRow:
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
        note=str(row.get("note") or _note(truth, as_number(row.get("predicted_pixels")), iou)),
    )


def _note(truth: float | None, predicted: float | None, iou: float | None) -> str:
    """Say what is special about a class from its pixel counts."""
    if truth == 0:
        return "absent from the labels" + ("" if predicted else ", never predicted")
    if predicted == 0:
        return "never predicted"
    return "no score was recorded" if iou is None else ""


def confusion_matrix(metrics: Table, classes: Classes) -> Matrix | None:
    """Return the confusion matrix (rows: truth, columns: prediction); None where there is no square one."""
    counts = [[as_number(value) or 0.0 for value in as_list(row)] for row in as_list(metrics.get("confusion_matrix"))]
    if not counts or any(len(row) != len(counts) for row in counts):
        return None
    names = classes.names[: len(counts)]
    numbered = len(names) <= MAX_NUMBERED_CLASSES
    return Matrix(
        names=names,
        rows=[_matrix_row(index, counts[index], names, numbered=numbered) for index in range(len(names))],
        numbered=numbered,
        worst=_worst_confusions(counts, names),
    )


def _matrix_row(index: int, counts: list[float], names: list[str], *, numbered: bool) -> MatrixRow:
    """Return the cells of one true class; without numbers only those that one can see."""
    total = sum(counts)
    cells = []
    for column, pixels in enumerate(counts if total else []):
        share = pixels / total
        if numbered or share >= SMALLEST_CELL:
            title = f"{names[index]} → {names[column]}: {percent(share)} ({pixels:,.0f} pixels)"
            text = f"{100 * share:.0f}" if share >= SMALLEST_CELL else ("·" if pixels else "")
            cells.append(Cell(column=column, share=round(share, 3), text=text, title=title))
    return MatrixRow(name=names[index], index=index, total=f"{total:,.0f}", cells=cells)


def _worst_confusions(counts: list[list[float]], names: list[str], limit: int = 10) -> list[Confusion]:
    """Return the confusions that take the largest shares of their true classes."""
    found = []
    for truth, row in enumerate(counts):
        total = sum(row)
        found += [(n / total, n, truth, other) for other, n in enumerate(row) if n and other != truth]
    found.sort(key=lambda item: (-item[0], -item[1], item[2], item[3]))
    return [
        Confusion(truth=names[truth], prediction=names[other], share=percent(share), pixels=f"{pixels:,.0f}")
        for share, pixels, truth, other in found[:limit]
    ]


def data_summary(files: RunFiles, classes: Classes) -> DataSummary:
    """Return what the data card says about the data set."""
    card = files.card
    notes = [files.problems["data_card.json"]] if "data_card.json" in files.problems else []
    counts = {split: as_table(value) for split, value in as_table(card.get("pixel_counts")).items()}
    if card and not counts:
        notes.append("data_card.json holds no pixel counts, so the class frequencies are not known.")
    return DataSummary(
        facts=_data_facts(card, classes),
        splits=list(counts),
        frequencies=_frequencies(counts, classes),
        notes=notes,
    )


def _data_facts(card: Table, classes: Classes) -> list[Fact]:
    """Return the entries of the data card that are no long lists."""
    encoding = as_table(card.get("mask_encoding"))
    card = {**card, "mask_encoding": encoding.get("words", card.get("mask_encoding"))}
    facts = [
        Fact(name=humanize(key), text=as_words(card[key]))
        for key in ("name", "layout", "mask_encoding", "num_images", "channels", "ignore_index", "licence")
        if key in card
    ]
    sizes = [[as_number(part) for part in as_list(entry)] for entry in as_list(card.get("image_sizes"))]
    known = sorted((s for s in sizes if len(s) == 3 and None not in s), key=lambda size: -(size[2] or 0))
    if known:
        shown = ", ".join(f"{h:.0f} × {w:.0f} ({n:,.0f})" for h, w, n in known[:5])
        more = f" and {len(known) - 5} more" if len(known) > 5 else ""
        facts.append(Fact(name="image sizes, height × width (images)", text=shown + more))
    return [Fact(name="classes", text=str(len(classes.names))), *facts] if facts else []


def _frequencies(counts: Mapping[str, Table], classes: Classes) -> list[Frequency]:
    """Return each class's share of the labelled pixels; other counted names (such as void) come last."""
    names = classes.names + sorted({name for split in counts.values() for name in split} - set(classes.names))
    totals = {split: sum(as_number(value) or 0 for value in row.values()) for split, row in counts.items()}
    rows = []
    for name in names:
        pixels = {split: as_number(row.get(name)) for split, row in counts.items()}
        shares = [None if n is None or not totals[s] else n / totals[s] for s, n in pixels.items()]
        rows.append(
            Frequency(
                name=name,
                color=classes.color(name),
                shares=["none" if share == 0 else percent(share, 2) for share in shares],
                lengths=[round(100 * (share or 0), 2) for share in shares],
            )
        )
    return rows
