"""`pixelwise predict`: segment images of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from pixelwise.cli.output import Reporter, json_option, listed, print_json


@click.command("predict", short_help="Segment images of any size.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--tile", type=int, help="Input side of a window in pixels; large images are cut by themselves.")
@click.option("--flip", is_flag=True, help="Average over the image and its mirror image.")
@click.option("--overlay", is_flag=True, help="Write NAME_overlay.png too: the classes' colours over the image.")
@click.option("--probabilities", is_flag=True, help="Write NAME.npy too: float16 (classes, height, width).")
@click.option("--instances", is_flag=True, help="Write NAME_instances.png too: 16-bit object ids; and objects.csv.")
@click.option(
    "--object-method",
    type=click.Choice(["distance", "border"]),
    help="Cut areas where they are narrow, or along a boundary class.  [default: border where the model knows one]",
)
@click.option("--object-classes", metavar="A,B", help="Classes whose areas are objects.  [default: all but background]")
@click.option("--whole-image", is_flag=True, help="Show DeconvNet whole images, not proposals one by one.")
@json_option
def command(
    run: Path,
    inputs: tuple[str, ...],
    out: Path,
    tile: int | None,
    flip: bool,
    overlay: bool,
    probabilities: bool,
    instances: bool,
    object_method: Literal["distance", "border"] | None,
    object_classes: str | None,
    whole_image: bool,
    as_json: bool,
) -> None:
    """Segment INPUTS (files, folders, patterns) with RUN, a run folder or model file.

    For each image NAME.png is written: class numbers, with a palette so that viewers show colours, at the
    image's size.
    """
    from pixelwise import api

    reporter = Reporter(as_json=as_json)
    try:
        result = api.predict(
            run,
            inputs,
            out=out,
            tile=tile,
            flip=flip,
            overlay=overlay,
            probabilities=probabilities,
            instances=instances,
            object_method=object_method,
            object_classes=listed(object_classes),
            whole_image=whole_image,
            on_image=lambda done, total: reporter.advance("predicting", done, total),
        )
    finally:
        reporter.close()
    if as_json:
        values = {"seconds": result.seconds, "peak_memory_mb": result.peak_memory_mb}
        objects = {} if result.num_objects is None else {"num_objects": result.num_objects}
        boxes = {} if result.num_boxes is None else {"num_boxes": result.num_boxes}
        print_json({"outputs": [str(path) for path in result.outputs], **values, **objects, **boxes})
        return
    memory = "" if result.peak_memory_mb is None else f", {result.peak_memory_mb:.0f} MB at most"
    objects_found = "" if result.num_objects is None else f", {result.num_objects} objects"
    seen = "" if result.num_boxes is None else f", seen box by box ({result.num_boxes} boxes)"
    click.echo(f"{len(result.outputs)} files in {out}{objects_found}{seen}, {result.seconds:.1f} s{memory}")
