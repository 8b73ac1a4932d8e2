"""Several views of an image: sizes, mirror images, sliding windows, against slow independent code and in words."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pixelwise.data.normalise import Normalisation, resize_image
from pixelwise.engine import predict as predicting
from pixelwise.engine.model_file import ModelCard
from pixelwise.engine.passes import predict_logits, slide
from pixelwise.engine.predict import Segmenter
from pixelwise.engine.views import FUSIONS, Fusion, Views, window_starts
from pixelwise.errors import RequestError
from pixelwise.structures import SegmentationOutput, SizeRule

CLASSES = 3
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


class Whole(nn.Module):
    """A network whose every output sees the whole input, on a grid of sides 4 k + 1, as a small PSPNet."""

    def __init__(self, rule: SizeRule | None = None) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.size_rule = rule or SizeRule(step=4, offset=1, minimum=5)
        self.near = nn.Conv2d(2, CLASSES, 3, padding=1)
        self.far = nn.Conv2d(2, CLASSES, 1)

    def forward(self, images: Tensor) -> SegmentationOutput:
        self.size_rule.check(images.shape[2], images.shape[3])
        rows = torch.linspace(-1, 1, images.shape[2], device=images.device)[
            :, None
        ]  # not the same for its mirror image
        columns = torch.linspace(-1, 1, images.shape[3], device=images.device)
        return SegmentationOutput(
            self.near(images * (1 + rows + columns)) + 3 * self.far(images.mean((2, 3))[..., None, None])
        )


def segmenter(rule: SizeRule | None = None, *, scale: float = 1.0, crop: tuple[int, int] | None = None) -> Segmenter:
    card = ModelCard(
        pixelwise="0",
        model="whole",
        options={},
        num_classes=CLASSES,
        in_channels=2,
        classes=("a", "b", "c"),
        palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
        ignore_index=None,
        normalisation=Normalisation(intensity_range=(0, 255), mean=(0.4, 0.6), std=(0.2, 0.3)),
        scale=scale,
        crop=crop,
        input_rule="",
        licence=None,
        iteration=1,
        metrics={},
    )
    return Segmenter(model=Whole(rule).eval(), card=card)


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 2)).astype(np.uint8)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)


def bilinear(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolate maps (K, h, w): pixel centres at half numbers, the border repeated; one output after the other."""
    result = np.empty((len(maps), *size))
    for place in np.ndindex(*size):
        total = np.zeros(len(maps))
        corners = []
        for output, before, after in zip(place, maps.shape[1:], size, strict=True):
            position = min(max((output + 0.5) * before / after - 0.5, 0), before - 1)
            low = math.floor(position)
            corners.append(((low, 1 - (position - low)), (min(low + 1, before - 1), position - low)))
        for y, row in corners[0]:
            for x, column in corners[1]:
                total += row * column * maps[:, y, x]
        result[:, *place] = total
    return result


def scores_of(model: nn.Module, window: np.ndarray, *, flip: bool, fusion: Fusion) -> np.ndarray:
    """Return probabilities, or logits, of a window (h, w, C)."""
    with torch.no_grad():
        sides = [window, window[:, ::-1]] if flip else [window]
        inputs = [torch.from_numpy(np.ascontiguousarray(side)).permute(2, 0, 1)[None] for side in sides]
        logits = [model(batch).logits[0].double().numpy() for batch in inputs]
    logits = [logits[0], logits[1][:, :, ::-1]] if flip else logits
    if fusion == "flip_logit_sum":
        return softmax(sum(logits))
    return sum(softmax(each) if fusion == "prob_mean" else each for each in logits) / len(logits)


def reference(found: Segmenter, image: np.ndarray, views: Views) -> np.ndarray:
    """Do what the papers' test programs do, a window at a time in numpy, for a side that the model accepts."""
    side, fusion = views.window, views.joining
    assert side is not None
    stride = math.ceil(side * (views.stride or 2 / 3))
    maps = []
    for factor in views.scales:
        size = image.shape[:2]
        if views.long_side:
            factor = round(views.long_side * factor) / max(size)
        scaled = found.card.normalisation(resize_image(image, factor))
        height, width = scaled.shape[:2]
        pad_h, pad_w = max(side - height, 0), max(side - width, 0)
        padded = np.zeros((height + pad_h, width + pad_w, 2), np.float32)
        padded[pad_h // 2 : pad_h // 2 + height, pad_w // 2 : pad_w // 2 + width] = scaled
        total, count = np.zeros((CLASSES, *padded.shape[:2])), np.zeros(padded.shape[:2])
        for row in range(math.ceil((padded.shape[0] - side) / stride) + 1):
            for column in range(math.ceil((padded.shape[1] - side) / stride) + 1):
                bottom, right = min(row * stride + side, padded.shape[0]), min(column * stride + side, padded.shape[1])
                here = slice(bottom - side, bottom), slice(right - side, right)
                total[:, *here] += scores_of(found.model, padded[here], flip=views.flip, fusion=fusion)
                count[here] += 1
        mean = (total / count)[:, pad_h // 2 : pad_h // 2 + height, pad_w // 2 : pad_w // 2 + width]
        maps.append(bilinear(mean, (size[0], size[1])))
    if fusion == "max":
        return softmax(np.max(maps, axis=0))
    return softmax(np.mean(maps, axis=0)) if fusion == "logit_mean" else np.mean(maps, axis=0)


@pytest.mark.parametrize(
    ("height", "width", "flip", "fusion"),
    [
        *((20, 31, True, fusion) for fusion in FUSIONS),
        *((13, 9, True, fusion) for fusion in FUSIONS),
        *((40, 7, False, fusion) for fusion in FUSIONS if fusion != "flip_logit_sum"),
    ],
)
def test_sliding_windows_in_several_sizes_are_the_originals(
    height: int, width: int, flip: bool, fusion: Fusion
) -> None:
    """Windows of 13 every 9: more than one, one, and an image that is smaller than a window."""
    found, image = segmenter(), image_of(height, width)
    views = Views(scales=(0.5, 1.0, 1.5), flip=flip, fusion=fusion, window=13)
    probabilities = found.view(image, views).probabilities.numpy()
    np.testing.assert_allclose(probabilities, reference(found, image, views), atol=2e-6)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


def test_the_longer_side_is_what_was_asked_for() -> None:
    found, image = segmenter(scale=0.5), image_of(20, 31)
    views = Views(scales=(0.5, 1.0), window=9, stride=1.0, long_side=24)
    np.testing.assert_allclose(found.view(image, views).probabilities, reference(found, image, views), atol=2e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_whole_images_in_several_sizes(fusion: Fusion) -> None:
    """Logits are interpolated, each map once, and then joined."""
    found, image = segmenter(), image_of(12, 18)
    maps = []
    for factor in SCALES:
        scaled = found.card.normalisation(resize_image(image, factor))
        sides = [predict_logits(found.model, side).numpy() for side in (scaled, scaled[:, ::-1])]
        logits = [bilinear(scores, (12, 18)) for scores in (sides[0], sides[1][:, :, ::-1])]
        maps.append(
            {"flip_logit_sum": lambda x: softmax(x[0] + x[1]), "prob_mean": lambda x: sum(map(softmax, x)) / 2}.get(
                fusion, lambda x: sum(x) / 2
            )(logits)
        )
    joined = np.max(maps, axis=0) if fusion == "max" else np.mean(maps, axis=0)
    expected = softmax(joined) if fusion in ("max", "logit_mean") else joined
    found_here = found.predict(image, scales=SCALES, flip=True, fusion=fusion)
    np.testing.assert_allclose(found_here.probabilities, expected, atol=2e-6)
    assert (found_here.labels == expected.argmax(axis=0)).mean() > 0.99


def test_a_sum_of_log_probabilities_has_the_labels_of_the_mean_logits() -> None:
    """As DRN's test program adds them, each interpolated after the log-softmax."""
    found, image = segmenter(), image_of(12, 18)
    total = np.zeros((CLASSES, 12, 18))
    for factor in SCALES:
        logits = predict_logits(found.model, found.card.normalisation(resize_image(image, factor))).numpy()
        total += bilinear(np.log(softmax(logits)), (12, 18))
    prediction = found.predict(image, scales=SCALES, fusion="logit_mean")
    assert np.array_equal(prediction.labels, total.argmax(axis=0))
    np.testing.assert_allclose(prediction.probabilities, softmax(total / len(SCALES)), atol=2e-6)


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_one_size_is_the_plain_prediction(scale: float) -> None:
    found, image = segmenter(scale=scale), image_of(21, 17)
    plain = found.predict(image)
    assert torch.equal(found.predict(image, scales=[1.0]).probabilities, plain.probabilities)
    assert torch.equal(found.view(image, Views()).probabilities, plain.probabilities)
    assert plain.window is None


def test_a_window_of_the_images_size_is_the_plain_prediction() -> None:
    found, image = segmenter(), image_of(21, 21)
    windowed = found.predict(image, window=21)
    torch.testing.assert_close(windowed.probabilities, found.predict(image).probabilities)
    assert windowed.window == (21, 21)


def test_a_larger_window_sees_the_image_in_the_middle_of_its_mean() -> None:
    found, image = segmenter(), image_of(8, 13)
    padded = np.zeros((17, 17, 2), np.float32)
    padded[4:12, 2:15] = found.card.normalisation(image)
    expected = predict_logits(found.model, padded)[:, 4:12, 2:15].softmax(0)
    torch.testing.assert_close(found.predict(image, window=17).probabilities, expected)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_mirror_image_gets_the_mirrored_prediction(fusion: Fusion) -> None:
    found, image = segmenter(), image_of(21, 17)
    ways = {"scales": (0.5, 1.0, 1.5), "flip": True, "fusion": fusion}
    turned = found.predict(image[:, ::-1], **ways).probabilities.flip(2)
    torch.testing.assert_close(found.predict(image, **ways).probabilities, turned, atol=1e-5, rtol=1e-4)
    even = {**ways, "window": 13, "scales": (1.0, 1.5), "long_side": 22}  # 22 = 13 + 9: a symmetric grid of windows
    square = image_of(22, 22)
    turned = found.predict(square[:, ::-1], **{**even, "scales": (1.0, 40 / 22)}).probabilities.flip(2)
    here = found.predict(square, **{**even, "scales": (1.0, 40 / 22)}).probabilities
    torch.testing.assert_close(here, turned, atol=1e-5, rtol=1e-4)


def test_windows_grow_to_sides_that_the_model_accepts() -> None:
    image = image_of(40, 40)
    assert segmenter().predict(image, window=14).window == (17, 17)
    assert segmenter(SizeRule(step=16, minimum=16)).predict(image, window=14).window == (16, 16)


@given(st.integers(1, 400), st.integers(1, 200), st.integers(1, 200))
def test_windows_cover_every_pixel_and_stay_inside(side: int, window: int, step: int) -> None:
    side, step = max(side, window), min(step, window)
    starts = window_starts(side, window, step)
    assert starts[0] == 0
    assert starts[-1] + window == side
    assert all(0 < after - before <= step for before, after in pairwise(starts))


def test_exact_windows_of_the_fact_sheet() -> None:
    """A picture of Cityscapes at scale 1 is seen through 2 x 4 windows of 713."""
    assert (math.ceil(473 * 2 / 3), math.ceil(713 * 2 / 3)) == (316, 476)
    assert len(window_starts(1024, 713, 476)) * len(window_starts(2048, 713, 476)) == 8


def test_large_images_of_a_global_network_are_seen_through_windows_of_its_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predicting, "build_twin", lambda *_, **__: Whole().to("meta"))
    monkeypatch.setattr(predicting, "WHOLE_IMAGE_PIXELS", 20 * 20)
    found, image = segmenter(crop=(13, 17)), image_of(21, 25)
    expected = slide(found.model, found.card.normalisation(image), window=(13, 17), step=(9, 12))
    prediction = found.predict(image)
    assert prediction.window == (13, 17)
    torch.testing.assert_close(prediction.probabilities, expected)
    assert found.predict(image[:20, :20]).window is None
    with pytest.raises(
        RequestError, match=r"tile 13: whole sees the whole image at every pixel.*Give window 13 instead"
    ):
        found.predict(image, tile=13)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scales": ()}, "scales: empty; accepted: factors above 0, up to 8"),
        ({"scales": (1.0, -0.5)}, "scales: -0.5; accepted"),
        ({"scales": (math.nan,)}, "scales: nan; accepted"),
        ({"scales": (0.5, 0.5)}, "scales: 0.5 is given twice"),
        ({"fusion": "mean", "flip": True}, "fusion is 'mean'; closest: .*Accepted: prob_mean, flip_logit_sum"),
        ({"fusion": "prob_mean"}, "fusion prob_mean has no effect without several scales, flip or a window"),
        ({"fusion": "max", "flip": True}, "fusion max has no effect without several scales"),
        ({"fusion": "flip_logit_sum", "scales": (1.0, 2.0)}, "fusion flip_logit_sum has no effect without flip"),
        ({"window": 9, "tile": 9}, "window 9 and tile 9 are both given"),
        ({"window": 9, "stride": 1.5}, "stride is 1.5; accepted: a share of the window"),
        ({"stride": 0.5}, "stride 0.5 has no effect without a window"),
        ({"window": 0}, "window is 0; accepted: pixels, from 1"),
        ({"long_side": -3}, "long_side is -3; accepted"),
    ],
)
def test_requests_that_make_no_sense(given: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Views(**given)  # type: ignore[arg-type]


def test_views_that_a_model_cannot_take() -> None:
    valid, fixed = segmenter(SizeRule(margin=4)), segmenter(SizeRule(minimum=21, maximum=21))
    with pytest.raises(RequestError, match=r"window 9: whole loses 4 pixels at each border.*accepted: tile"):
        valid.predict(image_of(20, 20), window=9)
    with pytest.raises(RequestError, match="scales has no effect on whole, which sees images shrunk to 21 x 21"):
        fixed.predict(image_of(30, 30), scales=(0.5, 1))
    with pytest.raises(RequestError, match="window 30: whole sees 21 x 21 pixels at most"):
        fixed.predict(image_of(30, 30), window=30)
    assert fixed.predict(image_of(30, 30), window=21, scales=(1, 2)).window == (21, 21)
    by_boxes = replace(fixed, instance_wise=object())
    for ways in ({"scales": (0.5, 1)}, {"window": 21}, {"flip": True, "fusion": "prob_mean"}):
        with pytest.raises(RequestError, match="has no effect on whole, which sees an image box by box"):
            by_boxes.predict(image_of(30, 30), **ways)


def test_the_protocol_says_what_decides_a_score() -> None:
    assert Views().protocol() == {"flip": False, "tile": None}
    said = Views(scales=SCALES, flip=True, window=473, long_side=512).protocol()
    assert said["scales"] == "0.5, 0.75, 1, 1.25, 1.5, 1.75"
    assert said["fusion"] == "prob_mean"
    assert said["long_side"] == "512 pixels at scale 1"
