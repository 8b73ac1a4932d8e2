"""FusionNet held to the fact sheet's counts and to what makes it: sums, and residuals without a last activation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.errors import RequestError
from pixelwise.models import create_model
from pixelwise.models.fusionnet import FusionNet, Residual, Unit


def build(name: str = "fusionnet", **options: object) -> FusionNet:
    torch.manual_seed(0)
    model = create_model(name, **{"num_classes": 3, "in_channels": 1, **options})
    assert isinstance(model, FusionNet)
    return model


def small(**options: object) -> FusionNet:
    return build(**{"base_channels": 3, "depth": 2, **options})


def unit(model: FusionNet) -> Unit:
    first = model.units[0]
    assert isinstance(first, Unit)
    return first


@pytest.mark.parametrize(
    ("base", "deconv3", "deconv2"),
    [(64, 78_531_649, 75_050_049), (32, 19_644_961, 18_774_561), (16, 4_917_265, 4_699_665)],
)
def test_parameter_counts(base: int, deconv3: int, deconv2: int) -> None:
    with torch.device("meta"):
        for upsample, wanted in (("deconv3", deconv3), ("deconv2", deconv2)):
            model = build(num_classes=1, base_channels=base, upsample=upsample)
            assert sum(p.numel() for p in model.parameters()) == wanted
        ported = build(num_classes=3, in_channels=3, base_channels=16)
        assert sum(p.numel() for p in ported.parameters()) == 4_917_843


def test_50_convolutions_from_640_to_40_and_back() -> None:
    with torch.device("meta"):
        model = build(num_classes=1)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 50
    seen: list[tuple[int, int]] = []
    parts = [*unit(model).down, unit(model).bridge, *unit(model).ascend, *unit(model).up, unit(model).head]
    for part in parts:
        part.register_forward_hook(lambda m, a, out: seen.append((out.shape[1], out.shape[2])))
    model(torch.zeros(1, 1, 640, 640, device="meta"))
    down = [(64, 640), (128, 320), (256, 160), (512, 80), (1024, 40)]
    up = [step for step in reversed(down[:4]) for _ in range(2)]
    assert seen == [*down, *up, (1, 640)]


def test_residual_without_its_branch_is_the_identity() -> None:
    block = Residual(4, "relu", decoder=False).eval()
    norm = block.branch[2][1]
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x)  # negative numbers too: nothing rectifies the sum


def test_no_activation_between_the_third_convolution_and_the_sum() -> None:
    block = Residual(4, "relu", decoder=True)
    assert [[type(layer) for layer in step] for step in block.branch] == [
        [nn.Conv2d, nn.BatchNorm2d, nn.ReLU],
        [nn.Conv2d, nn.BatchNorm2d, nn.ReLU],
        [nn.Conv2d, nn.BatchNorm2d],
    ]


@pytest.mark.parametrize(("skip", "share"), [("sum", 1.0), ("mean", 0.5)])
def test_skips_are_sums(skip: str, share: float) -> None:
    """With the last deconvolution silent, the decoder works on the encoder's map alone."""
    model = small(skip=skip).eval()
    last = unit(model).ascend[-1][1]  # its normalisation
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    images = torch.randn(1, 1, 16, 24)
    with torch.no_grad():
        wanted = unit(model).head(unit(model).up[-1](share * unit(model).down[0](images)))
        torch.testing.assert_close(model(images).logits, wanted)


def spelled(model: FusionNet, x: Tensor) -> Tensor:
    """The figure once more, from the state dict alone, in evaluation."""
    state = {key.removeprefix("units.0."): value for key, value in model.state_dict().items()}

    def norm(x: Tensor, name: str) -> Tensor:
        values = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *values)

    def conv(x: Tensor, name: str) -> Tensor:
        return norm(functional.conv2d(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"], padding=1), f"{name}.1")

    def level(x: Tensor, name: str) -> Tensor:
        x = conv(x, f"{name}.0").relu()
        y = conv(conv(x, f"{name}.1.branch.0").relu(), f"{name}.1.branch.1").relu()
        return conv(x + conv(y, f"{name}.1.branch.2"), f"{name}.2").relu()

    def ascend(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
        return norm(functional.conv_transpose2d(x, weight, bias, 2, 1, 1), f"{name}.1").relu()

    down0 = level(x, "down.0")
    down1 = level(functional.max_pool2d(down0, 2), "down.1")
    bridge = level(functional.max_pool2d(down1, 2), "bridge")
    up0 = level(ascend(bridge, "ascend.0") + down1, "up.0")
    up1 = level(ascend(up0, "ascend.1") + down0, "up.1")
    return functional.conv2d(up1, state["head.weight"], state["head.bias"], padding=1)


def test_forward_is_the_figure() -> None:
    model = small().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.3)
            nn.init.normal_(module.bias, std=0.3)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    images = torch.randn(2, 1, 20, 12)
    with torch.no_grad():
        torch.testing.assert_close(model(images).logits, spelled(model, images), rtol=1e-5, atol=1e-4)


def test_a_chain_refines_probabilities_and_every_unit_has_a_loss() -> None:
    model = small(chain=3)
    images = torch.randn(2, 1, 16, 16)
    out = model.train()(images)
    assert model.aux_weights == (1.0, 1.0)
    assert [aux.shape for aux in out.aux] == [out.logits.shape] * 2
    seen: list[Tensor] = []
    for each in model.units:
        each.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    assert model.eval()(images).aux == ()
    assert torch.equal(seen[0], images)
    torch.testing.assert_close(seen[1].sum(1), torch.ones(2, 16, 16))
    assert [part.in_channels for part in (each.down[0][0][0] for each in model.units)] == [1, 3, 3]
    one = small(chain=2, num_classes=1).eval()
    one.units[1].register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    logits = one.units[0](images)
    one(images)
    torch.testing.assert_close(seen[-1], torch.sigmoid(logits))


def test_activations() -> None:
    def kinds(activation: str) -> list[str]:
        first = unit(small(activation=activation))
        return [type(part[0][2]).__name__ for part in (first.down[0], first.bridge, first.up[0])]

    assert kinds("relu") == ["ReLU"] * 3
    assert kinds("elu") == ["ELU"] * 3
    assert kinds("leaky_relu") == ["LeakyReLU", "LeakyReLU", "ReLU"]
    assert unit(small(activation="leaky_relu")).down[0][0][2].negative_slope == 0.2


@pytest.mark.parametrize("upsample", ["deconv3", "deconv2", "pixelshuffle"])
def test_ways_up(upsample: str) -> None:
    assert small(upsample=upsample).eval()(torch.zeros(1, 1, 4, 8)).logits.shape == (1, 3, 4, 8)


def test_initialisation() -> None:
    model = build(base_channels=16)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert not module.bias.any()
            if module.weight.numel() > 20_000:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    scales = torch.cat([norm.weight.detach() for norm in norms])
    assert scales.mean().item() == pytest.approx(1, abs=0.002)
    assert scales.std().item() == pytest.approx(0.02, rel=0.05)
    assert not any(norm.bias.any() for norm in norms)


def test_the_small_one_starts_with_residual_blocks_that_are_the_identity() -> None:
    model, like = build("fusionnet_small", base_channels=4), build(base_channels=4)
    state = model.state_dict()
    for name, value in like.state_dict().items():  # all but the scales is as in `fusionnet`
        assert not state[name].any() if name.endswith("branch.2.1.weight") else torch.equal(state[name], value)
    blocks = [module for module in model.modules() if isinstance(module, Residual)]
    assert len(blocks) == 9
    norms = [block.branch[2][1] for block in blocks]
    for block, norm in zip(blocks, norms, strict=True):
        x = torch.randn(2, norm.num_features, 4, 4)
        assert torch.equal(block(x), x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # the first step gives the scales a value, the second reaches the branches through them
        optimizer.zero_grad()
        model(torch.randn(2, 1, 32, 32)).logits.square().mean().backward()
        optimizer.step()
    assert all(norm.weight.any() for norm in norms)
    assert all(block.branch[0][0].weight.grad.any() for block in blocks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": "concat"}, "skip='concat'; accepted: 'sum', 'mean'"),
        ({"upsample": "nearest"}, "upsample='nearest'; accepted: 'deconv3', 'deconv2', 'pixelshuffle'"),
        ({"activation": "gelu"}, "activation='gelu'; accepted: 'relu', 'leaky_relu', 'elu'"),
        ({"chain": 0}, "chain=0; accepted: whole numbers from 1"),
        ({"depth": 0}, "depth=0, chain=1; accepted"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        small(**options)


def test_sides_are_multiples_of_16() -> None:
    with pytest.raises(RequestError, match=r"height 100 \(nearest legal: 96 or 112\)"):
        build(base_channels=1).eval()(torch.zeros(1, 1, 100, 64))
