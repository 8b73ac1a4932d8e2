"""The figures of `look`: layers named and placed, maps and gradients equal to independent ones, files whole."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from pixelwise import registry
from pixelwise.data.images import as_channels, read_image
from pixelwise.data.normalise import Normalisation
from pixelwise.engine.describe import describe
from pixelwise.engine.model_file import ModelCard, save_model
from pixelwise.engine.predict import load_segmenter
from pixelwise.errors import RequestError
from pixelwise.models import create_model
from pixelwise.report import look_figures as figures
from pixelwise.report.look import look
from pixelwise.report.look_layers import Place, Unit, central_unit, find_layers, stages
from pixelwise.report.look_pass import input_gradient
from pixelwise.report.look_scene import Scene, measure_batch_norm, open_scene, open_target
from pixelwise.report.look_sheet import CONTENT_WIDTH, MARGIN, column_width, heat
from pixelwise.structures import SegmentationOutput, SizeRule

SMALL = {"base_channels": 2, "depth": 2}


def write_image(path: Path, height: int, width: int, *, channels: int = 3, dtype: type = np.uint8) -> Path:
    rng = np.random.default_rng(0)
    array = rng.integers(0, np.iinfo(dtype).max, (height, width, channels)).astype(dtype)
    Image.fromarray(array[:, :, 0] if channels == 1 else array).save(path)
    return path


def make_scene(name: str, image: np.ndarray, **options: int) -> Scene:
    opened = open_target(name, image, num_classes=3, seed=0, options={**SMALL, **options})
    return open_scene(opened.segmenter, image)


def random_image(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels)).astype(np.uint8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A model file of five classes, with odd names; 16-bit grey images, scaled by one half."""
    options = {"base_channels": 2, "depth": 2}
    torch.manual_seed(1)
    model = create_model("unet_small", num_classes=5, in_channels=1, **options)
    card = ModelCard(
        pixelwise="0",
        model="unet_small",
        options=options,
        num_classes=5,
        in_channels=1,
        classes=("sky", "<b>road", "Bäume", "3", "pole"),
        palette=((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)),
        ignore_index=None,
        normalisation=Normalisation(intensity_range=(0.0, 65535.0), mean=(0.5,), std=(0.2,)),
        scale=0.5,
        input_rule="",
        licence=None,
        iteration=7,
        metrics={"miou": 0.25},
    )
    save_model(tmp_path / "model.safetensors", model, card)
    return tmp_path / "model.safetensors"


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


# --- names and places of layers


def test_layers_are_named_by_module_and_by_kind() -> None:
    scene = make_scene("unet_small", random_image(32, 32))
    assert scene.labels[:7] == [*(f"down.0.{i}" for i in range(6)), "pool:1"]
    assert [label for label in scene.labels if ":" in label] == ["pool:1", "pool:2", "concatenate:1", "concatenate:2"]
    assert scene.labels[-1] == "head"
    assert len(set(scene.labels)) == len(scene.labels)
    pools = [scene.labels.index("pool:1"), scene.labels.index("pool:2")]
    assert find_layers(scene.layers, "pool", model="m") == pools
    assert find_layers(scene.layers, "pool:2", model="m") == pools[1:]


def test_an_unknown_layer_is_answered_with_close_names() -> None:
    scene = make_scene("unet_small", random_image(32, 32))
    count = len(scene.layers)
    with pytest.raises(
        RequestError, match=rf"layer 'down.0.9' is not one of the {count} .*closest: down\.0\.\d.*describe"
    ):
        find_layers(scene.layers, "down.0.9", model="unet_small")


def test_stages_stand_for_the_paper_s_boxes() -> None:
    model = describe("unet", base_channels=2)
    scene = make_scene("unet", random_image(40, 40, 1), depth=4)
    assert [row.name for row in model.layers] == [layer.name for layer in scene.layers]
    chosen = [scene.labels[row] for row in stages(scene.layers, scene.strides)]
    down = [f"down.{level}.3" for level in range(5)]
    up = [name for level in range(4) for name in (f"up.{level}", f"merge.{level}.3")]
    assert chosen == [*down, *up, "head"]


@pytest.mark.parametrize("name", ["unet", "unet_padded", "unet_small"])
def test_receptive_field_is_that_of_describe(name: str) -> None:
    scene = make_scene(name, random_image(64, 80), depth=3)
    field = describe(name, base_channels=2, depth=3).receptive_field
    last = len(scene.layers) - 1
    assert list(scene.place(last).field or ()) == field
    unit = scene.central_unit(last)
    assert [span[1] - span[0] + 1 for span in unit.spans] == field
    assert all(abs(p - side / 2) <= 8 for p, side in zip(unit.position, (64, 80), strict=True))


def test_units_lie_where_the_pooling_grid_puts_them() -> None:
    scene = make_scene("unet_small", random_image(32, 48))
    places = {label: scene.place(row) for row, label in enumerate(scene.labels)}
    assert (places["down.0.5"].origin, places["down.0.5"].stride) == ((0, 0), (1, 1))
    assert (places["pool:1"].origin, places["pool:1"].stride) == ((0.5, 0.5), (2, 2))
    assert (places["pool:2"].origin, places["pool:2"].stride) == ((1.5, 1.5), (4, 4))
    assert (places["up.0"].origin, places["up.0"].stride) == ((0.5, 0.5), (2, 2))
    assert (places["merge.1.5"].origin, places["head"].origin) == ((0, 0), (0, 0))
    assert (places["pool:1"].field, places["down.0.2"].field) == ((6, 6), (3, 3))


def test_units_of_valid_convolutions_lie_within_the_margin() -> None:
    scene = make_scene("unet", random_image(30, 30, 1))
    places = {label: scene.place(row) for row, label in enumerate(scene.labels)}
    margin = scene.rule.margin
    assert (scene.view.top, scene.view.left) == (margin, margin)
    assert places["down.0.1"].origin == (1, 1)
    assert places["down.0.3"].origin == (2, 2)
    assert places["pool:1"].origin == (2.5, 2.5)
    assert places["head"].origin == (margin, margin)
    assert places["merge.1.3"].origin == (margin, margin)


# --- what is drawn


def hooked(scene: Scene, batch: Tensor, path: str) -> Tensor:
    """Return what a module gives, by a hook of its own."""
    kept: list[Tensor] = []
    module = scene.segmenter.model.get_submodule(path)
    handle = module.register_forward_hook(lambda m, i, out: kept.append(out.detach().clone()))
    with torch.no_grad():
        scene.segmenter.model(batch)
    handle.remove()
    return kept[-1][0]


@pytest.mark.parametrize(
    ("name", "paths"),
    [("unet", ("down.0.0", "down.1.3", "up.0", "head")), ("unet_small", ("down.0.1", "pool", "merge.0.5"))],
)
def test_watched_layers_equal_a_hook(name: str, paths: tuple[str, ...]) -> None:
    scene = make_scene(name, random_image(40, 52))
    rows = {path: find_layers(scene.layers, path, model=name)[-1] for path in paths}
    readers = dict.fromkeys(rows.values(), lambda operation: operation.output.clone())
    watched = scene.predict(readers)
    for path, row in rows.items():
        expected = hooked(scene, watched.batch, path)
        assert watched.seen[row].shape == scene.layers[row].shape
        assert torch.allclose(watched.seen[row], expected, atol=1e-5)


def test_a_watched_prediction_is_the_usual_one() -> None:
    image = random_image(40, 52)
    scene = make_scene("unet_small", image)
    assert torch.allclose(
        scene.predict({}).prediction.probabilities, scene.segmenter.predict(image).probabilities, atol=1e-5
    )


def test_filters_are_the_weights_each_from_its_lowest_to_its_highest() -> None:
    weight = torch.nn.Conv2d(3, 6, 5).weight.detach().numpy()
    tiles = figures.kernel_tiles(weight)
    assert tiles.shape == (6, 5, 5, 3)
    for kernel, tile in zip(weight, tiles, strict=True):
        expected = (kernel - kernel.min()) / (kernel.max() - kernel.min()) * 255
        assert np.abs(tile.transpose(2, 0, 1) - expected).max() <= 0.5 + 1e-4
        assert (tile.min(), tile.max()) == (0, 255)
    panels, columns = figures.kernel_panels(weight)
    assert (len(panels), columns) == (6, 30)
    assert np.array_equal(np.asarray(panels[2].picture)[3::6, 3::6], tiles[2])


def test_kernels_of_other_channels_stand_side_by_side_in_grey() -> None:
    assert figures.kernel_tiles(np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3))[0, 0].tolist() == [0, 32, 64]
    tile = figures.kernel_tiles(np.float32([[[[0, 1]], [[2, 4]]]]))[0]
    assert tile.tolist() == [[0, 64, 255, 128, 255]]


def test_many_channels_of_a_kernel_are_limited() -> None:
    panels, columns = figures.kernel_panels(np.zeros((2, 500, 3, 3), dtype=np.float32))
    slices = figures.MAX_SLICES
    assert panels[0].picture.size == (5 * (4 * slices - 1), 15)
    assert (len(panels), columns) == (2, 1)


def test_maps_lie_on_the_image() -> None:
    """A map whose units hold their own position is resampled to the position of each pixel."""
    place = Place(origin=(1.5, 5.5), stride=(4.0, 4.0))
    values = np.tile(np.arange(16, dtype=np.float32)[None] * 4 + 5.5, (16, 1))
    view = figures.View(picture=figures.NO_PICTURE, size=(24, 32), top=8, left=16)
    shown = figures.on_image(values, place, view, (48, 64))
    pixels = 16 - 0.5 + (np.arange(64) + 0.5) / 2
    assert np.abs(shown[0] - pixels).max() <= 2  # half a stride
    assert np.array_equal(shown[0], shown[-1])
    small = figures.on_image(values, place, view, (6, 2))  # four units a pixel are averaged
    assert small[0].tolist() == [23.5, 39.5]


def test_channels_are_drawn_by_how_much_they_vary() -> None:
    maps = np.zeros((4, 8, 8), dtype=np.float32)
    maps[1, 0, 0], maps[3, :4] = 3, 5
    assert figures.strongest_channels(maps, 3) == [3, 1, 0]
    view = figures.View(picture=figures.NO_PICTURE, size=(8, 8))
    panels = figures.channel_panels(maps, [3, 1, 0], Place(), view, 8)
    assert [panel.caption for panel in panels] == ["channel 3", "channel 1", "channel 0, flat"]
    indices = [np.asarray(panel.picture) for panel in panels]
    assert indices[0].shape == (156, 156)
    assert set(np.unique(indices[0])) == {0, 255}
    assert (indices[1] == 255).mean() == pytest.approx(1 / 64, abs=0.003)
    assert not indices[2].any()


@pytest.mark.parametrize("name", ["unet", "unet_small"])
@pytest.mark.parametrize("position", [(0, 0), (13, 50), (37, 21), (63, 79)])
def test_gradient_of_a_part_is_that_of_the_whole(name: str, position: tuple[int, int]) -> None:
    scene = make_scene(name, random_image(64, 80), base_channels=4)
    last = len(scene.layers) - 1
    centre = position[0] + scene.rule.margin, position[1] + scene.rule.margin
    batch = scene.predict({}).batch
    unit = central_unit(scene.layers, last, scene.place(last), centre=centre, input_size=scene.input_size)
    found = input_gradient(scene.segmenter.model, batch, position=unit.position, spans=unit.spans)
    whole = batch.clone().requires_grad_()
    logits = scene.segmenter.model(whole).logits[0, :, unit.position[0], unit.position[1]]
    (gradient,) = torch.autograd.grad(logits.max(), whole)
    expected = gradient[0].abs().sum(0).numpy()
    height, width = found.magnitude.shape
    inside = expected[found.top : found.top + height, found.left : found.left + width]
    assert expected.max() > 0
    assert found.magnitude.size < expected.size
    assert np.allclose(found.magnitude, inside, atol=1e-5 * expected.max())
    assert inside.sum() == pytest.approx(expected.sum(), rel=1e-5)
    assert found.class_index == int(logits.argmax())
    rows, columns = np.nonzero(expected)
    assert (unit.spans[0][0] <= rows.min(), rows.max() <= unit.spans[0][1]) == (True, True)
    assert (unit.spans[1][0] <= columns.min(), columns.max() <= unit.spans[1][1]) == (True, True)


def test_effective_side_counts_pixels_over_a_share_of_the_largest() -> None:
    magnitude = np.zeros((20, 20), dtype=np.float32)
    magnitude[5:8, 5:8], magnitude[0, 0] = 1, 0.04
    assert figures.effective_side(magnitude) == 3


def test_field_is_marked_on_the_image_and_cut_at_its_border() -> None:
    view = figures.View(picture=np.full((100, 100, 3), 200, dtype=np.uint8), size=(100, 100), top=10, left=10)
    unit = Unit(position=(0, 0), centre=(59.5, 20.0), spans=((30, 89), (-10, 49)))
    panel = figures.field_panel(view, unit, "it", 4)
    assert panel.caption == "receptive field of it: 60 x 60 pixels, cut at the image's border"
    marked = (np.asarray(panel.picture) == figures.FIELD_COLOR).all(axis=2)
    rows, columns = np.nonzero(marked)
    scale = 322 / 100
    assert (rows.min(), rows.max()) == pytest.approx((20 * scale - 3, 80 * scale + 2), abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((0, 40 * scale + 2), abs=1)


# --- whole sheets


def test_overview_of_an_untrained_model(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", 40, 52)
    looked = look("unet_small", image, out=tmp_path / "look.png", options=SMALL, num_classes=4)
    assert looked.output == tmp_path / "look.png"
    assert looked.classes == ("class 0", "class 1", "class 2", "class 3")
    assert list(looked.receptive_field or ()) == describe("unet_small", **SMALL).receptive_field
    assert looked.layers[-1] == "head"
    sheet = picture(tmp_path / "look.png")
    assert sheet.shape[1] == CONTENT_WIDTH + 2 * MARGIN
    assert 1200 < sheet.shape[0] < 4000
    assert sheet.mean() > 120  # mostly page, not black


def test_the_seed_decides_and_the_same_call_gives_the_same_file(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", 40, 52)
    pages = []
    for seed in (None, 0, 1):
        state = torch.get_rng_state()
        look("unet_small", image, out=tmp_path / "page.html", layer="head", options=SMALL, seed=seed)
        pages.append((tmp_path / "page.html").read_bytes())
        assert torch.equal(torch.get_rng_state(), state)
    assert pages[0] == pages[1]
    assert pages[0] != pages[2]


def test_an_effective_field_too_costly_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_image(tmp_path / "image.png", 40, 52)
    look("unet_small", image, out=tmp_path / "with.html", options=SMALL)
    monkeypatch.setattr("pixelwise.report.look.MAX_GRADIENT_BYTES", 1000)
    look("unet_small", image, out=tmp_path / "without.html", options=SMALL)
    left_out = "The effective receptive field is left out: its pass would need 0.0 GB."
    pages = [(tmp_path / name).read_text() for name in ("with.html", "without.html")]
    assert [left_out in page for page in pages] == [False, True]
    assert ["effective field inside it" in page for page in pages] == [True, False]


def images_of(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")) for text in found]


def test_overview_as_html_is_self_contained_and_escaped(run: Path, tmp_path: Path) -> None:
    image = write_image(tmp_path / "<i>.png", 60, 70, channels=1, dtype=np.uint16)
    look(run, image, out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<b>road" not in page
    assert "&lt;b&gt;road" in page
    assert "<i>.png" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "url(" not in page
    assert "Trained: weights of iteration 7; mean IoU 0.2500" in page
    assert "The network saw 32 x 36 pixels of 1 channel; the image was scaled by 0.5" in page
    assert "the 30 x 35 of the image are shown" in page
    pictures = images_of(page)
    assert len(pictures) == page.count("<figure>")
    assert len(pictures) > 4 + 2 + 5
    assert len({array.tobytes() for array in pictures}) > len(pictures) / 2  # panels differ


def test_probabilities_are_on_one_scale(run: Path, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", 60, 70, channels=1, dtype=np.uint16)
    look(run, image, out=tmp_path / "page.html")
    prediction = load_segmenter(run).predict(image)
    pictures = images_of((tmp_path / "page.html").read_text())[-5:]
    end = figures.scale_end(prediction.probabilities.numpy())
    for values, drawn in zip(prediction.probabilities.numpy(), pictures, strict=True):
        view = figures.View(picture=figures.NO_PICTURE, size=(60, 70))
        shown = figures.on_image(values / end, Place(), view, (drawn.shape[0], drawn.shape[1]))
        expected = np.asarray(heat(shown).convert("RGB")).astype(int)
        assert np.abs(drawn - expected).max() <= 3  # at most a step of the colour map
    page = (tmp_path / "page.html").read_text()
    assert f"probability 0 <i></i> {end:g}<" in page
    share = (prediction.labels == 2).mean()
    assert f"Bäume · {share:.1%}" in page


def test_a_layer_is_drawn_with_all_its_channels(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", 40, 52)
    look("unet_small", image, out=tmp_path / "page.html", layer="down.1.5", options=SMALL)
    page = (tmp_path / "page.html").read_text()
    assert "relu · 4 channels of 20 x 26 · stride 2 · receptive field 14 x 14" in page
    opened = open_target("unet_small", read_image(image), num_classes=None, seed=None, options=SMALL)
    scene = open_scene(opened.segmenter, read_image(image))
    assert measure_batch_norm(scene)
    assert "Its batch normalisations were measured on this image and its mirror image." in page
    maps = hooked(scene, scene.predict({}).batch, "down.1.5").numpy()
    drawn = images_of(page)[2:]
    assert len(drawn) == 4
    for values, panel in zip(maps, drawn, strict=True):
        size = panel.shape[0], panel.shape[1]
        wide = np.repeat(np.repeat(values, 2, axis=0), 2, axis=1)
        view = figures.View(picture=figures.NO_PICTURE, size=(40, 52))
        expected = heat(figures.stretched(figures.on_image(wide, Place(), view, size)))
        assert np.abs(panel - np.asarray(expected.convert("RGB")).astype(int)).max() <= 3
    assert size[1] == column_width(4)


def test_all_uses_of_a_layer_and_a_limited_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_image(tmp_path / "image.png", 40, 52)
    monkeypatch.setattr("pixelwise.report.look.MAX_TILES", 3)
    look("unet_small", image, out=tmp_path / "page.html", layer="concatenate", options=SMALL)
    page = (tmp_path / "page.html").read_text()
    assert page.index("Layer concatenate:1") < page.index("Layer concatenate:2")
    assert "The first 3 of 8 channels." in page
    assert "The first 3 of 4 channels." in page


@pytest.mark.parametrize("wanted", ["Bäume", "2"])
def test_a_class_is_drawn_large(run: Path, tmp_path: Path, wanted: str) -> None:
    image = write_image(tmp_path / "image.png", 60, 70, channels=1, dtype=np.uint16)
    look(run, image, out=tmp_path / "page.html", class_name=wanted)
    look(run, image, out=tmp_path / "page.png", class_name=wanted)
    assert picture(tmp_path / "page.png").shape[1] == 1400
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Class Bäume</h2>" in page
    pictures = images_of(page)
    assert [array.shape for array in pictures] == [(561, 655, 3)] * 4
    wins = (load_segmenter(run).predict(image).labels == 2).mean()
    assert f"where Bäume is the most probable class: {wins:.1%} of the pixels" in page


def test_a_name_that_is_a_number_comes_before_the_index(run: Path, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", 60, 70, channels=1, dtype=np.uint16)
    look(run, image, out=tmp_path / "page.html", class_name="3", layer="head")
    assert "<h2>Class 3</h2>" in (tmp_path / "page.html").read_text()


def test_of_a_large_image_the_middle_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelwise.report.look_scene.MAX_SIDE", 48)
    image = write_image(tmp_path / "image.png", 101, 30)
    look("unet_small", image, out=tmp_path / "page.html", options=SMALL)
    page = (tmp_path / "page.html").read_text()
    assert "The image has 101 x 30 pixels. Its middle, 48 x 30 pixels, is shown" in page
    scene = make_scene("unet_small", read_image(image))
    assert np.array_equal(scene.window, read_image(image)[26:74])


@pytest.mark.parametrize(
    ("name", "size", "channels"), [("unet", (1, 1), 3), ("unet_small", (1, 40), 1), ("unet_small", (40, 1), 3)]
)
def test_tiny_images(name: str, size: tuple[int, int], channels: int, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", *size, channels=channels)
    look(name, image, out=tmp_path / "page.png", options=SMALL)
    assert picture(tmp_path / "page.png").shape[1] == 1400


def test_untrained_models_take_grey_or_as_many_channels_as_the_image() -> None:
    def channels(name: str, image: np.ndarray) -> int:
        opened = open_target(name, image, num_classes=None, seed=None, options=SMALL)
        assert opened.origin.startswith("Untrained: random weights, seed 0.")
        return opened.segmenter.card.in_channels

    assert channels("unet", random_image(8, 8, 1)) == 1
    assert channels("unet", random_image(8, 8, 3)) == 3
    assert channels("unet_small", random_image(8, 8, 1)) == 3
    assert channels("unet_small", random_image(8, 8, 5)) == 5
    image = random_image(20, 20, 1)
    scene = make_scene("unet_small", image)
    assert scene.predict({}).batch.shape == (1, *as_channels(image, 3).shape[::-1][:1], 20, 20)


class Whole(nn.Module):
    """A network with a branch that sees everything, an enlargement of unknown reach, and one legal size."""

    size_rule = SizeRule(minimum=24, maximum=24)

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 6, 5, stride=2, padding=2)
        self.head = nn.Conv2d(6, num_classes, 1)

    def forward(self, images: Tensor) -> SegmentationOutput:
        x = self.conv(images)
        x = x + x.mean(dim=(2, 3), keepdim=True)
        logits = functional.interpolate(self.head(x), size=images.shape[2:], mode="bilinear", align_corners=False)
        return SegmentationOutput(logits)


def register(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    info = registry.ModelInfo(
        name="whole",
        family="test",
        task=task,
        year=2000,
        paper="",
        fidelity="ours",
        source="",
        input_size=(24, 24),
        build=Whole,
    )
    monkeypatch.setitem(registry._MODELS, "whole", info)


def test_a_network_that_sees_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "semantic")
    image = write_image(tmp_path / "image.png", 40, 20)
    looked = look("whole", image, out=tmp_path / "page.html")
    assert looked.receptive_field is None
    assert looked.layers[0] == "conv"
    page = (tmp_path / "page.html").read_text()
    assert "receptive field: the whole image" in page
    assert "The network saw all of it shrunk to 24 x 20: it takes 24 x 24 at most." in page
    assert "receptive field of the marked output pixel: the whole image" in page
    look("whole", image, out=tmp_path / "mean.html", layer="mean")
    assert "6 channels of 1 x 1" in (tmp_path / "mean.html").read_text()


# --- what is refused


def test_models_of_another_task_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "classification")
    image = write_image(tmp_path / "image.png", 24, 24)
    with pytest.raises(RequestError, match="whole is a model for classification output; accepted: semantic models"):
        look("whole", image, out=tmp_path / "page.html")


def test_unknown_classes_are_answered_with_all(run: Path, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", 60, 70, channels=1, dtype=np.uint16)
    for wanted in ("tree", "5", "-1", ""):
        with pytest.raises(
            RequestError, match=r"is not one of the 5 classes; .*\n.*0 to 4.*sky, <b>road, Bäume, 3, pole"
        ):
            look(run, image, out=tmp_path / "new/page.png", class_name=wanted)
    assert not (tmp_path / "new").exists()


def test_unknown_targets_are_answered_with_close_names(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", 24, 24)
    with pytest.raises(RequestError, match=r"'unet_smal' is no model and no path; .*closest: unet_small"):
        look("unet_smal", image, out=tmp_path / "page.png")


def test_a_name_that_is_a_path_too_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    image = write_image(tmp_path / "image.png", 60, 70, channels=1, dtype=np.uint16)
    monkeypatch.chdir(tmp_path)
    run.rename(tmp_path / "unet")
    with pytest.raises(RequestError, match=r"'unet' is a model's name and a path here; .*\./unet"):
        look("unet", image, out="page.png")
    assert look("./unet", image, out="page.png", class_name="0").classes[0] == "sky"
    assert look(Path("unet"), image, out="page.png", class_name="0").classes[0] == "sky"


def test_what_a_run_has_of_its_own_cannot_be_given(run: Path, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", 60, 70, channels=1, dtype=np.uint16)
    with pytest.raises(RequestError, match=r"num_classes=3, seed=0 is given with the run .*only with a model's name"):
        look(run, image, out=tmp_path / "page.png", num_classes=3, seed=0)
    with pytest.raises(RequestError, match=r"options=\{'depth': 2\} is given"):
        look(run, image, out=tmp_path / "page.png", options={"depth": 2})


@pytest.mark.parametrize("name", ["page.jpg", "page", "page.htm"])
def test_other_endings_are_refused(name: str, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", 24, 24)
    with pytest.raises(RequestError, match=rf"{name}'; accepted: a file name that ends in .png or .html"):
        look("unet_small", image, out=tmp_path / name)


def test_the_image_and_folders_are_never_overwritten(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", 24, 24)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(RequestError, match=r"image.png' is the image itself; accepted: a new file"):
        look("unet_small", image, out=tmp_path / "image.png")
    with pytest.raises(RequestError, match=r"folder.png' is a folder; accepted: a new file"):
        look("unet_small", image, out=tmp_path / "folder.png")


def test_images_that_do_not_fit_the_run_are_refused(run: Path, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.png", 24, 24)
    with pytest.raises(RequestError, match="accepted: 16-bit or float images"):
        look(run, image, out=tmp_path / "page.png")
    with pytest.raises(RequestError, match=r"nothing\.png: no such file"):
        look(run, tmp_path / "nothing.png", out=tmp_path / "page.png")
