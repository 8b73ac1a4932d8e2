from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pixelwise.classical.joint_boost import Stumps
from pixelwise.classical.texture_layout import SampledPixels, TextureLayoutFeatures

Textons = np.ndarray[tuple[int, ...], np.dtype[np.uint16]]


def textons(seed: int, height: int, width: int, count: int = 4) -> Textons:
    return np.random.default_rng(seed).integers(0, count, (height, width)).astype(np.uint16)


def slow_count(texton_map: Textons, features: TextureLayoutFeatures, feature: int, y: int, x: int) -> int:
    rectangle, texton = divmod(feature, features.num_textons)
    top, left, bottom, right = features.rectangles[rectangle] + np.array([y, x, y, x])
    height, width = texton_map.shape
    return sum(
        int(texton_map[row, column] == texton)
        for row in range(max(top, 0), min(bottom, height))
        for column in range(max(left, 0), min(right, width))
    )


FEATURES = TextureLayoutFeatures.random(4, num_rectangles=12, box=14, num_thresholds=6, seed=3)


def test_rectangles_lie_in_the_box() -> None:
    drawn = TextureLayoutFeatures.random(5, num_rectangles=300, box=20, seed=1)
    assert (drawn.areas > 0).all()
    assert drawn.rectangles.min() == -10
    assert drawn.rectangles.max() in (10, 11)
    assert drawn.num_features == 1500
    assert drawn.thresholds[0] == 0
    assert (np.diff(drawn.thresholds) > 0).all()


def test_counts_are_exact() -> None:
    texton_map = textons(0, 11, 13)
    for feature in range(0, FEATURES.num_features, 5):
        found = FEATURES.counts(texton_map, feature)
        wanted = [[slow_count(texton_map, FEATURES, feature, y, x) for x in range(13)] for y in range(11)]
        assert found.tolist() == wanted


def test_all_textons_fill_what_lies_in_the_image() -> None:
    texton_map = textons(1, 9, 16)
    for rectangle in range(12):
        total = sum(FEATURES.counts(texton_map, rectangle * 4 + texton) for texton in range(4))
        inside = FEATURES.counts(np.zeros((9, 16), np.uint16), rectangle * 4)
        assert np.array_equal(total, inside)
        assert (inside <= FEATURES.areas[rectangle]).all()


def test_sampled_pixels_see_the_same_counts() -> None:
    maps = [textons(2, 17, 23), textons(3, 30, 9), np.zeros((1, 1), np.uint16), textons(4, 8, 8)]
    kept = [np.random.default_rng(n).random(one.shape) < 0.8 for n, one in enumerate(maps)]
    kept[3][:] = False
    source = SampledPixels(FEATURES, maps, kept, step=3)
    assert all((rows % 3 == 1).all() and (columns % 3 == 1).all() for rows, columns in source.pixels)
    assert all(mask[pixels].all() for mask, pixels in zip(kept, source.pixels, strict=True))
    assert sum(len(rows) for rows, _ in source.pixels) == sum(int(mask[1::3, 1::3].sum()) for mask in kept)
    labels = np.random.default_rng(5).integers(0, 3, sum(len(rows) for rows, _ in source.pixels)).astype(np.uint8)
    weights = np.random.default_rng(6).random((len(labels), 8)).astype(np.float32)
    tried = np.arange(0, FEATURES.num_features, 3)
    with ThreadPoolExecutor(2) as pool:
        parallel = source.histograms(tried, labels, weights, 3, pool)
    sums, own = source.histograms(tried, labels, weights, 3, None)
    assert np.array_equal(parallel, (sums, own))
    for k, feature in enumerate(tried.tolist()):
        rectangle = feature // 4
        counts = [FEATURES.counts(one, feature)[pixels] for one, pixels in zip(maps, source.pixels, strict=True)]
        bins = (np.concatenate(counts)[:, None] > FEATURES.cuts[rectangle]).sum(axis=1)
        for threshold in range(6):
            assert np.array_equal(source.over(feature, threshold), bins > threshold)
        for b in range(7):
            assert sums[k, b] == pytest.approx(weights[bins == b, :3].sum(axis=0, dtype=np.float64), abs=1e-5)
            for c in range(3):
                assert own[k, b, c] == pytest.approx(weights[(bins == b) & (labels == c), c].sum(), abs=1e-5)


def test_permuted_textons_permute_the_features() -> None:
    texton_map, names = textons(7, 12, 10), np.array([2, 0, 3, 1], np.uint16)
    for texton in range(4):
        permuted = FEATURES.counts(names[texton_map], 4 * 5 + names[texton])
        assert np.array_equal(permuted, FEATURES.counts(texton_map, 4 * 5 + texton))


def test_scores_are_the_sums_of_the_stumps() -> None:
    rng = np.random.default_rng(8)
    shared = rng.random((20, 3)) < 0.5
    stumps = Stumps(
        features=rng.integers(0, FEATURES.num_features, 20).astype(np.int32),
        thresholds=rng.integers(0, 6, 20).astype(np.int32),
        shared=shared,
        above=rng.normal(size=20).astype(np.float32),
        below=rng.normal(size=20).astype(np.float32),
        constants=np.where(shared, 0, rng.normal(size=(20, 3))).astype(np.float32),
    )
    texton_map = textons(9, 40, 21)
    over = [
        FEATURES.counts(texton_map, int(feature)).ravel() > FEATURES.cuts[feature // 4, threshold]
        for feature, threshold in zip(stumps.features, stumps.thresholds, strict=True)
    ]
    found = FEATURES.scores(texton_map, stumps)
    assert found.shape == (3, 40, 21)
    assert pytest.approx(stumps.scores(np.stack(over, axis=1)), abs=1e-5) == found.reshape(3, -1).T
    for threads in (2, 5):
        assert np.array_equal(FEATURES.scores(texton_map, stumps, num_threads=threads), found)
