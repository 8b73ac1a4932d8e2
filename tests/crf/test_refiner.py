"""Refiners by name and by file, and probabilities from drawn labels."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.crf.annotations import probabilities_from_labels
from pixelwise.crf.dense import PRESETS, CRFParameters, dense_crf
from pixelwise.crf.grid import GRIDS
from pixelwise.crf.refiner import DenseRefiner, labels_of, read_parameters, refiner_of
from pixelwise.data.images import read_image
from pixelwise.errors import RequestError

OWN = CRFParameters(bilateral_weight=1.5, spatial_sigma=2.5, iterations=3)


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (7, 9, 3)).astype(np.uint8)


def maps(labels: int = 3) -> np.ndarray:
    return np.random.default_rng(2).dirichlet(np.ones(labels), (7, 9)).transpose(2, 0, 1).astype(np.float32)


def written(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({"parameters": {**asdict(OWN), **changes}, "scores": {}}))
    return path


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_refines_as_dense_crf_does(name: str) -> None:
    refined = refiner_of(name).refine(picture(), maps())
    np.testing.assert_array_equal(refined.probabilities, dense_crf(picture(), maps(), preset=name))
    np.testing.assert_array_equal(refined.labels, refined.probabilities.argmax(axis=0))
    assert refined.labels.dtype == np.uint8


def test_the_protocol_says_name_and_every_parameter() -> None:
    said = refiner_of("deeplab_vgg16").protocol()
    assert said == {
        "crf": "dense, preset deeplab_vgg16",
        "crf_parameters": "spatial_sigma 2, spatial_weight 2, bilateral_spatial_sigma 65, bilateral_color_sigma 3, "
        "bilateral_weight 4, iterations 10, normalization after",
    }


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_a_grid_finds_labels_and_hands_probabilities_on(name: str) -> None:
    refiner, given = refiner_of(name), maps()
    refined = refiner.refine(picture(), given)
    np.testing.assert_array_equal(refined.labels, GRIDS[name].map_labels(picture(), given))
    np.testing.assert_array_equal(refined.probabilities, given)
    assert refined.labels.dtype == np.uint8
    said = refiner.protocol()
    assert said["crf"] == f"grid, preset {name}"
    assert said["crf_parameters"].startswith(f"connectivity {name[-1]}, contrast_weight ")


def test_many_classes_have_wide_labels() -> None:
    assert labels_of(maps(256)).dtype == np.uint8
    assert labels_of(maps(257)).dtype == np.uint16


def test_files_of_parameters(tmp_path: Path) -> None:
    path = written(tmp_path / "crf.json")
    model = tmp_path / "best.safetensors"
    model.touch()
    for refiner in (refiner_of(path), refiner_of(tmp_path), refiner_of("tuned", run=tmp_path)):
        assert isinstance(refiner, DenseRefiner)
        assert refiner.parameters == OWN
    assert refiner_of("tuned", run=model).protocol()["crf"] == f"dense, tuned ({path})"


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"unknown CRF 'deeplab_vgg'; closest: deeplab_vgg16.*grid8, or a file"):
        refiner_of("deeplab_vgg")
    with pytest.raises(RequestError, match=r"'tuned' is what was tuned for a run, and there is no run here"):
        refiner_of("tuned")
    with pytest.raises(RequestError, match=r"has no crf\.json, so nothing was tuned for it.*`pixelwise tune-crf "):
        refiner_of("tuned", run=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "cannot be read as JSON"),
        ("[1]", "holds no parameters; accepted: a JSON file with parameters"),
        ('{"parameters": 3}', "holds no parameters"),
        ('{"parameters": {"sxy": 3}}', "has the unknown parameter 'sxy'"),
        ('{"parameters": {"iterations": 3}}', "lacks the parameter spatial_sigma"),
        ("\udcff", "cannot be read as JSON"),
    ],
)
def test_files_that_hold_no_parameters(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "crf.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RequestError, match=message):
        read_parameters(path)


def test_impossible_parameters_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"crf\.json: spatial_sigma is 0; accepted: a number above 0"):
        read_parameters(written(tmp_path / "crf.json", spatial_sigma=0))


@given(st.integers(2, 5), st.floats(0.05, 0.95), st.booleans(), st.integers(0, 9))
def test_drawn_labels_are_believed_as_far_as_said(
    num_labels: int, certainty: float, zero_unsure: bool, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, num_labels + zero_unsure, (4, 5))
    found = probabilities_from_labels(labels, num_labels, certainty=certainty, zero_unsure=zero_unsure)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    drawn = labels > 0 if zero_unsure else np.ones_like(labels, dtype=bool)
    channel = labels - zero_unsure
    chosen = np.take_along_axis(found, np.maximum(channel, 0)[None], axis=0)[0]
    np.testing.assert_allclose(chosen[drawn], certainty, rtol=1e-6)
    np.testing.assert_allclose(found[:, ~drawn], 1 / num_labels, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "num_labels", "certainty", "message"),
    [
        (np.zeros((2, 2), int), 1, 0.7, "num_labels is 1; accepted: 2 and more"),
        (np.zeros((2, 2), int), 2, 1.0, "certainty is 1; accepted: above 0 and below 1"),
        (np.zeros((2, 2), int), 2, float("nan"), "certainty is nan"),
        (np.full((2, 2), 3), 2, 0.7, "labels are from 3 to 3; accepted: 1 to 2 and 0 where nothing was drawn"),
        (np.full((2, 2), -1), 2, 0.7, "labels are from -1 to -1"),
        (np.zeros((2, 2, 3), int), 2, 0.7, r"labels have shape \(2, 2, 3\).*Number the colours"),
        (np.zeros((2, 2)), 2, 0.7, "type float64; accepted: whole numbers"),
    ],
)
def test_labels_that_are_refused(labels: np.ndarray, num_labels: int, certainty: float, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        probabilities_from_labels(labels, num_labels, certainty=certainty)


DEMO = Path(__file__).parents[2].parent / "shared" / "data" / "densecrf-demo"


@pytest.mark.slow
@pytest.mark.skipif(not DEMO.is_dir(), reason="the demo images are not beside this checkout")
@pytest.mark.parametrize("case", range(4))
def test_strokes_are_spread_as_the_authors_library_did(case: int) -> None:
    """pydensecrf's examples: strokes in colours, black for nothing drawn; the results that are stored with them.

    pydensecrf itself agrees with them on 99.88 to 99.96 % of the pixels, the strokes alone on 79 to 96 %.
    """
    files = json.loads((DEMO / "dataset.json").read_text())["cases"][case]
    image, drawn, wanted = (read_image(DEMO / files[key]) for key in ("image", "annotation", "expected"))
    packed = [picture.astype(np.int64) @ [1, 256, 65536] for picture in (drawn, wanted)]
    colours = np.unique(packed[0])
    labels = np.searchsorted(colours, packed[0])
    unsure = colours[0] == 0
    maps = probabilities_from_labels(labels, len(colours) - int(unsure), certainty=0.7, zero_unsure=bool(unsure))
    found = refiner_of("pydensecrf_default")
    assert isinstance(found, DenseRefiner)
    refined = replace(found, parameters=replace(found.parameters, iterations=5)).refine(image, maps)
    agreement = (colours[refined.labels + int(unsure)] == packed[1]).mean()
    assert agreement > 0.9985, agreement
