"""The context modules held to Table 1 of their paper, to its initialisation, and to the released definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.engine.layer_table import input_span, layer_table
from pixelwise.errors import RequestError
from pixelwise.layers.context import begin_as_identity, context_basic, context_large


def convolutions(context: nn.Sequential) -> list[nn.Conv2d]:
    return [layer for layer in context if isinstance(layer, nn.Conv2d)]


def fields(context: nn.Sequential) -> list[int]:
    """Return the receptive field of each convolution, in cells."""
    with torch.device("meta"):
        network = nn.Sequential(*convolutions(context))
    table = layer_table(network.to("meta"), in_channels=convolutions(context)[0].in_channels, input_size=(9, 9))
    spans = [input_span(table[: index + 1], 0, 0) for index in range(len(table))]
    return [span[1] - span[0] + 1 for span in spans if span is not None]


def parameters(context: nn.Sequential) -> tuple[int, int]:
    weights = sum(layer.weight.numel() for layer in convolutions(context))
    return weights, sum(p.numel() for p in context.parameters()) - weights


def test_table_1() -> None:
    """Rows "convolution", "dilation", "receptive field", "output channels" of Table 1, C = 2."""
    basic, large = context_basic(2), context_large(2)
    for context in (basic, large):
        layers = convolutions(context)
        assert [layer.kernel_size[0] for layer in layers] == [3, 3, 3, 3, 3, 3, 3, 1]
        assert [layer.dilation[0] for layer in layers] == [1, 1, 2, 4, 8, 16, 1, 1]
        assert fields(context) == [3, 5, 9, 17, 33, 65, 67, 67]
        truncated = [isinstance(layer, nn.ReLU) for layer in context]
        assert truncated == [False, True] * 7 + [False]
    assert [layer.out_channels for layer in convolutions(basic)] == [2] * 8
    assert [layer.out_channels for layer in convolutions(large)] == [4, 4, 8, 16, 32, 64, 64, 2]


@pytest.mark.parametrize(
    ("layers", "growth"),
    [(7, [3, 5, 9, 17, 33, 35, 35]), (10, [3, 5, 9, 17, 33, 65, 129, 257, 259, 259])],
)
def test_fields_of_the_other_lengths(layers: int, growth: list[int]) -> None:
    assert fields(context_basic(1, layers=layers)) == growth == fields(context_large(1, layers=layers))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_stacked_dilations_grow_exponentially_and_plain_layers_linearly(depth: int) -> None:
    """Section 2: 3x3 with dilation 1, 2, 4 see 3, 7, 15; L plain 3x3 layers see 1 + 2 L."""
    dilated = nn.Sequential(*(nn.Conv2d(1, 1, 3, dilation=2**layer) for layer in range(depth)))
    plain = nn.Sequential(*(nn.Conv2d(1, 1, 3) for _ in range(depth)))
    for network, side in ((dilated, (3, 7, 15)[depth - 1]), (plain, 1 + 2 * depth)):
        table = layer_table(network.to("meta"), in_channels=1, input_size=(40, 40))
        assert input_span(table, 0, 0) == (0, side - 1)


def test_gradient_probing_finds_67_cells() -> None:
    torch.manual_seed(0)
    context = context_basic(1).double()
    for layer in convolutions(context):
        layer.weight.data.abs_()  # so that no path is cut by a ReLU
    cells = torch.ones(1, 1, 81, 81, dtype=torch.float64, requires_grad=True)
    context(cells)[0, 0, 40, 40].backward()
    assert cells.grad is not None
    reached = cells.grad[0, 0].nonzero()
    assert reached.min(dim=0).values.tolist() == [7, 7]
    assert reached.max(dim=0).values.tolist() == [73, 73]
    assert len(reached) == 67 * 67


@pytest.mark.parametrize(
    ("build", "classes", "layers", "weights", "biases"),
    [
        (context_basic, 21, 8, 28_224, 168),
        (context_basic, 11, 8, 7_744, 88),
        (context_basic, 11, 7, 6_655, 77),
        (context_basic, 19, 10, 29_602, 190),
        (context_large, 21, 8, 6_801_102, 2_037),
    ],
)
def test_parameter_counts(build: type, classes: int, layers: int, weights: int, biases: int) -> None:
    with torch.device("meta"):
        assert parameters(build(classes, layers=layers)) == (weights, biases)


def test_the_basic_module_has_64_c_squared_weights_and_the_large_one_15422() -> None:
    with torch.device("meta"):
        assert parameters(context_basic(7))[0] == 64 * 7**2
        assert parameters(context_large(7))[0] == 15_422 * 7**2


@settings(max_examples=25, deadline=None)
@given(
    build=st.sampled_from([context_basic, context_large]),
    classes=st.integers(1, 4),
    layers=st.integers(4, 8),
    padding=st.sampled_from(["layers", "first"]),
    seed=st.integers(0, 99),
)
def test_without_noise_the_module_is_a_relu(build: type, classes: int, layers: int, padding: str, seed: int) -> None:
    scores = torch.randn(2, classes, 5, 7, generator=torch.Generator().manual_seed(seed))
    context = build(classes, layers=layers, padding=padding, sigma=0.0)
    torch.testing.assert_close(context(scores), scores.relu(), rtol=2e-6, atol=0)


def test_ten_layers_without_noise_are_a_relu_too() -> None:
    scores = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    for build in (context_basic, context_large):
        torch.testing.assert_close(build(1, layers=10, sigma=0.0)(scores), scores.relu(), rtol=2e-6, atol=0)


def test_identity_entries_are_the_paper_s_condition() -> None:
    """w[b, a] = C / c_out at the centre where floor(a C / c_in) = floor(b C / c_out), else the noise: here none."""
    classes, inputs, outputs = 3, 6, 12
    layer = nn.Conv2d(inputs, outputs, 3)
    begin_as_identity(layer, classes, std=0.0)
    expected = torch.zeros_like(layer.weight)
    for b in range(outputs):
        for a in range(inputs):
            if a * classes // inputs == b * classes // outputs:
                expected[b, a, 1, 1] = classes / outputs
    assert torch.equal(layer.weight, expected)


def test_noise_is_overwritten_by_the_identity_and_scaled_by_the_width() -> None:
    """`IdentityFiller`: N(0, (0.01 / m)^2) first, then the entries; the last layer takes m of the one before."""
    torch.manual_seed(0)
    for name, multiplier in (("ctx_conv1_2", 2), ("ctx_conv3_1", 8), ("ctx_fc1", 32), ("ctx_final", 32)):
        layer = context_large(8).get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        value = 8 / layer.out_channels
        middle = layer.kernel_size[0] // 2
        entries = layer.weight[:, :, middle, middle] == value
        assert int(entries.sum()) == layer.out_channels * layer.in_channels // 8
        noise = layer.weight.detach().flatten()
        noise = noise[noise != value]
        assert noise.std().item() == pytest.approx(0.01 / multiplier, rel=0.05)
        assert layer.bias is not None
        assert torch.count_nonzero(layer.bias) == 0


def test_padding_of_the_released_networks() -> None:
    assert [layer.padding[0] for layer in convolutions(context_large(1))] == [33, 0, 0, 0, 0, 0, 0, 0]
    assert [layer.padding[0] for layer in convolutions(context_basic(1))] == [1, 1, 2, 4, 8, 16, 1, 0]
    ten = [layer.padding[0] for layer in convolutions(context_basic(1, layers=10))]
    assert ten == [1, 1, 2, 4, 8, 16, 32, 64, 1, 0]


def test_the_paddings_differ_near_the_border_only() -> None:
    torch.manual_seed(1)
    layers, first = context_basic(2, sigma=0.3), context_basic(2, sigma=0.3, padding="first")
    first.load_state_dict(layers.state_dict())
    for bias in (p for name, p in layers.named_parameters() if name.endswith("bias")):
        nn.init.normal_(bias)
    first.load_state_dict(layers.state_dict())
    scores = torch.randn(1, 2, 70, 70)
    with torch.no_grad():
        one, other = layers(scores), first(scores)
    inner = (slice(None), slice(None), slice(33, 37), slice(33, 37))
    torch.testing.assert_close(one[inner], other[inner])
    assert (one - other).abs().max() > 1e-3


def test_forward_is_eight_dilated_convolutions() -> None:
    torch.manual_seed(2)
    context = context_large(2, sigma=0.5)
    scores = torch.randn(1, 2, 6, 5)
    x: Tensor = functional.pad(scores, (33, 33, 33, 33))
    names = ["conv1_1", "conv1_2", "conv2_1", "conv3_1", "conv4_1", "conv5_1", "fc1"]
    for name, dilation in zip(names, (1, 1, 2, 4, 8, 16, 1), strict=True):
        weight, bias = context.get_parameter(f"ctx_{name}.weight"), context.get_parameter(f"ctx_{name}.bias")
        x = functional.conv2d(x, weight, bias, dilation=dilation).clamp(min=0)
    final = context.get_parameter("ctx_final.weight"), context.get_parameter("ctx_final.bias")
    torch.testing.assert_close(context(scores), functional.conv2d(x, *final))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layers": 3}, "context of 3 layers for 2 classes; accepted: from 4 layers"),
        ({"sigma": -0.5}, "sigma=-0.5; accepted: from 0"),
        ({"padding": "zeros"}, "context padding='zeros'; accepted: 'layers' or 'first'"),
    ],
)
def test_impossible_requests(options: dict[str, object], text: str) -> None:
    for build in (context_basic, context_large):
        with pytest.raises(RequestError, match=text):
            build(2, **options)
