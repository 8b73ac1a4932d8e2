"""What the configurations of all trainings share, whatever the task: a model, its data and a length."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pixelwise.engine.model_file import Option


class SourceConfig(BaseModel):
    """Where the data lies.

    Attributes:
        path: dataset folder.
        val_list: file with the names of the validation items, where the data has no val split.
        test_list: file with the names of items that are neither trained on nor validated on.
        cache_gb: memory for decoded images, in GB.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    val_list: str | None = None
    test_list: str | None = None
    cache_gb: float | None = Field(None, ge=0)


class Budget(BaseModel):
    """How long to train: one of these. A time is turned into iterations once, after a short calibration.

    Attributes:
        minutes: wall-clock minutes of the whole run.
        cpu_minutes: minutes of process CPU time of the whole run, all threads added.
        epochs: passes over the training images.
        iterations: optimiser steps, or rounds of boosting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    minutes: float | None = Field(None, gt=0, allow_inf_nan=False)
    cpu_minutes: float | None = Field(None, gt=0, allow_inf_nan=False)
    epochs: float | None = Field(None, gt=0, allow_inf_nan=False)
    iterations: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Budget:
        given = [key for key, value in self.model_dump().items() if value is not None]
        if len(given) > 1:
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"{' and '.join(given)} are given; accepted: one of {known}. Choose one")
        return self


class RunConfig(BaseModel):
    """What decides a training run, whatever is trained.

    Attributes:
        model: public name.
        options: the model's own options.
        iterations: optimiser steps, or rounds of boosting, in all.
        val_every: iterations between validations.
        early_stop: validations without a better score after which training ends; 0 for never.
        seed: of all random numbers.
        threads: that compute on the CPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "unet_small"
    options: dict[str, Option] = Field(default_factory=dict)
    data: SourceConfig
    budget: Budget = Field(default_factory=Budget)
    iterations: int | None = Field(None, ge=1)
    val_every: int | None = Field(None, ge=1)
    early_stop: int = Field(0, ge=0)
    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, ge=1)
