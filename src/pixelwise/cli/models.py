"""`pixelwise models`: the catalogue."""

from __future__ import annotations

import shutil
import sys

import click

from pixelwise.cli.output import json_option, print_json, table
from pixelwise.errors import RequestError


@click.command("models", short_help="List the models.")
@click.option("--task", metavar="TASK", help="Only models of one task, such as semantic.")
@json_option
def command(task: str | None, as_json: bool) -> None:
    """List the models with family, task, year and paper."""
    from pixelwise.models import list_models, model_info

    rows = [model_info(name) for name in list_models()]
    tasks = sorted({info.task for info in rows})
    if task is not None and task not in tasks:
        raise RequestError(f"unknown task {task!r}; accepted: {', '.join(tasks)}. Leave --task out to see all models.")
    rows = [info for info in rows if task in (None, info.task)]
    if as_json:
        keys = ("name", "aliases", "family", "task", "year", "paper", "fidelity")
        print_json([{key: getattr(info, key) for key in keys} for info in rows])
        return
    head = ("name", "family", "task", "year", "fidelity", "paper")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    cells = [(i.name, i.family, i.task, str(i.year), i.fidelity, i.paper) for i in rows]
    click.echo(table([head, *cells], width=width))
