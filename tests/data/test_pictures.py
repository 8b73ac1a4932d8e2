"""Pictures of label maps, on maps small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.data.pictures import (
    FALSE_NEGATIVE_COLOR,
    FALSE_POSITIVE_COLOR,
    HATCH_COLORS,
    OUTSIDE_COLOR,
    RIGHT_COLOR,
    WRONG_COLOR,
    colorize,
    default_palette,
    error_map,
    fit_size,
    overlay,
    shrink_image,
    shrink_labels,
    to_display,
)
from pixelwise.errors import RequestError

BLACK, RED, GREEN = [0, 0, 0], [200, 0, 0], [0, 100, 0]


def letters(picture: np.ndarray, names: dict[str, tuple[int, int, int]]) -> list[str]:
    """Spell a picture: one letter for each pixel, '?' for a colour without one."""
    spelled = {str(list(color)): letter for letter, color in names.items()}
    return ["".join(spelled.get(str(pixel.tolist()), "?") for pixel in row) for row in picture]


def grid(*rows: str) -> np.ndarray:
    """Make a label map: digits are classes, '-' is 255."""
    return np.array([[255 if sign == "-" else int(sign) for sign in row] for row in rows], dtype=np.uint8)


def test_colorize() -> None:
    picture = colorize(grid("0011", "0011", "2211", "22--"), [BLACK, RED, GREEN])
    names = {"k": (0, 0, 0), "r": (200, 0, 0), "g": (0, 100, 0), "o": OUTSIDE_COLOR}
    assert letters(picture, names) == ["kkrr", "kkrr", "ggrr", "ggoo"]
    assert picture.dtype == np.uint8


def test_colorize_paints_negative_and_16_bit_labels() -> None:
    assert colorize(np.array([[-1, 0]]), [RED], outside=(1, 2, 3)).tolist() == [[[1, 2, 3], RED]]
    assert colorize(np.array([[0, 65535]], dtype=np.uint16), [RED]).tolist() == [[RED, list(OUTSIDE_COLOR)]]


def test_overlay_blends_inside_and_is_full_at_borders() -> None:
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    picture = overlay(image, grid("1111", "1111", "1111", "2222"), [BLACK, RED, GREEN])
    names = {"b": (150, 50, 50), "R": (200, 0, 0), "G": (0, 100, 0)}
    assert letters(picture, names) == ["bbbb", "bbbb", "RRRR", "GGGG"]


def test_overlay_keeps_the_image_where_a_label_has_no_colour() -> None:
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    picture = overlay(image, grid("111-", "111-", "111-", "111-"), [BLACK, RED], alpha=0.25)
    names = {"b": (125, 75, 75), "R": (200, 0, 0), ".": (100, 100, 100)}
    assert letters(picture, names) == ["bbR."] * 4


def test_error_map_of_many_classes() -> None:
    picture = error_map(grid("0123", "0123", "0123", "----"), grid("0123", "0122", "3123", "0000"), 255)
    first, second = HATCH_COLORS
    names = {".": RIGHT_COLOR, "x": WRONG_COLOR, "/": first, "|": second}
    assert letters(picture, names) == ["....", "...x", "x...", "/|||"]


def test_error_map_of_two_classes_tells_the_errors_apart() -> None:
    truth, prediction = grid("0011", "0011", "----", "0000"), grid("0111", "0001", "1010", "0000")
    names = {".": RIGHT_COLOR, "p": FALSE_POSITIVE_COLOR, "n": FALSE_NEGATIVE_COLOR}
    for num_classes in (None, 2):
        spelled = letters(error_map(truth, prediction, 255, num_classes=num_classes), names)
        assert spelled == [".p..", "..n.", "????", "...."]
    many = letters(error_map(truth, prediction, 255, num_classes=11), {".": RIGHT_COLOR, "x": WRONG_COLOR})
    assert many == [".x..", "..x.", "????", "...."]


def test_error_map_shows_the_image_dim_where_right() -> None:
    image = np.full((1, 2, 3), 200, dtype=np.uint8)
    picture = error_map(grid("05"), grid("07"), None, image=image)
    assert picture.tolist() == [[[90, 90, 90], list(WRONG_COLOR)]]


@pytest.mark.parametrize("background", [False, True])
def test_palettes_are_distinct(background: bool) -> None:
    palette = default_palette(255, background=background)
    assert len({tuple(color) for color in palette}) == 255
    assert all(len(color) == 3 and 0 <= min(color) <= max(color) <= 255 for color in palette)
    assert palette == default_palette(255, background=background)
    assert (palette[0] == BLACK) is background


@pytest.mark.parametrize(("count", "apart"), [(8, 60), (21, 50), (150, 16), (255, 16)])
def test_palettes_are_well_separated(count: int, apart: float) -> None:
    colors = np.array(default_palette(count, background=True), dtype=np.float64)
    distance = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert distance[~np.eye(count, dtype=bool)].min() >= apart


def test_a_shorter_palette_begins_a_longer_one() -> None:
    assert default_palette(150)[:11] == default_palette(11)


@pytest.mark.parametrize("count", [0, 256, -1])
def test_palettes_of_impossible_length_are_refused(count: int) -> None:
    with pytest.raises(RequestError, match=f"num_classes={count}: a palette has 1 to 255 colours"):
        default_palette(count)


def test_display_keeps_8_bit_values() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(to_display(image), image)
    assert to_display(image[..., 0]).tolist() == [[[0] * 3, [3] * 3], [[6] * 3, [9] * 3]]


def test_display_fills_and_drops_channels() -> None:
    image = np.arange(4, dtype=np.uint8).reshape(1, 1, 4)
    assert to_display(image).tolist() == [[[0, 1, 2]]]
    assert to_display(image[..., :2]).tolist() == [[[0, 1, 0]]]
    assert to_display(image[..., 3:]).tolist() == [[[3, 3, 3]]]


def test_display_stretches_16_bit_by_percentiles() -> None:
    image = np.linspace(1000, 3000, 1001).astype(np.uint16)[None]
    image[0, 0] = 65535
    shown = to_display(image)[0, :, 0]
    assert shown[0] == 255
    assert shown[1] == 0
    assert shown[500] == pytest.approx(127, abs=2)


def test_display_of_floats_without_range() -> None:
    assert to_display(np.full((2, 2), 7.0)).max() == 0
    assert to_display(np.full((2, 2), np.nan)).max() == 0
    assert to_display(np.array([[0.0, np.nan, np.inf, 1.0]]))[0, :, 0].tolist() == [0, 0, 0, 255]


@given(height=st.integers(1, 40), width=st.integers(1, 40), new=st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(max_examples=50, deadline=None)
def test_shrinking_labels_makes_no_new_label(height: int, width: int, new: tuple[int, int]) -> None:
    labels = (np.arange(height * width) * 7 % 65536).reshape(height, width).astype(np.uint16)
    shrunk = shrink_labels(labels, new)
    assert shrunk.shape == new
    assert shrunk.dtype == labels.dtype
    assert set(np.unique(shrunk)) <= set(np.unique(labels))


def test_shrinking_by_eye() -> None:
    assert shrink_labels(grid("0011", "0011", "2233", "2233"), (2, 2)).tolist() == [[0, 1], [2, 3]]
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    image[0] = 100
    assert shrink_image(image, (1, 1)).tolist() == [[[50, 50, 50]]]
    assert shrink_image(image, (2, 2)) is image


def test_sizes_fit_and_never_grow() -> None:
    assert fit_size(100, 200, max_height=720, max_width=480) == (100, 200)
    assert fit_size(1440, 480, max_height=720, max_width=480) == (720, 240)
    assert fit_size(1, 100000, max_height=720, max_width=480) == (1, 480)


def test_errors_name_shapes() -> None:
    image, labels = np.zeros((4, 5, 3), dtype=np.uint8), grid("00", "00")
    with pytest.raises(RequestError, match=r"image is \(4, 5\) and labels \(2, 2\)"):
        overlay(image, labels, [BLACK])
    with pytest.raises(RequestError, match=r"truth is \(2, 2\) and prediction \(1, 2\)"):
        error_map(labels, grid("00"), None)
    with pytest.raises(RequestError, match=r"image is \(4, 5\) and truth \(2, 2\)"):
        error_map(labels, labels, None, image=image)
    with pytest.raises(RequestError, match=r"alpha=1\.5"):
        overlay(image[:2, :2], labels, [BLACK], alpha=1.5)
    with pytest.raises(RequestError, match=r"palette entry 1 is \[0, 300, 0\]"):
        colorize(labels, [BLACK, [0, 300, 0]])
    with pytest.raises(RequestError, match=r"labels of shape \(2,\), float64"):
        colorize(np.zeros(2), [BLACK])  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"image of shape \(2, 2\), bool"):
        to_display(np.zeros((2, 2), dtype=bool))
