"""`pixelwise refine` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelwise as pw
from pixelwise.data.pictures import to_display
from pixelwise.errors import RequestError

SIZE = (20, 30)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, Path]:
    """A picture of two halves, and noisy probabilities of them."""
    rng = np.random.default_rng(0)
    left = np.zeros(SIZE, bool)
    left[:, :15] = True
    image = np.where(left[..., None], (200, 60, 40), (30, 90, 180)) + rng.integers(-5, 6, (*SIZE, 3))
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "image.png")
    likely = np.clip(np.where(left, 0.6, 0.4) + rng.normal(0, 0.2, SIZE), 0.02, 0.98)
    np.save(tmp_path / "maps.npy", np.stack([likely, 1 - likely]).astype(np.float16))
    return tmp_path / "image.png", tmp_path / "maps.npy"


def test_a_mask_with_palette(pixelwise, case, tmp_path) -> None:
    out, kept = tmp_path / "out/mask.png", tmp_path / "out/kept.npy"
    outcome = pixelwise("refine", *case, "--out", out, "--preset", "deeplab_vgg16", "--probabilities", kept, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["outputs"] == [str(out), str(kept)]
    assert result["num_classes"] == 2
    assert result["protocol"]["crf"] == "dense, preset deeplab_vgg16"
    given = np.load(case[1]).astype(np.float32)
    image = np.asarray(opened(case[0]))
    beliefs = pw.dense_crf(image, given / given.sum(axis=0), preset="deeplab_vgg16")
    mask = opened(out)
    assert mask.mode == "P"
    assert np.array_equal(np.asarray(mask), beliefs.argmax(axis=0))
    assert np.array_equal(np.load(kept), beliefs.astype(np.float16))
    assert result["changed"] == pytest.approx((beliefs.argmax(axis=0) != given.argmax(axis=0)).mean())
    assert sorted(path.name for path in out.parent.iterdir()) == ["kept.npy", "mask.png"]


def test_every_parameter_beats_the_preset(pixelwise, case, tmp_path) -> None:
    given = {
        "spatial_sigma": 2.5,
        "spatial_weight": 0.5,
        "bilateral_spatial_sigma": 11,
        "bilateral_color_sigma": 7,
        "bilateral_weight": 1.5,
        "iterations": 4,
        "normalization": "before",
    }
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    outcome = pixelwise("refine", *case, "--out", tmp_path / "m.png", *words)
    assert outcome.code == 0, outcome.err
    assert "crf: dense, preset pydensecrf_default with spatial_sigma, spatial_weight," in outcome.out
    assert "bilateral_color_sigma 7, bilateral_weight 1.5, iterations 4, normalization before\n" in outcome.out
    assert outcome.out.endswith(f"{tmp_path / 'm.png'}\n")
    maps = np.load(case[1]).astype(np.float32)
    beliefs = pw.dense_crf(np.asarray(opened(case[0])), maps / maps.sum(axis=0), **given)
    assert np.array_equal(np.asarray(opened(tmp_path / "m.png")), beliefs.argmax(axis=0))


@pytest.mark.parametrize("kind", ["grey", "deep"])
def test_other_images_are_refined_as_they_are_shown(pixelwise, case, tmp_path, kind) -> None:
    grey = np.asarray(opened(case[0]).convert("L"))
    array = grey if kind == "grey" else grey.astype(np.uint16) * 200
    Image.fromarray(array).save(tmp_path / "other.png")
    assert pixelwise("refine", tmp_path / "other.png", case[1], "--out", tmp_path / "m.png").code == 0
    maps = np.load(case[1]).astype(np.float32)
    beliefs = pw.dense_crf(to_display(array), maps / maps.sum(axis=0))
    assert np.array_equal(np.asarray(opened(tmp_path / "m.png")), beliefs.argmax(axis=0))


def test_small_maps_are_enlarged_on_request_only(pixelwise, case, tmp_path) -> None:
    small = np.load(case[1])[:, ::2, ::2].astype(np.float32)
    np.savez(tmp_path / "small.npz", prob_u8=np.rint(small * 255).astype(np.uint8))
    words = ("refine", case[0], tmp_path / "small.npz", "--out", tmp_path / "m.png")
    refused = pixelwise(*words)
    assert refused.code == 2
    assert "has shape (2, 10, 15), the image is 20 x 30" in refused.err
    assert "Give --resize" in refused.err
    outcome = pixelwise(*words, "--resize")
    assert "enlarged: probabilities from 10 x 15 to 20 x 30, bilinear, align_corners=False\n" in outcome.out
    assert opened(tmp_path / "m.png").size == (30, 20)


def test_the_palette_of_a_run_or_of_data(pixelwise, case, trained, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    card = {"name": "two", "classes": ["a", "b"], "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "ignore_index": 255}
    (tmp_path / "data/dataset.json").write_text(json.dumps(card))
    for source, wanted in ((tmp_path / "data", [1, 2, 3, 4, 5, 6]), (trained, [0, 0, 0, 230, 159, 0])):
        assert pixelwise("refine", *case, "--out", tmp_path / "m.png", "--palette", source).code == 0
        palette = opened(tmp_path / "m.png").getpalette()
        assert palette is not None
        assert palette[:6] == wanted
    card["classes"], card["palette"] = ["a", "b", "c"], None
    (tmp_path / "data/dataset.json").write_text(json.dumps(card))
    refused = pixelwise("refine", *case, "--out", tmp_path / "m.png", "--palette", tmp_path / "data")
    assert "has 3 classes, the probabilities have 2" in refused.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "deeplab"], "unknown CRF 'deeplab'; closest: deeplab_"),
        (["--preset", "grid4", "--spatial-sigma", "2"], "spatial_sigma: no effect on grid, preset grid4; accepted"),
        (["--preset", "tuned"], "'tuned' is what was tuned for a run"),
        (["--spatial-sigma", "0"], "spatial_sigma is 0.0; accepted: a number above 0"),
        (["--iterations", "-1"], "iterations is -1; accepted: whole numbers from 0"),
        (["--normalization", "both"], "normalization is 'both'; accepted: none, before, after, symmetric"),
        (["--bilateral-color-sigma", "1e-3"], "standard deviations; accepted for 5 features"),
        (["--palette", "nowhere"], "run nowhere does not exist"),
        (["--probabilities", "IMAGE"], "accepted: a file name with the ending .npy"),
        (["--probabilities", "MAPS"], "would overwrite the input"),
        (["--out", "IMAGE"], "would overwrite the input"),
        (["--out", "mask.tif"], "--out mask.tif: accepted: a file name with the ending .png"),
        (["--spatial-sigma", "x"], "'x' is not a valid float"),
    ],
)
def test_requests_that_are_refused(refused, case, tmp_path, words, message) -> None:
    places = {"IMAGE": case[0], "MAPS": case[1]}
    given = [places.get(word, word) for word in words]
    assert message in refused("refine", *case, "--out", tmp_path / "m.png", *given).err


def test_inputs_that_are_refused(refused, case, tmp_path) -> None:
    image, maps = case
    out = ("--out", tmp_path / "m.png")
    (tmp_path / "broken.png").write_bytes(image.read_bytes()[:60])
    np.save(tmp_path / "turned.npy", np.moveaxis(np.load(maps), 0, -1))
    assert "no such file" in refused("refine", tmp_path / "none.png", maps, *out).err
    assert "cannot be read as an image" in refused("refine", tmp_path / "broken.png", maps, *out).err
    assert "no such file" in refused("refine", image, tmp_path / "none.npy", *out).err
    assert "is no file of probabilities" in refused("refine", image, image, *out).err
    assert "numpy.moveaxis(p, -1, 0)" in refused("refine", image, tmp_path / "turned.npy", *out).err
    (tmp_path / "file").touch()
    blocked = ("--out", tmp_path / "file/m.png")
    assert "cannot be written" in refused("refine", image, maps, *blocked, code=1).err


def test_an_unknown_parameter_in_python(case, tmp_path) -> None:
    message = r"unknown parameter 'bilateral_colour_sigma' of the dense CRF; closest: bilateral_color_sigma"
    with pytest.raises(RequestError, match=message):
        pw.refine(*case, out=tmp_path / "m.png", parameters={"bilateral_colour_sigma": 3})
    assert not (tmp_path / "m.png").exists()
