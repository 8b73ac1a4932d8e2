"""`pixelwise tune-crf`: parameters of the dense CRF for a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from pixelwise.cli.output import (
    Reporter,
    json_option,
    numbers,
    percent,
    print_json,
    share,
    table,
    view_options,
    whole_numbers,
)

if TYPE_CHECKING:
    from pixelwise.engine.views import Fusion


@click.command("tune-crf", short_help="Find parameters of the dense CRF for a run, if any help.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--split", metavar="NAME", help="What to try them on.  [default: val]")
@click.option("--list", "names", type=click.Path(path_type=Path), help="File that names the items to try them on.")
@click.option("--search", type=click.Choice(["grid", "random"]), default="grid", show_default=True, help="How.")
@click.option("--trials", type=int, help="At most so many sets of parameters.  [default: the grid, or 200 random ones]")
@click.option("--seed", type=int, help="Of random trials.  [default: 0]")
@click.option("--minutes", type=float, help="Search for so long at most, once the probabilities are there.")
@click.option("--iterations", metavar="N,M", default="10", show_default=True, help="Of mean field; each is tried.")
@click.option(
    "--normalization",
    metavar="RULE",
    default="after",
    show_default=True,
    help="Of the kernels: none, before, after or symmetric.",
)
@click.option("--metric", metavar="NAME", default="miou", show_default=True, help="What to raise; or pixel_accuracy.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE.json", help="For the parameters.  [default: RUN/crf.json]"
)
@click.option("--tile", type=int, help="Input side of a seamless tile in pixels.")
@view_options
@json_option
def command(
    run: Path,
    data: Path,
    split: str | None,
    names: Path | None,
    search: Literal["grid", "random"],
    trials: int | None,
    seed: int | None,
    minutes: float | None,
    iterations: str,
    normalization: str,
    metric: str,
    out: Path | None,
    tile: int | None,
    flip: bool,
    scales: str | None,
    fusion: str | None,
    window: int | None,
    stride: str | None,
    long_side: int | None,
    as_json: bool,
) -> None:
    """Try parameters of the dense CRF on labelled images of DATA, and keep the best for RUN if they help.

    RUN is a run folder or model file; its probabilities are computed once. Or a folder of probabilities that any
    program wrote: NAME.npy or NAME.npz for every image, float (classes, height, width); smaller ones are enlarged.
    `predict` and `evaluate` take what was found with --crf tuned. Nothing is written where the CRF does not help.
    """
    from pixelwise import api

    reporter = Reporter(as_json=as_json)
    try:
        result = api.tune_crf(
            run,
            data,
            split=split,
            names=names,
            search=search,
            trials=trials,
            seed=seed,
            minutes=minutes,
            iterations=whole_numbers("--iterations", iterations),
            normalization=normalization,
            metric=metric,
            out=out,
            tile=tile,
            flip=flip,
            scales=numbers("--scales", scales) or (1.0,),
            fusion=cast("Fusion | None", fusion),
            window=window,
            stride=None if stride is None else share("--stride", stride),
            long_side=long_side,
            on_step=reporter.advance,
        )
    finally:
        reporter.close()
    if as_json:
        print_json(result)
    else:
        click.echo(_text(result))


def _text(result: dict[str, Any]) -> str:
    """Show what a search found, and how far that is to be believed."""
    from pixelwise.metrics.names import METRIC_NAMES

    scores = result["scores"]
    metric = scores["metric"]
    name = METRIC_NAMES[metric].name
    rows = [["class", "IoU alone", "with CRF", "gain"]]
    for label, row in scores["per_class"].items():
        both = row["unary"] is not None and row["best"] is not None
        gain = f"{row['best'] - row['unary']:+.4f}" if both else "-"
        rows.append([label, percent(row["unary"]), percent(row["best"]), gain])
    parameters = ", ".join(f"{key} {value}" for key, value in result["parameters"].items())
    return "\n".join(
        [
            f"{name}, probabilities alone:  {scores['unary'][metric]:.4f}",
            f"{name}, best of {result['trials']} trials: {scores['best'][metric]:.4f} ({scores['gain']:+.4f})",
            f"  {parameters}",
            *(f"  {key.replace('_', ' ')}: {said}" for key, said in result["protocol"].items()),
            *(["", table(rows, right=[1, 2, 3]), ""]),
            *([_honestly(result, name)] if result["helps"] else []),
            _conclusion(result),
        ]
    )


def _honestly(result: dict[str, Any], name: str) -> str:
    """Say how far the gain is to be believed."""
    gain = result["scores"]["cross_validated_gain"]
    said = "The parameters were chosen on the images that they are scored on: the gain is an optimistic one."
    if gain is None:
        return f"{said} Score other images to see what it is worth."
    return f"{said}\nChosen on one half of the images (first, second) and scored on the other: {gain:+.4f} {name}" + (
        ", so expect no gain on other images." if gain <= 0 else "."
    )


def _conclusion(result: dict[str, Any]) -> str:
    """Say what was written, and how it is used."""
    if result["helps"]:
        return f"parameters: {result['output']}"
    stays = f" {result['earlier']} of an earlier search stays." if result["earlier"] else ""
    return f"The CRF does not help here: no trial is better than the probabilities alone. Nothing was written.{stays}"
