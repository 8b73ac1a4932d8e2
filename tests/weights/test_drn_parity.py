"""Our DRN gives the numbers of the original, fyu/drn, as PyTorch computed them with its code."""

from __future__ import annotations

import json

import numpy as np
import pytest
from drn_parity import (
    CLASSES,
    DIVIDE,
    GOLDEN,
    NAMES,
    TOLERANCE,
    build_ours,
    difference,
    picture,
    run_ours,
    sample,
    task_of,
)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_the_originals(name: str) -> None:
    model = build_ours(name, divide=DIVIDE, classes=CLASSES[task_of(name)]).eval()
    found = sample(run_ours(model, picture(name)))
    assert difference(found, np.load(GOLDEN / f"{name}.npy")) < TOLERANCE


def test_every_golden_tensor_has_its_origin() -> None:
    about = json.loads((GOLDEN / "about.json").read_text(encoding="utf-8"))
    assert about["repository"] == "fyu/drn d75db2ee7070426db7a9264ee61cf489f8cf178c"
    assert {path.stem for path in GOLDEN.glob("*.npy")} == set(NAMES) == set(about["measured"])
    assert max(map(float, about["measured"].values())) < TOLERANCE
