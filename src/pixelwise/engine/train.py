"""Training: from a data set and a configuration to a run folder with the best and the last state."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from pixelwise.data.loader import Batch, batches
from pixelwise.engine import processes
from pixelwise.engine.base_config import RunConfig
from pixelwise.engine.batch_norm import set_momentum
from pixelwise.engine.beginning import Session
from pixelwise.engine.classical import train_classical
from pixelwise.engine.classical_config import ClassicalConfig
from pixelwise.engine.config import NetworkConfig, read_config
from pixelwise.engine.determinism import check_deterministic, deterministic_algorithms
from pixelwise.engine.interrupt import catching_interrupt
from pixelwise.engine.keeping import Judgement, early_words, keep_best, stalled
from pixelwise.engine.listener import Listener, Silent
from pixelwise.engine.model_file import save_model
from pixelwise.engine.run_folder import Progress, RunFolder, load_checkpoint, save_checkpoint
from pixelwise.engine.schedule import learning_rate, set_rate
from pixelwise.engine.tasks import prepare
from pixelwise.errors import WorkError

LOG_POINTS = 200  # training events in the log of a whole run, about


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished training leaves.

    Attributes:
        run: the run folder.
        iterations: optimiser steps, or rounds of boosting, in all.
        seconds: wall-clock seconds of training, over all resumptions.
        best: `metrics.json`'s content: the scores of the best model on the validation set.
    """

    run: Path
    iterations: int
    seconds: float
    best: dict[str, Any]


def train(config: RunConfig, out: Path, *, resume: bool = False, listener: Listener | None = None) -> TrainResult:
    """Train a model and leave a run folder.

    Args:
        config: what to do; None values are planned from the data and the machine.
        out: run folder, new or empty; with `resume` the folder of an earlier run, whose configuration counts.
        resume: go on from the run's last state. On the CPU the result is that of an uninterrupted run, bit by bit.
        listener: hears how it goes.

    Raises:
        RequestError: if the data, the configuration or the folder is wrong; before any training.
        WorkError: if the loss is not finite any more, or files cannot be written; the last state is kept.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    started = time.perf_counter()
    listener = listener or Silent()
    run = RunFolder(Path(out))
    if resume:
        config = read_config(run.config)
    if isinstance(config, ClassicalConfig):
        progress = train_classical(config, run, resume=resume, started=started, listener=listener)
    else:
        assert isinstance(config, NetworkConfig)
        progress = train_network(config, run, resume=resume, started=started, listener=listener)
    return TrainResult(run=run.root, iterations=progress.iteration, seconds=progress.seconds, best=run.read_metrics())


def train_network(
    config: NetworkConfig, run: RunFolder, *, resume: bool, started: float, listener: Listener
) -> Progress:
    """Train a network by gradient steps; arguments as for `train`, and when the run began."""
    check_deterministic(config)
    with deterministic_algorithms(config.deterministic):
        session = prepare(config, run, resume=resume, started=started, listener=listener)
        processes.draw_apart(config.seed)
        progress = Progress()
        if resume:
            if run.checkpoint.exists():
                progress = load_checkpoint(run.checkpoint, session.models, session.optimizer, session.scaler)
            processes.first(lambda: run.cut_log(progress.iteration))
            listener.say(f"resuming after iteration {progress.iteration}")
        go_on(session, progress, listener)
    return progress


def go_on(session: Session[Any], progress: Progress, listener: Listener) -> None:
    """Train from where the progress stands to the end of the run."""
    config, run, model = session.config, session.run, session.model
    assert config.iterations is not None
    assert config.val_every is not None
    assert config.data.batch_size is not None
    assert config.data.num_workers is not None
    accumulate = config.optimizer.accumulate
    per_epoch = Fraction(len(session.crops.items), config.data.batch_size * accumulate)
    log_every = max(1, config.iterations // LOG_POINTS)
    begun = time.perf_counter() - progress.seconds
    stream = batches(
        session.crops,
        batch_size=config.data.batch_size,
        first=progress.iteration * accumulate,
        last=(progress.iteration if stalled(config, progress) else config.iterations) * accumulate,
        num_workers=config.data.num_workers,
        pin_memory=config.device.startswith("cuda"),
        share=processes.share(),
    )
    with catching_interrupt() as interrupted:
        for step in zip(*[stream] * accumulate, strict=True):  # so many batches make one step
            rate = learning_rate(config.optimizer, progress.iteration, config.iterations, per_epoch=per_epoch)
            set_rate(session.optimizer, rate)
            set_momentum(model, progress.iteration, config.iterations)
            loss = session.step(model, session.optimizer, step)
            if not math.isfinite(loss):
                raise _diverged(loss, progress.iteration + 1, step, run)
            if session.average is not None:
                session.average.update(model, progress.iteration, config.iterations)
            progress.iteration += 1
            progress.seconds = time.perf_counter() - begun
            progress.losses.append(loss)
            listener.step(progress.iteration, config.iterations, loss)
            if progress.iteration % log_every == 0:
                processes.first(partial(run.append_log, _train_event(session, progress, rate)))
                progress.losses.clear()
            done = progress.iteration == config.iterations
            if done or progress.iteration % config.val_every == 0:
                listener.validated(validate_and_save(session, progress))
                if stalled(config, progress) and not done:
                    listener.say(early_words(config, progress))
                    break
            if processes.any_of(interrupted()) and not done:
                save_checkpoint(run.checkpoint, session.models, session.optimizer, session.scaler, progress)
                raise KeyboardInterrupt


def validate_and_save(session: Session[Any], progress: Progress) -> dict[str, Any]:
    """Score the model, keep it if it is the best so far, and save the state to go on from; return the log's event."""
    session.measure_statistics()
    evaluation = session.validate(session.judged, session.validation)
    event = processes.first(lambda: _judge(session, progress, evaluation))
    if event["best"]:
        progress.best_score, progress.best_iteration = event[session.metric] or 0.0, progress.iteration
    save_checkpoint(session.run.checkpoint, session.models, session.optimizer, session.scaler, progress)
    return event


def _judge(session: Session[Any], progress: Progress, evaluation: Judgement) -> dict[str, Any]:
    """Keep the model if its scores are the best so far, and return the event that was logged."""
    run = session.run
    return keep_best(
        run,
        progress,
        evaluation,
        metric=session.metric,
        class_metric=session.class_metric,
        parameters=count_parameters(session),
        advice="Lower optimizer.lr",
        save=lambda metrics: save_model(run.best, session.judged, session.model_card(progress.iteration, metrics)),
    )


def count_parameters(session: Session[Any]) -> int:
    """Return the number of parameters of a session's model."""
    return sum(parameter.numel() for parameter in session.model.parameters())


def _train_event(session: Session[Any], progress: Progress, rate: float) -> dict[str, Any]:
    batch_size = (session.config.data.batch_size or 1) * session.config.optimizer.accumulate
    return {
        "event": "train",
        "iteration": progress.iteration,
        "epoch": round(progress.iteration * batch_size / len(session.crops.items), 3),
        "loss": sum(progress.losses) / len(progress.losses),
        "lr": rate,
        "seconds": round(progress.seconds, 3),
    }


def _diverged(loss: float, iteration: int, step: Sequence[Batch], run: RunFolder) -> WorkError:
    names = [name for part in processes.gathered([batch.names for batch in step]) for each in part for name in each]
    return WorkError(
        f"the loss is {loss} at iteration {iteration}, with images {', '.join(names)}; training stopped before "
        f"that update. Lower optimizer.lr, or look at these images; {run.root} keeps the last good state."
    )
