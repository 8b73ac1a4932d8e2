"""From stored values to network input, the same in training and prediction; and resizing."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pixelwise.data.images import AnyArray
from pixelwise.errors import RequestError

FLAT = 1e-6  # a standard deviation below this is rounding


class Normalisation(BaseModel):
    """How image values become network input: ((x - low) / (high - low) - mean) / std.

    Attributes:
        intensity_range: (low, high), values that become 0 and 1.
        mean: per channel, in units of the intensity range.
        std: the same for the standard deviation.
        per_image: take mean and deviation of each image instead, for data whose images differ more from each other
            than their pixels do (exposures, stains).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    intensity_range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    per_image: bool = False

    def for_image(self, image: AnyArray) -> Normalisation:
        """Return the normalisation of one image (H, W, C): this one, or with the image's own mean and deviation."""
        if not self.per_image:
            return self
        unit = self.unit(image).astype(np.float64)
        mean, std = unit.mean(axis=(0, 1)), unit.std(axis=(0, 1))
        std = np.where(std > FLAT, std, 1.0)  # a channel without contrast is only shifted
        return Normalisation(
            intensity_range=self.intensity_range,
            mean=tuple(float(value) for value in mean),
            std=tuple(float(value) for value in std),
        )

    def unit(self, image: AnyArray) -> NDArray[np.float32]:
        """Return an image (H, W, C) with the intensity range brought to 0..1."""
        low, high = self.intensity_range
        if (low, high) == (0.0, 1.0) and image.dtype == np.float32:
            return image
        unit: NDArray[np.float32] = image.astype(np.float32)
        unit -= np.float32(low)
        unit *= np.float32(1 / (high - low))
        return unit

    def standardise(self, unit: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a unit image (H, W, C) with mean 0 and deviation 1 per channel.

        Raises:
            RequestError: if C is not the number of channels the statistics were taken of.
        """
        if unit.shape[-1] != len(self.mean):
            raise RequestError(
                f"an image of shape {unit.shape} meets statistics of {len(self.mean)} channels; accepted: (H, W, "
                f"{len(self.mean)}). Give images with the channels of the training images."
            )
        standard: NDArray[np.float32] = unit - np.asarray(self.mean, dtype=np.float32)
        standard /= np.asarray(self.std, dtype=np.float32)
        return standard

    def __call__(self, image: AnyArray) -> NDArray[np.float32]:
        """Return the network input for stored values (H, W, C), float32."""
        own = self.for_image(image)
        return own.standardise(own.unit(image))


def resize_image(image: AnyArray, scale: float) -> AnyArray:
    """Resize an image (H, W, C) by a factor, averaging where it shrinks; the type stays."""
    if scale == 1:
        return image
    height, width = scaled_size((image.shape[0], image.shape[1]), scale)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    channels = [
        cv2.resize(image[:, :, start : start + 4], (width, height), interpolation=how).reshape(height, width, -1)
        for start in range(0, image.shape[2], 4)
    ]
    return channels[0] if len(channels) == 1 else np.concatenate(channels, axis=2)


def resize_labels(labels: AnyArray, scale: float) -> AnyArray:
    """Resize class or object ids (H, W) by a factor for training, by the nearest pixel."""
    if scale == 1:
        return labels
    height, width = scaled_size((labels.shape[0], labels.shape[1]), scale)
    return np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return (height, width) after scaling: rounded (halves to the even side), at least one pixel."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
