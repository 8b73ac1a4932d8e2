"""How far training samples are changed: the configuration of `augment`, and settings of it that are often wanted."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from pixelwise.data.warp import Interpolation

_LIMITS: dict[str, tuple[float, float, str]] = {
    "scale": (0.1, 10.0, ""),
    "scales": (0.1, 10.0, ""),
    "aspect": (0.25, 4.0, ""),
    "rotation": (0.0, 180.0, " degrees"),
    "elastic_sigma": (0.0, 100.0, " px"),
    "elastic_grid": (2, 32, " nodes a side"),
    "noise": (0.0, 0.5, " of the full range"),
    "noise_probability": (0.0, 1.0, ""),
    "blur": (0.0, 10.0, " px"),
    "blur_probability": (0.0, 1.0, ""),
    "brightness": (0.0, 0.9, ""),
    "contrast": (0.0, 0.9, ""),
}


class AugmentConfig(BaseModel, frozen=True, extra="forbid"):
    """How far training samples are changed; the defaults are mild and suit photographs and microscopy.

    Every value is the largest change; the change of one sample is drawn evenly between none and that
    (scale and aspect: evenly in their logarithm, so that 1/2 and 2 are equally likely; see `scale_draw`).

    >>> AugmentConfig(rotation=45).rotation
    45.0
    """

    scale: tuple[float, float] = Field(
        default=(0.75, 1.33), description="Least and largest magnification; 2 shows an object twice as long."
    )
    scales: tuple[float, ...] = Field(default=(), description="Magnifications of which one is drawn, besides scale.")
    scale_draw: Literal["logarithmic", "even"] = Field(
        default="logarithmic",
        description="Whether scale is drawn evenly in its logarithm or evenly: from 1/2 to 2 the mean is 1.08 or 1.25.",
    )
    aspect: tuple[float, float] = Field(
        default=(0.9, 1.1), description="Least and largest stretch of the width relative to the height."
    )
    rotation: float = Field(default=10.0, description="Largest rotation to either side, degrees.")
    random_crop: bool = Field(default=True, description="Crop at a random place; false takes the centre of the image.")
    horizontal_flip: bool = Field(default=True, description="Swap left and right in half of the samples.")
    vertical_flip: bool = Field(default=False, description="Swap top and bottom in half of the samples.")
    quarter_turns: bool = Field(
        default=False,
        description="Turn samples by 0, 90, 180 or 270 degrees, besides rotation; with a flip all eight orientations.",
    )
    elastic_sigma: float = Field(
        default=0.0,
        description="Standard deviation of each component of the displacement at a grid node, pixels of the "
        "image; 0 turns the elastic deformation off (U-Net: 10).",
    )
    elastic_grid: int = Field(
        default=3, description="Nodes a side of the elastic grid, which spans the crop (U-Net: 3)."
    )
    elastic_fades: bool = Field(
        default=False, description="Displace nothing at the border of the crop (FusionNet, with 12 nodes a side)."
    )
    interpolation: Interpolation = Field(
        default="linear",
        description="How images are read between pixels. Cubic keeps fine texture a little sharper and takes "
        "three to six times as long, after which blur and noise hide most of the gain. Masks are nearest.",
    )
    blur: float = Field(default=1.0, description="Largest standard deviation of the Gaussian blur, pixels.")
    blur_probability: float = Field(default=0.2, description="Share of samples that are blurred.")
    brightness: float = Field(default=0.2, description="Largest relative change of all values, 0.2 = 20 %.")
    contrast: float = Field(
        default=0.2, description="Largest relative change of the distance of the values from their mean."
    )
    noise: float = Field(
        default=0.02,
        description="Largest standard deviation of Gaussian noise, fraction of the full range: 255 for "
        "8-bit, 1 for float32, the image's own maximum for 16-bit images, which seldom use all bits.",
    )
    noise_probability: float = Field(default=0.2, description="Share of samples that get noise.")

    @field_validator(*_LIMITS)
    @classmethod
    def _check_limits(cls, value: float | tuple[float, ...], info: ValidationInfo) -> float | tuple[float, ...]:
        low, high, unit = _LIMITS[str(info.field_name)]
        for number in value if isinstance(value, tuple) else (value,):
            if not low <= number <= high:
                raise ValueError(
                    f"{info.field_name}={number:g}: accepted are {low:g} to {high:g}{unit}; "
                    f"give a value inside that range"
                )
        if isinstance(value, tuple) and len(value) > 1 and value[0] > value[1]:
            raise ValueError(
                f"{info.field_name}=({value[0]:g}, {value[1]:g}): the least value comes first; "
                f"give ({value[1]:g}, {value[0]:g})"
            )
        return value

    @model_validator(mode="after")
    def _has_inner_nodes(self) -> Self:
        if self.elastic_fades and self.elastic_grid < 3:
            raise ValueError(
                f"elastic_fades with elastic_grid={self.elastic_grid}, whose nodes all lie on the border: accepted are "
                f"grids from 3; give elastic_grid"
            )
        return self


def no_augmentation() -> AugmentConfig:
    """Return the setting that changes nothing: the warp copies the centre of the image."""
    return AugmentConfig(
        scale=(1.0, 1.0),
        aspect=(1.0, 1.0),
        rotation=0.0,
        random_crop=False,
        horizontal_flip=False,
        blur=0.0,
        brightness=0.0,
        contrast=0.0,
        noise=0.0,
    )


def mild() -> AugmentConfig:
    """Return the defaults, for photographs and wherever up and down differ."""
    return AugmentConfig()


def microscopy(*, crop_side: int = 512) -> AugmentConfig:
    """Return strong changes for images without a preferred direction.

    Args:
        crop_side: Shorter side of the crop, pixels. U-Net's 10 px belong to tiles of several hundred pixels;
            below 160 px the displacement shrinks with the crop, since it would fold the image otherwise.
    """
    return AugmentConfig(
        rotation=180.0,
        vertical_flip=True,
        elastic_sigma=min(10.0, crop_side / 16),
    )
