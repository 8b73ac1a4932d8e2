"""The data card: whole, self-contained, escaped, and showing everything that a check found."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixelwise.data.card import DataCard
from pixelwise.data.check import Check, Problem
from pixelwise.data.dataset import Item, open_dataset
from pixelwise.data.pictures import HATCH_COLORS, WRONG_COLOR
from pixelwise.data.scan import Dataset, scan
from pixelwise.engine.config import build_config
from pixelwise.errors import RequestError, WorkError
from pixelwise.report.card import MARK, dataset_json, write_card
from pixelwise.report.card_images import MOST_IN_ALL, MOST_WITH_PROBLEMS, background_of, colours, galleries
from pixelwise.report.card_pictures import OUTLINE_COLOR, Paint, choose, outlines
from pixelwise.report.card_tables import (
    class_rows,
    cooccurrence,
    decisions,
    other_decisions,
    problem_groups,
    size_rows,
    verdict,
)
from pixelwise.report.ready import make_ready

VOID_TAGS = {"meta", "img", "br"}
ODD = '<b>car</b> & "co"'  # a class of such a name must be shown as it is
CLASSES = ("background", ODD, "tree")
IGNORE = 255


class Reader(HTMLParser):
    """Collects tags and text, and checks that every tag is closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def found(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write_folder(root: Path, *, num_train: int = 4, side: int = 40, noise: bool = False, objects: bool = False) -> Path:
    """Write a data set of three classes; `car` is in the first training image alone, ignored pixels in all."""
    rng = np.random.default_rng(0)
    for split, number in (("train", num_train), ("val", 2)):
        for index in range(number):
            labels = np.zeros((side, side + 8), np.uint8)
            labels[side // 2 :] = 2
            if index == 0 and split == "train":
                labels[:4, :5] = 1
            labels[:, -8:] = IGNORE
            image = np.where(labels == 2, 90, 30).astype(np.uint8)[..., None] + np.array([0, 20, 40], np.uint8)
            if noise:
                image = rng.integers(0, 256, image.shape, dtype=np.uint8)
            save(root / "images" / split / f"{split[0]} & <i>{index}.png", image)
            save(root / "masks" / split / f"{split[0]} & <i>{index}.png", labels)
            if objects:
                ids = (labels == 2).astype(np.uint16) * 300
                save(root / "instances" / split / f"{split[0]} & <i>{index}.png", ids)
    about = {"name": "fake & <data>", "classes": CLASSES, "ignore_index": IGNORE, "licence": "CC0"}
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, compress_level=1)


def scanned(root: Path) -> Dataset:
    folder = open_dataset(root)
    return scan(folder, folder.items)


def a_check(root: Path, problems: Sequence[Problem] = ()) -> Check:
    dataset = scanned(root)
    number = len(dataset.folder.items)
    return Check(root=root, layout=dataset.card.layout, num_images=number, problems=tuple(problems), dataset=dataset)


def a_card(**changes: object) -> DataCard:
    """Return a card of 11 training and 4 validation images, whose rare classes are known by hand."""
    base = DataCard.model_validate(
        {
            "name": "made up",
            "root": "/nowhere",
            "layout": "images and masks",
            "mask_encoding": {"kind": "index", "ignore_index": None, "words": "class numbers"},
            "classes": ["ground", "common", "seldom", "tiny", "absent"],
            "palette": None,
            "ignore_index": None,
            "licence": None,
            "num_images": {"train": 11, "val": 4},
            "split_source": "folders",
            "pixel_counts": {
                "train": {"ground": 7000, "common": 2500, "seldom": 400, "tiny": 100, "absent": 0, "(ignored)": 2500},
                "val": {"ground": 100, "common": 0, "seldom": 0, "tiny": 0, "absent": 0, "(ignored)": 0},
            },
            "image_sizes": [[10, 20, 9], [5, 5, 2]],
            "channels": 1,
            "dtype": "uint16",
            "normalisation": {"intensity_range": [0, 900], "mean": [0.5], "std": [0.1], "per_image": False},
            "decisions": ["layout: images and masks", "grey ones are repeated"],
            "images_per_class": {
                "train": {"ground": 11, "common": 11, "seldom": 2, "tiny": 9, "absent": 0},
                "val": {"ground": 4, "common": 0, "seldom": 0, "tiny": 0, "absent": 0},
            },
            "cooccurrence": [
                [15, 11, 2, 9, 0],
                [11, 11, 2, 9, 0],
                [2, 2, 2, 1, 0],
                [9, 9, 1, 9, 0],
                [0, 0, 0, 0, 0],
            ],
        }
    )
    return base.model_copy(update=changes)


def bad(file: str, problem: str = "is cut off", severity: str = "error", kind: str = "unreadable") -> Problem:
    return Problem.model_validate({"file": file, "problem": problem, "severity": severity, "kind": kind})


def test_a_card_is_whole_and_self_contained(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", objects=True)
    problems = [
        bad("masks/train/t & <i>0.png", 'holds value 7 (3 pixels); write "ignore_index": 7', "error", "values"),
        bad("images/val/<script>.png", "has no mask & no name"),
        bad("images/val/v & <i>0.png", "is in train as well", "warning", "twice"),
    ]
    out = tmp_path / "new" / "card.html"
    assert write_card(a_check(root, problems), out) == out
    assert [path.name for path in out.parent.iterdir()] == ["card.html"]
    assert out.stat().st_size < 2_000_000

    page = Reader(out)
    for _, attributes in page.tags:
        for key in ("src", "href", "xlink:href", "data", "srcset"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/jpeg;base64,"))
    assert not re.search(r"url\(|@import|http-equiv=.refresh", out.read_text(encoding="utf-8"))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "i", "b", "iframe"})
    for problem in problems:
        assert problem.file in page.text
        assert problem.problem in page.text
    for words in ("Not ready: 2 errors", "fake & <data>", "t & <i>3", *CLASSES, "CC0", "40 × 48"):
        assert words in page.text


def test_every_picture_can_be_decoded(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", num_train=20, side=500)
    out = write_card(a_check(root, [bad("images/train/t & <i>7.png")]), tmp_path / "card.html")
    pictures = Reader(out).found("img")
    assert len(pictures) == 2 * (1 + 12 + 2)
    for picture in pictures:
        assert picture["alt"]
        content = base64.b64decode((picture["src"] or "").partition("base64,")[2], validate=True)
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert image.size == (int(picture["width"] or 0), int(picture["height"] or 0)) == (320, 315)


def test_the_largest_card_stays_below_the_limit(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", num_train=14, side=312, noise=True)
    problems = [bad(f"images/train/t & <i>{index}.png") for index in range(14)]
    problems += [bad(f"images/train/{index:06}.png", "x" * 250, "warning") for index in range(2000)]
    out = write_card(a_check(root, problems), tmp_path / "card.html")
    page = Reader(out)
    assert all(problem.file in page.text for problem in problems)
    assert "12 of 14, of every kind." in page.text
    pictures = page.found("img")
    assert len(pictures) == 2 * (12 + 12 + 2)
    most = 2 * (MOST_WITH_PROBLEMS + MOST_IN_ALL)
    assert most * max(len(picture["src"] or "") for picture in pictures) + 2000 * 350 < 15_000_000


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    check = a_check(write_folder(tmp_path / "data"))
    first = write_card(check, tmp_path / "card.html").read_bytes()
    assert write_card(check, tmp_path / "card.html").read_bytes() == first


def test_without_a_description_the_problems_remain(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    check = Check(root=tmp_path / "data", layout=None, num_images=0, problems=(bad("."),), dataset=None)
    text = Reader(write_card(check, tmp_path / "card.html")).text
    assert "not recognised" in text
    assert "is cut off" in text
    assert "The errors leave nothing that could be described" in text
    assert "Ready to use" not in text


def test_pictures_of_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    check = a_check(write_folder(tmp_path / "data"), [bad("masks/train/t & <i>1.png")])
    (tmp_path / "data/masks/train/t & <i>1.png").write_bytes(b"none")
    text = Reader(write_card(check, tmp_path / "card.html")).text
    assert text.count("labels not shown") == 1
    assert "image not shown" not in text


def test_images_with_problems_of_every_kind_come_first_and_those_without_errors_stand_for_the_splits(
    tmp_path: Path,
) -> None:
    problems = [bad(f"masks/train/t & <i>{index}.png", kind="values") for index in range(14)]
    problems += [bad("images/train/t & <i>15.png", kind="cut off"), bad("images/train/t & <i>2.png", kind="cut off")]
    problems += [bad("images/val/v & <i>0.png", "looks odd", "warning", "odd")]
    check = a_check(write_folder(tmp_path / "data", num_train=18), problems)
    assert check.dataset is not None
    shown, _ = galleries(check, check.dataset)
    assert [gallery.title for gallery in shown] == ["Images with problems", "Split train", "Split val"]
    assert shown[0].note == "12 of 16, of every kind."
    first = [(image.name[0], image.name.rpartition(">")[2]) for image in shown[0].images[:5]]
    assert first == [("t", "0"), ("t", "15"), ("v", "0"), ("t", "1"), ("t", "2")]
    assert [problem.kind for problem in shown[0].images[4].problems] == ["cut off", "values"]
    assert [image.name.rpartition(">")[2] for image in shown[1].images] == ["14", "16", "17"]
    assert len(shown[2].images) == 2


def test_problems_of_files_in_a_folder_of_masks_belong_to_its_image(tmp_path: Path) -> None:
    check = a_check(write_folder(tmp_path / "data"), [bad("masks/train/t & <i>1/cell.png")])
    assert check.dataset is not None
    moved = [replace(item, mask=item.mask.with_suffix("")) for item in check.dataset.folder.items]
    check.dataset.folder = replace(check.dataset.folder, items=tuple(moved))
    shown, _ = galleries(check, check.dataset)
    assert [image.name for image in shown[0].images] == ["t & <i>1"]


@pytest.mark.parametrize(
    ("problems", "level", "title"),
    [
        ([], "good", "Ready to train"),
        ([bad("a", severity="warning")], "warning", "Ready to train, with 1 warning"),
        ([bad("a"), bad("b"), bad("c", severity="warning")], "error", "Not ready: 2 errors"),
    ],
)
def test_the_verdict(problems: list[Problem], level: str, title: str) -> None:
    check = Check(root=Path("x"), layout="", num_images=3, problems=tuple(problems), dataset=None)
    assert (verdict(check).level, verdict(check).title) == (level, title)


def test_problems_are_gathered_by_kind_errors_first() -> None:
    first, second = bad("a", severity="warning", kind="twice"), bad("b", kind="cut off")
    third = bad("c", severity="warning", kind="twice")
    groups = problem_groups([first, second, third])
    assert [(group.kind, list(group.rows)) for group in groups] == [("cut off", [second]), ("twice", [first, third])]
    assert not groups[0].folded
    assert problem_groups([first] * 16)[0].folded


def test_a_place_that_is_no_card_is_refused(tmp_path: Path) -> None:
    check = Check(root=tmp_path, layout=None, num_images=0, problems=(bad("."),), dataset=None)
    with pytest.raises(RequestError, match=r"--out \S*card\.pdf does not end in \.html; accepted"):
        write_card(check, tmp_path / "card.pdf")
    notes = tmp_path / "notes.html"
    notes.write_text("my notes on the pixelwise data card")
    with pytest.raises(RequestError, match=r"notes\.html exists and is no data card; accepted"):
        write_card(check, notes)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(RequestError, match=r"folder\.html exists and is no data card"):
        write_card(check, tmp_path / "folder.html")
    assert notes.read_text() == "my notes on the pixelwise data card"


def test_an_earlier_card_is_replaced(tmp_path: Path) -> None:
    before = Check(root=tmp_path, layout=None, num_images=0, problems=(bad("first"),), dataset=None)
    out = write_card(before, tmp_path / "card.html")
    assert MARK in out.read_text()
    text = Reader(write_card(replace(before, problems=(bad("second"),)), out)).text
    assert "second" in text
    assert "first" not in text


def test_a_card_that_cannot_be_written_is_an_error_of_work(tmp_path: Path) -> None:
    check = Check(root=tmp_path, layout=None, num_images=0, problems=(bad("."),), dataset=None)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match=r"card\.html cannot be written"):
        write_card(check, tmp_path / "file" / "card.html")


def test_shares_are_of_the_labelled_pixels_and_rare_classes_are_named() -> None:
    rows = class_rows(a_card(), [[0, 0, 0]] * 5)
    assert [row.shares[0].text for row in rows] == ["70.00 %", "25.00 %", "4.00 %", "1.00 %", "–", "20.00 %"]
    assert [row.shares[1].text for row in rows] == ["100.00 %", "–", "–", "–", "–", "–"]
    assert [row.shares[0].images for row in rows][:3] == ["11 of 11", "11 of 11", "2 of 11"]
    assert [row.note for row in rows] == [
        "",
        "",
        "rare: in 2 training images only",
        "rare: 1.00 % of the training pixels",
        "not in the training images",
        "",
    ]
    assert rows[-1].hatched


def test_a_tiny_share_never_reads_as_none() -> None:
    counts = {"train": {"ground": 10**9, "common": 0, "seldom": 0, "tiny": 3, "absent": 0, "(ignored)": 0}}
    rows = class_rows(a_card(pixel_counts=counts), [[0, 0, 0]] * 5)
    assert rows[3].shares[0].text == "below 0.01 %"
    assert rows[3].note == "rare: below 0.01 % of the training pixels"


def test_sizes_are_counted() -> None:
    assert [(row.size, row.count, row.share) for row in size_rows(a_card())] == [
        ("10 × 20", "9", 81.82),
        ("5 × 5", "2", 18.18),
    ]


def test_classes_seen_together() -> None:
    together = cooccurrence(a_card())
    assert together is not None
    assert together.names == ["ground", "common", "seldom", "tiny"]
    assert together.absent == 1
    assert [[cell.text for cell in row.cells] for row in together.rows] == [
        ["100", "73", "13", "60"],
        ["100", "100", "18", "82"],
        ["100", "100", "100", "50"],
        ["100", "100", "11", "100"],
    ]
    assert together.rows[2].cells[3].title == "2 images with seldom: 1 also with tiny"
    assert together.rows[0].total == "15"
    assert [(pair.other, pair.one, pair.images) for pair in together.couples[:3]] == [
        ("ground", "common", 11),
        ("ground", "tiny", 9),
        ("common", "tiny", 9),
    ]


@pytest.mark.parametrize(("count", "numbered"), [(30, True), (31, False)])
def test_many_classes_are_drawn_without_numbers(count: int, numbered: bool) -> None:
    names = tuple(f"class {index}" for index in range(count))
    together = cooccurrence(a_card(classes=names, cooccurrence=tuple(tuple(row) for row in np.eye(count, dtype=int))))
    assert together is not None
    assert together.numbered is numbered
    assert len(together.rows[0].cells) == (count if numbered else 1)


def test_warnings_are_told_one_by_one_alone() -> None:
    lines = ("layout: images and masks", "2 warnings, the first (`pixelwise check` tells more): x", "2 files left out")
    assert decisions(a_card(decisions=lines, warnings=2)) == [lines[0], lines[2]]
    assert other_decisions(a_card(decisions=lines, warnings=2)) == ["2 files left out"]


def test_two_classes_need_no_matrix() -> None:
    assert cooccurrence(a_card(classes=("a", "b"), cooccurrence=((3, 1), (1, 2)))) is None


def test_classes_are_painted_over_the_image() -> None:
    image = np.full((4, 6, 3), 100, np.uint8)
    labels = np.array([[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1], [9, 9, 9, 7, 7, 7]])
    paint = Paint(palette=[[0, 0, 0], [200, 0, 0]], ignore_index=9, background=0)
    picture = paint.over(image, labels, None)
    assert (picture[:3, :3] == 100).all()  # background is left as it is
    assert picture[0, 5].tolist() == [150, 50, 50]  # half the class's colour
    assert picture[0, 3].tolist() == [200, 0, 0]  # all of it at the border
    assert {tuple(color) for color in picture[3, :3].tolist()} <= set(HATCH_COLORS)
    assert (picture[3, 3:] == WRONG_COLOR).all()
    painted = replace(paint, background=None).over(image, labels, None)
    assert painted[0, 0].tolist() == [50, 50, 50]


def test_objects_are_outlined() -> None:
    objects = np.zeros((5, 9), np.uint16)
    objects[1:4, 1:4] = 500
    objects[1:4, 4:8] = 7
    expected = [
        "         ",
        " ####### ",
        " # ##  # ",
        " ####### ",
        "         ",
    ]
    edges = outlines(objects)
    assert ["".join("#" if edge else " " for edge in row) for row in edges] == expected
    paint = Paint(palette=[[0, 0, 0], [200, 0, 0]], ignore_index=None, background=0)
    picture = paint.over(np.zeros((5, 9), np.uint8), (objects > 0).astype(np.uint8), objects)
    assert (picture[edges] == OUTLINE_COLOR).all()
    assert not (picture[~edges] == OUTLINE_COLOR).all(axis=-1).any()


def items(count: int) -> list[Item]:
    return [Item(name=str(i), split="train", image=Path(f"{i}.png"), mask=Path(f"{i}.png")) for i in range(count)]


@given(st.lists(st.frozensets(st.integers(0, 5)), min_size=1, max_size=30), st.integers(1, 12))
def test_chosen_images_are_different_in_order_and_show_all_classes_where_possible(
    held: list[frozenset[int]], count: int
) -> None:
    known = items(len(held))
    chosen = choose(known, dict(zip(known, held, strict=True)), count)
    assert len(chosen) == min(count, len(held))
    assert [item for item in known if item in chosen] == chosen
    if count >= 6:  # one image a class is enough
        assert set().union(*(held[known.index(item)] for item in chosen)) == set().union(*held)


def test_images_are_chosen_evenly_after_those_with_rare_classes() -> None:
    known = items(100)
    chosen = choose(known, {item: frozenset({0, 1} if item.name == "37" else {0}) for item in known}, 4)
    assert [item.name for item in chosen] == ["16", "37", "50", "83"]


def test_greys_are_replaced_by_colours_that_show_on_images() -> None:
    grey = a_card(classes=("background", "cell"), palette=((0, 0, 0), (255, 255, 255)))
    assert colours(grey) == ([[0, 0, 0], [230, 159, 0]], False)
    own = ((0, 0, 0), (9, 200, 9))
    assert colours(grey.model_copy(update={"palette": own})) == (own, True)
    assert background_of(grey) == 0
    assert background_of(a_card()) is None


def test_the_shown_dataset_json_says_what_was_recognised(tmp_path: Path) -> None:
    check = a_check(write_folder(tmp_path / "data"))
    assert check.dataset_file is not None
    text = dataset_json(check.dataset_file)
    assert json.loads(text) == check.dataset_file
    assert all(line in Reader(write_card(check, tmp_path / "card.html")).text for line in text.splitlines())
    (tmp_path / "data/dataset.json").write_text(text)
    again = scanned(tmp_path / "data")
    assert again.card.classes == CLASSES
    assert again.card.pixel_counts == check.dataset.card.pixel_counts if check.dataset else False


def test_the_settings_are_those_of_a_configuration(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "my data")
    names = tmp_path / "val.txt"
    ready = make_ready(a_check(root), val_list=names)
    assert ready is not None
    assert ready.command == f"pixelwise train '{root}' --out runs/first --val-list {names}"
    config = build_config(ready.config)
    assert config.data.path == str(root)
    assert config.data.val_list == str(names)
    assert config.data.normalise_per_image is False
    assert config.loss.class_weights == "root_frequency"
    car = 100 * 20 / (4 * 40 * 40)
    assert any(f"holds {car:.2f}% of the pixels" in reason for reason in ready.reasons)


def test_planning_leaves_the_check_as_it_was(tmp_path: Path) -> None:
    check = a_check(write_folder(tmp_path / "data"))
    before = check.card
    make_ready(check)
    assert check.card is before


def test_without_training_images_nothing_is_planned(tmp_path: Path) -> None:
    check = a_check(write_folder(tmp_path / "data", num_train=0))
    assert make_ready(check) is None
    assert "There are no training images" in Reader(write_card(check, tmp_path / "card.html")).text
