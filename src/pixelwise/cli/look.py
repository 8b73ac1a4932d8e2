"""`pixelwise look`: the figures of the lectures, for any model and any image."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from pixelwise.cli.output import json_option, print_json
from pixelwise.errors import RequestError


@click.command("look", short_help="Draw filters, activations, probabilities and receptive fields.")
@click.argument("target", metavar="NAME|RUN")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--layer", metavar="LAYER", help="Draw all channels of one layer; names as `describe` lists them.")
@click.option("--class", "class_name", metavar="CLASS", help="Draw the probabilities of one class, name or number.")
@click.option("--gridding", is_flag=True, help="Draw what dilation does to one bright cell, of NAME,NAME,... in a row.")
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
    gridding: bool,
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

    With --gridding, of one or several networks: a cell is made bright where a network begins to dilate. Dilated
    convolutions turn it into a grid of bright cells with gaps between; what comes behind them fills the gaps, or does
    not. Try drn_a_18,drn_b_26,drn_c_26.
    """
    from pixelwise.engine.describe import read_options
    from pixelwise.report.look import look

    if gridding:
        _draw_gridding(target, image, out, layer or class_name, num_classes, seed, settings, as_json)
        return

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


def _draw_gridding(
    target: str,
    image: Path,
    out: Path,
    excluded: str | None,
    num_classes: int | None,
    seed: int | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    from pixelwise.engine.describe import read_options
    from pixelwise.report.look_gridding import look_gridding

    if excluded is not None:
        raise RequestError(
            f"--gridding and {excluded!r} are both given; accepted: --gridding, or --layer and --class. Leave one out."
        )
    names = [target] if Path(target).exists() else [name.strip() for name in target.split(",")]
    looked = look_gridding(names, image, out=out, num_classes=num_classes, seed=seed, options=read_options(settings))
    if as_json:
        print_json({"output": str(looked.output), "networks": [asdict(network) for network in looked.networks]})
        return
    for network in looked.networks:
        click.echo(f"{network.model}: neighbouring cells differ by {network.unevenness:.1%}")
    click.echo(f"figure: {looked.output}")
