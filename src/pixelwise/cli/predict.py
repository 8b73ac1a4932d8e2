"""`pixelwise predict`: segment images of any size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from pixelwise.cli.output import Reporter, json_option, listed, numbers, print_json, share, view_options

if TYPE_CHECKING:
    from pixelwise.engine.views import Fusion


@click.command("predict", short_help="Segment images of any size.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--tile", type=int, help="Input side of a seamless tile in pixels; large images are cut by themselves.")
@view_options
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
    scales: str | None,
    fusion: str | None,
    window: int | None,
    stride: str | None,
    long_side: int | None,
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
            scales=numbers("--scales", scales) or (1.0,),
            fusion=cast("Fusion | None", fusion),
            window=window,
            stride=None if stride is None else share("--stride", stride),
            long_side=long_side,
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
        windows = {} if result.window is None else {"window": result.window, "num_windowed": result.num_windowed}
        print_json({"outputs": [str(path) for path in result.outputs], **values, **objects, **boxes, **windows})
        return
    memory = "" if result.peak_memory_mb is None else f", {result.peak_memory_mb:.0f} MB at most"
    objects_found = "" if result.num_objects is None else f", {result.num_objects} objects"
    seen = "" if result.num_boxes is None else f", seen box by box ({result.num_boxes} boxes)"
    if result.window is not None:
        height, width = result.window
        images = f"{result.num_windowed} image{'s' if result.num_windowed > 1 else ''}"
        seen += f", {images} seen through windows of {height} x {width}"
    click.echo(f"{len(result.outputs)} files in {out}{objects_found}{seen}, {result.seconds:.1f} s{memory}")
