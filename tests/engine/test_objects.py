"""Objects cut out of predictions: touching ones, separated by a border, described and numbered."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.data.normalise import Normalisation
from pixelwise.engine.model_file import ModelCard
from pixelwise.engine.objects import (
    HEAD,
    ObjectRule,
    Objects,
    find_objects,
    given_objects,
    object_rows,
    object_rule,
    table_csv,
)
from pixelwise.errors import RequestError, WorkError

TWO = ObjectRule(method="distance", classes=(1,))


def card(*classes: str, boundary: int | None = None) -> ModelCard:
    return ModelCard(
        pixelwise="0",
        model="unet_small",
        options={},
        num_classes=len(classes),
        in_channels=1,
        classes=classes,
        palette=tuple((0, 0, index) for index in range(len(classes))),
        ignore_index=None,
        boundary_class=boundary,
        normalisation=Normalisation(intensity_range=(0.0, 255.0), mean=(0.5,), std=(0.2,)),
        scale=1.0,
        input_rule="any",
        licence=None,
        iteration=0,
        metrics={},
    )


def discs(*centres: tuple[float, float], radius: float = 12, size: tuple[int, int] = (60, 90)) -> NDArray[np.int64]:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.any([np.hypot(rows - y, columns - x) <= radius for y, x in centres], axis=0).astype(np.int64)


def one_hot(labels: NDArray[np.int64], num_classes: int = 2) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(labels), num_classes).permute(2, 0, 1).float()


def test_touching_discs_are_cut_where_the_area_is_narrow() -> None:
    labels = discs((30, 25), (30, 46), (10, 80))
    found = find_objects(labels, one_hot(labels), TWO)
    assert len(found.classes) == 3
    assert found.ids[30, 15] != found.ids[30, 56] != 0
    assert ((found.ids > 0) == (labels == 1)).all()  # nothing is lost and nothing added
    columns = np.nonzero(found.ids[30] == found.ids[30, 15])[0]
    assert abs(columns.max() - 35) <= 2  # the cut lies half-way, at 35.5
    assert found.scores is not None
    assert found.scores.tolist() == [1.0, 1.0, 1.0]


def test_a_membrane_separates_cells_although_it_is_faint() -> None:
    """The gap falls below one half, so that plain components would merge both cells."""
    border = np.zeros((20, 41), np.float32)
    border[:, 20] = 0.9
    border[8:12, 20] = 0.4
    probabilities = torch.from_numpy(np.stack([1 - border, border]))
    labels = probabilities.argmax(dim=0).numpy()
    rule = ObjectRule(method="border", classes=(0,), border=1)
    found = find_objects(labels, probabilities, rule)
    assert len(found.classes) == 2
    assert (found.ids[:, :20] == found.ids[0, 0]).all()
    assert (found.ids[:, 21:] == found.ids[0, 40]).all()
    assert found.ids[0, 0] != found.ids[0, 40]
    assert (found.ids[labels == 1] == 0).all()


def test_specks_are_no_objects() -> None:
    labels = discs((20, 20), (20, 60), (45, 30))  # 441 pixels each
    labels[55, 80], labels[40:46, 70:75] = 1, 1
    found = find_objects(labels, one_hot(labels), TWO)
    assert np.bincount(found.ids.ravel())[1:].tolist() == [441, 441, 441, 30]
    assert found.ids[55, 80] == 0
    alone = np.zeros((9, 9), np.int64)
    alone[4, 4] = 1
    assert len(find_objects(alone, one_hot(alone), TWO).classes) == 1  # nothing to compare it with


def test_classes_and_scores_are_those_of_the_pixels() -> None:
    labels = np.zeros((8, 20), np.int64)
    labels[1:5, 1:5], labels[1:5, 10:14] = 1, 2
    probabilities = one_hot(labels, 3) * 0.7 + 0.1
    found = find_objects(labels, probabilities, ObjectRule(method="distance", classes=(1, 2)))
    assert found.classes.tolist() == [1, 2]
    assert found.scores == pytest.approx([0.8, 0.8])
    rows = object_rows("a", found, ("background", "red", "blue"))
    assert rows[1] == ("a", 2, "blue", 16, 11.5, 2.5, 10, 1, 4, 4, 0.8)
    table = list(csv.reader(io.StringIO(table_csv(rows))))
    assert table[0] == list(HEAD)
    assert table[1] == ["a", "1", "red", "16", "2.5", "2.5", "1", "1", "4", "4", "0.8"]


@pytest.mark.parametrize("fill", [0, 1])
def test_empty_and_full_images(fill: int) -> None:
    labels = np.full((7, 9), fill, np.int64)
    found = find_objects(labels, one_hot(labels), TWO)
    assert len(found.classes) == fill
    assert (found.ids == fill).all()
    assert len(object_rows("a", found, ("background", "thing"))) == fill


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1), (1, 17), (23, 1), (13, 29)]), st.floats(0.1, 0.9))
def test_objects_cover_their_classes_but_for_specks_and_are_connected(
    seed: int, size: tuple[int, int], share: float
) -> None:
    labels = (np.random.default_rng(seed).random(size) < share).astype(np.int64)
    found = find_objects(labels, one_hot(labels), TWO)
    assert (labels[found.ids > 0] == 1).all()
    lost = ndimage.label((labels == 1) & (found.ids == 0), np.ones((3, 3)))[0]
    areas = np.bincount(found.ids.ravel())[1:]
    assert lost.max() == 0 or np.bincount(lost.ravel())[1:].min() < np.median(areas) / 20
    assert set(np.unique(found.ids)) - {0} == set(range(1, len(found.classes) + 1))
    for number in range(1, len(found.classes) + 1):
        assert ndimage.label(found.ids == number)[1] == 1


def test_given_ids_are_renumbered_with_class_and_score() -> None:
    ids = np.array([[0, 7, 7], [300, 300, 0]], np.uint16)
    labels = np.array([[0, 2, 2], [1, 2, 0]])
    found = given_objects(ids, labels, {7: 0.25, 300: 0.5})
    assert found.ids.tolist() == [[0, 1, 1], [2, 2, 0]]
    assert found.classes.tolist() == [2, 1]  # the lower class on a tie
    assert found.scores is not None
    assert found.scores.tolist() == [0.25, 0.5]
    assert given_objects(ids[:, 1:2], labels[:, 1:2]).ids.tolist() == [[1], [2]]  # without background
    assert given_objects(np.zeros_like(ids), labels).classes.size == 0


def test_rules_follow_what_the_model_knows() -> None:
    assert object_rule(card("background", "nucleus")) == TWO
    assert object_rule(card("red", "blue")).classes == (0, 1)
    cells = card("cell", "membrane", boundary=1)
    assert object_rule(cells) == ObjectRule(method="border", classes=(0,), border=1)
    assert object_rule(cells, method="distance") == ObjectRule(method="distance", classes=(0,))
    assert object_rule(card("background", "a", "b"), classes=["b"]).classes == (2,)


def test_rules_that_cannot_be_are_refused() -> None:
    with pytest.raises(RequestError, match=r"knows no boundary class \(its classes: background, nucleus\)"):
        object_rule(card("background", "nucleus"), method="border")
    with pytest.raises(RequestError, match=r"no class 'nuclei'; accepted: background, nucleus; closest: nucleus"):
        object_rule(card("background", "nucleus"), classes=["nuclei"])
    with pytest.raises(RequestError, match="no class is left"):
        object_rule(card("background", "border", boundary=1))


def test_too_many_objects_for_a_file_are_said() -> None:
    many = Objects(ids=np.arange(1, 65537, dtype=np.int32).reshape(256, 256), classes=np.zeros(65536, int), scores=None)
    with pytest.raises(WorkError, match=r"65536 objects .* holds 65535"):
        many.ids16()
