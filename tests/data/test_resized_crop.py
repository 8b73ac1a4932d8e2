"""Random parts and scored crops: torchvision's numbers, the range of what is drawn, images of any shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelwise.data.augment import sample_rng
from pixelwise.data.class_folder import open_class_folder
from pixelwise.data.class_scan import scan_classes
from pixelwise.data.loader import batches
from pixelwise.data.resized_crop import (
    ResizedCropConfig,
    ResizedCrops,
    crops_of,
    random_box,
    resized,
    resized_size,
    shorter_side,
)
from pixelwise.errors import RequestError

SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(size=SIZES, sample=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_random_part_lies_inside_with_an_allowed_area_and_aspect(size: tuple[int, int], sample: int) -> None:
    config = ResizedCropConfig()
    top, left, height, width = random_box(sample_rng(0, 0, sample), config, size)
    assert 0 <= top <= top + height <= size[0]
    assert 0 <= left <= left + width <= size[1]
    assert height >= 1
    assert width >= 1
    if min(size) > 60 and max(size) < 4 * min(size) / 3:
        share = height * width / (size[0] * size[1])
        assert 0.07 < share <= 1
        assert 0.7 < width / height < 1.4


def test_very_long_images_give_their_centre() -> None:
    config = ResizedCropConfig(area=(0.9, 1.0))
    assert random_box(sample_rng(0, 0, 0), config, (30, 300)) == (0, 130, 30, 40)
    assert random_box(sample_rng(0, 0, 0), config, (300, 30)) == (130, 0, 40, 30)


@pytest.mark.parametrize(
    ("values", "said"), [({"area": (0.0, 1.0)}, "two numbers above 0"), ({"area": (0.5, 2.0)}, "up to 1")]
)
def test_impossible_areas(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ResizedCropConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(61, 97), (97, 61), (64, 64), (300, 70), (41, 40)])
@pytest.mark.parametrize("num_crops", [1, 10])
def test_scored_crops_are_torchvisions(height: int, width: int, num_crops: int) -> None:
    transforms = pytest.importorskip("torchvision.transforms", reason="torchvision is not installed")
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = transforms.Resize(shorter_side(56))(Image.fromarray(image))
    assert picture.size[::-1] == resized_size((height, width), 64)
    theirs = [transforms.CenterCrop(56)(picture)] if num_crops == 1 else transforms.FiveCrop(56)(picture)
    theirs = np.stack([np.asarray(one) for one in theirs]).astype(np.int64)
    theirs = theirs if num_crops == 1 else np.concatenate([theirs, theirs[:, :, ::-1]])
    ours = crops_of(image, 56, num_crops).astype(np.int64)
    assert ours.shape == (num_crops, 56, 56, 3)
    # Positions differ in the last bit of a float, which tells where a value lies halfway between two levels.
    assert np.abs(ours - theirs).max() <= 1


def test_a_random_part_is_resized_as_torchvision_does() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional", reason="torchvision is not installed")
    image = np.random.default_rng(1).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    theirs = functional.resized_crop(Image.fromarray(image), 7, 3, 31, 29, [24, 24])
    assert np.array_equal(resized(np.ascontiguousarray(image[7:38, 3:32]), (24, 24)), np.asarray(theirs))


def test_other_types_are_resized_channel_by_channel_and_keep_their_type() -> None:
    rng = np.random.default_rng(2)
    deep = rng.integers(0, 65536, (20, 30, 2)).astype(np.uint16)
    half = resized(deep, (10, 15))
    assert half.dtype == np.uint16
    assert half.shape == (10, 15, 2)
    assert abs(half.mean() - deep.mean()) < 700
    real = rng.random((20, 30, 1)).astype(np.float32)
    assert resized(real, (20, 30)).dtype == np.float32
    np.testing.assert_allclose(resized(real, (20, 30)), real, atol=1e-6)


def test_ten_crops_are_five_and_their_mirror_images() -> None:
    image = np.random.default_rng(3).integers(0, 256, (90, 64, 3), dtype=np.uint8)
    ten, mirrored = crops_of(image, 56, 10), crops_of(np.ascontiguousarray(image[:, ::-1]), 56, 10)
    assert np.array_equal(ten[5:], ten[:5, :, ::-1])
    assert np.array_equal(ten[4], crops_of(image, 56, 1)[0])
    # The mirror image has the same ten, its left corners being the right ones.
    for ours, theirs in ((0, 6), (1, 5), (2, 8), (3, 7), (4, 9)):
        assert np.abs(ten[ours].astype(int) - mirrored[theirs].astype(int)).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4000), (4000, 2), (3, 3)])
def test_images_of_any_shape_are_cropped(height: int, width: int) -> None:
    image = np.full((height, width, 3), 77, np.uint8)
    assert (crops_of(image, 56, 10) == 77).all()


def test_another_number_of_crops_is_refused() -> None:
    with pytest.raises(RequestError, match=r"5 crops; accepted: 1 .* or 10"):
        crops_of(np.zeros((8, 8, 3), np.uint8), 4, 5)


def test_samples_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a/1", "a/2", "a/3", "b/1", "b/2", "b/3"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    folder = open_class_folder(tmp_path)
    dataset = scan_classes(folder, folder.items)
    crops = ResizedCrops(dataset=dataset, items=folder.split("train"), crop=16, augment=ResizedCropConfig(), seed=3)
    alone = list(batches(crops, batch_size=3, first=0, last=4, num_workers=0))
    two = list(batches(crops, batch_size=3, first=0, last=4, num_workers=2))
    late = list(batches(crops, batch_size=3, first=2, last=4, num_workers=0))
    for one, other in zip(alone, two, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    assert torch.equal(alone[2].images, late[0].images)
    assert alone[0].images.shape == (3, 3, 16, 16)
    assert alone[0].labels.shape == (3,)
    assert all(name.startswith("ab"[label]) for b in alone for name, label in zip(b.names, b.labels, strict=True))
