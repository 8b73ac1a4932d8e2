"""What CRFs accept: an image of bytes, and probabilities of its labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import loops
from pixelwise.crf.lattice import Float, each, shares
from pixelwise.crf.mean_field import check_out, threads_for
from pixelwise.errors import RequestError

LEAST = 1e-5  # probabilities below are raised to it, as in the usual wrappers, so that no label is impossible
TOLERANCE = 1e-2  # by which probabilities may miss a sum of 1


def as_array(given: Any, name: str) -> NDArray[Any]:
    """Return an array, or what can be read as one in the CPU's memory, such as a tensor; refuse all else."""
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, or with gradients; rows of two lengths
        raise RequestError(
            f"{name} cannot be read as an array ({error}); accepted: NumPy arrays, and tensors in the CPU's memory "
            "without gradients. Give a tensor's .detach().cpu(), or keep it where it is and take "
            "pixelwise.crf.torch_dense.dense_crf_torch."
        ) from error
    if array.dtype == object:
        raise RequestError(f"{name} is {type(given).__name__}; accepted: NumPy arrays. Give the array itself.")
    return array


def check_image(image: NDArray[Any]) -> None:
    """Refuse what is no image, uint8 (H, W, 3)."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise RequestError(
            f"image has shape {image.shape} and type {image.dtype}; accepted: uint8 (H, W, 3). Bring it to bytes of "
            "0..255 in red, green, blue; repeat a grey image three times."
        )


def check_probabilities(
    image: NDArray[Any], probabilities: NDArray[Any], *, num_threads: int | None = None, out: Float | None = None
) -> Float:
    """Return probabilities as float32 (K, H, W), contiguous, from 1e-5 and summing to 1; refuse what is none.

    Args:
        image: uint8 (H, W, 3), that they belong to.
        probabilities: float (K, H, W), from 0 and summing to 1 within 1e-2.
        num_threads: None takes all cores that the process may use.
        out: float32 (K, H, W), contiguous, for the result; it may be the probabilities themselves.
    """
    check_image(image)
    height, width = image.shape[:2]
    if probabilities.ndim != 3 or probabilities.shape[1:] != (height, width):
        last = probabilities.ndim == 3 and probabilities.shape[:2] == (height, width)
        advice = "Move the last axis to the front." if last else "Give the probabilities of this image, at its size."
        raise RequestError(
            f"probabilities have shape {probabilities.shape}, the image is {height} x {width}; accepted: (K, {height}, "
            f"{width}). {advice}"
        )
    if not len(probabilities):
        raise RequestError("probabilities have no label; accepted: one or more. Give a plane for each label.")
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise RequestError(
            f"probabilities have type {probabilities.dtype}; accepted: floating point. Divide bytes by 255."
        )
    check_out(out, probabilities.shape)
    if out is None:
        out = np.empty(probabilities.shape, dtype=np.float32)
    simple = probabilities.dtype == np.float32 and probabilities.flags.c_contiguous and probabilities.flags.writeable
    if not simple:
        out[...] = probabilities
    given = (probabilities if simple else out).reshape(len(out), -1)
    with threads_for(num_threads, height * width) as (pool, threads):
        found = each(
            pool,
            lambda part: loops.clean(given, out.reshape(len(out), -1), *part, np.float32(LEAST)),
            shares(height * width, threads),
        )
    lows, highs, smalls = np.array(found, dtype=np.float64).T
    low, high, smallest = float(lows.min()), float(highs.max()), float(smalls.min())
    worst = max(abs(low - 1), abs(high - 1))
    if not worst <= TOLERANCE or smallest < 0:
        wrong = "NaN or infinite values" if not math.isfinite(worst) else f"sums from {low:.4g} to {high:.4g}"
        wrong = f"values down to {smallest:.4g}" if smallest < 0 else wrong
        raise RequestError(
            f"probabilities have {wrong} over the labels; accepted: values from 0 that sum to 1 within {TOLERANCE}. "
            "Take the softmax of logits first."
        )
    return out
