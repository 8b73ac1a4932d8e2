"""All that a training run works with, built from a configuration, the data and the machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from torch import nn

from pixelwise.backbones.transplant import read_weights, transplant
from pixelwise.data.dataset import Item, open_dataset
from pixelwise.data.loader import Batch, Crops, batches
from pixelwise.data.pictures import default_palette
from pixelwise.data.scan import DataCard, Dataset, scan
from pixelwise.engine.averaging import Average
from pixelwise.engine.batch_norm import renormalise
from pixelwise.engine.coarse import coarse_scores, labels_of_scores, score_margin
from pixelwise.engine.config import TrainConfig, dump_config
from pixelwise.engine.evaluate import Evaluation, evaluate_items
from pixelwise.engine.model_file import ModelCard, build_model
from pixelwise.engine.plan import (
    DEFAULT_MINUTES,
    Clock,
    Costs,
    Plan,
    measure,
    plan_length,
    plan_machine,
    plan_scale,
    plan_windows,
)
from pixelwise.engine.plan_data import plan_batch_norm, plan_class_weights, plan_foreground_crops, plan_normalisation
from pixelwise.engine.precise_batch_norm import measure_statistics
from pixelwise.engine.predict import Segmenter
from pixelwise.engine.run_folder import RunFolder, environment
from pixelwise.engine.schedule import build_optimizer, freeze
from pixelwise.engine.targets import Separation, background_of
from pixelwise.errors import RequestError
from pixelwise.files import write_atomically
from pixelwise.losses.segmentation import SegmentationLoss, class_weights, most_frequent_class
from pixelwise.models import model_info
from pixelwise.structures import SegmentationOutput, aux_weights_of, size_rule_of

CALIBRATION_SHARE = 0.02  # of a time budget


class Listener(Protocol):
    """Who wants to hear how training goes: the command line, a notebook, nobody."""

    def say(self, line: str) -> None:
        """Take a sentence for people."""

    def step(self, iteration: int, iterations: int, loss: float) -> None:
        """Take note of an iteration."""

    def validated(self, event: dict[str, Any]) -> None:
        """Take the scores of a validation."""


class Silent:
    """A listener that does nothing."""

    def say(self, line: str) -> None:
        """Ignore a sentence."""

    def step(self, iteration: int, iterations: int, loss: float) -> None:
        """Ignore an iteration."""

    def validated(self, event: dict[str, Any]) -> None:
        """Ignore scores."""


@dataclass(kw_only=True)
class Session:
    """All that a training loop works with, built from a resolved configuration."""

    config: TrainConfig
    run: RunFolder
    dataset: Dataset
    model: nn.Module
    average: Average | None
    optimizer: torch.optim.Optimizer
    loss: SegmentationLoss
    scaler: torch.amp.GradScaler
    crops: Crops
    validation: Sequence[Item]

    @property
    def judged(self) -> nn.Module:
        """The model that is validated and kept: the average of the weights, where one is taken."""
        return self.model if self.average is None else self.average.model

    @property
    def models(self) -> dict[str, nn.Module]:
        """All that a checkpoint must hold, by name."""
        return {"model": self.model} | ({} if self.average is None else {"average": self.average.model})

    @property
    def card(self) -> DataCard:
        """The data's card."""
        return self.dataset.card

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: Sequence[Batch]) -> float:
        """Do one optimiser step over batches and return their mean loss; if it is not finite, nothing was updated."""
        optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for batch in step:
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

    def loss_of(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch, a scalar."""
        config, device = self.config, self.config.device
        images = batch.images.to(device, non_blocking=True, memory_format=torch.channels_last)
        labels = batch.labels.to(device, non_blocking=True)
        weights = None if batch.weights is None else batch.weights.to(device, non_blocking=True)
        half = getattr(torch, config.precision)
        with torch.autocast(torch.device(device).type, dtype=half, enabled=config.precision != "float32"):
            output = self.forward(model, images)
        if config.train_on == "scores":
            labels = labels_of_scores(model, labels, output.logits)
        loss: torch.Tensor = self.loss(output.logits, labels, weights)
        for factor, aux in zip(aux_weights_of(model) if output.aux else (), output.aux, strict=True):
            loss = loss + factor * self.loss(aux, labels, weights)
        return loss

    def measure_statistics(self) -> None:
        """Measure the statistics of batch normalisation on training batches, where the configuration wants that."""
        count, size = self.config.precise_batch_norm, self.config.data.batch_size or 1
        if count:
            stream = batches(self.crops, batch_size=size, first=0, last=count, num_workers=0)
            measure_statistics(self.judged, (batch.images.to(self.config.device) for batch in stream))

    def forward(self, model: nn.Module, images: torch.Tensor) -> SegmentationOutput:
        """Return the logits of a training batch, and the auxiliary ones where the model has them."""
        try:
            if self.config.train_on == "scores":
                return SegmentationOutput(coarse_scores(model, images))
            output: SegmentationOutput = model(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise RequestError(
                f"a batch of {len(images)} windows of {images.shape[2]} x {images.shape[3]} leaves batch normalisation "
                "a single value; accepted: larger windows or batches. Give --set data.crop or data.batch_size."
            ) from error
        return output

    def validate(self, model: nn.Module, items: Sequence[Item]) -> Evaluation:
        """Score a model on items, and leave it in training mode."""
        model.eval()
        segmenter = Segmenter(model=model, card=self.model_card(0, {}))
        evaluation = evaluate_items(segmenter, self.dataset, items, split="val")
        model.train()
        return evaluation

    def model_card(self, iteration: int, metrics: dict[str, float | None]) -> ModelCard:
        """Describe the model as it is now, for its file."""
        card = self.card
        return ModelCard(
            pixelwise=version("pixelwise"),
            model=self.config.model,
            options=self.config.options,
            num_classes=len(card.classes),
            in_channels=card.channels,
            classes=card.classes,
            palette=palette_of(card),
            ignore_index=card.ignore_index,
            boundary_class=card.boundary_class,
            mask_encoding=card.mask_encoding.kind,
            normalisation=card.normalisation,
            scale=self.config.data.scale or 1.0,
            input_rule=size_rule_of(self.model).describe(),
            licence=card.licence,
            iteration=iteration,
            metrics=metrics,
        )


def prepare(config: TrainConfig, run: RunFolder, *, resume: bool, started: float, listener: Listener) -> Session:
    """Check the data, complete the configuration and build everything; writes the run's first files."""
    if not resume:
        run.prepare()
    name = model_info(config.model).name
    plan = plan_machine(config)
    if name != config.model:
        plan.decide(f"{config.model} is an alias of it", model=name)
    config = plan.config
    lists = {key: Path(path) for key in ("val_list", "test_list") if (path := getattr(config.data, key)) is not None}
    folder = open_dataset(Path(config.data.path), **lists)
    items = [*folder.split("train"), *folder.split("val")]
    listener.say(f"reading {len(items)} images and their masks")
    dataset = scan(folder, items, cache_bytes=int((config.data.cache_gb or 0) * 1e9))
    for line in dataset.card.decisions:
        listener.say(line)
    torch.set_num_threads(config.threads or 1)
    cv2.setNumThreads(config.threads or 1)
    plan_normalisation(plan, dataset)
    plan_class_weights(plan, dataset)
    if plan.config.iterations is None and not plan.config.budget.epochs and not plan.config.budget.iterations:
        listener.say("measuring the speed of training")
    session = complete(plan, dataset, run, started)
    for line in plan.lines:
        listener.say(f"planned: {line}")
    run.remove_leftovers()
    if not resume:  # the configuration first: a folder that has it can be resumed
        write_atomically(run.config, dump_config(session.config))
    if not run.card.exists():
        run.write_json(run.card, dataset.card.model_dump(mode="json"))
    if not run.environment.exists():
        run.write_json(run.environment, environment(config.device))
    return session


def complete(plan: Plan, dataset: Dataset, run: RunFolder, started: float) -> Session:
    """Settle scale, windows and length, with a calibration where the budget is a time, and build the session."""
    budget = plan.config.budget
    if plan.config.iterations is None and not any(budget.model_dump().values()):
        plan.decide(
            f"none was given: {DEFAULT_MINUTES:g} minutes",
            budget=budget.model_copy(update={"minutes": DEFAULT_MINUTES}),
        )
    num_train, num_val = len(dataset.folder.split("train")), len(dataset.folder.split("val"))
    given = plan.config
    session = build(plan, dataset, run)
    clock = Clock.of(plan.config, started) if plan.config.iterations is None else None
    costs, left = None, None
    if clock is None and plan.config.data.scale is None:
        plan.decide("the images' own size", scale=1.0)
    if clock is not None:
        costs = _calibrate(session, clock)
        left = clock.limit - clock.now()
        if given.data.scale is None and plan_scale(plan, dataset.card, costs, left * 0.9):
            plan.config = plan.config.model_copy(
                update={
                    "data": plan.config.data.model_copy(
                        update={
                            "crop": given.data.crop,
                            "batch_size": given.data.batch_size,
                            "foreground_crops": given.data.foreground_crops,
                        }
                    ),
                    "batch_norm": given.batch_norm,
                }
            )
            session = build(plan, dataset, run)
            costs = _calibrate(session, clock)
            left = clock.limit - clock.now()
    plan_length(plan, num_train, num_val, costs, left)
    session.config = plan.config
    return session


def _calibrate(session: Session, clock: Clock) -> Costs:
    """Measure the cost of an iteration and of a validation on a copy of the model."""
    config = session.config
    assert config.data.batch_size is not None

    optimizers: dict[nn.Module, torch.optim.Optimizer] = {}

    def step(twin: nn.Module, batch: Batch) -> None:
        if twin not in optimizers:
            optimizers[twin] = build_optimizer(config.optimizer, twin)
        session.step(twin, optimizers[twin], [batch] * config.optimizer.accumulate)

    def validate(twin: nn.Module, items: Sequence[Item]) -> None:
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


def build(plan: Plan, dataset: Dataset, run: RunFolder) -> Session:
    """Build model, optimiser, loss and windows for the plan as it stands; crop and batch are settled here."""
    config, card = plan.config, dataset.card
    torch.manual_seed(config.seed)
    model = build_model(
        config.model,
        num_classes=len(card.classes),
        in_channels=card.channels,
        weights=config.weights,
        options=config.options,
    )
    if config.transplant:
        copied = transplant(read_weights(Path(config.transplant)), model)
        plan.note(f"transplant = {config.transplant} ({len(copied.copied)} tensors taken, {len(copied.new)} are new)")
    frozen = freeze(config.optimizer, model)
    if frozen:
        plan.note(f"optimizer.layers freezes {frozen:,} parameters")
    rule = size_rule_of(model)
    plan_windows(plan, card, rule)
    plan_foreground_crops(plan, card)
    plan_batch_norm(plan, model)
    config = plan.config
    if config.batch_norm == "renorm":
        renormalise(model)
    model = model.to(config.device).to(memory_format=torch.channels_last).train()
    weights = class_weights(config.loss.class_weights, card.pixel_counts["train"], card.classes)
    loss = SegmentationLoss(config.loss, ignore_index=card.ignore_index, weights=weights).to(config.device)
    crops = Crops(
        dataset,
        dataset.folder.split("train"),
        crop=config.data.crop,
        margin=score_margin(model) if config.train_on == "scores" else rule.margin,
        rule=rule,
        beyond=config.data.beyond,
        replacement=config.data.replacement,
        scale=config.data.scale or 1.0,
        augment=config.augment,
        seed=config.seed,
        foreground=config.data.foreground_crops or 0.0,
        common_class=most_frequent_class(card.pixel_counts["train"], card.classes),
        targets=Separation(config.loss, card.ignore_index, background_of(card)) if config.loss.separation else None,
    )
    return Session(
        config=config,
        run=run,
        dataset=dataset,
        model=model,
        average=Average(model) if config.ema else None,
        optimizer=build_optimizer(config.optimizer, model),
        loss=loss,
        scaler=torch.amp.GradScaler(config.device, enabled=config.precision == "float16"),
        crops=crops,
        validation=dataset.folder.split("val"),
    )


def palette_of(card: DataCard) -> tuple[tuple[int, int, int], ...]:
    """Return the classes' colours: the data's own where it has them, else distinct ones."""
    if card.palette is not None:
        return card.palette[: len(card.classes)]
    colours = default_palette(min(len(card.classes), 255), background=card.classes[0] == "background")
    colours += [[0, 0, 0]] * (len(card.classes) - len(colours))
    return tuple((red, green, blue) for red, green, blue in colours)
