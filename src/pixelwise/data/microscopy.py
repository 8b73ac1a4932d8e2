"""Synthetic fluorescence microscopy: pictures of cells whose every pixel's class and cell are known exactly.

The order is that of a microscope. Cells are placed and given irregular outlines (the truth), dyes are laid
into them, debris and stray light are added, the lamp shines unevenly, the optics blur, and the camera counts
photons.

Symbols: `rho` is the distance from a cell's centre divided by its outline's radius in that direction, so
rho < 1 is inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.data.folder import FolderItem, write_dataset_folder
from pixelwise.errors import RequestError

CLASSES = ("background", "cell", "nucleus")
PALETTE = ((0, 0, 0), (40, 160, 80), (70, 90, 230))
TERMS = "Synthetic: drawn by pixelwise.data.microscopy (Apache-2.0); there is no photograph behind it."

_BACKGROUND, _CELL, _NUCLEUS = range(3)

# The strongest swelling of an outline over its mean radius; spacing and nucleus size below rely on it.
_MAX_SWELL = 1.3
# Centres at least this share of the two mean radii apart: outlines may meet, but each keeps its nucleus.
_MIN_SPACING = 0.92
# The share of the picture that cells fill when their number is left to the generator.
_FILL = 0.42
_TRIES_PER_CELL = 60

Float = NDArray[np.float64]
Window = tuple[slice, slice]


@dataclass(frozen=True)
class MicroscopySample:
    """One picture and its truth.

    Attributes:
        image: uint8 (H, W), or (H, W, 3) RGB.
        labels: Class ids in the order of `class_names`, uint8 (H, W).
        instances: 0 for background and 1..N for the cells, each with its nucleus, uint16 (H, W).
        class_names: Names in index order.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    class_names: tuple[str, ...] = CLASSES


@dataclass(frozen=True, kw_only=True)
class _Outline:
    """A closed curve around (y, x): radius (in px) times 1 + a sum of `waves` (order, amplitude, phase)."""

    y: float
    x: float
    radius: float
    waves: Float  # (M, 3)

    def window(self, shape: tuple[int, ...], reach: float = 1.0) -> Window:
        """Return the rows and columns of an (H, W) picture that hold all pixels of rho < `reach`."""
        far = reach * _MAX_SWELL * self.radius + 1
        rows, columns = (
            slice(max(0, int(centre - far)), min(length, int(centre + far) + 1))
            for centre, length in zip((self.y, self.x), shape, strict=True)
        )
        return rows, columns

    def rho(self, window: Window) -> Float:
        """Return the distance from the centre in units of the outline's radius for a window (h, w)."""
        rows, columns = window
        dy = np.arange(rows.start, rows.stop)[:, None] - self.y
        dx = np.arange(columns.start, columns.stop) - self.x
        angle = np.arctan2(dy, dx)
        swell = np.ones_like(angle)
        for order, amplitude, phase in self.waves:
            swell += amplitude * np.cos(order * angle + phase)
        scaled: Float = np.hypot(dy, dx) / (self.radius * swell)
        return scaled


def microscopy_image(
    size: tuple[int, int],
    *,
    seed: int,
    num_cells: int | None = None,
    cell_radius: tuple[float, float] = (13.0, 25.0),
    color: bool = False,
    blur: float = 1.0,
    photons: float = 160.0,
    read_noise: float = 2.5,
) -> MicroscopySample:
    """Draw one picture; the same arguments give the same picture.

    Cells may touch each other and the border, but none lies over another. Each holds one nucleus. Debris,
    stray light and noise are background.

    Args:
        size: (height, width) in px, both at least 2.5 times the largest radius.
        seed: Of the random generator, 0 or more.
        num_cells: Cells to place, at least 1; None fills about two fifths of the picture.
        cell_radius: Smallest and largest mean radius of a cell in px, at least 6.
        color: RGB with the nuclei blue, the cytoplasm green and vesicles red; else one grey channel.
            The truth is the same.
        blur: Standard deviation of the optics' point spread in px, 0 for none.
        photons: Photons that a pixel of full brightness counts; fewer give a noisier picture.
        read_noise: Standard deviation of the camera's own noise in photons, 0 for none.

    Returns:
        The picture with its truth.

    Raises:
        RequestError: A value is out of its range, or `num_cells` do not fit.

    >>> sample = microscopy_image((96, 128), seed=3)
    >>> sample.image.shape, sorted(set(sample.labels.flat)) == [0, 1, 2]
    ((96, 128), True)
    """
    _check_request(size, seed, num_cells, cell_radius)
    _check_camera(blur, photons, read_noise)
    rng = np.random.default_rng(seed)
    cells = _place_cells(rng, size, num_cells, cell_radius)
    instances, rho = _draw_cells(cells, size)
    nuclei = _draw_nuclei(rng, cells, instances)
    labels = np.where(instances > 0, _CELL, _BACKGROUND).astype(np.uint8)
    labels[nuclei < 1] = _NUCLEUS
    dyes = _stain(rng, instances, rho, nuclei)  # (3, H, W)
    dyes[:2] += _debris(rng, instances)
    light = _optics(rng, dyes, blur)
    if not color:
        light = light.sum(axis=0, keepdims=True)
    grey = _camera(rng, light, photons, read_noise)  # (C, H, W)
    image = np.ascontiguousarray(grey.transpose(1, 2, 0)) if color else grey[0]
    return MicroscopySample(image=image, labels=labels, instances=instances)


def write_microscopy(
    folder: Path,
    *,
    num_train: int = 8,
    num_val: int = 4,
    size: tuple[int, int] = (256, 256),
    seed: int = 0,
    color: bool = False,
) -> Path:
    """Write pictures with their truth as a dataset folder with the splits `train` and `val`.

    A picture depends on seed, split and its number only: asking for more pictures leaves the first ones as
    they were.

    Args:
        folder: The folder to make; files of an earlier call are replaced.
        num_train: Pictures in `train`, at least 1.
        num_val: Pictures in `val`, at least 1.
        size: (height, width) of every picture in px.
        seed: Of the whole set, 0 or more.
        color: As for `microscopy_image`.

    Returns:
        The folder, as given.

    Raises:
        RequestError: A value is out of its range, or `folder` is a file.
        WorkError: The folder cannot be written.
    """
    counts = {"train": num_train, "val": num_val}
    for split, count in counts.items():
        if count < 1:
            raise RequestError(f"num_{split}={count}: 1 or more is accepted; ask for at least one picture")
    if seed < 0:
        raise RequestError(f"seed={seed}: 0 or more is accepted; give another number")
    items = []
    for part, (split, count) in enumerate(counts.items()):
        for number in range(count):
            own_seed = int(np.random.SeedSequence([seed, part, number]).generate_state(1)[0])
            sample = microscopy_image(size, seed=own_seed, color=color)
            items.append(
                FolderItem(
                    split=split,
                    name=f"cells-{split}-{number + 1:02d}",
                    image=sample.image,
                    labels=sample.labels,
                    instances=sample.instances,
                )
            )
    return write_dataset_folder(
        folder, items, name="microscopy", classes=CLASSES, palette=PALETTE, terms=TERMS, extra={"seed": seed}
    )


def _check_request(size: tuple[int, int], seed: int, num_cells: int | None, cell_radius: tuple[float, float]) -> None:
    low, high = cell_radius
    if not 6 <= low <= high < float("inf"):
        raise RequestError(f"cell_radius={cell_radius}: 6 <= smallest <= largest is accepted; change the radii")
    if min(size) < 2.5 * high:
        raise RequestError(
            f"size={size}: height and width of 2.5 times the largest radius, {2.5 * high:g} px, or more are "
            "accepted; enlarge the picture or give a smaller cell_radius"
        )
    if seed < 0:
        raise RequestError(f"seed={seed}: 0 or more is accepted; give another number")
    if num_cells is not None and num_cells < 1:
        raise RequestError(f"num_cells={num_cells}: 1 or more, or None is accepted; ask for at least one cell")


def _check_camera(blur: float, photons: float, read_noise: float) -> None:
    for argument, value in (("blur", blur), ("read_noise", read_noise)):
        if not 0 <= value < float("inf"):
            raise RequestError(f"{argument}={value}: 0 or more is accepted; give 0 to switch it off")
    if not 1 <= photons <= 1e6:
        raise RequestError(f"photons={photons}: 1..1e6 is accepted; 160 is an ordinary exposure")


def _place_cells(
    rng: np.random.Generator,
    size: tuple[int, int],
    num_cells: int | None,
    cell_radius: tuple[float, float],
) -> list[_Outline]:
    height, width = size
    mean_area = np.pi * np.square(cell_radius).mean()
    wanted = num_cells if num_cells is not None else max(1, round(_FILL * height * width / mean_area))
    cells: list[_Outline] = []
    for _ in range(wanted * _TRIES_PER_CELL):
        if len(cells) == wanted:
            break
        radius = rng.uniform(*cell_radius)
        y, x = _propose_centre(rng, cells, size, radius)
        spacings = [np.hypot(y - c.y, x - c.x) / (radius + c.radius) for c in cells]
        if min(spacings, default=1.0) >= _MIN_SPACING:
            cells.append(_Outline(y=y, x=x, radius=radius, waves=_waves(rng, 0.2)))
    if num_cells is not None and len(cells) < num_cells:
        raise RequestError(
            f"num_cells={num_cells}: {len(cells)} fitted into {height} x {width} px with radii of "
            f"{cell_radius[0]:g} to {cell_radius[1]:g} px; ask for fewer, a larger picture or smaller cells"
        )
    return cells


def _propose_centre(
    rng: np.random.Generator, cells: list[_Outline], size: tuple[int, int], radius: float
) -> tuple[float, float]:
    """Return (y, x): half of the time beside an earlier cell, since real cells grow in clumps."""
    margin = radius / 2  # the nucleus of a cell at the border is in the picture
    low, high = np.full(2, margin), np.array(size) - 1 - margin
    if cells and rng.random() < 0.5:
        mate = cells[rng.integers(len(cells))]
        angle = rng.uniform(0, 2 * np.pi)
        away = (mate.radius + radius) * rng.uniform(_MIN_SPACING, 1.05)
        y, x = np.clip([mate.y + away * np.sin(angle), mate.x + away * np.cos(angle)], low, high)
    else:
        y, x = rng.uniform(low, high)
    return float(y), float(x)


def _waves(rng: np.random.Generator, strength: float) -> Float:
    """Return (5, 3) orders 2..6, amplitudes falling with the order, and phases; they swell by 0.3 at most."""
    orders = np.arange(2.0, 7.0)
    amplitudes = rng.normal(0.0, strength, 5) * (2.0 / orders) ** 1.5
    amplitudes *= min(1.0, (_MAX_SWELL - 1) / np.abs(amplitudes).sum())
    return np.stack([orders, amplitudes, rng.uniform(0, 2 * np.pi, 5)], axis=1)


def _draw_cells(cells: list[_Outline], size: tuple[int, int]) -> tuple[NDArray[np.uint16], Float]:
    """Return the cell numbers and each pixel's rho in its cell (infinite outside cells), both (H, W).

    Where two outlines cross, a pixel goes to the cell with the smaller rho: the border between them runs
    midway, as between cells that press against each other.
    """
    nearest = np.full(size, np.inf)
    owner = np.zeros(size, dtype=np.uint16)
    for number, cell in enumerate(cells, start=1):
        window = cell.window(size)
        rho = cell.rho(window)
        closer = rho < np.minimum(nearest[window], 1)
        nearest[window][closer], owner[window][closer] = rho[closer], number
    for number in range(1, len(cells) + 1):
        parts, count = ndimage.label(owner == number)
        if count > 1:
            largest = 1 + np.argmax(np.bincount(parts.flat)[1:])
            owner[(parts > 0) & (parts != largest)] = 0
    return owner, nearest


def _draw_nuclei(rng: np.random.Generator, cells: list[_Outline], instances: NDArray[np.uint16]) -> Float:
    """Return each pixel's rho in its own cell's nucleus (H, W), infinite outside the cells' insides."""
    nuclei = np.full(instances.shape, np.inf)
    for number, cell in enumerate(cells, start=1):
        shift, angle = rng.uniform(0, 0.15) * cell.radius, rng.uniform(0, 2 * np.pi)
        nucleus = _Outline(
            y=cell.y + shift * np.sin(angle),
            x=cell.x + shift * np.cos(angle),
            radius=cell.radius * rng.uniform(0.4, 0.54),
            waves=_waves(rng, 0.07),
        )
        window = cell.window(instances.shape)
        own = (instances[window] == number) & (cell.rho(window) < 0.85)
        nuclei[window][own] = nucleus.rho(window)[own]
    return nuclei


def _texture(rng: np.random.Generator, shape: tuple[int, int], grain: float) -> Float:
    """Return smooth random ups and downs (H, W), `grain` px wide, with mean 0 and standard deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), grain, mode="wrap")
    scaled: Float = (noise - noise.mean()) / noise.std()
    return scaled


def _stain(rng: np.random.Generator, instances: NDArray[np.uint16], rho: Float, nuclei: Float) -> Float:
    """Return the dyes' brightness (3, H, W): red vesicles, green cytoplasm, blue nuclei; 1 is very bright."""
    shape = (instances.shape[0], instances.shape[1])
    in_cell, in_nucleus = instances > 0, nuclei < 1
    # Each cell takes its own share of dye, its nucleus a steadier one: nuclei must stand out in grey too.
    spread = np.array([[0.22], [0.12]])
    uptake = np.exp(spread * rng.standard_normal((2, int(instances.max()) + 1)))
    # Cells are domes: thin, hence dim, at the edge.
    thickness = np.sqrt(np.clip(1 - rho**2, 0, None))
    fibres = np.clip(1 + 0.16 * _texture(rng, shape, 1.2) + 0.14 * _texture(rng, shape, 4.0), 0.3, None)
    green = in_cell * (0.22 + 0.26 * thickness) * fibres * uptake[0][instances]
    green[in_nucleus] *= 0.6
    chromatin = np.clip(1 + 0.2 * _texture(rng, shape, 1.5) + 0.12 * _texture(rng, shape, 3.0), 0.3, None)
    blue = in_nucleus * 0.68 * chromatin * uptake[1][instances]
    nucleoli = _texture(rng, shape, 1.8) > 1.6
    blue[nucleoli & (nuclei < 0.8)] *= 0.55
    spots = _texture(rng, shape, 1.0)
    red = 0.45 * np.clip(spots - 1.7, 0, None) * (in_cell & ~in_nucleus)
    return np.stack([red, green, blue])


def _debris(rng: np.random.Generator, instances: NDArray[np.uint16]) -> Float:
    """Return specks and faint smears outside the cells (H, W), a few per 10 000 px."""
    height, width = instances.shape
    clearance = ndimage.distance_transform_edt(instances == 0)
    debris = np.zeros((height, width))
    for _ in range(rng.poisson(3.0 * height * width / 1e4)):
        smear = rng.random() < 0.3
        radius = rng.uniform(2.5, 5.0) if smear else rng.uniform(0.6, 1.6)
        strength = rng.uniform(0.08, 0.2) if smear else rng.uniform(0.2, 0.7)
        cy, cx = int(rng.integers(height)), int(rng.integers(width))
        if clearance[cy, cx] < radius + 2:
            continue
        speck = _Outline(y=cy, x=cx, radius=radius, waves=_waves(rng, 0.3))
        window = speck.window(instances.shape, reach=3.0)
        debris[window] += strength * np.exp(-(speck.rho(window) ** 2))
    return debris


def _optics(rng: np.random.Generator, dyes: Float, blur: float) -> Float:
    """Return the light at the camera (3, H, W): stray light, an uneven lamp and the point spread."""
    _, height, width = dyes.shape
    stray = ndimage.gaussian_filter(dyes, (0, 14, 14), mode="nearest")  # from cells above and below the focus
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    cy, cx = rng.uniform(-0.4, 0.4, 2)
    lamp = 1.08 - 0.22 * ((y - cy) ** 2 + (x - cx) ** 2)
    haze = 0.02 + 0.008 * _texture(rng, (height, width), min(height, width) / 6)
    light: Float = (dyes + 0.14 * stray + np.clip(haze, 0, None)) * np.clip(lamp, 0.3, None)
    if blur > 0:
        light = ndimage.gaussian_filter(light, (0, blur, blur), mode="nearest")
    return light


def _camera(rng: np.random.Generator, light: Float, photons: float, read_noise: float) -> NDArray[np.uint8]:
    """Count photons, add the camera's own noise and an offset, and round to grey values 0..255, (C, H, W)."""
    counts = rng.poisson(light * photons) + rng.normal(0.0, read_noise, light.shape)
    grey: NDArray[np.uint8] = np.clip(np.rint(6 + counts * (200 / photons)), 0, 255).astype(np.uint8)
    return grey
