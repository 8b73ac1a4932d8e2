"""A trained classical pipeline, ready for images of any size: images as it sees them, and its model file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.classical.location import LocationPotential
from pixelwise.classical.textonboost import TextonBoost
from pixelwise.data.images import AnyArray
from pixelwise.data.normalise import resize_image
from pixelwise.engine.classical_images import rgb8
from pixelwise.engine.model_file import ModelCard, Option, model_file, options_text, read_model_file, save_tensors
from pixelwise.engine.predict import AnySegmenter, Prediction, checked_image, labelled, opened_image
from pixelwise.engine.texton_refiner import location_arrays, read_location
from pixelwise.engine.views import Views
from pixelwise.errors import RequestError

if TYPE_CHECKING:
    from pixelwise.engine.proposals import Boxes


@dataclass(frozen=True, kw_only=True)
class ClassicalSegmenter(AnySegmenter):
    """A trained classical pipeline.

    Attributes:
        estimator: with its stumps.
        location: what is where in the training images, for TextonBoost's own CRF; None where that was not learnt.
        num_threads: None takes all cores; the result is the same.
    """

    estimator: TextonBoost
    location: LocationPotential | None = None
    num_threads: int | None = None

    def view(self, image: AnyArray | Path | str, views: Views, boxes: Boxes | None = None) -> Prediction:
        """Segment an image as `predict` does, with views that are checked already."""
        self.check(views)
        if boxes is not None:
            raise RequestError(
                f"boxes have no effect on {self.card.model}, which sees images whole; accepted: with models that see "
                "them box by box (deconvnet_vgg16, edeconvnet). Leave them out."
            )
        array, name = opened_image(image)
        channels = checked_image(array, self.card, name)
        size = (channels.shape[0], channels.shape[1])
        factors = views.factors(size, self.card.scale)
        maps = [self._probabilities(resize_image(channels, factor), size, flip=views.flip) for factor in factors]
        probabilities = sum(maps[1:], maps[0]) / len(maps)
        labels, refined = labelled(views, array, probabilities)
        return Prediction(
            image=array,
            labels=labels,
            probabilities=refined,
            unary=probabilities,
            palette=self.card.palette,
        )

    def check(self, views: Views) -> None:
        """Refuse views that have no effect on an estimator, or that join what it does not have."""
        name = self.card.model
        for given, value in (("tile", views.tile), ("window", views.window)):
            if value is not None:
                raise RequestError(
                    f"{given} {value}: {name} sees an image of any size whole, and its features count textons around "
                    f"every pixel, across any border; accepted: whole images. Leave {given} out."
                )
        if views.joining != "prob_mean":
            raise RequestError(
                f"fusion {views.joining}: {name} gives probabilities and no logits; accepted: prob_mean. Leave it out."
            )

    def _probabilities(self, image: AnyArray, size: tuple[int, int], *, flip: bool) -> Tensor:
        """Return the probabilities of a resized image (h, w, C) at a size (H, W), float32 (K, H, W)."""
        seen = rgb8(image, self.card.normalisation)
        found = self.estimator.predict_probabilities(seen, num_threads=self.num_threads)  # (K, h, w)
        if flip:
            mirrored = self.estimator.predict_probabilities(
                np.ascontiguousarray(seen[:, ::-1]), num_threads=self.num_threads
            )
            found = np.float32(0.5) * (found + mirrored[:, :, ::-1])
        return torch.from_numpy(resized(found, size))


def resized(probabilities: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return probabilities (K, h, w) at a size (H, W), bilinearly interpolated, so that they still sum to 1."""
    if probabilities.shape[1:] == size:
        return np.ascontiguousarray(probabilities)
    height, width = size
    shape = (width, height)
    return np.stack(
        [cv2.resize(np.ascontiguousarray(one), shape, interpolation=cv2.INTER_LINEAR) for one in probabilities]
    )


def as_tensors(state: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Return the arrays of an estimator's state for a safetensors file."""
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in state.items()}


def save_classical(path: Path, estimator: TextonBoost, location: LocationPotential, card: ModelCard) -> None:
    """Write an estimator, what is where, and the card into one safetensors file, whole or not at all."""
    save_tensors(path, as_tensors({**estimator.state_dict(), **location_arrays(location)}), card)


def rebuild(tensors: Mapping[str, Tensor], path: Path) -> TextonBoost:
    """Return the estimator of a file's tensors."""
    try:
        return TextonBoost.from_state({key: value.numpy() for key, value in tensors.items()})
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error


def load_classical(run: Path, *, options: Mapping[str, Option] | None = None) -> ClassicalSegmenter:
    """Load a run folder's classical pipeline, or a model file.

    Raises:
        RequestError: if there is none or it is damaged, or options are given, which are all part of what was learnt.
    """
    path = model_file(run)
    tensors, card = read_model_file(path)
    if options:
        raise RequestError(
            f"{options_text(options)}: no option of {card.model} leaves what it has learnt as it is; accepted: none. "
            "Leave it out, or train with it."
        )
    location = read_location({key: value.numpy() for key, value in tensors.items()})
    return ClassicalSegmenter(estimator=rebuild(tensors, path), location=location, card=card, source=Path(run))


def count_numbers(estimator: TextonBoost) -> int:
    """Return how many numbers an estimator holds."""
    return sum(value.size for value in estimator.state_dict().values())
