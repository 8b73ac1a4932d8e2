"""The weight map equals the formula computed object by object, and ridges separate touching cells."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.data.separation import label_components, separate_touching, separation_weights
from pixelwise.errors import RequestError

Labels = NDArray[np.integer]


def weights_slowly(
    instances: Labels, *, w0: float = 10, sigma: float = 5, everywhere: bool = False
) -> NDArray[np.float64]:
    """U-Net eq. 2 without w_c - 1: one distance transform of the whole image for each instance."""
    ids = [index for index in np.unique(instances) if index > 0]
    weights = np.ones(instances.shape)
    if len(ids) >= 2:
        distances = np.sort([ndimage.distance_transform_edt(instances != index) for index in ids], axis=0)
        term = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
        weights += term if everywhere else np.where(instances == 0, term, 0)
    return weights


def nuclei(count: int, side: int = 512, radius: int = 12, dtype: type = np.uint16) -> Labels:
    rng = np.random.default_rng(0)
    canvas = np.zeros((side, side), np.uint16)
    for index, (x, y) in enumerate(rng.integers(0, side, (count, 2)).tolist(), start=1):
        cv2.ellipse(canvas, (x, y), (radius, radius * 2 // 3), float(rng.integers(180)), 0, 360, index, -1)
    return canvas.astype(dtype)


def test_halfway_between_two_cells() -> None:
    """Golden values of the formula: d1 = d2 = 5 px gives 10 exp(-2); a ridge of one pixel 10 exp(-4/50)."""
    instances = np.zeros((1, 31), np.uint8)
    instances[0, :11], instances[0, 20:] = 1, 2
    weights = separation_weights(instances, class_balance=False)
    assert weights.dtype == np.float32
    assert weights[0, 15] == pytest.approx(1 + 1.353353, abs=1e-6)
    assert weights[0, 11] == pytest.approx(1 + 10 * np.exp(-100 / 50), abs=1e-6)
    assert (weights[instances > 0] == 1).all()
    ridge = separation_weights(np.array([[1, 0, 2]]), class_balance=False)
    assert ridge[0, 1] == pytest.approx(1 + 10 * np.exp(-4 / 50), abs=1e-6)


def test_no_distance_gives_w0() -> None:
    """d1 + d2 can only approach 0 by sigma: with a wide sigma the ridge reaches w0."""
    weights = separation_weights(np.array([[1, 0, 2]]), sigma=1e4, class_balance=False)
    assert weights[0, 1] == pytest.approx(1 + 10, abs=1e-5)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize(("w0", "sigma"), [(10, 5), (3, 2), (200, 11)])
def test_equals_the_slow_version(everywhere: bool, w0: float, sigma: float) -> None:
    instances = nuclei(25, side=160)
    fast = separation_weights(instances, w0=w0, sigma=sigma, class_balance=False, everywhere=everywhere)
    slow = weights_slowly(instances, w0=w0, sigma=sigma, everywhere=everywhere)
    np.testing.assert_allclose(fast, slow, rtol=2e-7, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    density=st.floats(0, 0.3),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int32, np.int64]),
)
def test_equals_the_slow_version_on_scattered_pixels(
    seed: int, height: int, width: int, density: float, dtype: type
) -> None:
    rng = np.random.default_rng(seed)
    instances: Labels = (rng.integers(1, 6, (height, width)) * (rng.random((height, width)) < density)).astype(dtype)
    np.testing.assert_allclose(
        separation_weights(instances, class_balance=False),
        weights_slowly(instances),
        rtol=2e-7,
        atol=1e-6,
    )


@pytest.mark.parametrize("value", [0, 1])
def test_fewer_than_two_cells_have_no_ridge(value: int) -> None:
    instances = np.zeros((20, 20), np.uint8)
    instances[5:9, 5:9] = value
    assert (separation_weights(instances, class_balance=False) == 1).all()
    assert separation_weights(instances).mean() == pytest.approx(1, abs=1e-6)
    assert (separation_weights(np.full((4, 4), value, np.uint8)) == 1).all()


def test_class_balance_gives_both_classes_the_same_total_and_mean_one() -> None:
    instances = np.zeros((20, 20), np.uint8)
    instances[:10, :10] = 1
    weights = separation_weights(instances)
    assert weights[0, 0] == pytest.approx(2.0)
    assert weights[15, 15] == pytest.approx(2 / 3)
    assert weights.mean() == pytest.approx(1, abs=1e-6)
    assert weights[instances > 0].sum() == pytest.approx(weights[instances == 0].sum(), rel=1e-6)


def test_ids_may_be_large_and_names_do_not_matter() -> None:
    instances = nuclei(12, side=100).astype(np.int64)
    large = np.where(instances > 0, instances * 40_000_000, 0)
    np.testing.assert_array_equal(separation_weights(large), separation_weights(instances))
    np.testing.assert_array_equal(separate_touching(large), separate_touching(instances))
    full = np.array([[10**9, 2 * 10**9]])
    np.testing.assert_array_equal(separate_touching(full), [[1, 0]])


def test_components_are_four_connected() -> None:
    labels = np.array([[1, 1, 0, 2], [0, 0, 1, 2], [2, 0, 1, 1]], np.uint8)
    np.testing.assert_array_equal(label_components(labels, 1), [[1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 2, 2]])
    assert label_components(labels, 7).max() == 0
    assert label_components(labels, 1).dtype == np.int32


def test_components_of_a_mask_split_at_class_borders() -> None:
    labels = np.array([[1, 1, 2, 2, 0, 1]], np.uint8)
    np.testing.assert_array_equal(label_components(labels, labels > 0), [[1, 1, 3, 3, 0, 2]])
    np.testing.assert_array_equal(label_components(labels, labels == 2), [[0, 0, 1, 1, 0, 0]])
    assert label_components(labels, np.zeros((1, 6), bool)).max() == 0


def test_ridge_is_one_pixel_on_the_larger_side() -> None:
    instances = np.zeros((6, 9), np.uint8)
    instances[1:5, 1:4], instances[1:5, 4:8] = 1, 2
    expected = (instances > 0).astype(np.uint8)
    expected[1:5, 4] = 0
    np.testing.assert_array_equal(separate_touching(instances), expected)
    np.testing.assert_array_equal(separate_touching(instances.T), expected.T)
    swapped = np.select([instances == 1, instances == 2], [2, 1])
    np.testing.assert_array_equal(separate_touching(swapped), expected)


def test_cells_that_do_not_touch_are_left_alone() -> None:
    instances = np.array([[1, 1, 0, 2], [0, 0, 2, 2], [3, 0, 0, 2]])
    np.testing.assert_array_equal(separate_touching(instances), instances > 0)


@pytest.mark.parametrize("seed", range(5))
def test_no_two_cells_stay_connected(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instances = nuclei(60, side=200) if seed == 0 else rng.integers(0, 4, (30, 30))
    kept = separate_touching(instances)
    assert kept.dtype == np.uint8
    assert set(np.unique(kept)) <= {0, 1}
    assert (kept <= (instances > 0)).all()
    components = label_components(kept, 1)
    for index in range(1, components.max() + 1):
        assert len(np.unique(instances[components == index])) == 1


def test_separated_cells_get_a_heavy_ridge() -> None:
    instances = np.zeros((20, 30), np.uint8)
    instances[4:16, 4:15], instances[4:16, 15:26] = 1, 2
    assert separation_weights(instances, class_balance=False)[10, 15] == 1
    separated = instances * separate_touching(instances)
    weights = separation_weights(separated, class_balance=False)
    assert weights[10, 15] == pytest.approx(1 + 10 * np.exp(-4 / 50), abs=1e-6)


def test_errors_name_what_was_given_and_what_to_do() -> None:
    with pytest.raises(RequestError, match=r"instances: shape \(2, 2\), float64; accepted is a map \(h, w\)"):
        separation_weights(np.zeros((2, 2)))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"instances: shape \(1, 2, 2\), int64; .* give ids, not prob"):
        separate_touching(np.zeros((1, 2, 2), np.int64))
    with pytest.raises(RequestError, match=r"labels: the smallest id is -1; accepted are ids from 0"):
        label_components(np.array([[-1, 2]]), 2)
    with pytest.raises(RequestError, match=r"foreground: shape \(2,\), int64; .* shape \(1, 2\), bool; give"):
        label_components(np.array([[0, 2]]), np.array([0, 1]))
    with pytest.raises(RequestError, match=r"w0=-1, sigma=5: accepted are w0 from 0 and sigma above 0 px"):
        separation_weights(np.array([[1, 0, 2]]), w0=-1)
    with pytest.raises(RequestError, match=r"w0=10, sigma=0: accepted"):
        separation_weights(np.array([[1, 0, 2]]), sigma=0)
