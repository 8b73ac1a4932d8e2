"""`pixelwise look` as users and scripts call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

QUICK = ("--set", "base_channels=2", "--set", "depth=2")


def an_image(trained: Path) -> Path:
    return trained.parent / "data/images/val/disc5.png"


def test_a_model_before_an_image(pixelwise, trained, tmp_path) -> None:
    out = tmp_path / "figures/look.png"
    done = pixelwise("look", "unet_small", an_image(trained), "--out", out, "--num-classes", 3, "--seed", 5, *QUICK)
    assert (done.code, done.out) == (0, f"figure: {out}\n")
    with Image.open(out) as picture:
        assert picture.size[0] == 1400


def test_a_run_as_json(pixelwise, trained, tmp_path) -> None:
    out = tmp_path / "look.html"
    done = pixelwise(
        "look", trained, an_image(trained), "--out", out, "--layer", "pool", "--class", "foreground", "--json"
    )
    assert done.code == 0
    answer = json.loads(done.out)
    assert list(answer) == ["output", "layers", "receptive_field", "classes"]
    assert answer["output"] == str(out)
    assert answer["classes"] == ["background", "foreground"]
    described = json.loads(pixelwise("describe", "unet_small", *QUICK, "--json").out)
    assert answer["receptive_field"] == described["receptive_field"]
    assert [name.split(":")[0] for name in answer["layers"]] == [
        row["name"] or row["kind"] for row in described["layers"]
    ]
    page = out.read_text()
    for heading in ("Layer pool:1", "Layer pool:2", "Class foreground"):
        assert f"<h2>{heading}</h2>" in page


def test_gridding_of_two_networks(pixelwise, trained, tmp_path) -> None:
    options = ("--out", tmp_path / "grid.png", "--set", "base_channels=2", "--gridding")
    names = "drn_b_26,drn_c_26"
    done = pixelwise("look", names, an_image(trained), *options)
    assert done.code == 0
    assert [line.split(":")[0] for line in done.out.splitlines()] == ["drn_b_26", "drn_c_26", "figure"]
    answer = json.loads(pixelwise("look", names, an_image(trained), *options, "--json").out)
    assert answer["output"] == str(tmp_path / "grid.png")
    assert [list(network) for network in answer["networks"]] == [
        ["model", "first", "last", "dilations", "unevenness"]
    ] * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--layer", "down.9"), "closest: down."),
        (("--class", "cell"), "Accepted: a number from 0 to 1, or a name: background, foreground"),
        (("--seed", "3"), "seed=3 is given with the run"),
        (("--num-classes", "3"), "num_classes=3 is given with the run"),
        (("--set", "depth=3"), "options={'depth': 3} is given with the run"),
        (("--seed", "-1"), "Accepted: pixelwise look"),
        (("--gridding",), "has no dilated convolutions behind others"),
        (("--gridding", "--layer", "pool"), "accepted: --gridding, or --layer and --class"),
    ],
)
def test_wrong_requests(refused, trained, tmp_path, options, words) -> None:
    assert words in refused("look", trained, an_image(trained), "--out", tmp_path / "look.png", *options).err


def test_wrong_names_and_files(refused, trained, tmp_path) -> None:
    image = an_image(trained)
    assert "closest: unet" in refused("look", "unot", image, "--out", tmp_path / "look.png").err
    assert "ends in .png or .html" in refused("look", trained, image, "--out", tmp_path / "look.pdf").err
    assert "no such file" in refused("look", trained, tmp_path / "no.png", "--out", tmp_path / "look.png").err
    assert "--out" in refused("look", trained, image).err
    assert "num_classes is 0" in refused("look", "unet", image, "--out", tmp_path / "a.png", "--num-classes", 0).err
