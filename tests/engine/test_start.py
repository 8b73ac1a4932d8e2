"""Where training starts: weights of other classes need a word, and lose their classifier alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixelwise.data.microscopy import write_microscopy
from pixelwise.engine import session as sessions
from pixelwise.engine.config import build_config
from pixelwise.engine.listener import Silent
from pixelwise.engine.model_file import save_model
from pixelwise.engine.run_folder import RunFolder
from pixelwise.engine.session import SemanticSession
from pixelwise.errors import RequestError
from pixelwise.models import create_model

SMALL = {"base_channels": 2, "depth": 2}


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_microscopy(tmp_path / "data", num_train=2, num_val=1, size=(64, 64))  # three classes, grey


def prepared(data: Path, out: Path, listener: Silent, *settings: str) -> SemanticSession:
    config = build_config(
        {"data": {"path": str(data)}, "budget": {"iterations": 1}, "options": SMALL},
        ("data.batch_size=2", "data.crop=[32,32]", "threads=1", *settings),
    )
    return sessions.prepare(config, RunFolder(out), resume=False, started=0.0, listener=listener)


@pytest.fixture
def weights(data: Path, tmp_path: Path) -> Path:
    """Return a model file of five classes."""
    torch.manual_seed(1)
    session = prepared(data, tmp_path / "first", Silent())
    card = session.model_card(0, {}).model_copy(
        update={"num_classes": 5, "classes": tuple("abcde"), "palette": ((0, 0, 0),) * 5}
    )
    save_model(tmp_path / "five.safetensors", create_model("unet_small", num_classes=5, in_channels=1, **SMALL), card)
    return tmp_path / "five.safetensors"


def test_other_classes_are_refused_with_the_way_out(data: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"are of 5 classes, and the data has 3; .* --set replace_classifier=true"):
        prepared(data, tmp_path / "run", Silent(), f"weights={weights}")


def test_a_new_classifier_keeps_all_else(data: Path, weights: Path, tmp_path: Path) -> None:
    heard = Heard()
    session = prepared(data, tmp_path / "run", heard, f"weights={weights}", "replace_classifier=true")
    given, found = load_file(weights), session.model.state_dict()
    assert {key for key in given if given[key].shape != found[key].shape} == {"head.weight", "head.bias"}
    assert all(torch.equal(found[key], given[key]) for key in given if not key.startswith("head."))
    line = next(line for line in heard.lines if "the classifier is new" in line)
    assert f"{len(given) - 2} tensors taken; the classifier is new: head" in line


def test_the_rest_is_held_to_the_model(data: Path, weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    name = next(key for key in tensors if key.startswith("down"))
    tensors["extra"] = tensors.pop(name)
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(
        RequestError, match=r"do not fit unet_small, its classifier aside: 2 differences, such as missing"
    ):
        prepared(
            data, tmp_path / "run", Silent(), f"weights={tmp_path / 'other.safetensors'}", "replace_classifier=true"
        )


@pytest.mark.parametrize("word", ["", "weights=random"])
def test_without_a_file_there_is_nothing_to_replace(data: Path, word: str, tmp_path: Path) -> None:
    settings = [word] if word else []
    with pytest.raises(RequestError, match="replace_classifier has no effect without a file of weights"):
        prepared(data, tmp_path / "run", Silent(), *settings, "replace_classifier=true")
