"""Gridding: the change that one bright cell makes is that of an independent pass, and C is smoother than A and B."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pixelwise.errors import RequestError
from pixelwise.models import list_models, model_info
from pixelwise.models.drn import DRN
from pixelwise.report.look_gridding import change_of_last_map, dilated_part, look_gridding, unevenness
from pixelwise.report.look_scene import Scene, open_scene, open_target

TASKS = ("semantic", "classification")
WIDTHS = {"drn_a_18": {"base_channels": 8}, "drn_b_26": {"base_channels": 2}, "drn_c_26": {"base_channels": 2}}


def photograph() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (200, 232, 3)).astype(np.uint8)


def make_scene(name: str, **options: object) -> Scene:
    opened = open_target(name, photograph(), num_classes=2, seed=0, options={**WIDTHS[name], **options}, tasks=TASKS)
    return open_scene(opened.segmenter, photograph())


@pytest.mark.parametrize(
    ("name", "options", "first", "last"),
    [
        ("drn_a_18", {}, "layer3.0:", "layer4.1:"),
        ("drn_a_18", {"first_dilation": "paper"}, "layer2.1:", "layer4.1:"),
        ("drn_b_26", {}, "layer4.1:", "layer8.0:"),
        ("drn_c_26", {}, "layer4.1:", "layer8.0:"),
    ],
)
def test_from_where_to_where(name: str, options: dict[str, object], first: str, last: str) -> None:
    scene = make_scene(name, **options)
    start, end = dilated_part(scene, name)
    assert scene.layers[start].kind == scene.layers[end].kind == "relu"
    assert (scene.labels[start][:-1], scene.labels[end][:-1]) == (first, last)


def test_change_is_that_of_an_independent_pass() -> None:
    scene = make_scene("drn_c_26")
    found, maps = change_of_last_map(scene, *dilated_part(scene, "drn_c_26"))
    model = scene.segmenter.model
    assert isinstance(model, DRN)

    def brighten(_: nn.Module, __: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[0, :, 12, 14] = output[0].flatten(1).max(dim=1).values
        return output

    with torch.no_grad():
        plain = model.level_maps(scene.batch())[-1][0]
        handle = model.layer4.register_forward_hook(brighten)
        bright = model.level_maps(scene.batch())[-1][0]
        handle.remove()
    np.testing.assert_allclose(maps, plain, rtol=1e-5, atol=1e-6)
    wanted = (bright - plain).square().mean(0).sqrt()[:, 2:27]  # 25 x 29 cells, the bright one in the middle
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5 * float(wanted.max()))


def test_degridding() -> None:
    uneven = {}
    for name in WIDTHS:
        scene = make_scene(name)
        change, _ = change_of_last_map(scene, *dilated_part(scene, name))
        uneven[name] = unevenness(change)
    assert uneven["drn_c_26"] < 0.6 * uneven["drn_b_26"]
    assert uneven["drn_c_26"] < 0.6 * uneven["drn_a_18"]


def test_unevenness() -> None:
    assert unevenness(np.zeros((3, 3), np.float32)) == 0
    assert unevenness(np.float32([[1, 3]])) == 0.5


@pytest.mark.parametrize("ending", [".png", pytest.param(".html", marks=pytest.mark.slow)])
def test_a_figure(tmp_path: Path, ending: str) -> None:
    Image.fromarray(photograph()).save(tmp_path / "image.png")
    draw = partial(look_gridding, image=tmp_path / "image.png", out=tmp_path / f"out{ending}")
    looked = draw(["drn_b_26", "drn_c_26"], options=WIDTHS["drn_c_26"])
    assert [(one.model, one.dilations) for one in looked.networks] == [
        ("drn_b_26", (2, 4, 2, 1)),
        ("drn_c_26", (2, 4, 2, 1)),
    ]
    if ending == ".png":
        with Image.open(looked.output) as drawn:
            assert drawn.size[0] == 1400
    else:
        assert "drn_c_26: dilations 2, 4, 2, 1; neighbouring cells differ by" in looked.output.read_text()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["unet_small"], "unet_small has no dilated convolutions behind others"),
        (["deeplabv2_resnet101_msc"], "has no single map behind its dilated convolutions"),
        ([], "0 networks are named; accepted: 1 to 12"),
        (["drn_c_62"], "closest: drn_c_42"),
    ],
)
def test_what_has_no_grid_is_refused(tmp_path: Path, names: list[str], words: str) -> None:
    Image.fromarray(photograph()[:64, :64]).save(tmp_path / "image.png")
    options = model_info(names[0]).debug if names and names[0] in list_models() else None
    with pytest.raises(RequestError, match=words):
        look_gridding(names, tmp_path / "image.png", out=tmp_path / "out.png", options=options)
    assert not (tmp_path / "out.png").exists()
