"""State dicts of other PyTorch libraries become a model file of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pixelwise.backbones.state_file import StateFile, read_state_file
from pixelwise.data.normalise import Normalisation
from pixelwise.engine.import_card import CHANNELS, build_from_seed, color_options, imported_card
from pixelwise.engine.model_file import ModelCard, Option, build_twin, card_of, save_model
from pixelwise.errors import RequestError
from pixelwise.files import check_writable
from pixelwise.registry import model_info
from pixelwise.weights.catalogue import PUBLISHED
from pixelwise.weights.convert_state import StateConversion, convert_state, recognise
from pixelwise.weights.cut_down import cut_state
from pixelwise.weights.state_catalogue import state_formats
from pixelwise.weights.state_format import Images, Labels, StateFormat

ENDING = ".safetensors"
BYTE = (0.0, 255.0)


@dataclass(frozen=True, kw_only=True)
class StateImport:
    """What was imported.

    Attributes:
        output: the model file.
        form: whose names the file has.
        within: what surrounded the tensors in the file; empty where nothing did.
        labels: what the weights were trained on.
        conversion: what became of each tensor.
        cut: what was kept of the layers that were cut down, a sentence each; see `weights.cut_down`.
        card: of the model file.
        parameters: numbers taken from the file.
    """

    output: Path
    form: StateFormat
    within: str
    labels: Labels
    conversion: StateConversion
    cut: list[str]
    card: ModelCard
    parameters: int

    def notes(self) -> list[str]:
        """Say what was found around the tensors, what was not there, and what was cut down."""
        notes = [f"opened: {self.within}"] if self.within else []
        if self.conversion.counters:
            notes.append(
                f"{self.conversion.counters} batch counters of normalisations, which the file lacks, start at 0; "
                "nothing depends on them"
            )
        return notes + [f"cut down: {note}" for note in self.cut]


def import_state(
    name: str,
    file: Path,
    *,
    out: Path,
    num_classes: int | None = None,
    trunk: bool = False,
    options: Mapping[str, Option] | None = None,
    seed: int = 0,
) -> StateImport:
    """Read a `.pth` or `.safetensors` file of another library into a model and write the model file.

    Args:
        name: public name of the model.
        file: the published weights; pickles are read with `weights_only=True`.
        out: the `.safetensors` file to write.
        num_classes: K; None counts the rows of the file's score layer.
        trunk: the file is an ImageNet classifier; the rest of the model keeps its initialisation.
        options: of the model; they beat those that the form of the file asks for.
        seed: of the initialisation and of the filters that are drawn, for a start from a classifier.

    Raises:
        RequestError: if no form of the model's weights has the file's names, the file cannot be read or is not whole,
            or the number of classes is missing or contradicted.
    """
    if out.suffix != ENDING:
        raise RequestError(f"--out {out} is not a model file; accepted: a name that ends in {ENDING}. Change the name.")
    name = model_info(name).name
    if file.suffix == ENDING and (own := card_of(file)) is not None:
        raise RequestError(
            f"{file} is a model file of pixelwise already ({own.model}); accepted: another library's weights. Give it "
            "to `train --weights`, `evaluate` or `predict` as it is."
        )
    formats = state_formats(name)
    check_writable(out.parent)
    state = read_state_file(file)
    form = recognise(state, formats, name=name, trunk=trunk)
    classes = _num_classes(state, form, num_classes)
    labels = form.labels.get(classes) or Labels(
        name="ImageNet" if trunk else "unknown", ignore_index=None, images=form.images
    )
    normalisation = normalisation_of(labels.images)
    wanted: dict[str, Option] = {**form.options, **color_options(name, normalisation), **(options or {})}
    keywords = {"num_classes": classes, "in_channels": CHANNELS}
    model = (
        build_from_seed(seed, name, options=wanted, **keywords)
        if trunk
        else build_twin(name, options=wanted, **keywords)
    )
    conversion = convert_state(state, model, form, name=name)
    published = PUBLISHED.get(name) if trunk else None
    cut = cut_state(state, form, conversion, published.cut if published else (), model.state_dict(), seed=seed)
    model.load_state_dict(conversion.tensors, assign=True)
    card = imported_card(
        name,
        model,
        num_classes=classes,
        classes=labels.classes,
        palette=labels.palette,
        ignore_index=labels.ignore_index,
        normalisation=normalisation,
        licence=form.licence,
        origin="; ".join([f"{file.name} ({form.source})", *cut.notes]),
        options=wanted,
    )
    save_model(out, model, card)
    return StateImport(
        output=out,
        form=form,
        within=state.within,
        labels=labels,
        conversion=conversion,
        cut=cut.notes,
        card=card,
        parameters=sum(conversion.tensors[taken.ours].numel() for taken in conversion.taken),
    )


def normalisation_of(images: Images) -> Normalisation:
    """Return how images of bytes become the network's input."""
    return Normalisation(intensity_range=BYTE, mean=images.mean, std=images.std)


def _num_classes(state: StateFile, form: StateFormat, asked: int | None) -> int:
    if form.trunk:
        if asked is None:
            raise RequestError(
                "--trunk says nothing of the number of classes; accepted: --num-classes K. Count the classes of your "
                "data, background included."
            )
        return asked
    found = int(state.tensors[form.score].shape[0])
    if asked not in (None, found):
        raise RequestError(
            f"--num-classes is {asked}, but {form.score!r} of {state.path} has {found} rows; accepted: {found}. Leave "
            "--num-classes out; `train --weights` says how to change the classes."
        )
    return found
