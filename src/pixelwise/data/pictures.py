"""Label maps as pictures: colours, overlays, error maps, and any image brought to 8-bit RGB.

Axes: H height, W width, C channels. Pictures are uint8 (H, W, 3) RGB; labels are class indices (H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import RequestError

Picture: TypeAlias = NDArray[np.uint8]
LabelMap: TypeAlias = NDArray[np.integer]
Palette: TypeAlias = Sequence[Sequence[int]]

MAX_CLASSES = 255
OUTSIDE_COLOR = (224, 224, 192)
WRONG_COLOR = (232, 62, 48)
FALSE_POSITIVE_COLOR = (255, 70, 80)
FALSE_NEGATIVE_COLOR = (70, 150, 255)
RIGHT_COLOR = (40, 40, 40)
HATCH_COLORS = ((150, 150, 150), (200, 200, 200))
# Wide enough to survive the browser's scaling of the picture by one half.
HATCH_PERIOD = 8

# The seven colours of Okabe and Ito, which stay apart under colour-vision deficiency, reordered so that
# the first few differ in lightness too.
_FIRST_COLORS = (
    (230, 159, 0),
    (0, 114, 178),
    (240, 228, 66),
    (204, 121, 167),
    (0, 158, 115),
    (86, 180, 233),
    (213, 94, 0),
)


def default_palette(num_classes: int, *, background: bool = False) -> list[list[int]]:
    """Return distinct colours for classes, the same ones at every call.

    After seven fixed colours, each next one is the candidate farthest (CIELAB distance) from black, white
    and all colours before it, so that a shorter palette is the beginning of a longer one.

    Args:
        num_classes: 1 to 255.
        background: Whether class 0 is the background, which is black.

    Returns:
        One [r, g, b], 0 to 255, for each class.

    Raises:
        RequestError: If `num_classes` is outside 1 to 255.

    >>> default_palette(3, background=True)
    [[0, 0, 0], [230, 159, 0], [0, 114, 178]]
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise RequestError(f"num_classes={num_classes}: a palette has 1 to {MAX_CLASSES} colours. Give such a number.")
    wanted = num_classes - 1 if background else num_classes
    colors = [list(color) for color in _FIRST_COLORS]
    if wanted > len(colors):
        colors += _farthest_colors(colors, wanted - len(colors))
    return ([[0, 0, 0]] if background else []) + colors[:wanted]


def class_colours(classes: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    """Return a colour for each class: distinct ones for the first 255, black for more."""
    colours = default_palette(min(len(classes), MAX_CLASSES), background=classes[0] == "background")
    colours += [[0, 0, 0]] * (len(classes) - len(colours))
    return tuple((red, green, blue) for red, green, blue in colours)


def _farthest_colors(taken: list[list[int]], count: int) -> list[list[int]]:
    """Return `count` colours, each as far as possible from all before it."""
    levels = np.arange(15, 256, 16)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _lab(grid)
    # Very dark, very light and nearly grey colours are hard to name and look like ignored pixels.
    usable = (lab[:, 0] > 28) & (lab[:, 0] < 92) & (np.hypot(lab[:, 1], lab[:, 2]) > 18)
    grid, lab = grid[usable], lab[usable]
    start = _lab(np.array([[0, 0, 0], [255, 255, 255], *taken]))
    nearest = np.linalg.norm(lab[:, None] - start[None], axis=-1).min(axis=1)
    chosen: list[list[int]] = []
    for _ in range(count):
        index = int(nearest.argmax())
        chosen.append([int(value) for value in grid[index]])
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[index], axis=-1))
    return chosen


def _lab(rgb: NDArray[np.integer]) -> NDArray[np.float64]:
    """Convert sRGB colours (N, 3), 0 to 255, to CIELAB (N, 3) under the D65 white point (IEC 61966-2-1)."""
    scaled = rgb / 255.0
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def colorize(labels: LabelMap, palette: Palette, *, outside: Sequence[int] = OUTSIDE_COLOR) -> Picture:
    """Paint each label in its colour.

    Args:
        labels: (H, W) class indices.
        palette: One [r, g, b] for each class index.
        outside: The colour of labels that have no entry in `palette`, such as the ignore index.

    Returns:
        uint8 (H, W, 3).

    Raises:
        RequestError: If `labels` is not a two-axis integer array, or a colour is not three values 0 to 255.

    >>> colorize(np.array([[0, 1, 255]]), [[0, 0, 0], [9, 8, 7]]).tolist()
    [[[0, 0, 0], [9, 8, 7], [224, 224, 192]]]
    """
    _check_labels("labels", labels)
    colors = np.array([*_checked_palette(palette), list(outside)], dtype=np.uint8)
    known = (labels >= 0) & (labels < len(palette))
    picture: Picture = colors[np.where(known, labels, len(palette))]
    return picture  # (H, W, 3)


def overlay(image: Picture, labels: LabelMap, palette: Palette, alpha: float = 0.5) -> Picture:
    """Blend class colours over an image; pixels at a class border take the full colour.

    A pixel whose label has no entry in `palette` (such as the ignore index) keeps the image.

    Args:
        image: uint8 (H, W, 3); see `to_display` for other images.
        labels: (H, W) class indices.
        palette: One [r, g, b] for each class index.
        alpha: Weight of the colour inside a class: 0 shows the image, 1 the colour.

    Returns:
        uint8 (H, W, 3).

    Raises:
        RequestError: If image and labels differ in size, or `alpha` is outside 0 to 1.
    """
    _check_same_size("image", image.shape[:2], "labels", labels.shape)
    if not 0 <= alpha <= 1:
        raise RequestError(f"alpha={alpha}: the weight of the colours is between 0 and 1. Give such a number.")
    colors = colorize(labels, palette).astype(np.float64)
    weight = np.full(labels.shape, alpha)
    weight[_borders(labels)] = 1.0
    weight[(labels < 0) | (labels >= len(palette))] = 0.0
    blended = image + weight[..., None] * (colors - image)
    return np.rint(blended).astype(np.uint8)


def _borders(labels: LabelMap) -> NDArray[np.bool_]:
    """Return the pixels (H, W) with an upper, lower, left or right neighbour of another class."""
    border = np.zeros(labels.shape, dtype=bool)
    across = labels[:, 1:] != labels[:, :-1]
    down = labels[1:] != labels[:-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    return border


def error_map(
    truth: LabelMap,
    prediction: LabelMap,
    ignore_index: int | None,
    *,
    num_classes: int | None = None,
    image: Picture | None = None,
) -> Picture:
    """Paint where a prediction is wrong.

    Right pixels are dark, wrong ones `WRONG_COLOR`, ignored ones hatched in grey. Of two classes, pixels
    wrongly given class 1 are `FALSE_POSITIVE_COLOR`, missed ones `FALSE_NEGATIVE_COLOR`.

    Args:
        truth: (H, W) class indices.
        prediction: (H, W) class indices.
        ignore_index: The label in `truth` that is not scored; None scores every pixel.
        num_classes: Classes of the task. None: two if both maps hold only 0, 1 and ignored pixels.
        image: uint8 (H, W, 3); shown dim and grey where the prediction is right.

    Returns:
        uint8 (H, W, 3).

    Raises:
        RequestError: If the sizes differ.

    >>> error_map(np.array([[0, 1, 2]]), np.array([[0, 2, 2]]), None).tolist()
    [[[40, 40, 40], [232, 62, 48], [40, 40, 40]]]
    """
    _check_labels("truth", truth)
    _check_labels("prediction", prediction)
    _check_same_size("truth", truth.shape, "prediction", prediction.shape)
    ignored = np.zeros(truth.shape, dtype=bool) if ignore_index is None else truth == ignore_index
    wrong = (truth != prediction) & ~ignored
    picture = _dim(image, truth.shape)
    picture[wrong] = WRONG_COLOR
    if _is_binary(truth, prediction, ignored, num_classes):
        picture[wrong & (prediction == 1)] = FALSE_POSITIVE_COLOR
        picture[wrong & (truth == 1)] = FALSE_NEGATIVE_COLOR
    _hatch(picture, ignored)
    return picture


def _hatch(picture: Picture, where: NDArray[np.bool_]) -> None:
    """Paint diagonal grey stripes over the pixels `where` (H, W) of a picture, in place."""
    rows, columns = np.nonzero(where)
    stripe = (rows + columns) % HATCH_PERIOD >= HATCH_PERIOD // 2
    picture[rows, columns] = np.array(HATCH_COLORS, dtype=np.uint8)[stripe.astype(np.intp)]


def _dim(image: Picture | None, size: tuple[int, ...]) -> Picture:
    """Return the ground (H, W, 3) of an error map: the image dark and grey, or a plain dark colour."""
    if image is None:
        return np.full((*size, 3), RIGHT_COLOR, dtype=np.uint8)
    _check_same_size("image", image.shape[:2], "truth", size)
    grey = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])  # (H, W)
    dim = np.rint(RIGHT_COLOR[0] * 0.5 + 0.35 * grey).astype(np.uint8)
    return np.repeat(dim[..., None], 3, axis=-1)


def _is_binary(truth: LabelMap, prediction: LabelMap, ignored: NDArray[np.bool_], num_classes: int | None) -> bool:
    """Say whether the maps are of a task with two classes."""
    if num_classes is not None:
        return num_classes == 2
    scored = ~ignored
    return all(bool(np.isin(labels[scored], (0, 1)).all()) for labels in (truth, prediction))


def to_display(image: NDArray[np.integer] | NDArray[np.floating]) -> Picture:
    """Bring any image to 8-bit RGB for the eye.

    8-bit values stay as they are. All others are stretched so that the 0.5 and 99.5 percentiles of the
    shown channels together become 0 and 255; a constant image and non-finite values become black. One
    channel is shown as grey; of two the third is black; of more than three the first three are shown.

    Args:
        image: (H, W) or (H, W, C), integer or floating point.

    Returns:
        uint8 (H, W, 3).

    Raises:
        RequestError: If the array has other axes or a type that is not a number.

    >>> to_display(np.array([[0, 7]], dtype=np.uint8)).tolist()
    [[[0, 0, 0], [7, 7, 7]]]
    """
    if image.ndim not in (2, 3) or image.size == 0 or image.dtype.kind not in "uif":
        raise RequestError(
            f"image of shape {image.shape}, {image.dtype}: a picture has axes (H, W) or (H, W, C), not "
            "empty, integer or floating-point values. Reorder or convert it first."
        )
    channels = image[..., None] if image.ndim == 2 else image  # (H, W, C)
    channels = channels[..., :3]  # (H, W, 1 to 3)
    shown = channels if channels.dtype == np.uint8 else _stretch(channels)
    if shown.shape[-1] == 1:
        return np.repeat(shown, 3, axis=-1).astype(np.uint8)  # (H, W, 3)
    missing = 3 - shown.shape[-1]
    return np.pad(shown, ((0, 0), (0, 0), (0, missing))).astype(np.uint8)  # (H, W, 3)


def _stretch(channels: NDArray[np.integer] | NDArray[np.floating]) -> Picture:
    """Map the 0.5 and 99.5 percentiles of all finite values to 0 and 255; same axes."""
    finite = np.isfinite(channels)
    if not finite.any():
        return np.zeros(channels.shape, dtype=np.uint8)
    low, high = (float(value) for value in np.percentile(channels[finite].astype(np.float64), (0.5, 99.5)))
    if high <= low:
        return np.zeros(channels.shape, dtype=np.uint8)
    values = np.where(finite, channels, low).astype(np.float64)
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def fit_size(height: int, width: int, *, max_height: int, max_width: int) -> tuple[int, int]:
    """Return the largest (height, width) of the same shape within the limits, never an enlargement.

    >>> fit_size(720, 960, max_height=720, max_width=480)
    (360, 480)
    """
    scale = min(1.0, max_height / height, max_width / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def shrink_image(image: Picture, size: tuple[int, int]) -> Picture:
    """Resize a picture (H, W, 3) to `size` (height, width), averaging over the pixels it merges."""
    if image.shape[:2] == size:
        return image
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BOX)
    return np.asarray(resized, dtype=np.uint8)


def shrink_labels(labels: LabelMap, size: tuple[int, int]) -> LabelMap:
    """Resize labels (H, W) to `size` (height, width) by the nearest pixel, so that no label is new."""
    rows = (np.arange(size[0]) * 2 + 1) * labels.shape[0] // (2 * size[0])
    columns = (np.arange(size[1]) * 2 + 1) * labels.shape[1] // (2 * size[1])
    shrunk: LabelMap = labels[rows[:, None], columns[None]]
    return shrunk


def _checked_palette(palette: Palette) -> list[list[int]]:
    """Return the palette as lists, refusing what is not a colour."""
    for index, color in enumerate(palette):
        if len(color) != 3 or not all(0 <= value <= 255 for value in color):
            raise RequestError(
                f"palette entry {index} is {list(color)}: a colour is [r, g, b], each 0 to 255. Correct it."
            )
    return [list(color) for color in palette]


def _check_labels(name: str, labels: LabelMap) -> None:
    """Refuse arrays that are not label maps."""
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise RequestError(
            f"{name} of shape {labels.shape}, {labels.dtype}: a label map has axes (H, W) and integer "
            "values. Give class indices."
        )


def _check_same_size(name: str, size: tuple[int, ...], other: str, other_size: tuple[int, ...]) -> None:
    """Refuse two arrays of different height or width."""
    if size != other_size:
        raise RequestError(
            f"{name} is {size} and {other} {other_size} (height, width): they must be equal. Resize one."
        )
