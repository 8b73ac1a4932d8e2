"""The commands in the recipes' docstrings are ones that the command line takes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

import click
import pytest

from pixelwise.cli import group
from pixelwise.recipes import RECIPES
from pixelwise.weights.catalogue import published_weights
from pixelwise.weights.state_catalogue import state_formats

MODULES = sorted({build.__module__ for build in RECIPES.values()})


def commands(text: str) -> Iterator[click.Context]:
    """Parse what follows each "pixelwise COMMAND", up to the prose behind it."""
    pieces = re.split(r"pixelwise (train|evaluate|import-weights) ", " ".join(text.split()))
    for name, rest in zip(pieces[1::2], pieces[2::2], strict=True):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        options = {word: entry for entry in command.params for word in entry.opts if isinstance(entry, click.Option)}
        positions = sum(isinstance(entry, click.Argument) for entry in command.params)
        words: list[str] = []
        value = False
        for token in rest.split():
            word = token.rstrip(".,:;")
            if word.startswith("--") and not value:
                value = not options[word].is_flag
            elif value:
                value = False
            elif positions:
                positions -= 1
            else:
                break
            words.append(word)
            if token != word and not value:
                break
        yield command.make_context(name, words)


@pytest.mark.parametrize("module", MODULES)
def test_commands_of_the_docstring_are_accepted(module: str) -> None:
    found = list(commands(importlib.import_module(module).__doc__ or ""))
    assert "train" in [context.info_name for context in found]
    for context in found:
        if context.info_name == "train":
            assert context.params["recipe"] in RECIPES
        if context.info_name == "import-weights":
            name, file = context.params["name"], context.params["file"]
            if file.suffix == ".caffemodel":
                assert not context.params["trunk"] or published_weights(name).trunk is not None
            else:
                assert context.params["trunk"] <= any(form.trunk for form in state_formats(name))
