"""Unpooling switches as `look` draws them: read from the network, in four colours, where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pixelwise.layers.unpooling import MaxPool2x2, MaxUnpool2x2
from pixelwise.models import model_info
from pixelwise.report.look import look
from pixelwise.report.look_decoder import Decoder, coarse_to_fine, unpoolings
from pixelwise.report.look_figures import View, kinds_on_image
from pixelwise.report.look_layers import Place, layer_title, stages
from pixelwise.report.look_pass import Operation
from pixelwise.report.look_scene import Scene, measure_batch_norm, open_scene, open_target
from pixelwise.report.look_switches import (
    CORNER_COLORS,
    EMPTY,
    Level,
    corner_of,
    legend_panel,
    level_panels,
    shares,
    windows_on,
)

COLORS = [tuple(color) for color in CORNER_COLORS.tolist()]


def image(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels)).astype(np.uint8)


def scene(name: str, picture: np.ndarray) -> Scene:
    opened = open_target(name, picture, num_classes=3, seed=0, options=dict(model_info(name).debug))
    return open_scene(opened.segmenter, picture)


def read(values: Tensor, decoded: Tensor) -> Level:
    """Pool a map (1, C, H, W), unpool another with its switches, and read both."""
    pooled, switches = MaxPool2x2()(values)
    level = Level(within=(0, 0, *pooled.shape[2:]))
    level.pooling(Operation(reads=(values,), gives=(pooled, switches.indices)))
    level.unpooling(Operation(reads=(decoded, switches.indices), gives=(MaxUnpool2x2()(decoded, switches),)))
    return level


def test_corners_are_where_the_maxima_are() -> None:
    values = torch.zeros(1, 2, 4, 6)
    for corner, (y, x) in enumerate(((0, 0), (0, 3), (3, 0), (3, 3))):
        values[0, 1, y, x] = corner + 1
    level = read(values, torch.arange(12.0).reshape(1, 2, 2, 3) + 1)
    assert level.channel == 1  # the other is flat
    assert level.corners is not None
    assert level.corners[1].tolist() == [[0, 1, 0], [2, 3, 0]]  # of equal values the first
    assert level.detail == (0, 0, 2, 3)
    assert level.after is not None
    assert [level.after[y, x] for y, x in ((0, 0), (0, 3), (3, 0), (3, 3))] == [7, 8, 10, 11]
    assert shares(level.corners[1]) == "top left 50%, top right 17%, bottom left 17%, bottom right 17%"


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (40, 3), (3, 40), (37, 53)])
def test_maps_of_odd_sizes(size: tuple[int, int]) -> None:
    values = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    level = read(values, MaxPool2x2()(values)[0])
    assert level.corners is not None
    assert level.after is not None
    assert level.before is not None
    own = values[0, level.channel].numpy()
    for row, line in enumerate(level.corners[level.channel].tolist()):
        for column, corner in enumerate(line):
            window = own[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert window[corner // 2, corner % 2] == window.max()
    kept = level.after != 0
    assert np.array_equal(level.after[kept], level.before[kept])  # the pooled values, at their places again
    assert kept.sum() == level.detail[2] * level.detail[3]
    panels = level_panels(level, Place(origin=(0.5, 0.5), stride=(2.0, 2.0)), View(picture=image(*size), size=size))
    assert len(panels) == 4
    assert all(panel.picture.width <= 322 and panel.picture.height <= 483 for panel in panels)


def test_the_detail_is_where_the_map_varies_most() -> None:
    values = torch.zeros(1, 1, 64, 80)
    values[0, 0, 40:50, 60:70] = torch.rand(10, 10, generator=torch.Generator().manual_seed(0))
    level = read(values, torch.ones(1, 1, 32, 40))
    top, left, rows, columns = level.detail
    assert (rows, columns) == (8, 8)
    assert top <= 20
    assert top + rows >= 25
    assert left <= 30
    assert left + columns >= 35


def test_a_detail_shows_each_place_in_the_color_of_its_corner() -> None:
    values = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    level = read(values, torch.rand(1, 1, 8, 8))
    assert level.corners is not None
    _, before, places, after = (
        np.asarray(panel.picture) for panel in level_panels(level, Place(), View(picture=image(8, 8), size=(8, 8)))
    )
    assert places.shape == (321, 321, 3)
    for row, line in enumerate(level.corners[0].tolist()):
        for column, corner in enumerate(line):
            y, x = 40 * row + 20 * (corner // 2) + 10, 40 * column + 20 * (corner % 2) + 10
            assert tuple(places[y, x]) == tuple(before[y, x]) == COLORS[corner]
            away = 40 * row + 20 * (1 - corner // 2) + 10, 40 * column + 20 * (1 - corner % 2) + 10
            assert tuple(places[away]) == tuple(after[away]) == EMPTY
            assert tuple(after[y, x]) != EMPTY


def test_the_legend_is_a_window_in_its_colors() -> None:
    legend = np.asarray(legend_panel().picture)
    assert [tuple(legend[y, x]) for y in (8, 148) for x in (8, 148)] == COLORS
    assert corner_of(np.array([[0, 1], [5, 6]]), 5).tolist() == [[0, 1], [2, 3]]


def test_kinds_lie_on_the_image_and_are_never_mixed() -> None:
    values = np.arange(4, dtype=np.uint8).reshape(2, 2)
    place = Place(origin=(0.5, 0.5), stride=(2.0, 2.0))
    view = View(picture=image(4, 4), size=(4, 4))
    assert kinds_on_image(values, place, view, (4, 4)).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    many = np.random.default_rng(0).choice(np.uint8([0, 3]), (50, 50))
    assert set(kinds_on_image(many, Place(), View(picture=image(50, 50), size=(50, 50)), (10, 10)).ravel()) == {0, 3}


# --- networks


@pytest.mark.parametrize(
    ("name", "size", "levels"), [("segnet_basic", (45, 61), 4), ("deconvnet_vgg16", (224, 224), 5)]
)
def test_switches_are_those_of_the_network(name: str, size: tuple[int, int], levels: int) -> None:
    before = scene(name, image(*size))
    decoder = Decoder(before, None)
    rows = unpoolings(before.layers)
    assert list(decoder.levels) == rows
    assert len(rows) == levels
    assert [before.layers[before.layers[row].pool or 0].kind for row in rows] == ["max pool"] * levels
    readers = {
        row: (lambda op, found=found: [reader(op) for reader in found]) for row, found in decoder.readers().items()
    }
    batch = before.predict(readers).batch
    kept: list[Tensor] = []
    pools = [module for module in before.segmenter.model.modules() if isinstance(module, MaxPool2x2)]
    handles = [pool.register_forward_hook(lambda m, i, out: kept.append(out[1].indices)) for pool in pools]
    with torch.no_grad():
        before.segmenter.model(batch)
    for handle in handles:
        handle.remove()
    for row, indices in zip(rows, reversed(kept), strict=True):
        pool = before.layers[before.layers[row].pool or 0]
        corners = decoder.levels[row].corners
        assert corners is not None
        assert np.array_equal(corners, corner_of(indices[0].numpy(), before.layers[pool.inputs[0]].shape[2]))
    titles = [section.title for section in decoder.sections()]
    assert titles[:2] == ["Decoder, from coarse to fine", "Unpooling switches"]
    assert titles[2:] == [before.labels[row] for row in rows]


def test_layers_of_deconvnet_are_those_of_the_papers_figure() -> None:
    """Fig. 4 of Noh et al.: (b) the last 14 x 14 deconvolution to (j) the last 224 x 224 one, unpoolings between."""
    before = scene("deconvnet_vgg16", image(224, 224))
    titles = [
        layer_title(before.layers, before.labels, row)
        for row in coarse_to_fine(before.layers, unpoolings(before.layers))
    ]
    deconvolutions = [("5_3", 14), ("4_3", 28), ("3_3", 56), ("2_2", 112), ("1_2", 224)]
    assert [title.split(" ")[0] for title in titles] == [
        name
        for level, (last, _) in zip("54321", deconvolutions, strict=True)
        for name in (f"unpool{level}", f"deconv{last}")
    ]
    ensemble = scene("edeconvnet", image(224, 224))  # FCN-8s, which comes after it, has no part in the figure
    last = coarse_to_fine(ensemble.layers, unpoolings(ensemble.layers))[-1]
    assert layer_title(ensemble.layers, ensemble.labels, last).startswith("deconvnet.deconv1_2 ")
    sides = [before.layers[row].shape[1] for row in coarse_to_fine(before.layers, unpoolings(before.layers))]
    assert sides == [side for _, side in deconvolutions for _ in range(2)]
    chosen = [layer_title(before.layers, before.labels, row) for row in stages(before.layers, before.strides)]
    assert [title.split(" ")[0] for title in chosen][:8] == [
        *(f"conv{name}" for name in ("1_2", "2_2", "3_3", "4_3", "5_3")),
        *("fc6_deconv", "unpool5", "deconv5_3"),
    ]
    assert chosen[-1] == "seg_score_voc"


def test_networks_without_unpooling_have_no_such_figures() -> None:
    before = scene("unet_small", image(32, 32))
    assert unpoolings(before.layers) == []
    assert coarse_to_fine(before.layers, []) == []
    assert Decoder(before, None).sections() == []


def test_a_pool_or_an_unpooling_is_drawn_with_the_switches_of_all_channels(tmp_path: Path) -> None:
    Image.fromarray(image(45, 61)).save(tmp_path / "i.png")
    pages = []
    for layer in ("pool2", "upsample2"):
        look("segnet_basic", tmp_path / "i.png", out=tmp_path / "p.html", layer=layer, options={"base_channels": 3})
        pages.append((tmp_path / "p.html").read_text())
        assert "<h2>Switches of upsample2, channel by channel</h2>" in pages[-1]
        assert "to 23 x 31 by the switches of pool2 · channel " in pages[-1]
    assert "<h2>Channels of pool2</h2>" in pages[0]
    assert "<h2>Channels of upsample2</h2>" in pages[1]
    look("segnet_basic", tmp_path / "i.png", out=tmp_path / "p.html", layer="conv1", options={"base_channels": 3})
    assert "Switches" not in (tmp_path / "p.html").read_text()


def test_the_detail_lies_on_the_image_where_the_rest_mirrors_it() -> None:
    view = View(picture=image(20, 30), size=(20, 30), top=100, left=90)
    assert windows_on(view, Place(origin=(0.5, 0.5), stride=(2.0, 2.0)), (112, 112)) == (50, 45, 10, 15)
    assert windows_on(view, Place(origin=(15.5, 15.5), stride=(32.0, 32.0)), (7, 7)) == (3, 3, 1, 1)
    one = View(picture=image(1, 1), size=(1, 1), top=111, left=0)
    assert windows_on(one, Place(origin=(15.5, 15.5), stride=(32.0, 32.0)), (7, 7)) == (3, 0, 1, 1)
    before = scene("deconvnet_vgg16", image(20, 30))
    decoder = Decoder(before, None)
    for row, level in decoder.levels.items():
        level.pooling(
            Operation(
                reads=(torch.zeros(1, 1, *before.layers[row].shape[1:]),),
                gives=MaxPool2x2()(torch.rand(1, 1, *before.layers[row].shape[1:]))[0:1] * 2,
            )
        )
        assert level.detail[0] >= level.within[0]
        assert level.detail[0] + level.detail[2] <= level.within[0] + level.within[2]


@pytest.mark.parametrize(
    ("name", "size"), [("segnet_vgg16", (1, 1)), ("segnet_basic", (3, 400)), ("deconvnet_vgg16", (40, 2))]
)
def test_overviews_of_odd_images(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    Image.fromarray(image(*size)[:, :, 0]).save(tmp_path / "i.png")
    look(name, tmp_path / "i.png", out=tmp_path / "p.png", options=dict(model_info(name).debug))
    with Image.open(tmp_path / "p.png") as sheet:
        assert sheet.size[0] == 1400


def test_batch_normalisation_of_an_untrained_network_is_measured_on_the_image() -> None:
    before = scene("segnet_basic", image(45, 61))
    norm = next(module for module in before.segmenter.model.modules() if isinstance(module, nn.BatchNorm2d))
    assert measure_batch_norm(before)
    batch = before.predict({}).batch
    seen: list[Tensor] = []
    handle = norm.register_forward_hook(lambda m, i, out: seen.append(out.clone()))
    with torch.no_grad():
        before.segmenter.model(torch.cat([batch, batch.flip(3)]))
    handle.remove()
    assert seen[-1].mean(dim=(0, 2, 3)).abs().max() < 0.01  # the shift of 0.001
    torch.testing.assert_close(seen[-1].var(dim=(0, 2, 3), correction=0), torch.ones(4), atol=1e-3, rtol=0)
    assert not measure_batch_norm(scene("unet", image(30, 30)))
