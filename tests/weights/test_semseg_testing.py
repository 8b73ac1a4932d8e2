"""Several scales, mirror images and sliding windows give what hszhao/semseg's own test functions gave."""

from __future__ import annotations

import json

import numpy as np
from semseg_parity import REPOSITORY
from semseg_testing import GOLDEN, TOLERANCE, run_ours, sample


def test_probabilities_are_the_originals() -> None:
    wanted = np.load(GOLDEN / "probabilities.npy")
    np.testing.assert_allclose(sample(run_ours()), wanted, atol=TOLERANCE, rtol=0)
    assert wanted.std(axis=(0, 1)).min() > 100 * TOLERANCE  # they say something


def test_the_golden_tensor_has_its_origin() -> None:
    about = json.loads((GOLDEN / "about.json").read_text(encoding="utf-8"))
    assert about["repository"] == REPOSITORY
    assert float(about["measured"]) < TOLERANCE
