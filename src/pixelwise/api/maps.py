"""Probabilities of labelled images: of a trained model, or of files that any program wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.evaluation import load, scan_for
from pixelwise.api.run_data import lists_of
from pixelwise.data.dataset import Item, open_dataset
from pixelwise.data.images import AnyArray
from pixelwise.data.scan import Dataset, scan
from pixelwise.engine.evaluate import Protocol
from pixelwise.engine.model_file import BEST
from pixelwise.engine.probability_maps import SUFFIXES, enlarged_text, read_probabilities
from pixelwise.engine.views import Views
from pixelwise.errors import RequestError

SHOWN = 4  # names in an error


class ModelMaps:
    """Probabilities of a trained model."""

    def __init__(self, run: Path, data: Path, views: Views) -> None:
        self.segmenter = load(run)
        self.segmenter.check(views)
        self.views = views
        self.folder = open_dataset(data, **lists_of(run, data))

    def scan(self, items: Sequence[Item]) -> Dataset:
        """Scan the data; its classes must be the model's."""
        return scan_for(self.segmenter, self.folder, items)

    def maps(self, dataset: Dataset, item: Item) -> tuple[AnyArray, NDArray[np.float32]]:
        """Return an item's image (H, W, C) and probabilities (K, H, W)."""
        prediction = self.segmenter.view(dataset.image(item), self.views)
        return prediction.image, prediction.probabilities.cpu().numpy()

    def protocol(self) -> Protocol:
        """Say where the probabilities come from."""
        return {"scale": self.segmenter.card.scale, **self.views.protocol()}


class FileMaps:
    """Probabilities in files, which any program wrote."""

    def __init__(self, maps: Path, data: Path, views: Views) -> None:
        if views != Views():
            raise RequestError(
                f"{maps} holds probabilities, so that nothing is predicted; accepted with it: no --flip, --scales, "
                "--tile, --window and what goes with them. Leave them out, or give a run."
            )
        self.root = maps
        self.files = {path.stem: path for path in sorted(maps.iterdir()) if path.suffix.lower() in SUFFIXES}
        self.folder = open_dataset(data)
        self.enlarged: dict[str, None] = {}

    def scan(self, items: Sequence[Item]) -> Dataset:
        """Scan the data; there must be a file for every item."""
        missing = [item.name for item in items if item.name not in self.files]
        if missing:
            shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
            raise RequestError(
                f"{self.root} lacks probabilities for {len(missing)} of {len(items)} images: {shown}; accepted: "
                "NAME.npy or NAME.npz for each. Name those that have some with --list, or write the others."
            )
        return scan(self.folder, items, cache_bytes=0)

    def maps(self, dataset: Dataset, item: Item) -> tuple[AnyArray, NDArray[np.float32]]:
        """Return an item's image (H, W, C) and probabilities (K, H, W)."""
        image, path = dataset.image(item), self.files[item.name]
        size = (image.shape[0], image.shape[1])
        maps, stored = read_probabilities(path, size, resize=True)
        if len(maps) != len(dataset.card.classes):
            raise RequestError(
                f"{path}: has {len(maps)} classes, {self.folder.root} has {len(dataset.card.classes)}; accepted: the "
                "same. Write the probabilities of the data's classes, in its order."
            )
        self.enlarged |= dict.fromkeys(enlarged_text(stored, size).values())
        return image, maps

    def protocol(self) -> Protocol:
        """Say where the probabilities come from."""
        said: Protocol = {"probabilities": str(self.root)}
        return said | ({"enlarged": "; ".join(list(self.enlarged)[:SHOWN])} if self.enlarged else {})


Maps: TypeAlias = ModelMaps | FileMaps


def holds_maps(path: Path) -> bool:
    """Say whether a folder is one of probabilities, and no run."""
    if not path.is_dir() or (path / BEST).exists():
        return False
    return any(file.suffix.lower() in SUFFIXES for file in path.iterdir())


def maps_of(run: Path, data: Path, views: Views) -> Maps:
    """Return the probabilities of a run, a model file, or a folder of them, on a dataset folder.

    Raises:
        RequestError: if there are none, or views are given for files.
    """
    return FileMaps(run, data, views) if holds_maps(run) else ModelMaps(run, data, views)
