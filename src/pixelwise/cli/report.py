"""`pixelwise report`: write the report of a run again."""

from __future__ import annotations

from pathlib import Path

import click

from pixelwise.cli.output import json_option, print_json


@click.command("report", short_help="Write the report of a run again.")
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def command(run: Path, as_json: bool) -> None:
    """Write RUN/report.html again, one file that needs nothing else."""
    from pixelwise import api

    path = api.report(run)
    if as_json:
        print_json({"report": str(path)})
    else:
        click.echo(f"report: {path}")
