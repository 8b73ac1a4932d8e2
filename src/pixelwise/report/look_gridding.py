"""The gridding artefact of dilated convolutions, of several networks side by side.

A convolution of dilation 4 joins cells that lie four apart: one bright cell before it comes out as a grid of bright
cells with gaps between, and neighbouring cells of its output know nothing of each other. The figure makes one cell
bright where a network begins to dilate and draws how its last map changes. That shows how the network is built, with
random weights too; what a trained one makes of an image is drawn below it.

Source: F. Yu, V. Koltun, T. Funkhouser, "Dilated Residual Networks", CVPR 2017: one bright pixel before and behind a
dilated convolution, and maps of DRN-A-18, DRN-B-26 and DRN-C-26.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pixelwise.data.images import AnyArray, read_image
from pixelwise.engine.layer_table import Layer
from pixelwise.engine.model_file import Option
from pixelwise.errors import RequestError
from pixelwise.files import check_writable, write_atomically
from pixelwise.report.look import MEASURED, check_out
from pixelwise.report.look_figures import Values, channel_panels, photo_panel, strongest_channels
from pixelwise.report.look_pass import Operation, Reader
from pixelwise.report.look_scene import Scene, Target, measure_batch_norm, open_scene, open_target
from pixelwise.report.look_sheet import Panel, Section, Sheet, column_width, heat, sheet_html, sheet_png

MAX_NETWORKS = 12
TASKS = ("semantic", "classification")
FAINT = 0.01  # of the largest change: what is less is cut off at the panel's border


@dataclass(frozen=True, kw_only=True)
class Gridding:
    """What was measured of one network.

    Attributes:
        model: public name, or the run.
        first: name of the layer whose map got the bright cell, the last one before the network dilates.
        last: name of the layer whose map was compared.
        dilations: of the convolutions between, in order, equal neighbours once.
        unevenness: how much neighbouring cells of the change differ, as a share of their sum: 0 where all are equal, 1
            where each changed cell is alone.
    """

    model: str
    first: str
    last: str
    dilations: tuple[int, ...]
    unevenness: float


@dataclass(frozen=True, kw_only=True)
class GriddingLooked:
    """What a call drew."""

    output: Path
    networks: tuple[Gridding, ...]


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    facts: Gridding
    origin: str
    change: Values  # (h, w), the bright cell in the middle
    maps: list[Panel]


def look_gridding(
    targets: Sequence[str | Path],
    image: str | Path,
    *,
    out: str | Path,
    num_classes: int | None = None,
    seed: int | None = None,
    options: Mapping[str, Option] | None = None,
) -> GriddingLooked:
    """Draw the gridding of networks beside each other.

    Args:
        targets: names of `list_models()`, semantic or classification, which get random weights; or runs.
        image: an image file; of one larger than 1024 x 1024 pixels the middle is seen.
        out: the file to write, .png or .html.
        num_classes: K of untrained models; None is 2.
        seed: of the weights of untrained models; None is 0.
        options: the untrained models' own options.

    Raises:
        RequestError: for an unknown model or one without dilated convolutions, or an image that does not fit.
        WorkError: if the file cannot be written.
    """
    path, source = Path(out), Path(image)
    check_out(path, source)
    if not 1 <= len(targets) <= MAX_NETWORKS:
        raise RequestError(f"{len(targets)} networks are named; accepted: 1 to {MAX_NETWORKS}. Name so many.")
    array = read_image(source)
    scenes = []
    for target in targets:
        opened = open_target(target, array, num_classes=num_classes, seed=seed, options=options or {}, tasks=TASKS)
        scene = open_scene(opened.segmenter, array)
        scenes.append((str(target), opened, scene, dilated_part(scene, str(target))))
    check_writable(path.parent)
    drawn = [_draw(name, opened, scene, rows) for name, opened, scene, rows in scenes]
    sheet = _sheet(drawn, scenes[0][2], source, array)
    write_atomically(path, sheet_png(sheet) if path.suffix.lower() == ".png" else sheet_html(sheet))
    return GriddingLooked(output=path, networks=tuple(one.facts for one in drawn))


def gates(layers: Sequence[Layer]) -> list[int]:
    """Return the rows that everything behind them passes through: no later row reads an earlier one."""
    found, reaches = [], len(layers)
    for row in range(len(layers) - 1, -1, -1):
        if reaches >= row:
            found.append(row)
        reaches = min(reaches, *layers[row].inputs)
    return found[::-1]


def _dilation(layer: Layer) -> int:
    """Return the dilation of a convolution that sees more than one cell, else 0."""
    if layer.kind != "convolution" or layer.windows is None or max(w.kernel for w in layer.windows) == 1:
        return 0
    return max(window.dilation for window in layer.windows)


def dilated_part(scene: Scene, name: str) -> tuple[int, int]:
    """Return the last row before a network dilates that all of it passes through, and the row of its last map.

    The last map is that of the block with the last convolution that sees more than one cell on the same grid.
    """
    layers, places = scene.layers, gates(scene.layers)
    first = next((row for row, layer in enumerate(layers) if _dilation(layer) > 1), 0)
    before = [row for row in places if row < first and len(layers[row].shape) == 3]
    if not before:
        raise RequestError(
            f"{name} has no dilated convolutions behind others, so nothing to grid; accepted: networks that have, such "
            "as drn_a_18, drn_b_26, drn_c_26. Choose such a one."
        )
    start = before[-1]
    grid = [row for row, layer in enumerate(layers) if _dilation(layer) and scene.strides[row] == scene.strides[start]]
    last = grid[-1] if grid else len(layers)
    behind = [row for row in places if row >= last and scene.strides[row] == scene.strides[start]]
    ends = [row for row in behind if layers[row].kind == "relu"] or behind
    if not ends:
        raise RequestError(
            f"{name} has no single map behind its dilated convolutions; accepted: networks that have, such as "
            "drn_a_18, drn_b_26, drn_c_26. Choose such a one."
        )
    return start, ends[0]


def _read(operation: Operation) -> Values:
    values: Values = operation.output.numpy().copy()
    return values


def _brighten(position: tuple[int, int], operation: Operation) -> Values:
    """Make a cell as bright as the brightest of each channel."""
    maps = operation.gives[0][0]  # (c, h, w)
    maps[:, position[0], position[1]] = maps.amax(dim=(1, 2))
    return _read(operation)


def change_of_last_map(scene: Scene, start: int, end: int) -> tuple[Values, Values]:
    """Make the middle cell of one map bright and return how another changes.

    Returns:
        Root mean square of the change over the channels, float32 (h, w), cut to the largest part that has the cell in
        its middle; and the unchanged map (c, h, w).
    """
    height, width = scene.layers[start].shape[1:]
    y, x = height // 2, width // 2
    plain = scene.run({end: _read})[end]
    readers: dict[int, Reader[Values]] = {start: partial(_brighten, (y, x)), end: _read}
    bright = scene.run(readers)[end]
    change = np.sqrt(np.square(bright - plain).mean(axis=0, dtype=np.float64)).astype(np.float32)
    reach = min(y, x, height - 1 - y, width - 1 - x)
    return change[y - reach : y + reach + 1, x - reach : x + reach + 1], plain


def unevenness(change: Values) -> float:
    """Return the differences of neighbouring cells over their sums; see `Gridding`.

    >>> unevenness(np.float32([[1, 1], [1, 1]])), unevenness(np.float32([[1, 0, 1, 0]]))
    (0.0, 1.0)
    """
    pairs = [(change[1:], change[:-1]), (change[:, 1:], change[:, :-1])]
    total = sum(float((a + b).sum()) for a, b in pairs)
    return sum(float(np.abs(a - b).sum()) for a, b in pairs) / total if total else 0.0


def _draw(name: str, opened: Target, scene: Scene, rows: tuple[int, int]) -> _Drawn:
    start, end = rows
    measured = not opened.trained and measure_batch_norm(scene)
    change, maps = change_of_last_map(scene, start, end)
    between = [_dilation(layer) for layer in scene.layers[start + 1 : end + 1] if _dilation(layer)]
    facts = Gridding(
        model=name,
        first=scene.labels[start],
        last=scene.labels[end],
        dilations=tuple(between[:1]) + tuple(after for one, after in pairwise(between) if after != one),
        unevenness=unevenness(change),
    )
    channels = strongest_channels(maps)
    return _Drawn(
        facts=facts,
        origin=f"{opened.origin} {MEASURED}" if measured else opened.origin,
        change=change,
        maps=channel_panels(maps, channels, scene.place(end), scene.view, 8),
    )


def _reach(change: Values) -> int:
    """Return how far from the middle cell the change is more than faint."""
    middle = change.shape[0] // 2
    rows, columns = np.nonzero(change > FAINT * change.max())
    return int(max(np.abs(rows - middle).max(initial=1), np.abs(columns - middle).max(initial=1)))


def _change_panel(one: _Drawn, reach: int, columns: int) -> Panel:
    """Draw the change within so many cells of the bright one, a square for each."""
    middle = one.change.shape[0] // 2
    cells = slice(max(middle - reach, 0), middle + reach + 1)
    shown = one.change[cells, cells]
    values = np.sqrt(shown / max(float(shown.max()), 1e-30))
    side = column_width(columns)
    picture = cv2.resize(values, (side, side), interpolation=cv2.INTER_NEAREST)
    dilations = ", ".join(map(str, one.facts.dilations))
    caption = f"{one.facts.model}: dilations {dilations}; neighbouring cells differ by {one.facts.unevenness:.0%}"
    return Panel(picture=heat(picture) if shown.max() > 0 else Image.new("RGB", (side, side)), caption=caption)


def _sheet(drawn: Sequence[_Drawn], scene: Scene, source: Path, array: AnyArray) -> Sheet:
    columns = min(max(len(drawn), 2), 4)
    reach = min(max(_reach(one.change) for one in drawn), *(one.change.shape[0] // 2 for one in drawn))
    reach = max(reach, 1)
    change = Section(
        title="One bright cell, and where the last map changes",
        note="In each network the middle cell of the last map before it dilates was made as bright as the brightest "
        f"one of each channel. Drawn are the {2 * reach + 1} x {2 * reach + 1} cells around it of the map before the "
        "classes are scored: how much they change (root mean square over the channels; its square root is shown, each "
        "network on its own scale). Dilated convolutions leave gaps between the cells that they reach: the grid. "
        "Convolutions of dilation 2 and then 1 at the end fill the gaps; a shortcut around them carries the grid past. "
        "The percentage is how much neighbouring cells differ, of their sum: 0 % is smooth, 100 % isolated cells.",
        panels=[_change_panel(one, reach, columns) for one in drawn],
        columns=columns,
        scale=("unchanged", "changes most"),
    )
    head = Section(
        title="The last map on this image",
        note="The channels whose values vary most, each on its own scale. With random weights they are noise over "
        "the image, where no grid is to be expected.",
        panels=[photo_panel(scene.view, "image", 4)],
        columns=4,
        scale=("lowest", "highest"),
    )
    maps = [
        Section(
            title=one.facts.model,
            note=f"bright cell at {one.facts.first} · last map {one.facts.last}",
            panels=one.maps,
            columns=8,
            part=True,
        )
        for one in drawn
    ]
    origins = list(dict.fromkeys(one.origin for one in drawn))
    facts = origins if len(origins) == 1 else [f"{one.facts.model}: {one.origin}" for one in drawn]
    title = f"Gridding of {', '.join(one.facts.model for one in drawn)} · {source.name}"
    return Sheet(title=title, facts=facts, sections=[change, head, *maps])
