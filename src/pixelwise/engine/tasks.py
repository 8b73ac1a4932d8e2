"""What the training of networks needs to know of a task: who prepares its session. All else is the session's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pixelwise.engine import classification, processes, session
from pixelwise.engine.beginning import Session
from pixelwise.engine.config import NetworkConfig
from pixelwise.engine.listener import Listener
from pixelwise.engine.run_folder import RunFolder
from pixelwise.errors import RequestError
from pixelwise.models import model_info

PREPARE: Mapping[str, Callable[..., Session[Any]]] = MappingProxyType(
    {"semantic": session.prepare, "classification": classification.prepare}
)


def prepare(config: NetworkConfig, run: RunFolder, *, resume: bool, started: float, listener: Listener) -> Session[Any]:
    """Check folder and data, complete the configuration and build everything for the model's task.

    Raises:
        RequestError: if the folder, the model's name, the data or the configuration is wrong.
    """
    if not resume:
        processes.first(run.prepare)
    task = model_info(config.model).task
    if task not in PREPARE:
        raise RequestError(
            f"{config.model} is a model for the task {task!r}, which `train` does not know; accepted: models of the "
            f"tasks {', '.join(PREPARE)}. `pixelwise models` lists them."
        )
    return PREPARE[task](config, run, resume=resume, started=started, listener=listener)
