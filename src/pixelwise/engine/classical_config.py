"""The configuration of a classical pipeline's training: its data, its own options, and a number of boosting rounds."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from pixelwise.engine.base_config import RunConfig, SourceConfig


class ClassicalDataConfig(SourceConfig):
    """What a classical pipeline is trained on.

    Attributes:
        scale: factor by which images are resized before the filters; scores are taken at the labels' own size.
    """

    scale: float | None = Field(None, gt=0, le=4)


class ClassicalConfig(RunConfig):
    """Everything that decides the training of a classical pipeline; `iterations` are rounds of boosting."""

    data: ClassicalDataConfig

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.budget.epochs is not None:
            raise ValueError(
                f"epochs={self.budget.epochs:g} has no effect on {self.model}, every round of which sees all training "
                "images; accepted: minutes, cpu_minutes or iterations, which are rounds of boosting. Give one of them"
            )
        if "seed" in self.options:
            raise ValueError(
                f"options.seed={self.options['seed']} has no effect beside the run's own seed; accepted: seed. Give "
                "--seed instead"
            )
        return self
