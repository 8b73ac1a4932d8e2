"""What the README promises runs as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest

from pixelwise.cli import group, run
from pixelwise.data.microscopy import write_microscopy

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = "--iterations 2 --set options.base_channels=2 --set data.crop=[64,64] --set threads=1"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line.startswith("pixelwise ")]


def test_set_up_commands_are_make_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"`?make (\w+)`?", README))
    assert {"demo", "test"} <= named <= targets
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", commands())
def test_every_command_line_is_accepted(line: str) -> None:
    words = shlex.split(line)[1:]
    command = group.get_command(click.Context(group), words[0])
    assert command is not None
    command.make_context(words[0], words[1:])


def test_the_first_commands_and_the_python_block_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = write_microscopy(tmp_path / "made", num_train=4, num_val=1, size=(80, 80), seed=0)
    for kind in ("images", "masks"):  # the plain layout: two folders, no splits, no json
        (tmp_path / "my_data" / kind).mkdir(parents=True)
        for path in sorted((made / kind).rglob("*.png")):
            shutil.copy(path, tmp_path / "my_data" / kind / path.name)
    shutil.copytree(tmp_path / "my_data" / "images", tmp_path / "my_images")
    check, train, *rest = (line for line in commands() if "my_data --out card" in line or "runs/first" in line)
    one = next((tmp_path / "my_images").iterdir())
    assert run(shlex.split(check)[1:]) == 0
    assert run(shlex.split(train.replace("--minutes 10", TINY))[1:]) == 0
    for line in rest:
        assert run(shlex.split(line.replace("my_images/one.png", str(one)))[1:]) == 0
    assert len(list((tmp_path / "results").glob("*.png"))) == 2 * len(list((tmp_path / "my_images").iterdir()))
    assert "mean IoU" in capsys.readouterr().out
    (script,) = blocks("python")
    settings = tuple(TINY.replace("--set ", "").split()[2:])
    script = script.replace("minutes=10", f"iterations=2, settings={settings!r}").replace("runs/first", "runs/second")
    exec(compile(script.replace("my_images/one.png", f"my_images/{one.name}"), "README.md", "exec"), {})
    assert (tmp_path / "one_mask.png").exists()


def test_results_table_has_no_empty_promise() -> None:
    """A row of measured results has data, command, score and conditions; a blank score stays blank."""
    table = README.split("## Measured")[1].split("\n\n")[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert rows
    assert all(len(row) == 4 for row in rows)
