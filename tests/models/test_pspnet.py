"""PSPNet held to the fact sheet's numbers; the numbers of the originals themselves are in tests/weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from pixelwise.backbones.resnet import BLOCKS, ResNet
from pixelwise.engine.layer_table import layer_table, receptive_fields
from pixelwise.errors import RequestError
from pixelwise.models import create_model
from pixelwise.models.pspnet import PSPNet, PyramidPooling

SMALL = {"base_channels": 4, "blocks": (1, 1, 1, 1)}


def build(depth: int = 50, *, num_classes: int = 3, **options: object) -> PSPNet:
    torch.manual_seed(0)
    model = create_model(f"pspnet_resnet{depth}", num_classes=num_classes, **options)
    assert isinstance(model, PSPNet)
    return model


def meta(depth: int = 50, *, num_classes: int = 150, **options: object) -> PSPNet:
    with torch.device("meta"):
        return build(depth, num_classes=num_classes, **options)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# Fact sheet, section e: depth, classes, with and without the auxiliary classifier.
@pytest.mark.parametrize(
    ("depth", "num_classes", "training", "inference"),
    [
        (50, 150, 49_180_908, 46_782_550),
        (50, 21, 49_081_578, 46_716_373),
        (50, 19, 49_080_038, 46_715_347),
        (101, 150, 68_173_036, 65_774_678),
        (101, 21, 68_073_706, 65_708_501),
        (101, 19, 68_072_166, 65_707_475),
        (152, 150, 83_816_684, 81_418_326),
        (152, 21, 83_717_354, 81_352_149),
    ],
)
def test_parameter_counts(depth: int, num_classes: int, training: int, inference: int) -> None:
    assert count(meta(depth, num_classes=num_classes)) == training
    assert count(meta(depth, num_classes=num_classes, aux_weight=0.0)) == inference


def test_counts_of_the_parts() -> None:
    model = meta(269, num_classes=19)
    trunk = [model.layer0, model.layer1, model.layer2, model.layer3, model.layer4]
    assert sum(map(count, trunk)) == 100_148_160
    assert count(model.ppm) == 4_198_400
    assert count(model.cls) == 18_885_139
    assert count(meta().aux) == 2_398_358
    norms = [module for module in meta(aux_weight=0.0).modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 60  # of the deployed definition


def test_names_are_semsegs() -> None:
    names = {key.rpartition(".")[0] for key in meta().state_dict()}
    assert {f"layer0.{index}" for index in (0, 1, 3, 4, 6, 7)} < names
    assert {f"ppm.features.{index}.{layer}" for index in range(4) for layer in (1, 2)} < names
    assert {f"{head}.{layer}" for head in ("cls", "aux") for layer in (0, 1, 4)} < names
    assert {"layer1.0.downsample.0", "layer3.5.conv3", "layer4.2.bn1"} < names


@pytest.mark.parametrize(("depth", "field"), [(50, 479), (101, 1023), (152, 1503), (269, 2559)])
def test_receptive_field_of_the_last_stage(depth: int, field: int) -> None:
    with torch.device("meta"):
        trunk = ResNet(
            blocks=BLOCKS[depth], base_channels=2, stem="deep", output_stride=8, first_rate="own", stride_on="3x3"
        ).eval()
    layers = layer_table(trunk, in_channels=3, input_size=(473, 473))
    assert receptive_fields(layers, axis=0, period=1) == [field]


@pytest.mark.parametrize("crop", [89, 97, 105, 121, 137, 473, 481, 713])
def test_adaptive_pooling_is_the_fixed_one_where_the_crop_is_41_modulo_48(crop: int) -> None:
    side = (crop - 1) // 8 + 1
    assert (
        meta(**SMALL).layer3(meta(**SMALL).layer2(torch.empty(1, 16, 2 * side - 1, 1, device="meta"))).shape[2] == side
    )
    x = torch.randn(1, 2, side, side)
    same = []
    for bins in (1, 2, 3, 6):
        fixed = functional.avg_pool2d(x, side // bins, stride=side // bins)
        adaptive = functional.adaptive_avg_pool2d(x, bins)
        same.append(fixed.shape == adaptive.shape and torch.allclose(fixed, adaptive, atol=1e-6))
    assert all(same) == (crop % 48 == 41)


def test_pyramid_joins_the_map_and_its_levels_in_order() -> None:
    pyramid = PyramidPooling(8, bins=(1, 2, 3, 6), pool="avg", reduce=False)
    x = torch.randn(2, 8, 12, 12)
    out = pyramid(x)
    assert out.shape == (2, 40, 12, 12)
    assert torch.equal(out[:, :8], x)
    torch.testing.assert_close(out[:, 8:16], x.mean((2, 3), keepdim=True).expand_as(x))
    corners = out[:, 32:, ::11, ::11]  # the outer cells are the outer regions
    torch.testing.assert_close(corners, functional.avg_pool2d(x, 2)[:, :, ::5, ::5])
    peaks = PyramidPooling(8, bins=(1,), pool="max", reduce=False)(x)[:, 8:]
    torch.testing.assert_close(peaks, x.amax((2, 3), keepdim=True).expand_as(x))


def test_options_of_the_ablations() -> None:
    baseline = meta(bins=())
    assert count(meta()) - count(baseline) == 4_198_400 + 9 * 2048 * 512
    assert count(meta(bins=(1,))) - count(baseline) == 2048 * 2048 + 2 * 2048 + 9 * 2048 * 512
    assert count(meta(reduce=False)) - count(baseline) == 9 * 4 * 2048 * 512
    assert count(meta(pool="max")) == count(meta())
    assert count(meta()) - count(meta(stem="7x7")) == 123_776
    for options in ({"bins": ()}, {"reduce": False}, {"pool": "max"}, {"stem": "7x7"}):
        assert build(**SMALL, **options).eval()(torch.zeros(1, 3, 41, 49)).logits.shape == (1, 3, 41, 49)


def test_initialisation() -> None:
    """The trunk from N(0, 2 / fan_out); pyramid and classifiers as PyTorch's layers, evenly within 1 / sqrt(fan_in)."""
    model = build(base_channels=16, blocks=(1, 1, 1, 1), num_classes=60)
    unit = model.layer4[0].conv2.weight
    assert unit.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    for layer in (model.ppm.features[2][1], model.cls[0], model.cls[4], model.aux[0], model.aux[4]):
        bound = layer.weight[0].numel() ** -0.5
        assert 0.95 * bound < layer.weight.abs().max().item() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_auxiliary_output_is_for_training_alone() -> None:
    model = build(**SMALL)
    images = torch.randn(2, 3, 41, 33)
    out = model.train()(images)
    assert model.aux_weights == (0.4,)
    assert [aux.shape for aux in out.aux] == [out.logits.shape] == [(2, 3, 41, 33)]
    assert model.eval()(images).aux == ()
    without = build(**SMALL, aux_weight=0.0)
    assert without.aux_weights == without.train()(images).aux == ()
    assert not [key for key in without.state_dict() if key.startswith("aux")]


def test_the_two_releases_differ_in_stride_dropout_and_momentum() -> None:
    semseg, caffe = meta(), meta(variant="caffe")
    assert (semseg.layer2[0].conv1.stride, semseg.layer2[0].conv2.stride) == ((1, 1), (2, 2))
    assert (caffe.layer2[0].conv1.stride, caffe.layer2[0].conv2.stride) == ((2, 2), (1, 1))
    assert meta(101, variant="caffe").layer2[0].conv2.stride == (2, 2)  # unlike the definition of ResNet-50
    assert {type(model.cls[3]) for model in (semseg,)} == {nn.Dropout2d}
    assert {type(model.cls[3]) for model in (caffe,)} == {nn.Dropout}
    for model, share in ((semseg, 0.1), (caffe, 0.05)):
        assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {share}
        assert model.cls[3].p == model.aux[3].p == 0.1
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (semseg, caffe)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("output_stride", "legal", "wrong"), [(8, 49, 48), (16, 65, 57), (32, 97, 81)])
def test_size_rule(output_stride: int, legal: int, wrong: int) -> None:
    model = build(**SMALL, output_stride=output_stride).eval()
    assert model(torch.zeros(1, 3, legal, 1)).logits.shape == (1, 3, legal, 1)
    below = wrong - (wrong - 1) % output_stride
    with pytest.raises(RequestError, match=rf"height {wrong} \(nearest legal: {below} or {below + output_stride}\)"):
        model(torch.zeros(1, 3, wrong, legal))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": (0,)}, r"bins=\[0\]; accepted: whole numbers from 1"),
        ({"bins": (1, 2, 3)}, r"bins=\[1, 2, 3\].* divide the 128 channels"),
        ({"aux_weight": -0.1}, "aux_weight=-0.1; accepted: 0"),
        ({"dropout": 1.0}, "dropout=1.0; accepted: 0 up to"),
        ({"pool": "sum"}, "pool='sum'; accepted: 'avg' or 'max'"),
        ({"stem": "5x5"}, "stem='5x5'; accepted: '7x7', 'deep', 'v1c'"),
        ({"variant": "mmseg"}, "variant='mmseg'; accepted: 'semseg' or 'caffe' or 'mmsegmentation'"),
        ({"output_stride": 4}, "output_stride=4; accepted: 8, 16, 32"),
        ({"blocks": (3, 4, 6)}, r"blocks=\[3, 4, 6\]; accepted: four"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        build(**{**SMALL, **options})
