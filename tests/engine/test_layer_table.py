"""The layer table and what is computed from it, checked against gradients and against closed forms."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from pixelwise.engine.layer_table import Window, input_span, layer_table, output_stride, receptive_fields
from pixelwise.layers.unpooling import MaxPool2x2, MaxUnpool2x2
from pixelwise.models import create_model
from pixelwise.structures import SizeRule, size_rule_of


class Toy(nn.Module):
    """A chain of layers with a skip, to be put on the meta device."""

    size_rule = SizeRule()

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def table(*layers: nn.Module, side: int = 64) -> list:
    return layer_table(Toy(*layers).to("meta"), in_channels=1, input_size=(side, side))


def conv(kernel: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(1, 1, kernel, **options)


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([conv(3)] * 4, 1 + 2 * 4),  # the decks: a stack of L 3x3 layers sees 1 + 2 L
        ([conv(3), conv(3, dilation=2, padding=2), conv(3, dilation=4, padding=4)], 15),  # 3, 7, 15
        ([conv(7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1)], 11),
        ([nn.AvgPool2d(2), conv(5)], 10),
        ([conv(1)], 1),
        ([nn.AdaptiveAvgPool2d(1)], None),
        ([nn.AdaptiveMaxPool2d(1)], None),
        ([nn.AdaptiveAvgPool2d(16), conv(3)], 4 * 3),  # bins of 4 pixels
        ([nn.MaxPool2d(2), nn.Upsample(scale_factor=2), conv(1)], 2),
        ([nn.UpsamplingBilinear2d(scale_factor=2)], 1),  # its first output lies on the first input
        ([nn.LocalResponseNorm(5), conv(3)], 3),
        ([nn.ReflectionPad2d(4), conv(9)], 9),
    ],
)
def test_receptive_fields_of_chains(layers: list[nn.Module], field: int | None) -> None:
    fields = receptive_fields(table(*layers), axis=0, period=1)
    assert (fields and fields[0]) == field


def test_transposed_windows_reverse_the_relation() -> None:
    up = Window(kernel=2, stride=2, transposed=True)
    assert [up.reads((p, p)) for p in range(4)] == [(0, 0), (0, 0), (1, 1), (1, 1)]
    bilinear = Window(kernel=4, stride=2, padding=1, transposed=True)
    assert [bilinear.reads((p, p)) for p in range(4)] == [(-1, 0), (0, 1), (0, 1), (1, 2)]


def gradient_spans(model: nn.Module, size: tuple[int, int], positions: range) -> list[tuple[int, int]]:
    """Rows of the input on which single rows of the logits depend, measured."""
    image = torch.rand(1, 1, *size, dtype=torch.float64, requires_grad=True)
    logits = model(image).logits
    spans = []
    for position in positions:
        (gradient,) = torch.autograd.grad(logits[0, 0, position, 2], image, retain_graph=True)
        rows = gradient[0, 0].abs().sum(dim=1).nonzero().flatten()
        spans.append((int(rows[0]), int(rows[-1])))
    return spans


class Unpooled(nn.Module):
    """Layers between a pooling and its unpooling."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.pool, self.unpool = MaxPool2x2(), MaxUnpool2x2()

    def forward(self, x: Tensor) -> Tensor:
        x, switches = self.pool(x)
        return self.unpool(self.layers(x), switches)


def up(mode: str, align_corners: bool | None = None, **size: float) -> nn.Upsample:
    return nn.Upsample(mode=mode, align_corners=align_corners, **size)


@pytest.mark.parametrize(
    "layers",
    [
        [conv(3, padding=1), up("bilinear", False, scale_factor=2), conv(3, padding=1)],
        [conv(3, stride=2, padding=1), up("bilinear", True, size=40), conv(3, padding=1)],
        [conv(3, padding=1), up("bilinear", False, scale_factor=1.5)],
        [conv(5, stride=2, padding=2), up("bilinear", False, size=31)],
        [nn.AvgPool2d(3, 1, 1), up("bilinear", True, size=17)],  # smaller
        [conv(3, padding=1), up("nearest", scale_factor=3), conv(3, padding=1)],
        [nn.MaxPool2d(2), up("nearest", size=29), conv(3, padding=1)],
        [nn.AdaptiveAvgPool2d(7), conv(3, padding=1), up("bilinear", False, size=39)],
        [conv(3, padding=1), nn.AdaptiveMaxPool2d(12)],
        [nn.AvgPool2d(3, 2, 1, ceil_mode=True), conv(3, padding=1)],
        [conv(3, padding=1), nn.LocalResponseNorm(5), nn.MaxPool2d(2)],
        [conv(3, padding=1), Unpooled(conv(3, padding=1)), conv(3, padding=1)],
        [Unpooled(conv(5, padding=2), Unpooled(conv(3, padding=1)))],
    ],
    ids=lambda layers: " ".join(type(layer).__name__ for layer in layers),
)
def test_spans_are_the_gradients(layers: list[nn.Module]) -> None:
    """Random images choose all maxima in turn; positive weights let no path cancel."""
    side = 39  # odd, so that ceilings and uneven steps matter
    model = Toy(*layers).double()
    spans = layer_table(deepcopy(model).float().to("meta"), in_channels=1, input_size=(side, side))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(60, 1, side, side, dtype=torch.float64, generator=generator).requires_grad_()
    logits = model(images)
    middle = logits.shape[2] // 2
    for position in range(middle - 3, middle + 3):
        (gradient,) = torch.autograd.grad(logits[:, 0, position].sum(), images, retain_graph=True)
        rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
        assert input_span(spans, position, axis=0) == (int(rows[0]), int(rows[-1]))


def test_steps_of_resizing_layers() -> None:
    halved = table(conv(3, stride=2, padding=1), up("bilinear", False, scale_factor=4), conv(1))
    assert output_stride(halved) == 1  # half a pixel, which whole numbers cannot say
    assert output_stride(table(conv(3, stride=4, padding=1), up("nearest", scale_factor=2), conv(1))) == 2
    assert output_stride(table(nn.AdaptiveAvgPool2d(16), conv(1))) == 4
    assert [layer.kind for layer in table(conv(1), Unpooled(conv(1)))] == [
        "convolution",
        "max pool",
        "convolution",
        "unpool",
    ]


def test_shapes_stay_three_dimensional_where_channels_are_pooled() -> None:
    layers = table(conv(1), nn.LocalResponseNorm(5))
    assert all(len(layer.shape) == 3 and layer.shape[1:] == (64, 64) for layer in layers)


def positive(name: str, **options: int) -> nn.Module:
    """A narrow network whose weights are all positive, so that no path cancels or dies in a ReLU."""
    model = create_model(name, num_classes=1, in_channels=1, base_channels=1, **options).double().eval()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)
    for module in model.modules():
        if isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(lambda m, args, out: nn.functional.avg_pool2d(args[0], 2))
    return model


@pytest.mark.parametrize(("name", "size"), [("unet", 316), ("unet_padded", 320), ("unet_small", 320)])
def test_receptive_field_of_unet_by_gradient(name: str, size: int) -> None:
    """Fact sheet: 188 or 204 pixels by phase, 4 of 16 see 188, the window reaches 92 to 107 to either side."""
    with torch.device("meta"):
        meta = create_model(name, num_classes=1, in_channels=1, base_channels=1)
    layers = layer_table(meta, in_channels=1, input_size=(size, size))
    rule = size_rule_of(meta)
    fields = receptive_fields(layers, axis=0, period=16)
    assert fields is not None
    assert (fields.count(188), fields.count(204)) == (4, 12)
    start = 144 - rule.margin
    measured = gradient_spans(positive(name), (size, rule.minimum), range(start, start + 16))
    for position, gradient in zip(range(start, start + 16), measured, strict=True):
        span = input_span(layers, position, axis=0)
        assert span == gradient
        centre = position + rule.margin
        assert 92 <= centre - span[0] <= 107
        assert 92 <= span[1] - centre <= 107


def test_flops_are_torchs_own_count() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = create_model("unet", num_classes=2, in_channels=3, base_channels=8)
    layers = layer_table(model, in_channels=3, input_size=(188, 220))
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 188, 220, device="meta"))
    assert sum(layer.flops for layer in layers) == counter.get_total_flops()


def test_parameters_are_counted_once_and_stride_is_that_of_the_logits() -> None:
    with torch.device("meta"):
        model = create_model("unet_small", num_classes=2, in_channels=3)
    layers = layer_table(model, in_channels=3, input_size=(64, 96))
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in model.parameters())
    assert output_stride(layers) == 1
    assert layers[-1].shape == (2, 64, 96)
    assert output_stride(table(conv(3, stride=2), nn.MaxPool2d(2), conv(1))) == 4
