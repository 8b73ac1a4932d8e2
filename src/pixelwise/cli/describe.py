"""`pixelwise describe`: what a model is, computed and not quoted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pixelwise.cli.output import json_option, print_json, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixelwise.engine.describe import Description, LayerRow


@click.command("describe", short_help="Describe a model.")
@click.argument("name")
@click.option("--num-classes", type=int, default=2, show_default=True, help="Classes of the head.")
@click.option("--in-channels", type=int, help="Image channels.  [default: the system's own]")
@click.option("--input-size", type=int, nargs=2, metavar="H W", help="Input size.  [default: the paper's]")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="An option of the model.")
@json_option
def command(
    name: str,
    num_classes: int,
    in_channels: int | None,
    input_size: tuple[int, int] | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Describe the model NAME: layer table, parameters, receptive field, legal sizes, FLOPs, fidelity, source.

    NAME may be a module of a paper too: context_basic or context_large. They take score maps, so their receptive
    fields are in cells of these.
    """
    from pixelwise.engine.describe import describe, read_options

    description = describe(
        name,
        num_classes=num_classes,
        in_channels=in_channels,
        input_size=input_size,
        **read_options(settings),
    )
    if as_json:
        print_json(description.model_dump())
    else:
        click.echo(_text(description))


def _as_given(value: object) -> str:
    """Write an option's value as `--set` wants it."""
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else str(value)


def _text(d: Description) -> str:
    field, unit = "the whole image", "cells" if d.task == "module" else "pixels"
    if d.receptive_field is not None and d.receptive_field_smallest is not None:
        field = f"{_by(d.receptive_field)} {unit}"
        if d.receptive_field != d.receptive_field_smallest:
            field += f" (down to {_by(d.receptive_field_smallest)}, by position in the pooling grid)"
    views = [
        f"{_by(row.field_of_view)} pixels at {row.name}, {_by(row.kernel)} at rate {row.dilation[0]}"
        for row in d.layers
        if row.field_of_view is not None
    ]
    facts = [
        *([("also called", ", ".join(d.aliases))] if d.aliases else []),
        *([("pretrained", d.pretrained)] if d.pretrained else []),
        ("system", f"{d.family}, {d.task}, {d.year}"),
        ("paper", d.paper),
        ("fidelity", f"{d.fidelity}: {d.source}"),
        ("parameters", _parameters(d)),
        *([("largest layer", _cost(max(d.layers, key=lambda row: row.parameters)))] if d.parameters else []),
        ("receptive field", field),
        *([("field of view", "; ".join(views))] if views else []),
        ("output stride", str(d.output_stride)),
        ("legal sizes", d.legal_sizes),
        ("input", f"{_by(d.input_size)}, {d.in_channels} channel{'s' if d.in_channels > 1 else ''}"),
        ("output", ", ".join([*([_by(d.output_size)] if d.output_size else []), f"{d.num_classes} classes"])),
        *([] if d.flops is None else [("FLOPs", f"{d.flops / 1e9:,.1f} G for one image (a multiply-add is two)")]),
        ("options", ", ".join(f"{key}={_as_given(value)}" for key, value in d.options.items()) or "none"),
    ]
    lines = [f"{key:16}{value}" for key, value in facts]
    stages = [("stage", "what it does"), *((stage.name, stage.text) for stage in d.stages)]
    rows = _layer_table(d.layers) if d.layers else table(stages)
    return "\n".join([d.name, *lines, "", rows])


def _parameters(d: Description) -> str:
    if d.parameters is None:
        return "as many as are learnt: every round adds a stump"
    return f"{d.parameters:,} ({d.parameters / 1e6:,.1f} M)"


def _cost(row: LayerRow) -> str:
    window = f" ({_by(row.kernel)})" if row.kind in _WINDOWED else ""
    weights = f"{row.parameters:,} parameters ({100 * row.parameters_share:.1f} %)"
    return f"{row.name}{window}: {weights}, {row.flops / 1e9:,.1f} G FLOPs ({100 * row.flops_share:.1f} %)"


def _layer_table(layers: Sequence[LayerRow]) -> str:
    head = ("layer", "kind", "kernel", "dilation", "stride", "output", "receptive field", "parameters", "G FLOPs")
    rows = []
    for row in layers:
        windowed = row.kind in _WINDOWED
        cells = (
            row.name or "-",
            row.kind,
            _by(row.kernel) if windowed else "",
            " x ".join(map(str, dict.fromkeys(row.dilation))) if windowed else "",
            _by(row.stride) if windowed else "",
            _by(row.output),
            "all" if row.receptive_field is None else _by(row.receptive_field),
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.flops / 1e9:,.2f}" if row.flops else "",
        )
        rows.append(cells)
    return table([head, *rows], right=(3, 7, 8))


_WINDOWED = ("convolution", "up-convolution", "max pool", "average pool")


def _by(sizes: list[int]) -> str:
    return " x ".join(map(str, sizes))
