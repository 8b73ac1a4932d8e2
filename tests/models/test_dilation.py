"""The dilated networks held to the numbers of their paper, and to the released definitions and programs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.engine.layer_table import input_span, layer_table
from pixelwise.engine.passes import predict_logits
from pixelwise.errors import RequestError
from pixelwise.layers.dilate import dilate
from pixelwise.models.dilation import (
    DilatedNet,
    dilated_frontend_vgg16,
    dilation7_kitti,
    dilation8_camvid,
    dilation8_voc,
    dilation10_cityscapes,
    reflect,
)
from pixelwise.models.fcn import fcn32s_vgg16

BUILDERS = [dilated_frontend_vgg16, dilation8_voc, dilation8_camvid, dilation7_kitti, dilation10_cityscapes]


def meta(build: type = dilated_frontend_vgg16, **options: object) -> DilatedNet:
    with torch.device("meta"):
        return build(**{"num_classes": 21, **options}).eval()


def awake(build: type, **options: object) -> DilatedNet:
    """Build at debug width with biases and scores that are not near zero, in double precision."""
    torch.manual_seed(0)
    model = build(**{"num_classes": 3, "base_channels": 2, **options}).eval().double()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.1)
    nn.init.normal_(model.final.weight, std=0.2)
    return model


def photograph(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("build", "classes", "parameters"),
    [
        (dilated_frontend_vgg16, 21, 134_346_581),
        (dilated_frontend_vgg16, 19, 134_338_387),
        (dilated_frontend_vgg16, 11, 134_305_611),
        (dilation8_voc, 21, 141_149_720),
        (dilation8_camvid, 21, 134_374_973),
        (dilation8_camvid, 11, 134_313_443),
        (dilation7_kitti, 11, 134_312_343),
        (dilation10_cityscapes, 19, 134_368_179),
    ],
)
def test_parameter_counts(build: type, classes: int, parameters: int) -> None:
    assert sum(p.numel() for p in meta(build, num_classes=classes).parameters()) == parameters


def test_the_front_end_has_the_weights_of_fcn32s() -> None:
    with torch.device("meta"):
        fcn = fcn32s_vgg16(num_classes=21).state_dict()
    renamed = {key.replace("score_fr", "final"): tensor.shape for key, tensor in fcn.items() if key != "upscore.weight"}
    assert renamed == {key: tensor.shape for key, tensor in meta().state_dict().items()}


def test_stages_for_an_input_of_900() -> None:
    """Table c1: sides after each convolution and pool, without padding anywhere."""
    model, sides = meta(padding="valid"), {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda m, a, out, name=name: sides.update({name: (out.shape[1], out.shape[2])}))
    model.scores(torch.zeros(1, 3, 900, 900, device="meta"))
    assert sides == {
        **{"conv1_1": (64, 898), "conv1_2": (64, 896), "pool1": (64, 448)},
        **{"conv2_1": (128, 446), "conv2_2": (128, 444), "pool2": (128, 222)},
        **{"conv3_1": (256, 220), "conv3_2": (256, 218), "conv3_3": (256, 216), "pool3": (256, 108)},
        **{"conv4_1": (512, 106), "conv4_2": (512, 104), "conv4_3": (512, 102)},
        **{"conv5_1": (512, 98), "conv5_2": (512, 94), "conv5_3": (512, 90)},
        **{"fc6": (4096, 66), "drop6": (4096, 66), "fc7": (4096, 66), "drop7": (4096, 66), "final": (21, 66)},
    }


@pytest.mark.parametrize(
    ("side", "cells"), [(500, 16), (628, 32), (852, 60), (884, 64), (900, 66), (1100, 91), (1396, 128), (1640, 159)]
)
def test_cells_of_the_released_inputs(side: int, cells: int) -> None:
    """(N - 372) / 8, rounded up as Caffe's pools do: 158.5 for KITTI's width of 1640 becomes 159."""
    model = meta(padding="valid", base_channels=1)
    assert model.scores(torch.zeros(1, 3, side, 500, device="meta")).shape == (1, 21, cells, 16)


@pytest.mark.parametrize(
    ("build", "size", "cells"),
    [
        (dilation8_voc, (900, 900), (66, 66)),
        (dilation8_camvid, (900, 1100), (66, 91)),
        (dilation7_kitti, (852, 1640), (60, 159)),
        (dilation10_cityscapes, (1396, 1396), (128, 128)),
    ],
)
def test_context_networks_keep_the_cells(build: type, size: tuple[int, int], cells: tuple[int, int]) -> None:
    model = meta(build, padding="valid", base_channels=1)
    assert model.scores(torch.zeros(1, 3, *size, device="meta")).shape[2:] == cells


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("padding", ["reflect", "same"])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (8, 7), (1, 300), (97, 10)])
def test_any_size_comes_out_as_it_went_in(build: type, padding: str, size: tuple[int, int]) -> None:
    model = meta(build, padding=padding, base_channels=1)
    images = torch.zeros(2, 3, *size, device="meta")
    assert model(images).logits.shape == (2, 21, *size)
    assert model.scores(images).shape == (2, 21, -(-size[0] // 8), -(-size[1] // 8))


@pytest.mark.parametrize(("build", "margin"), [(dilation8_voc, 194), (dilation10_cityscapes, 186)])
def test_valid_networks_lose_their_margin(build: type, margin: int) -> None:
    """1396 pixels become 1024 in Dilation10, as in the release; interpolation loses a cell more on each side."""
    model = meta(build, padding="valid", base_channels=1)
    smallest = 2 * margin + 1
    for side in (smallest, smallest + 1, 900, 901, 1396):
        logits = model(torch.zeros(1, 3, side, 500, device="meta")).logits
        assert logits.shape[2:] == (side - 2 * margin, 500 - 2 * margin)
    with pytest.raises(RequestError, match=rf"height {smallest - 1} \(nearest legal: {smallest}\)"):
        model(torch.zeros(1, 3, smallest - 1, 500, device="meta"))


class Cells(nn.Module):
    """A network up to its cells, for the layer table."""

    def __init__(self, model: DilatedNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.scores(images)


@pytest.mark.parametrize(
    ("build", "pixels"),
    [(dilated_frontend_vgg16, 380), (dilation8_voc, 908), (dilation7_kitti, 652), (dilation10_cityscapes, 2444)],
)
def test_receptive_fields_and_the_half_cell(build: type, pixels: int) -> None:
    """Cell i of the padded image has its centre at 189.5 + 8 i, which is pixel 8 i + 3.5 of the image."""
    model = meta(build, padding="valid", base_channels=1, num_classes=1)
    table = layer_table(Cells(model), in_channels=3, input_size=(500, 500))
    for cell in (0, 5):
        span = input_span(table, cell, 0)
        assert span is not None
        assert span[1] - span[0] + 1 == pixels
        assert (span[0] + span[1]) / 2 == 189.5 + 8 * cell


def test_probing_finds_380_pixels() -> None:
    """A bright pixel reaches the first cell from columns 0 to 379, and the second from 8 to 387."""
    model = dilated_frontend_vgg16(num_classes=1, in_channels=1, base_channels=1, padding="valid").eval().double()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.1, 0.2)

    def reached(column: int) -> list[bool]:
        images = torch.zeros(1, 1, 389, 389, dtype=torch.float64)
        images[0, 0, 189, column] = 1e6
        with torch.no_grad():
            return (model.scores(images)[0, 0, 0] != dark).tolist()[:2]

    with torch.no_grad():
        dark = model.scores(torch.zeros(1, 1, 389, 389, dtype=torch.float64))[0, 0, 0]
    assert [reached(column) for column in (0, 7, 8, 379, 380, 387, 388)] == [
        *([True, False], [True, False], [True, True], [True, True], [False, True], [False, True], [False, False])
    ]


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 12), width=st.integers(1, 260), margin=st.integers(0, 200))
def test_reflection_repeats_as_numpy_s_does(height: int, width: int, margin: int) -> None:
    image = torch.arange(float(height * width)).view(1, 1, height, width)
    expected = np.pad(image[0, 0].numpy(), margin, mode="reflect")
    assert np.array_equal(reflect(image, margin)[0, 0].numpy(), expected)


def interpolated(cells: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Blend each pixel from the cells floor(x / 8) and floor(x / 8) + 1, as the release's program does."""
    out = np.zeros((cells.shape[0], height, width))
    for row in range(height):
        for column in range(width):
            (top, left), (down, across) = (row // 8, column // 8), (row % 8 / 8, column % 8 / 8)
            near = (1 - down) * cells[:, top, left] + down * cells[:, top + 1, left]
            far = (1 - down) * cells[:, top, left + 1] + down * cells[:, top + 1, left + 1]
            out[:, row, column] = (1 - across) * near + across * far
    return out


@pytest.mark.parametrize("size", [(33, 40), (24, 25), (1, 9)])
def test_probabilities_are_those_of_the_released_program(size: tuple[int, int]) -> None:
    """Mirror by 186, fill the fixed input by mirroring the mirrored image, softmax, interpolate, cut."""
    image = photograph(*size)
    padded = np.pad(image[0].numpy(), ((0, 0), (186, 186), (186, 186)), mode="reflect")
    fixed = [(0, 372 + 8 * 7 - side) for side in padded.shape[1:]]
    tile = torch.from_numpy(np.pad(padded, ((0, 0), *fixed), mode="reflect"))[None]
    with torch.no_grad():
        fixed_input = awake(dilated_frontend_vgg16, padding="valid")
        cells = fixed_input.scores(tile).softmax(dim=1)[0].numpy()
        probabilities = awake(dilated_frontend_vgg16).probabilities(image)[0].numpy()
    np.testing.assert_allclose(probabilities, interpolated(cells, *size), rtol=1e-9)
    assert np.allclose(probabilities.sum(axis=0), 1)


@pytest.mark.parametrize("build", BUILDERS[:4])
def test_every_eighth_pixel_is_a_cell_that_training_sees(build: type) -> None:
    model, image = awake(build), photograph(41, 30)
    with torch.no_grad():
        logits, scores = model(image).logits, model.scores(image)
        torch.testing.assert_close(logits[:, :, ::8, ::8], scores)
        torch.testing.assert_close(model.probabilities(image)[:, :, ::8, ::8], scores.softmax(dim=1))


def test_valid_and_reflect_are_one_network() -> None:
    """Tiles of the unpadded front end, cut out of the mirrored image, repeat the whole-image pass.

    Up to the last cells: a cell sees 193 pixels to its right, and those beyond 186 of the image's end the released
    program takes from the mirrored image's mirror image, tiles from the endless one.
    """
    size = (50, 61)
    image = photograph(*size)
    with torch.no_grad():
        whole = awake(dilated_frontend_vgg16)(image).logits[0]
    valid = awake(dilated_frontend_vgg16, padding="valid")
    pixels = image[0].permute(1, 2, 0).numpy()
    for tile in (None, (388 + 24, 388 + 32)):
        tiled = predict_logits(valid, pixels, tile=tile)
        torch.testing.assert_close(tiled[:, :41, :49], whole[:, :41, :49].float(), rtol=1e-5, atol=1e-6)


def test_zero_padding_changes_the_border_only() -> None:
    with torch.no_grad():
        image = photograph(400, 400)
        reflected = awake(dilated_frontend_vgg16).scores(image)
        zeros = awake(dilated_frontend_vgg16, padding="same").scores(image)
    inner = (slice(None), slice(None), slice(24, 26), slice(24, 26))  # of 50; 186 pixels are 23.25 cells
    torch.testing.assert_close(zeros[inner], reflected[inner])
    assert (zeros - reflected).abs().max() > 1e-3


@pytest.mark.parametrize("padding", ["reflect", "valid"])
def test_a_constant_image_is_scored_alike_everywhere(padding: str) -> None:
    side = 389 if padding == "valid" else 21
    scores = awake(dilated_frontend_vgg16, padding=padding).scores(torch.full((1, 3, side, side), 0.7).double())
    torch.testing.assert_close(scores, scores[:, :, :1, :1].expand_as(scores))
    assert scores.shape[2:] == (3, 3)


FRONT_END = """
conv1_1 conv1_2 pool conv2_1 conv2_2 pool conv3_1 conv3_2 conv3_3 pool conv4_1 conv4_2 conv4_3 conv5_1:2 conv5_2:2
conv5_3:2 fc6:4 fc7 final
"""
DEFINITIONS = {
    dilation8_voc: "ctx_conv1_1:1:33 ctx_conv1_2 ctx_conv2_1:2 ctx_conv3_1:4 ctx_conv4_1:8 ctx_conv5_1:16 ctx_fc1",
    dilation8_camvid: """ctx_conv1_1:1:1 ctx_conv1_2:1:1 ctx_conv2_1:2:2 ctx_conv3_1:4:4 ctx_conv4_1:8:8
        ctx_conv5_1:16:16 ctx_fc1:1:1""",
    dilation7_kitti: """ctx_conv1_1:1:1 ctx_conv1_2:1:1 ctx_conv2_1:2:2 ctx_conv3_1:4:4 ctx_conv4_1:8:8 ctx_fc1:1:1""",
    dilation10_cityscapes: """ctx_conv1_1:1:1 ctx_conv1_2:1:1 ctx_conv2_1:2:2 ctx_conv3_1:4:4 ctx_conv4_1:8:8
        ctx_conv5_1:16:16 ctx_conv6_1:32:32 ctx_conv7_1:64:64 ctx_fc1:1:1""",
}


@pytest.mark.parametrize("build", list(DEFINITIONS))
def test_cells_are_those_of_the_released_definition(build: type) -> None:
    """The prototxt's rows "name:dilation:padding" run one by one from the state dict alone."""
    model = awake(build, padding="valid")
    for name, parameter in model.named_parameters():
        if name.startswith("ctx"):
            nn.init.normal_(parameter, std=0.2)
    state, images = model.state_dict(), photograph(396, 400)
    x = images
    for row in f"{FRONT_END} {DEFINITIONS[build]} ctx_final".split():
        name, dilation, padding = (row + ":1:0" if ":" not in row else row + ":0").split(":")[:3]
        if name == "pool":
            x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
            continue
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        x = functional.conv2d(x, weight, bias, padding=int(padding), dilation=int(dilation))
        x = x if name.endswith("final") else x.clamp(min=0)
    with torch.no_grad():
        torch.testing.assert_close(model.scores(images), x)
        if build is dilation10_cityscapes:
            profile = 1 - (torch.arange(16, dtype=torch.float64) - 7.5).abs() / 8
            kernel = torch.outer(profile, profile).expand(3, 1, 16, 16)
            upsampled = functional.conv_transpose2d(x, kernel, stride=8, padding=4, groups=3)
            torch.testing.assert_close(model(images).logits, upsampled[:, :, :24, :28])
            torch.testing.assert_close(model.probabilities(images), upsampled[:, :, :24, :28].softmax(dim=1))


def test_the_front_end_is_the_dense_twin_of_a_subsampling_one() -> None:
    """With pools 4 and 5 that only subsample, the strided VGG-16 gives every fourth cell, from the same weights."""
    model = awake(dilated_frontend_vgg16, padding="valid")
    strided = nn.Sequential(nn.MaxPool2d(1, 2))
    for layer in (model.conv5_1, model.conv5_2, model.conv5_3, nn.MaxPool2d(1, 2), model.fc6):
        if isinstance(layer, nn.Conv2d):
            plain = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, dtype=torch.float64)
            plain.load_state_dict(layer.state_dict())
            layer = plain
        strided.append(layer)
        strided.append(nn.ReLU())
    twin, rate = dilate(strided)
    block4 = torch.rand(1, 16, 41, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        dense = model.fc6(model.block5(block4)).clamp(min=0)
        assert rate == 4
        torch.testing.assert_close(twin(block4), dense)
        torch.testing.assert_close(strided(block4), dense[:, :, ::4, ::4])


def test_dilation10_upsamples_by_kernels_that_are_not_learnt() -> None:
    model = awake(dilation10_cityscapes)
    assert model.state_dict()["ctx_upsample.weight"].shape == (3, 1, 16, 16)
    assert "ctx_upsample.weight" not in dict(model.named_parameters())
    learnt = awake(dilation10_cityscapes, learn_upsampling=True)
    assert learnt.get_parameter("ctx_upsample.weight").shape == (3, 3, 16, 16)
    with torch.no_grad():
        image = photograph(20, 17)
        torch.testing.assert_close(learnt(image).logits, model(image).logits)


@pytest.mark.parametrize("build", BUILDERS[1:])
def test_context_starts_by_passing_the_front_end_on(build: type) -> None:
    model, alone = awake(build, sigma=0.0), awake(dilated_frontend_vgg16)
    for name, parameter in model.named_parameters():
        if name.startswith("ctx") and name.endswith("bias"):
            nn.init.zeros_(parameter)
    alone.load_state_dict({key: tensor for key, tensor in model.state_dict().items() if not key.startswith("ctx")})
    with torch.no_grad():
        image = photograph(40, 30)
        torch.testing.assert_close(model.scores(image), alone.scores(image).relu())


def test_initialisation() -> None:
    """`final` from N(0, 0.001^2) as the release; fc6 from N(0, 2 / fan_in), which is ours; biases 0."""
    torch.manual_seed(0)
    model = dilated_frontend_vgg16(num_classes=40, base_channels=4)
    assert model.final.weight.std().item() == pytest.approx(0.001, rel=0.03)
    assert model.fc6.weight.std().item() == pytest.approx((2 / (32 * 49)) ** 0.5, rel=0.02)
    assert not any(p.count_nonzero() for name, p in model.named_parameters() if name.endswith("bias"))
    assert (model.drop6.p, model.drop7.p) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"padding": "mirror"}, "padding='mirror'; accepted: 'reflect', 'valid' or 'same'"),
        ({"dropout": 1.0}, "dropout=1.0; accepted: 0 up to, not including, 1"),
        ({"base_channels": 0}, "base_channels=0; accepted: whole numbers from 1"),
    ],
)
def test_impossible_options(options: dict[str, object], text: str) -> None:
    for build in BUILDERS:
        with pytest.raises(RequestError, match=text):
            build(num_classes=2, **options)


def test_wrong_channels_are_named_at_each_entry() -> None:
    model = meta(base_channels=1)
    for entry in (model, model.scores, model.probabilities):
        with pytest.raises(RequestError, match=r"1 channels, shape \(1, 1, 9, 9\); this model was built for 3"):
            entry(torch.zeros(1, 1, 9, 9, device="meta"))
