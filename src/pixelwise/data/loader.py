"""Training windows: sampled, warped and normalised, the same for any number of workers.

Samples are numbered through the whole run. Number s belongs to epoch s // n; its image is the entry s % n of
that epoch's shuffle, and its random numbers come from (seed, epoch, image) alone. Drawn with replacement, image and
random numbers of sample s come from (seed, s).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from pixelwise.data.augment import photometric, sample_rng, sample_warp
from pixelwise.data.augment_config import AugmentConfig
from pixelwise.data.dataset import Item
from pixelwise.data.images import AnyArray
from pixelwise.data.items import ImageItem
from pixelwise.data.normalise import Normalisation, resize_image, resize_labels
from pixelwise.data.scan import Dataset
from pixelwise.structures import SizeRule


class Batch(NamedTuple):
    """What one iteration trains on.

    Attributes:
        images: float32 (N, C, h, w).
        labels: int64 (N, h', w'), the central part that the model predicts; (N,) where an image has one class.
        weights: float32 (N, h', w') or None.
        names: of the images.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor | None
    names: list[str]


class Sample(NamedTuple):
    """One of a batch: image (C, h, w), labels (h', w') or (), weights (h', w') or None."""

    image: Tensor
    labels: Tensor
    weights: Tensor | None
    name: str


class Samples(Protocol):
    """The numbered samples of a run."""

    @property
    def items(self) -> Sequence[ImageItem]:
        """The images to train on."""

    def __getitem__(self, sample: int) -> Sample:
        """Return sample number `sample` of the run."""

    def share_memory(self, processes: int) -> None:
        """Keep no more than one of so many processes may: each has its own copy of what is read from now on."""


AnyItem = TypeVar("AnyItem", bound=ImageItem)


def draw(items: Sequence[AnyItem], sample: int, *, seed: int, replacement: bool) -> tuple[AnyItem, np.random.Generator]:
    """Return the image of sample number `sample`, and the sample's random numbers."""
    epoch, place = divmod(sample, len(items))
    if replacement:
        index = int(np.random.default_rng([seed, epoch, place]).integers(len(items)))
        return items[index], sample_rng(seed, sample, index)
    index = int(np.random.default_rng([seed, epoch]).permutation(len(items))[place])
    return items[index], sample_rng(seed, epoch, index)


Targets = Callable[[AnyArray, AnyArray | None], tuple[AnyArray, AnyArray]]


@dataclass
class Crops(TorchDataset[Sample]):
    """Numbered training windows of a data set.

    Attributes:
        dataset: scanned images and masks.
        items: those to train on.
        crop: input (height, width) of a window; None takes whole images.
        margin: pixels a side that the model does not predict.
        scale: factor by which images are resized first.
        augment: random changes.
        seed: of sampling and augmentation.
        foreground: share of the windows that are laid over a pixel of another class than `common_class`, each class of
            the image being as likely; images without one are sampled as ever.
        common_class: index of the most frequent class.
        rule: the model's; whole images get the smallest legal size that covers them, and are mirrored beyond.
        beyond: pixels by which a window may reach over each border of the image, which is mirrored there.
        ignored_beyond: label of what a window shows beyond the image; None takes the mirrored labels.
        replacement: draw every image independently, instead of shuffling once an epoch.
        targets: from labels and object ids (H, W) to the labels to train on and their weights (H, W); None takes the
            labels as they are, without weights.
    """

    dataset: Dataset
    items: Sequence[Item]
    crop: tuple[int, int] | None
    margin: int
    scale: float
    augment: AugmentConfig
    seed: int
    foreground: float = 0.0
    common_class: int = 0
    rule: SizeRule = field(default_factory=SizeRule)
    beyond: int = 0
    ignored_beyond: int | None = None
    replacement: bool = False
    targets: Targets | None = None
    _scaled: dict[str, tuple[AnyArray, AnyArray, AnyArray | None]] = field(default_factory=dict, repr=False)
    _bytes: int = 0
    _own: dict[str, Normalisation] = field(default_factory=dict, repr=False)

    def __getitem__(self, sample: int) -> Sample:
        """Return window number `sample` of the run."""
        item, rng = draw(self.items, sample, seed=self.seed, replacement=self.replacement)
        image, labels, weights = self._arrays(item)
        over = self._pixel_to_show(rng, labels) if self.foreground else None
        size = (image.shape[0], image.shape[1])
        crop = self.crop or (self.rule.covering(size[0]), self.rule.covering(size[1]))
        warp = sample_warp(
            rng, self.augment, image_size=size, output_size=crop, over=over, margin=self.margin, beyond=self.beyond
        )
        normalisation = self._normalisation(item, image)
        window = photometric(rng, self.augment, normalisation.unit(warp.image(image)))
        inner = warp.centre(self.margin)
        wanted = inner.labels(labels).astype(np.int64)
        if self.ignored_beyond is not None:
            wanted[~inner.inside()] = self.ignored_beyond
        return Sample(
            torch.from_numpy(normalisation.standardise(window)).permute(2, 0, 1),  # (C, h, w)
            torch.from_numpy(wanted),  # (h', w')
            None if weights is None else torch.from_numpy(inner.weights(weights)),
            item.name,
        )

    def _pixel_to_show(self, rng: np.random.Generator, labels: AnyArray) -> tuple[int, int] | None:
        """Draw a pixel (row, column) of a less frequent class for a share of the windows."""
        if rng.random() >= self.foreground:
            return None
        ignored = self.dataset.card.ignore_index
        present = [value for value in np.unique(labels) if value not in (self.common_class, ignored)]
        if not present:
            return None
        rows, columns = np.nonzero(labels == present[rng.integers(len(present))])
        chosen = rng.integers(len(rows))
        return int(rows[chosen]), int(columns[chosen])

    def _normalisation(self, item: Item, image: AnyArray) -> Normalisation:
        shared = self.dataset.card.normalisation
        if not shared.per_image:
            return shared
        if item.name not in self._own:
            self._own[item.name] = shared.for_image(image)
        return self._own[item.name]

    def _arrays(self, item: Item) -> tuple[AnyArray, AnyArray, AnyArray | None]:
        """Return image, labels and weight map at the training scale; kept where that took work."""
        if self.scale == 1 and self.targets is None:
            return self.dataset.image(item), self.dataset.labels(item), None
        if item.name in self._scaled:
            return self._scaled[item.name]
        image = resize_image(self.dataset.read_image(item), self.scale)
        labels = resize_labels(self.dataset.read_labels(item), self.scale)
        weights = None
        if self.targets is not None:
            objects = self.dataset.instances(item)
            labels, weights = self.targets(labels, None if objects is None else resize_labels(objects, self.scale))
        size = image.nbytes + labels.nbytes + (0 if weights is None else weights.nbytes)
        if size <= self.dataset.free_bytes - self._bytes:
            self._scaled[item.name] = (image, labels, weights)
            self._bytes += size
        return image, labels, weights

    def share_memory(self, processes: int) -> None:
        """Keep no more than one of so many processes may: each has its own copy of what is read from now on."""
        free = self.dataset.free_bytes - self._bytes
        self.dataset.cache_bytes -= free - free // processes


def batches(
    crops: Samples,
    *,
    batch_size: int,
    first: int,
    last: int,
    num_workers: int,
    pin_memory: bool = False,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Yield the batches of iterations `first` (counted from 0) to `last` (not included), in order, none incomplete.

    With a share (k, n) only the part k of n equal ones of every batch.
    """
    part, parts = share
    size = batch_size // parts
    assert size * parts == batch_size, f"batches of {batch_size} in {parts} parts"
    begins = [i * batch_size + part * size for i in range(first, last)]
    numbers = [range(begin, begin + size) for begin in begins]
    loader: DataLoader[Sample] = DataLoader(
        crops,  # type: ignore[arg-type]
        batch_sampler=numbers,  # type: ignore[arg-type]
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # the loader's own draws must not touch the model's random state
        worker_init_fn=_start_worker if num_workers else None,
    )
    yield from loader


def _start_worker(_: int) -> None:
    worker = get_worker_info()
    assert worker is not None
    samples: Samples = worker.dataset  # type: ignore[assignment]
    samples.share_memory(worker.num_workers)
    cv2.setNumThreads(0)  # one process per core is enough
    torch.set_num_threads(1)


def _collate(samples: list[Sample]) -> Batch:
    weights = [sample.weights for sample in samples if sample.weights is not None]
    return Batch(
        torch.stack([sample.image for sample in samples]).contiguous(memory_format=torch.channels_last),
        torch.stack([sample.labels for sample in samples]),
        torch.stack(weights) if weights else None,
        [sample.name for sample in samples],
    )
