"""The command `pixelwise`: thin commands over the Python interface.

Commands are imported when they are called, and torch when work starts, so that help answers at once.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import time

import click

from pixelwise.cli.output import is_first_process, process_count
from pixelwise.errors import RequestError, WorkError, closest

# torchrun ends all processes when one has ended: the others wait until the first has said what went wrong.
SECONDS_TO_SPEAK = 2.0

# name: (module, one-line help); the help stands here so that listing commands imports none of them
COMMANDS = {
    "demo": ("pixelwise.cli.demo", "Run the whole path on embedded data, in about a minute."),
    "check": ("pixelwise.cli.check", "Recognise layout and masks, list every problem, draw a data card."),
    "train": ("pixelwise.cli.train", "Train a model on a folder of images and masks."),
    "evaluate": ("pixelwise.cli.evaluate", "Score a run on a data set."),
    "score": ("pixelwise.cli.score", "Score predictions made by any program."),
    "predict": ("pixelwise.cli.predict", "Segment images of any size."),
    "refine": ("pixelwise.cli.refine", "Refine class probabilities with the image: the dense CRF."),
    "tune-crf": ("pixelwise.cli.tune_crf", "Find parameters of the dense CRF for a run, if any help."),
    "report": ("pixelwise.cli.report", "Write the report of a run again."),
    "look": ("pixelwise.cli.look", "Draw filters, activations, probabilities and receptive fields."),
    "import-weights": ("pixelwise.cli.import_weights", "Turn published weights into a model file."),
    "models": ("pixelwise.cli.models", "List the models."),
    "describe": ("pixelwise.cli.describe", "Describe a model: layers, parameters, receptive field, sizes."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; an unknown one is answered with the closest names."""
        if args and args[0] not in COMMANDS:
            ctx.fail(f"Unknown command {args[0]!r}. Closest: {closest(args[0], COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pixelwise")
def group() -> None:
    """Image segmentation: from a folder of images and masks to a measured model."""


def main() -> None:
    """Run the command line: exit code 0 done, 1 the work failed, 2 the request was wrong."""
    # Threads that sleep while they wait: beside another busy process, spinning ones slow the work several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command and return its exit code; errors become one message on stderr."""
    try:
        check_processes(args)
        group.main(args=args or ["--help"], prog_name="pixelwise", standalone_mode=False)
        return 0
    except click.ClickException as error:
        return _fail(_usage_text(error), 2)
    except RequestError as error:
        return _fail(str(error), 2)
    except WorkError as error:
        return _fail(str(error), 1)
    except (KeyboardInterrupt, click.Abort):
        if is_first_process():
            click.echo("stopped.", err=True)
        return 1
    except BrokenPipeError:  # the reader of our output went away, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(
            f"{place}{error.strerror or error}. Check the path, its rights and the free space there.", 1, in_all=False
        )
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", str(error)):
            raise
        return _fail("memory ran out. Use a smaller --tile, crop or batch, or close other programs.", 1, in_all=False)


def check_processes(args: list[str]) -> None:
    """Refuse to do in several processes what one does."""
    if process_count() > 1 and args and args[0] in COMMANDS and args[0] != "train":
        raise RequestError(
            f"torchrun started {process_count()} processes of `pixelwise {args[0]}`, which would all do the same; "
            f"accepted: `train`. Start `pixelwise {args[0]}` without torchrun."
        )


def _fail(message: str, code: int, *, in_all: bool = True) -> int:
    """Print a message and return the code; what happens in all processes alike is said by the first alone."""
    if is_first_process() or not in_all:
        click.echo(f"error: {message}", err=True)
    else:
        time.sleep(SECONDS_TO_SPEAK)
    return code


def _usage_text(error: click.ClickException) -> str:
    """Return what is wrong with the words of a command, and where the right ones are explained."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    usage = " ".join(context.command.collect_usage_pieces(context))
    return f"{message}\nAccepted: {context.command_path} {usage} (explained by: {context.command_path} --help)."
