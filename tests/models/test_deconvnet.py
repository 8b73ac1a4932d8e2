"""DeconvNet against the release's definition: counts, sizes and values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pixelwise.engine.layer_table import layer_table
from pixelwise.errors import RequestError
from pixelwise.layers.unpooling import MaxPool2x2, MaxUnpool2x2
from pixelwise.models.deconvnet import DeconvNet, deconvnet_vgg16

# Read off training/002_stage_2/stage_2_train.prototxt of HyeonwooNoh/DeconvNet, commit 87dd133.
DEFINITION = """
    conv1_1 conv1_2 pool1 conv2_1 conv2_2 pool2 conv3_1 conv3_2 conv3_3 pool3 conv4_1 conv4_2 conv4_3 pool4
    conv5_1 conv5_2 conv5_3 pool5 fc6 fc7 fc6_deconv unpool5 deconv5_1 deconv5_2 deconv5_3
    unpool4 deconv4_1 deconv4_2 deconv4_3 unpool3 deconv3_1 deconv3_2 deconv3_3 unpool2 deconv2_1 deconv2_2
    unpool1 deconv1_1 deconv1_2 seg_score_voc
"""
NORMS = """
    bn1_1 bn1_2 bn2_1 bn2_2 bn3_1 bn3_2 bn3_3 bn4_1 bn4_2 bn4_3 bn5_1 bn5_2 bn5_3 bnfc6 bnfc7 fc6_deconv_bn
    debn5_1 debn5_2 debn5_3 debn4_1 debn4_2 debn4_3 debn3_1 debn3_2 debn3_3 debn2_1 debn2_2 debn1_1 debn1_2
"""


def narrow(**options: int) -> DeconvNet:
    torch.manual_seed(0)
    return deconvnet_vgg16(**{"num_classes": 3, "base_channels": 1, "fc_channels": 6, **options})


@pytest.fixture(scope="module")
def full() -> DeconvNet:
    with torch.device("meta"):
        return deconvnet_vgg16(num_classes=21)


def run_slowly(layers, images: Tensor) -> np.ndarray:
    x, norms = images.numpy(), iter(NORMS.split())
    for name in DEFINITION.split():
        if name.startswith("pool"):
            x = layers.pool(x, name[-1])
        elif name.startswith("unpool"):
            x = layers.upsample(x, name[-1])
        else:
            run = layers.deconvolution if "deconv" in name else layers.convolution
            x = run(x, name, pad=0 if name.startswith("fc") or name == "seg_score_voc" else 1)
            if name != "seg_score_voc":
                x = np.maximum(layers.batch_norm(x, next(norms)), 0)
        layers.keep(name, x)
    assert not list(norms)
    return x


@pytest.mark.parametrize("training", [False, True])
def test_values_are_those_of_the_definition(training: bool, caffe, randomise) -> None:
    """Held to an independent reading in NumPy; the tolerance is that of double precision."""
    model = randomise(narrow(), seed=2).train(training)
    images = torch.randn(3, 3, 224, 224, dtype=torch.float64)
    expected = run_slowly(caffe(model=model, training=training), images)
    with torch.no_grad():
        logits = model(images).logits
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-7, atol=1e-7)
    assert expected.std() > 0.05


def test_parameters(full: DeconvNet) -> None:
    def count(model: nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    norms = {name: m for name, m in full.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert count(full) == 251_805_653
    assert sum(map(count, norms.values())) == 33_408
    assert list(norms) == NORMS.split()
    assert not [norm for norm in norms.values() if norm.eps != 1e-9]
    layers = {name: count(full.get_submodule(name)) for name in DEFINITION.split() if "pool" not in name}
    assert sum(layers.values()) == 251_772_245
    names = list(layers)
    assert sum(layers[name] for name in names[: names.index("fc7") + 1]) == 134_260_544
    assert sum(layers[name] for name in names if "deconv" in name) == 117_510_336
    assert (layers["fc6"], layers["fc7"], layers["fc6_deconv"]) == (102_764_544, 16_781_312, 102_760_960)
    assert (layers["deconv4_3"], layers["deconv3_3"], layers["deconv2_2"]) == (1_179_904, 295_040, 73_792)
    assert layers["seg_score_voc"] == 1_365


def test_kinds_of_layers(full: DeconvNet) -> None:
    """The decoder is transposed but for the score, and nothing is dropped."""
    transposed = {name for name, m in full.named_modules() if isinstance(m, nn.ConvTranspose2d)}
    assert transposed == {name for name in DEFINITION.split() if "deconv" in name}
    assert not [m for m in full.modules() if isinstance(m, nn.Dropout)]


def test_sizes(full: DeconvNet) -> None:
    shapes = {layer.name: layer.shape for layer in layer_table(full, in_channels=3, input_size=(224, 224))}
    channels = {"conv1_2": 64, "conv2_2": 128, "conv3_3": 256, "conv4_3": 512, "conv5_3": 512, "fc6": 4096, "fc7": 4096}
    sides = {"conv1_2": 224, "conv2_2": 112, "conv3_3": 56, "conv4_3": 28, "conv5_3": 14, "fc6": 1, "fc7": 1}
    channels |= {
        "fc6_deconv": 512,
        "unpool5": 512,
        "deconv5_3": 512,
        "unpool4": 512,
        "deconv4_2": 512,
        "deconv4_3": 256,
    }
    sides |= {"fc6_deconv": 7, "unpool5": 14, "deconv5_3": 14, "unpool4": 28, "deconv4_2": 28, "deconv4_3": 28}
    channels |= {"unpool3": 256, "deconv3_3": 128, "unpool2": 128, "deconv2_2": 64, "unpool1": 64, "deconv1_2": 64}
    sides |= {"unpool3": 56, "deconv3_3": 56, "unpool2": 112, "deconv2_2": 112, "unpool1": 224, "deconv1_2": 224}
    channels["seg_score_voc"], sides["seg_score_voc"] = 21, 224
    assert {name: shapes[name] for name in sides} == {
        name: (channels[name], side, side) for name, side in sides.items()
    }


@pytest.mark.parametrize(("height", "width"), [(225, 224), (224, 448), (97, 97), (1, 1)])
def test_other_sizes_are_answered_with_224(height: int, width: int) -> None:
    side = f"height {height}" if height != 224 else f"width {width}"
    with pytest.raises(RequestError, match=rf"input size {height} x {width} is not legal: {side} .*legal: 224\)"):
        narrow()(torch.zeros(1, 3, height, width))


def test_first_deconvolution_is_linear_in_the_vector_of_fc7() -> None:
    """Its output at (u, v) is W[:, :, u, v]^T times the vector, plus the bias: 49 x 512 outputs."""
    layer = narrow().fc6_deconv
    vector = torch.randn(2, 6, 1, 1)
    expected = torch.einsum("nc,couv->nouv", vector[:, :, 0, 0], layer.weight) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(vector), expected)
    assert expected.shape == (2, 8, 7, 7)


def test_each_unpooling_takes_the_switches_of_its_pool_and_is_sparse() -> None:
    model = narrow(base_channels=2)
    given: dict[str, Tensor] = {}
    taken: dict[str, Tensor] = {}
    zeros: list[float] = []
    for name, module in model.named_modules():
        if isinstance(module, MaxPool2x2):
            module.register_forward_hook(lambda m, args, out, k=name[-1]: given.update({k: out[1].indices}))
        if isinstance(module, MaxUnpool2x2):
            module.register_forward_hook(lambda m, args, out, k=name[-1]: taken.update({k: args[1].indices}))
            module.register_forward_hook(lambda m, args, out: zeros.append(float((out == 0).float().mean())))
    model(torch.rand(2, 3, 224, 224))
    assert given.keys() == taken.keys()
    assert len(given) == 5
    assert all(given[level] is taken[level] for level in given)
    assert min(zeros) >= 0.75


def test_initialisation_is_the_release_fillers() -> None:
    model = narrow(base_channels=8, fc_channels=32)
    for name in ("fc6_deconv", "deconv4_3", "seg_score_voc", "conv3_1"):
        layer = model.get_submodule(name)
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.25)
        assert layer.bias.abs().max() == 0
    assert model.get_submodule("debn4_3").bias.unique().tolist() == pytest.approx([0.001])
    assert model.get_submodule("debn4_3").weight.unique().tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_channels": 0}, r"base_channels=0, fc_channels=6; accepted: whole numbers from 1 .* 64 and 4096"),
        ({"fc_channels": 0}, "base_channels=1, fc_channels=0; accepted: whole numbers from 1"),
        ({"eps": 1.0}, r"eps=1.0; accepted: above 0 and below 1 \(the release's is 1e-9"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        narrow(**options)
