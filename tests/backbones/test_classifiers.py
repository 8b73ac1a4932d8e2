"""The classifiers: published parameter counts, torchvision's names, sizes, and which images and weights they take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelwise.backbones.alexnet import AlexNet, CaffeNet, CaffeNetTrunk
from pixelwise.backbones.googlenet import CAFFE, TORCHVISION, GoogLeNet, InceptionTrunk
from pixelwise.backbones.vgg import VGG16, by_layer_name
from pixelwise.errors import RequestError
from pixelwise.layers.vgg import VGG16Trunk

META = torch.device("meta")


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameters_for_1000_classes() -> None:
    with META:
        assert count(VGG16()) == 138_357_544
        assert count(AlexNet()) == 61_100_840
        assert count(CaffeNet()) == 60_965_224
        assert count(GoogLeNet(style=CAFFE)) == 6_998_552
        assert count(GoogLeNet(style=CAFFE, auxiliary=True)) == 13_378_280
        assert count(GoogLeNet(style=TORCHVISION)) == 6_624_904
        assert count(GoogLeNet(style=TORCHVISION, auxiliary=True)) == 13_004_888
        assert count(InceptionTrunk(in_channels=3, base_channels=64, style=CAFFE)) == 5_973_552


@pytest.mark.parametrize("name", ["vgg16", "alexnet", "googlenet", "googlenet_auxiliary"])
def test_state_dict_is_torchvisions(name: str) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    with META:
        pairs = {
            "vgg16": lambda: (VGG16(), models.vgg16()),
            "alexnet": lambda: (AlexNet(), models.alexnet()),
            "googlenet": lambda: (
                GoogLeNet(style=TORCHVISION),
                models.googlenet(aux_logits=False, init_weights=False),
            ),
            "googlenet_auxiliary": lambda: (
                GoogLeNet(style=TORCHVISION, auxiliary=True),
                models.googlenet(aux_logits=True, init_weights=False),
            ),
        }
        ours, theirs = ({key: t.shape for key, t in m.state_dict().items()} for m in pairs[name]())
    assert list(ours.items()) == list(theirs.items())


@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_logits_are_torchvisions_with_the_same_weights(name: str) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    torch.manual_seed(0)
    ours: nn.Module
    with torch.device("meta"):
        if name == "alexnet":
            theirs = models.alexnet(num_classes=20)
        else:
            theirs = models.googlenet(num_classes=20, aux_logits=True, init_weights=False)
    if name == "alexnet":
        ours = AlexNet(num_classes=20)
    else:
        ours = GoogLeNet(style=TORCHVISION, num_classes=20, auxiliary=True)
    theirs.load_state_dict(ours.state_dict(), assign=True)
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)


def test_auxiliary_classifiers_are_torchvisions_too() -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    torch.manual_seed(0)
    ours = GoogLeNet(style=TORCHVISION, num_classes=5, auxiliary=True)
    theirs = models.googlenet(num_classes=5, aux_logits=True, init_weights=False, dropout=0.0, dropout_aux=0.0)
    theirs.load_state_dict(ours.state_dict())
    for layer in ours.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        logits, aux1, aux2 = ours.train().with_auxiliary(x)
        expected = theirs.train()(x)
    torch.testing.assert_close(logits, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(aux1, expected.aux_logits1, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(aux2, expected.aux_logits2, rtol=1e-4, atol=1e-4)


def test_googlenet_stages_of_table_1() -> None:
    seen: dict[str, tuple[int, ...]] = {}
    with META:
        model = GoogLeNet(style=CAFFE, auxiliary=True)
        for name, layer in model.named_children():
            layer.register_forward_hook(lambda m, a, out, name=name: seen.update({name: tuple(out.shape[1:])}))
        model.with_auxiliary(torch.zeros(1, 3, 224, 224))
    assert seen["conv1"] == (64, 112, 112)
    assert seen["maxpool1"] == (64, 56, 56)
    assert seen["conv3"] == (192, 56, 56)
    assert seen["inception3b"] == (480, 28, 28)
    assert seen["inception4a"] == (512, 14, 14)
    assert seen["inception4d"] == (528, 14, 14)
    assert seen["inception4e"] == (832, 14, 14)
    assert seen["inception5b"] == (1024, 7, 7)
    assert seen["aux1"] == seen["aux2"] == (1000,)


def test_googlenet_without_auxiliary_classifiers_says_so() -> None:
    with META, pytest.raises(RequestError, match=r"no auxiliary classifiers; accepted: one built with auxiliary=True"):
        GoogLeNet(style=CAFFE, base_channels=8).with_auxiliary(torch.zeros(1, 3, 224, 224))


def test_caffenet_is_not_alexnet() -> None:
    """Groups halve the inner weights; each pool comes before its normalisation; fc6 sees 6 x 6."""
    with META:
        model = CaffeNet()
        assert model.features(torch.zeros(1, 3, 227, 227)).shape == (1, 256, 6, 6)
    names = [
        f"{layer}.{kind}"
        for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
        for kind in ("weight", "bias")
    ]
    assert list(model.state_dict()) == names
    assert model.conv2.weight.shape == (256, 48, 5, 5)
    assert [name for name, _ in model.named_children()][:4] == ["conv1", "pool1", "norm1", "conv2"]


def test_response_normalisation_is_caffes() -> None:
    """x / (1 + 1e-4 / 5 * sum of five neighbouring squares) ^ 0.75."""
    norm = CaffeNetTrunk(in_channels=3, base_channels=6, first_padding=0).norm1
    x = 100 * torch.randn(1, 7, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = torch.empty_like(x)
    for channel in range(7):
        near = x[:, max(0, channel - 2) : channel + 3].square().sum(1)
        expected[:, channel] = x[:, channel] / (1 + 1e-4 / 5 * near) ** 0.75
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(("channels", "message"), [(0, "base_channels=0"), (64, "base_channels=64; .*multiples of 6")])
def test_caffenet_widths(channels: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        CaffeNet(base_channels=channels)


@pytest.mark.parametrize("channels", [0, 12])
def test_googlenet_widths(channels: int) -> None:
    with pytest.raises(RequestError, match=rf"base_channels={channels}; accepted: multiples of 8"):
        GoogLeNet(style=CAFFE, base_channels=channels)


def test_vgg_weights_by_layer_name_fit_the_trunk() -> None:
    torch.manual_seed(0)
    classifier = VGG16(num_classes=3, base_channels=2)
    renamed = by_layer_name(classifier.state_dict())
    assert len(renamed) == 30
    assert renamed["fc6.weight"].shape == (128, 16, 7, 7)
    assert renamed["fc7.weight"].shape == (128, 128, 1, 1)
    trunk = VGG16Trunk(in_channels=3, base_channels=2)
    trunk.load_state_dict({name: t for name, t in renamed.items() if name.startswith("conv")})
    x = torch.randn(1, 3, 64, 64)
    inner = x
    for block in (trunk.block1, trunk.block2, trunk.block3, trunk.block4, trunk.block5):
        inner = nn.functional.max_pool2d(block(inner), 2)
    assert torch.equal(inner, classifier.features(x))


def test_other_names_than_torchvisions_vgg_are_refused() -> None:
    with META:
        weights = VGG16(num_classes=3, base_channels=2).state_dict()
        with pytest.raises(RequestError, match=r"1 names are not those of torchvision's vgg16, such as features\.0\.w"):
            by_layer_name({name: t for name, t in weights.items() if name != "features.0.weight"})
        with pytest.raises(
            RequestError, match=r"36 names are .* such as classifier\.0\.bias; accepted: its 32 tensors"
        ):
            by_layer_name(AlexNet(base_channels=2).state_dict())
