"""`pixelwise look`: the figures of the lectures, for any model and any image."""

from __future__ import annotations

from pathlib import Path

import click

from pixelwise.cli.output import json_option, print_json


@click.command("look", short_help="Draw filters, activations, probabilities and receptive fields.")
@click.argument("target", metavar="NAME|RUN")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--layer", metavar="LAYER", help="Draw all channels of one layer; names as `describe` lists them.")
@click.option("--class", "class_name", metavar="CLASS", help="Draw the probabilities of one class, name or number.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write: .png or .html.")
@click.option("--num-classes", type=int, help="Classes of an untrained model.  [default: 2]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Of an untrained model's weights.  [default: 0]")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="An option of an untrained model.")
@json_option
def command(
    target: str,
    image: Path,
    layer: str | None,
    class_name: str | None,
    out: Path,
    num_classes: int | None,
    seed: int | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Draw what a network makes of IMAGE, on one PNG or HTML sheet.

    NAME is a model of `pixelwise models`, which gets random weights; RUN is a run folder or a model file. Without
    --layer and --class: the predicted classes, the receptive field, the filters of the first layer, activations
    layer by layer, and a probability map for each class.
    """
    from pixelwise.engine.describe import read_options
    from pixelwise.report.look import look

    looked = look(
        target,
        image,
        out=out,
        layer=layer,
        class_name=class_name,
        num_classes=num_classes,
        seed=seed,
        options=read_options(settings),
    )
    if as_json:
        print_json(
            {
                "output": str(looked.output),
                "layers": looked.layers,
                "receptive_field": looked.receptive_field,
                "classes": looked.classes,
            }
        )
    else:
        click.echo(f"figure: {looked.output}")
