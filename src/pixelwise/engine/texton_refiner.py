"""TextonBoost's own CRF behind `--crf texton`: edges, places and colours, with the places that a run has learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.classical.location import LocationPotential
from pixelwise.classical.texton_crf import TextonCRF
from pixelwise.crf.refiner import Refined, parameters_text
from pixelwise.engine.model_file import model_file, read_tensors
from pixelwise.errors import RequestError

PREFIX = "location."  # of the arrays in a model file


@dataclass(frozen=True, kw_only=True)
class TextonRefiner:
    """TextonBoost's CRF, as a `Refiner`.

    Attributes:
        crf: its potentials, but for the classifier's.
    """

    crf: TextonCRF

    def refine(self, image: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Refined:
        """See `Refiner`; labels are those of least energy. They have no probabilities: the given ones are handed on."""
        labels = self.crf.map_labels(image, probabilities)
        narrow = labels.astype(np.uint8) if len(probabilities) <= 256 else labels.astype(np.uint16)
        return Refined(labels=narrow, probabilities=probabilities)

    def protocol(self) -> dict[str, str]:
        """See `Refiner`."""
        location, color = self.crf.location, self.crf.color
        parts = [parameters_text(self.crf.edge)]
        parts += [] if location is None else [f"location alpha {location.alpha:g}, weight {location.weight:g}"]
        if color is not None:
            parts.append(f"colour of {color.num_clusters} clusters, alpha {color.alpha:g}, weight {color.weight:g}")
        return {"crf": "TextonBoost's edges, places and colours", "crf_parameters": "; ".join(parts)}


def location_arrays(location: LocationPotential) -> dict[str, NDArray[Any]]:
    """Return the arrays of a location potential for a model file."""
    return {PREFIX + key: value for key, value in location.state_dict().items()}


def read_location(arrays: Mapping[str, NDArray[Any]]) -> LocationPotential | None:
    """Return the location potential among a model file's arrays; None where it holds none."""
    state = {key.removeprefix(PREFIX): value for key, value in arrays.items() if key.startswith(PREFIX)}
    return LocationPotential.from_state(state) if state else None


def texton_refiner(run: str | Path | None) -> TextonRefiner:
    """Return the CRF with the places that a run has learnt.

    Raises:
        RequestError: if there is no run, or it has learnt none.
    """
    tensors = {} if run is None else read_tensors(model_file(Path(run)))[0]
    location = read_location({key: value.numpy() for key, value in tensors.items() if key.startswith(PREFIX)})
    if location is None:
        raise RequestError(
            f"--crf texton: {'there is no run' if run is None else run} that has learnt what is where; accepted: runs "
            "of textonboost. Give another CRF, such as grid8."
        )
    return TextonRefiner(crf=TextonCRF(location=location))
