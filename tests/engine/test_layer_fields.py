"""What the units of each layer see, against the slow way; the decks' tables, from the networks themselves."""

from __future__ import annotations

import pytest
import torch

from pixelwise.engine.describe import describe
from pixelwise.engine.layer_fields import field_of_view, fields_by_layer
from pixelwise.engine.layer_table import layer_table, receptive_fields
from pixelwise.errors import RequestError
from pixelwise.models import create_model, model_info
from pixelwise.structures import classifier_strides_of, size_rule_of


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *(("unet_small", 64), ("fcn8s_vgg16", 64), ("segnet_basic", 64)),
        *(("deeplabv1_vgg16_largefov", 65), ("deeplabv2_resnet101_msc", 65), ("fcn_resnet50", 61)),
    ],
)
def test_fields_are_those_of_the_layer_table_cut_off_there(name: str, side: int) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=2, **dict(model_info(name).debug))
    layers = layer_table(model, in_channels=3, input_size=(side, side))
    period = size_rule_of(model).period
    for index, field in list(enumerate(fields_by_layer(layers, period=period)))[::-4]:
        sizes = [receptive_fields(layers[: index + 1], axis=axis, period=period) for axis in (0, 1)]
        assert field == tuple(max(found) if found else None for found in sizes)


def test_fields_of_oblong_windows_and_of_global_pools() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 1, (1, 5), stride=(2, 1)),
        torch.nn.Conv2d(1, 1, 3, dilation=(1, 2)),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Conv2d(1, 1, 1),
    ).to("meta")
    layers = layer_table(model, in_channels=1, input_size=(40, 40))
    assert fields_by_layer(layers, period=1) == [(1, 5), (5, 9), None, None]
    assert field_of_view(layers, 1, cell=2) == (2 * 1 * 2 + 2, 2 * 2 * 1 + 2)


# The decks: TABLE 1 of DeepLab, kernel, rate, field of view, millions of parameters.
DEEPLAB = [
    ("deeplabv1_vgg16_7x7", 7, 4, 224, "134.3 M"),
    ("deeplabv1_vgg16_4x4_r4", 4, 4, 128, "65.1 M"),
    ("deeplabv1_vgg16_4x4_r8", 4, 8, 224, "65.1 M"),
    ("deeplabv1_vgg16_largefov", 3, 12, 224, "20.5 M"),
]


@pytest.mark.parametrize(("name", "kernel", "rate", "view", "parameters"), DEEPLAB)
def test_fields_of_view_of_deeplab(name: str, kernel: int, rate: int, view: int, parameters: str) -> None:
    described = describe(name, num_classes=21)
    (row,) = (row for row in described.layers if row.field_of_view)
    assert (row.name, row.kernel, row.dilation, row.field_of_view) == ("fc6", [kernel] * 2, [rate] * 2, [view] * 2)
    assert f"{described.parameters / 1e6:.1f} M" == parameters


def test_fields_of_view_of_the_pyramid_and_of_no_other_network() -> None:
    """DeepLab v2, Fig. 7: rates 6, 12, 18 and 24 of 3x3 windows on cells of 8 pixels."""
    rows = describe("deeplabv2_vgg16_aspp_l", num_classes=21).layers
    views = [(row.name, row.dilation[0], row.field_of_view) for row in rows if row.field_of_view]
    assert views == [(f"fc6_{i}", 6 * i, [96 * i + 32] * 2) for i in (1, 2, 3, 4)]
    assert not any(row.field_of_view for row in describe("fcn32s_vgg16", base_channels=2).layers)
    assert classifier_strides_of(torch.nn.Identity()) == {}


CONTEXT_DILATIONS = [1, 1, 2, 4, 8, 16, 1, 1]
CONTEXT_FIELDS = [3, 5, 9, 17, 33, 65, 67, 67]


@pytest.mark.parametrize(
    ("name", "channels"),
    [("context_basic", [1] * 8), ("context_large", [2, 2, 4, 8, 16, 32, 32, 1])],
)
def test_the_context_network(name: str, channels: list[int]) -> None:
    """The decks: Table 1 of Yu and Koltun, layers, dilations, receptive fields, channels in units of C."""
    described = describe(name, num_classes=21)
    convolutions = [row for row in described.layers if row.kind == "convolution"]
    assert [row.kernel for row in convolutions] == [[3, 3]] * 7 + [[1, 1]]
    assert [row.dilation for row in convolutions] == [[rate, rate] for rate in CONTEXT_DILATIONS]
    assert [row.receptive_field for row in convolutions] == [[field, field] for field in CONTEXT_FIELDS]
    assert [row.output[0] for row in convolutions] == [21 * factor for factor in channels]
    assert [row.kind for row in described.layers] == [*(["convolution", "relu"] * 7), "convolution"]
    assert (described.in_channels, described.task, described.receptive_field) == (21, "module", [67, 67])
    assert described.parameters == {"context_basic": 28_392, "context_large": 6_803_139}[name]


def test_the_context_network_of_ten_layers_and_behind_a_front_end() -> None:
    fields = [row.receptive_field for row in describe("context_basic", layers=10).layers if row.kind == "convolution"]
    assert [field[0] for field in fields if field] == [3, 5, 9, 17, 33, 65, 129, 257, 259, 259]
    rows = {row.name: row.receptive_field for row in describe("dilation8_voc", base_channels=2).layers}
    assert rows["final"] == [380, 380]
    assert rows["ctx_final"] == [380 + 8 * 66] * 2


def test_parts_refuse_what_they_do_not_take() -> None:
    with pytest.raises(RequestError, match=r"unknown model 'context_basik'; closest names: context_basic.*modules are"):
        describe("context_basik")
    with pytest.raises(RequestError, match=r"in_channels=3 of context_basic for 21 classes; accepted: 21"):
        describe("context_basic", num_classes=21, in_channels=3)
    with pytest.raises(RequestError, match=r"model 'context_basic' has no option 'layer'; closest: layers"):
        describe("context_basic", layer=7)
    with pytest.raises(
        RequestError, match=r"option layers of model 'context_large' is 'all'; accepted: a whole number"
    ):
        describe("context_large", layers="all")
