"""What `describe` claims of each system: that the originals' numbers hold it, what is not known, what it sees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pixelwise.engine.describe import describe
from pixelwise.models import list_models, model_info

TESTS = Path(__file__).resolve().parents[1]
GOLDEN = {path.stem for path in (TESTS / "golden").rglob("*.npy")}
# Verified without tensors of the original in tests/golden: where numbers hold them.
ELSEWHERE = {
    "unet": "models/test_unet.py",
    "efficientnet_lite0": "backbones/test_efficientnet_lite.py",
    "deconvnet_vgg16": "models/test_deconvnet.py",
    "segnet_vgg16": "models/test_segnet.py",
    "segnet_basic": "models/test_segnet.py",
    "bayesian_segnet_vgg16": "models/test_bayesian_segnet.py",
    "bayesian_segnet_basic": "models/test_bayesian_segnet.py",
    "dilated_frontend_vgg16": "models/test_dilation.py",
    "deeplabv2_vgg16_aspp_s": "models/test_deeplabv2_vgg.py",
    "fcn_resnet50": "models/test_fcn_resnet.py",
    "fcn_resnet101": "models/test_fcn_resnet.py",
    "alexnet": "backbones/test_classifiers.py",
    "caffenet": "backbones/test_convolutionalise.py",
    "vgg16": "backbones/test_classifiers.py",
    "googlenet": "backbones/test_classifiers.py",
    "resnet50": "backbones/test_resnet.py",
    "resnet101": "backbones/test_resnet.py",
    "resnet152": "backbones/test_resnet.py",
}


def with_fidelity(fidelity: str) -> list[str]:
    return [name for name in list_models() if model_info(name).fidelity == fidelity]


def test_what_is_verified_is_held_by_numbers() -> None:
    assert set(with_fidelity("verified")) - GOLDEN == set(ELSEWHERE)
    for name, file in ELSEWHERE.items():
        text = (TESTS / file).read_text(encoding="utf-8")
        assert name in text or name.rstrip("0123456789") in text, name


@pytest.mark.parametrize("name", with_fidelity("reconstructed"))
def test_what_is_reconstructed_says_what_is_not_known(name: str) -> None:
    assert re.search(r"\b(not|no|without|neither)\b", model_info(name).source)


@pytest.mark.parametrize(
    ("name", "sees_all", "output_stride", "legal"),
    [
        ("pspnet_resnet50", True, 8, "sides of 8 k + 1, from 1"),
        ("deeplabv3_resnet50", True, 16, "any side, from 1"),
        ("deeplabv3_cascade_resnet50", False, 16, "any side, from 1"),
        ("deeplabv2_resnet101_msc", False, 8, "any side, from 1"),
        ("fcn_resnet50", False, 8, "any side, from 1"),
        ("gcn_resnet50", False, 1, "sides of 32 k, from 32"),
        ("fusionnet", False, 1, "sides of 4 k, from 4"),
        ("drn_a_18", True, 8, "any side, from 9"),
        ("drn_d_22", True, 8, "any side, from 9"),
        ("drnseg_d_22", False, 8, "any side, from 9"),
        ("resnet50", True, 32, "any side, from 33"),
    ],
)
def test_descriptions_of_the_residual_generation(name: str, sees_all: bool, output_stride: int, legal: str) -> None:
    """At debug size; only a global pooling sees the whole image, whatever its size."""
    facts = describe(name, num_classes=3, **model_info(name).debug)
    assert (facts.receptive_field is None) == sees_all
    assert (facts.output_stride, facts.legal_sizes) == (output_stride, legal)
    if facts.task == "semantic":
        assert facts.output_size == facts.input_size == list(model_info(name).input_size)
