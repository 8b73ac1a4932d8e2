"""All that a training run works with, built from a configuration, the data and the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from pixelwise.data.dataset import Item, open_dataset
from pixelwise.data.loader import Batch, Crops
from pixelwise.data.pictures import class_colours
from pixelwise.data.scan import DataCard, Dataset, scan
from pixelwise.engine import processes
from pixelwise.engine.averaging import Average
from pixelwise.engine.base_config import SourceConfig
from pixelwise.engine.batch_norm import set_batch_norm
from pixelwise.engine.beginning import Session, build_network, calibrate, plan_budget, use_threads, write_first_files
from pixelwise.engine.coarse import coarse_scores, labels_of_scores, score_margin
from pixelwise.engine.config import TrainConfig
from pixelwise.engine.evaluate import Evaluation, evaluate_items
from pixelwise.engine.listener import Listener
from pixelwise.engine.memory_format import format_of, training_format
from pixelwise.engine.model_file import ModelCard
from pixelwise.engine.plan import Clock, Plan, plan_length, plan_machine, plan_scale, plan_windows
from pixelwise.engine.plan_data import plan_batch_norm, plan_class_weights, plan_foreground_crops, plan_normalisation
from pixelwise.engine.plan_pretrained import plan_weights
from pixelwise.engine.predict import Segmenter
from pixelwise.engine.run_folder import RunFolder
from pixelwise.engine.schedule import build_optimizer
from pixelwise.engine.targets import Separation, background_of
from pixelwise.errors import RequestError
from pixelwise.losses.cross_entropy import NOTHING_IGNORED
from pixelwise.losses.segmentation import SegmentationLoss, class_weights, most_frequent_class
from pixelwise.structures import SegmentationOutput, aux_weights_of, size_rule_of


@dataclass(kw_only=True)
class SemanticSession(Session[Item]):
    """The training of a semantic model."""

    metric = "miou"
    class_metric = "iou"

    config: TrainConfig
    dataset: Dataset
    loss: SegmentationLoss
    crops: Crops

    @property
    def card(self) -> DataCard:
        """The data's card."""
        return self.dataset.card

    def loss_of(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch, a scalar."""
        config, device = self.config, self.config.device
        images = batch.images.to(device, non_blocking=True, memory_format=format_of(model))
        labels = batch.labels.to(device, non_blocking=True)
        weights = None if batch.weights is None else batch.weights.to(device, non_blocking=True)
        half = getattr(torch, config.precision)
        with torch.autocast(torch.device(device).type, dtype=half, enabled=config.precision != "float32"):
            output = self.network(model)(images)
        factors = (1.0, *(aux_weights_of(model) if output.aux else ()))
        loss = torch.zeros((), device=device)
        for index, (factor, logits) in enumerate(zip(factors, (output.logits, *output.aux), strict=True)):
            coarse = config.train_on == "scores"
            truth = labels_of_scores(model, labels, logits, output=index) if coarse else labels
            loss = loss + factor * self.loss(logits, truth, weights)
        return loss

    def forward(self, model: nn.Module, images: torch.Tensor) -> SegmentationOutput:
        """Return the logits of a training batch, and the auxiliary ones where the model has them."""
        try:
            if self.config.train_on == "scores":
                return coarse_scores(model, images)
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
        evaluation = evaluate_items(segmenter, self.dataset, items, split="val", share=processes.share())
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
            crop=self.config.data.crop,
            input_rule=size_rule_of(self.model).describe(),
            licence=card.licence,
            iteration=iteration,
            metrics=metrics,
        )


def prepare(
    config: TrainConfig, run: RunFolder, *, resume: bool, started: float, listener: Listener
) -> SemanticSession:
    """Check the data, complete the configuration and build everything; writes the run's first files."""
    plan = plan_machine(config)
    config = plan.config
    dataset = read_data(config.data, listener)
    use_threads(config)
    plan_weights(plan, dataset.card.channels)
    dataset.card = dataset.card.model_copy(update={"normalisation": plan_normalisation(plan, dataset.card)})
    plan_class_weights(plan, dataset)
    plan_budget(plan, listener)
    session = complete(plan, dataset, run, started)
    write_first_files(plan, run, dataset.card, resume=resume, listener=listener, device=plan.config.device)
    return session


def read_data(data: SourceConfig, listener: Listener) -> Dataset:
    """Read the training and validation images and their masks once, and tell people what they are."""
    lists = {key: Path(path) for key in ("val_list", "test_list") if (path := getattr(data, key)) is not None}
    folder = open_dataset(Path(data.path), **lists)
    items = [*folder.split("train"), *folder.split("val")]
    listener.say(f"reading {len(items)} images and their masks")
    dataset = scan(folder, items, cache_bytes=int((data.cache_gb or 0) * 1e9))
    for line in dataset.card.decisions:
        listener.say(line)
    return dataset


def complete(plan: Plan[TrainConfig], dataset: Dataset, run: RunFolder, started: float) -> SemanticSession:
    """Settle scale, windows and length, with a calibration where the budget is a time, and build the session."""
    num_train, num_val = len(dataset.folder.split("train")), len(dataset.folder.split("val"))
    given = plan.config
    session = build(plan, dataset, run)
    clock = Clock.of(plan.config, started) if plan.config.iterations is None else None
    costs, left = None, None
    if clock is None and plan.config.data.scale is None:
        plan.decide("the images' own size", scale=1.0)
    if clock is not None:
        costs = calibrate(session, clock)
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
            costs = calibrate(session, clock)
            left = clock.limit - clock.now()
    plan_length(plan, num_train, num_val, costs, left)
    session.config = plan.config
    return session


def build(plan: Plan[TrainConfig], dataset: Dataset, run: RunFolder) -> SemanticSession:
    """Build model, optimiser, loss and windows for the plan as it stands; crop and batch are settled here."""
    card = dataset.card
    model = build_network(plan, num_classes=len(card.classes), in_channels=card.channels)
    rule = size_rule_of(model)
    plan_windows(plan, card, rule)
    plan_foreground_crops(plan, card)
    height, width = plan.config.data.crop or card.image_sizes[0][:2]
    window = (rule.covering(rule.output(height)), rule.covering(rule.output(width)))
    plan_batch_norm(plan, model, in_channels=card.channels, window=window)
    config = plan.config
    set_batch_norm(model, config.batch_norm)
    model = model.to(config.device).to(memory_format=training_format(model, config.device)).train()
    weights = class_weights(config.loss.class_weights, card.pixel_counts["train"], card.classes)
    ignored = NOTHING_IGNORED if card.ignore_index is None and config.data.ignore_beyond else card.ignore_index
    loss = SegmentationLoss(config.loss, ignore_index=ignored, weights=weights, total_of=processes.total).to(
        config.device
    )
    crops = Crops(
        dataset,
        dataset.folder.split("train"),
        crop=config.data.crop,
        margin=score_margin(model) if config.train_on == "scores" else rule.margin,
        rule=rule,
        beyond=config.data.beyond,
        ignored_beyond=ignored if config.data.ignore_beyond else None,
        replacement=config.data.replacement,
        scale=config.data.scale or 1.0,
        augment=config.augment,
        seed=config.seed,
        foreground=config.data.foreground_crops or 0.0,
        common_class=most_frequent_class(card.pixel_counts["train"], card.classes),
        targets=Separation(config.loss, card.ignore_index, background_of(card)) if config.loss.separation else None,
    )
    return SemanticSession(
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
    return class_colours(card.classes) if card.palette is None else card.palette[: len(card.classes)]
