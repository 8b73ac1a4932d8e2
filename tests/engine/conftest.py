from __future__ import annotations

from pathlib import Path

import pytest

from pixelwise.data.microscopy import write_microscopy


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three classes with object ids: five training and two validation images of 80 x 96."""
    folder = tmp_path_factory.mktemp("data") / "cells"
    return write_microscopy(folder, num_train=5, num_val=2, size=(80, 96), seed=1)
