"""FCN held to the released nets by numbers, and to an independent reading of their definitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.backbones.alexnet import CaffeNet
from pixelwise.backbones.transplant import transplant
from pixelwise.backbones.vgg import VGG16, by_layer_name
from pixelwise.engine.layer_table import layer_table, receptive_fields
from pixelwise.errors import RequestError
from pixelwise.layers.bilinear import bilinear_kernel
from pixelwise.models.fcn import fcn8s_vgg16, fcn8s_vgg16_atonce, fcn16s_vgg16, fcn32s_vgg16
from pixelwise.models.fcn_alexnet import fcn_alexnet
from pixelwise.models.fcn_googlenet import fcn_googlenet

META = torch.device("meta")
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "fcn32s_vgg16": fcn32s_vgg16,
    "fcn16s_vgg16": fcn16s_vgg16,
    "fcn8s_vgg16": fcn8s_vgg16,
    "fcn8s_vgg16_atonce": fcn8s_vgg16_atonce,
    "fcn_alexnet": fcn_alexnet,
    "fcn_googlenet": fcn_googlenet,
}
SMALL = dict.fromkeys(BUILDERS, 2) | {"fcn_alexnet": 6, "fcn_googlenet": 8}
VGG = [name for name in BUILDERS if name.endswith(("vgg16", "atonce"))]
every_net = pytest.mark.parametrize("name", BUILDERS)


def small(name: str, *, num_classes: int = 3, **options: object) -> nn.Module:
    """Build a net at debug width whose score layers and biases are not zero."""
    torch.manual_seed(0)
    model = BUILDERS[name](num_classes=num_classes, base_channels=SMALL[name], **options)
    for key, parameter in model.named_parameters():
        if key.startswith("score"):
            nn.init.normal_(parameter, std=1.0)
        elif key.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


def image(height: int, width: int) -> Tensor:
    return 50 * torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# Parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [21, 60, 40, 11, 2])
def test_parameters(num_classes: int) -> None:
    expected = {
        "fcn32s_vgg16": (134_346_581, 134_506_364, 134_424_424, 134_305_611, 134_268_738),
        "fcn16s_vgg16": (134_357_354, 134_537_144, 134_444_944, 134_311_254, 134_269_764),
        "fcn8s_vgg16": (134_362_751, 134_552_564, 134_455_224, 134_314_081, 134_270_278),
        "fcn8s_vgg16_atonce": (134_362_751, 134_552_564, 134_455_224, 134_314_081, 134_270_278),
    }
    column = [21, 60, 40, 11, 2].index(num_classes)
    with META:
        counts = {name: count(BUILDERS[name](num_classes=num_classes)) for name in VGG}
    assert counts == {name: row[column] for name, row in expected.items()}


def test_parameters_of_the_other_bases() -> None:
    with META:
        assert count(fcn_alexnet(num_classes=21)) == 56_954_261
        assert count(fcn_googlenet(num_classes=21)) == 5_995_077
        assert count(fcn_googlenet(num_classes=21, final_pool=True)) == 5_995_077


def test_pieces_for_21_classes() -> None:
    with META:
        model = fcn8s_vgg16(num_classes=21)
    sizes = {name: count(layer) for name, layer in model.named_children()}
    assert sum(size for name, size in sizes.items() if name.startswith("conv")) == 14_714_688
    assert (sizes["fc6"], sizes["fc7"], sizes["score_fr"]) == (102_764_544, 16_781_312, 86_037)
    assert (sizes["score_pool4"], sizes["score_pool3"]) == (10_773, 5_397)
    assert sizes["upscore2"] == sizes["upscore_pool4"] == sizes["upscore8"] == 0


@pytest.mark.parametrize(
    ("name", "all_learnt", "final_fixed"),
    [
        ("fcn32s_vgg16", 136_152_917, None),
        ("fcn16s_vgg16", 134_815_994, 134_364_410),
        ("fcn8s_vgg16", 134_489_759, 134_376_863),
    ],
)
def test_learnt_upsampling_counts_dense_kernels(name: str, all_learnt: int, final_fixed: int | None) -> None:
    with META:
        assert count(BUILDERS[name](num_classes=21, learn_upsampling=True)) == all_learnt
        if final_fixed is not None:
            model = BUILDERS[name](num_classes=21, learn_upsampling=True, fixed_final=True)
            assert count(model) == final_fixed


# Sizes ----------------------------------------------------------------------------------------------------------


def sides_of(model: nn.Module, side: int) -> dict[str, int]:
    """Return the output side of every layer."""
    sides: dict[str, int] = {}
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda m, a, out, name=name: sides.update({name: out.shape[2]}))
    model(torch.zeros(1, 3, side, side, device="meta"))
    return sides


def test_layer_table_for_500() -> None:
    with META:
        model = fcn8s_vgg16(num_classes=21)
    sides = sides_of(model, 500)
    trunk = {"conv1_1": 698, "conv1_2": 698, "conv2_2": 349, "conv3_3": 175, "conv4_3": 88, "conv5_3": 44}
    assert {name: sides[name] for name in trunk} == trunk
    assert [sides[f"pool{i}"] for i in range(1, 6)] == [349, 175, 88, 44, 22]
    assert sides["fc6"] == sides["fc7"] == sides["score_fr"] == 16
    assert [sides[name] for name in ("upscore2", "upscore_pool4", "upscore8")] == [34, 70, 568]


@pytest.mark.parametrize(
    ("side", "pools", "fc6", "up32", "up16", "up8"),
    [
        (224, [211, 106, 53, 27, 14], 8, 288, [18, 304], [38, 312]),
        (256, [227, 114, 57, 29, 15], 9, 320, [20, 336], [42, 344]),
        (375, [287, 144, 72, 36, 18], 12, 416, [26, 432], [54, 440]),
        (512, [355, 178, 89, 45, 23], 17, 576, [36, 592], [74, 600]),
        (360, [279, 140, 70, 35, 18], 12, 416, [26, 432], [54, 440]),
        (1, [100, 50, 25, 13, 7], 1, 64, [4, 80], [10, 88]),
    ],
)
def test_sizes(side: int, pools: list[int], fc6: int, up32: int, up16: list[int], up8: list[int]) -> None:
    with META:
        nets = {name: BUILDERS[name](num_classes=2, base_channels=1) for name in VGG}
    sides = {name: sides_of(net, side) for name, net in nets.items()}
    assert [sides["fcn32s_vgg16"][f"pool{i}"] for i in range(1, 6)] == pools
    assert sides["fcn32s_vgg16"]["fc6"] == fc6
    assert sides["fcn32s_vgg16"]["upscore"] == up32
    assert [sides["fcn16s_vgg16"][name] for name in ("upscore2", "upscore16")] == up16
    assert [sides["fcn8s_vgg16"][name] for name in ("upscore_pool4", "upscore8")] == up8
    assert sides["fcn8s_vgg16_atonce"] == sides["fcn8s_vgg16"]


def test_alexnet_table_for_500() -> None:
    with META:
        sides = sides_of(fcn_alexnet(num_classes=21), 500)
    trunk = ["conv1", "pool1", "norm1", "conv2", "pool2", "norm2", "conv3", "conv4", "conv5", "pool5"]
    assert [sides[name] for name in trunk] == [173, 86, 86, 86, 43, 43, 43, 43, 43, 21]
    assert (sides["fc6"], sides["fc7"], sides["score_fr"], sides["upscore"]) == (16, 16, 16, 543)


@every_net
def test_any_size_comes_out_as_it_went_in(name: str) -> None:
    """Heights 1 to 300 with widths 301 to 600, at every place of a cell of 32 pixels."""
    with META:
        model = BUILDERS[name](num_classes=1, base_channels=SMALL[name])
        for side in range(1, 301, 7):
            assert model(torch.zeros(1, 3, side, 601 - side)).logits.shape == (1, 1, side, 601 - side)


@pytest.mark.slow
def test_every_size_comes_out_as_it_went_in() -> None:
    with META:
        model = BUILDERS["fcn8s_vgg16"](num_classes=1, base_channels=SMALL["fcn8s_vgg16"])
        for side in range(1, 301):
            assert model(torch.zeros(1, 3, side, 601 - side)).logits.shape == (1, 1, side, 601 - side)


def test_one_pixel_and_extreme_shapes() -> None:
    for name in BUILDERS:
        model = small(name)
        with torch.no_grad():
            for height, width in ((1, 1), (1, 700), (700, 1)):
                logits = model(image(height, width)).logits
                assert logits.shape == (1, 3, height, width)
                assert logits.isfinite().all()


def pooled(side: int, times: int) -> int:
    for _ in range(times):
        side = math.ceil((side - 2) / 2) + 1
    return side


def test_crops_fit_every_size_to_3000() -> None:
    slack: dict[str, int] = {}
    for side in range(1, 3001):
        pool3, pool4, pool5 = (pooled(side + 198, times) for times in (3, 4, 5))
        score = pool5 - 6
        up2 = 2 * score + 2
        up4 = 2 * up2 + 2
        alexnet = math.ceil((math.ceil((math.ceil(((side + 189) // 4 + 1 - 3) / 2) + 1 - 3) / 2) + 1 - 3) / 2) + 1 - 5
        beyond = {
            "32s": 32 * score + 32 - 19 - side,
            "16s": 16 * up2 + 16 - 27 - side,
            "8s": 8 * up4 + 8 - 31 - side,
            "pool4": pool4 - 5 - up2,
            "pool3": pool3 - 9 - up4,
            "alexnet": 32 * alexnet + 31 - 18 - side,
        }
        slack = {key: min(value, slack.get(key, value)) for key, value in beyond.items()}
    assert slack == {"32s": 19, "16s": 27, "8s": 31, "pool4": 4, "pool3": 6, "alexnet": 15}


# Crops and alignment --------------------------------------------------------------------------------------------


def first_centre(*layers: tuple[int, int, int]) -> tuple[float, int]:
    """Return the input pixel under the first cell, and the stride, after layers (kernel, stride, padding)."""
    centre, stride = 0.0, 1
    for kernel, step, padding in layers:
        centre += stride * ((kernel - 1) / 2 - padding)
        stride *= step
    return centre, stride


POOL, SAME = (2, 2, 0), (3, 1, 1)
TO_POOL3 = [(3, 1, 100), SAME, POOL, SAME, SAME, POOL, SAME, SAME, SAME, POOL]
TO_POOL4 = [*TO_POOL3, SAME, SAME, SAME, POOL]
TO_FC6 = [*TO_POOL4, SAME, SAME, SAME, POOL, (7, 1, 0)]


def offset(origin: float, centre: float, kernel: int, step: int) -> tuple[float, float]:
    """Return the first output of a deconvolution in pixels, and the crop that puts pixel 0 first."""
    first = centre - (kernel - 1) / 2 * step
    return first, (origin - first) / step


def test_crops_follow_from_alignment() -> None:
    fc6, stride = first_centre(*TO_FC6)
    assert (fc6, stride) == (12.5, 32)
    assert offset(0, fc6, 64, 1)[1] == 19
    pool4, stride = first_centre(*TO_POOL4)
    up2, _ = offset(0, fc6, 4, 16)
    assert stride == 16
    assert (up2 - pool4) / 16 == 5
    assert offset(0, up2, 32, 1)[1] == 27
    pool3, stride = first_centre(*TO_POOL3)
    up4, _ = offset(0, up2, 4, 8)
    assert stride == 8
    assert (up4 - pool3) / 8 == 9
    assert offset(0, up4, 16, 1)[1] == 31


def test_crops_of_the_other_bases_follow_from_alignment() -> None:
    pool = (3, 2, 0)
    alexnet = [(11, 4, 100), pool, (5, 1, 2), pool, SAME, SAME, SAME, pool, (6, 1, 0)]
    centre, stride = first_centre(*alexnet)
    assert (centre, stride) == (13, 32)
    assert offset(0, centre, 63, 1)[1] == 18
    googlenet = [(7, 2, 100), pool, SAME, pool, pool, pool]
    centre, stride = first_centre(*googlenet)
    assert stride == 32
    with META:
        assert offset(0, centre, 63, 1)[1] == 98 == fcn_googlenet(num_classes=2).offset
        centre, _ = first_centre(*googlenet, (7, 1, 0))
        assert offset(0, centre, 63, 1)[1] == 2 == fcn_googlenet(num_classes=2, final_pool=True).offset


def only_averages(model: nn.Module) -> nn.Module:
    """Turn every convolution into an average of all it sees and every max pool into an average."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            nn.init.zeros_(layer.bias)
        parent, _, child = name.rpartition(".")
        if isinstance(layer, nn.MaxPool2d):
            pool = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
            model.get_submodule(parent).add_module(child, pool)
        if isinstance(layer, nn.LocalResponseNorm):
            model.get_submodule(parent).add_module(child, nn.Identity())
    return model.eval()


@pytest.mark.parametrize(
    ("name", "options", "factor"),
    [
        ("fcn32s_vgg16", {}, 1),
        ("fcn16s_vgg16", {}, 2),
        ("fcn8s_vgg16", {}, 3),
        ("fcn8s_vgg16_atonce", {}, 1.0101),
        ("fcn_alexnet", {}, 1),
        ("fcn_googlenet", {}, 1),
        ("fcn_googlenet", {"final_pool": True}, 1),
    ],
)
def test_an_averaging_net_gives_a_ramp_back(name: str, options: dict[str, bool], factor: float) -> None:
    """Averages and bilinear upsampling keep a ramp; a crop that is off by a pixel would shift it."""
    base = 1 if name in VGG else SMALL[name]
    model = only_averages(BUILDERS[name](num_classes=1, in_channels=1, base_channels=base, **options))
    side = 1100 if name == "fcn_googlenet" else 600  # leaves two periods of 32 whose fields lie in the image
    ramp = torch.arange(float(side))
    with torch.no_grad():
        logits = model((ramp + 2 * ramp[:, None])[None, None]).logits[0, 0]
    middle = slice(side // 2 - 32, side // 2 + 32)
    expected = factor * (ramp + 2 * ramp[:, None])
    torch.testing.assert_close(logits[middle, middle], expected[middle, middle], rtol=0, atol=0.02)


# An independent reading of the released definitions -------------------------------------------------------------


class Caffe:
    """The released nets layer by layer, each operation written out from Caffe's definition of it."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def convolve(self, x: Tensor, name: str, *, pad: int = 0, stride: int = 1, relu: bool = True) -> Tensor:
        """Multiply unfolded windows by the weights, group by group."""
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        size = weight.shape[2]
        groups = x.shape[1] // weight.shape[1]
        sides = [(side + 2 * pad - size) // stride + 1 for side in x.shape[2:]]
        parts = [
            w.flatten(1) @ functional.unfold(part, size, padding=pad, stride=stride)
            for w, part in zip(weight.chunk(groups), x.chunk(groups, dim=1), strict=True)
        ]
        out = torch.cat(parts, dim=1).unflatten(2, sides) + bias[:, None, None]
        return out.clamp(min=0) if relu else out

    def pool(self, x: Tensor, size: int) -> Tensor:
        """Take maxima of windows with a stride of 2; a window that has started counts."""
        height, width = (math.ceil((side - size) / 2) + 1 for side in x.shape[2:])
        rows = [x[:, :, 2 * i : 2 * i + size].amax(2) for i in range(height)]
        columns = [torch.stack(rows, 2)[:, :, :, 2 * j : 2 * j + size].amax(3) for j in range(width)]
        return torch.stack(columns, 3)

    def normalise(self, x: Tensor) -> Tensor:
        """Divide by (1 + 1e-4 / 5 * sum of the squares of five channels) ^ 0.75."""
        squares = functional.pad(x.square(), (0, 0, 0, 0, 2, 2))
        near = sum(squares[:, i : i + x.shape[1]] for i in range(5))
        return x / (1 + 1e-4 / 5 * near) ** 0.75

    def upsample(self, x: Tensor, size: int, stride: int) -> Tensor:
        """Add a bilinear kernel at every cell."""
        kernel = bilinear_kernel(size).to(x)
        height, width = ((side - 1) * stride + size for side in x.shape[2:])
        out = x.new_zeros(*x.shape[:2], height, width)
        for i, j in itertools.product(range(x.shape[2]), range(x.shape[3])):
            spot = out[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
            spot += x[:, :, i : i + 1, j : j + 1] * kernel
        return out

    def crop(self, x: Tensor, offset: int, like: Tensor) -> Tensor:
        """Cut out as many rows and columns as `like` has."""
        height, width = like.shape[2:]
        return x.narrow(2, offset, height).narrow(3, offset, width)


def read_vgg(name: str, state: dict[str, Tensor], data: Tensor) -> Tensor:
    net = Caffe(state)
    x, pools = data, []
    for block, convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, convolutions + 1):
            x = net.convolve(x, f"conv{block}_{i}", pad=100 if (block, i) == (1, 1) else 1)
        x = net.pool(x, 2)
        pools.append(x)
    fc7 = net.convolve(net.convolve(x, "fc6"), "fc7")
    score = net.convolve(fc7, "score_fr", relu=False)
    if name == "fcn32s_vgg16":
        return net.crop(net.upsample(score, 64, 32), 19, data)
    scale4, scale3 = (0.01, 0.0001) if name == "fcn8s_vgg16_atonce" else (1, 1)
    score = net.upsample(score, 4, 2)
    score = score + net.crop(net.convolve(pools[3] * scale4, "score_pool4", relu=False), 5, score)
    if name == "fcn16s_vgg16":
        return net.crop(net.upsample(score, 32, 16), 27, data)
    score = net.upsample(score, 4, 2)
    score = score + net.crop(net.convolve(pools[2] * scale3, "score_pool3", relu=False), 9, score)
    return net.crop(net.upsample(score, 16, 8), 31, data)


def read_alexnet(state: dict[str, Tensor], data: Tensor) -> Tensor:
    net = Caffe(state)
    x = net.normalise(net.pool(net.convolve(data, "conv1", pad=100, stride=4), 3))
    x = net.normalise(net.pool(net.convolve(x, "conv2", pad=2), 3))
    x = net.convolve(net.convolve(net.convolve(x, "conv3", pad=1), "conv4", pad=1), "conv5", pad=1)
    fc7 = net.convolve(net.convolve(net.pool(x, 3), "fc6"), "fc7")
    return net.crop(net.upsample(net.convolve(fc7, "score_fr", relu=False), 63, 32), 18, data)


@pytest.mark.parametrize("name", [*VGG, "fcn_alexnet"])
@pytest.mark.parametrize(("height", "width"), [(37, 50), (1, 75)])
def test_net_is_what_its_definition_says(name: str, height: int, width: int) -> None:
    model = small(name).double()
    data = image(height, width).double()
    state = {key: value.detach() for key, value in model.state_dict().items()}
    with torch.no_grad():
        logits = model(data).logits
        expected = read_alexnet(state, data) if name == "fcn_alexnet" else read_vgg(name, state, data)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6)


# Behaviour ------------------------------------------------------------------------------------------------------


@every_net
def test_first_output_is_zero_and_first_loss_ln_of_classes(name: str) -> None:
    torch.manual_seed(0)
    model = BUILDERS[name](num_classes=21, base_channels=SMALL[name])
    logits = model(image(70, 50)).logits
    assert not logits.any()
    labels = torch.randint(21, (1, 70, 50))
    assert float(functional.cross_entropy(logits, labels).detach()) == pytest.approx(math.log(21), abs=1e-6)
    assert math.log(21) == pytest.approx(3.0445, abs=5e-5)


@every_net
def test_scores_only_the_biases_come_out_as_the_biases(name: str) -> None:
    """With zero weights the interior is the sum of the score biases, which no scale touches.

    At the top left border the upsampling fades to the zeros beyond.
    """
    model = BUILDERS[name](num_classes=2, base_channels=SMALL[name]).eval()
    scores = {"fcn16s_vgg16": 2, "fcn8s_vgg16": 3, "fcn8s_vgg16_atonce": 3}.get(name, 1)
    for key, parameter in model.named_parameters():
        if key.startswith("score") and key.endswith("bias"):
            nn.init.constant_(parameter, 0.5)
    with torch.no_grad():
        logits = model(image(64, 64)).logits[..., 28:, 28:]
    torch.testing.assert_close(logits, torch.full_like(logits, 0.5 * scores))


def test_all_at_once_scales_the_features() -> None:
    """Weights 100 and 10,000 times larger make the at-once net the plain one."""
    plain, at_once = small("fcn8s_vgg16"), fcn8s_vgg16_atonce(num_classes=3, base_channels=2).eval()
    state = {key: value.clone() for key, value in plain.state_dict().items()}
    state["score_pool4.weight"] *= 100
    state["score_pool3.weight"] *= 10_000
    at_once.load_state_dict(state)
    x = image(60, 45)
    with torch.no_grad():
        torch.testing.assert_close(at_once(x).logits, plain(x).logits, rtol=1e-4, atol=1e-4)


def test_bilinear_kernels_are_frozen_unless_asked() -> None:
    fixed = small("fcn8s_vgg16")
    assert not [key for key, _ in fixed.named_parameters() if key.startswith("up")]
    assert fixed.state_dict()["upscore2.weight"].shape == (3, 1, 4, 4)
    learnt = small("fcn8s_vgg16", learn_upsampling=True)
    ups = ["upscore2.weight", "upscore_pool4.weight", "upscore8.weight"]
    assert [key for key, _ in learnt.named_parameters() if key.startswith("up")] == ups
    text = small("fcn8s_vgg16", learn_upsampling=True, fixed_final=True)
    assert [key for key, _ in text.named_parameters() if key.startswith("up")] == ups[:2]
    x = image(40, 33)
    with torch.no_grad():
        torch.testing.assert_close(learnt(x).logits, fixed(x).logits, rtol=1e-4, atol=1e-4)
    text(x).logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in text.parameters())


@every_net
def test_dropout_works_in_training_alone(name: str) -> None:
    model, x = small(name), image(50, 60)
    with torch.no_grad():
        assert torch.equal(model(x).logits, model(x).logits)
        assert not torch.equal(model.train()(x).logits, model(x).logits)


# Weights of other networks --------------------------------------------------------------------------------------


def test_staged_transplant_tells_what_was_new() -> None:
    fcn32s, fcn16s, fcn8s = (small(name) for name in VGG[:3])
    first = transplant(fcn32s.state_dict(), fcn16s)
    assert first.new == ("score_pool4.bias", "score_pool4.weight", "upscore16.weight", "upscore2.weight")
    assert first.unused == ("upscore.weight",)
    second = transplant(fcn16s.state_dict(), fcn8s)
    assert second.new == ("score_pool3.bias", "score_pool3.weight", "upscore8.weight", "upscore_pool4.weight")
    assert second.unused == ("upscore16.weight",)
    assert torch.equal(fcn8s.score_pool4.weight, fcn16s.score_pool4.weight)
    assert torch.equal(fcn8s.fc6.weight, fcn32s.fc6.weight)


@pytest.mark.parametrize(("finer", "margin"), [("fcn16s_vgg16", 8), ("fcn8s_vgg16", 12)])
def test_transplanted_net_starts_where_the_coarser_one_was(finer: str, margin: int) -> None:
    """The skips start at zero; what remains is the difference of upsampling in one step and in several.

    Several steps draw straight lines between samples of the one step's broken line, so that they cut its corners
    at the cells' centres, pixels 12.5 + 32 i, and agree from `margin` pixels away from them.
    """
    coarse = small("fcn32s_vgg16")
    fine = BUILDERS[finer](num_classes=3, base_channels=2).eval()
    transplant(coarse.state_dict(), fine)
    x = image(400, 300)
    with torch.no_grad():
        before, after = coarse(x).logits, fine(x).logits
    assert float(before.std()) > 1
    away = [p for p in range(45, 240) if margin <= (p - 12.5) % 32 <= 32 - margin]
    assert len(away) >= 48
    straight = before[:, :, away][:, :, :, away]
    torch.testing.assert_close(
        after[:, :, away][:, :, :, away], straight, rtol=0, atol=1e-5 * float(before.abs().max())
    )
    inner = (..., slice(45, 240), slice(45, 240))
    difference = (after[inner] - before[inner]).abs()
    assert 0 < float(difference.mean()) < 0.2 * float(before[inner].std())


def test_imagenet_vgg_gives_the_classifiers_logits() -> None:
    """fc6 and fc7 reshaped, 1 instead of 100 zeros around a 224 x 224 image: one cell, the class layer's logits."""
    torch.manual_seed(0)
    classifier = VGG16(num_classes=10, base_channels=2).eval()
    model = fcn32s_vgg16(num_classes=10, base_channels=2).eval()
    done = transplant(by_layer_name(classifier.state_dict()), model)
    assert done.new == ("score_fr.bias", "score_fr.weight", "upscore.weight")
    assert done.unused == ()
    state = classifier.state_dict()
    transplant({f"score_fr.{kind}": state[f"classifier.6.{kind}"] for kind in ("weight", "bias")}, model)
    model.conv1_1.padding = (1, 1)
    x = image(224, 224)
    with torch.no_grad():
        scores = model.descend(x)[2]
        torch.testing.assert_close(scores[:, :, 0, 0], classifier(x), rtol=1e-4, atol=1e-4)
    assert scores.shape == (1, 10, 1, 1)


def test_caffenet_classifier_gives_its_logits() -> None:
    torch.manual_seed(0)
    classifier = CaffeNet(num_classes=10, base_channels=6).eval()
    model = fcn_alexnet(num_classes=10, base_channels=6).eval()
    state = classifier.state_dict()
    weights = {name.replace("fc8", "score_fr"): t for name, t in state.items()}
    assert transplant(weights, model).new == ("upscore.weight",)
    model.conv1.padding = (0, 0)
    seen: list[Tensor] = []
    model.score_fr.register_forward_hook(lambda m, a, out: seen.append(out))
    x = image(227, 227)
    with torch.no_grad():
        model(x)
        torch.testing.assert_close(seen[0][:, :, 0, 0], classifier(x), rtol=1e-4, atol=1e-4)


# Receptive fields -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "fields"),
    [
        ("fcn32s_vgg16", {}, {"pool1": 6, "pool2": 16, "pool3": 44, "pool4": 100, "pool5": 212, "fc6": 404}),
        ("fcn_alexnet", {}, {"conv1": 11, "pool5": 195, "fc6": 355, "score_fr": 355}),
        ("fcn_googlenet", {}, {"conv1.conv": 7, "score_fr": 715}),
        ("fcn_googlenet", {"final_pool": True}, {"score_fr": 907}),
    ],
)
def test_receptive_fields(name: str, options: dict[str, bool], fields: dict[str, int]) -> None:
    with META:
        model = BUILDERS[name](num_classes=2, base_channels=SMALL[name], **options)
    layers = layer_table(model, in_channels=3, input_size=(500, 500))
    for layer, field in fields.items():
        until = layers[: max(i for i, row in enumerate(layers) if row.name == layer) + 1]
        assert [receptive_fields(until, axis=axis, period=1) for axis in (0, 1)] == [[field], [field]]


@pytest.mark.parametrize(
    ("name", "options", "field", "cell"),
    [
        ("fcn32s_vgg16", {}, 404, 12),
        ("fcn_alexnet", {}, 355, 12),
        ("fcn_googlenet", {}, 715, 17),
        ("fcn_googlenet", {"final_pool": True}, 907, 14),
    ],
)
def test_receptive_field_by_gradient(name: str, options: dict[str, bool], field: int, cell: int) -> None:
    """Mark the pixels that move one score, where the whole field lies inside the image."""
    base = 1 if name in VGG else SMALL[name]
    model = only_averages(BUILDERS[name](num_classes=1, in_channels=1, base_channels=base, **options)).double()
    for layer in model.modules():
        if isinstance(layer, nn.AvgPool2d):
            layer.divisor_override = 1  # keep far contributions above zero
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    seen: list[Tensor] = []
    model.score_fr.register_forward_hook(lambda m, a, out: seen.append(out))
    for axis in (2, 3):
        x = torch.ones(1, 1, 1000, 29, dtype=torch.float64).transpose(2, axis).requires_grad_()
        model(x)
        seen.pop().select(axis, cell).sum().backward()
        assert x.grad is not None
        marked = x.grad.sum(5 - axis).flatten().nonzero().flatten()
        assert 0 < int(marked[0]) < int(marked[-1]) < 999
        assert len(marked) == field == int(marked[-1]) - int(marked[0]) + 1


# Requests -------------------------------------------------------------------------------------------------------


@every_net
def test_dropout_out_of_range(name: str) -> None:
    with pytest.raises(RequestError, match=r"dropout=1\.0; accepted: 0 up to, not including, 1"):
        BUILDERS[name](num_classes=2, base_channels=SMALL[name], dropout=1.0)


@pytest.mark.parametrize("name", VGG[1:])
def test_option_without_effect_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=r"fixed_final=True has no effect with learn_upsampling=False; accepted"):
        BUILDERS[name](num_classes=2, base_channels=2, fixed_final=True)


def test_googlenet_with_its_final_pool_has_a_smallest_size() -> None:
    with META:
        model = fcn_googlenet(num_classes=2, base_channels=8, final_pool=True)
        assert model(torch.zeros(1, 3, 29, 300)).logits.shape == (1, 2, 29, 300)
        with pytest.raises(RequestError, match=r"height 28 \(nearest legal: 29\)"):
            model(torch.zeros(1, 3, 28, 300))
