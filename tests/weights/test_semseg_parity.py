"""Our PSPNet gives the numbers of the original, hszhao/semseg, as PyTorch computed them with its code."""

from __future__ import annotations

import json

import numpy as np
import pytest
from semseg_parity import (
    CLASSES,
    DEPTHS,
    DIVIDE,
    GOLDEN,
    OUTPUTS,
    REPOSITORY,
    TOLERANCE,
    build_ours,
    difference,
    picture,
    run_ours,
    sample,
)


@pytest.mark.parametrize("depth", DEPTHS)
def test_outputs_are_the_originals_in_evaluation_and_in_training(depth: int) -> None:
    found = sample(run_ours(build_ours(depth, divide=DIVIDE, classes=CLASSES), picture()))
    assert difference(found, np.load(GOLDEN / f"pspnet_resnet{depth}.npy")) < TOLERANCE


def test_every_golden_tensor_has_its_origin() -> None:
    about = json.loads((GOLDEN / "about.json").read_text(encoding="utf-8"))
    assert about["repository"] == REPOSITORY
    assert tuple(about["outputs"]) == OUTPUTS
    names = {f"pspnet_resnet{depth}" for depth in DEPTHS}
    assert {path.stem for path in GOLDEN.glob("*.npy")} == names == set(about["measured"])
    assert max(map(float, about["measured"].values())) < TOLERANCE
