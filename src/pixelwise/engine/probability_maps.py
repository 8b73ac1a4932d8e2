"""Files of class probabilities that any program wrote: read, checked, and brought to an image's size where asked."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pixelwise.crf.dense import TOLERANCE
from pixelwise.errors import RequestError

SUFFIXES = (".npy", ".npz")
KEYS = ("probabilities", "prob_u8")  # of an .npz file with several arrays
ACCEPTED = (
    "accepted: float (K, H, W) that sums to 1 over the classes, or uint8 that sums to 255, in an .npy file, or in an "
    ".npz file under the name probabilities or prob_u8"
)


def read_probabilities(
    path: Path, size: tuple[int, int], *, resize: bool
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Read the probabilities of an image.

    Args:
        path: .npy, or .npz with one array, or one of the names in `KEYS`. float (K, h, w) that sums to 1 over the
            classes within 1e-2, as `predict --probabilities` writes it, or round(255 p) as uint8; normalised here.
        size: (height, width) of the image.
        resize: enlarge a smaller map bilinearly (align_corners=False), when its shape is the image's.

    Returns:
        float32 (K, H, W), summing to 1, and the (height, width) that the file has.

    Raises:
        RequestError: if there is no such array, its axes are in another order, it has another size, or its values are
            no probabilities.
    """
    array = _load(path)
    _check_axes(path, array, size, resize=resize)
    values = _checked(path, array)
    stored = (values.shape[1], values.shape[2])
    if stored != size:
        small = torch.from_numpy(values)[None]
        values = functional.interpolate(small, size=size, mode="bilinear", align_corners=False)[0].numpy()
    values /= values.sum(axis=0)
    return values, stored


def enlarged_text(stored: tuple[int, int], size: tuple[int, int]) -> dict[str, str]:
    """Return what the protocol says where a map (height, width) was enlarged to a size; nothing where it was not."""
    if stored == size:
        return {}
    given, wanted = (f"{height} x {width}" for height, width in (stored, size))
    return {"enlarged": f"probabilities from {given} to {wanted}, bilinear, align_corners=False"}


def _load(path: Path) -> NDArray[Any]:
    """Return the array of a file, whatever it holds."""
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        raise RequestError(
            f"{path} is no file of probabilities; {ACCEPTED}. `pixelwise predict --probabilities` writes NAME.npy."
        )
    try:
        with path.open("rb") as file:
            return _array_of(path, np.load(file, allow_pickle=False))
    except RequestError:
        raise
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file; {ACCEPTED}. Check the path.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        if "allow_pickle=`" in reason:  # NumPy takes any other file for a pickle, and advises to load it unsafely
            reason = "no array of NumPy's"
        raise RequestError(f"{path}: cannot be read ({reason}); {ACCEPTED}. Write it again.") from error


def _array_of(path: Path, found: Any) -> NDArray[Any]:
    """Return the array of an .npy file, or the one of an .npz file that is meant."""
    if isinstance(found, np.ndarray):
        return found
    with found:
        names = [name for name in KEYS if name in found.files] or found.files
        if len(names) != 1:
            named = ", ".join(names[:5]) or "no array"
            raise RequestError(f"{path}: holds {named}; {ACCEPTED}. Give the probabilities that name.")
        array: NDArray[Any] = found[names[0]]
        return array


def _check_axes(path: Path, array: NDArray[Any], size: tuple[int, int], *, resize: bool) -> None:
    """Refuse an array that is no map of this image."""
    height, width = size
    wanted = f"(K, {height}, {width})"
    if array.ndim != 3 or not array.size:
        advice = "Stack 1 - p and p for two classes." if array.ndim == 2 else "Write one map for each image."
        raise RequestError(f"{path}: has shape {array.shape}; accepted: {wanted}, K classes first. {advice}")
    if array.shape[1:] == size or (resize and _is_smaller(array.shape[1:], size)):
        return
    if array.shape[:2] == size or (resize and _is_smaller(array.shape[:2], size)):
        advice = "Move the last axis to the front: numpy.moveaxis(p, -1, 0)."
    elif not resize and _is_smaller(array.shape[1:], size):
        advice = "Give --resize to enlarge it bilinearly, or write it at the image's size."
    else:
        advice = "Write the probabilities of this image at its size."
    raise RequestError(
        f"{path}: has shape {array.shape}, the image is {height} x {width} (height x width); accepted: {wanted}. "
        + advice
    )


def _is_smaller(given: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Say whether (h, w) is a smaller size of the same shape, but for a pixel that rounding may have cost."""
    (h, w), (height, width) = given, size
    near = abs(h * width / height - w) <= 1 or abs(w * height / width - h) <= 1
    return near and h <= height and w <= width


def _checked(path: Path, array: NDArray[Any]) -> NDArray[np.float32]:
    """Return probabilities as float32 (K, h, w) that sum to 1 but for rounding, or refuse what is none."""
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        raise RequestError(f"{path}: has values of type {array.dtype}; {ACCEPTED}. Write the softmax of the scores.")
    whole = array.dtype == np.uint8
    values: NDArray[np.float32] = np.array(array, np.float32, order="C") / np.float32(255 if whole else 1)
    tolerance = max(TOLERANCE, len(values) * 0.5 / 255) if whole else TOLERANCE
    total = values.sum(axis=0)
    worst = float(np.abs(total - 1).max()) if np.isfinite(total).all() else math.nan
    if worst <= tolerance and values.min() >= 0:
        return values
    found = "NaN or infinite values" if math.isnan(worst) else f"sums from {total.min():.4g} to {total.max():.4g}"
    found = f"values down to {values.min():.4g}" if values.min() < 0 else found
    raise RequestError(
        f"{path}: has {found} over the classes{' of 255ths' * whole}; accepted: values from 0 that sum to 1 within "
        f"{tolerance:.2g}. Take the softmax of the scores first."
    )
