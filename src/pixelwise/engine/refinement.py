"""Refining a prediction's probabilities with its image, where they lie: the last step after all views are joined."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.crf.refiner import DenseRefiner, Refiner, labels_of
from pixelwise.crf.torch_dense import dense_crf_torch
from pixelwise.data.images import AnyArray
from pixelwise.data.pictures import to_display


def refined(refiner: Refiner, image: AnyArray, probabilities: Tensor) -> tuple[AnyArray, Tensor]:
    """Refine the probabilities of an image.

    Args:
        refiner: what refines them. The dense CRF works on the GPU where the probabilities lie on one.
        image: stored values (H, W, C). 8-bit colour is seen as it is; other images as a viewer shows them, see
            `to_display`: grey repeated, deep values stretched, further channels left out.
        probabilities: float32 (K, H, W).

    Returns:
        Labels, uint8 or uint16 (H, W), and probabilities, float32 (K, H, W) on the same device.
    """
    picture: NDArray[np.uint8] = to_display(image)
    if on_gpu(probabilities) and isinstance(refiner, DenseRefiner):
        beliefs = dense_crf_torch(torch.from_numpy(picture).to(probabilities.device), probabilities, refiner.parameters)
        return labels_of(beliefs.cpu().numpy()), beliefs
    result = refiner.refine(picture, probabilities.cpu().numpy())
    return result.labels, torch.from_numpy(result.probabilities).to(probabilities.device)


def on_gpu(probabilities: Tensor) -> bool:
    """Say whether probabilities lie where `dense_crf_torch` is faster than the compiled loops."""
    return probabilities.is_cuda
