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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from pixelwise.crf.inputs import LEAST, TOLERANCE, as_array, check_probabilities
from pixelwise.crf.lattice import Float, each
from pixelwise.crf.mean_field import Kernel, MeanField, Normalization, check_out, usable_cores
from pixelwise.errors import RequestError, closest


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
    image: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    preset: str | None = None,
    spatial_sigma: float | None = None,
    spatial_weight: float | None = None,
    bilateral_spatial_sigma: float | None = None,
    bilateral_color_sigma: float | None = None,
    bilateral_weight: float | None = None,
    iterations: int | None = None,
    normalization: Normalization | None = None,
    tolerance: float | None = None,
) -> NDArray[np.float32]:
    """Refine probabilities so that pixels near each other, and the more so of similar colour, agree.

    Args:
        image: uint8 (H, W, 3), or (B, H, W, 3): images of a batch are refined alone, as many at a time as there are
            cores. Tensors in the CPU's memory will do, here and below.
        probabilities: float (K, H, W), or (B, K, H, W), summing to 1 over the labels within 1e-2, and then normalised;
            values below 1e-5 are raised to it.
        preset: name of `PRESETS`; None is "pydensecrf_default". What is given beside it beats it; `CRFParameters`
            explains each.
        tolerance: to stop before all iterations, as soon as the beliefs of one diverge by less from those before, mean
            KL over the pixels in nats (see `MeanField.infer`); None never does.

    Returns:
        Beliefs, float32 (K, H, W) or (B, K, H, W), summing to 1.

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
    return refine(as_array(image, "image"), as_array(probabilities, "probabilities"), parameters, tolerance=tolerance)


def refine(
    image: NDArray[Any],
    probabilities: NDArray[Any],
    parameters: CRFParameters,
    *,
    tolerance: float | None = None,
    num_threads: int | None = None,
    out: Float | None = None,
) -> NDArray[np.float32]:
    """Refine probabilities by given parameters; see `dense_crf`.

    Args:
        image: one image or several.
        probabilities: of it or them.
        parameters: of the kernels and the inference.
        tolerance: to stop early, as `dense_crf`'s.
        num_threads: None takes all cores that the process may use. Threads share an image, or the images of a batch.
        out: float32 array of the probabilities' shape for the result; it may be the probabilities themselves.
    """
    if image.ndim == 4 or probabilities.ndim == 4:
        return _refine_batch(image, probabilities, parameters, tolerance, num_threads, out)
    checked = check_probabilities(image, probabilities, num_threads=num_threads, out=out)
    labels, height, width = checked.shape
    p = checked.reshape(labels, -1)
    kernels = kernels_of(image, parameters)
    weights = [kernel.compatibility for kernel in kernels]
    field = MeanField(
        [kernel.features for kernel in kernels],
        parameters.normalization,
        num_points=height * width,
        num_threads=num_threads,
    )
    del kernels  # a large image's features take room that the iterations need
    beliefs = field.infer(
        p,
        weights,
        iterations=parameters.iterations,
        tolerance=tolerance,
        num_threads=num_threads,
        out=p if tolerance is None else None,
    )
    if beliefs is not p:
        p[...] = beliefs
    return checked


def _refine_batch(
    images: NDArray[Any],
    probabilities: NDArray[Any],
    parameters: CRFParameters,
    tolerance: float | None,
    num_threads: int | None,
    out: Float | None,
) -> NDArray[np.float32]:
    """Refine several images, one in each thread at a time."""
    if images.ndim != 4 or probabilities.ndim != 4 or len(images) != len(probabilities) or not len(images):
        raise RequestError(
            f"image has shape {images.shape}, probabilities {probabilities.shape}; accepted: (H, W, 3) with (K, H, W), "
            "or (B, H, W, 3) with (B, K, H, W) of as many images. Give both for one image, or both for the same B."
        )
    check_out(out, probabilities.shape)
    beliefs: Float = np.empty(probabilities.shape, dtype=np.float32) if out is None else out
    threads = min(num_threads or usable_cores(), len(images))

    def work(index: int) -> None:
        try:
            how = {"num_threads": num_threads if threads == 1 else 1, "out": beliefs[index]}
            refine(images[index], probabilities[index], parameters, tolerance=tolerance, **how)
        except RequestError as error:
            raise RequestError(f"image {index} of the batch: {error}") from error

    if threads == 1:
        each(None, work, range(len(images)))
    else:
        with ThreadPoolExecutor(threads) as pool:
            each(pool, work, range(len(images)))
    return beliefs


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
    places: Float = np.empty((height, width, 2), dtype=np.float32)
    _fill_places(places, sigma)
    return places.reshape(-1, 2)


def color_features(image: NDArray[np.uint8], spatial_sigma: float, color_sigma: float) -> Float:
    """Return position and colour (x, y, r, g, b) of each pixel of (H, W, 3) over their sigmas, float32 (H * W, 5)."""
    features: Float = np.empty((*image.shape[:2], 5), dtype=np.float32)
    _fill_places(features, spatial_sigma)
    np.divide(image, np.float32(color_sigma), out=features[..., 2:])
    return features.reshape(-1, 5)


def _fill_places(features: Float, sigma: float) -> None:
    """Write (x, y) / sigma to the first two features of each pixel, (H, W, d)."""
    height, width, _ = features.shape
    features[..., 0] = np.arange(width, dtype=np.float32) / np.float32(sigma)
    features[..., 1] = (np.arange(height, dtype=np.float32) / np.float32(sigma))[:, None]


__all__ = [
    "LEAST",
    "PRESETS",
    "TOLERANCE",
    "CRFParameters",
    "check_probabilities",
    "color_features",
    "crf_preset",
    "dense_crf",
    "kernels_of",
    "position_features",
    "refine",
]
