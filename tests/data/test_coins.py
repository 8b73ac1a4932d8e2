import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pixelwise.data import coins
from pixelwise.errors import RequestError, WorkError


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coins.write_coins(tmp_path_factory.mktemp("coins"))


def test_picture_is_the_one_scikit_image_gives() -> None:
    from skimage import data

    image = coins.coins_image()
    assert image.shape == (303, 384)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, data.coins())  # type: ignore[no-untyped-call]


def test_another_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coins, "files", lambda _: tmp_path)
    with pytest.raises(WorkError, match=r"coins\.png cannot be read: .*reinstall scikit-image"):
        coins.coins_image()
    Image.fromarray(np.zeros((303, 380), np.uint8)).save(tmp_path / "coins.png")
    with pytest.raises(WorkError, match=r"coins\.png \(uint8 \(303, 380\)\) is not the picture .*0\.24 to 0\.26"):
        coins.coins_image()


def test_there_are_24_coins_each_in_one_piece_with_a_gap_to_its_neighbours() -> None:
    instances = coins.coins_instances()
    assert instances.shape == (303, 384)
    assert instances.dtype == np.uint16
    assert set(np.unique(instances)) == set(range(25))
    for number in range(1, 25):
        assert ndimage.label(instances == number)[1] == 1
    assert ndimage.label(instances > 0)[1] == 24


def test_coins_have_the_size_of_coins_and_none_reaches_the_border() -> None:
    instances = coins.coins_instances()
    areas = np.bincount(instances.flat)[1:]
    assert areas.min() > 1000
    assert areas.max() < 3300
    for rows, columns in ndimage.find_objects(instances):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        assert 0.8 < height / width < 1.25
    border = np.concatenate([instances[0], instances[-1], instances[:, 0], instances[:, -1]])
    assert not border.any()


def test_coins_are_numbered_by_rows_from_the_top_left() -> None:
    instances = coins.coins_instances()
    centres = np.array(ndimage.center_of_mass(instances > 0, instances, range(1, 25))).reshape(4, 6, 2)
    assert (np.diff(centres[:, :, 1], axis=1) > 0).all()
    assert (centres[1:, :, 0].min(axis=1) > centres[:-1, :, 0].max(axis=1)).all()


def test_outlines_do_not_overlap() -> None:
    y, x = np.mgrid[:303, :384].astype(np.float64)
    count = sum(outline.contains(x, y).astype(int) for outline in coins.coins_outlines())
    assert int(np.max(count)) == 1


def test_every_outline_follows_an_edge_of_the_picture() -> None:
    """A two-pixel band just inside is brighter than the one just outside, on every side of every coin."""
    image, instances = coins.coins_image().astype(float), coins.coins_instances()
    y, x = np.mgrid[:303, :384]
    for number in range(1, 25):
        coin = instances == number
        inside = ndimage.distance_transform_edt(coin)
        outside = ndimage.distance_transform_edt(~coin)
        cy, cx = ndimage.center_of_mass(coin)
        side = np.floor((np.arctan2(y - cy, x - cx) + np.pi) / (np.pi / 4)).astype(int) % 8
        for octant in range(8):
            near = image[(inside >= 1) & (inside <= 3) & (side == octant)].mean()
            beyond = image[(outside >= 1) & (outside <= 3) & (side == octant)].mean()
            assert near > beyond + 15, (number, octant)


def test_a_pixel_belongs_where_its_centre_is() -> None:
    y, x = np.ogrid[:4, :4]
    square = coins.Polygon(polygon=((0.5, 0.5), (2.5, 0.5), (2.5, 2.5), (0.5, 2.5)))
    inside = square.contains(x.astype(float), y.astype(float))
    np.testing.assert_array_equal(inside, [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    ellipse = coins.Ellipse(center=(1.0, 2.0), axes=(1.5, 0.5), angle=90)
    inside = ellipse.contains(x.astype(float), y.astype(float))
    np.testing.assert_array_equal(inside, [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]])


def test_polygons_that_share_an_edge_share_no_point_and_miss_none() -> None:
    y, x = np.mgrid[:5, :5].astype(np.float64)
    left = coins.Polygon(polygon=((0, 0), (2, 0), (2, 4), (0, 4)))
    right = coins.Polygon(polygon=((2, 0), (4, 0), (4, 4), (2, 4)))
    total = left.contains(x, y).astype(int) + right.contains(x, y)
    np.testing.assert_array_equal(total, np.pad(np.ones((4, 4), int), ((0, 1), (0, 1))))


def test_the_parts_make_up_the_picture_and_share_no_pixel(folder: Path) -> None:
    for kind, whole in (
        ("images", coins.coins_image()),
        ("masks", (coins.coins_instances() > 0).astype(np.uint8)),
        ("instances", coins.coins_instances()),
    ):
        parts = [read(folder / kind / split / f"coins-{split}.png") for split in ("train", "val")]
        assert 0.6 < len(parts[0]) / 303 < 0.8
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_parts_together_hold_every_coin_whole(folder: Path) -> None:
    train, val = (
        set(np.unique(read(folder / "instances" / split / f"coins-{split}.png"))) - {0} for split in ("train", "val")
    )
    assert (len(train), len(val)) == (18, 6)
    assert train | val == set(range(1, 25))


def test_the_card(folder: Path) -> None:
    card = json.loads((folder / "dataset.json").read_text())
    assert card["name"] == "coins"
    assert card["classes"] == ["background", "coin"]
    assert len(card["palette"]) == 2
    assert card["ignore_index"] is None
    assert "no known copyright restrictions" in card["terms"]
    assert card["splits"] == {"train": 1, "val": 1}


def test_writing_again_changes_no_byte(folder: Path) -> None:
    def digests() -> dict[Path, str]:
        return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}

    before = digests()
    assert coins.write_coins(folder) == folder
    assert digests() == before


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(RequestError, match="taken is a file"):
        coins.write_coins(tmp_path / "taken")
