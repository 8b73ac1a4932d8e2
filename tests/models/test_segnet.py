"""SegNet and SegNet-Basic against the release's definitions: counts, sizes, fields, and values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.engine.layer_table import Layer, input_span, layer_table, receptive_fields
from pixelwise.errors import RequestError
from pixelwise.layers.unpooling import MaxPool2x2, MaxUnpool2x2, Switches
from pixelwise.models.segnet import SegNet, SegNetBasic, segnet_basic, segnet_vgg16

# Read off segnet_train.prototxt and segnet_basic_train.prototxt of alexgkendall/SegNet-Tutorial, commit bb68b64.
SEGNET = """
    conv1_1 conv1_2 pool1 conv2_1 conv2_2 pool2 conv3_1 conv3_2 conv3_3 pool3 conv4_1 conv4_2 conv4_3 pool4
    conv5_1 conv5_2 conv5_3 pool5 upsample5 conv5_3_D conv5_2_D conv5_1_D upsample4 conv4_3_D conv4_2_D conv4_1_D
    upsample3 conv3_3_D conv3_2_D conv3_1_D upsample2 conv2_2_D conv2_1_D upsample1 conv1_2_D conv1_1_D
"""
BASIC = """
    norm conv1 pool1 conv2 pool2 conv3 pool3 conv4 pool4 upsample4 conv_decode4 upsample3 conv_decode3
    upsample2 conv_decode2 upsample1 conv_decode1 conv_classifier
"""


def run_slowly(layers, definition: str, images: Tensor) -> np.ndarray:
    """Run a definition layer by layer."""
    x = images.numpy()
    for name in definition.split():
        if name == "norm":
            squares = np.pad(x**2, ((0, 0), (2, 2), (0, 0), (0, 0)))
            window = sum(squares[:, i : i + x.shape[1]] for i in range(5))
            x = x / (1 + 1e-4 / 5 * window) ** 0.75
        elif name.startswith("pool"):
            x = layers.pool(x, name[-1])
        elif name.startswith("upsample"):
            x = layers.upsample(x, name[-1])
        elif name in ("conv1_1_D", "conv_classifier"):
            x = layers.convolution(x, name, pad=1 if name == "conv1_1_D" else 0)
        else:
            x = layers.convolution(x, name, pad=1 if "_" in name and "decode" not in name else 3)
            x = layers.batch_norm(x, f"{name}_bn")
            x = x if "decode" in name else np.maximum(x, 0)
        layers.keep(name, x)
    return x


def meta(build: Callable[..., nn.Module], **options: object) -> nn.Module:
    with torch.device("meta"):
        return build(**{"num_classes": 11, **options})


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(45, 61), (32, 64)])
@pytest.mark.parametrize(
    ("build", "options", "definition"),
    [
        (segnet_vgg16, {"base_channels": 2}, SEGNET),
        (segnet_basic, {"base_channels": 3}, BASIC),
        (segnet_basic, {"base_channels": 3, "bias": False, "in_channels": 6}, BASIC),
    ],
)
def test_values_are_those_of_the_definition(
    build: Callable[..., nn.Module],
    options: dict[str, int],
    definition: str,
    size: tuple[int, int],
    training: bool,
    caffe,
    randomise,
) -> None:
    """Held to an independent reading in NumPy; the tolerance is that of double precision."""
    model = randomise(build(num_classes=5, **options), seed=1).train(training)
    slow = caffe(model=model, training=training)
    images = 255 * torch.rand(2, options.get("in_channels", 3), *size, dtype=torch.float64)
    expected = run_slowly(slow, definition, images)
    with torch.no_grad():
        logits = model(images).logits
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-8, atol=1e-8)
    assert logits.shape == (2, 5, *size)
    assert expected.std() > 0.05


@pytest.mark.parametrize(
    ("classes", "parameters"),
    [(11, 29_449_355), (12, 29_449_932), (21, 29_455_125), (37, 29_464_357), (38, 29_464_934)],
)
def test_parameters_of_segnet(classes: int, parameters: int) -> None:
    model = meta(segnet_vgg16, num_classes=classes)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert count(model) == parameters
    assert len(norms) == 25
    assert sum(count(norm) for norm in norms) == 15_872
    convolutions = {name: count(m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert sum(n for name, n in convolutions.items() if not name.endswith("_D")) == 14_714_688
    assert sum(n for name, n in convolutions.items() if name.endswith("_D") and name != "conv1_1_D") == 14_712_448
    assert not [norm for norm in norms if norm.eps != 1e-9]


def test_parameters_of_segnet_basic() -> None:
    """The sheet's totals; the paper's Table 1 says 1.425M and, for the single-channel decoder, 0.625M."""
    assert count(meta(segnet_basic)) == 1_416_587
    assert count(meta(segnet_basic, bias=False)) == 1_416_064
    assert count(meta(segnet_basic, single_channel=True)) == 626_315


def rows(model: nn.Module, size: tuple[int, int] = (360, 480)) -> dict[str, tuple[int, Layer]]:
    """The first row of each named layer."""
    found: dict[str, tuple[int, Layer]] = {}
    for index, layer in enumerate(layer_table(model, in_channels=3, input_size=size)):
        found.setdefault(layer.name, (index, layer))
    return found


def test_sizes_of_segnet_for_360x480() -> None:
    table = rows(meta(segnet_vgg16))
    expected = {
        "conv1_2": (64, 360, 480),
        "pool1": (64, 180, 240),
        "pool2": (128, 90, 120),
        "pool3": (256, 45, 60),
        "pool4": (512, 23, 30),
        "pool5": (512, 12, 15),
        "upsample5": (512, 23, 30),
        "conv5_1_D": (512, 23, 30),
        "upsample4": (512, 45, 60),
        "conv4_2_D": (512, 45, 60),
        "conv4_1_D": (256, 45, 60),
        "upsample3": (256, 90, 120),
        "conv3_1_D": (128, 90, 120),
        "upsample2": (128, 180, 240),
        "conv2_1_D": (64, 180, 240),
        "upsample1": (64, 360, 480),
        "conv1_2_D": (64, 360, 480),
        "conv1_1_D": (11, 360, 480),
    }
    assert {name: table[name][1].shape for name in expected} == expected


def test_sizes_of_segnet_basic_for_360x480() -> None:
    table = rows(meta(segnet_basic))
    sides = {"pool1": (180, 240), "pool2": (90, 120), "pool3": (45, 60), "pool4": (23, 30)}
    sides |= {"conv_decode4": (45, 60), "conv_decode3": (90, 120), "conv_decode2": (180, 240)}
    assert {name: table[name][1].shape for name in sides} == {name: (64, *side) for name, side in sides.items()}
    assert table["conv_classifier"][1].shape == (11, 360, 480)


def test_sizes_for_45x61(caffe, randomise) -> None:
    """Ceilings all the way, through the independent reading as well."""
    slow = caffe(model=randomise(segnet_vgg16(num_classes=2, base_channels=1), seed=0))
    run_slowly(slow, SEGNET, torch.zeros(1, 3, 45, 61, dtype=torch.float64))
    table = rows(meta(segnet_vgg16, base_channels=1, num_classes=2), (45, 61))
    sides = [(23, 31), (12, 16), (6, 8), (3, 4), (2, 2)]
    assert [table[f"pool{level}"][1].shape[1:] for level in range(1, 6)] == sides
    assert all(table[name][1].shape == slow.shapes[name] for name in SEGNET.split())


def test_receptive_fields_after_the_pools() -> None:
    """The paper names 106 x 106 for the fourth layer of SegNet-Basic."""
    for build, fields in ((segnet_basic, [8, 22, 50, 106]), (segnet_vgg16, [6, 16, 44, 100, 212])):
        model = meta(build)
        layers = layer_table(model, in_channels=3, input_size=(360, 480))
        ends = [index for index, layer in enumerate(layers) if layer.kind == "max pool"]
        assert [receptive_fields(layers[: end + 1], axis=0, period=1) for end in ends] == [[f] for f in fields]
        period = model.size_rule.period
        whole = receptive_fields(layers, axis=1, period=2 * period)
        assert whole is not None
        assert whole[:period] == whole[period:]


class AveragedPool(MaxPool2x2):
    """Every pixel of a window counts, so that a gradient shows all of them."""

    def forward(self, x: Tensor) -> tuple[Tensor, Switches]:
        return functional.avg_pool2d(x, 2, ceil_mode=True), super().forward(x)[1]


class SpreadUnpool(MaxUnpool2x2):
    """Every pixel of a window gets the value."""

    def forward(self, x: Tensor, switches: Switches) -> Tensor:
        return functional.interpolate(x, scale_factor=2)[:, :, : switches.size[0], : switches.size[1]]


def probed(model: nn.Module) -> nn.Module:
    """Make weights positive and pools linear, so that no path cancels or dies."""
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)
    for name, module in list(model.named_children()):
        stand_in = {MaxPool2x2: AveragedPool, MaxUnpool2x2: SpreadUnpool}.get(type(module))
        if stand_in is not None:
            setattr(model, name, stand_in())
    return model.double().eval()


def test_field_of_the_fourth_pool_of_segnet_basic_is_106_by_gradient() -> None:
    model = probed(segnet_basic(num_classes=1, in_channels=1, base_channels=1))
    seen: list[Tensor] = []
    model.pool4.register_forward_hook(lambda _, args, out: seen.append(out[0]))
    image = torch.rand(1, 1, 208, 16, dtype=torch.float64, requires_grad=True)
    model(image)
    (gradient,) = torch.autograd.grad(seen[0][0, 0, 6, 0], image)
    read = gradient[0, 0].abs().sum(dim=1).nonzero().flatten()
    assert int(read[-1] - read[0] + 1) == 106


@pytest.mark.parametrize(("build", "side"), [(segnet_basic, 272), (segnet_vgg16, 512)])
def test_field_of_the_logits_by_gradient(build: Callable[..., nn.Module], side: int) -> None:
    layers = layer_table(
        meta(build, num_classes=1, in_channels=1, base_channels=1), in_channels=1, input_size=(side, 32)
    )
    model = probed(build(num_classes=1, in_channels=1, base_channels=1))
    image = torch.rand(1, 1, side, 32, dtype=torch.float64, requires_grad=True)
    logits = model(image).logits
    for position in (side // 2, side // 2 + 7):
        (gradient,) = torch.autograd.grad(logits[0, 0, position, 8], image, retain_graph=True)
        read = gradient[0, 0].abs().sum(dim=1).nonzero().flatten()
        assert input_span(layers, position, axis=0) == (int(read[0]), int(read[-1]))


@pytest.mark.parametrize("build", [segnet_vgg16, segnet_basic])
def test_decoder_block_k_consumes_the_switches_of_pool_k(build: Callable[..., nn.Module]) -> None:
    model = build(num_classes=2, base_channels=2)
    given: dict[str, Tensor] = {}
    taken: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, MaxPool2x2):
            module.register_forward_hook(lambda m, args, out, k=name[-1]: given.update({k: out[1].indices}))
        if isinstance(module, MaxUnpool2x2):
            module.register_forward_hook(lambda m, args, out, k=name[-1]: taken.update({k: args[1].indices}))
    model(torch.rand(1, 3, 64, 64))
    assert given.keys() == taken.keys()
    assert len(given) == {segnet_vgg16: 5, segnet_basic: 4}[build]
    assert all(given[level] is taken[level] for level in given)


def test_initialisation_is_the_release_fillers() -> None:
    torch.manual_seed(0)
    model = segnet_vgg16(num_classes=11, base_channels=16)
    for name in ("conv1_1", "conv3_2", "conv4_1_D", "conv1_1_D"):
        layer = model.get_submodule(name)
        std = math.sqrt(2 / (layer.in_channels * 9))
        assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.1)
        assert layer.bias.abs().max() == 0
    norm = model.get_submodule("conv4_1_D_bn")
    assert norm.weight.unique().tolist() == [1]
    assert norm.bias.unique().tolist() == pytest.approx([0.001])
    torch.manual_seed(0)
    basic = segnet_basic(num_classes=11, base_channels=32)
    assert float(basic.conv_decode2.weight.detach().std()) == pytest.approx(math.sqrt(2 / (32 * 49)), rel=0.05)


def test_normalisation_of_a_colour_image_is_the_sheets_formula() -> None:
    """Window 5 covers all three channels: y = x / (1 + 2e-5 * sum of x^2)^0.75."""
    model = segnet_basic(num_classes=2, base_channels=1)
    images = 255 * torch.rand(2, 3, 4, 5)
    expected = images / (1 + 2e-5 * images.square().sum(dim=1, keepdim=True)) ** 0.75
    torch.testing.assert_close(model.norm(images), expected)


def test_folded_statistics_of_caffe_give_the_same_values() -> None:
    """Caffe's inference layer is scale * x + shift, with statistics folded in: mean 0 and variance 1 here."""
    norm = nn.BatchNorm2d(3, eps=1e-9).double().eval()
    for tensor in (norm.weight, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 2)
    for tensor in (norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        expected = norm(x)
        scale = norm.weight / (norm.running_var + 1e-9).sqrt()
        norm.bias.copy_(norm.bias - scale * norm.running_mean)
        norm.weight.copy_(scale)
        norm.running_mean.zero_()
        norm.running_var.fill_(1)
        torch.testing.assert_close(norm(x), expected, rtol=1e-8, atol=1e-8)


def test_single_pixel_and_thin_images_run() -> None:
    for model in (segnet_vgg16(num_classes=2, base_channels=2), segnet_basic(num_classes=2, base_channels=2)):
        for size in ((1, 1), (1, 300), (257, 2)):
            assert model.eval()(torch.rand(1, 3, *size)).logits.shape == (1, 2, *size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_channels": 0}, r"base_channels=0; accepted: whole numbers from 1 \(the paper's is 64\)"),
        ({"dropout": 1.0}, r"dropout=1.0; accepted: 0 up to, not including, 1 \(the release's is 0.5\)"),
        ({"eps": 0.0}, r"eps=0.0; accepted: above 0 and below 1 \(the release's is 1e-9, PyTorch's 1e-5\)"),
        ({"dropout_places": "all"}, r"dropout_places='all'; accepted: 'central' or 'every'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        segnet_vgg16(num_classes=2, **options)


def test_dropout_is_absent_by_default() -> None:
    models: list[SegNet | SegNetBasic] = [meta(segnet_vgg16), meta(segnet_basic)]
    assert not [m for model in models for m in model.modules() if isinstance(m, nn.Dropout)]
    images = torch.rand(2, 3, 32, 32)
    torch.manual_seed(0)
    model = segnet_vgg16(num_classes=2, base_channels=2).train()
    assert torch.equal(model(images).logits, model(images).logits)
