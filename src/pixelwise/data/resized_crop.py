"""Square crops of images that have one class: random ones to train on, the centre or ten of them to score.

The published ImageNet training takes a random part of the image, of 8 % to 100 % of its area and of an aspect of 3/4
to 4/3, resizes it to 224 x 224 and mirrors half of them. Scores are taken on the central 224 x 224 pixels of the image
whose shorter side was resized to 256, or on its four corners and centre and their mirror images (ten crops).

Sources: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6 (random parts); Krizhevsky, Sutskever,
Hinton, NIPS 2012, section 4.1 (ten crops); numbers and rounding as torchvision's `RandomResizedCrop`, `Resize`,
`CenterCrop` and `FiveCrop`, with Pillow's bilinear filter, which averages where it shrinks. The mirror images are those
of the five crops, as in the paper; torchvision's `TenCrop` takes the centre of the mirrored image, which is one pixel
beside it where the margins are odd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch.utils.data import Dataset as TorchDataset

from pixelwise.data.class_folder import ClassItem
from pixelwise.data.class_scan import ClassDataset
from pixelwise.data.images import AnyArray
from pixelwise.data.loader import Sample, draw
from pixelwise.errors import RequestError

RESIZED, CROP = 256, 224  # the published sides; others keep their ratio
ATTEMPTS = 10  # random parts that are drawn before the centre is taken
NUM_CROPS = (1, 10)

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the image


class ResizedCropConfig(BaseModel):
    """How training samples are cut out of images.

    Attributes:
        area: least and largest share of the image's area.
        aspect: least and largest width over height, drawn evenly in its logarithm.
        horizontal_flip: swap left and right in half of the samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: bool = Field(default=True)

    @field_validator("area", "aspect")
    @classmethod
    def _check(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 10:
            raise ValueError(f"{list(value)}; accepted: two numbers above 0, the least first. Give such a list")
        return value

    @field_validator("area")
    @classmethod
    def _check_area(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1:
            raise ValueError(f"{list(value)}; accepted: shares of the image's area, up to 1. Give such a list")
        return value


def random_box(rng: np.random.Generator, config: ResizedCropConfig, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Draw a part of an image.

    Args:
        rng: random numbers of the sample.
        config: area and aspect of the part.
        size: (height, width) of the image.

    Returns:
        top, left, height and width, whole pixels. Where no part fits in ten attempts, as in very long images, the
        largest one in the centre whose aspect is allowed.
    """
    height, width = size
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(*config.area)
        aspect = math.exp(rng.uniform(math.log(config.aspect[0]), math.log(config.aspect[1])))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    h, w = height, width
    if width / height < config.aspect[0]:
        h = max(1, round(width / config.aspect[0]))
    elif width / height > config.aspect[1]:
        w = max(1, round(height * config.aspect[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def resized(image: AnyArray, side: tuple[int, int], box: Box | None = None) -> AnyArray:
    """Resize a part of an image (H, W, C) to (height, width), bilinear, averaging where it shrinks.

    Args:
        image: uint8, uint16 or float32; the type stays.
        side: of the result.
        box: the part; its borders may lie between pixels, and pixels beyond them count as far as the filter reaches.
            None takes the whole image.
    """
    size = (side[1], side[0])
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box)).reshape(*side, image.shape[2])
    channels = []
    for channel in range(image.shape[2]):
        picture = Image.fromarray(image[:, :, channel].astype(np.float32))
        channels.append(np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box)))
    stack = np.stack(channels, axis=2)
    return (stack if image.dtype == np.float32 else np.rint(stack)).astype(image.dtype)


def shorter_side(crop: int) -> int:
    """Return the shorter side of the resized image that a crop is scored in.

    >>> shorter_side(224), shorter_side(56)
    (256, 64)
    """
    return round(crop * RESIZED / CROP)


def resized_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Return (height, width) of an image whose shorter side is resized; the longer one is rounded down."""
    height, width = size
    if height <= width:
        return shorter, int(shorter * width / height)
    return int(shorter * height / width), shorter


def crops_of(image: AnyArray, crop: int, num_crops: int) -> AnyArray:
    """Return the crops that a score is taken on.

    Args:
        image: (H, W, C).
        crop: side of a crop in pixels; the image's shorter side is resized to 256/224 of it.
        num_crops: 1 (the centre) or 10 (four corners, centre, and the mirror images of these five).

    Returns:
        (num_crops, crop, crop, C), of the image's type. Only what the crops show is computed, so that an image may be
        of any shape.

    Raises:
        RequestError: for another number of crops.
    """
    if num_crops not in NUM_CROPS:
        raise RequestError(f"{num_crops} crops; accepted: 1 (the centre) or 10. Give one of them.")
    height, width = resized_size((image.shape[0], image.shape[1]), shorter_side(crop))
    bottom, right = height - crop, width - crop
    centre = (round(bottom / 2), round(right / 2))
    places = [centre] if num_crops == 1 else [(0, 0), (0, right), (bottom, 0), (bottom, right), centre]
    rows, columns = image.shape[0] / height, image.shape[1] / width  # pixels of the image in one of the result
    cut = np.stack(
        [
            resized(image, (crop, crop), (left * columns, top * rows, (left + crop) * columns, (top + crop) * rows))
            for top, left in places
        ]
    )
    return cut if num_crops == 1 else np.concatenate([cut, cut[:, :, ::-1]])


@dataclass(kw_only=True)
class ResizedCrops(TorchDataset[Sample]):
    """Numbered training samples of a data set of classes.

    Attributes:
        dataset: scanned images.
        items: those to train on.
        crop: side of a sample in pixels.
        augment: how samples are cut out.
        seed: of sampling and augmentation.
        replacement: draw every image independently, instead of shuffling once an epoch.
    """

    dataset: ClassDataset
    items: Sequence[ClassItem]
    crop: int
    augment: ResizedCropConfig
    seed: int
    replacement: bool = False

    def __getitem__(self, sample: int) -> Sample:
        """Return sample number `sample` of the run."""
        item, rng = draw(self.items, sample, seed=self.seed, replacement=self.replacement)
        image = self.dataset.image(item)
        top, left, height, width = random_box(rng, self.augment, (image.shape[0], image.shape[1]))
        part = image[top : top + height, left : left + width]
        window = resized(np.ascontiguousarray(part), (self.crop, self.crop))
        if self.augment.horizontal_flip and rng.random() < 0.5:
            window = window[:, ::-1]
        # An image's own mean and deviation, where these are used, are those of the whole image, as in prediction.
        own = self.dataset.card.normalisation.for_image(image)
        values = own.standardise(own.unit(window))
        return Sample(
            torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1),  # (C, crop, crop)
            torch.tensor(item.label),
            None,
            item.name,
        )

    def share_memory(self, processes: int) -> None:
        """Keep no more than one of so many processes may: each has its own copy of what is read from now on."""
        self.dataset.share_memory(processes)
