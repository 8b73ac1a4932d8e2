"""The CRF-RNN layer: equal to mean field where it starts, and true in every derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import pixelwise as pw
from pixelwise.crf import layer as module
from pixelwise.crf.dense import color_features, position_features
from pixelwise.crf.exact import exact_mean_field
from pixelwise.crf.layer import CRFRNN
from pixelwise.crf.mean_field import Kernel, mean_field
from pixelwise.crf.pixel_filter import NormalizedFilter, bilateral_filter, spatial_filter
from pixelwise.errors import RequestError

CLASSES, HEIGHT, WIDTH = 4, 9, 12


def pictures(count: int = 1, *, height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> Tensor:
    """Return images of 0..255 (N, C, H, W) with an edge and little steps of colour, so that filters reach far."""
    n, c, y, x = np.mgrid[:count, :channels, :height, :width]
    image = np.where(x < width // 2, 40, 90) + (5 * x + 7 * y + 11 * c + 3 * n) % 5
    return torch.from_numpy(image.astype(np.float32))


def scores(count: int = 1, *, classes: int = CLASSES, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(count, classes, height, width, generator=generator)


def learnt(layer: CRFRNN) -> CRFRNN:
    """Give a layer weights off the diagonal and a compatibility that is not symmetric."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return layer


def kernels(image: Tensor) -> list[Kernel]:
    """Return the kernels of the preset "crfrnn" for an image (3, H, W)."""
    array = image.permute(1, 2, 0).to(torch.uint8).numpy()
    return [
        Kernel(features=position_features(*array.shape[:2], 3), compatibility=3.0, normalization="after"),
        Kernel(features=color_features(array, 160, 3), compatibility=5.0, normalization="after"),
    ]


def test_it_is_public() -> None:
    assert pw.CRFRNN is CRFRNN


@pytest.mark.parametrize("training", [True, False])
def test_it_starts_as_the_mean_field_of_the_preset(training: bool) -> None:
    images, logits = pictures(2), scores(2)
    layer = CRFRNN(CLASSES).train(training)
    found = layer(logits, images).detach().softmax(dim=1).flatten(2).numpy()
    for beliefs, image, unary in zip(found, images, logits.softmax(dim=1).flatten(2).numpy(), strict=True):
        wanted = mean_field(unary, kernels(image), iterations=5 if training else 10)
        np.testing.assert_allclose(beliefs, wanted, atol=1e-5)


def test_the_exact_method_starts_as_the_exact_mean_field() -> None:
    images, logits = pictures().double(), scores().double()
    found = CRFRNN(CLASSES, method="exact", test_iterations=3).double().eval()(logits, images)
    wanted = exact_mean_field(logits.softmax(dim=1)[0].flatten(1).numpy(), kernels(images[0]), iterations=3)
    np.testing.assert_allclose(found.detach().softmax(dim=1)[0].flatten(1).numpy(), wanted, atol=1e-6)


def test_training_and_fused_evaluation_give_the_same_logits() -> None:
    images, logits = pictures(2), 30 * scores(2)  # some classes are impossible in single precision
    layer = learnt(CRFRNN(CLASSES, iterations=6, test_iterations=6))
    wanted = layer.train()(logits, images)
    with torch.no_grad():
        found = layer.eval()(logits, images)
    assert wanted.requires_grad
    assert float(wanted.detach().abs().max()) > 90
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-5, atol=1e-4)


def test_logits_are_the_networks_less_the_pairwise_term() -> None:
    """One iteration with one class: a belief of 1 everywhere, whose filtered value is 1 by the normalisation."""
    logits = scores(classes=1)
    layer = CRFRNN(1, iterations=1).train()
    torch.testing.assert_close(layer(logits, pictures()).detach(), logits + 3 + 5)


def exact_layer(values: dict[str, Any] | None = None) -> CRFRNN:
    given = {"bilateral_spatial_sigma": 4.0, "bilateral_color_sigma": 9.0, "spatial_sigma": 1.5, "iterations": 3}
    return learnt(CRFRNN(3, method="exact", **{**given, **(values or {})})).double().train()


@pytest.mark.parametrize("second", [False, True])
def test_all_gradients_of_the_exact_method(second: bool) -> None:
    side, given = (2, {"iterations": 1}) if second else (4, {})
    layer = exact_layer(given)
    names = [name for name, _ in layer.named_parameters()]
    images = pictures(height=side, width=side).double()
    logits = scores(classes=3, height=side, width=side).double().requires_grad_()
    weights = [parameter.detach().requires_grad_() for parameter in layer.parameters()]

    def run(logits: Tensor, *weights: Tensor) -> Tensor:
        refined: Tensor = functional_call(layer, dict(zip(names, weights, strict=True)), (logits, images))
        return refined

    assert names == ["spatial.weight", "bilateral.weight", "compatibility.weight"]
    check = torch.autograd.gradgradcheck if second else torch.autograd.gradcheck
    assert check(run, (logits, *weights), atol=1e-4 if second else 1e-5)


@pytest.mark.parametrize("kind", ["spatial", "bilateral"])
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_gradients_of_a_filter_are_its_finite_differences(kind: str, method: Any) -> None:
    """The filter is linear, so that a difference of any size gives the derivative, here all of them at once."""
    image = pictures(height=4, width=5)[0]
    kernel = spatial_filter(image, 3.0, method) if kind == "spatial" else bilateral_filter(image, 160.0, 3.0, method)
    points = 4 * 5
    jacobian = kernel(torch.eye(points))  # column j: what pixel j gives to all
    values = torch.zeros(points, points, requires_grad=True)
    kernel(values).backward(torch.eye(points))  # column i: what the result at pixel i takes of all
    assert values.grad is not None
    assert float((jacobian - jacobian.T).abs().max()) > 1e-3  # divided by its sums it is not symmetric
    torch.testing.assert_close(values.grad, jacobian.T, rtol=1e-5, atol=1e-6)


def test_gradients_through_the_lattice_are_finite_differences() -> None:
    layer = learnt(CRFRNN(3, iterations=2)).train()
    images, logits = pictures(height=6, width=7), scores(classes=3, height=6, width=7).requires_grad_()
    direction = scores(classes=3, height=6, width=7).flip(3) / 4
    probe = torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)
    (layer(logits, images) * probe).sum().backward()
    assert logits.grad is not None
    step = 1e-2
    with torch.no_grad():
        ahead, behind = (layer(logits + sign * step * direction, images) for sign in (1, -1))
        wanted = float(((ahead - behind) * probe).sum()) / (2 * step)
        found = float((logits.grad * direction).sum())
    assert abs(wanted) > 0.1
    assert found == pytest.approx(wanted, rel=5e-3)


def test_images_and_sigmas_get_no_gradients() -> None:
    images = pictures().requires_grad_()
    layer = CRFRNN(CLASSES, iterations=1).train()
    layer(scores(), images).sum().backward()
    assert images.grad is None
    assert len(list(layer.parameters())) == 3


@pytest.mark.parametrize("training", [True, False])
def test_images_of_a_batch_do_not_see_each_other(training: bool) -> None:
    images, logits = pictures(3), scores(3)
    layer = learnt(CRFRNN(CLASSES, iterations=2, test_iterations=3)).train(training)
    with torch.no_grad():
        together = layer(logits, images)
        alone = torch.cat([layer(logits[n : n + 1], images[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[0], layer(logits[:1], images[1:2])[0], atol=1e-3)


def test_renaming_the_classes_renames_the_result() -> None:
    order = torch.tensor([2, 0, 3, 1])
    layer = learnt(CRFRNN(CLASSES)).eval()
    renamed = CRFRNN(CLASSES).eval()
    renamed.load_state_dict({key: value[order][:, order] for key, value in layer.state_dict().items()})
    with torch.no_grad():
        wanted = layer(scores(), pictures())[:, order]
        torch.testing.assert_close(renamed(scores()[:, order], pictures()), wanted, rtol=1e-5, atol=1e-5)


def test_a_shift_of_all_colours_changes_little_and_their_scale_much() -> None:
    layer = CRFRNN(CLASSES, method="exact").eval()
    with torch.no_grad():
        wanted = layer(scores(), pictures())
        torch.testing.assert_close(layer(scores(), pictures() - 100), wanted, rtol=1e-4, atol=1e-4)
        assert float((layer(scores(), pictures() / 58) - wanted).abs().max()) > 0.2


@pytest.mark.parametrize("channels", [1, 6])
def test_images_of_other_channels(channels: int) -> None:
    layer, images = CRFRNN(CLASSES).double().eval(), pictures(channels=channels).double()
    assert layer(scores().double(), images).shape == (1, CLASSES, HEIGHT, WIDTH)


def test_double_precision_takes_the_lattice_in_plain_pytorch() -> None:
    single, double = learnt(CRFRNN(CLASSES)).train(), learnt(CRFRNN(CLASSES)).double().train()
    out = [
        layer(scores(2).to(kind), pictures(2).to(kind))
        for layer, kind in ((single, torch.float32), (double, torch.float64))
    ]
    probe = scores(2).flip(3)
    for found in out:
        (found * probe.to(found.dtype)).sum().backward()
    torch.testing.assert_close(out[0].double(), out[1], rtol=1e-4, atol=1e-4)
    for one, other in zip(single.parameters(), double.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-3, atol=1e-3)


def test_half_precision_is_refined_in_single() -> None:
    layer, images = CRFRNN(CLASSES, iterations=2).train(), pictures()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(scores().bfloat16(), images)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer(scores().bfloat16().float(), images))


def test_a_size_is_built_once_and_an_image_once_per_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    original = NormalizedFilter.__init__

    def count(self: NormalizedFilter, features: Tensor, method: Any) -> None:
        built.append(features.shape[1])
        original(self, features, method)

    monkeypatch.setattr(NormalizedFilter, "__init__", count)
    layer = CRFRNN(CLASSES).train()
    images, logits = pictures(height=5, width=31), scores(height=5, width=31)
    layer(logits, images).sum().backward()
    layer(logits, images).sum().backward()
    assert built == [2, 5, 5]


@pytest.mark.parametrize("gradients", [True, False])
def test_an_exported_program_holds_one_operation(gradients: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.crf = CRFRNN(CLASSES, test_iterations=4)

        def forward(self, logits: Tensor, images: Tensor) -> Tensor:
            refined: Tensor = self.crf(logits, images)
            return refined

    model = Model().eval()
    with torch.set_grad_enabled(gradients):
        program = torch.export.export(model, (scores(), pictures()))
    assert "pixelwise.crf_rnn" in str(program.graph)
    with torch.no_grad():
        wanted = model(scores(), pictures())
        torch.testing.assert_close(program.module()(scores(), pictures()), wanted)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # asked by the compiler itself
@pytest.mark.parametrize("training", [True, False])
def test_a_compiled_layer_refines_alike(training: bool) -> None:
    layer = CRFRNN(CLASSES, iterations=2, test_iterations=4).train(training)
    compiled = torch.compile(layer, backend="eager")
    with torch.set_grad_enabled(training):
        found = compiled(scores(), pictures())
        torch.testing.assert_close(found, layer(scores(), pictures()))
    if training:
        found.sum().backward()
        assert layer.spatial.weight.grad is not None


def test_shapes_alone() -> None:
    with torch.device("meta"):
        layer = CRFRNN(21)
        assert layer(torch.zeros(2, 21, 500, 375), torch.zeros(2, 3, 500, 375)).shape == (2, 21, 500, 375)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations is 0; accepted: whole numbers from 1"),
        ({"test_iterations": 2.5}, r"test_iterations is 2\.5"),
        ({"spatial_sigma": 0}, "spatial_sigma is 0; accepted: a number above 0"),
        ({"bilateral_weight": -1.0}, r"bilateral_weight is -1\.0"),
        ({"method": "fast"}, "method is 'fast'; accepted: lattice, exact"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        CRFRNN(CLASSES, **options)


@pytest.mark.parametrize(
    ("logits", "images", "message"),
    [
        (scores(classes=3), pictures(), r"logits have shape \(1, 3, 9, 12\); accepted: \(N, 4, H, W\)"),
        (scores()[0], pictures(), r"logits have shape \(4, 9, 12\)"),
        (scores(), pictures(width=11), r"images have shape \(1, 3, 9, 11\).*accepted: \(1, C, 9, 12\)"),
        (scores(2), pictures(1), r"accepted: \(2, C, 9, 12\) with C from 1 to 6"),
        (scores(), pictures(channels=7), r"images have shape \(1, 7, 9, 12\)"),
    ],
)
def test_inputs_that_do_not_fit(logits: Tensor, images: Tensor, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        CRFRNN(CLASSES)(logits, images)


def test_the_exact_method_is_for_tiny_images() -> None:
    with pytest.raises(RequestError, match=r"method='exact' for 10302 pixels.*accepted: up to 10000"):
        CRFRNN(1, method="exact")(torch.zeros(1, 1, 102, 101), torch.zeros(1, 3, 102, 101))


def test_values_that_are_not_finite_are_named() -> None:
    with pytest.raises(RequestError, match="features hold NaN"):
        CRFRNN(CLASSES).train()(scores(), pictures() * float("nan"))
    assert module.MOST_CHANNELS == 6
