"""The training of image classifiers: what a session of theirs is, and how it is prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from pixelwise.data.class_folder import ClassItem, open_class_folder
from pixelwise.data.class_scan import ClassCard, ClassDataset, scan_classes
from pixelwise.data.loader import Batch
from pixelwise.data.pictures import class_colours
from pixelwise.data.resized_crop import CROP, RESIZED, ResizedCrops
from pixelwise.engine import processes
from pixelwise.engine.averaging import Average
from pixelwise.engine.batch_norm import set_batch_norm
from pixelwise.engine.beginning import Session, build_network, calibrate, plan_budget, use_threads, write_first_files
from pixelwise.engine.classifier import Classifier
from pixelwise.engine.config import RANDOM, ClassifierConfig
from pixelwise.engine.evaluate_classes import ClassEvaluation, evaluate_classes
from pixelwise.engine.listener import Listener
from pixelwise.engine.memory_format import format_of, training_format
from pixelwise.engine.model_file import ModelCard
from pixelwise.engine.plan import Clock, Plan, plan_batch, plan_length, plan_machine
from pixelwise.engine.plan_data import plan_batch_norm, plan_normalisation
from pixelwise.engine.plan_pretrained import plan_weights
from pixelwise.engine.run_folder import RunFolder
from pixelwise.engine.schedule import build_optimizer
from pixelwise.errors import RequestError
from pixelwise.losses.classification import class_loss
from pixelwise.structures import ClassificationOutput, SizeRule, size_rule_of

BATCH = 32  # images of a step
FEWEST_STEPS = 4  # in a pass over the images
RATE, RATE_WITHOUT_NORM = 1e-3, 2e-4  # of AdamW, where it is left open


@dataclass(kw_only=True)
class ClassifierSession(Session[ClassItem]):
    """The training of an image classifier."""

    metric = "top1"
    class_metric = "accuracy"

    config: ClassifierConfig
    dataset: ClassDataset

    def loss_of(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch, a scalar."""
        config, device = self.config, self.config.device
        images = batch.images.to(device, non_blocking=True, memory_format=format_of(model))
        labels = batch.labels.to(device, non_blocking=True)  # (N,)
        half = getattr(torch, config.precision)
        with torch.autocast(torch.device(device).type, dtype=half, enabled=config.precision != "float32"):
            logits = self.network(model)(images).logits
        return class_loss(logits, labels, config.loss, total_of=processes.total)

    def forward(self, model: nn.Module, images: torch.Tensor) -> ClassificationOutput:
        """Return the logits of a training batch."""
        output: ClassificationOutput = model(images)
        return output

    def validate(self, model: nn.Module, items: Sequence[ClassItem]) -> ClassEvaluation:
        """Score a model on the central crops of items, and leave it in training mode."""
        model.eval()
        classifier = Classifier(model=model, card=self.model_card(0, {}))
        evaluation = evaluate_classes(classifier, self.dataset, items, split="val", share=processes.share())
        model.train()
        return evaluation

    def model_card(self, iteration: int, metrics: dict[str, float | None]) -> ModelCard:
        """Describe the model as it is now, for its file."""
        card, crop = self.dataset.card, self.config.data.crop
        assert crop is not None
        return ModelCard(
            pixelwise=version("pixelwise"),
            model=self.config.model,
            options=self.config.options,
            num_classes=len(card.classes),
            in_channels=card.channels,
            classes=card.classes,
            palette=class_colours(card.classes),
            ignore_index=None,
            normalisation=card.normalisation,
            scale=1.0,
            crop=(crop, crop),
            input_rule=size_rule_of(self.model).describe(),
            licence=card.licence,
            iteration=iteration,
            metrics=metrics,
        )


def prepare(
    config: ClassifierConfig, run: RunFolder, *, resume: bool, started: float, listener: Listener
) -> ClassifierSession:
    """Check the data, complete the configuration and build everything; writes the run's first files."""
    plan = plan_machine(config)
    config = plan.config
    lists = {key: Path(path) for key in ("val_list", "test_list") if (path := getattr(config.data, key)) is not None}
    folder = open_class_folder(Path(config.data.path), **lists)
    items = [*folder.split("train"), *folder.split("val")]
    listener.say(f"reading {len(items)} images")
    dataset = scan_classes(folder, items, cache_bytes=int((config.data.cache_gb or 0) * 1e9))
    _check_classes(folder.root, folder.classes, folder.split("train"))
    for line in dataset.card.decisions:
        listener.say(line)
    use_threads(config)
    plan_weights(plan, dataset.card.channels)
    data = plan.config.data
    if data.normalise_per_image is None and data.mean is None and plan.config.weights in (None, RANDOM):
        plan.decide("brightness and colour may tell classes apart", normalise_per_image=False)
    dataset.card = dataset.card.model_copy(update={"normalisation": plan_normalisation(plan, dataset.card)})
    plan_budget(plan, listener)
    session = build(plan, dataset, run)
    clock = Clock.of(plan.config, started) if plan.config.iterations is None else None
    costs = None if clock is None else calibrate(session, clock)
    left = None if clock is None else clock.limit - clock.now()
    plan_length(plan, len(folder.split("train")), len(folder.split("val")), costs, left)
    session.config = plan.config
    write_first_files(plan, run, dataset.card, resume=resume, listener=listener, device=plan.config.device)
    return session


def _check_classes(root: Path, classes: Sequence[str], training: Sequence[ClassItem]) -> None:
    if len(classes) < 2:
        raise RequestError(
            f"{root} holds one class, {classes[0]}; accepted: at least two to tell apart. Add a folder for another."
        )
    missing = sorted(set(range(len(classes))) - {item.label for item in training})
    if missing:
        raise RequestError(
            f"{root} has no training image of class {classes[missing[0]]} ({len(missing)} such classes in "
            "dataset.json); accepted: images of every class. Add a folder with some, or take the class out."
        )


def build(plan: Plan[ClassifierConfig], dataset: ClassDataset, run: RunFolder) -> ClassifierSession:
    """Build model, optimiser and samples for the plan as it stands; crop and batch are settled here."""
    card, training = dataset.card, dataset.folder.split("train")
    model = build_network(plan, num_classes=len(card.classes), in_channels=card.channels)
    crop = plan_crop(plan, card, size_rule_of(model))
    if plan.config.data.batch_size is None:
        plan_batch(plan, card, (crop, crop), max(1, min(BATCH, len(training) // FEWEST_STEPS)))
    plan_batch_norm(plan, model, in_channels=card.channels, window=(crop, crop))
    plan_rate(plan, model)
    config = plan.config
    set_batch_norm(model, config.batch_norm)
    model = model.to(config.device).to(memory_format=training_format(model, config.device)).train()
    return ClassifierSession(
        config=config,
        run=run,
        dataset=dataset,
        model=model,
        average=Average(model) if config.ema else None,
        optimizer=build_optimizer(config.optimizer, model),
        scaler=torch.amp.GradScaler(config.device, enabled=config.precision == "float16"),
        crops=ResizedCrops(
            dataset=dataset,
            items=training,
            crop=crop,
            augment=config.augment,
            seed=config.seed,
            replacement=config.data.replacement,
        ),
        validation=dataset.folder.split("val"),
    )


def plan_crop(plan: Plan[ClassifierConfig], card: ClassCard, rule: SizeRule) -> int:
    """Settle the side of the square that the network sees: 224 of images of 256, smaller for smaller images."""
    given = plan.config.data.crop
    if given is not None:
        if not rule.is_legal(given):
            raise RequestError(
                f"data.crop={given}; accepted by {plan.config.model}: {rule.describe()}; nearest: "
                f"{rule.nearest(given)}. Give --set data.crop=N with such a side."
            )
        return given
    height, width, _ = card.image_sizes[0]
    shorter = min(height, width)
    wanted = CROP if shorter >= RESIZED else max(1, shorter * CROP // RESIZED)
    side = rule.at_most(wanted)
    enlarged = f", enlarged since {plan.config.model} takes no less" if side > wanted else ""
    plan.decide(f"images are mostly {height} x {width}{enlarged}", crop=side)
    return side


def plan_rate(plan: Plan[ClassifierConfig], model: nn.Module) -> None:
    """Settle the learning rate of AdamW where it was left open: networks without normalisation bear less."""
    optimizer = plan.config.optimizer
    if "lr" in optimizer.model_fields_set or optimizer.name != "adamw":
        return
    normalised = any(isinstance(module, nn.modules.batchnorm._NormBase) for module in model.modules())
    rate = RATE if normalised else RATE_WITHOUT_NORM
    plan.config = plan.config.model_copy(update={"optimizer": optimizer.model_copy(update={"lr": rate})})
    plan.note(f"optimizer.lr = {rate:g} ({'with' if normalised else 'without'} batch normalisation)")
