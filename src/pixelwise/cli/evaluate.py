"""`pixelwise evaluate`: score a run on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from pixelwise.cli.output import (
    Reporter,
    crf_option,
    json_option,
    listed,
    numbers,
    print_json,
    scores_text,
    share,
    view_options,
)

if TYPE_CHECKING:
    from pixelwise.engine.views import Fusion


@click.command("evaluate", short_help="Score a run on a data set.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--split", metavar="NAME", help="What to score.  [default: val]")
@click.option("--list", "names", type=click.Path(path_type=Path), help="File that names the items to score.")
@click.option("--metrics", metavar="M,N", help="More scores, such as boundary_iou,bf,vrand,vinfo,seg,ap,pq.")
@click.option("--boundary-class", metavar="NAME", help="The class between objects, where dataset.json is silent.")
@click.option("--tile", type=int, help="Input side of a seamless tile in pixels.")
@view_options
@crf_option
@click.option("--boxes", type=click.Path(path_type=Path), help="Boxes that DeconvNet sees; see `predict --help`.")
@click.option(
    "--set",
    "settings",
    metavar="OPTION=VALUE",
    multiple=True,
    help="Option of the model that beats the trained one and leaves the weights, such as output_stride=8.",
)
@click.option("--crops", type=int, help="Of an image classifier: 1 (the centre) or 10 (corners, centre, mirrored).")
@json_option
def command(
    run: Path,
    data: Path,
    split: str | None,
    names: Path | None,
    metrics: str | None,
    boundary_class: str | None,
    tile: int | None,
    flip: bool,
    scales: str | None,
    fusion: str | None,
    window: int | None,
    stride: str | None,
    long_side: int | None,
    crf: str | None,
    boxes: Path | None,
    settings: tuple[str, ...],
    crops: int | None,
    as_json: bool,
) -> None:
    """Score RUN (a run folder or model file) on DATA, at the labels' own size.

    The scores come from one histogram over all pixels; the protocol is printed with them. An image classifier is scored
    on a folder for each class: top-1 and top-5 accuracy of the central crop, or of ten.
    """
    from pixelwise import api
    from pixelwise.engine.describe import read_options

    reporter = Reporter(as_json=as_json)
    try:
        result = api.evaluate(
            run,
            data,
            split=split,
            names=names,
            metrics=listed(metrics),
            boundary_class=boundary_class,
            tile=tile,
            flip=flip,
            scales=numbers("--scales", scales) or (1.0,),
            fusion=cast("Fusion | None", fusion),
            window=window,
            stride=None if stride is None else share("--stride", stride),
            long_side=long_side,
            crf=crf,
            boxes=boxes,
            options=read_options(settings),
            crops=crops,
            on_image=lambda done, total: reporter.advance("scoring", done, total),
        )
    finally:
        reporter.close()
    if as_json:
        print_json(result)
    else:
        click.echo(scores_text(result))
