"""From an image of any size to the probabilities of its classes: one central crop, or ten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelwise.data.images import AnyArray, read_image
from pixelwise.data.resized_crop import crops_of, shorter_side
from pixelwise.engine.model_file import ModelCard, Option, load_model, model_file
from pixelwise.engine.predict import checked_image, default_device
from pixelwise.errors import RequestError
from pixelwise.models import model_info

BATCH = 16  # crops that the network sees at once
TOP = 5


@dataclass(frozen=True, kw_only=True)
class ClassPrediction:
    """The result for one image.

    Attributes:
        classes: names in index order.
        probabilities: float32 (K,), sum 1.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]

    @property
    def label(self) -> str:
        """The likeliest class; of equally likely ones the first."""
        return self.classes[int(self.probabilities.argmax())]

    def top(self, k: int = TOP) -> list[tuple[str, float]]:
        """Return the k likeliest classes with their probabilities; equally likely ones in index order."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A trained image classifier, ready for images of any size.

    Attributes:
        model: in evaluation mode.
        card: what is known of it.
    """

    model: nn.Module
    card: ModelCard

    @property
    def crop(self) -> int:
        """Side of the square that the network sees."""
        assert self.card.crop is not None
        return self.card.crop[0]

    def predict(self, image: AnyArray | Path | str, *, crops: int = 1) -> ClassPrediction:
        """Classify an image.

        Args:
            image: a path, or an array (H, W) or (H, W, C) with the values of the training images' type.
            crops: 1 (the centre) or 10 (corners and centre and their mirror images), whose probabilities are averaged.

        Raises:
            RequestError: if the image cannot be read, its channels are not the model's, or for another number of crops.
        """
        array = read_image(Path(image)) if isinstance(image, str | Path) else np.asarray(image)
        if array.ndim == 2:
            array = array[:, :, None]
        name = str(image) if isinstance(image, str | Path) else "the image"
        (probabilities,) = self.probabilities([checked_image(array, self.card, name)], crops=crops)
        return ClassPrediction(classes=self.card.classes, probabilities=probabilities)

    @torch.inference_mode()
    def probabilities(self, images: Sequence[AnyArray], *, crops: int = 1) -> NDArray[np.float32]:
        """Return class probabilities, float32 (N, K), of images (H, W, C) of any sizes: the mean over the crops."""
        cut = [self._windows(image, crops) for image in images]  # (crops, C, crop, crop) each
        device = next(self.model.parameters()).device
        chunks = torch.split(torch.cat(cut), BATCH)
        logits = torch.cat([self._logits(chunk.to(device)) for chunk in chunks])  # (N * crops, K)
        means = logits.float().softmax(dim=1).reshape(len(images), crops, -1).mean(dim=1)  # (N, K)
        return np.asarray(means.cpu().numpy(), dtype=np.float32)

    def _windows(self, image: AnyArray, crops: int) -> Tensor:
        """Return the normalised crops of an image, float32 (crops, C, crop, crop)."""
        own = self.card.normalisation.for_image(image)
        windows = own.standardise(own.unit(crops_of(image, self.crop, crops)))
        return torch.from_numpy(np.ascontiguousarray(windows)).permute(0, 3, 1, 2)

    def _logits(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.model(batch.contiguous(memory_format=torch.channels_last)).logits
        return logits

    def protocol(self, crops: int) -> str:
        """Say in words what the network sees of an image."""
        side, shorter = self.crop, shorter_side(self.crop)
        where = "the centre" if crops == 1 else "four corners, centre and their mirror images, mean of probabilities"
        return f"{crops} of {side} x {side} ({where}) of the image resized to a shorter side of {shorter}"


def load_classifier(
    run: Path | str, *, device: str | None = None, options: Mapping[str, Option] | None = None
) -> Classifier:
    """Load the best model of a run folder, or a model file; for options see `load_model`.

    Raises:
        RequestError: if there is none, or it is no image classifier.
    """
    model, card = load_model(model_file(Path(run)), device=device or default_device(), options=options)
    if model_info(card.model).task != "classification":
        raise RequestError(
            f"{run} holds {card.model}, which is no image classifier; accepted here: classifiers, such as resnet50. In "
            "Python, pixelwise.load takes the others."
        )
    return Classifier(model=model, card=with_crop(card))


def with_crop(card: ModelCard) -> ModelCard:
    """Return a card that knows its crop: the published input size, where the file does not say it."""
    if card.crop is not None:
        return card
    return card.model_copy(update={"crop": model_info(card.model).input_size})
