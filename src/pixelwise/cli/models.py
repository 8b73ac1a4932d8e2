"""`pixelwise models`: the catalogue."""

from __future__ import annotations

import click

from pixelwise.cli.output import json_option, print_json, table


@click.command("models", short_help="List the models.")
@click.option("--task", metavar="TASK", help="Only models of one task, such as semantic.")
@json_option
def command(task: str | None, as_json: bool) -> None:
    """List the models with family, task, year and paper."""
    from pixelwise.models import list_models, model_info

    rows = [model_info(name) for name in list_models(task)]
    if as_json:
        keys = ("name", "family", "task", "year", "paper", "fidelity")
        print_json([{key: getattr(info, key) for key in keys} for info in rows])
        return
    head = ("name", "family", "task", "year", "fidelity", "paper")
    click.echo(
        table([head, *((i.name, i.family, i.task, str(i.year), i.fidelity, i.paper) for i in rows)])
        if rows
        else f"no models for the task {task!r}"
    )
