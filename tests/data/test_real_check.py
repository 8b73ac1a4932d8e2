"""Real data sets, read in place, in the form in which they are distributed or usually shared."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.check import Check, check_dataset

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside this checkout"),
    pytest.mark.slow,
]
READY = (
    *("ade20k-mini", "camvid", "coco-instances-mini", "coco-panoptic-mini", "dsb2018-nuclei", "isbi2012-em"),
    *("kitti-mini", "mapillary-mini", "sunrgbd-mini", "voc2012-person"),
)


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


def pairs(name: str, count: int) -> list[tuple[Path, Path]]:
    """Return image and mask of the first items for training."""
    masks = sorted((DATA / name / "masks/train").iterdir())[:count]
    return [(next((DATA / name / "images/train").glob(f"{mask.stem}.*")), mask) for mask in masks]


def save(path: Path, array: NDArray[np.generic], **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


@pytest.mark.parametrize("name", READY)
def test_every_real_data_set_is_ready(name: str) -> None:
    check = check_dataset(DATA / name)
    assert [problem for problem in check.problems if problem.severity == "error"] == []
    assert check.card is not None
    assert sum(check.card.num_images.values()) == check.num_images
    kinds = {problem.kind for problem in check.problems}
    assert kinds <= {"class without training pixels", "objects against masks"}


def test_isbi_as_distributed(tmp_path: Path) -> None:
    """Pages of two stacks, 255 for cells, and the membrane first among the classes."""
    chosen = pairs("isbi2012-em", 6)
    volume = np.stack([pixels(image) for image, _ in chosen])
    labels = np.stack([255 - 255 * pixels(mask) for _, mask in chosen])
    for stem, stack in (("train-volume", volume), ("train-labels", labels), ("test-volume", volume)):
        tifffile.imwrite(tmp_path / f"{stem}.tif", stack, photometric="minisblack")
    check = check_dataset(tmp_path)
    assert (check.problems, check.classes) == ((), ("membrane", "cell"))
    assert check.card is not None
    assert check.dataset is not None
    assert check.card.boundary_class == 0
    for item in check.dataset.folder.items:
        assert item.page is not None
        np.testing.assert_array_equal(check.dataset.labels(item), 1 - pixels(chosen[item.page][1]))
        np.testing.assert_array_equal(check.dataset.image(item)[:, :, 0], volume[item.page])


def colours_of_camvid(tmp_path: Path, quality: int | None) -> Check:
    table = np.zeros((256, 3), np.uint8)
    original = check_dataset(DATA / "camvid").card
    assert original is not None
    assert original.palette is not None
    table[:11], table[255] = original.palette[:11], (0, 0, 0)
    for image, mask in pairs("camvid", 12):
        save(tmp_path / f"images/{mask.stem}.png", pixels(image))
        painted = table[pixels(mask)]
        if quality is not None:
            buffer = io.BytesIO()
            Image.fromarray(painted).save(buffer, "JPEG", quality=quality)
            painted = np.array(Image.open(buffer))
        save(tmp_path / f"masks/{mask.stem}.png", painted)
    return check_dataset(tmp_path)


def test_camvid_in_colour(tmp_path: Path) -> None:
    check = colours_of_camvid(tmp_path, None)
    assert check.ready
    assert check.mask_encoding is not None
    assert check.mask_encoding.startswith(
        "pictures in colour, each colour a class: 11 colours"
    )  # one is not among them
    assert check.dataset is not None
    for item in check.dataset.folder.items:
        truth, found = pixels(DATA / f"camvid/masks/train/{item.name}.png"), check.dataset.labels(item)
        joint = {(int(a), int(b)) for a, b in np.unique(np.stack([truth.ravel(), found.ravel()]), axis=1).T}
        assert len(joint) == len(np.unique(truth)) == len(np.unique(found))  # one colour for each class


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_camvid_through_jpeg_is_refused(quality: int, tmp_path: Path) -> None:
    check = colours_of_camvid(tmp_path, quality)
    assert {(problem.severity, problem.kind) for problem in check.problems} == {("error", "compressed mask")}
    assert len(check.problems) == 12


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_nuclei_as_object_ids(dtype: type, tmp_path: Path) -> None:
    expected = 0
    for image, mask in pairs("dsb2018-nuclei", 12):
        ids = pixels(DATA / f"dsb2018-nuclei/instances/train/{mask.stem}.png")
        assert ids.max() < 256
        expected += int(ids.max())
        save(tmp_path / f"images/{mask.stem}.png", pixels(image))
        save(tmp_path / f"masks/{mask.stem}.png", ids.astype(dtype))
    check = check_dataset(tmp_path)
    assert (check.problems, check.classes) == ((), ("background", "object"))
    assert check.card is not None
    assert sum((check.card.num_objects or {}).values()) == expected
