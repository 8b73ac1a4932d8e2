"""The data in the report: the essentials of the card, and what is said where it does not hold them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.dataset import open_dataset
from pixelwise.data.problems import Problem
from pixelwise.data.scan import Dataset, scan
from pixelwise.report.data_section import SAMPLES, choose_samples, data_section, make_samples, read_card
from pixelwise.report.run_files import RunFiles, as_table
from pixelwise.report.tables import find_classes


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Return ten images of three classes, the last of which is in two of the training images."""
    for split, number in (("train", 8), ("val", 2)):
        for index in range(number):
            labels = np.zeros((30, 40), np.uint8)
            labels[10:] = 1
            labels[20:, :5] = 2 if index < 2 and split == "train" else 1
            for folder, array in (("images", np.repeat(labels[..., None] * 90 + index, 3, axis=-1)), ("masks", labels)):
                path = tmp_path / folder / split / f"{split}{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    about = {"name": "three", "classes": ["ground", "grass", "<b>"], "licence": "CC0"}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    folder = open_dataset(tmp_path)
    return scan(folder, folder.items)


def files_of(card: object) -> RunFiles:
    return RunFiles(
        config={},
        config_text="",
        environment={},
        card=as_table(card),
        metrics={},
        training=[],
        validation=[],
        problems={},
    )


def test_a_written_card_is_read_again_and_its_essentials_shown(dataset: Dataset) -> None:
    files = files_of(json.loads(dataset.card.model_dump_json()))
    assert read_card(files) == dataset.card
    section = data_section(files, find_classes(files))
    facts = {fact.name: fact.text for fact in section.facts}
    assert facts["name"] == "three"
    assert facts["licence"] == "CC0"
    assert facts["images"].startswith("train 8, val 2")
    assert [row.name for row in section.rows] == ["ground", "grass", "<b>"]
    assert [share.images for share in section.rows[2].shares] == ["2 of 8", "0 of 2"]
    assert section.rows[2].shares[0].text == f"{100 * 2 * 50 / (8 * 1200):.2f} %"
    assert section.together is not None
    assert section.together.names == ["ground", "grass", "<b>"]
    assert [row.size for row in section.sizes] == ["30 × 40"]


def test_a_card_of_an_earlier_version_says_what_it_lacks(dataset: Dataset) -> None:
    card = json.loads(dataset.card.model_dump_json())
    for key in ("images_per_class", "cooccurrence", "boundary_class", "num_objects", "intensity", "warnings"):
        del card[key]
    section = data_section(files_of(card), find_classes(files_of(card)))
    assert len(section.notes) == 1
    assert "does not hold how many images show each class" in section.notes[0]
    assert [share.images for share in section.rows[0].shares] == ["", ""]
    assert section.together is None


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 3},
        {"unknown": 1},
        {"pixel_counts": {"train": {"ground": 1}}},
        {"pixel_counts": {"other": {"ground": 1, "grass": 1, "<b>": 1, "(ignored)": 0}}},
        {"cooccurrence": [[1]]},
    ],
)
def test_a_card_that_cannot_be_understood_costs_the_section_alone(dataset: Dataset, change: dict[str, object]) -> None:
    files = files_of(json.loads(dataset.card.model_dump_json()) | change)
    section = data_section(files, find_classes(files))
    assert section.card is None
    assert section.notes == ["data_card.json is not as this version writes it, so nothing of it is shown."]


def test_warnings_are_listed_by_kind_or_else_the_first_is_quoted(dataset: Dataset) -> None:
    line = "2 warnings, the first (`pixelwise check` tells more): a.png is constant"
    card = dataset.card.model_copy(update={"warnings": 2, "decisions": (*dataset.card.decisions, line)})
    files = files_of(json.loads(card.model_dump_json()))
    quoted = data_section(files, find_classes(files))
    assert quoted.notes == [line]
    assert line not in [fact.text for fact in quoted.facts]
    problems = [
        Problem(file="a.png", problem="is constant", severity="warning", kind="constant images"),
        Problem(file="b.png", problem="cannot be read", severity="error", kind="unreadable files"),
    ]
    listed = data_section(files, find_classes(files), problems)
    assert listed.notes == []
    assert [(group.kind, [row.file for row in group.rows]) for group in listed.warnings] == [
        ("constant images", ["a.png"])
    ]


def test_many_classes_have_no_matrix_of_pairs(dataset: Dataset) -> None:
    names = tuple(f"c{index}" for index in range(31))
    counts = {split: dict.fromkeys([*names, "(ignored)"], 1) for split in ("train", "val")}
    changes = {"classes": names, "pixel_counts": counts, "cooccurrence": ((1,) * 31,) * 31, "images_per_class": {}}
    card = dataset.card.model_copy(update=changes)
    files = files_of(json.loads(card.model_dump_json()))
    assert data_section(files, find_classes(files)).together is None


def test_samples_are_spread_over_the_split_and_painted(dataset: Dataset) -> None:
    chosen = choose_samples(dataset.folder.split("train"))
    assert [item.name for item in chosen] == ["train0", "train2", "train3", "train4", "train6", "train7"]
    assert len(chosen) == SAMPLES
    samples = make_samples(dataset, chosen)
    assert [image.name for image in samples.images] == [item.name for item in chosen]
    assert all(image.image.source.startswith("data:image/jpeg;base64,") for image in samples.images)
    assert all(image.labels.alternative.startswith("Labels of train") for image in samples.images)
    assert [entry.name for entry in samples.legend] == ["ground", "grass", "<b>"]
