"""`pixelwise score`: score predictions that any program made."""

from __future__ import annotations

from pathlib import Path

import click

from pixelwise.cli.output import Reporter, json_option, listed, print_json, scores_text


@click.command("score", short_help="Score predictions made by any program.")
@click.argument("predictions", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
@click.option(
    "--metrics", metavar="M,N", default="miou", show_default=True, help="Such as boundary_iou,bf,vrand,seg,ap."
)
@click.option("--split", metavar="NAME", help="What to score.  [default: val]")
@click.option("--list", "names", type=click.Path(path_type=Path), help="File that names the items to score.")
@click.option("--boundary-class", metavar="NAME", help="The class between objects, where dataset.json is silent.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Where scores and protocol are kept.  [default: scores.json in PREDICTIONS]",
)
@json_option
def command(
    predictions: Path,
    truth: Path,
    metrics: str,
    split: str | None,
    names: Path | None,
    boundary_class: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Score the files in PREDICTIONS against TRUTH, a data folder, with the measures and protocol of evaluate.

    For every image NAME: NAME.png with class numbers (0/255 where there are two classes), or NAME.npy with
    probabilities, float (classes, height, width). Objects: NAME_instances.png with 16-bit ids, and objects.csv with the
    columns image, id and score where AP is wanted.
    """
    from pixelwise import api

    reporter = Reporter(as_json=as_json)
    try:
        result = api.score(
            predictions,
            truth,
            metrics=listed(metrics),
            split=split,
            names=names,
            boundary_class=boundary_class,
            out=out,
            on_image=lambda done, total: reporter.advance("scoring", done, total),
        )
    finally:
        reporter.close()
    if as_json:
        print_json(result)
    else:
        click.echo(scores_text(result))
        click.echo(
            f"\nscores and protocol: {result['stored']}"
            if result["stored"]
            else f"\nnot stored: no --out was given, and {predictions} cannot be written to"
        )
