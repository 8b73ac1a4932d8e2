"""What a checked data set is trained with: the command, and the settings that follow from the data alone."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pixelwise.data.check import Check
from pixelwise.engine.config import TrainConfig
from pixelwise.engine.plan import Plan
from pixelwise.engine.plan_data import plan_class_weights, plan_normalisation

RUN_FOLDER = "runs/first"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """How training begins.

    Attributes:
        command: for a shell.
        config: what `config.yaml` will say about the data, nested keys.
        reasons: why, a sentence for each setting that was planned.
    """

    command: str
    config: dict[str, Any]
    reasons: tuple[str, ...]

    @property
    def yaml(self) -> str:
        """The settings as in config.yaml."""
        return yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)


def make_ready(check: Check, *, val_list: Path | None = None, test_list: Path | None = None) -> Ready | None:
    """Plan from the data what can be planned without a model; None where there is nothing to train on.

    Args:
        check: with or without errors.
        val_list: list that the check was made with.
        test_list: likewise.
    """
    if check.dataset is None or not check.dataset.card.num_images.get("train"):
        return None
    lists = {"val_list": val_list, "test_list": test_list}
    given = {key: os.path.abspath(path) for key, path in lists.items() if path is not None}
    data = {"path": os.path.abspath(check.root), **given}
    plan = Plan(TrainConfig.model_validate({"data": data}))
    plan_normalisation(plan, check.dataset.card)
    plan_class_weights(plan, check.dataset)
    words = ["pixelwise", "train", str(check.root), "--out", RUN_FOLDER]
    for key, path in lists.items():
        words += [f"--{key.replace('_', '-')}", str(path)] if path is not None else []
    return Ready(
        command=shlex.join(words),
        config={
            "data": {**data, "normalise_per_image": plan.config.data.normalise_per_image},
            "loss": {"class_weights": plan.config.loss.class_weights},
        },
        reasons=tuple(plan.lines),
    )
