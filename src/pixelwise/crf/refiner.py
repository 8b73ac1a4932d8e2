"""What refines a network's probabilities with the image, by name or by a file of parameters.

`--crf NAME` of the commands and `crf=` in Python end here. A refiner sees the picture and the joined probabilities, and
returns labels and probabilities. The dense CRF takes both from its beliefs; the CRF of neighbours finds labels only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf.dense import PRESETS, CRFParameters, refine
from pixelwise.crf.grid import GRIDS, GridCRF
from pixelwise.errors import RequestError, closest

TUNED = "tuned"  # the name of what was tuned for a run
TUNED_FILE = "crf.json"  # where it lies in the run folder
_NAMES = tuple(field.name for field in fields(CRFParameters))


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What became of an image's probabilities.

    Attributes:
        labels: class ids, uint8 or, from 257 classes on, uint16 (H, W).
        probabilities: float32 (K, H, W).
    """

    labels: NDArray[np.uint8] | NDArray[np.uint16]
    probabilities: NDArray[np.float32]


class Refiner(Protocol):
    """Refines probabilities with the image that they belong to."""

    def refine(self, image: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Refined:
        """Refine probabilities, float32 (K, H, W), with the picture of the image, uint8 (H, W, 3)."""
        ...

    def protocol(self) -> dict[str, str]:
        """Return what decides the result, for the protocol beside a score."""
        ...


@dataclass(frozen=True, kw_only=True)
class DenseRefiner:
    """The fully connected CRF.

    Attributes:
        parameters: of kernels and inference.
        name: what they are called.
    """

    parameters: CRFParameters
    name: str

    def refine(self, image: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Refined:
        """See `Refiner`; labels are those of the largest belief, the first one of equals.

        Raises:
            RequestError: as `dense_crf`.
        """
        beliefs = refine(image, probabilities, self.parameters)
        return Refined(labels=labels_of(beliefs), probabilities=beliefs)

    def protocol(self) -> dict[str, str]:
        """See `Refiner`."""
        return {"crf": f"dense, {self.name}", "crf_parameters": parameters_text(self.parameters)}


@dataclass(frozen=True, kw_only=True)
class GridRefiner:
    """The CRF of 4 or 8 neighbours.

    Attributes:
        crf: what labels cost.
        name: what it is called.
    """

    crf: GridCRF
    name: str

    def refine(self, image: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Refined:
        """See `Refiner`; labels are those of least energy. They have no probabilities: the given ones are handed on.

        Raises:
            RequestError: as `dense_crf`.
        """
        labels = self.crf.map_labels(image, probabilities)
        narrow = labels.astype(np.uint8) if len(probabilities) <= 256 else labels.astype(np.uint16)
        return Refined(labels=narrow, probabilities=probabilities)

    def protocol(self) -> dict[str, str]:
        """See `Refiner`."""
        return {"crf": f"grid, {self.name}", "crf_parameters": parameters_text(self.crf)}


def labels_of(probabilities: NDArray[np.floating]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the likeliest class of each pixel of (K, H, W), uint8 (H, W), or uint16 from 257 classes on."""
    labels: NDArray[np.intp] = probabilities.argmax(axis=0)
    return labels.astype(np.uint8) if len(probabilities) <= 256 else labels.astype(np.uint16)


def parameters_text(parameters: CRFParameters | GridCRF) -> str:
    """Show parameters in one line.

    >>> parameters_text(CRFParameters(spatial_weight=0.5))[:38]
    'spatial_sigma 3, spatial_weight 0.5, b'
    """
    return ", ".join(
        f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}"
        for name, value in asdict(parameters).items()
    )


def refiner_of(given: str | Path, *, run: str | Path | None = None) -> Refiner:
    """Return the refiner of a name or of a file.

    Args:
        given: a preset of the dense CRF; "grid4" or "grid8", the CRF of neighbours; "tuned", what `tune-crf` wrote into
            the run folder; or a file that it wrote, or a folder that holds one under the name crf.json.
        run: run folder, or a model file in it, for "tuned".

    Raises:
        RequestError: if there is no such name and no such file, nothing was tuned, or the file is none of parameters.
    """
    name = str(given)
    if name in PRESETS:
        return DenseRefiner(parameters=PRESETS[name], name=f"preset {name}")
    if name in GRIDS:
        return GridRefiner(crf=GRIDS[name], name=f"preset {name}")
    path = Path(given)
    if name == TUNED or path.is_dir():
        return _tuned(run if name == TUNED else path)
    if not path.exists():
        names = [known for known in refiner_names() if known != TUNED or run is not None]
        raise RequestError(
            f"unknown CRF {name!r}; closest: {closest(name, names)}. Accepted: {', '.join(names)}, or a file that "
            "`pixelwise tune-crf` wrote. Give one."
        )
    return DenseRefiner(parameters=read_parameters(path), name=f"parameters of {path}")


def refiner_names() -> tuple[str, ...]:
    """Return the names that `refiner_of` knows."""
    return (*PRESETS, *GRIDS, TUNED)


def _presets() -> str:
    return ", ".join((*PRESETS, *GRIDS))


def _tuned(run: str | Path | None) -> Refiner:
    """Return what was tuned for a run."""
    if run is None:
        raise RequestError(
            f"{TUNED!r} is what was tuned for a run, and there is no run here; accepted: {_presets()}, or a "
            f"file that `pixelwise tune-crf` wrote. Give RUN/{TUNED_FILE}."
        )
    path = (Path(run) if Path(run).is_dir() else Path(run).parent) / TUNED_FILE
    if not path.exists():
        raise RequestError(
            f"{run} has no {TUNED_FILE}, so nothing was tuned for it; accepted: {_presets()}, or {TUNED!r} "
            f"after `pixelwise tune-crf {run} DATA`. Run that, or give a preset."
        )
    return DenseRefiner(parameters=read_parameters(path), name=f"{TUNED} ({path})")


def read_parameters(path: Path) -> CRFParameters:
    """Read the parameters of a file that `tune-crf` wrote.

    Raises:
        RequestError: if it is no such file, or holds impossible ones.
    """
    accepted = f"accepted: a JSON file with parameters ({', '.join(_NAMES)}), as `pixelwise tune-crf` writes it"
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path}: cannot be read as JSON ({error}); {accepted}. Give such a file.") from error
    given: Any = value.get("parameters") if isinstance(value, Mapping) else None
    if not isinstance(given, Mapping):
        raise RequestError(f"{path}: holds no parameters; {accepted}. Give such a file.")
    unknown, missing = sorted(given.keys() - set(_NAMES)), [name for name in _NAMES if name not in given]
    if unknown or missing:
        wrong = f"has the unknown parameter {unknown[0]!r}" if unknown else f"lacks the parameter {missing[0]}"
        raise RequestError(f"{path}: {wrong}; {accepted}. Correct it.")
    try:
        return CRFParameters(**given)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error


__all__ = [
    "TUNED",
    "TUNED_FILE",
    "DenseRefiner",
    "GridRefiner",
    "Refined",
    "Refiner",
    "labels_of",
    "parameters_text",
    "read_parameters",
    "refiner_names",
    "refiner_of",
]
