"""The fully connected CRF of `dense.py` for tensors, on the device where they lie, and for several images at once.

P. Krähenbühl, V. Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011,
https://arxiv.org/abs/1210.5644. On the CPU `dense.refine` is the faster one; both give the same beliefs but for
rounding. Setup takes the most memory, about 0.7 KB a pixel: 1.3 GB at 2048 x 1024 with 19 labels, measured on the CPU.
None of this has been run on a GPU yet; `benchmarks/dense_crf_gpu.py` is ready for one.

Axes: B images, K labels, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixelwise.crf.dense import LEAST, TOLERANCE, CRFParameters, check_probabilities
from pixelwise.crf.torch_mean_field import TorchMeanField
from pixelwise.errors import RequestError


@torch.no_grad()
def dense_crf_torch(image: Tensor, probabilities: Tensor, parameters: CRFParameters) -> Tensor:
    """Refine probabilities so that pixels near each other, and the more so of similar colour, agree.

    Args:
        image: uint8 (H, W, 3), or (B, H, W, 3).
        probabilities: float (K, H, W) or (B, K, H, W) on the same device, summing to 1 over the labels within 1e-2, and
            then normalised; values below 1e-5 are raised to it.
        parameters: of both kernels and of the inference, for example one of `dense.PRESETS`.

    Returns:
        Beliefs on the same device, float32, of the probabilities' shape, summing to 1 over the labels; no gradients.

    Raises:
        RequestError: if shapes, types or devices are others, or values are not probabilities.

    >>> image = torch.zeros(4, 6, 3, dtype=torch.uint8)
    >>> dense_crf_torch(image, torch.full((2, 4, 6), 0.5), CRFParameters()).shape
    torch.Size([2, 4, 6])
    """
    _check(image, probabilities)
    checked = _normalised(image, probabilities)
    features, weights = [], []
    if parameters.spatial_weight:
        features.append(pixel_features(image, parameters.spatial_sigma))
        weights.append(parameters.spatial_weight)
    if parameters.bilateral_weight:
        sigmas = parameters.bilateral_spatial_sigma, parameters.bilateral_color_sigma
        features.append(pixel_features(image, *sigmas))
        weights.append(parameters.bilateral_weight)
    field = TorchMeanField(features, parameters.normalization)
    return field.infer(checked.flatten(-2), weights, iterations=parameters.iterations).view_as(checked)


def pixel_features(image: Tensor, spatial_sigma: float, color_sigma: float | None = None) -> Tensor:
    """Return (x, y), and with a sigma of colours (x, y, r, g, b), of each pixel in reading order, over their sigmas.

    Args:
        image: uint8 (H, W, 3) or (B, H, W, 3).
        spatial_sigma: in pixels.
        color_sigma: in steps of colours of 0..255.

    Returns:
        float32 (H W, 2 or 5), or (B, H W, 2 or 5).
    """
    height, width = image.shape[-3:-1]
    rows = torch.arange(height, dtype=torch.float32, device=image.device)
    columns = torch.arange(width, dtype=torch.float32, device=image.device)
    # Divided by a tensor: a GPU multiplies by the inverse of a plain number, which has another last digit.
    sigmas = torch.tensor([spatial_sigma, color_sigma or 1], dtype=torch.float32, device=image.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    places = torch.stack([x, y], dim=-1).flatten(0, 1) / sigmas[0]  # (H W, 2)
    places = places.expand(*image.shape[:-3], -1, -1)
    if color_sigma is None:
        return places
    colors = image.flatten(-3, -2).float() / sigmas[1]  # (B, H W, 3)
    return torch.cat([places, colors], dim=-1)


def _check(image: Tensor, probabilities: Tensor) -> None:
    """Refuse other shapes, types and devices than `dense_crf_torch` takes."""
    shape, others = tuple(image.shape), tuple(probabilities.shape)
    if len(shape) not in (3, 4) or shape[-1] != 3 or image.dtype != torch.uint8 or not image.numel():
        raise RequestError(
            f"image has shape {shape} and type {image.dtype}; accepted: uint8 (H, W, 3) or (B, H, W, 3). Bring it to "
            "bytes of 0..255 in red, green, blue, the colours last."
        )
    if len(others) != len(shape) or others[:-3] + others[-2:] != shape[:-1] or not others[-3]:
        wanted = ", ".join(map(str, (*shape[:-3], "K", *shape[-3:-1])))
        last = len(others) == len(shape) and others[:-1] == shape[:-1]
        advice = "Move the last axis before the rows." if last else "Give the probabilities of this image, at its size."
        raise RequestError(f"probabilities have shape {others}, the image {shape}; accepted: ({wanted}). {advice}")
    if not probabilities.dtype.is_floating_point:
        raise RequestError(
            f"probabilities have type {probabilities.dtype}; accepted: floating point. Divide bytes by 255."
        )
    if image.device != probabilities.device:
        raise RequestError(
            f"the image lies on {image.device}, the probabilities on {probabilities.device}; accepted: one device. "
            "Move one of them."
        )


def _normalised(image: Tensor, probabilities: Tensor) -> Tensor:
    """Return probabilities as float32, from 1e-5 and summing to 1; refuse what is none, in the words of `dense.py`."""
    given = probabilities.float()
    total = given.sum(dim=-3, keepdim=True)
    worst, least = torch.stack([(total - 1).abs().max(), given.min()]).tolist()
    if not worst <= TOLERANCE or least < 0:
        pairs = zip(image, given, strict=True) if image.ndim == 4 else [(image, given)]
        for each, maps in pairs:
            check_probabilities(each.cpu().numpy(), maps.cpu().numpy())
    return (given / total).clamp_(min=LEAST)
