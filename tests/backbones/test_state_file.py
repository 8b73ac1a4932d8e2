"""State dicts as they are found: bare, in checkpoints, with the prefix of parallel training; and what is refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pixelwise.backbones.state_file import is_state_file, read_state_file
from pixelwise.errors import RequestError

TENSORS = {"a.weight": torch.arange(4.0), "b": torch.ones(2, 3)}
PARALLEL = {f"module.{name}": tensor for name, tensor in TENSORS.items()}


@pytest.mark.parametrize(
    ("content", "within"),
    [
        (TENSORS, ""),
        ({"state_dict": TENSORS, "epoch": 3}, "checkpoint entry 'state_dict'"),
        ({"model": TENSORS, "optimizer": {"lr": 0.1}, "args": [1, "x", None]}, "checkpoint entry 'model'"),
        (PARALLEL, "prefix 'module.' taken off"),
        ({"state_dict": PARALLEL, "meta": {}}, "checkpoint entry 'state_dict', prefix 'module.' taken off"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_forms_of_a_state_dict(content: object, within: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_state_file(path)
    assert found.within == within
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in found.tensors.items())
    assert is_state_file(path)


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(TENSORS, path)
    assert torch.equal(read_state_file(path).tensors["b"], TENSORS["b"])
    assert is_state_file(path)


def test_a_tensor_called_module_is_no_prefix(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pth")
    assert set(read_state_file(tmp_path / "w.pth").tensors) == {"module.a", "b"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list that is not a state dict"),
        ({"lr": 0.1}, r"holds a dict that is not a state dict \('lr': float\); accepted"),
        ({}, r"not a state dict \(empty\)"),
        ({"state_dict": {"a": torch.ones(1), "b": "text"}}, r"not a state dict \('b': str\)"),
        ({"state_dict": TENSORS, "args": argparse.Namespace(lr=1)}, r"it holds a Python object \(argparse.Namespace\)"),
    ],
)
def test_other_contents_are_refused(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(RequestError, match=message):
        read_state_file(tmp_path / "w.pth")


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"GIF89a"])
def test_damaged_files_are_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(TENSORS, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RequestError, match=r"w\.pth cannot be read .*Copy or download it again"):
        read_state_file(path)


def test_other_kinds_of_files_are_told_apart(tmp_path: Path) -> None:
    for content in (b"", b"\x0a\x04name", b"\x80", b"{}"):
        (tmp_path / "net.caffemodel").write_bytes(content)
        assert not is_state_file(tmp_path / "net.caffemodel")
    assert not is_state_file(tmp_path / "none")
