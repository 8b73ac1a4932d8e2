"""From an image of any size to a label map of the same size, by the way that suits image, model and request."""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from pixelwise.data.folder import mask_png
from pixelwise.data.images import AnyArray, as_channels, read_image
from pixelwise.data.normalise import scaled_size
from pixelwise.data.pictures import overlay, to_display
from pixelwise.engine.layer_table import layer_table, receptive_fields
from pixelwise.engine.model_file import ModelCard, Option, build_twin, load_model, model_file, task_of
from pixelwise.engine.passes import Pass, predict_probabilities
from pixelwise.engine.views import STRIDE, Fusion, Views, refiner_for
from pixelwise.errors import RequestError
from pixelwise.files import write_atomically
from pixelwise.models import model_info
from pixelwise.registry import CLASSICAL
from pixelwise.structures import size_rule_of

if TYPE_CHECKING:
    from pixelwise.engine.instance_wise import InstanceWise
    from pixelwise.engine.proposals import Boxes

WHOLE_IMAGE_PIXELS = 1024 * 1024  # larger images are cut into tiles
TILE = 512  # kept pixels of a tile, about


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The result for one image.

    Attributes:
        image: the input, (H, W, C).
        labels: class ids, uint8 or uint16 (H, W).
        probabilities: float32 tensor (K, H, W), on the model's device.
        palette: colour of each class.
        num_boxes: boxes that the network saw one by one; None where it saw the image itself.
        window: (height, width) of the largest sliding windows; None where it saw the image whole or in seamless tiles.
        unary: the probabilities before a CRF refined them; the same where none did.
    """

    image: AnyArray
    labels: AnyArray
    probabilities: Tensor
    palette: tuple[tuple[int, int, int], ...]
    num_boxes: int | None = None
    window: tuple[int, int] | None = None
    unary: Tensor | None = None

    def overlay(self) -> NDArray[np.uint8]:
        """Return the image with the classes' colours over it, uint8 (H, W, 3)."""
        return overlay(to_display(self.image), self.labels, self.palette)

    def save(self, path: Path | str) -> None:
        """Write the label map as an index PNG with the classes' palette."""
        write_atomically(Path(path), label_png(self.labels, self.palette))


@dataclass(frozen=True, kw_only=True)
class AnySegmenter(ABC):
    """Something trained that makes label maps of images of any size: a network, or a classical pipeline.

    Attributes:
        card: what is known of it.
        instance_wise: how images larger than the model's largest input are seen box by box; None shrinks them to it.
        source: run folder or model file, where it was read from one.
    """

    card: ModelCard
    instance_wise: InstanceWise | None = None
    source: Path | None = None

    def predict(
        self,
        image: AnyArray | Path | str,
        *,
        tile: int | None = None,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        fusion: Fusion | None = None,
        window: int | None = None,
        stride: float | None = None,
        long_side: int | None = None,
        boxes: Boxes | Sequence[Sequence[float]] | None = None,
        crf: str | Path | None = None,
    ) -> Prediction:
        """Segment an image.

        Args:
            image: a path, or an array (H, W) or (H, W, C) with the values of the training images' type.
            tile: input side of a seamless tile in pixels; None sees images up to 1024 x 1024 at once and cuts larger
                ones.
            flip: join with the mirror image.
            scales: sizes of the image that are joined, as factors; see `Views` for these and what follows.
            fusion: how views are joined.
            window: side of sliding windows.
            stride: step between windows, as a share of their side.
            long_side: pixels of the longer side at scale 1.
            boxes: what an instance-wise model sees in place of its own proposals, in an image of any size: rows of x1,
                y1, x2, y2 and perhaps score, or as `read_boxes` reads them; the rule of `instance_wise` enlarges and
                chooses among them.
            crf: what refines the joined probabilities with the image; see `pixelwise.crf.refiner.refiner_of`.

        Raises:
            RequestError: if the image cannot be read, its channels are not the model's, the model cannot be used so, or
                boxes leave the image.
        """
        views = Views(
            scales=tuple(scales),
            flip=flip,
            fusion=fusion,
            tile=tile,
            window=window,
            stride=stride,
            long_side=long_side,
            refiner=refiner_for(crf, self.source),
        )
        return self.view(image, views, _as_boxes(boxes))

    @abstractmethod
    def view(self, image: AnyArray | Path | str, views: Views, boxes: Boxes | None = None) -> Prediction:
        """Segment an image as `predict` does, with views that are checked already."""

    @abstractmethod
    def check(self, views: Views) -> None:
        """Refuse views that cannot be taken, whatever the image.

        Raises:
            RequestError: says what to leave out.
        """


@dataclass(frozen=True, kw_only=True)
class Segmenter(AnySegmenter):
    """A trained network, ready for images of any size.

    Attributes:
        model: in evaluation mode.
    """

    model: nn.Module

    def view(self, image: AnyArray | Path | str, views: Views, boxes: Boxes | None = None) -> Prediction:
        """Segment an image as `predict` does, with views that are checked already."""
        self.check(views)
        array, name = opened_image(image)
        channels = checked_image(array, self.card, name)
        size = (channels.shape[0], channels.shape[1])
        passes = [self._pass(size, factor, views) for factor in views.factors(size, self.card.scale)]
        if boxes is not None:
            self._check_boxes(boxes, size, name)
        probabilities, num_boxes = self._by_boxes(channels, boxes, flip=views.flip) or (
            predict_probabilities(
                self.model, self.card, channels, passes=passes, flip=views.flip, fusion=views.joining
            ),
            None,
        )
        labels, refined = labelled(views, array, probabilities)
        return Prediction(
            image=array,
            labels=labels,
            probabilities=refined,
            unary=probabilities,
            palette=self.card.palette,
            num_boxes=num_boxes,
            window=max((step.window for step in passes if step.window), default=None),
        )

    def check(self, views: Views) -> None:
        """Refuse views that the model cannot take, whatever the image.

        Raises:
            RequestError: says what to leave out.
        """
        rule, name = size_rule_of(self.model), self.card.model
        resized = "long_side" if views.long_side else "scales" if views.scales != (1.0,) else None
        if self.instance_wise is not None and (resized or views.window or views.fusion):
            given = resized or ("window" if views.window else "fusion")
            raise RequestError(
                f"{given} has no effect on {name}, which sees an image box by box; accepted: flip, or whole images "
                f"(--whole-image). Leave {given} out."
            )
        if resized and rule.maximum is not None and views.window is None:
            raise RequestError(
                f"{resized} has no effect on {name}, which sees images shrunk to {rule.maximum} x {rule.maximum}; "
                f"accepted: with window, up to {rule.maximum}. Add it, or leave {resized} out."
            )
        if views.window is not None and rule.margin:
            raise RequestError(
                f"window {views.window}: {name} loses {rule.margin} pixels at each border of its input, and its tiles "
                "show no seams anyway; accepted: tile. Leave window out."
            )
        if views.window is not None and rule.at_least(views.window) < views.window:
            raise RequestError(
                f"window {views.window}: {name} sees {rule.maximum} x {rule.maximum} pixels at most; accepted: up to "
                f"{rule.maximum}. Give a smaller one."
            )

    def _check_boxes(self, boxes: Boxes, size: tuple[int, int], name: str) -> None:
        from pixelwise.engine.proposals import check_inside

        if self.instance_wise is None:
            raise RequestError(
                f"boxes have no effect on {self.card.model}, which sees images whole here; accepted: with models that "
                "see them box by box (deconvnet_vgg16, edeconvnet). Leave them out."
            )
        check_inside(boxes, size, name)

    def _by_boxes(self, image: AnyArray, boxes: Boxes | None, *, flip: bool) -> tuple[Tensor, int] | None:
        """Return probabilities (K, H, W) and the number of boxes, where an image is to be seen box by box.

        One without a box that is large enough is seen whole, and so is one that fits into the network's input, unless
        boxes are given.
        """
        side = size_rule_of(self.model).maximum
        if self.instance_wise is None or (boxes is None and (side is None or max(image.shape[:2]) <= side)):
            return None
        from pixelwise.engine.instance_wise import instance_wise_probabilities, windows_of

        how, card = self.instance_wise, self.card
        boxes = how.propose(image) if boxes is None else boxes
        count = len(windows_of(boxes, how))
        if not count:
            return None
        probabilities = instance_wise_probabilities(
            self.model, image, boxes, normalisation=card.normalisation, scale=card.scale, how=how, flip=flip
        )
        return probabilities, count

    def _pass(self, size: tuple[int, int], factor: float, views: Views) -> Pass:
        """Return how the model gets over an image (height, width) that is resized by a factor."""
        rule = size_rule_of(self.model)
        height, width = scaled_size(size, factor)
        if views.window is not None:
            return self._sliding(factor, (views.window, views.window), views.stride or STRIDE)
        if rule.maximum is not None and max(height, width) > rule.maximum:
            if views.tile is None:
                return Pass(factor=factor)
            raise RequestError(
                f"tile {views.tile}: {self.card.model} sees {rule.maximum} x {rule.maximum} pixels at most, an object "
                "or an image, and cannot be tiled; accepted: no tile. Leave it out."
            )
        if views.tile is None and height * width <= WHOLE_IMAGE_PIXELS:
            return Pass(factor=factor)
        halo = 0 if rule.margin else self.halo
        if halo is None and views.tile is not None:
            raise RequestError(
                f"tile {views.tile}: {self.card.model} sees the whole image at every pixel, so that its tiles would "
                f"show seams; accepted: sliding windows, which are averaged. Give window {views.tile} instead."
            )
        if halo is None:
            return self._sliding(factor, self.card.crop or (TILE, TILE), STRIDE)
        side = rule.at_least(TILE + 2 * halo + 2 * rule.margin) if views.tile is None else views.tile
        return Pass(factor=factor, tile=(side, side), halo=halo)

    def _sliding(self, factor: float, window: tuple[int, int], stride: float) -> Pass:
        rule = size_rule_of(self.model)
        height, width = (rule.at_least(side) for side in window)
        # Less a rounding error, so that two thirds of 48 are 32.
        step = (math.ceil(height * stride - 1e-6), math.ceil(width * stride - 1e-6))
        return Pass(factor=factor, window=(height, width), step=(max(1, step[0]), max(1, step[1])))

    @cached_property
    def halo(self) -> int | None:
        """Half the receptive field, rounded up: beyond it a tile's border has no influence; None for a global one."""
        rule = size_rule_of(self.model)
        card = self.card
        twin = build_twin(card.model, num_classes=card.num_classes, in_channels=card.in_channels, options=card.options)
        size = rule.at_least(256)
        layers = layer_table(twin, in_channels=self.card.in_channels, input_size=(size, size))
        fields = receptive_fields(layers, axis=0, period=rule.period)
        return None if fields is None else -(-max(fields) // 2)


def _as_boxes(given: Boxes | Sequence[Sequence[float]] | None) -> Boxes | None:
    if given is None:
        return None
    from pixelwise.engine import proposals

    return given if isinstance(given, proposals.Boxes) else proposals.boxes_of_rows(given, "given")


def opened_image(image: AnyArray | Path | str) -> tuple[AnyArray, str]:
    """Return an image (H, W, C), read if it is a path, and its name for messages."""
    array = read_image(Path(image)) if isinstance(image, str | Path) else np.asarray(image)
    name = str(image) if isinstance(image, str | Path) else "the image"
    return array[:, :, None] if array.ndim == 2 else array, name


def labelled(views: Views, image: AnyArray, probabilities: Tensor) -> tuple[AnyArray, Tensor]:
    """Return labels, uint8 (H, W), uint16 beyond 256 classes, and probabilities (K, H, W), refined if that is asked."""
    if views.refiner is not None:
        from pixelwise.engine.refinement import refined

        return refined(views.refiner, image, probabilities)
    labels: AnyArray = probabilities.argmax(dim=0).cpu().numpy()
    return labels.astype(np.uint8 if len(probabilities) <= 256 else np.uint16), probabilities


def checked_image(array: AnyArray, card: ModelCard, name: str) -> AnyArray:
    """Return an image with the model's number of channels, if it is one that the model can mean.

    Raises:
        RequestError: if its shape, its type or its channels are others than the training images' were.
    """
    wanted = card.in_channels
    if array.ndim != 3 or 0 in array.shape:
        raise RequestError(
            f"{name} has shape {array.shape}; accepted: (H, W) or (H, W, {wanted}) with at least one pixel. "
            "Give one image at a time."
        )
    given_bytes = array.dtype == np.uint8
    trained_on_bytes = card.normalisation.intensity_range == (0.0, 255.0)
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


def load_segmenter(
    run: Path, *, device: str | None = None, options: Mapping[str, Option] | None = None
) -> AnySegmenter:
    """Load the best model of a run folder, or a model file; for options see `load_model`.

    Raises:
        RequestError: if there is none, or it is an image classifier.
    """
    file = model_file(run)
    if task_of(file) == CLASSICAL:
        from pixelwise.engine.classical_segmenter import load_classical

        return load_classical(run, options=options)
    model, card = load_model(file, device=device or default_device(), options=options)
    if model_info(card.model).task != "semantic":
        raise RequestError(
            f"{run} holds {card.model}, which gives an image one class and no label map; accepted here: segmentation "
            "models. `pixelwise predict` and `pixelwise evaluate` take both; in Python, pixelwise.load_classifier."
        )
    if not getattr(model, "instance_wise", False):
        return Segmenter(model=model, card=card, source=Path(run))
    from pixelwise.engine.instance_wise import PUBLISHED

    return Segmenter(model=model, card=card, instance_wise=PUBLISHED, source=Path(run))


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
