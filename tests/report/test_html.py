"""The report of a made-up run: whole, self-contained, escaped, and tolerant of what is missing."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pixelwise.data.pictures import colorize, default_palette
from pixelwise.errors import RequestError, WorkError
from pixelwise.report.curves import Series, draw
from pixelwise.report.html import MAX_EXAMPLES, Example, write_report

VOID_TAGS = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects tags and text, and checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def found(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def class_names(count: int) -> list[str]:
    return ["background", "<b>cell</b>"] if count == 2 else [f"class & {index}" for index in range(count)]


def make_run(run: Path, count: int) -> Path:
    """Write a run folder of a task with `count` classes, the last of them absent."""
    rng = np.random.default_rng(0)
    names = class_names(count)
    matrix = rng.integers(0, 40, (count, count)) + np.diag(rng.integers(500, 5000, count))
    if count > 2:
        matrix[-1] = 0
        matrix[:, -1] = 0
    per_class = {name: class_scores(matrix, index) for index, name in enumerate(names)}
    ious = [row["iou"] for row in per_class.values() if isinstance(row["iou"], float)]
    metrics = {
        "metrics": {
            "miou": float(np.mean(ious)),
            "pixel_accuracy": 0.91,
            "mean_accuracy": 0.8,
            "fwiou": None,
        },
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
        "protocol": {"resolution": "of the labels", "flip": False, "ignored_pixels": 1234, "scales": [1.0]},
        "num_images": 7,
        "iteration": 750,
        "split": "val",
        "per_image": [{"name": "a", "miou": 0.25, "pixel_accuracy": 0.5}, {"name": "b", "miou": None}],
    }
    counts = {split: {name: 100 * index for index, name in enumerate(names)} for split in ("train", "val")}
    card = {
        "name": "fake <data>",
        "classes": names,
        "palette": [*default_palette(count), [1, 2, 3]],
        "ignore_index": 255,
        "num_images": {"train": 20, "val": 7},
        "pixel_counts": counts,
        "image_sizes": [[48, 64, 20], [32, 32, 7]],
        "channels": 3,
        "licence": None,
    }
    metrics["parameters"] = 1_234_567
    config = {"model": "unet_small", "optimizer": {"lr": 0.01}}
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "data_card.json").write_text(json.dumps(card))
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "environment.json").write_text(json.dumps({"python": "3.11", "device": "cpu", "note": "<script>"}))
    (run / "log.jsonl").write_text("\n".join(json.dumps(event) for event in log_events()))
    return run


def class_scores(matrix: np.ndarray, index: int) -> dict[str, float | int | str | None]:
    hit = int(matrix[index, index])
    truth, predicted = int(matrix[index].sum()), int(matrix[:, index].sum())
    if not truth:
        return {"iou": None, "accuracy": None, "dice": None, "truth_pixels": 0, "predicted_pixels": predicted}
    return {
        "iou": hit / (truth + predicted - hit),
        "accuracy": hit / truth,
        "dice": 2 * hit / (truth + predicted),
        "truth_pixels": truth,
        "predicted_pixels": predicted,
        "note": "",
    }


def log_events() -> list[dict[str, object]]:
    events: list[dict[str, object]] = [{"event": "start"}]
    for iteration in range(1, 1001):
        loss = float("nan") if iteration == 17 else 2 / iteration**0.5
        event = {"event": "train", "iteration": iteration, "loss": loss, "lr": 0.01 * (1 - iteration / 1000)}
        events.append(event)
        if iteration % 250 == 0:
            events.append({"event": "validation", "iteration": iteration, "loss": 0.3, "miou": iteration / 2000})
    return events


def make_example(name: str, count: int, height: int = 48, width: int = 64, score: float = 0.5) -> Example:
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(width) * count // width, height).reshape(width, height).T.astype(np.uint8)
    prediction = np.roll(truth, 3, axis=1)
    truth[:4] = 255
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Example(name=name, image=image, truth=truth, prediction=prediction, score=score)


def examples(count: int) -> dict[str, list[Example]]:
    return {
        "best": [make_example("good one", count), make_example("good two", count)],
        "worst": [make_example('bad "<i>one</i>', count, height=700, width=900, score=float("nan"))],
    }


@pytest.mark.parametrize("count", [2, 11, 150])
def test_report_is_whole_and_self_contained(tmp_path: Path, count: int) -> None:
    run = make_run(tmp_path / "run", count)
    before = {path.name for path in run.iterdir()}
    path = write_report(run, **examples(count))
    assert path == run / "report.html"
    assert {entry.name for entry in run.iterdir()} == before | {"report.html"}
    assert path.stat().st_size < 15_000_000

    reader = read(path)
    for _, attributes in reader.tags:
        for key in ("src", "href", "xlink:href", "data", "srcset"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/"))
    assert not re.search(r"url\(|@import", path.read_text(encoding="utf-8"))
    assert not reader.found("script")
    assert not reader.found("link")

    pictures = reader.found("img")
    assert len(pictures) == 4 * 3
    assert all(picture["alt"] for picture in pictures)
    assert max(int(picture["width"] or 0) for picture in pictures) == 480
    assert len(reader.found("svg")) == (3 if count <= 20 else 4)
    assert all("scope" in header for header in reader.found("th"))
    for words in (
        "unet_small on fake <data>",
        "1,234,567",
        "ignored pixels",
        "1,234",
        "750",
        "Largest confusions",
    ):
        assert words in reader.text


@pytest.mark.parametrize("count", [2, 11, 150])
def test_names_are_shown_literally(tmp_path: Path, count: int) -> None:
    reader = read(write_report(make_run(tmp_path, count), **examples(count)))
    for name in class_names(count):
        assert name in reader.text
    assert not reader.found("b")
    assert not reader.found("i")
    assert 'bad "<i>one</i>' in reader.text


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path, 11)
    first = write_report(run, **examples(11)).read_bytes()
    assert write_report(run, **examples(11)).read_bytes() == first


def test_scores_are_percent_and_absent_classes_a_dash(tmp_path: Path) -> None:
    text = read(write_report(make_run(tmp_path, 11), best=[], worst=[])).text
    assert "91.00 %" in text
    assert "absent from the labels, never predicted" in text
    assert "no pixels of this class" in text
    assert "nan" not in text.lower()
    assert "lowest 25.0 %, median 25.0 %, highest 25.0 %" in text
    assert "No example images were given" in text


def test_binary_tasks_tell_the_two_errors_apart(tmp_path: Path) -> None:
    text = read(write_report(make_run(tmp_path, 2), **examples(2))).text
    assert "false positive: <b>cell</b> predicted, not there" in text
    assert "false negative: <b>cell</b> missed" in text
    assert "wrong class" not in text


def test_curves_say_what_they_leave_out(tmp_path: Path) -> None:
    text = read(write_report(make_run(tmp_path, 2), best=[], worst=[])).text
    assert "Each point of the training curves is the mean of 3 logged values." in text
    assert "1 logged training loss(es) are missing or not finite" in text


def test_an_empty_run_folder_names_what_is_missing(tmp_path: Path) -> None:
    text = read(write_report(tmp_path, best=[], worst=[])).text
    for name in ("config.yaml", "environment.json", "data_card.json", "log.jsonl", "metrics.json"):
        assert f"{name} is not in the run folder (yet)." in text


def test_examples_alone_are_shown(tmp_path: Path) -> None:
    example = make_example("alone", 3)
    truth = np.where(example.truth == 255, 0, example.truth).astype(np.uint16)
    alone = Example(name="alone", image=example.image, truth=truth, prediction=example.prediction, score=1.0)
    text = read(write_report(tmp_path, best=[alone], worst=[])).text
    assert "class 2" in text
    assert "class 3" not in text


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", '{"metrics": 3, "classes": 4, "per_class": [1]}'])
def test_damaged_files_do_not_stop_the_report(tmp_path: Path, content: str) -> None:
    for name in ("config.yaml", "environment.json", "data_card.json", "log.jsonl", "metrics.json"):
        (tmp_path / name).write_text(content)
    read(write_report(tmp_path, best=[make_example("x", 3)], worst=[]))


def test_a_cut_log_line_is_counted_and_the_rest_drawn(tmp_path: Path) -> None:
    make_run(tmp_path, 2)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('\n{"event": "train", "iter')
    reader = read(write_report(tmp_path, best=[], worst=[]))
    assert "1 line(s) of log.jsonl could not be read and are left out." in reader.text
    assert len(reader.found("svg")) == 3


def test_a_resumed_run_counts_the_later_entry(tmp_path: Path) -> None:
    losses = [(1, 5.0), (2, 9.0), (2, 3.0)]
    lines = [json.dumps({"event": "train", "iteration": i, "loss": loss, "lr": 0.1}) for i, loss in losses]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    text = read(write_report(tmp_path, best=[], worst=[])).text
    assert "training: from 5 at iteration 1 to 3 at iteration 2, lowest 3, highest 5" in text


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere is not a folder"):
        write_report(tmp_path / "nowhere", best=[], worst=[])


def test_too_many_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"best has 9 examples: a report holds at most {MAX_EXAMPLES}"):
        write_report(tmp_path, best=[make_example("x", 2)] * 9, worst=[])


def test_label_maps_keep_their_exact_colours(tmp_path: Path) -> None:
    example = make_example("x", 11)
    path = write_report(make_run(tmp_path, 11), best=[example], worst=[])
    source = read(path).found("img")[1]["src"] or ""
    image = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
    expected = colorize(example.truth, default_palette(11), outside=(1, 2, 3))
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image.convert("RGB")), expected)


def test_examples_of_unequal_sizes_are_refused() -> None:
    labels = np.zeros((4, 4), dtype=np.uint8)
    with pytest.raises(RequestError, match=r"image \(4, 5\), truth \(4, 4\) and prediction \(4, 4\)"):
        Example(name="x", image=np.zeros((4, 5, 3), dtype=np.uint8), truth=labels, prediction=labels, score=0)


def test_a_failed_write_keeps_the_old_report_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_report(tmp_path, best=[], worst=[]).read_bytes()

    def full(source: Path, target: Path) -> None:
        raise OSError(28, f"No space left for {source} and {target}")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(WorkError, match=r"report\.html cannot be written: No space left"):
        write_report(tmp_path, best=[make_example("x", 2)], worst=[])
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_bytes() == old


def test_axes_of_a_chart() -> None:
    one = Series(label="a", style="s1", points=[(0, 0.0), (100, 1.0)])
    chart = draw("T", [one], 100)
    assert [tick.text for tick in chart.x_ticks] == ["0", "50", "100"]
    assert [tick.text for tick in chart.y_ticks] == ["0", "0.5", "1"]
    assert chart.y_ticks[0].position > chart.y_ticks[-1].position
    assert chart.lines[0].markers == []


def test_a_single_point_and_a_wide_spread_can_be_drawn() -> None:
    single = draw("T", [Series(label="a", style="s1", points=[(5, 0.0)])], 5)
    assert [tick.text for tick in single.x_ticks] == ["0", "2", "4"]
    assert len(single.lines[0].markers) == 1
    wide = draw("T", [Series(label="a", style="s1", points=[(1, 200.0), (2, 1.0)])], 2, may_log=True)
    assert wide.title == "T (logarithmic axis)"
    assert [tick.text for tick in wide.y_ticks] == ["1", "10", "100"]
