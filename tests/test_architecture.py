"""Dependencies point one way, and the files keep the promises of the architecture."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pixelwise

PACKAGE = Path(pixelwise.__file__).parent

# Lower layers first; a module may import from its own layer and from those below.
LAYERS = [
    {"errors"},
    {"files", "structures"},
    {"registry"},
    {"layers", "losses", "crf", "metrics", "data"},
    {"backbones"},
    {"models", "classical"},
    {"weights"},
    {"engine"},
    {"recipes", "report", "export", "serve"},
    {"api"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
# Siblings of one layer that may not know each other either.
STRANGERS = {"losses", "crf", "metrics", "data", "layers", "report", "export", "serve"}


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("pixelwise.")}
    return found


sources = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", sources, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dependencies_point_one_way(path: Path) -> None:
    own = part_of(path)
    assert own in LEVEL, f"{own} has no place in the architecture; add it to LAYERS with a decision record"
    for other in imports_of(path):
        assert other in LEVEL, f"{path} imports pixelwise.{other}, which has no place in the architecture"
        assert LEVEL[other] <= LEVEL[own], f"{own} may not import {other}, which stands above it"
        if own in STRANGERS and LEVEL[own] == LEVEL[other]:
            assert own == other, f"{own} and {other} are siblings that may not know each other"


@pytest.mark.parametrize("path", sources, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= 400, f"{path} has {lines} lines; the limit is 400"


def test_there_is_no_utils_module() -> None:
    assert not [path for path in sources if path.stem in ("utils", "helpers", "common", "misc")]


@pytest.mark.parametrize("module", ["pixelwise", "pixelwise.cli", "pixelwise.errors"])
def test_light_modules_do_not_import_heavy_ones(module: str) -> None:
    heavy = "{'torch', 'numpy', 'cv2', 'scipy', 'numba', 'pydantic', 'rich', 'PIL', 'skimage'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported() -> None:
    assert sorted(pixelwise.__all__) == sorted(set(pixelwise.__all__))
    for name in pixelwise.__all__:
        assert callable(getattr(pixelwise, name)), f"{name} is hidden by a package of the same name"
    assert dir(pixelwise) == sorted(pixelwise.__all__)
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        _ = pixelwise.unknown  # type: ignore[attr-defined]
