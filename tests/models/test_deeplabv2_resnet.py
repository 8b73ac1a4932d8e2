"""DeepLab v2 on ResNet-101 held to the numbers of its fact sheet; tests/weights/test_parity.py has the original's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.engine.coarse import coarse_scores, labels_of_scores, score_margin
from pixelwise.engine.describe import describe
from pixelwise.errors import RequestError
from pixelwise.models.deeplabv2_resnet import DeepLabV2, deeplabv2_resnet101, deeplabv2_resnet101_msc

BUILDERS = (deeplabv2_resnet101, deeplabv2_resnet101_msc)
NARROW = {"base_channels": 2, "blocks": (1, 1, 2, 1)}


def meta(build: type, **options: object) -> DeepLabV2:
    with torch.device("meta"):
        return build(**{"num_classes": 21, **options}).eval()


def awake(build: type, **options: object) -> DeepLabV2:
    """Build narrow, with statistics of a trained network and scores that are not near zero, in double precision."""
    torch.manual_seed(0)
    model = build(**{"num_classes": 3, **NARROW, **options}).eval().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for layer in model.classifier:
        nn.init.normal_(layer.weight, std=0.2)
        nn.init.normal_(layer.bias, std=0.2)
    return model


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("build", BUILDERS)
def test_parameter_counts(build: type) -> None:
    """Fact sheet, section e: trunk 42,500,160, heads 1,548,372 and 387,093."""
    model = meta(build)
    assert count(model) == 44_048_532
    assert count(model.backbone) == 42_500_160
    assert count(model.classifier) == 1_548_372
    assert count(meta(build, head="largefov").classifier) == 387_093


def test_rates_and_strides_of_the_definition() -> None:
    model = meta(deeplabv2_resnet101)
    for stage, units, rate in (("layer2", 4, 1), ("layer3", 23, 2), ("layer4", 3, 4)):
        rates = [unit.conv2.dilation for unit in model.backbone.get_submodule(stage)]
        assert rates == [(rate, rate)] * units
    first = model.backbone.layer2[0]
    assert (first.conv1.stride, first.conv2.stride, first.downsample[0].stride) == ((2, 2), (1, 1), (2, 2))
    assert [layer.dilation[0] for layer in model.classifier] == [6, 12, 18, 24]
    assert [layer.padding[0] for layer in model.classifier] == [6, 12, 18, 24]
    assert [layer.dilation[0] for layer in meta(deeplabv2_resnet101, head="largefov").classifier] == [12]


@pytest.mark.parametrize(("side", "sides"), [(321, (41, 31, 21)), (513, (65, 49, 33))])
def test_sub_scores(side: int, sides: tuple[int, int, int]) -> None:
    model = meta(deeplabv2_resnet101_msc, **NARROW)
    seen: list[int] = []
    model.classifier[0].register_forward_hook(lambda _module, _given, scores: seen.append(scores.shape[3]))
    fused, full, three_quarters, half = model.scales(torch.zeros(1, 3, side, side, device="meta"))
    assert tuple(seen) == sides
    assert fused.shape == full.shape == three_quarters.shape == (1, 21, sides[0], sides[0])
    assert half.shape == (1, 21, sides[2], sides[2])
    assert model(torch.zeros(1, 3, side, side, device="meta")).logits.shape == (1, 21, side, side)


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (40, 57), (321, 320)])
@pytest.mark.parametrize("build", BUILDERS)
def test_any_size_comes_out_as_it_went_in(build: type, size: tuple[int, int]) -> None:
    model = meta(build, **NARROW)
    images = torch.zeros(2, 3, *size, device="meta")
    assert model(images).logits.shape == (2, 21, *size)
    cells = coarse_scores(model, images)
    labels = torch.zeros(2, *size, dtype=torch.int64, device="meta")
    for index, scores in enumerate((cells.logits, *cells.aux)):
        assert labels_of_scores(model, labels, scores, output=index).shape == (2, *scores.shape[2:])
    assert score_margin(model) == 0


def by_hand(model: DeepLabV2, images: Tensor) -> Tensor:
    """Score by the sum of the layers, from the trunk's map."""
    x = model.backbone(images)
    total = torch.zeros((), dtype=torch.float64)
    for rate, layer in zip((6, 12, 18, 24), model.classifier, strict=True):
        total = total + functional.conv2d(x, layer.weight, layer.bias, padding=rate, dilation=rate)
    return total


def test_cells_are_the_sum_of_four_convolutions() -> None:
    model, image = awake(deeplabv2_resnet101), torch.randn(1, 3, 65, 97, dtype=torch.float64)
    with torch.no_grad():
        scores = by_hand(model, image)
        torch.testing.assert_close(model.cells(image), scores)
        zoomed = functional.interpolate(scores, size=(65, 97), mode="bilinear", align_corners=True)
        torch.testing.assert_close(model(image).logits, zoomed)


def test_three_scales_are_fused_by_the_maximum() -> None:
    model, image = awake(deeplabv2_resnet101_msc), torch.randn(1, 3, 65, 97, dtype=torch.float64)

    def resized(x: Tensor, *size: int) -> Tensor:
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=True)

    with torch.no_grad():
        full = by_hand(model, image)
        middle = resized(by_hand(model, resized(image, 49, 73)), 9, 13)
        half = by_hand(model, resized(image, 33, 49))
        fused = torch.stack([full, middle, resized(half, 9, 13)]).amax(0)
        found = model.scales(image)
        for one, other in zip(found, (fused, full, middle, half), strict=True):
            torch.testing.assert_close(one, other)
        assert len({int(index) for index in torch.stack([full, middle, resized(half, 9, 13)]).argmax(0).unique()}) == 3
        torch.testing.assert_close(model(image).logits, resized(fused, 65, 97))
        assert model(image).aux == ()
        training = model.train()(image)
    for one, other in zip(training.aux, (full, middle, half), strict=True):
        torch.testing.assert_close(one, resized(other, 65, 97))
    assert model.aux_weights == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("size", [(65, 33), (50, 47)])
def test_scores_stand_for_pixels(build: type, size: tuple[int, int]) -> None:
    """Every eighth pixel of the logits is a cell that training sees; of the half scale's every sixteenth."""
    model, image = awake(build), torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        cells, dense = coarse_scores(model, image), model.train()(image)
    for index, (scores, logits) in enumerate(zip((cells.logits, *cells.aux), (dense.logits, *dense.aux), strict=True)):
        labels = torch.arange(size[0] * size[1]).reshape(1, *size)
        places = labels_of_scores(model, labels, scores, output=index)
        torch.testing.assert_close(logits.flatten(2)[0, :, places[0]], scores[0])
    if build is deeplabv2_resnet101_msc:
        assert cells.aux[2].shape[2:] == tuple(-(-side // 16) for side in size)


def test_other_sizes_see_the_mean_colour_beyond() -> None:
    model, image = awake(deeplabv2_resnet101), torch.randn(1, 3, 60, 50, dtype=torch.float64)
    padded = functional.pad(image, (0, 7, 0, 5))
    with torch.no_grad():
        torch.testing.assert_close(model(image).logits, model(padded).logits[:, :, :60, :50])


def test_windows_of_the_same_grid_see_the_same() -> None:
    """Moved by the period, the three grids lie on the same pixels; the middle is out of reach of the borders."""
    model = awake(deeplabv2_resnet101_msc, head="largefov", blocks=(1, 1, 1, 1))
    period = model.size_rule.period
    image = torch.randn(1, 3, 1, 1057, dtype=torch.float64).expand(-1, -1, 33, -1)
    with torch.no_grad():
        whole, part = model(image).logits, model(image[..., period:]).logits
    torch.testing.assert_close(whole[..., period:][..., 480:544], part[..., 480:544])


def test_normalisation_is_frozen_in_training() -> None:
    model = deeplabv2_resnet101(num_classes=2, **NARROW).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 1 + 3 * 5 + 4
    assert not any(module.training or module.weight.requires_grad or module.bias.requires_grad for module in norms)
    before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    model(torch.randn(1, 3, 33, 33))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    trained = deeplabv2_resnet101(num_classes=2, frozen_batch_norm=False, **NARROW).train()
    assert all(module.training for module in trained.modules() if isinstance(module, nn.BatchNorm2d))
    assert list(trained.state_dict()) == list(model.state_dict())


def test_a_fresh_trunk_keeps_the_size_of_its_maps() -> None:
    """Without given weights, through all 33 units; torchvision's initialisation would give 10^7."""
    torch.manual_seed(0)
    model = deeplabv2_resnet101(num_classes=2, base_channels=4)
    images = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        assert 0.2 < model.backbone(images).std() < 5
    model(images).logits.square().mean().backward()
    assert all(0 < p.grad.norm() < 100 for p in model.parameters() if p.grad is not None)
    assert model.classifier[0].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not any(layer.bias.any() for layer in model.classifier)


def test_description() -> None:
    """1027 pixels at res5c and 16 for each unit of the largest rate, where no interpolation adds a cell."""
    facts = describe("deeplabv2_resnet101", num_classes=21, base_channels=1, input_size=(321, 321))
    assert facts.receptive_field_smallest == [1027 + 16 * 24] * 2
    assert facts.output_stride == 8
    assert facts.output_size == [321, 321]


def test_impossible_values() -> None:
    for build in BUILDERS:
        with pytest.raises(RequestError, match="head='fc6'; accepted: 'aspp' or 'largefov'"):
            meta(build, head="fc6")
        model = meta(build, **NARROW)
        for entry in (model, model.scores):
            with pytest.raises(RequestError, match=r"1 channels, shape \(1, 1, 9, 9\); this model was built for 3"):
                entry(torch.zeros(1, 1, 9, 9, device="meta"))
