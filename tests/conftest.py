from __future__ import annotations

import os

import pytest

# One thread each: two threads that wait for each other beside a second busy process are many times slower than one.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is remembered of files out of the user's cache folder."""
    os.environ["PIXELWISE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
