"""`pixelwise train`: from a folder of images and masks to a run folder."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from pixelwise.cli.output import Reporter, json_option, print_json, process_count, scores_text


@click.command("train", short_help="Train a model on a folder of images and masks.")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", metavar="NAME", help="A name of `pixelwise models`.  [default: unet_small]")
@click.option("--recipe", metavar="NAME", help="A published training in stages, such as fcn8s_staged; or modern.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder, new or empty.")
@click.option("--minutes", type=float, help="Train for so long; give one of these four.  [default: 10]")
@click.option("--cpu-minutes", type=float, help="Train for so much processor time, all threads added.")
@click.option("--epochs", type=float, help="Train for so many passes over the images.")
@click.option("--iterations", type=int, help="Train for so many steps.")
@click.option("--val-list", type=click.Path(path_type=Path), help="File that names the validation items, one a line.")
@click.option("--test-list", type=click.Path(path_type=Path), help="File that names items to hold out entirely.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Start from a model file or run of the same model, or of the classifier that is its trunk; or: pretrained, "
    "random.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any key of config.yaml; may be repeated.")
@click.option("--seed", type=int, help="Of weights, sampling and augmentation.  [default: 0]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@json_option
def command(
    data: Path,
    model: str | None,
    recipe: str | None,
    out: Path,
    minutes: float | None,
    cpu_minutes: float | None,
    epochs: float | None,
    iterations: int | None,
    val_list: Path | None,
    test_list: Path | None,
    weights: Path | None,
    settings: tuple[str, ...],
    seed: int | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Train a model on DATA, a folder with images/ and masks/, and write a run folder with a report.

    Masks hold class numbers, or 0/255, or 0/1. What is not given is planned from the data and the machine,
    printed, and saved in config.yaml; every key there can be given with --set, such as
    --set optimizer.lr=0.001 or --set data.crop=[256,256].

    An image classifier (--model resnet50, vgg16, drn_c_26, ...) is trained on a folder for each class, as ImageNet is
    laid out: DATA/train/CLASS/NAME.jpg with DATA/val/CLASS/NAME.jpg, or DATA/CLASS/NAME.jpg. Its run may be the
    --weights of a segmentation network that has it as its trunk.

    The pipeline from before deep learning (--model textonboost) is trained on the same folders; its iterations are
    rounds of boosting, and its own settings are options.num_textons and others that `describe` lists.

    In several processes: torchrun --nproc_per_node N -m pixelwise train DATA ...; each takes its share of every batch,
    so that the result is that of one process.

    With --recipe every stage is a run of its own below --out, --set applies to all of them and --weights to the first.
    """
    from pixelwise import api

    reporter = Reporter(as_json=as_json)
    try:
        result = api.train(
            data,
            out=out,
            model=model,
            recipe=recipe,
            minutes=minutes,
            cpu_minutes=cpu_minutes,
            epochs=epochs,
            iterations=iterations,
            val_list=val_list,
            test_list=test_list,
            weights=weights,
            seed=seed,
            settings=settings,
            resume=resume,
            listener=reporter,
        )
    except KeyboardInterrupt:
        reporter.close()
        begun = (out / ("config.yaml" if recipe is None else "recipe.json")).exists()
        by = [] if recipe is None else ["--recipe", recipe] + ([] if model is None else ["--model", model])
        again = shlex.join([*how_started(), "train", str(data), *by, "--out", str(out), "--resume"])
        reporter.say(f"stopped; go on with: {again}" if begun else "stopped before training began; nothing was written")
        raise
    finally:
        reporter.close()
    if not reporter.speaks:
        return
    if as_json:
        print_json(
            {
                "run": str(result.run),
                "iterations": result.iterations,
                "seconds": round(result.seconds, 3),
                "best": {**result.best["metrics"], "iteration": result.best["iteration"]},
            }
        )
        return
    click.echo(f"\nbest model, from iteration {result.best['iteration']}:")
    click.echo(scores_text(result.best))
    click.echo(f"\nrun folder: {result.run}\nreport:     {result.run / 'report.html'}")


def how_started() -> list[str]:
    """Return the words that begin the command again: alone, or in as many processes."""
    if process_count() == 1:
        return ["pixelwise"]
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    machines = process_count() // local
    nodes = ["--nnodes", str(machines)] if machines > 1 else []
    return ["torchrun", *nodes, "--nproc_per_node", str(local), "-m", "pixelwise"]
