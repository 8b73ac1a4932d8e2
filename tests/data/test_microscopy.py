import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from pixelwise.data.microscopy import MicroscopySample, microscopy_image, write_microscopy
from pixelwise.errors import RequestError


def equal(a: MicroscopySample, b: MicroscopySample) -> list[bool]:
    return [np.array_equal(getattr(a, part), getattr(b, part)) for part in ("image", "labels", "instances")]


def check_truth(sample: MicroscopySample) -> None:
    labels, instances = sample.labels, sample.instances
    assert labels.dtype == np.uint8
    assert instances.dtype == np.uint16
    assert sample.class_names == ("background", "cell", "nucleus")
    assert set(np.unique(labels)) == {0, 1, 2}
    np.testing.assert_array_equal(labels > 0, instances > 0)
    numbers = np.unique(instances)
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    for number in numbers[1:]:
        cell = instances == number
        assert ndimage.label(cell)[1] == 1
        assert 0.02 < (labels[cell] == 2).mean() < 0.75


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(40, 90),
    width=st.integers(40, 90),
    seed=st.integers(0, 2**32 - 1),
    color=st.booleans(),
)
def test_truth_of_small_pictures(height: int, width: int, seed: int, color: bool) -> None:
    sample = microscopy_image((height, width), seed=seed, cell_radius=(7.0, 16.0), color=color)
    assert sample.image.shape == ((height, width, 3) if color else (height, width))
    assert sample.image.dtype == np.uint8
    assert sample.image.flags.c_contiguous
    assert sample.labels.shape == sample.instances.shape == (height, width)
    check_truth(sample)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_cells=st.integers(1, 5))
def test_as_many_cells_as_asked_for(seed: int, num_cells: int) -> None:
    sample = microscopy_image((96, 96), seed=seed, num_cells=num_cells, cell_radius=(6.0, 10.0))
    assert sample.instances.max() == num_cells
    check_truth(sample)


def test_truth_of_a_picture_of_the_usual_size() -> None:
    sample = microscopy_image((256, 256), seed=1)
    check_truth(sample)
    shares = np.bincount(sample.labels.flat) / sample.labels.size
    assert 0.5 < shares[0] < 0.8
    assert shares[2] > 0.04


def test_cells_touch_somewhere() -> None:
    instances = microscopy_image((256, 256), seed=1).instances
    left, right = instances[:, :-1], instances[:, 1:]
    assert ((left != right) & (left > 0) & (right > 0)).any()


def test_same_seed_same_picture_other_seed_another() -> None:
    first = microscopy_image((80, 96), seed=5)
    assert equal(first, microscopy_image((80, 96), seed=5)) == [True, True, True]
    assert equal(first, microscopy_image((80, 96), seed=6)) == [False, False, False]


def test_colour_has_the_same_truth_as_grey() -> None:
    grey, color = microscopy_image((80, 96), seed=5), microscopy_image((80, 96), seed=5, color=True)
    assert equal(grey, color) == [False, True, True]


def test_classes_differ_in_brightness_but_overlap() -> None:
    sample = microscopy_image((256, 256), seed=2)
    background, cell, nucleus = (sample.image[sample.labels == k].astype(float) for k in range(3))
    assert background.mean() < cell.mean() < nucleus.mean()
    assert background.max() > cell.min()
    assert cell.max() > np.median(nucleus)


def test_colour_shows_cytoplasm_green_and_nuclei_blue() -> None:
    sample = microscopy_image((256, 256), seed=2, color=True)
    _, cell_green, cell_blue = sample.image[sample.labels == 1].mean(axis=0)
    _, nucleus_green, nucleus_blue = sample.image[sample.labels == 2].mean(axis=0)
    assert cell_green > 2 * cell_blue
    assert nucleus_blue > 1.5 * nucleus_green


def test_more_photons_give_less_noise() -> None:
    def roughness(photons: float) -> float:
        sample = microscopy_image((128, 128), seed=3, photons=photons, read_noise=0.0)
        image = sample.image.astype(float)
        return float(np.abs(image - ndimage.gaussian_filter(image, 1.0))[sample.labels == 2].mean())

    assert roughness(1e5) < 0.5 * roughness(60)


def test_blur_softens_the_picture() -> None:
    def steepness(blur: float) -> float:
        sample = microscopy_image((128, 128), seed=3, photons=1e5, read_noise=0.0, blur=blur)
        return float(np.abs(np.diff(sample.image.astype(float), axis=1)).mean())

    assert steepness(3.0) < 0.7 * steepness(0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (62, 90)}, r"size=\(62, 90\): height and width of .*62\.5 px"),
        ({"seed": -1}, r"seed=-1: 0 or more"),
        ({"num_cells": 0}, r"num_cells=0: 1 or more"),
        ({"num_cells": 99}, r"num_cells=99: \d+ fitted into 96 x 96 px with radii of 13 to 25 px"),
        ({"cell_radius": (5.0, 9.0)}, r"cell_radius=\(5\.0, 9\.0\): 6 <= smallest"),
        ({"cell_radius": (9.0, 8.0)}, r"cell_radius=\(9\.0, 8\.0\): 6 <= smallest"),
        ({"blur": -0.5}, r"blur=-0\.5: 0 or more"),
        ({"read_noise": float("nan")}, r"read_noise=nan: 0 or more"),
        ({"photons": 0.0}, r"photons=0\.0: 1\.\.1e6"),
    ],
)
def test_wrong_values_are_refused(changes: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"size": (96, 96), "seed": 0} | changes
    with pytest.raises(RequestError, match=message):
        microscopy_image(**call)


KINDS = ("images", "masks", "instances")


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


def test_folder_reads_back_and_more_pictures_keep_the_first(tmp_path: Path) -> None:
    small = write_microscopy(tmp_path / "small", num_train=2, num_val=1, size=(64, 72), seed=4)
    large = write_microscopy(tmp_path / "large", num_train=3, num_val=1, size=(64, 72), seed=4)
    assert contents(small).items() < contents(large).items()
    assert len(contents(small)) == 9
    assert len({content for path, content in contents(small).items() if path.startswith("images")}) == 3
    card = json.loads((small / "dataset.json").read_text())
    assert card["classes"] == ["background", "cell", "nucleus"]
    assert card["splits"] == {"train": 2, "val": 1}
    assert card["seed"] == 4
    for split, name in (("train", "cells-train-02"), ("val", "cells-val-01")):
        image, labels, instances = (read(small / kind / split / f"{name}.png") for kind in KINDS)
        check_truth(MicroscopySample(image=image, labels=labels, instances=instances))


def test_folder_of_another_seed_differs(tmp_path: Path) -> None:
    first = contents(write_microscopy(tmp_path / "0", num_train=1, num_val=1, size=(64, 64), seed=0))
    other = contents(write_microscopy(tmp_path / "1", num_train=1, num_val=1, size=(64, 64), seed=1))
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train": 0}, r"num_train=0: 1 or more"),
        ({"num_val": -2}, r"num_val=-2: 1 or more"),
        ({"seed": -3}, r"seed=-3: 0 or more"),
    ],
)
def test_wrong_folder_requests_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        write_microscopy(tmp_path, **changes)
    assert contents(tmp_path) == {}
