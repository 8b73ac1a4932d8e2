"""Files of weights as PyTorch programs publish them: a state dict, bare or inside a checkpoint, read without trust."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.errors import RequestError

# Where checkpoints keep the state dict: semseg and mmsegmentation, torchvision's references, timm, segmentation tools.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net")
PARALLEL = "module."  # what `DataParallel` puts before every name


@dataclass(frozen=True, kw_only=True)
class StateFile:
    """A state dict and where in the file it was.

    Attributes:
        path: of the file.
        tensors: by name, on the CPU.
        within: what surrounded them, in words; empty for a bare state dict.
    """

    path: Path
    tensors: dict[str, Tensor]
    within: str = ""


def read_state_file(path: Path) -> StateFile:
    """Read a `.safetensors` file or a `.pth` file as PyTorch saves it.

    A checkpoint with the state dict under one of `WRAPPERS` is opened, and the prefix that `DataParallel` puts before
    all names is taken off. Pickles are read with `weights_only=True`, which executes nothing.

    Raises:
        RequestError: if there is no such file, it is damaged, or it holds something else.
    """
    if not path.is_file():
        raise RequestError(f"weights {path} is not a file; give the path of a .safetensors or .pth file.")
    found = _read(path)
    within: list[str] = []
    while isinstance(found, Mapping) and (key := next((key for key in WRAPPERS if _holds(found, key)), None)):
        found = found[key]
        within.append(f"checkpoint entry {key!r}")
    if not isinstance(found, Mapping) or not found or not all(_is_entry(*entry) for entry in found.items()):
        raise RequestError(
            f"weights {path} holds a {_kind(found)}; accepted: tensors by name, bare or "
            f"under {', '.join(map(repr, WRAPPERS))}. Save `model.state_dict()`."
        )
    if all(name.startswith(PARALLEL) for name in found):
        found = {name.removeprefix(PARALLEL): tensor for name, tensor in found.items()}
        within.append(f"prefix {PARALLEL!r} taken off")
    return StateFile(path=path, tensors=dict(found), within=", ".join(within))


def is_state_file(path: Path) -> bool:
    """Say whether a file looks like one of PyTorch's or of safetensors, by its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return False
    pickled = start[:4] == b"PK\x03\x04" or (
        start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    )
    return pickled or (path.suffix == ".safetensors" and start[8:9] == b"{")


def _read(path: Path) -> object:
    from safetensors.torch import load_file

    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # bytes that are no weights make the readers fail in many ways
        reason = str(error).partition("\n")[0]
        if objects := re.search(r"GLOBAL (\S+)", str(error)):
            raise RequestError(
                f"weights {path} cannot be read: it holds a Python object ({objects[1]}), which could run code; "
                "accepted: tensors, numbers and text. If you trust the file, save its state dict alone first."
            ) from error
        raise RequestError(
            f"weights {path} cannot be read ({reason}); accepted: a whole .safetensors or .pth file of tensors by "
            "name. Copy or download it again."
        ) from error


def _holds(found: Mapping[object, object], key: str) -> bool:
    return isinstance(found.get(key), Mapping)


def _is_entry(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _kind(found: object) -> str:
    if not isinstance(found, Mapping):
        return f"{type(found).__name__} that is not a state dict"
    other = next((f"{key!r}: {type(value).__name__}" for key, value in found.items() if not _is_entry(key, value)), "")
    return f"{type(found).__name__} that is not a state dict ({other or 'empty'})"
