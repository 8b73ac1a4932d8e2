"""The fully connected CRF that sharpens a network's probabilities: P. Krähenbühl, V. Koltun, "Efficient Inference in
Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011, https://arxiv.org/abs/1210.5644.

Map from the paper to this file:

- equation 1, E(x) = sum_i -log p_i(x_i) + sum_{i<j} psi(x_i, x_j)                       -> `dense_crf`
- equation 3, appearance kernel w1 exp(-|p|^2 / 2 theta_alpha^2 - |I|^2 / 2 theta_beta^2) -> `color_features`
- equation 3, smoothness kernel w2 exp(-|p|^2 / 2 theta_gamma^2)                          -> `position_features`
- algorithm 1, mean field                                                                 -> `mean_field.py`
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf.lattice import Float
from pixelwise.crf.mean_field import Kernel, Normalization, mean_field
from pixelwise.errors import RequestError, closest

LEAST = 1e-5  # probabilities below are raised to it, as in the usual wrappers, so that no label is impossible
TOLERANCE = 1e-2  # by which probabilities may miss a sum of 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class CRFParameters:
    """The parameters of the two kernels and of the inference.

    Attributes:
        spatial_sigma: theta_gamma of the smoothness kernel, in pixels.
        spatial_weight: its weight w2; 0 leaves it out.
        bilateral_spatial_sigma: theta_alpha of the appearance kernel, in pixels.
        bilateral_color_sigma: its theta_beta, in steps of colours of 0..255.
        bilateral_weight: its weight w1; 0 leaves it out.
        iterations: of mean field; 0 returns the probabilities.
        normalization: of the kernels by their own sums: "none", "before", "after" or "symmetric".
    """

    spatial_sigma: float = 3.0
    spatial_weight: float = 3.0
    bilateral_spatial_sigma: float = 80.0
    bilateral_color_sigma: float = 13.0
    bilateral_weight: float = 10.0
    iterations: int = 10
    normalization: Normalization = "symmetric"

    def __post_init__(self) -> None:
        for name in ("spatial_sigma", "bilateral_spatial_sigma", "bilateral_color_sigma"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < math.inf:
                raise RequestError(f"{name} is {value!r}; accepted: a number above 0. Give for example 3.")
        for name in ("spatial_weight", "bilateral_weight"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < math.inf:
                raise RequestError(
                    f"{name} is {value!r}; accepted: 0, which leaves the kernel out, and above. Give for example 3."
                )
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 0:
            raise RequestError(
                f"iterations is {self.iterations!r}; accepted: whole numbers from 0. Give for example 10."
            )
        if self.normalization not in get_args(Normalization):
            raise RequestError(
                f"normalization is {self.normalization!r}; accepted: {', '.join(get_args(Normalization))}. Give one."
            )


# Published values: the usual wrapper's, DeepLab v2's two releases, DeconvNet's, and CRF-RNN's start. The networks used
# the authors' library of 2011, which normalises after filtering; for DeconvNet, whose wrapper is MATLAB's, that is
# inferred.
PRESETS = MappingProxyType(
    {
        "pydensecrf_default": CRFParameters(),
        "deeplab_vgg16": CRFParameters(
            bilateral_weight=4.0,
            bilateral_spatial_sigma=65.0,
            bilateral_color_sigma=3.0,
            spatial_weight=2.0,
            spatial_sigma=2.0,
            normalization="after",
        ),
        "deeplab_resnet101": CRFParameters(
            bilateral_weight=4.0,
            bilateral_spatial_sigma=67.0,
            bilateral_color_sigma=3.0,
            spatial_weight=3.0,
            spatial_sigma=1.0,
            normalization="after",
        ),
        "deconvnet": CRFParameters(
            bilateral_weight=5.0,
            bilateral_spatial_sigma=20.0,
            bilateral_color_sigma=3.0,
            spatial_weight=3.0,
            spatial_sigma=3.0,
            normalization="after",
        ),
        "crfrnn": CRFParameters(
            bilateral_weight=5.0,
            bilateral_spatial_sigma=160.0,
            bilateral_color_sigma=3.0,
            spatial_weight=3.0,
            spatial_sigma=3.0,
            normalization="after",
        ),
    }
)


def crf_preset(name: str) -> CRFParameters:
    """Return the parameters of a preset; an unknown name is answered with all of them."""
    if name not in PRESETS:
        raise RequestError(
            f"unknown preset {name!r}; closest: {closest(name, PRESETS)}. Accepted: {', '.join(PRESETS)}. Give one."
        )
    return PRESETS[name]


def dense_crf(
    image: NDArray[Any],
    probabilities: NDArray[Any],
    *,
    preset: str | None = None,
    spatial_sigma: float | None = None,
    spatial_weight: float | None = None,
    bilateral_spatial_sigma: float | None = None,
    bilateral_color_sigma: float | None = None,
    bilateral_weight: float | None = None,
    iterations: int | None = None,
    normalization: Normalization | None = None,
) -> NDArray[np.float32]:
    """Refine probabilities so that pixels near each other, and the more so of similar colour, agree.

    Args:
        image: uint8 (H, W, 3).
        probabilities: float (K, H, W), summing to 1 over the labels within 1e-2, and then normalised; values below
            1e-5 are raised to it.
        preset: name of `PRESETS`; None is "pydensecrf_default". What is given beside it beats it; `CRFParameters`
            explains each.

    Returns:
        Beliefs, float32 (K, H, W), summing to 1.

    Raises:
        RequestError: if shapes or types are others, values are not finite, or a parameter is impossible.

    >>> image = np.zeros((4, 6, 3), np.uint8)
    >>> dense_crf(image, np.full((2, 4, 6), 0.5)).shape
    (2, 4, 6)
    """
    given: dict[str, Any] = {
        "spatial_sigma": spatial_sigma,
        "spatial_weight": spatial_weight,
        "bilateral_spatial_sigma": bilateral_spatial_sigma,
        "bilateral_color_sigma": bilateral_color_sigma,
        "bilateral_weight": bilateral_weight,
        "iterations": iterations,
        "normalization": normalization,
    }
    chosen = crf_preset("pydensecrf_default" if preset is None else preset)
    parameters = replace(chosen, **{key: value for key, value in given.items() if value is not None})
    return refine(image, probabilities, parameters)


def refine(
    image: NDArray[Any], probabilities: NDArray[Any], parameters: CRFParameters, *, num_threads: int | None = None
) -> NDArray[np.float32]:
    """Refine probabilities by given parameters; see `dense_crf`."""
    checked = check_probabilities(image, probabilities)
    labels, height, width = checked.shape
    return mean_field(
        checked.reshape(labels, -1),
        kernels_of(image, parameters),
        iterations=parameters.iterations,
        num_threads=num_threads,
    ).reshape(labels, height, width)


def kernels_of(image: NDArray[np.uint8], parameters: CRFParameters) -> list[Kernel]:
    """Return the kernels of an image that have a weight."""
    height, width = image.shape[:2]
    kernels = []
    if parameters.spatial_weight:
        features = position_features(height, width, parameters.spatial_sigma)
        kernels.append((features, parameters.spatial_weight))
    if parameters.bilateral_weight:
        features = color_features(image, parameters.bilateral_spatial_sigma, parameters.bilateral_color_sigma)
        kernels.append((features, parameters.bilateral_weight))
    return [
        Kernel(features=features, compatibility=weight, normalization=parameters.normalization)
        for features, weight in kernels
    ]


def position_features(height: int, width: int, sigma: float) -> Float:
    """Return (x, y) / sigma of each pixel in reading order, float32 (H * W, 2)."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    places: Float = np.stack([columns, rows], axis=-1).reshape(-1, 2)
    places /= np.float32(sigma)
    return places


def color_features(image: NDArray[np.uint8], spatial_sigma: float, color_sigma: float) -> Float:
    """Return position and colour (x, y, r, g, b) of each pixel of (H, W, 3) over their sigmas, float32 (H * W, 5)."""
    places = position_features(image.shape[0], image.shape[1], spatial_sigma)
    colors = image.reshape(-1, 3).astype(np.float32) / np.float32(color_sigma)
    return np.concatenate([places, colors], axis=1)


def check_probabilities(image: NDArray[Any], probabilities: NDArray[Any]) -> Float:
    """Return probabilities as float32 (K, H, W), contiguous, from 1e-5 and summing to 1; refuse what is none."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise RequestError(
            f"image has shape {image.shape} and type {image.dtype}; accepted: uint8 (H, W, 3). Bring it to bytes of "
            "0..255 in red, green, blue; repeat a grey image three times."
        )
    height, width = image.shape[:2]
    if probabilities.ndim != 3 or probabilities.shape[1:] != (height, width):
        last = probabilities.ndim == 3 and probabilities.shape[:2] == (height, width)
        advice = "Move the last axis to the front." if last else "Give the probabilities of this image, at its size."
        raise RequestError(
            f"probabilities have shape {probabilities.shape}, the image is {height} x {width}; accepted: (K, {height}, "
            f"{width}). {advice}"
        )
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise RequestError(
            f"probabilities have type {probabilities.dtype}; accepted: floating point. Divide bytes by 255."
        )
    checked: Float = np.array(probabilities, dtype=np.float32, order="C")
    total = checked.sum(axis=0)
    worst = float(np.abs(total - 1).max()) if np.isfinite(total).all() else math.nan
    if not worst <= TOLERANCE or checked.min() < 0:
        found = "NaN or infinite values" if math.isnan(worst) else f"sums from {total.min():.4g} to {total.max():.4g}"
        found = f"values down to {checked.min():.4g}" if checked.min() < 0 else found
        raise RequestError(
            f"probabilities have {found} over the labels; accepted: values from 0 that sum to 1 within {TOLERANCE}. "
            "Take the softmax of logits first."
        )
    checked /= total
    np.maximum(checked, np.float32(LEAST), out=checked)
    return checked


__all__ = [
    "PRESETS",
    "CRFParameters",
    "check_probabilities",
    "color_features",
    "crf_preset",
    "dense_crf",
    "kernels_of",
    "position_features",
    "refine",
]
