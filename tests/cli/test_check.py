"""`pixelwise check`: what it recognises, and that every problem is in its text, its JSON and its card."""

from __future__ import annotations

import html
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pixelwise.api import check
from pixelwise.errors import RequestError, WorkError

CONTRACT = {"layout", "mask_encoding", "num_images", "classes", "problems"}


def spoil(data: Path) -> dict[str, str]:
    """Break the discs in several ways at once; return the files and whether each is an error or a warning."""

    def copy(source: str, target: str) -> None:
        for kind in ("images", "masks"):
            shutil.copy(data / kind / f"{source}.png", data / kind / f"{target}.png")

    def change(file: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
        with Image.open(data / file) as image:
            array = np.array(image)
        Image.fromarray(edit(array)).save(data / file)

    copy("train/disc2", "train/disc6")
    copy("train/disc2", "val/disc7")
    copy("train/disc3", "train/flat & <b>grey")
    change("images/train/flat & <b>grey.png", lambda image: np.full_like(image, 7))
    copy("train/disc3", "train/disc9")
    change("images/train/disc9.png", lambda image: image[::-1])
    change("masks/train/disc9.png", lambda mask: np.where(mask > 0, 77, 0).astype(np.uint8))
    (data / "masks/train/disc0.png").unlink()
    change("masks/train/disc1.png", lambda mask: mask[:60])
    content = (data / "images/val/disc4.png").read_bytes()
    (data / "images/val/disc4.png").write_bytes(content[: len(content) // 2])
    about = {"name": "discs", "classes": ["background", "disc"], "mask_encoding": "binary"}
    (data / "dataset.json").write_text(json.dumps(about))
    return {
        "images/train/disc0.png": "error",
        "images/train/disc1.png": "error",
        "images/val/disc4.png": "error",
        "masks/train/disc9.png": "error",
        "images/train/disc6.png": "warning",
        "images/val/disc7.png": "warning",
        "images/train/flat & <b>grey.png": "warning",
    }


def test_data_without_problems(pixelwise, data, tmp_path) -> None:
    outcome = pixelwise("check", data)
    assert outcome.code == 0
    assert "masks: binary 0/255 masks: 0 is background, 255 is foreground" in outcome.out
    assert "images: train 4, val 2 (folders), uint8 grey" in outcome.out
    head, *rows = outcome.out.partition("\n\n")[2].splitlines()[:3]
    assert head == "index  class       train pixels  train images  val pixels  val images"
    shares = [float(row.split()[2].rstrip("%")) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=0.01)
    assert [[*row.split()[:2], *row.split()[3::2]] for row in rows] == [
        ["0", "background", "4", "2"],
        ["1", "foreground", "4", "2"],
    ]
    assert "no problems" in outcome.out
    assert f"ready to train:\n  pixelwise train {shlex.quote(str(data))} --out runs/first" in outcome.out
    assert "checking 6/6" in outcome.err


def test_nothing_is_written_unasked(pixelwise, data, tmp_path) -> None:
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert pixelwise("check", data).code == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_every_problem_is_in_text_json_and_card(pixelwise, data, tmp_path) -> None:
    expected = spoil(data)
    out = tmp_path / "cards" / "discs.html"
    text = pixelwise("check", data)
    told = pixelwise("check", data, "--json", "--out", out)
    assert text.code == told.code == 1
    found = json.loads(told.out)
    page = html.unescape(out.read_text(encoding="utf-8"))

    assert found.keys() >= CONTRACT
    assert found["ready"] is False
    assert found["card"] == str(out)
    assert {row["file"]: row["severity"] for row in found["problems"]} == expected
    assert [row["severity"] for row in found["problems"]] == sorted(row["severity"] for row in found["problems"])
    for row in found["problems"]:
        assert all(row[key] for key in ("file", "problem", "severity", "kind"))
        assert f"{row['severity']:8}{row['file']}: {row['problem']}" in text.out
        assert row["file"] in page
        assert row["problem"] in page
    errors = sum(row["severity"] == "error" for row in found["problems"])
    assert f"error: {data} is not ready: {errors} errors, listed above; accepted: data without" in text.err
    assert "ready to train" not in text.out


def test_json_of_data_that_is_ready(pixelwise, data, quick, tmp_path) -> None:
    outcome = pixelwise("check", data, "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["num_images"] == 6
    assert found["classes"] == ["background", "foreground"]
    assert found["mask_encoding"].startswith("binary 0/255 masks")
    assert found["problems"] == []
    assert found["ready"] is True
    assert found["card"] is None
    assert found["dataset_json"]["classes"] == ["background", "foreground"]

    # The settings are those that training takes.
    assert pixelwise("train", data, "--out", tmp_path / "run", *quick).code == 0
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    for part, values in found["config"].items():
        assert {key: config[part][key] for key in values} == values


def test_lists_settle_the_splits(pixelwise, data, tmp_path) -> None:
    for kind in ("images", "masks"):
        for path in (data / kind / "val").iterdir():
            path.rename(data / kind / "train" / path.name)
        (data / kind / "val").rmdir()
    (tmp_path / "val.txt").write_text("disc0\n")
    (tmp_path / "test.txt").write_text("disc1\n")
    lists = ("--val-list", tmp_path / "val.txt", "--test-list", tmp_path / "test.txt")
    found = json.loads(pixelwise("check", data, *lists, "--json").out)
    assert found["config"]["data"]["val_list"] == str(tmp_path / "val.txt")
    assert found["config"]["data"]["test_list"] == str(tmp_path / "test.txt")
    text = pixelwise("check", data, *lists).out
    assert "images: train 4, val 1, test 1 (" in text
    assert f"--val-list {tmp_path / 'val.txt'} --test-list {tmp_path / 'test.txt'}" in text


def test_a_folder_that_does_not_exist(refused, tmp_path) -> None:
    message = refused("check", tmp_path / "nowhere", "--out", tmp_path / "card.html").err
    assert f"data folder {tmp_path / 'nowhere'} does not exist" in message


@pytest.mark.parametrize("name", ["card", "card.pdf", "html"])
def test_a_card_of_another_kind(refused, data, tmp_path, name) -> None:
    message = refused("check", data, "--out", tmp_path / name).err
    assert f"--out {tmp_path / name} does not end in .html; accepted: a file name such as card.html" in message


def test_a_card_in_the_place_of_another_file(refused, data, tmp_path) -> None:
    (tmp_path / "notes.html").write_text("<p>mine</p>")
    message = refused("check", data, "--out", tmp_path / "notes.html").err
    assert f"--out {tmp_path / 'notes.html'} exists and is no data card" in message


def test_a_card_that_cannot_be_written(refused, data, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    message = refused("check", data, "--out", tmp_path / "file/card.html", code=1).err
    assert "cannot be written" in message


def test_from_python(data, tmp_path) -> None:
    seen: list[tuple[int, int]] = []
    found = check(str(data), out=str(tmp_path / "card.html"), on_image=lambda done, total: seen.append((done, total)))
    assert found.ready
    assert found.classes == ("background", "foreground")
    assert seen[-1] == (6, 6)
    assert (tmp_path / "card.html").exists()
    with pytest.raises(RequestError, match=r"does not end in \.html"):
        check(data, out=tmp_path / "card.txt")
    with pytest.raises(WorkError, match="cannot be written"):
        check(data, out=tmp_path / "card.html" / "card.html")


def test_the_same_problem_of_many_files_is_said_once_with_all_of_them(pixelwise, data) -> None:
    masks = sorted((data / "masks/train").iterdir())
    for path in masks:
        Image.open(path).convert("L").save(path.with_suffix(".jpg"))
        path.unlink()
    outcome = pixelwise("check", data)
    assert outcome.code == 1
    assert outcome.out.count("is compressed as JPEG") == 1
    assert f"error   {len(masks)} files: each is compressed as JPEG" in outcome.out
    assert all(f"            masks/train/{path.stem}.jpg\n" in outcome.out for path in masks)
