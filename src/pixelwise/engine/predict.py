"""From an image of any size to a label map of the same size: scaling, tiling, boxes, flips and back."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.data.folder import mask_png
from pixelwise.data.images import AnyArray, as_channels, read_image
from pixelwise.data.normalise import resize_image, scaled_size
from pixelwise.data.pictures import overlay, to_display
from pixelwise.engine.layer_table import layer_table, receptive_fields
from pixelwise.engine.model_file import ModelCard, build_twin, load_model
from pixelwise.engine.tiles import mirror, plan_spans
from pixelwise.errors import RequestError
from pixelwise.files import write_atomically
from pixelwise.structures import size_rule_of

if TYPE_CHECKING:
    from pixelwise.engine.instance_wise import InstanceWise

WHOLE_IMAGE_PIXELS = 1024 * 1024  # larger images are cut into tiles
TILE = 512  # kept pixels of a tile, about


@torch.inference_mode()
def predict_logits(
    model: nn.Module, image: NDArray[np.float32], *, tile: tuple[int, int] | None = None, halo: int = 0
) -> Tensor:
    """Run a model over a normalised image of any size.

    Args:
        model: a semantic model in evaluation mode.
        image: float32 (H, W, C).
        tile: input (height, width) of a window; None sees the whole image at once.
        halo: pixels at the inner borders of padded windows that are predicted but not kept.

    Returns:
        float32 (K, H, W) on the model's device.
    """
    rule = size_rule_of(model)
    rows = plan_spans(image.shape[0], rule, tile=tile and tile[0], halo=halo)
    columns = plan_spans(image.shape[1], rule, tile=tile and tile[1], halo=halo)
    first = next(model.parameters())
    result: Tensor | None = None
    for row in rows:
        for column in columns:
            window = torch.from_numpy(mirror(image, row, column)).to(first.device)
            batch = window.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)  # (1, C, h, w)
            logits = model(batch).logits[0].float()  # (K, h - 2 margin, w - 2 margin)
            if result is None:
                result = logits.new_empty(logits.shape[0], *image.shape[:2])
            top, left = row.start + rule.margin, column.start + rule.margin
            kept = logits[:, row.first - top : row.stop - top, column.first - left : column.stop - left]
            result[:, row.first : row.stop, column.first : column.stop] = kept
    assert result is not None
    return result


def predict_probabilities(
    model: nn.Module,
    card: ModelCard,
    image: AnyArray,
    *,
    tile: tuple[int, int] | None = None,
    halo: int = 0,
    flip: bool = False,
) -> Tensor:
    """Return class probabilities, float32 (K, H, W), at the size of a raw image (H, W, C).

    With `flip`, the mean of the probabilities of the image and its mirror image. Logits are brought back to the
    image's size (bilinear, align_corners=False) before the softmax. A model of a largest size sees a larger image
    shrunk to it.
    """
    small = card.normalisation(_within(resize_image(image, card.scale), size_rule_of(model).maximum))
    total: Tensor | None = None
    views = [False, True] if flip else [False]
    for mirrored in views:
        view = small[:, ::-1] if mirrored else small
        logits = predict_logits(model, view, tile=tile, halo=halo)
        logits = logits.flip(2) if mirrored else logits
        if logits.shape[1:] != image.shape[:2]:
            size = (image.shape[0], image.shape[1])
            logits = functional.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
        probabilities = logits.softmax(dim=0)
        total = probabilities if total is None else total + probabilities
    assert total is not None
    return total / len(views)


def _within(image: AnyArray, side: int | None) -> AnyArray:
    """Return an image (H, W, C) with no side above `side`: a longer one is shrunk, whatever becomes of the shape."""
    height, width = image.shape[:2]
    if side is None or max(height, width) <= side:
        return image
    size = (min(width, side), min(height, side))
    channels = (np.ascontiguousarray(image[:, :, channel]) for channel in range(image.shape[2]))
    return np.stack([cv2.resize(channel, size, interpolation=cv2.INTER_AREA) for channel in channels], axis=2)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The result for one image.

    Attributes:
        image: the input, (H, W, C).
        labels: class ids, uint8 or uint16 (H, W).
        probabilities: float32 tensor (K, H, W), on the model's device.
        palette: colour of each class.
        num_boxes: boxes that the network saw one by one; None where it saw the image itself.
    """

    image: AnyArray
    labels: AnyArray
    probabilities: Tensor
    palette: tuple[tuple[int, int, int], ...]
    num_boxes: int | None = None

    def overlay(self) -> NDArray[np.uint8]:
        """Return the image with the classes' colours over it, uint8 (H, W, 3)."""
        return overlay(to_display(self.image), self.labels, self.palette)

    def save(self, path: Path | str) -> None:
        """Write the label map as an index PNG with the classes' palette."""
        write_atomically(Path(path), label_png(self.labels, self.palette))


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A trained model, ready for images of any size.

    Attributes:
        model: in evaluation mode.
        card: what is known of it.
        instance_wise: how images larger than the model's largest input are seen box by box; None shrinks them to it.
    """

    model: nn.Module
    card: ModelCard
    instance_wise: InstanceWise | None = None

    def predict(self, image: AnyArray | Path | str, *, tile: int | None = None, flip: bool = False) -> Prediction:
        """Segment an image.

        Args:
            image: a path, or an array (H, W) or (H, W, C) with the values of the training images' type.
            tile: input side of a window in pixels; None sees images up to 1024 x 1024 at once and cuts larger ones.
            flip: average over the image and its mirror image.

        Raises:
            RequestError: if the image cannot be read or its channels are not the model's.
        """
        array = read_image(Path(image)) if isinstance(image, str | Path) else np.asarray(image)
        if array.ndim == 2:
            array = array[:, :, None]
        name = str(image) if isinstance(image, str | Path) else "the image"
        channels = self._checked(array, name)
        window, halo = self._windows(array, tile)
        probabilities, num_boxes = self._by_boxes(channels, flip=flip) or (
            predict_probabilities(self.model, self.card, channels, tile=window, halo=halo, flip=flip),
            None,
        )
        labels = probabilities.argmax(dim=0).cpu().numpy()
        dtype = np.uint8 if self.card.num_classes <= 256 else np.uint16
        return Prediction(
            image=array,
            labels=labels.astype(dtype),
            probabilities=probabilities,
            palette=self.card.palette,
            num_boxes=num_boxes,
        )

    def _by_boxes(self, image: AnyArray, *, flip: bool) -> tuple[Tensor, int] | None:
        """Return probabilities (K, H, W) and the number of boxes, where an image is to be seen box by box.

        One without a box that is large enough is seen whole.
        """
        side = size_rule_of(self.model).maximum
        if self.instance_wise is None or side is None or max(image.shape[:2]) <= side:
            return None
        from pixelwise.engine.instance_wise import instance_wise_probabilities, windows_of

        how, card = self.instance_wise, self.card
        boxes = how.propose(image)
        count = len(windows_of(boxes, how))
        if not count:
            return None
        probabilities = instance_wise_probabilities(
            self.model, image, boxes, normalisation=card.normalisation, scale=card.scale, how=how, flip=flip
        )
        return probabilities, count

    def _checked(self, array: AnyArray, name: str) -> AnyArray:
        """Return an image with the model's number of channels, if it is one that the model can mean."""
        wanted = self.card.in_channels
        if array.ndim != 3 or 0 in array.shape:
            raise RequestError(
                f"{name} has shape {array.shape}; accepted: (H, W) or (H, W, {wanted}) with at least one pixel. "
                "Give one image at a time."
            )
        given_bytes = array.dtype == np.uint8
        trained_on_bytes = self.card.normalisation.intensity_range == (0.0, 255.0)
        if given_bytes != trained_on_bytes and (given_bytes or array.max() > 255):
            kind = "8-bit images" if trained_on_bytes else "16-bit or float images"
            raise RequestError(
                f"{name} holds {array.dtype} values up to {array.max():g}; accepted: {kind}, as the model was trained "
                "on. Convert the image as the training images were."
            )
        if wanted == 1 and array.shape[2] == 3 and (array == array[:, :, :1]).all():
            return array[:, :, :1]  # grey, saved as colour
        if array.shape[2] not in (1, wanted):
            raise RequestError(
                f"{name} has {array.shape[2]} channels; accepted: {'1' if wanted == 1 else f'{wanted}, or 1'}, as the "
                "model was trained on. Convert the image, or train on such images."
            )
        return as_channels(array, wanted)

    def _windows(self, image: AnyArray, tile: int | None) -> tuple[tuple[int, int] | None, int]:
        rule = size_rule_of(self.model)
        height, width = scaled_size((image.shape[0], image.shape[1]), self.card.scale)
        if rule.maximum is not None and max(height, width) > rule.maximum:
            if tile is None:
                return None, 0
            raise RequestError(
                f"tile {tile}: {self.card.model} sees {rule.maximum} x {rule.maximum} pixels at most, an object or an "
                "image, and cannot be tiled; accepted: no tile. Leave it out."
            )
        if tile is None and height * width <= WHOLE_IMAGE_PIXELS:
            return None, 0
        halo = 0 if rule.margin else self.halo()
        side = rule.at_least(TILE + 2 * halo + 2 * rule.margin) if tile is None else tile
        return (side, side), halo

    def halo(self) -> int:
        """Return half the receptive field, rounded up: beyond it a tile's border has no influence."""
        rule = size_rule_of(self.model)
        card = self.card
        twin = build_twin(card.model, num_classes=card.num_classes, in_channels=card.in_channels, options=card.options)
        size = rule.at_least(256)
        layers = layer_table(twin, in_channels=self.card.in_channels, input_size=(size, size))
        fields = receptive_fields(layers, axis=0, period=rule.period)
        if fields is None:
            raise RequestError(f"{self.card.model} sees the whole image at every pixel, so it cannot be tiled.")
        return -(-max(fields) // 2)


def load_segmenter(run: Path, *, device: str | None = None) -> Segmenter:
    """Load the best model of a run folder, or a model file."""
    path = Path(run)
    if not path.exists():
        raise RequestError(f"run {path} does not exist. Give the --out folder of a training run, or a model file.")
    if path.is_dir():
        path = path / "best.safetensors"
        if not path.exists():
            raise RequestError(
                f"run {run} holds no best.safetensors; accepted: the --out folder of a run that was validated at least "
                "once. Train it, or go on with train --resume."
            )
    model, card = load_model(path, device=device or default_device())
    if not getattr(model, "instance_wise", False):
        return Segmenter(model=model, card=card)
    from pixelwise.engine.instance_wise import PUBLISHED

    return Segmenter(model=model, card=card, instance_wise=PUBLISHED)


def default_device() -> str:
    """Return "cuda" where there is a usable GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def label_png(labels: AnyArray, palette: tuple[tuple[int, int, int], ...]) -> bytes:
    """Encode class ids (H, W) as PNG: with the palette up to 256 classes, as plain 16-bit numbers above."""
    if labels.dtype == np.uint8:
        return mask_png(labels, [value for colour in palette for value in colour])
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, "PNG")
    return buffer.getvalue()
