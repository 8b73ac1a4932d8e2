"""`pixelwise demo`: the whole path on embedded data."""

from __future__ import annotations

from pathlib import Path

import click

from pixelwise.cli.output import Reporter, json_option, print_json, scores_text


@click.command("demo", short_help="Run the whole path on embedded data.")
@click.option("--out", type=click.Path(path_type=Path), help="A new folder.  [default: demo, or demo-2, ...]")
@click.option(
    "--data",
    type=click.Choice(["coins", "cells"]),
    default="coins",
    show_default=True,
    help="A photograph of 24 coins, outlined by hand; or generated microscopy of three classes.",
)
@json_option
def command(out: Path | None, data: str, as_json: bool) -> None:
    """Train on one part of a picture, score and segment the other, and write a report; about a minute."""
    from pixelwise.demo import demo

    out = out or first_free("demo")
    reporter = Reporter(as_json=as_json)
    try:
        result = demo(out, data="coins" if data == "coins" else "cells", listener=reporter)
    except KeyboardInterrupt:
        reporter.close()
        reporter.say(f"stopped; remove {out} to begin the demo again, or give it another --out")
        raise
    finally:
        reporter.close()
    if as_json:
        files = {"data": result.data, "card": result.card, "run": result.run, "report": result.report}
        print_json(
            {
                **result.scores,
                **{key: str(path) for key, path in files.items()},
                "outputs": [str(path) for path in result.predictions],
                "num_objects": result.num_objects,
                "seconds": result.seconds,
            }
        )
        return
    click.echo("\nscores on the part that was not trained on:")
    click.echo(scores_text(result.scores))
    click.echo(f"\n{result.num_objects} objects were found there.\n\nmade in {result.seconds:.0f} s:")
    for what, path in (
        ("images and masks", result.data),
        ("data card, for a browser", result.card),
        ("trained model", result.run / "best.safetensors"),
        ("predictions", result.predictions[0].parent),
        ("report, for a browser", result.report),
    ):
        click.echo(f"  {what:30}{path}")
    click.echo(
        "\nnext, with your own folder of images/ and masks/:\n"
        "  pixelwise check my_data --out card.html\n"
        "  pixelwise train my_data --out runs/first --minutes 10\n"
        "  pixelwise evaluate runs/first my_data\n"
        "  pixelwise predict runs/first my_images --out results --overlay"
    )


def first_free(name: str) -> Path:
    """Return the first of name, name-2, name-3, ... that does not exist yet."""
    path, number = Path(name), 1
    while path.exists():
        number += 1
        path = Path(f"{name}-{number}")
    return path
