"""What the compiled passes owe to numba's cache."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from pixelwise.crf import step, vector
from pixelwise.crf.mean_field import MeanField


def test_the_cache_sees_other_instructions() -> None:
    found = f"{zlib.crc32(Path(vector.__file__).read_bytes()):08x}"
    assert found == step.INSTRUCTIONS, f"vector.py has changed: set step.INSTRUCTIONS to {found!r}"


def test_any_number_of_labels_runs_the_same_code() -> None:
    field = MeanField([np.zeros((9, 2), dtype=np.float32)])
    rng = np.random.default_rng(0)
    counts = set()
    for labels in (1, 2, 8, 19, 40):
        field.infer(rng.random((labels, 9)).astype(np.float32) + 0.1, [1.0], iterations=2)
        counts.add(len(step.update.signatures))  # type: ignore[attr-defined]
    assert len(counts) == 1
