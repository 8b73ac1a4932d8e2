"""`pixelwise refine`: sharpen class probabilities of any program with the image."""

from __future__ import annotations

from pathlib import Path

import click

from pixelwise.cli.output import json_option, print_json


@click.command("refine", short_help="Refine class probabilities with the image: the dense CRF.")
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("probabilities", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="MASK.png", help="The label map.")
@click.option(
    "--preset",
    metavar="NAME|FILE",
    help="pydensecrf_default, deeplab_vgg16, deeplab_resnet101, deconvnet or crfrnn; with neighbours only grid4 or "
    "grid8; or what tune-crf wrote.  "
    "[default: pydensecrf_default]",
)
@click.option("--spatial-sigma", type=float, help="Of the smoothness kernel, in pixels.")
@click.option("--spatial-weight", type=float, help="Its weight; 0 leaves it out.")
@click.option("--bilateral-spatial-sigma", type=float, help="Of the appearance kernel, in pixels.")
@click.option("--bilateral-color-sigma", type=float, help="Of the appearance kernel, in steps of colours of 0..255.")
@click.option("--bilateral-weight", type=float, help="Its weight; 0 leaves it out.")
@click.option("--iterations", type=int, help="Of mean field.")
@click.option("--normalization", metavar="RULE", help="Of the kernels: none, before, after or symmetric.")
@click.option("--resize", is_flag=True, help="Enlarge smaller probabilities bilinearly to the image's size.")
@click.option(
    "--palette", metavar="RUN|DATA", type=click.Path(path_type=Path), help="Whose colours the mask gets, if any."
)
@click.option(
    "--probabilities",
    "out_probabilities",
    type=click.Path(path_type=Path),
    metavar="FILE.npy",
    help="Write the refined probabilities too: float16 (classes, height, width).",
)
@json_option
def command(
    image: Path,
    probabilities: Path,
    out: Path,
    preset: str | None,
    spatial_sigma: float | None,
    spatial_weight: float | None,
    bilateral_spatial_sigma: float | None,
    bilateral_color_sigma: float | None,
    bilateral_weight: float | None,
    iterations: int | None,
    normalization: str | None,
    resize: bool,
    palette: Path | None,
    out_probabilities: Path | None,
    as_json: bool,
) -> None:
    """Refine PROBABILITIES of IMAGE with its colours, and write the label map.

    PROBABILITIES is an .npy file, float (classes, height, width), as `predict --probabilities` writes it, or an .npz
    file with such an array; uint8 counts 255ths. What is given beats the preset. Images that are no 8-bit colour are
    refined as a viewer shows them. `pixelwise tune-crf` finds parameters for your data.
    """
    from pixelwise import api

    given: dict[str, float | int | str | None] = {
        "spatial_sigma": spatial_sigma,
        "spatial_weight": spatial_weight,
        "bilateral_spatial_sigma": bilateral_spatial_sigma,
        "bilateral_color_sigma": bilateral_color_sigma,
        "bilateral_weight": bilateral_weight,
        "iterations": iterations,
        "normalization": normalization,
    }
    result = api.refine(
        image,
        probabilities,
        out=out,
        crf=preset,
        parameters={name: value for name, value in given.items() if value is not None},
        resize=resize,
        palette=palette,
        out_probabilities=out_probabilities,
    )
    if as_json:
        outputs = [str(path) for path in result.outputs]
        values = {"num_classes": result.num_classes, "changed": result.changed, "seconds": result.seconds}
        print_json({"outputs": outputs, **values, "protocol": result.protocol})
        return
    for key, said in result.protocol.items():
        click.echo(f"{key.replace('_', ' ')}: {said}")
    click.echo(f"{result.changed:.1%} of the pixels have another class now, {result.seconds:.1f} s")
    click.echo("\n".join(str(path) for path in result.outputs))
