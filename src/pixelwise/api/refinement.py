"""A refined label map: from an image and its probabilities to a file of class indices."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from pixelwise.crf.dense import CRFParameters
from pixelwise.crf.refiner import DenseRefiner, Refiner, labels_of, refiner_of
from pixelwise.data.dataset_file import read_dataset_file
from pixelwise.data.images import read_image
from pixelwise.data.pictures import default_palette, to_display
from pixelwise.engine.model_file import card_of, model_file
from pixelwise.engine.predict import label_png
from pixelwise.engine.probability_maps import enlarged_text, read_probabilities
from pixelwise.errors import RequestError, closest
from pixelwise.files import check_writable, npy, write_atomically

Palette = tuple[tuple[int, int, int], ...]
DEFAULT = "pydensecrf_default"


@dataclass(frozen=True, kw_only=True)
class RefinedFile:
    """What a refinement wrote.

    Attributes:
        outputs: the mask, and the probabilities where they were asked for.
        num_classes: K.
        changed: share of the pixels whose class is another one now.
        protocol: what refined them, and how.
        seconds: wall-clock time.
    """

    outputs: tuple[Path, ...]
    num_classes: int
    changed: float
    protocol: Mapping[str, str]
    seconds: float


def refine(
    image: str | Path,
    probabilities: str | Path,
    *,
    out: str | Path,
    crf: str | Path | None = None,
    parameters: Mapping[str, float | int | str] | None = None,
    resize: bool = False,
    palette: str | Path | None = None,
    out_probabilities: str | Path | None = None,
) -> RefinedFile:
    """Refine an image's probabilities and write the label map, an index PNG with a palette, at the image's size.

    Args:
        image: file; grey, deep and many-channel images are refined as a viewer shows them, see `to_display`.
        probabilities: .npy or .npz file; see `read_probabilities`.
        out: .png file for the label map.
        crf: what refines them, see `refiner_of`; None takes "pydensecrf_default".
        parameters: of the dense CRF, by the names of `CRFParameters`; they beat those of `crf`.
        resize: enlarge smaller probabilities bilinearly.
        palette: run folder, model file or dataset folder whose colours the label map gets; None takes distinct ones.
        out_probabilities: .npy file for the refined probabilities, float16 (K, H, W).

    Raises:
        RequestError: if an input is unreadable or does not fit, or an output would take the place of an input.
        WorkError: if results cannot be written.
    """
    started = time.perf_counter()
    outputs = _check_outputs([Path(image), Path(probabilities)], Path(out), out_probabilities)
    refiner = _with_parameters(refiner_of(DEFAULT if crf is None else crf), parameters or {})
    picture = to_display(read_image(Path(image)))
    size = (picture.shape[0], picture.shape[1])
    given, stored_size = read_probabilities(Path(probabilities), size, resize=resize)
    colours = _palette(palette, len(given))
    for place in outputs:
        check_writable(place.parent)
    before = labels_of(given)
    refined = refiner.refine(picture, given)
    if out_probabilities is not None:
        write_atomically(outputs[1], npy(refined.probabilities.astype(np.float16)))
    write_atomically(outputs[0], label_png(refined.labels, colours))
    return RefinedFile(
        outputs=outputs,
        num_classes=len(given),
        changed=float((refined.labels != before).mean()),
        protocol=refiner.protocol() | enlarged_text(stored_size, size),
        seconds=round(time.perf_counter() - started, 3),
    )


def _check_outputs(inputs: list[Path], out: Path, probabilities: str | Path | None) -> tuple[Path, ...]:
    """Return the files to write; none may be a folder, take the place of an input, or have an ending that lies."""
    outputs = [(out, ".png", "--out")]
    if probabilities is not None:
        outputs.append((Path(probabilities), ".npy", "--probabilities"))
    for place, ending, option in outputs:
        if place.suffix.lower() != ending or place.is_dir():
            raise RequestError(f"{option} {place}: accepted: a file name with the ending {ending}. Choose such a name.")
        for given in inputs:
            if place.resolve() == given.resolve():
                raise RequestError(
                    f"{option} {place} would overwrite the input {given}; accepted: another file. Choose another name."
                )
    return tuple(place for place, _, _ in outputs)


def _with_parameters(refiner: Refiner, given: Mapping[str, float | int | str]) -> Refiner:
    """Return a refiner with some parameters of its own."""
    if not given:
        return refiner
    if not isinstance(refiner, DenseRefiner):
        raise RequestError(
            f"{', '.join(given)}: no effect on {refiner.protocol()['crf']}; accepted: with the presets of the dense "
            "CRF. Leave them out."
        )
    known = [field.name for field in fields(CRFParameters)]
    for name in given:
        if name not in known:
            raise RequestError(
                f"unknown parameter {name!r} of the dense CRF; closest: {closest(name, known)}. Accepted: "
                f"{', '.join(known)}. Correct the name."
            )
    changed: CRFParameters = replace(refiner.parameters, **given)  # type: ignore[arg-type]
    return DenseRefiner(parameters=changed, name=f"{refiner.name} with {', '.join(given)} given")


def _palette(source: str | Path | None, num_classes: int) -> Palette:
    """Return a colour for each class: of a run, a model file or a data set, or distinct ones."""
    if source is None:
        colours = default_palette(num_classes) if num_classes <= 255 else [[0, 0, 0]] * num_classes
        return tuple((red, green, blue) for red, green, blue in colours)
    path = Path(source)
    file = read_dataset_file(path / "dataset.json") if path.is_dir() else None
    if file is None:
        card = card_of(model_file(path))
        if card is None:
            raise RequestError(
                f"--palette {source} is no model of pixelwise; accepted: a run folder, a model file, or a folder with "
                "dataset.json. Give one, or leave it out."
            )
        classes, found = card.classes, card.palette
    else:
        classes, found = file.classes, file.palette or ()
    if len(classes) != num_classes:
        raise RequestError(
            f"--palette {source} has {len(classes)} classes, the probabilities have {num_classes}; accepted: colours "
            "of the same classes. Give their own run or data set, or leave it out."
        )
    return tuple(found[:num_classes]) or _palette(None, num_classes)
