"""Our CRF-RNN gives the numbers of its authors' code, as PyTorch and their C++ lattice computed them."""

from __future__ import annotations

import json

import numpy as np
import torch
from crfrnn_parity import DIVIDE, GOLDEN, GRADIENTS, NAME, TOLERANCE, build_ours, difference, run_ours, sample


def test_logits_and_gradients_are_the_originals() -> None:
    logits, gradients = run_ours(build_ours(divide=DIVIDE))
    wanted = np.load(GOLDEN / f"{NAME}.npy")
    assert wanted.std() > 1
    assert difference(sample(logits), wanted) < TOLERANCE
    for found, slope in zip(gradients, np.load(GOLDEN / "gradients.npy"), strict=True):
        assert difference(found.numpy(), slope) < GRADIENTS


def test_the_golden_tensors_have_their_origin() -> None:
    about = json.loads((GOLDEN / "about.json").read_text(encoding="utf-8"))
    assert about["repository"] == "sadeepj/crfasrnn_pytorch 24899c528981dfbc14f1212869a3eae328dc6570"
    assert max(map(float, about["measured"].values())) < TOLERANCE


def test_another_weight_shows() -> None:
    model = build_ours(divide=DIVIDE)
    with torch.no_grad():
        model.get_parameter("crf.compatibility.weight")[0, 1] += 0.1
    logits, _ = run_ours(model)
    assert difference(sample(logits), np.load(GOLDEN / f"{NAME}.npy")) > 10 * TOLERANCE
