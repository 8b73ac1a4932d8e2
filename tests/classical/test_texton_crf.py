"""TextonBoost's CRF: the colours of an image correct the labels of its classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pixelwise.classical.color_model import FLOOR, ColorModel
from pixelwise.classical.filter_bank import lab
from pixelwise.classical.location import LocationPotential
from pixelwise.classical.texton_crf import TextonCRF
from pixelwise.crf.grid import GRIDS, GridCRF
from pixelwise.errors import RequestError

HEIGHT, WIDTH = 24, 36
TRUTH = (np.hypot(*np.mgrid[-12:12, -18:18]) < 8).astype(np.int64)


def picture() -> NDArray[np.uint8]:
    """A green disc on brown, both with noise."""
    colors = np.array([[120, 80, 40], [40, 140, 60]])[TRUTH]
    return (colors + np.random.default_rng(0).integers(-12, 13, colors.shape)).astype(np.uint8)


def unsure() -> NDArray[np.float32]:
    """Probabilities that put the disc too far to the right, as a classifier of coarse features does."""
    moved = np.roll(TRUTH, 4, axis=1)
    return np.where(moved == np.arange(2)[:, None, None], 0.7, 0.3).astype(np.float32)


def test_clusters_are_the_posteriors_of_gaussians() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[:, 2] = (200, 30, 40)
    found = ColorModel().clusters(image)  # two colours, two clusters without extent
    assert found.shape == (2, 2, 3)
    points = lab(np.array([[[0, 0, 0], [200, 30, 40]]], np.uint8))[:, 0].astype(float)
    far = np.exp(-0.5 * ((points[:, 0] - points[:, 1]) ** 2).sum() / FLOOR)
    np.testing.assert_allclose(np.sort(found[:, 0, 0]), [far / (1 + far), 1 / (1 + far)], rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    assert (found[:, :, 2].argmax(axis=0) != found[:, :, 0].argmax(axis=0)).all()


def test_the_potential_is_the_formula() -> None:
    clusters = np.array([[[0.9, 0.2, 0.5]], [[0.1, 0.8, 0.5]]], np.float32)
    labels = np.array([[0, 1, 1]])
    found = ColorModel(alpha=0.5, weight=2).potential(clusters, labels, num_classes=3)
    counts = np.array([[0.9, 0.1], [0.7, 1.3], [0.0, 0.0]])
    table = ((counts + 0.5) / (counts.sum(axis=0) + 0.5)) ** 2
    np.testing.assert_allclose(found[:, 0], np.log(table @ clusters[:, 0]), rtol=1e-5)
    assert found.dtype == np.float32


def test_colours_correct_wrong_labels() -> None:
    smooth = GridCRF(contrast_weight=0, constant_weight=0.2)  # which knows nothing of the image
    without = TextonCRF(edge=smooth, color=None).map_labels(picture(), unsure())
    found = TextonCRF(edge=smooth, color=ColorModel()).map_labels(picture(), unsure())
    assert (without == TRUTH).mean() < 0.9
    assert (found == TRUTH).mean() > 0.99


def test_the_first_labels_are_those_of_the_edges_alone() -> None:
    crf = TextonCRF(color=None, edge=GRIDS["grid8"])
    np.testing.assert_array_equal(crf.map_labels(picture(), unsure()), GRIDS["grid8"].map_labels(picture(), unsure()))
    nothing = TextonCRF(edge=GridCRF(contrast_weight=0, constant_weight=0), color=ColorModel(weight=0))
    np.testing.assert_array_equal(nothing.map_labels(picture(), unsure()), unsure().argmax(axis=0))


def test_location_decides_where_the_classifier_does_not() -> None:
    even = np.full((2, HEIGHT, WIDTH), 0.5, np.float32)
    where = LocationPotential.fit([TRUTH], num_classes=2, side=12)
    crf = TextonCRF(location=where, color=None, edge=GridCRF(contrast_weight=0, constant_weight=0))
    found = crf.map_labels(np.zeros((HEIGHT, WIDTH, 3), np.uint8), even)
    assert (found == TRUTH).mean() > 0.9


def test_the_same_is_found_again_and_clusters_do_not_outnumber_colours() -> None:
    first, second = (TextonCRF.paper().map_labels(picture(), unsure()) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(ColorModel().clusters(np.full((5, 6, 3), 9, np.uint8))) == 1
    assert len(ColorModel(num_clusters=4).clusters(picture())) == 4
    one = TextonCRF.paper().map_labels(np.full((1, 1, 3), 9, np.uint8), np.array([[[0.2]], [[0.8]]]))
    assert one.tolist() == [[1]]


def test_large_images_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelwise.classical.color_model.SAMPLED", 100)
    found = TextonCRF(color=ColorModel()).map_labels(picture(), unsure())
    assert (found == TRUTH).mean() > 0.98


def test_the_papers_weights() -> None:
    where = LocationPotential.fit([TRUTH], num_classes=2)
    crf = TextonCRF.paper(where)
    assert (crf.edge.connectivity, crf.edge.contrast_weight, crf.edge.constant_weight) == (4, 45, 10)
    assert crf.color is not None
    assert (crf.color.num_clusters, crf.color.alpha, crf.color.weight, crf.iterations) == (15, 0.1, 3, 2)
    assert crf.location is where
    assert (where.alpha, where.weight) == (1, 0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColorModel(num_clusters=0), "num_clusters is 0; accepted: whole numbers from 1"),
        (lambda: ColorModel(alpha=0), "alpha is 0; accepted: a number above 0"),
        (lambda: ColorModel(weight=float("nan")), "weight is nan; accepted: a number from 0"),
        (lambda: TextonCRF(iterations=0), "iterations is 0; accepted: whole numbers from 1.*color=None"),
    ],
)
def test_impossible_parameters(make: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make()


def test_places_of_other_classes() -> None:
    crf = TextonCRF(location=LocationPotential.fit([TRUTH], num_classes=3))
    with pytest.raises(RequestError, match="probabilities of 2 classes, and 3 have places"):
        crf.map_labels(picture(), unsure())
    with pytest.raises(RequestError, match="NaN"):
        TextonCRF().map_labels(picture(), np.full((2, HEIGHT, WIDTH), np.nan))
