"""Batches are the same for any number of workers and any start, and show each image once an epoch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pixelwise.data.augment_config import AugmentConfig, microscopy, no_augmentation
from pixelwise.data.dataset import open_dataset
from pixelwise.data.images import AnyArray
from pixelwise.data.loader import Batch, Crops, batches
from pixelwise.data.scan import Dataset, scan

SIZE = (20, 24)
STRONG = microscopy(crop_side=16)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    rng = np.random.default_rng(0)
    for i in range(5):
        for kind, below in (("images", 256), ("masks", 3)):
            for split in ("train", "val") if i == 0 else ("train",):
                folder = tmp_path / kind / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, below, SIZE, dtype=np.uint8)).save(folder / f"{i}.png")
    folder = open_dataset(tmp_path)
    return scan(folder, folder.items)


def label_weights(labels: AnyArray, instances: AnyArray | None) -> tuple[AnyArray, AnyArray]:
    assert instances is None
    return labels, labels.astype(np.float32) + 1


def crops(dataset: Dataset, augment: AugmentConfig = STRONG, **changes: Any) -> Crops:
    given: dict[str, Any] = {"crop": (16, 16), "margin": 0, "scale": 1.0, "seed": 7}
    return Crops(dataset, dataset.folder.split("train"), augment=augment, **(given | changes))


def load(windows: Crops, first: int, last: int, num_workers: int = 0, batch_size: int = 2) -> list[Batch]:
    return list(batches(windows, batch_size=batch_size, first=first, last=last, num_workers=num_workers))


def assert_equal(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.names == other.names
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert (one.weights is None) == (other.weights is None)
        assert one.weights is None or torch.equal(one.weights, other.weights)


def test_batches_have_the_types_that_training_takes(dataset: Dataset) -> None:
    (batch,) = load(crops(dataset, margin=3, targets=label_weights), 0, 1)
    assert (batch.images.shape, batch.images.dtype) == ((2, 1, 16, 16), torch.float32)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert (batch.labels.shape, batch.labels.dtype) == ((2, 10, 10), torch.int64)
    assert batch.weights is not None
    assert (batch.weights.shape, batch.weights.dtype) == ((2, 10, 10), torch.float32)
    assert len(batch.names) == 2


def test_workers_and_start_do_not_change_the_batches(dataset: Dataset) -> None:
    expected = load(crops(dataset, targets=label_weights), 0, 9)
    assert_equal(load(crops(dataset, targets=label_weights), 0, 9), expected)
    assert_equal(load(crops(dataset, targets=label_weights), 5, 9), expected[5:])
    assert_equal(load(crops(dataset, targets=label_weights), 5, 9, num_workers=2), expected[5:])
    assert load(crops(dataset), 4, 4) == []


def test_another_seed_gives_other_batches(dataset: Dataset) -> None:
    first, second = load(crops(dataset), 0, 5), load(crops(dataset, seed=8), 0, 5)
    assert [batch.names for batch in first] != [batch.names for batch in second]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_each_epoch_shows_each_image_once(dataset: Dataset, batch_size: int) -> None:
    names = [name for batch in load(crops(dataset), 0, 15, batch_size=batch_size) for name in batch.names]
    epochs = [names[i : i + 5] for i in range(0, len(names) - 4, 5)]
    assert len(epochs) == 3 * batch_size
    assert all(sorted(epoch) == list("01234") for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1  # in another order


def test_an_image_is_changed_anew_in_each_epoch(dataset: Dataset) -> None:
    windows = crops(dataset)
    first, second = ({windows[i].name: windows[i].image for i in range(start, start + 5)} for start in (0, 5))
    assert all(not torch.equal(first[name], second[name]) for name in first)


def test_without_augmentation_the_image_itself_comes_with_its_central_labels(dataset: Dataset) -> None:
    windows = crops(dataset, no_augmentation(), crop=SIZE, margin=4, targets=label_weights)
    items = {item.name: item for item in windows.items}
    for i in range(5):
        sample = windows[i]
        item = items[sample.name]
        labels = dataset.labels(item)
        network_input = dataset.card.normalisation(dataset.image(item))
        np.testing.assert_allclose(sample.image.numpy(), network_input.transpose(2, 0, 1), atol=1e-6)
        np.testing.assert_array_equal(sample.labels.numpy(), labels[4:-4, 4:-4])
        assert sample.weights is not None
        np.testing.assert_array_equal(sample.weights.numpy(), labels[4:-4, 4:-4] + 1)


def test_image_labels_and_weights_follow_the_same_warp(dataset: Dataset) -> None:
    """With flips and crops alone, weights are labels + 1 wherever they land, and the image is where its labels are."""
    flips = no_augmentation().model_copy(update={"horizontal_flip": True, "vertical_flip": True, "random_crop": True})
    windows = crops(dataset, flips, margin=2, targets=label_weights)
    items = {item.name: item for item in windows.items}
    seen = set()
    for i in range(20):
        sample = windows[i]
        assert sample.weights is not None
        np.testing.assert_array_equal(sample.weights.numpy(), sample.labels.numpy() + 1)
        item = items[sample.name]
        labels, picture = dataset.labels(item), dataset.card.normalisation(dataset.image(item))[:, :, 0]
        for flipped in (np.s_[:, :], np.s_[::-1, :], np.s_[:, ::-1], np.s_[::-1, ::-1]):
            places = np.lib.stride_tricks.sliding_window_view(picture[flipped], (16, 16))
            found = np.argwhere(np.isclose(places, sample.image.numpy()[0], atol=1e-5).all(axis=(2, 3)))
            if len(found):
                y, x = found[0]
                np.testing.assert_array_equal(labels[flipped][y + 2 : y + 14, x + 2 : x + 14], sample.labels.numpy())
                seen.add((str(flipped), int(y), int(x)))
                break
        else:
            pytest.fail("the window is no part of its image")
    assert len(seen) > 8


def test_labels_beyond_the_image_are_ignored_on_request(dataset: Dataset) -> None:
    height, width = SIZE
    for ignored in (None, -100):
        sample = crops(dataset, no_augmentation(), crop=(height + 4, width), ignored_beyond=ignored)[0]
        beyond = torch.cat([sample.labels[:2], sample.labels[-2:]])
        assert bool((beyond == -100).all()) == (ignored is not None)
        item = next(item for item in dataset.folder.split("train") if item.name == sample.name)
        np.testing.assert_array_equal(sample.labels[2:-2].numpy(), dataset.labels(item))
        assert sample.image[:, :2].any()  # mirrored all the same


def test_windows_of_scaled_images(dataset: Dataset) -> None:
    windows = crops(dataset, no_augmentation(), crop=(10, 12), scale=0.5)
    sample = windows[0]
    item = next(item for item in windows.items if item.name == sample.name)
    mean = dataset.image(item).reshape(10, 2, 12, 2).mean(axis=(1, 3))
    low, high = dataset.card.normalisation.intensity_range
    unit = sample.image.numpy()[0] * dataset.card.normalisation.for_image(dataset.image(item)).std[0]
    assert np.corrcoef(unit.ravel(), (mean.ravel() - low) / (high - low))[0, 1] > 0.999
    assert set(np.unique(sample.labels)) <= {0, 1, 2}


def test_loading_leaves_all_random_states_alone(dataset: Dataset) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    load(crops(dataset), 0, 3)
    load(crops(dataset), 0, 3, num_workers=1)
    assert (torch.rand(1), np.random.rand(), random.random()) == expected
    assert cv2.getNumThreads() > 0  # the workers' setting stays in the workers


def test_scaled_arrays_and_weights_are_kept_within_the_limit(dataset: Dataset) -> None:
    calls: list[int] = []

    def counted(labels: AnyArray, instances: AnyArray | None) -> tuple[AnyArray, AnyArray]:
        calls.append(1)
        return label_weights(labels, instances)

    one = SIZE[0] * SIZE[1] * (1 + 1 + 4)  # image, labels and float32 weights
    for limit, kept in ((0, 0), (2 * one, 2), (2**31, 5)):
        dataset.cache_bytes = limit
        windows = crops(dataset, targets=counted)
        calls.clear()
        load(windows, 0, 5)  # two epochs
        assert len(calls) == 10 - kept
        assert dataset.free_bytes == limit  # the full images are not kept beside them


def test_workers_share_the_memory(dataset: Dataset) -> None:
    dataset.cache_bytes = 1000
    dataset.image(dataset.folder.items[0])
    free = dataset.free_bytes
    assert 0 < free < 1000
    crops(dataset).share_memory(2)
    assert dataset.free_bytes == free // 2


def shown(windows: Crops, first: int, last: int) -> float:
    """Share of windows that show class 2."""
    return float(np.mean([(windows[i].labels == 2).any() for i in range(first, last)]))


@pytest.mark.parametrize(("augment", "margin"), [(no_augmentation(), 0), (STRONG, 2)])
def test_foreground_windows_show_the_class_that_is_hard_to_hit(
    tmp_path: Path, augment: AugmentConfig, margin: int
) -> None:
    """One pixel block of 3 x 3 in 120 x 160: an even draw of 16 x 16 windows hits it once in sixty times."""
    labels = np.zeros((120, 160), np.uint8)
    labels[:, :80] = 1
    labels[60:63, 100:103] = 2
    for name in ("a", "b"):
        for kind, array in (("images", labels * 40), ("masks", labels)):
            folder = tmp_path / kind / ("train" if name == "a" else "val")
            folder.mkdir(parents=True)
            Image.fromarray(array).save(folder / f"{name}.png")
    folder = open_dataset(tmp_path)
    dataset = scan(folder, folder.items)
    augment = augment.model_copy(update={"random_crop": True})
    assert shown(crops(dataset, augment, margin=margin), 0, 200) < 0.1
    both = shown(crops(dataset, augment, margin=margin, foreground=1.0, common_class=0), 0, 200)
    assert 0.35 < both < 0.65  # class 1 as often as class 2
    assert shown(crops(dataset, augment, margin=margin, foreground=1.0, common_class=1), 0, 100) > 0.4
    half = shown(crops(dataset, augment, margin=margin, foreground=0.5, common_class=0), 0, 400)
    assert 0.15 < half < 0.37
