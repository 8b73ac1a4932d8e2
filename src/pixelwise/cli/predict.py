"""`pixelwise predict`: segment images of any size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from pixelwise.cli.output import (
    Reporter,
    crf_option,
    json_option,
    listed,
    numbers,
    print_json,
    share,
    table,
    view_options,
)

if TYPE_CHECKING:
    from pixelwise.engine.views import Fusion


MOST_SHOWN = 20  # images of a classifier


@click.command("predict", short_help="Segment images of any size.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--tile", type=int, help="Input side of a seamless tile in pixels; large images are cut by themselves.")
@view_options
@crf_option
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
@click.option(
    "--boxes", metavar="FILE", type=click.Path(path_type=Path), help="Boxes that DeconvNet is shown, see above."
)
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
    inputs: tuple[str, ...],
    out: Path,
    tile: int | None,
    flip: bool,
    scales: str | None,
    fusion: str | None,
    window: int | None,
    stride: str | None,
    long_side: int | None,
    crf: str | None,
    overlay: bool,
    probabilities: bool,
    instances: bool,
    object_method: Literal["distance", "border"] | None,
    object_classes: str | None,
    whole_image: bool,
    boxes: Path | None,
    settings: tuple[str, ...],
    crops: int | None,
    as_json: bool,
) -> None:
    """Segment INPUTS (files, folders, patterns) with RUN, a run folder or model file.

    For each image NAME.png is written: class numbers, with a palette so that viewers show colours, at the
    image's size. An image classifier writes NAME.json and classes.csv with the probabilities of the classes.

    FILE of --boxes takes the place of DeconvNet's own proposals: a .csv file with the columns image, x1, y1, x2, y2
    and perhaps score (NAME,,,, for an image without boxes); a .json file {"NAME": [[x1, y1, x2, y2], ...], ...}; or a
    folder of one such file for each image. Corners are in pixels, 0, 0, W, H for all of an image. Each box is enlarged
    by 1.2; the best 50 of at least 112 pixels are seen.
    """
    from pixelwise import api
    from pixelwise.engine.describe import read_options

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
            crf=crf,
            overlay=overlay,
            probabilities=probabilities,
            instances=instances,
            object_method=object_method,
            object_classes=listed(object_classes),
            whole_image=whole_image,
            boxes=boxes,
            options=read_options(settings),
            crops=crops,
            on_image=lambda done, total: reporter.advance("predicting", done, total),
        )
    finally:
        reporter.close()
    if as_json:
        values = {"seconds": result.seconds, "peak_memory_mb": result.peak_memory_mb}
        objects = {} if result.num_objects is None else {"num_objects": result.num_objects}
        seen = {} if result.num_boxes is None else {"num_boxes": result.num_boxes, "num_whole": result.num_whole}
        windows = {} if result.window is None else {"window": result.window, "num_windowed": result.num_windowed}
        outputs = [str(path) for path in result.outputs]
        classes = (
            {} if result.classes is None else {"classes": {name: one for name, (one, _) in result.classes.items()}}
        )
        print_json({"outputs": outputs, **values, **objects, **seen, **windows, **classes, **result.refined})
        return
    if result.classes is not None:
        rows = [("image", "class", "probability")]
        rows += [(name, one, f"{value:.4f}") for name, (one, value) in list(result.classes.items())[:MOST_SHOWN]]
        click.echo(table(rows, right=[2]))
        if len(result.classes) > MOST_SHOWN:
            click.echo(f"... and {len(result.classes) - MOST_SHOWN} more, in classes.csv")
    memory = "" if result.peak_memory_mb is None else f", {result.peak_memory_mb:.0f} MB at most"
    objects_found = "" if result.num_objects is None else f", {result.num_objects} objects"
    by_boxes = "" if result.num_boxes is None else f", seen box by box ({result.num_boxes} boxes)"
    if result.num_whole:
        by_boxes += f", {result.num_whole} of them whole: small, or without a box that is large enough"
    if result.window is not None:
        height, width = result.window
        images = f"{result.num_windowed} image{'s' if result.num_windowed > 1 else ''}"
        by_boxes += f", {images} seen through windows of {height} x {width}"
    if result.refined:
        click.echo(f"refined: {result.refined['crf']} ({result.refined['crf_parameters']})")
    click.echo(f"{len(result.outputs)} files in {out}{objects_found}{by_boxes}, {result.seconds:.1f} s{memory}")
