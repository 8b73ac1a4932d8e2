"""Hypercolumns: their dimensions, their places, and that classifying and upsampling commute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.engine.layer_table import input_span, layer_table
from pixelwise.errors import RequestError
from pixelwise.models.hypercolumn import Hypercolumn, hypercolumn_vgg16, upsample

COLUMNS = {"pools": 1472, "all": 4224, "all_fc7": 8320}


def meta(**options: object) -> Hypercolumn:
    with torch.device("meta"):
        return hypercolumn_vgg16(**{"num_classes": 21, **options}).eval()


def awake(**options: object) -> Hypercolumn:
    """Build at debug width with running statistics, biases and scores that are not trivial, in double precision."""
    torch.manual_seed(0)
    model = hypercolumn_vgg16(**{"num_classes": 3, "base_channels": 2, **options}).eval().double()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or name.startswith("score"):
            nn.init.normal_(parameter, std=0.3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def photograph(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("columns", "numbers"), COLUMNS.items())
def test_numbers_of_a_hypercolumn(columns: str, numbers: int) -> None:
    model = meta(columns=columns)
    assert model.hypercolumns(torch.zeros(1, 3, 33, 20, device="meta")).shape == (1, numbers, 33, 20)
    classifier = sum(p.numel() for name, p in model.named_parameters() if name.startswith("score"))
    assert classifier == 21 * numbers + 21
    fc = 512 * 49 * 4096 + 4096 + 4096 * 4096 + 4096 if columns == "all_fc7" else 0
    assert sum(p.numel() for p in model.parameters()) == 14_714_688 + fc + classifier


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("columns", list(COLUMNS))
@pytest.mark.parametrize("size", [(32, 48), (37, 21), (1, 3)])
def test_classifying_and_upsampling_commute(columns: str, standardise: bool, size: tuple[int, int]) -> None:
    """Classify, upsample, add = upsample, concatenate, classify."""
    model, images = awake(columns=columns, standardise=standardise), photograph(*size)
    weight = torch.cat([model.get_parameter(f"score_{name}.weight") for name in model.widths], dim=1)
    bias = model.get_parameter(f"score_{next(iter(model.widths))}.bias")
    with torch.no_grad():
        expected = functional.conv2d(model.hypercolumns(images), weight, bias)
        torch.testing.assert_close(model(images).logits, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
def test_centres_of_cells_stay_in_place(stride: int) -> None:
    """A map that holds its cells' centres, s i + (s - 1) / 2, becomes one that holds the pixels' own places."""
    centres = stride * torch.arange(6.0, dtype=torch.float64) + (stride - 1) / 2
    images = torch.zeros(1, 1, 1, 6 * stride - stride // 2)
    row = upsample(centres.view(1, 1, 1, 6), stride, images)[0, 0, 0]
    inner = slice(stride // 2, 5 * stride)
    torch.testing.assert_close(row[inner], torch.arange(float(len(row)), dtype=torch.float64)[inner])
    assert len(row) == images.shape[3]


def test_cells_of_the_network_have_these_centres() -> None:
    table = layer_table(meta(columns="all_fc7", base_channels=1), in_channels=3, input_size=(320, 320))
    for name, stride in (("conv1_1", 1), ("conv2_2", 2), ("conv3_1", 4), ("conv4_3", 8), ("conv5_3", 16), ("fc7", 32)):
        row = next(index for index, layer in enumerate(table) if layer.name == name)
        span = input_span(table[: row + 1], 3, 0)
        assert span is not None
        assert (span[0] + span[1]) / 2 == stride * 3 + (stride - 1) / 2


def test_hypercolumns_are_the_maps_before_the_pools() -> None:
    model, images = awake(standardise=False), photograph(32, 32)
    state = model.state_dict()
    parts, x = [], images
    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        for layer in range(1, depth + 1):
            name = f"conv{block}_{layer}"
            x = functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).clamp(min=0)
        parts.append(functional.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False))
        x = functional.max_pool2d(x, 2)
    with torch.no_grad():
        torch.testing.assert_close(model.hypercolumns(images), torch.cat(parts, dim=1))


def test_features_are_standardised_over_the_training_pixels() -> None:
    images = photograph(64, 64)
    model, raw = awake(columns="all"), awake(columns="all", standardise=False)
    raw.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        for (_, x, _), (_, plain, _) in zip(model.train().maps(images), raw.maps(images), strict=True):
            variance, mean = torch.var_mean(plain, dim=(0, 2, 3), keepdim=True, correction=0)
            torch.testing.assert_close(x, (plain - mean) / (variance + 1e-5).sqrt())
    assert not [name for name, _ in model.named_parameters() if "standard" in name]


def test_initialisation_of_the_classifier() -> None:
    torch.manual_seed(0)
    model = hypercolumn_vgg16(num_classes=30, base_channels=8)
    weight = torch.cat([model.get_parameter(f"score_{name}.weight") for name in model.widths], dim=1)
    assert weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not any(p.count_nonzero() for name, p in model.named_parameters() if name.endswith("bias"))


def test_impossible_requests() -> None:
    with pytest.raises(RequestError, match="columns='fc7'; accepted: 'pools', 'all' or 'all_fc7'"):
        hypercolumn_vgg16(num_classes=2, columns="fc7")
    model = meta(base_channels=1)
    for entry in (model, model.hypercolumns):
        with pytest.raises(RequestError, match=r"1 channels, shape \(1, 1, 9, 9\); this model was built for 3"):
            entry(torch.zeros(1, 1, 9, 9, device="meta"))
