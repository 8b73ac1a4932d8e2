from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load, save

from pixelwise.classical.joint_boost import Stumps
from pixelwise.classical.textonboost import RANGES, TextonBoost
from pixelwise.errors import RequestError

CAMVID = Path(__file__).resolve().parents[3] / "shared/data/camvid"

Images = list[NDArray[np.uint8]]
Labels = list[NDArray[np.uint8]]

SMALL: dict[str, Any] = {
    "num_textons": 8,
    "num_rectangles": 30,
    "box": 12,
    "grid_step": 3,
    "feature_share": 0.2,
    "num_thresholds": 16,
}


def scene(seed: int, height: int = 48, width: int = 60) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two textures of equal mean, upright waves on the left and lying ones on the right; a void strip at the bottom."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = (x > rng.integers(width // 3, 2 * width // 3)).astype(np.uint8)
    waves = np.where(labels, np.sin(y * 1.6), np.sin(x * 1.6))
    grey = (128 + 60 * waves + rng.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8)
    labels[-4:] = 255
    return np.repeat(grey[..., None], 3, axis=2), labels


def scenes(count: int, first: int = 0) -> tuple[Images, Labels]:
    pairs = [scene(first + seed) for seed in range(count)]
    return [image for image, _ in pairs], [labels for _, labels in pairs]


@pytest.fixture(scope="module")
def trained() -> TextonBoost:
    return TextonBoost(2, **SMALL).fit(*scenes(12), num_rounds=24)


def same(one: Stumps, two: Stumps) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in Stumps.names())


def test_two_textures_are_told_apart(trained: TextonBoost) -> None:
    rights = []
    for image, labels in zip(*scenes(3, first=50), strict=True):
        probabilities = trained.predict_probabilities(image)
        assert (probabilities.dtype, probabilities.shape) == (np.dtype(np.float32), (2, *labels.shape))
        assert probabilities.sum(axis=0) == pytest.approx(np.ones(labels.shape), abs=1e-6)
        counted = labels != 255
        rights.append((probabilities.argmax(axis=0) == labels)[counted].mean())
    assert np.mean(rights) > 0.95


def test_training_is_resumed_to_the_bit(trained: TextonBoost) -> None:
    images, labels = scenes(12)
    partial = TextonBoost(2, **SMALL).fit(images, labels, num_rounds=5, num_threads=1)
    stages: list[str] = []
    loaded = TextonBoost.from_state(load(save(partial.state_dict())))
    boosting = loaded.begin(images, labels, on_progress=lambda stage, done, total: stages.append(stage))
    assert boosting.num_rounds == loaded.num_rounds == 5
    assert stages == ["textons"] * 12 + ["replay"] * 5
    while loaded.num_rounds < 24:
        assert 0 < boosting.round() < 1
    assert same(loaded.stumps, trained.stumps)
    assert boosting.accuracy() > 0.95
    again = TextonBoost.from_state({**partial.state_dict(), **no_stumps(partial)}).begin(images, labels)
    again.resume(trained.stumps)
    assert np.array_equal(again.boosting.weights, boosting.boosting.weights)
    with pytest.raises(RequestError, match="the training has 24 rounds; accepted: one without rounds"):
        again.resume(trained.stumps)


def no_stumps(estimator: TextonBoost) -> dict[str, NDArray[Any]]:
    none = Stumps.none(estimator.num_classes)
    return {f"stumps.{name}": getattr(none, name) for name in Stumps.names()}


def test_the_state_holds_everything(trained: TextonBoost) -> None:
    state = load(save(trained.state_dict()))
    loaded = TextonBoost.from_state(state)
    image, _ = scene(60)
    assert np.array_equal(loaded.predict_probabilities(image), trained.predict_probabilities(image, num_threads=1))
    assert loaded.options == trained.options
    assert loaded.state_dict().keys() == state.keys()
    assert all(np.array_equal(loaded.state_dict()[name], state[name]) for name in state)


def test_accuracy_is_that_of_the_scores(trained: TextonBoost) -> None:
    images, labels = scenes(12)
    boosting = TextonBoost.from_state(trained.state_dict()).begin(images, labels)
    rights = []
    for image, truth in zip(images, labels, strict=True):
        found = trained.predict_probabilities(image).argmax(axis=0)[1::3, 1::3]
        counted = truth[1::3, 1::3] != 255
        rights.append((found == truth[1::3, 1::3])[counted])
    assert boosting.num_pixels == sum(len(one) for one in rights)
    assert boosting.accuracy() == pytest.approx(float(np.concatenate(rights).mean()))


def camvid(split: str, every: int) -> tuple[Images, Labels]:
    """Every so many images of CamVid, at half their size."""
    images, labels = [], []
    for path in sorted((CAMVID / "masks" / split).glob("*.png"))[::every]:
        image = np.asarray(Image.open(next((CAMVID / "images" / split).glob(f"{path.stem}.*"))).convert("RGB"))
        images.append(cv2.resize(image, (240, 180), interpolation=cv2.INTER_AREA))
        labels.append(np.asarray(Image.open(path))[1::2, 1::2])
    return images, labels


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason="the real data sets are not beside this checkout")
def test_streets_after_few_images_and_rounds() -> None:
    model = TextonBoost(11, num_textons=200).fit(*camvid("train", 8), num_rounds=150)
    right, counted = 0, 0
    for image, labels in zip(*camvid("val", 8), strict=True):
        right += int((model.predict_probabilities(image).argmax(axis=0) == labels).sum())
        counted += int((labels != 255).sum())
    assert right / counted > 0.65  # 0.70 measured


class Lazy(Sequence[Any]):
    """Reads an item when asked for it, and counts."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items, self.reads = items, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return self.items[index]


def test_lazy_images_of_any_sizes() -> None:
    pairs = [scene(0, 48, 60), scene(1, 30, 71), scene(2, 41, 33)]
    images, labels = (Lazy(part) for part in zip(*pairs, strict=True))
    estimator = TextonBoost(2, **SMALL)
    estimator.begin(images, labels)
    assert (images.reads, labels.reads) == (6, 3)
    assert (estimator.predict_probabilities(pairs[0][0]) == 0.5).all()


def test_minus_one_and_the_ignore_index_do_not_count() -> None:
    image, labels = scene(0)
    estimator = TextonBoost(2, **SMALL)
    counted = [
        estimator.begin([image], [one], ignore_index=ignored).num_pixels
        for one, ignored in (
            (labels, 255),
            (np.where(labels == 255, -1, labels.astype(int)), 255),
            (np.where(labels == 255, 1, labels), 1),
        )
    ]
    assert counted[0] == counted[1] == int((labels[1::3, 1::3] != 255).sum())
    assert counted[2] == int((labels[1::3, 1::3] == 0).sum())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_textons": 1}, "num_textons is 1; accepted: a whole number from 2 to 65535. Give for example 400"),
        ({"num_textons": 2.0}, "num_textons is 2.0; accepted: a whole number"),
        ({"feature_share": 0}, r"feature_share is 0; accepted: a number from 1e-09 to 1. Give for example 0.003"),
        ({"class_balance": 1.5}, "class_balance is 1.5; accepted: a number from 0 to 1"),
        ({"kappa": True}, "kappa is True; accepted: a number from 0.001 to 1000"),
        ({"bank": "mr9"}, "filter bank 'mr9' is unknown; accepted: textonboost17"),
    ],
)
def test_options_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        TextonBoost(3, **change)


def test_every_option_has_a_range() -> None:
    assert set(RANGES) == {"num_classes", *TextonBoost(2).options} - {"bank"}


def test_refused_requests(trained: TextonBoost) -> None:
    (image, labels), fresh = scene(0), TextonBoost(2, **SMALL)
    with pytest.raises(RequestError, match="there are no textons yet; accepted: an estimator after `begin`"):
        fresh.predict_probabilities(image)
    with pytest.raises(RequestError, match="there are no textons to save; accepted: an estimator after `begin`"):
        fresh.state_dict()
    with pytest.raises(RequestError, match="there are 1 images and 0 label maps; accepted: as many of both"):
        fresh.begin([image], [])
    begin = TextonBoost.from_state(trained.state_dict()).begin
    with pytest.raises(RequestError, match=r"label map 0 has shape \(47, 60\) and its image \(48, 60, 3\)"):
        begin([image], [labels[1:]])
    with pytest.raises(
        RequestError, match="label map 0 has uint8 labels from 0 to 255; accepted: whole numbers from 0"
    ):
        begin([image], [labels], ignore_index=254)
    with pytest.raises(
        RequestError, match="no pixel on the grid of step 3 has a label that counts; accepted: at least"
    ):
        begin([image], [np.full_like(labels, 255)])
    with pytest.raises(RequestError, match=r"image has shape \(48, 60\)"):
        trained.predict_probabilities(image[..., 0])
    with pytest.raises(
        RequestError, match=r"the state doesn't fit: 'textons.mean'; accepted: what `state_dict` returned"
    ):
        TextonBoost.from_state({name: array for name, array in trained.state_dict().items() if name != "textons.mean"})
    with pytest.raises(RequestError, match=r"stumps have sharing sets of shape \(24, 3\); accepted: 2 classes"):
        TextonBoost.from_state({**trained.state_dict(), "stumps.shared": np.ones((24, 3), np.bool_)})
