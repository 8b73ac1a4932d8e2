"""Training of classical pipelines: textons, then rounds of boosting, in the run folder that networks leave as well.

There are no gradient steps, batches or passes over the data: an iteration is a round, which sees all sampled pixels and
adds one stump. Rounds depend on the seed and their number alone, so that those of a calibration are the first ones of
the run, and stumps that are replayed bring a resumed run to where it stopped, bit by bit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save

from pixelwise.classical.boosting import Boosting
from pixelwise.classical.location import LocationPotential
from pixelwise.classical.textonboost import TextonBoost
from pixelwise.data.dataset import Item
from pixelwise.data.scan import Dataset
from pixelwise.engine import processes
from pixelwise.engine.beginning import plan_budget, use_threads, write_first_files
from pixelwise.engine.classical_config import ClassicalConfig
from pixelwise.engine.classical_images import check_channels, ignored_of, images_of, labels_of
from pixelwise.engine.classical_plan import (
    COMPARED_IMAGES,
    build_estimator,
    measure,
    plan_estimator,
    plan_rounds,
    plan_scale,
)
from pixelwise.engine.classical_segmenter import (
    ClassicalSegmenter,
    as_tensors,
    count_numbers,
    load_classical,
    rebuild,
    save_classical,
)
from pixelwise.engine.crf_tally import CRFTally, compared_refiners, some_of
from pixelwise.engine.evaluate import Evaluation, evaluate_items, known_of
from pixelwise.engine.interrupt import catching_interrupt
from pixelwise.engine.keeping import Metrics, early_words, keep_best, stalled
from pixelwise.engine.listener import Listener
from pixelwise.engine.model_file import ModelCard, read_tensors
from pixelwise.engine.plan import Clock
from pixelwise.engine.run_folder import STATE_KEY, Progress, RunFolder
from pixelwise.engine.session import palette_of, read_data
from pixelwise.errors import RequestError
from pixelwise.files import write_atomically

LOG_POINTS = 200  # training events in the log of a whole run, about
ANY_SIZE = "any size"
# What the estimator calls its stages before the rounds, for people.
STAGES = {
    "responses": "filter responses",
    "k-means": "k-means of textons",
    "textons": "texton maps",
    "replay": "replaying rounds",
}


@dataclass(kw_only=True)
class Work:
    """All that the rounds of a run work with.

    Attributes:
        config: resolved.
        run: its folder.
        dataset: scanned images and masks.
        location: what is where in the training images.
        estimator: holds the stumps.
        boosting: adds them.
        validation: what the best model is chosen by.
    """

    config: ClassicalConfig
    run: RunFolder
    dataset: Dataset
    location: LocationPotential
    estimator: TextonBoost
    boosting: Boosting
    validation: Sequence[Item]

    def segmenter(self) -> ClassicalSegmenter:
        """Return the estimator as it is now, ready for images."""
        return ClassicalSegmenter(
            estimator=self.estimator,
            location=self.location,
            card=self.model_card(0, {}),
            num_threads=self.config.threads,
        )

    def validate(self, items: Sequence[Item]) -> Evaluation:
        """Score the estimator as it is now."""
        return evaluate_items(self.segmenter(), self.dataset, items, split="val")

    def compare(self, items: Sequence[Item], segmenter: ClassicalSegmenter | None = None) -> dict[str, Any]:
        """Score a segmenter, by default the estimator as it is now, with several CRFs; return these details."""
        segmenter = segmenter or self.segmenter()
        tally = CRFTally(known_of(segmenter, self.dataset, items), compared_refiners(segmenter.location))
        evaluate_items(segmenter, self.dataset, items, split="val", more=[tally])
        return tally.details()

    def model_card(self, iteration: int, metrics: Metrics) -> ModelCard:
        """Describe the estimator as it is now, for its file."""
        card = self.dataset.card
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
            input_rule=ANY_SIZE,
            licence=card.licence,
            iteration=iteration,
            metrics=metrics,
        )


def train_classical(
    config: ClassicalConfig, run: RunFolder, *, resume: bool, started: float, listener: Listener
) -> Progress:
    """Train a classical pipeline and leave a run folder; see `pixelwise.engine.train.train`.

    Args:
        config: what to do; a resumed run's own.
        run: folder, new or empty; with `resume` that of the run.
        resume: go on from the run's last state.
        started: when the run began, by `time.perf_counter`.
        listener: hears how it goes.
    """
    if processes.count() > 1:
        raise RequestError(
            f"{config.model} in {processes.count()} processes, which would all learn the same; accepted: one, whose "
            "threads share the work. Start `pixelwise train` without torchrun."
        )
    progress, estimator = Progress(), None
    if not resume:
        run.prepare()
    else:
        if run.checkpoint.exists():
            progress, estimator = load_state(run.checkpoint)
        run.cut_log(progress.iteration)
        listener.say(f"resuming after iteration {progress.iteration}")
    if progress.iteration != config.iterations and not stalled(config, progress):
        work = prepare(config, run, progress, estimator, started=started, listener=listener)
        boost(work, progress, listener)
        best = load_classical(run.best)
        run.write_json(run.metrics, run.read_metrics() | work.compare(some_of(work.validation, COMPARED_IMAGES), best))
    return progress


def prepare(
    config: ClassicalConfig,
    run: RunFolder,
    progress: Progress,
    estimator: TextonBoost | None,
    *,
    started: float,
    listener: Listener,
) -> Work:
    """Check the data, complete the configuration and learn the textons; writes the run's first files.

    Args:
        config: as for `train_classical`.
        run: likewise.
        progress: where the run stands; rounds that a time budget is measured by are counted.
        estimator: of a run that goes on; None begins one.
        started: as for `train_classical`.
        listener: likewise.
    """
    plan = plan_estimator(config)
    dataset = read_data(plan.config.data, listener)
    card, validation = dataset.card, dataset.folder.split("val")
    check_channels(card.channels, f"the images of {dataset.folder.root}", plan.config.model)
    use_threads(plan.config)
    plan_budget(plan, listener)
    clock = Clock.of(plan.config, started) if plan.config.iterations is None else None
    plan_scale(plan, dataset, clock)
    estimator = estimator or build_estimator(plan.config, num_classes=len(card.classes))
    boosting = begin(plan.config, estimator, dataset, listener)
    work = Work(
        config=plan.config,
        run=run,
        dataset=dataset,
        location=LocationPotential.fit(
            labels_of(dataset, dataset.folder.split("train"), 1.0),
            num_classes=len(card.classes),
            ignore_index=ignored_of(dataset),
        ),
        estimator=estimator,
        boosting=boosting,
        validation=validation,
    )
    if clock is None:
        plan_rounds(plan, len(validation))
    else:
        image = images_of(dataset, validation, plan.config.data.scale or 1.0)[0]
        costs = measure(estimator, boosting, progress, clock, work.validate, work.compare, validation, image)
        plan_rounds(plan, len(validation), costs, done=progress.iteration, left=clock.limit - clock.now())
    work.config = plan.config
    write_first_files(plan, run, card, resume=run.config.exists(), listener=listener)
    return work


def begin(config: ClassicalConfig, estimator: TextonBoost, dataset: Dataset, listener: Listener) -> Boosting:
    """Learn the textons, or keep an estimator's own, and replay its stumps."""
    items, scale = dataset.folder.split("train"), config.data.scale or 1.0
    return estimator.begin(
        images_of(dataset, items, scale),
        labels_of(dataset, items, scale),
        ignore_index=ignored_of(dataset),
        on_progress=lambda what, done, total: listener.stage(STAGES.get(what, what), done, total),
        num_threads=config.threads,
    )


def boost(work: Work, progress: Progress, listener: Listener) -> None:
    """Add rounds from where the progress stands to the end of the run."""
    config, run = work.config, work.run
    assert config.iterations is not None
    assert config.val_every is not None
    log_every = max(1, config.iterations // LOG_POINTS)
    begun = time.perf_counter() - progress.seconds
    with catching_interrupt() as interrupted:
        while progress.iteration < config.iterations:
            progress.losses.append(work.boosting.round())
            progress.iteration = work.boosting.num_rounds
            progress.seconds = time.perf_counter() - begun
            listener.step(progress.iteration, config.iterations, progress.losses[-1])
            if progress.iteration % log_every == 0:
                run.append_log(_round_event(work.boosting, progress))
                progress.losses.clear()
            done = progress.iteration == config.iterations
            if done or progress.iteration % config.val_every == 0:
                listener.validated(validate_and_save(work, progress))
                if stalled(config, progress) and not done:
                    listener.say(early_words(config, progress))
                    return
            if interrupted() and not done:
                save_state(run.checkpoint, work.estimator, progress)
                raise KeyboardInterrupt


def validate_and_save(work: Work, progress: Progress) -> dict[str, Any]:
    """Score the estimator, keep it if it is the best so far, and save the state to go on from; return the event."""
    run = work.run

    def save(metrics: Metrics) -> None:
        save_classical(run.best, work.estimator, work.location, work.model_card(progress.iteration, metrics))

    event = keep_best(
        run,
        progress,
        work.validate(work.validation),
        metric="miou",
        class_metric="iou",
        parameters=count_numbers(work.estimator),
        advice="Look at the data",
        save=save,
    )
    if event["best"]:
        progress.best_score, progress.best_iteration = event["miou"] or 0.0, progress.iteration
    save_state(run.checkpoint, work.estimator, progress)
    return event


def _round_event(boosting: Boosting, progress: Progress) -> dict[str, Any]:
    return {
        "event": "train",
        "iteration": progress.iteration,
        "weighted_error": sum(progress.losses) / len(progress.losses),
        "sample_accuracy": boosting.accuracy(),
        "seconds": round(progress.seconds, 3),
    }


def save_state(path: Path, estimator: TextonBoost, progress: Progress) -> None:
    """Write everything that decides how training goes on."""
    state = json.dumps({"progress": vars(progress)})
    write_atomically(path, save(as_tensors(estimator.state_dict()), {STATE_KEY: state}))


def load_state(path: Path) -> tuple[Progress, TextonBoost]:
    """Return where a run stopped, and its estimator."""
    tensors, metadata = read_tensors(path)
    if STATE_KEY not in metadata:
        raise RequestError(f"{path} is no training state of pixelwise. Restore the file, or train into a new folder.")
    return Progress(**json.loads(metadata[STATE_KEY])["progress"]), rebuild(tensors, path)
