"""What the figures of unpooling networks (SegNet, DeconvNet) show: switches, and activations from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pixelwise.engine.layer_table import Layer
from pixelwise.report.look_figures import channel_panels, photo_panel, strongest_channels
from pixelwise.report.look_layers import UNPOOL, layer_title
from pixelwise.report.look_pass import Operation, Reader
from pixelwise.report.look_scene import Scene
from pixelwise.report.look_sheet import Panel, Section
from pixelwise.report.look_switches import COLUMNS, Level, corners_panel, legend_panel, level_panels, shares, windows_on

FIGURE_COLUMNS = 6


class Decoder:
    """Gathers, while the network runs, what its unpoolings do.

    Args:
        scene: the model before an image.
        rows: layers that are drawn alone; None for the overview, which shows all unpoolings.
    """

    def __init__(self, scene: Scene, rows: Sequence[int] | None) -> None:
        self.scene = scene
        every = unpoolings(scene.layers)
        wanted = every if rows is None else [row for row in every if {row, scene.layers[row].pool} & set(rows)]
        self.levels = {row: self._begin(self._pool(row)) for row in wanted}
        self.figure = coarse_to_fine(scene.layers, every) if rows is None else []
        self.strongest: dict[int, Panel] = {}

    def readers(self) -> dict[int, list[Reader[None]]]:
        """Return what reads each row; a pooling is always read before its unpooling."""
        readers: dict[int, list[Reader[None]]] = {}
        for row, level in self.levels.items():
            readers.setdefault(self._pool(row), []).append(level.pooling)
            readers.setdefault(row, []).append(level.unpooling)
        for row in self.figure:
            readers.setdefault(row, []).append(partial(self._keep, row))
        return readers

    def _begin(self, pool: int) -> Level:
        height, width = self.scene.layers[pool].shape[1:]
        return Level(within=windows_on(self.scene.view, self.scene.place(pool), (height, width)))

    def _pool(self, row: int) -> int:
        pool = self.scene.layers[row].pool
        assert pool is not None
        return pool

    def _keep(self, row: int, operation: Operation) -> None:
        maps = operation.output.numpy()
        channel = strongest_channels(maps, 1)
        (panel,) = channel_panels(maps, channel, self.scene.place(row), self.scene.view, FIGURE_COLUMNS)
        title = layer_title(self.scene.layers, self.scene.labels, row)
        size = " x ".join(map(str, maps.shape[1:]))
        self.strongest[row] = Panel(picture=panel.picture, caption=f"{title}, {size}: {panel.caption}")

    def sections(self) -> list[Section]:
        """Return the overview's sections; none for a network without unpooling."""
        if not self.levels:
            return []
        note = (
            "Of each unpooling, and of the last layer behind it, the channel whose values vary most over the image, "
            "from the deepest level on. Each is drawn on its own scale, from its lowest to its highest value."
        )
        panels = [photo_panel(self.scene.view, "image", FIGURE_COLUMNS), *(self.strongest[row] for row in self.figure)]
        activations = Section(
            title="Decoder, from coarse to fine",
            note=note,
            panels=panels,
            columns=FIGURE_COLUMNS,
            scale=("lowest", "highest"),
        )
        note = (
            "A pooling keeps where the maximum of each window of 2 x 2 units was, its switch, and the unpooling puts "
            "a value back there. The colour says in which corner it was; of equal values, such as the zeros behind a "
            "ReLU, the top left one counts. Of each level the channel whose pooled values vary most."
        )
        head = Section(title="Unpooling switches", note=note, panels=[legend_panel()], columns=8)
        return [activations, head, *(self._level(row) for row in self.levels)]

    def of_layers(self, rows: Sequence[int]) -> list[Section]:
        """Return the sections for layers that are drawn alone: a level, then the switches of all channels."""
        sections = []
        for row in (row for row in self.levels if {row, self._pool(row)} & set(rows)):
            name, corners = self.scene.labels[row], self.levels[row].corners
            assert corners is not None
            place = self.scene.place(self._pool(row))
            panels = [corners_panel(c, place, self.scene.view, 8, f"channel {i}") for i, c in enumerate(corners)]
            note = "The colour says in which corner of its window of 2 x 2 units the maximum was."
            sections += [
                Section(title=f"Switches of {name}", note=note, panels=[legend_panel()], columns=8),
                self._level(row),
                Section(title=f"Switches of {name}, channel by channel", panels=panels, columns=8),
            ]
        return sections

    def _level(self, row: int) -> Section:
        level, labels, pool = self.levels[row], self.scene.labels, self._pool(row)
        assert level.corners is not None
        size = " x ".join(map(str, self.scene.layers[row].shape[1:]))
        return Section(
            title=labels[row],
            note=f"to {size} by the switches of {labels[pool]} · channel {level.channel} · maxima "
            f"{shares(level.corners[level.channel])}",
            panels=level_panels(level, self.scene.place(pool), self.scene.view),
            columns=COLUMNS,
            part=True,
        )


def unpoolings(layers: Sequence[Layer]) -> list[int]:
    """Return the rows that unpool 2x2 windows by a pooling's switches, deepest first."""
    found = []
    for row, layer in enumerate(layers):
        if layer.kind == UNPOOL and layer.pool is not None:
            windows = layers[layer.pool].windows or ()
            if [(window.kernel, window.stride, window.padding) for window in windows] == [(2, 2, 0)] * 2:
                found.append(row)
    return found


def coarse_to_fine(layers: Sequence[Layer], unpools: Sequence[int]) -> list[int]:
    """Return each unpooling and the last layer before the next one; behind the last one, the layer that is scored.

    What is scored is the input of the last convolution that depends on the unpooling.
    """
    if not unpools:
        return []
    behind = {unpools[-1]}
    for row, layer in enumerate(layers):
        if behind.intersection(layer.inputs):
            behind.add(row)
    scorer = max(row for row in behind if "convolution" in layers[row].kind)
    ends = [layers[row].inputs[0] for row in (*unpools[1:], scorer)]
    return [row for pair in zip(unpools, ends, strict=True) for row in dict.fromkeys(pair)]
