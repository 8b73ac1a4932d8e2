"""Our networks give the numbers of the originals, as OpenCV computed them from the original definitions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from caffe_filling import rebuild
from caffe_parity import GOLDEN, NETS, TOLERANCE, difference, run_ours, sample
from caffe_writer import caffemodel
from formula import numbers


def test_the_formula_is_what_it_was() -> None:
    wanted = np.float32([0.8038983345031738, 0.15065062046051025, 0.11418819427490234, 0.7357197999954224])
    np.testing.assert_array_equal(numbers("conv1_1", (4,)), wanted)


@pytest.mark.parametrize("name", NETS)
def test_logits_are_the_originals(name: str, tmp_path: Path) -> None:
    about = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    file = tmp_path / "net.caffemodel"
    file.write_bytes(caffemodel(rebuild(about["layers"], about.get("copies", ())), form=about["form"]))
    found = sample(run_ours(name, file, about))
    assert difference(found, np.load(GOLDEN / f"{name}.npy")) < TOLERANCE


def test_every_golden_tensor_has_its_origin() -> None:
    assert {path.stem for path in GOLDEN.glob("*.npy")} == set(NETS)
    for name in NETS:
        about = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
        assert about["definition"] == f"{NETS[name].repository} {NETS[name].path}"
        assert len(about["sha256"]) == 64
        assert float(about["measured"]) < TOLERANCE
