"""`pixelwise import-weights`: published weights become a model file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pixelwise.cli.output import json_option, print_json, table

if TYPE_CHECKING:
    from pixelwise.engine.import_state import StateImport
    from pixelwise.engine.import_weights import Import


@click.command("import-weights", short_help="Turn published weights into a model file.")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model file to write (.safetensors).")
@click.option("--num-classes", type=int, help="Classes K.  [default: as many as the file's score layer has]")
@click.option("--trunk", is_flag=True, help="FILE is an ImageNet classifier; the rest keeps its initialisation.")
@click.option("--folded", is_flag=True, help="Batch normalisation is folded, though the file does not say so.")
@click.option("--mean", metavar="B,G,R|FILE", help="Mean of the training images.  [default: the published one]")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="An option of the model.")
@click.option("--seed", type=int, default=0, show_default=True, help="With --trunk: of what is drawn.")
@json_option
def command(
    name: str,
    file: Path,
    out: Path,
    num_classes: int | None,
    trunk: bool,
    folded: bool,
    mean: str | None,
    settings: tuple[str, ...],
    seed: int,
    as_json: bool,
) -> None:
    """Read published weights from FILE into the model NAME and write a model file.

    FILE is a .caffemodel of the original authors, or a .pth or .safetensors file of torchvision, semseg, drn,
    mmsegmentation or segmentation_models.pytorch, where their network is ours. Every tensor of the model is filled
    and everything in the file is used, or left out with a reason that is listed; else nothing is written. What the
    weights expect of images goes into the model file; Caffe's first convolution is turned from B, G, R to R, G, B.
    With --trunk, DeepLab's smaller fc6 and fc7 are cut out of VGG-16's: which taps and filters stay is listed.
    """
    from pixelwise.backbones.state_file import is_state_file
    from pixelwise.engine.describe import read_options
    from pixelwise.engine.import_weights import import_weights

    if is_state_file(file):
        _refuse_caffe_options(folded=folded, mean=mean)
        _import_state(name, file, out, num_classes, trunk, read_options(settings), seed, as_json)
        return
    done = import_weights(
        name,
        file,
        out=out,
        num_classes=num_classes,
        trunk=trunk,
        folded=folded,
        mean=mean,
        options=read_options(settings),
        seed=seed,
    )
    if as_json:
        print_json(_json(done))
    else:
        click.echo(_text(done))


def _refuse_caffe_options(*, folded: bool, mean: str | None) -> None:
    from pixelwise.errors import RequestError

    for given, option in ((folded, "--folded"), (mean is not None, "--mean")):
        if given:
            raise RequestError(
                f"{option} has no effect on a PyTorch file; accepted for a .caffemodel. Leave {option} out."
            )


def _import_state(
    name: str,
    file: Path,
    out: Path,
    num_classes: int | None,
    trunk: bool,
    options: dict[str, Any],
    seed: int,
    as_json: bool,
) -> None:
    from pixelwise.engine.import_state import import_state

    done = import_state(name, file, out=out, num_classes=num_classes, trunk=trunk, options=options, seed=seed)
    if as_json:
        print_json(_state_json(done))
    else:
        click.echo(_state_text(done))


def _state_json(done: StateImport) -> dict[str, Any]:
    normalisation = done.card.normalisation
    return {
        "output": str(done.output),
        "model": done.card.model,
        "options": done.card.options,
        "source": done.form.source,
        "trained_on": done.labels.name,
        "classes": list(done.card.classes),
        "mean": list(normalisation.mean),
        "std": list(normalisation.std),
        "parameters": done.parameters,
        "used": [
            {"name": use.theirs, "goes_to": use.ours, "shape": list(use.shape), "note": use.note}
            for use in done.conversion.taken
        ],
        "left_out": [{"name": name, "reason": why} for name, why in done.conversion.left_out.items()],
        "own_initialisation": list(done.conversion.own),
        "notes": done.notes(),
    }


def _state_text(done: StateImport) -> str:
    rows = [("tensor", "shape", "goes to", "")]
    rows += [
        (use.theirs, " x ".join(map(str, use.shape)), use.ours, use.note) for use in done.conversion.taken if use.shape
    ]
    notes = [f"left out: {name}: {why}" for name, why in done.conversion.left_out.items()]
    if done.conversion.own:
        notes.append(f"own initialisation: {_some(done.conversion.own)}")
    options = ", ".join(f"{key}={value}" for key, value in done.card.options.items())
    mean, std = (
        ", ".join(f"{value:g}" for value in each) for each in (done.labels.images.mean, done.labels.images.std)
    )
    facts = [
        ("source", done.form.source),
        ("model", f"{done.card.model}, {len(done.card.classes)} classes ({done.labels.name})"),
        *([("options", options)] if options else []),
        ("images", f"R, G, B of 0..1, less {mean}, divided by {std}"),
        ("used", f"{len(done.conversion.taken)} tensors, {done.parameters:,} numbers"),
        ("model file", str(done.output)),
    ]
    return "\n".join([table(rows), "", *notes, *done.notes(), *(f"{key:12}{value}" for key, value in facts)])


def _json(done: Import) -> dict[str, Any]:
    return {
        "output": str(done.output),
        "model": done.card.model,
        "source": done.source,
        "trained_on": done.trained_on.name,
        "classes": list(done.card.classes),
        "mean_bgr": list(done.mean),
        "parameters": done.parameters,
        "used": [
            {"layer": use.layer, "type": use.type, "module": use.module, "shape": list(use.shape), "note": use.note}
            for use in done.conversion.used
        ],
        "left_out": [{"layer": layer, "reason": why} for layer, why in done.conversion.left_out.items()],
        "identities": done.conversion.identities,
        "cut_down": done.cut,
        "own_initialisation": list(done.conversion.own),
    }


def _text(done: Import) -> str:
    rows = [("layer", "type", "weights", "goes to", "")]
    for use in done.conversion.used:
        rows.append((use.layer, use.type, " x ".join(map(str, use.shape)), use.module, use.note))
    notes = [f"left out: {layer}: {why}" for layer, why in done.conversion.left_out.items()]
    notes += [f"cut down: {note}" for note in done.cut]
    if done.conversion.identities:
        notes.append(f"absorbed into the convolutions, so the identity: {_some(done.conversion.identities)}")
    if done.conversion.own:
        notes.append(f"own initialisation: {_some(done.conversion.own)}")
    facts = [
        ("model", f"{done.card.model}, {len(done.card.classes)} classes ({done.trained_on.name})"),
        ("mean", f"{', '.join(map(str, done.mean))} (B, G, R of 0..255), no division"),
        ("used", f"{len(done.conversion.used)} layers, {done.parameters:,} numbers"),
        ("model file", str(done.output)),
    ]
    return "\n".join([table(rows), "", *notes, *(f"{key:12}{value}" for key, value in facts)])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")
