"""The GCN held to the parameter counts of the paper's tables and to an independent reading of its figure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pixelwise.errors import RequestError
from pixelwise.models import create_model
from pixelwise.models.gcn import GCN, BoundaryRefinement, GlobalConv, score

Map = NDArray[np.float64]
SMALL = {"base_channels": 2, "blocks": (1, 1, 1, 1)}


def build(depth: int = 50, *, num_classes: int = 3, **options: object) -> GCN:
    torch.manual_seed(0)
    model = create_model(f"gcn_resnet{depth}", num_classes=num_classes, **options)
    assert isinstance(model, GCN)
    return model


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# Tables 1 and 2 of the paper print them in thousands; the 1x1 baseline has 43,008.
@pytest.mark.parametrize(
    ("k", "parameters", "dense"),
    [
        (3, 260_694, 387_072),
        (5, 434_490, 1_075_200),
        (7, 608_286, 2_107_392),
        (9, 782_082, 3_483_648),
        (11, 955_878, 5_203_968),
        (13, 1_129_674, 7_268_352),
        (15, 1_303_470, 9_676_800),
    ],
)
def test_counts_of_the_kernels(k: int, parameters: int, dense: int) -> None:
    with torch.device("meta"):
        assert count(GlobalConv(2048, 21, k)) == parameters
        assert count(score(2048, 21, k, "dense", bias=False, stack_channels=0)) == dense
        assert count(score(2048, 21, k, "1x1", bias=False, stack_channels=0)) == 43_008


@pytest.mark.parametrize(
    ("channels", "parameters"), [(0, 75_884_544), (2048, 75_884_544), (1024, 28_505_088), (210, 4_307_310)]
)
def test_counts_of_the_stacks(channels: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count(score(2048, 21, 7, "stacked", bias=False, stack_channels=channels)) == parameters
        assert count(score(2048, 21, 3, "stacked", bias=False, stack_channels=channels)) == 387_072


def test_counts_of_boundary_refinement() -> None:
    assert count(BoundaryRefinement(21)) == 7_980
    assert count(BoundaryRefinement(21, bias=False)) == 7_938


@pytest.mark.parametrize(
    ("depth", "k7", "k15"),
    [(50, 24_733_844, 26_052_308), (101, 43_725_972, 45_044_436), (152, 59_369_620, 60_688_084)],
)
def test_counts_of_the_ports_networks(depth: int, k7: int, k15: int) -> None:
    with torch.device("meta"):
        for k, wanted in ((7, k7), (15, k15)):
            assert count(build(depth, num_classes=21, k=k, bias=True, upsample="bilinear")) == wanted


def test_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        model = build(152, num_classes=21)
    kernels = [conv.kernel_size for conv in model.score.modules() if isinstance(conv, nn.Conv2d)]
    assert kernels == [(15, 1), (1, 15), (1, 15), (15, 1)] * 4
    assert not [conv for conv in model.score.modules() if isinstance(conv, nn.Conv2d) and conv.bias is not None]
    assert len([m for m in model.modules() if isinstance(m, BoundaryRefinement)]) == 9
    deconvolutions = {key: value.shape for key, value in model.named_parameters() if "deconvolution" in key}
    assert list(deconvolutions.values()) == [(21, 21, 4, 4)] * 5
    trunk = sum(count(model.get_submodule(name)) for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"))
    assert trunk == 58_143_808


def test_an_impulse_reaches_the_whole_kernel() -> None:
    """Each pair spreads it over k x k cells as a product of two profiles; their sum has rank two."""
    torch.manual_seed(0)
    layer = GlobalConv(1, 1, 15).double()
    impulse = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    impulse[0, 0, 0, 0] = 1
    with torch.no_grad():
        for out, rank in ((layer.left(impulse), 1), (layer.right(impulse), 1), (layer(impulse), 2)):
            assert torch.count_nonzero(out[0, 0, :8, :8]) == 64
            assert torch.count_nonzero(out[0, 0, 8:]) == torch.count_nonzero(out[0, 0, :, 8:]) == 0
            assert torch.linalg.matrix_rank(out[0, 0]) == rank
        impulse = impulse.roll((8, 8), (2, 3))
        assert torch.count_nonzero(layer(impulse)[0, 0, 1:, 1:]) == 225
        assert torch.count_nonzero(layer(impulse)) == 225


def test_initialisation() -> None:
    """New convolutions from N(0, 2 / fan_in), biases 0, in GCN and boundary refinement."""
    model = build(num_classes=16, base_channels=8, blocks=(1, 1, 1, 1), bias=True)
    for layer in (*model.score.modules(), *model.refine_score.modules(), *model.refine_sum.modules()):
        if isinstance(layer, nn.Conv2d):
            spread = (2 / layer.weight[0].numel()) ** 0.5
            assert layer.weight.std().item() == pytest.approx(spread, rel=0.1)
            assert layer.bias is not None
            assert not layer.bias.any()


def convolve(x: Map, conv: nn.Conv2d) -> Map:
    """A convolution that keeps the size, shift by shift."""
    weight = conv.weight.detach().double().numpy()
    rows, columns = (side // 2 for side in weight.shape[2:])
    padded = np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
    out = np.zeros((x.shape[0], weight.shape[0], *x.shape[2:]))
    for dy, dx in np.ndindex(*weight.shape[2:]):
        part = padded[:, :, dy : dy + x.shape[2], dx : dx + x.shape[3]]
        out += np.einsum("nchw,oc->nohw", part, weight[:, :, dy, dx])
    return out if conv.bias is None else out + conv.bias.detach().double().numpy()[:, None, None]


def double(x: Map, weight: Map) -> Map:
    """A deconvolution of 4 x 4 with stride 2: each number stamps its kernel, the margin of one is cut off."""
    height, width = x.shape[2:]
    out = np.zeros((x.shape[0], weight.shape[1], 2 * height + 2, 2 * width + 2))
    for row, column in np.ndindex(height, width):
        stamp = np.einsum("nc,cohw->nohw", x[:, :, row, column], weight)
        out[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += stamp
    return out[:, :, 1:-1, 1:-1]


def test_decoder_is_the_figure(randomise: Callable[..., nn.Module]) -> None:
    model = randomise(build(**SMALL, k=5), 1).eval()
    assert isinstance(model, GCN)
    for enlarge in model.enlarge:
        nn.init.normal_(enlarge.deconvolution.weight, std=0.3)
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    maps: dict[str, Map] = {}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        model.get_submodule(name).register_forward_hook(lambda m, a, out, name=name: maps.update({name: out.numpy()}))
    with torch.no_grad():
        found = model(images).logits.numpy()

    def refine(x: Map, name: str) -> Map:
        first, _, second = model.get_submodule(name).branch
        return x + convolve(np.maximum(convolve(x, first), 0), second)

    scores = []
    for index, name in enumerate(("layer4", "layer3", "layer2", "layer1")):
        left, right = model.score[index].left, model.score[index].right
        both = convolve(convolve(maps[name], left[0]), left[1]) + convolve(convolve(maps[name], right[0]), right[1])
        scores.append(refine(both, f"refine_score.{index}"))
    x = scores[0]
    for index in range(5):
        x = double(x, model.enlarge[index].deconvolution.weight.detach().numpy())
        x = refine(x + scores[index + 1] if index < 3 else x, f"refine_sum.{index}")
    np.testing.assert_allclose(found, x, rtol=1e-9, atol=1e-9 * abs(x).max())


def test_deconvolutions_start_as_the_bilinear_variant() -> None:
    learnt = build(**SMALL, boundary_refinement=False).eval()
    fixed = build(**SMALL, boundary_refinement=False, upsample="bilinear").eval()
    fixed.load_state_dict({key: value for key, value in learnt.state_dict().items() if "deconvolution" not in key})
    images = torch.randn(1, 3, 192, 192)
    with torch.no_grad():
        inner = (..., slice(80, 112), slice(80, 112))  # away from the border, where deconvolutions see zeros
        torch.testing.assert_close(learnt(images).logits[inner], fixed(images).logits[inner], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"score_layer": "1x1"},
        {"score_layer": "dense", "k": 5},
        {"score_layer": "stacked", "k": 7, "stack_channels": 4},
        {"boundary_refinement": False},
        {"mid_channels": 5},
        {"bias": True},
    ],
)
def test_options_run(options: dict[str, object]) -> None:
    model = build(**SMALL, **options).eval()
    assert model(torch.zeros(1, 3, 32, 64)).logits.shape == (1, 3, 32, 64)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (97, 33)])
def test_interpolation_takes_any_size_and_deconvolutions_multiples_of_32(height: int, width: int) -> None:
    images = torch.zeros(1, 3, height, width)
    assert build(**SMALL, upsample="bilinear").eval()(images).logits.shape == (1, 3, height, width)
    with pytest.raises(RequestError, match=rf"height {height} \(nearest legal: "):
        build(**SMALL).eval()(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 14}, "k=14; accepted: odd numbers from 1.*Give 13 or 15"),
        ({"k": 0}, "k=0; accepted: odd numbers from 1"),
        ({"score_layer": "large"}, "score_layer='large'; accepted: 'gcn', '1x1', 'dense', 'stacked'"),
        ({"upsample": "nearest"}, "upsample='nearest'; accepted: 'deconv', 'bilinear'"),
        ({"score_layer": "stacked", "k": 1}, "k=1 with score_layer='stacked'; accepted: odd numbers from 3"),
        ({"mid_channels": -1}, "mid_channels=-1, stack_channels=0; accepted"),
        ({"stack_channels": 8}, "stack_channels=8 has no effect with score_layer='gcn'"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        build(**{**SMALL, **options})


def test_global_conv_refuses_an_even_kernel() -> None:
    with pytest.raises(RequestError, match=r"k=6; accepted: odd numbers.*Give 5 or 7"):
        GlobalConv(4, 2, 6)
