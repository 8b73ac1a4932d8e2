"""DeepLab v1 held to the numbers of its paper and to the released definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.engine.layer_table import input_span, layer_table
from pixelwise.errors import RequestError
from pixelwise.models.deeplabv1 import (
    BRANCHES,
    DeepLab,
    LargeFOV,
    MultiScale,
    deeplabv1_vgg16_4x4_r4,
    deeplabv1_vgg16_4x4_r8,
    deeplabv1_vgg16_7x7,
    deeplabv1_vgg16_largefov,
    deeplabv1_vgg16_msc_largefov,
    field_of_view,
)
from pixelwise.models.fcn import fcn32s_vgg16

AVERAGED = [deeplabv1_vgg16_largefov, deeplabv1_vgg16_msc_largefov]
BORDERED = [deeplabv1_vgg16_7x7, deeplabv1_vgg16_4x4_r4, deeplabv1_vgg16_4x4_r8]


def meta(build: type, **options: object) -> DeepLab | LargeFOV:
    with torch.device("meta"):
        return build(**{"num_classes": 21, **options}).eval()


def awake(build: type, **options: object) -> DeepLab | LargeFOV:
    """Build at debug width with biases and scores that are not near zero, in double precision."""
    torch.manual_seed(0)
    model = build(**{"num_classes": 3, "base_channels": 2, **options}).eval().double()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or name.startswith(("fc8", "data", "pool")):
            nn.init.normal_(parameter, std=0.2)
    return model


def photograph(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def sides(model: nn.Module, side: int) -> dict[str, int]:
    """Return the side of every module's output for a square image, on the meta device."""
    seen: dict[str, int] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda m, a, out, name=name: seen.update({name: out.shape[2]} if isinstance(out, Tensor) else {})
        )
    model(torch.zeros(1, 3, side, side, device="meta"))
    return seen


@pytest.mark.parametrize(
    ("build", "parameters", "kernel", "rate", "view"),
    [
        (deeplabv1_vgg16_7x7, 134_346_581, 7, 4, 224),
        (deeplabv1_vgg16_4x4_r4, 65_140_565, 4, 4, 128),
        (deeplabv1_vgg16_4x4_r8, 65_140_565, 4, 8, 224),
        (deeplabv1_vgg16_largefov, 20_505_429, 3, 12, 224),
        (deeplabv1_vgg16_msc_largefov, 21_711_550, 3, 12, 224),
    ],
)
def test_kernels_rates_views_and_parameters(build: type, parameters: int, kernel: int, rate: int, view: int) -> None:
    """Kernel, rate, field of view and parameters; DeepLab-MSc adds 1,206,121 to its trunk."""
    model = meta(build)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert (model.fc6.kernel_size, model.fc6.dilation) == ((kernel, kernel), (rate, rate))
    assert field_of_view(kernel, rate) == view


def test_branches_hold_1206121_parameters() -> None:
    model = meta(deeplabv1_vgg16_msc_largefov)
    assert sum(p.numel() for name, p in model.named_parameters() if name.startswith(("data", "pool"))) == 1_206_121


@pytest.mark.parametrize(
    ("build", "pixels"),
    [
        (deeplabv1_vgg16_largefov, 435),
        (deeplabv1_vgg16_7x7, 404),
        (deeplabv1_vgg16_4x4_r8, 404),
        (deeplabv1_vgg16_4x4_r4, 308),
    ],
)
def test_receptive_fields_of_fc6(build: type, pixels: int) -> None:
    table = layer_table(meta(build, base_channels=1), in_channels=3, input_size=(514, 514))
    fc6 = next(index for index, layer in enumerate(table) if layer.name == "fc6")
    for cell in (0, 20):
        span = input_span(table[: fc6 + 1], cell, 0)
        assert span is not None
        assert span[1] - span[0] + 1 == pixels
        # LargeFOV lies on pixel 8 i; the others, whose first cell here is the one before the image, beside 8 i - 7.
        centre = 8 * cell if build is deeplabv1_vgg16_largefov else 8 * cell - 7.5
        assert (span[0] + span[1]) / 2 == centre


@pytest.mark.parametrize(
    ("side", "pools"), [(321, [161, 81, 41, 41, 41]), (513, [257, 129, 65, 65, 65]), (305, [153, 77, 39, 39, 39])]
)
def test_stages_of_largefov(side: int, pools: list[int]) -> None:
    """Table c1 for 321 and 513: n = 32 k - 31 (any 8 k + 1 will do) aligns under pools of 3x3."""
    seen = sides(meta(deeplabv1_vgg16_largefov, base_channels=1), side)
    assert [seen[f"pool{index}"] for index in range(1, 6)] == pools
    assert {seen[name] for name in ("pool5a", "fc6", "fc7", "fc8")} == {pools[-1]}


@pytest.mark.parametrize(
    ("side", "pools", "training", "use"), [(306, [154, 78, 40], 39, 41), (514, [258, 130, 66], 65, 67)]
)
@pytest.mark.parametrize("build", BORDERED)
def test_stages_of_the_bordered_networks(build: type, side: int, pools: list[int], training: int, use: int) -> None:
    """n = 8 k + 2: pool3 has k + 2 cells, pool4 k + 1 in training and k + 3 = 2 (n - 2) / 16 + 3 in the test net."""
    model = meta(build, base_channels=1)
    seen = sides(model, side)
    assert [seen[f"pool{index}"] for index in range(1, 4)] == pools
    assert {seen[name] for name in ("pool5", "fc6", "fc8")} == {use}
    assert model.scores(torch.zeros(1, 3, side, side, device="meta")).shape[2:] == (training, training)


@pytest.mark.parametrize(("side", "cells"), [(321, 41), (513, 65), (1, 1), (8, 1), (9, 2), (500, 63)])
@pytest.mark.parametrize("build", AVERAGED)
def test_score_maps(build: type, side: int, cells: int) -> None:
    model = meta(build, base_channels=1)
    assert model.scores(torch.zeros(1, 3, side, 33, device="meta")).shape == (1, 21, cells, 5)


@pytest.mark.parametrize("build", AVERAGED + BORDERED)
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 8), (9, 10), (97, 16), (321, 514)])
def test_any_size_comes_out_as_it_went_in(build: type, size: tuple[int, int]) -> None:
    model = meta(build, base_channels=1)
    assert model(torch.zeros(2, 3, *size, device="meta")).logits.shape == (2, 21, *size)


@pytest.mark.parametrize("size", [(41, 33), (30, 47), (5, 8), (1, 1)])
@pytest.mark.parametrize("build", AVERAGED)
def test_every_eighth_pixel_is_a_cell_that_training_sees(build: type, size: tuple[int, int]) -> None:
    """DeepLab-MSc too: its branches run densely in use, and with strides 8, 4, 2, 1, 1 in training."""
    model, image = awake(build), photograph(*size)
    with torch.no_grad():
        torch.testing.assert_close(model(image).logits[:, :, ::8, ::8], model.scores(image))


@pytest.mark.parametrize("build", BORDERED)
def test_training_cells_lie_on_pixel_8i_plus_1(build: type) -> None:
    """The border of the test network reaches 13 to 21 cells in; within, both networks have the same cells."""
    model, image = awake(build, base_channels=1), photograph(8 * 45 + 2, 8 * 45 + 2)
    with torch.no_grad():
        used, trained = model(image).logits[:, :, 1::8, 1::8], model.scores(image)
    assert used.shape == trained.shape == (1, 3, 46, 46)
    inner = (slice(None), slice(None), slice(22, 24), slice(22, 24))
    torch.testing.assert_close(used[inner], trained[inner])
    assert (used - trained).abs().max() > 1e-4


TRUNK = """conv1_1 conv1_2 pool1 conv2_1 conv2_2 pool2 conv3_1 conv3_2 conv3_3 pool3 conv4_1 conv4_2 conv4_3 pool4
conv5_1:2 conv5_2:2 conv5_3:2 pool5"""


def run(state: dict[str, Tensor], rows: str, x: Tensor, pools: dict[str, tuple[int, int, int]]) -> dict[str, Tensor]:
    """Run a definition's rows "name:dilation:padding" one by one and return every map."""
    maps = {"data": x}
    for row in rows.split():
        name, dilation, padding = (row + "::").split(":")[:3]
        if name == "pool5a":
            x = functional.conv2d(x, x.new_full((x.shape[1], 1, 3, 3), 1 / 9), padding=1, groups=x.shape[1])
        elif name in pools:
            kernel, stride, margin = pools[name]
            x = functional.max_pool2d(x, kernel, stride, margin, ceil_mode=True)
        else:
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            rate = int(dilation or 1)
            margin = int(padding) if padding else rate * (weight.shape[2] // 2)
            x = functional.conv2d(x, weight, bias, padding=margin, dilation=rate)
            x = x if name == "fc8" else x.clamp(min=0)
        maps[name] = x
    return maps


@pytest.mark.parametrize(("build", "fc6"), list(zip(BORDERED, ("fc6:4:12", "fc6:4:6", "fc6:8:12"), strict=True)))
def test_bordered_forward_is_the_released_definition(build: type, fc6: str) -> None:
    """Test: pool4 padded, zoom 8, 7 cut off in front and 8 behind. Training: pool4 not padded."""
    model, image = awake(build), photograph(34, 50)
    pools = {f"pool{index}": (2, 2, 1) for index in (1, 2, 3)} | {"pool5": (3, 1, 1)}
    with torch.no_grad():
        for margin in (0, 1):
            maps = run(model.state_dict(), f"{TRUNK} {fc6} fc7 fc8", image, {**pools, "pool4": (2, 1, margin)})
            if not margin:
                torch.testing.assert_close(model.scores(image), maps["fc8"])
        size = [8 * side - 7 for side in maps["fc8"].shape[2:]]
        assert size == [34 + 15, 50 + 15]
        zoomed = functional.interpolate(maps["fc8"], size=size, mode="bilinear", align_corners=True)
        torch.testing.assert_close(model(image).logits, zoomed[:, :, 7:-8, 7:-8])


@pytest.mark.parametrize("build", AVERAGED)
def test_averaged_forward_is_the_released_definition(build: type) -> None:
    """Test: zoom 8. Training of DeepLab-MSc: branch convolutions with strides, scores summed on the cells."""
    model, image = awake(build), photograph(33, 57)
    state = model.state_dict()
    pools = {f"pool{index}": (3, 2, 1) for index in (1, 2, 3)} | {"pool4": (3, 1, 1), "pool5": (3, 1, 1)}
    maps = run(state, f"{TRUNK} pool5a fc6:12:12 fc7 fc8", image, pools)

    def branch(name: str, stride: int) -> Tensor:
        x = maps[name]
        for part, settings in (("conv", {"stride": stride, "padding": 1}), ("fc", {}), ("ms", {})):
            x = functional.conv2d(x, state[f"{name}_{part}.weight"], state[f"{name}_{part}.bias"], **settings)
            x = x if part == "ms" else x.clamp(min=0)
        return x

    used, trained = [maps["fc8"]], maps["fc8"]
    if isinstance(model, MultiScale):
        used += [branch(name, 1) for name in BRANCHES]
        strides = {"data": 8, "pool1": 4, "pool2": 2, "pool3": 1, "pool4": 1}
        trained = trained + sum(branch(name, stride) for name, stride in strides.items())
    logits = sum(functional.interpolate(x, size=(33, 57), mode="bilinear", align_corners=True) for x in used)
    with torch.no_grad():
        torch.testing.assert_close(model(image).logits, logits)
        torch.testing.assert_close(model.scores(image), trained)


def test_7x7_has_the_weights_of_fcn32s() -> None:
    with torch.device("meta"):
        fcn = fcn32s_vgg16(num_classes=21).state_dict()
    renamed = {key.replace("score_fr", "fc8"): tensor.shape for key, tensor in fcn.items() if key != "upscore.weight"}
    assert renamed == {key: tensor.shape for key, tensor in meta(deeplabv1_vgg16_7x7).state_dict().items()}


def test_the_rate_leaves_the_state_dict_alone() -> None:
    torch.manual_seed(0)
    slow = deeplabv1_vgg16_4x4_r4(num_classes=2, base_channels=1)
    fast = deeplabv1_vgg16_4x4_r8(num_classes=2, base_channels=1)
    assert list(slow.state_dict()) == list(fast.state_dict())
    fast.load_state_dict(slow.state_dict())


def test_the_trunk_of_msc_is_largefov() -> None:
    alone, branched = meta(deeplabv1_vgg16_largefov).state_dict(), meta(deeplabv1_vgg16_msc_largefov).state_dict()
    assert {key: branched[key].shape for key in alone} == {key: tensor.shape for key, tensor in alone.items()}
    assert {key.split("_")[0] for key in branched.keys() - alone.keys()} == set(BRANCHES)


def test_initialisation() -> None:
    """fc8 0.01; branches 0.001, pool4_fc 0.005, their scores 0.01; biases 0."""
    torch.manual_seed(0)
    model = deeplabv1_vgg16_msc_largefov(num_classes=50, base_channels=16)
    stds = {f"{name}_{part}": std for name in BRANCHES for part, std in (("conv", 0.001), ("fc", 0.001), ("ms", 0.01))}
    for name, std in {**stds, "pool4_fc": 0.005, "fc8": 0.01}.items():
        weight = model.get_parameter(f"{name}.weight")
        assert weight.std().item() == pytest.approx(std, rel=0.08), name
    assert model.fc6.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert not any(p.count_nonzero() for name, p in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("build", AVERAGED + BORDERED)
def test_impossible_requests(build: type) -> None:
    with pytest.raises(RequestError, match=r"dropout=1\.5; accepted: 0 up to, not including, 1"):
        build(num_classes=2, dropout=1.5)
    with pytest.raises(RequestError, match="base_channels=0; accepted: whole numbers from 1"):
        build(num_classes=2, base_channels=0)
    model = meta(build, base_channels=1)
    for entry in (model, model.scores):
        with pytest.raises(RequestError, match=r"1 channels, shape \(1, 1, 9, 9\); this model was built for 3"):
            entry(torch.zeros(1, 1, 9, 9, device="meta"))


def test_training_scores_of_a_bordered_network_need_two_pixels() -> None:
    with pytest.raises(RequestError, match=r"height 1 \(nearest legal: 2\)"):
        meta(deeplabv1_vgg16_7x7, base_channels=1).scores(torch.zeros(1, 3, 1, 9, device="meta"))
