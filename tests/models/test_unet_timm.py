"""Encoders of timm, where it is installed; what is said where it is not."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from pixelwise import registry
from pixelwise.backbones import timm_encoder
from pixelwise.errors import RequestError
from pixelwise.models import create_model, list_models
from pixelwise.structures import size_rule_of

needs_timm = pytest.mark.skipif(not find_spec("timm"), reason="timm is not installed")
TINY = {"decoder_channels": 4, "num_classes": 3}


def missing(name: str) -> None:
    """Find no package."""


def test_without_timm_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_encoder, "find_spec", missing)
    monkeypatch.setattr(registry, "find_spec", missing)
    with pytest.raises(RequestError, match=r"timm is not installed.*Run: pip install 'pixelwise\[timm\]'"):
        create_model("unet_timm", **TINY)
    assert "unet_timm" not in list_models()


def test_timm_and_torchvision_are_imported_only_on_request() -> None:
    code = (
        "import sys; from pixelwise.models import create_model, list_models; list_models();"
        "create_model('unet_efficientnet_lite0', num_classes=2);"
        "print(sorted({'timm', 'torchvision', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@needs_timm
@pytest.mark.parametrize(
    ("encoder", "strides"),
    [
        ("test_resnet", (2, 4, 8, 16, 32)),
        ("test_efficientnet.r160_in1k", (2, 4, 8, 16, 32)),
        ("test_convnext", (4, 8, 16, 32)),
        ("test_vit2", None),
    ],
)
def test_encoders_of_several_kinds(encoder: str, strides: tuple[int, ...] | None) -> None:
    if strides is None:
        with pytest.raises(RequestError, match=r"sees images of \d+ x \d+ alone"):
            create_model("unet_timm", encoder=encoder, **TINY)
        return
    model = create_model("unet_timm", encoder=encoder, **TINY).eval()
    assert model.encoder.strides == strides
    assert size_rule_of(model).step == 32
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 96)).logits.shape == (1, 3, 64, 96)


@needs_timm
def test_the_encoder_is_timms() -> None:
    import timm

    torch.manual_seed(0)
    model = create_model("unet_timm", encoder="test_resnet", in_channels=2, **TINY).eval()
    theirs = timm.create_model("test_resnet", features_only=True, in_chans=2).eval()
    theirs.load_state_dict(model.encoder.model.state_dict())
    image = torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        for ours, other in zip(model.encoder(image), theirs(image), strict=True):
            assert torch.equal(ours, other)


@needs_timm
def test_unknown_encoders_are_answered_with_the_closest() -> None:
    with pytest.raises(RequestError, match=r"encoder='resnet1' is no model of timm; closest names: resnet18"):
        create_model("unet_timm", encoder="resnet1", **TINY)
    with pytest.raises(RequestError, match=r"no weights 'foo' of resnet18; accepted: resnet18\.a1_in1k"):
        create_model("unet_timm", encoder="resnet18.foo", **TINY)


@needs_timm
def test_weights_come_from_timm_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    build, asked = timm_encoder.build, []

    def fake(name: str, *, in_channels: int, pretrained: bool) -> torch.nn.Module:
        asked.append((name, in_channels, pretrained))
        model = build(name, in_channels=in_channels, pretrained=False)
        if pretrained:
            torch.nn.init.constant_(next(model.parameters()), 0.5)
        return model

    monkeypatch.setattr(timm_encoder, "build", fake)
    model = create_model("unet_timm", encoder="test_resnet", in_channels=1, weights="pretrained", **TINY)
    assert asked == [("test_resnet", 1, False), ("test_resnet", 1, True)]
    assert (next(model.encoder.parameters()) == 0.5).all()


@needs_timm
def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    build = timm_encoder.build

    def offline(name: str, *, in_channels: int, pretrained: bool) -> torch.nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return build(name, in_channels=in_channels, pretrained=False)

    monkeypatch.setattr(timm_encoder, "build", offline)
    with pytest.raises(RequestError, match=r"weights of encoder='test_resnet' \(no route to host\).*HF_HOME"):
        create_model("unet_timm", encoder="test_resnet", weights="pretrained", **TINY)


@needs_timm
def test_timms_normalisation_is_known_without_its_weights() -> None:
    inputs = timm_encoder.inputs({"encoder": "resnet18"})
    assert inputs.source == "resnet18.a1_in1k of timm"
    assert inputs.mean == pytest.approx((123.675, 116.28, 103.53))
