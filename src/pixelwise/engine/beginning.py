"""What the sessions of all tasks share: one step of training, and all that comes before the first one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic

import cv2
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from pixelwise.backbones.transplant import read_weights, transplant
from pixelwise.data.loader import AnyItem, Batch, Samples, batches
from pixelwise.engine import processes
from pixelwise.engine.averaging import Average
from pixelwise.engine.base_config import RunConfig
from pixelwise.engine.config import RANDOM, NetworkConfig, dump_config
from pixelwise.engine.keeping import Judgement
from pixelwise.engine.listener import Listener
from pixelwise.engine.model_file import ModelCard, build_model
from pixelwise.engine.plan import DEFAULT_MINUTES, AnyConfig, AnyRun, Clock, Costs, Plan, measure
from pixelwise.engine.precise_batch_norm import measure_statistics
from pixelwise.engine.run_folder import RunFolder, environment
from pixelwise.engine.schedule import build_optimizer, freeze
from pixelwise.engine.start import (
    check_classes,
    classifier_card,
    said,
    take_but_classifier,
    take_from_classifier,
    weights_file,
)
from pixelwise.files import write_atomically

CALIBRATION_SHARE = 0.02  # of a time budget


@dataclass(kw_only=True)
class Session(Generic[AnyItem]):
    """All that a training loop works with, built from a resolved configuration; a task says what is missing here.

    Attributes:
        metric: the score by which the best model is chosen.
        class_metric: the score of a class that is logged.
    """

    metric: ClassVar[str]
    class_metric: ClassVar[str]

    config: NetworkConfig
    run: RunFolder
    model: nn.Module
    average: Average | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    crops: Samples
    validation: Sequence[AnyItem]
    _shared: tuple[nn.Module, Callable[[Tensor], Any]] | None = None

    @property
    def judged(self) -> nn.Module:
        """The model that is validated and kept: the average of the weights, where one is taken."""
        return self.model if self.average is None else self.average.model

    @property
    def models(self) -> dict[str, nn.Module]:
        """All that a checkpoint must hold, by name."""
        return {"model": self.model} | ({} if self.average is None else {"average": self.average.model})

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: Sequence[Batch]) -> float:
        """Do one optimiser step over batches and return their mean loss; if it is not finite, nothing was updated."""
        optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for number, batch in enumerate(step, start=1):
            with processes.gradients_wait(self.network(model), number < len(step)):
                loss = self.loss_of(model, batch) / len(step)
                value += float(loss.detach())
                if not math.isfinite(value):
                    return value
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.config.optimizer.clip_norm:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), self.config.optimizer.clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        return value

    def network(self, model: nn.Module) -> Callable[[Tensor], Any]:
        """Return what `forward` gives of a model as a function of images; several processes share its gradients."""
        if processes.count() == 1:
            return partial(self.forward, model)
        if self._shared is None or self._shared[0] is not model:
            self._shared = model, processes.parallel(model, self.forward)
        return self._shared[1]

    def measure_statistics(self) -> None:
        """Measure the statistics of batch normalisation on training batches, where the configuration wants that.

        Every process does so, on the whole batches: the statistics are then the same in all of them.
        """
        count, size = self.config.precise_batch_norm, self.config.data.batch_size or 1
        if count:
            stream = batches(self.crops, batch_size=size, first=0, last=count, num_workers=0)
            measure_statistics(self.judged, (batch.images.to(self.config.device) for batch in stream))

    def forward(self, model: nn.Module, images: Tensor) -> Any:
        """Return the output of a training batch (N, C, H, W)."""
        raise NotImplementedError

    def loss_of(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar that is the same in all processes; the output is `network`'s."""
        raise NotImplementedError

    def validate(self, model: nn.Module, items: Sequence[AnyItem]) -> Judgement:
        """Score a model on items, which several processes share, and leave it in training mode; all get all scores."""
        raise NotImplementedError

    def model_card(self, iteration: int, metrics: dict[str, float | None]) -> ModelCard:
        """Describe the model as it is now, for its file."""
        raise NotImplementedError


def use_threads(config: RunConfig) -> None:
    """Let PyTorch and OpenCV use the configuration's number of threads."""
    torch.set_num_threads(config.threads or 1)
    cv2.setNumThreads(config.threads or 1)


def plan_budget(plan: Plan[AnyRun], listener: Listener) -> None:
    """Settle a budget where none was given, and tell people where it takes a measurement."""
    budget = plan.config.budget
    if plan.config.iterations is None and not budget.epochs and not budget.iterations:
        listener.say("measuring the speed of training")
    if plan.config.iterations is None and not any(budget.model_dump().values()):
        plan.decide(
            f"none was given: {DEFAULT_MINUTES:g} minutes",
            budget=budget.model_copy(update={"minutes": DEFAULT_MINUTES}),
        )


def write_first_files(
    plan: Plan[AnyRun], run: RunFolder, card: BaseModel, *, resume: bool, listener: Listener, device: str = "cpu"
) -> None:
    """Tell people what was planned, and write configuration, data card and environment into the run folder."""
    for line in plan.lines:
        listener.say(f"planned: {line}")
    processes.check_agreement(dump_config(plan.config))

    def write() -> None:
        run.remove_leftovers()
        if not resume:  # the configuration first: a folder that has it can be resumed
            write_atomically(run.config, dump_config(plan.config))
        if not run.card.exists():
            run.write_json(run.card, card.model_dump(mode="json"))
        if not run.environment.exists():
            run.write_json(run.environment, environment(device))

    processes.first(write)


def calibrate(session: Session[AnyItem], clock: Clock) -> Costs:
    """Measure the cost of an iteration and of a validation on a copy of the model."""
    config = session.config
    assert config.data.batch_size is not None

    optimizers: dict[nn.Module, torch.optim.Optimizer] = {}

    def step(twin: nn.Module, batch: Batch) -> None:
        if twin not in optimizers:
            optimizers[twin] = build_optimizer(config.optimizer, twin)
        session.step(twin, optimizers[twin], [batch] * config.optimizer.accumulate)

    def validate(twin: nn.Module, items: Sequence[AnyItem]) -> None:
        session.validate(twin, items)

    return measure(
        clock.now,
        step,
        session.model,
        session.crops,
        config.data.batch_size,
        validate,
        session.validation,
        seconds=CALIBRATION_SHARE * clock.limit,
    )


def build_network(plan: Plan[AnyConfig], *, num_classes: int, in_channels: int) -> nn.Module:
    """Build the model that the plan names, with the weights that it starts from and the layers that it freezes."""
    config = plan.config
    torch.manual_seed(config.seed)
    classifier, file = classifier_card(config), weights_file(config)
    own = None if config.weights == RANDOM or classifier else str(file) if file else config.weights
    check_classes(config, num_classes)
    model = build_model(
        config.model,
        num_classes=num_classes,
        in_channels=in_channels,
        weights=None if config.replace_classifier else own,
        options=config.options,
    )
    if own and config.replace_classifier:
        plan.note(take_but_classifier(config, model, num_classes=num_classes, in_channels=in_channels))
    if classifier is not None:
        plan.note(said(classifier, take_from_classifier(config, classifier, model, in_channels=in_channels)))
    if config.transplant:
        copied = transplant(read_weights(Path(config.transplant)), model)
        plan.note(f"transplant = {config.transplant} ({len(copied.copied)} tensors taken, {len(copied.new)} are new)")
    frozen = freeze(config.optimizer, model)
    if frozen:
        plan.note(f"optimizer.layers freezes {frozen:,} parameters")
    return model
