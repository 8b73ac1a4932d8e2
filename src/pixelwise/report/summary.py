"""The first half minute: how good a model is, where it fails and what to do, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from pixelwise.data.card import DataCard
from pixelwise.report.borders import MOST, Borders
from pixelwise.report.calibration import Reliability
from pixelwise.report.card_tables import amount
from pixelwise.report.confusions import Confusion
from pixelwise.report.progress import training_end
from pixelwise.report.run_files import RunFiles, Table, as_list, as_number, as_numbers, as_table
from pixelwise.report.tables import percent

FEW_IMAGES = 10  # below, another choice of images may well give another score
NAMED = 3  # classes in a sentence
WEAK = 0.5  # of the mean IoU: a class below it is weak
RARE_PIXELS = 0.02  # share of the training pixels below which a class has few
RARE_IMAGES = 0.5  # share of the training images below which such a class is rare; else it is small
RISING = 0.01  # gain of mean IoU over the last third of the validations
OVERFITTED = 1.2  # validation loss at the end over the lowest one
MUCH = 0.25  # share of the wrong pixels that one confusion makes
UNSURE = 0.05  # calibration error from which on probabilities mislead
MOST_ADVICE = 4


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence, and the section that shows more ("" for none)."""

    text: str
    section: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The three answers."""

    good: list[Sentence]
    fails: list[Sentence]
    advice: list[Sentence]


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """What the sentences need of a class that has an IoU."""

    name: str
    iou: float
    truth: float
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the answers follow from."""

    files: RunFiles
    card: DataCard | None
    confusions: Sequence[Confusion]
    borders: Borders | None
    reliability: Reliability | None

    @property
    def metrics(self) -> Table:
        """The contents of metrics.json."""
        return self.files.metrics

    @property
    def miou(self) -> float:
        """Mean IoU, 0 where there is none."""
        return as_number(as_table(self.metrics.get("metrics")).get("miou")) or 0.0

    @cached_property
    def classes(self) -> list[ClassScore]:
        """The classes that have an IoU, lowest first."""
        found = []
        for name, row in as_table(self.metrics.get("per_class")).items():
            numbers = as_numbers(as_table(row), "iou", "truth_pixels")
            if numbers is not None:
                accuracy = as_number(as_table(row).get("accuracy"))
                found.append(ClassScore(name=name, iou=numbers[0], truth=numbers[1], accuracy=accuracy))
        return sorted(found, key=lambda one: one.iou)

    @property
    def missed(self) -> list[str]:
        """The classes of which no pixel is found."""
        return [one.name for one in self.classes if one.truth and not one.accuracy]

    @cached_property
    def images(self) -> list[tuple[float, str]]:
        """(mean IoU, name) of each image, worst first."""
        rows = [as_table(row) for row in as_list(self.metrics.get("per_image"))]
        scored = [(as_number(row.get("miou")), str(row.get("name"))) for row in rows]
        return sorted((score, name) for score, name in scored if score is not None)

    @property
    def usual(self) -> float:
        """The mean IoU that half of the images reach."""
        return median(score for score, _ in self.images)

    @property
    def always(self) -> tuple[str, float]:
        """The most frequent class, and the accuracy of calling all pixels so."""
        most = max(self.classes, key=lambda one: one.truth)
        return most.name, most.truth / max(1, sum(one.truth for one in self.classes))

    @property
    def accuracy(self) -> float:
        """Pixel accuracy, 0 where there is none."""
        return as_number(as_table(self.metrics.get("metrics")).get("pixel_accuracy")) or 0.0

    @property
    def untrained(self) -> bool:
        """Whether the model is no better than one answer for all pixels."""
        return self.accuracy <= self.always[1]

    @cached_property
    def training_shares(self) -> dict[str, float]:
        """The share of the training pixels that each class holds; empty where that is not known."""
        counts = {} if self.card is None else self.card.pixel_counts.get("train", {})
        total = sum(count for name, count in counts.items() if self.card and name in self.card.classes)
        return {name: count / total for name, count in counts.items()} if total else {}

    @cached_property
    def few_pixels(self) -> list[str]:
        """The weak classes of few training pixels, weakest first."""
        weak = [one.name for one in self.classes if one.truth and one.iou < WEAK * self.miou]
        return [name for name in weak if self.training_shares.get(name, 1) < RARE_PIXELS]

    @property
    def rare(self) -> list[str]:
        """Those of them that few training images hold."""
        held = {} if self.card is None else self.card.images_per_class.get("train", {})
        most = 0.0 if self.card is None else RARE_IMAGES * self.card.num_images.get("train", 0)
        return [name for name in self.few_pixels if name in held and held[name] < most]

    @property
    def small(self) -> list[str]:
        """The others, which many images hold, and which are small there."""
        return [name for name in self.few_pixels if name not in self.rare]

    @cached_property
    def validations(self) -> list[tuple[float, float, float]]:
        """(iteration, loss, mean IoU) of each validation."""
        events = [as_numbers(event, "iteration", "loss", "miou") for event in self.files.validation]
        return [(event[0], event[1], event[2]) for event in events if event is not None]


def summarise(known: Known) -> Summary | None:
    """Return the answers; None where there are no scores of classes."""
    if not known.classes or as_numbers(as_table(known.metrics.get("metrics")), "miou", "pixel_accuracy") is None:
        return None
    rules = FIRST_RULES if known.untrained else FIRST_RULES + OTHER_RULES
    advice = [sentence for rule in rules if (sentence := rule(known)) is not None][:MOST_ADVICE]
    nothing = "Nothing stands out. See whether the worst images are wrong in their labels."
    return Summary(good=_good(known), fails=_fails(known), advice=advice or [Sentence(text=nothing, section="images")])


def _good(known: Known) -> list[Sentence]:
    found = [_accuracy(known)]
    shown = known.classes[::-1] if len(known.classes) <= NAMED else known.classes[: -NAMED - 1 : -1]
    best = "" if len(known.classes) <= NAMED else " best"
    over = amount(len(known.classes), "class")
    text = f"Mean IoU over {over}: {percent(known.miou)};{best} {_with_iou(shown)}."
    found.append(Sentence(text=text, section="classes"))
    end = training_end(known.files)
    if end is not None and end.early:
        found.append(Sentence(text=f"Training {end.words}.", section="curves"))
    return found


def _accuracy(known: Known) -> Sentence:
    """Compare the pixel accuracy with that of one answer for all pixels."""
    images = as_number(known.metrics.get("num_images")) or 0
    name, always = known.always
    right = f"{percent(known.accuracy)} of the pixels of {amount(int(images), 'validation image')} get the right class"
    return Sentence(text=f"{right}; calling all of them “{name}” would reach {percent(always)}.")


def _with_iou(classes: Sequence[ClassScore]) -> str:
    return ", ".join(f"{one.name} {percent(one.iou, 0)}" for one in classes)


def _names(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _fails(known: Known) -> list[Sentence]:
    found = []
    if known.missed:
        found.append(Sentence(text=f"Never found: {_names(known.missed)}.", section="classes"))
    others = [one for one in known.classes if one.truth and one.accuracy]
    if len(known.classes) > NAMED and len(known.missed) < NAMED and others:
        found.append(Sentence(text=f"Lowest IoU: {_with_iou(others[:NAMED])}.", section="classes"))
    if known.confusions:
        first = known.confusions[0]
        text = (
            f"Largest confusion: {first.truth} taken for {first.prediction}, {percent(first.of_wrong, 0)} of all wrong "
            f"pixels and {first.share} of all {first.truth}."
        )
        found.append(Sentence(text=text, section="confusion"))
    if known.borders is not None:
        found.append(Sentence(text=known.borders.sentence, section="borders"))
    if len(known.images) > 1:
        lowest, name = known.images[0]
        text = (
            f"Worst image: {name}, mean IoU {percent(lowest, 0)}; half of the images reach {percent(known.usual, 0)}."
        )
        found.append(Sentence(text=text, section="images"))
    return found


def _unfinished(known: Known) -> Sentence | None:
    end = training_end(known.files)
    if end is None or end.complete:
        return None
    return Sentence(text=f"Training stands {end.words}. Go on with --resume.", section="curves")


def _warned(known: Known) -> Sentence | None:
    if known.card is None or not known.card.warnings:
        return None
    return Sentence(text=f"Look at the {amount(known.card.warnings, 'warning')} about the data.", section="data")


def _hardly_trained(known: Known) -> Sentence | None:
    if not known.untrained:
        return None
    epochs = [epoch for event in known.files.training if (epoch := as_number(event.get("epoch"))) is not None]
    after = f", after {max(epochs):.2g} passes over the training images" if epochs else ""
    text = f"Train much longer: it is no better than calling all pixels “{known.always[0]}”{after}."
    return Sentence(text=text, section="curves")


def _outlier(known: Known) -> Sentence | None:
    if len(known.images) < 2 or known.images[0][0] >= WEAK * known.usual:
        return None
    failing = [name for score, name in known.images if score < WEAK * known.usual]
    text = (
        f"Add training images of the kind of {_names(failing)}: mean IoU is less than half the usual "
        f"{percent(known.usual, 0)} there."
    )
    return Sentence(text=text, section="images")


def _rising(known: Known) -> Sentence | None:
    validations = known.validations
    since = max(2, len(validations) // 3)
    if len(validations) < 2 or validations[-1][2] < max(score for *_, score in validations):
        return None
    gain = validations[-1][2] - validations[-since][2]
    if gain < RISING:
        return None
    text = (
        f"Train longer: mean IoU was still rising, by {100 * gain:.1f} points since iteration "
        f"{validations[-since][0]:,.0f}."
    )
    return Sentence(text=text, section="curves")


def _overfitted(known: Known) -> Sentence | None:
    if not known.validations:
        return None
    iteration, lowest, _ = min(known.validations, key=lambda one: one[1])
    last = known.validations[-1][1]
    if last < OVERFITTED * lowest:
        return None
    text = (
        f"The validation loss rose from {lowest:.3g} at iteration {iteration:,.0f} to {last:.3g}: the model learns the "
        "training images by heart. More of them help most; --set early_stop=3 ends such a run in time."
    )
    return Sentence(text=text, section="curves")


def _rare(known: Known) -> Sentence | None:
    if not known.rare:
        return None
    shares = [f"{name} ({percent(known.training_shares[name], 2)} of the training pixels)" for name in known.rare]
    return Sentence(text=f"Add training images that show what is rare and weak: {_names(shares)}.", section="data")


def _confused(known: Known) -> Sentence | None:
    first = next(iter(known.confusions), None)
    if first is None or first.of_wrong < MUCH or len(known.classes) < 3:
        return None
    text = f"See whether the labels tell {first.truth} from {first.prediction} in all images as you would."
    return Sentence(text=text, section="confusion")


def _coarse(known: Known) -> Sentence | None:
    """Advise a finer scale where that is what outlines and small things lack."""
    scale = as_number(as_table(known.metrics.get("protocol")).get("scale"))
    if scale is None or scale >= 1:
        return None
    outlines = known.borders is not None and (known.borders.near_wrong or 0) > 1 - MOST
    wanted = ["finer outlines"] if outlines else []
    wanted += [f"small classes ({_names(known.small)})"] if known.small else []
    if not wanted:
        return None
    seen = f"the model saw the images at {scale:g} of their size"
    text = f"For {' and '.join(wanted)} give more time, or --set data.scale=1: {seen}."
    return Sentence(text=text, section="borders")


def _uncalibrated(known: Known) -> Sentence | None:
    found = known.reliability
    if found is None or found.ece < UNSURE:
        return None
    return Sentence(
        text=f"Mind its probabilities: {found.meaning[0].lower()}{found.meaning[1:]}", section="calibration"
    )


def _few(known: Known) -> Sentence | None:
    images = as_number(known.metrics.get("num_images"))
    if images is None or images >= FEW_IMAGES:
        return None
    text = f"Validate on more images: with {images:,.0f}, another choice may well give another score."
    return Sentence(text=text, section="images")


Rule = Callable[[Known], Sentence | None]
FIRST_RULES: tuple[Rule, ...] = (_unfinished, _warned, _hardly_trained)
OTHER_RULES: tuple[Rule, ...] = (
    _rising,
    _overfitted,
    _outlier,
    _rare,
    _confused,
    _coarse,
    _few,
    _uncalibrated,
)
