"""The folder of a training run: where each file lies, and the state from which a run goes on."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pixelwise.engine import processes
from pixelwise.engine.model_file import read_tensors
from pixelwise.errors import RequestError
from pixelwise.files import cannot_write, check_writable, is_leftover, write_atomically

STATE_KEY = "pixelwise_state"


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run, and how its files are written.

    `last/checkpoint.safetensors` holds weights, optimiser, random states and the iteration in one file, so that
    it is replaced in one step: a run that is killed at any moment finds a whole one.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def log(self) -> Path:
        """One JSON object a line: training and validation events."""
        return self.root / "log.jsonl"

    @property
    def metrics(self) -> Path:
        """Scores of the best model on the validation set."""
        return self.root / "metrics.json"

    @property
    def card(self) -> Path:
        """The data card."""
        return self.root / "data_card.json"

    @property
    def environment(self) -> Path:
        """Machine and software of the run's beginning."""
        return self.root / "environment.json"

    @property
    def best(self) -> Path:
        """The best model by validation score."""
        return self.root / "best.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Everything needed to go on."""
        return self.root / "last" / "checkpoint.safetensors"

    def prepare(self) -> None:
        """Check that the folder is new or empty and can be written to, before any work is spent; nothing is made.

        Raises:
            RequestError: if a file of that name or another run is there.
            WorkError: if the place cannot be written to.
        """
        if self.root.exists() and not self.root.is_dir():
            raise RequestError(f"--out {self.root} is a file; accepted: a new or empty folder. Choose another name.")
        if self.root.is_dir() and any(not is_leftover(path) for path in self.root.iterdir()):
            what = "a run" if self.config.exists() else "other files"
            raise RequestError(
                f"--out {self.root} already holds {what}; accepted: a new or empty folder. Choose another name"
                + (", or go on with --resume." if self.config.exists() else ".")
            )
        check_writable(self.root)

    def remove_leftovers(self) -> None:
        """Remove the temporary files of a process that was killed while it wrote."""
        for folder in (self.root, self.checkpoint.parent):
            for path in folder.iterdir() if folder.is_dir() else ():
                if is_leftover(path):
                    path.unlink(missing_ok=True)

    def write_json(self, path: Path, value: object) -> None:
        """Write a JSON file of the run."""
        write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def read_metrics(self) -> dict[str, Any]:
        """Read the scores of the best model."""
        try:
            value = json.loads(self.metrics.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RequestError(
                f"{self.root} holds no metrics.json; accepted: a run that was validated at least once. Go on training."
            ) from None
        except (OSError, ValueError) as error:
            raise RequestError(f"{self.metrics} cannot be read ({error}). Restore the file, or train again.") from error
        keys = ("metrics", "per_class", "per_image", "iteration")
        if not isinstance(value, dict) or not all(key in value for key in keys):
            raise RequestError(
                f"{self.metrics} lacks one of {', '.join(keys)}; accepted: the file as training writes it. "
                "Restore it, or train again."
            )
        return value

    def append_log(self, event: Mapping[str, Any]) -> None:
        """Append an event to the log."""
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event, ensure_ascii=False) + "\n")
        except OSError as error:
            raise cannot_write(self.log, error) from error

    def cut_log(self, iteration: int) -> None:
        """Drop the events after an iteration, which will be written again."""
        if not self.log.exists():
            return
        kept: list[str] = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a line that a kill cut off
            if event.get("iteration", 0) <= iteration:
                kept.append(line)
        write_atomically(self.log, "".join(line + "\n" for line in kept))


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        iteration: optimiser steps done.
        best_score: best validation score so far, None before the first.
        best_iteration: when it was reached.
        seconds: wall-clock seconds of training so far, over all resumptions.
        losses: of the iterations since the last training event of the log.
    """

    iteration: int = 0
    best_score: float | None = None
    best_iteration: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    models: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
) -> None:
    """Write everything that decides how training goes on; `models` have names without a dot.

    Every process takes part, since each has random numbers of its own.
    """
    tensors: dict[str, Tensor] = {}
    for name, model in models.items():
        tensors |= {f"{name}.{key}": value for key, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    for rank, states in enumerate(processes.gathered(_random_states())):
        tensors |= {_random_key(kind, rank): value for kind, value in states.items()}
    state = {"progress": vars(progress), "scaler": scaler.state_dict()}
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    processes.first(lambda: write_atomically(path, save(plain, {STATE_KEY: json.dumps(state)})))


def _random_states() -> dict[str, Tensor]:
    """Return the states of this process's random numbers."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _random_key(kind: str, rank: int) -> str:
    """Name the state of a process: "random.cpu" for the first, then "random.cpu.1", ..."""
    return f"random.{kind}" + (f".{rank}" if rank else "")


def load_checkpoint(
    path: Path, models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> Progress:
    """Bring models, optimiser, scaler and random states to where a run stopped.

    Random numbers of a process that the run did not have then go on as they are.
    """
    tensors, metadata = read_tensors(path)
    if STATE_KEY not in metadata:
        raise RequestError(f"{path} is no training state of pixelwise. Restore the file, or train into a new folder.")
    try:
        for name, model in models.items():
            own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            model.load_state_dict(own)
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        saved = json.loads(metadata[STATE_KEY])
        scaler.load_state_dict(saved["scaler"])
        progress = Progress(**saved["progress"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{path} does not fit this run's config.yaml ({str(error).splitlines()[0]}). "
            "Restore both files, or train into a new folder."
        ) from error
    cpu, cuda = (_random_key(kind, processes.rank()) for kind in ("cpu", "cuda"))
    if cpu in tensors:
        torch.set_rng_state(tensors[cpu])
    if cuda in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[cuda])
    return progress


def environment(device: str) -> dict[str, str]:
    """Describe the machine and the software, for environment.json."""
    packages = ("pixelwise", "numpy", "opencv-python-headless", "scikit-image", "scikit-learn", "safetensors")
    facts = {name: version(name) for name in packages}
    facts |= {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
