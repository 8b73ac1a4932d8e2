"""What every training does with the scores of a validation: keep the best model, log them, end where none is better."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from pixelwise.engine.base_config import RunConfig
from pixelwise.engine.run_folder import Progress, RunFolder
from pixelwise.errors import WorkError

Metrics = dict[str, float | None]


class Judgement(Protocol):
    """What a validation gives."""

    @property
    def loss(self) -> float | None:
        """Mean loss over the validation set."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `metrics.json` holds: `metrics`, `per_class`, `protocol`, `num_images`, ..."""


def stalled(config: RunConfig, progress: Progress) -> bool:
    """Say whether so many validations brought no better score that training ends (`early_stop`)."""
    if not config.early_stop or not config.val_every or progress.best_score is None:
        return False
    return (progress.iteration - progress.best_iteration) // config.val_every >= config.early_stop


def early_words(config: RunConfig, progress: Progress) -> str:
    """Say that training ends early, and why."""
    return (
        f"stopped early at iteration {progress.iteration} of {config.iterations}: no better score in "
        f"{config.early_stop} validations, the best was at iteration {progress.best_iteration}"
    )


def keep_best(
    run: RunFolder,
    progress: Progress,
    evaluation: Judgement,
    *,
    metric: str,
    class_metric: str,
    parameters: int,
    advice: str,
    save: Callable[[Metrics], None],
) -> dict[str, Any]:
    """Keep the model if its scores are the best so far, and return the event that was logged.

    Args:
        run: folder of the run.
        progress: where the run stands; its best score is left as it is.
        evaluation: scores of the model.
        metric: the score that decides.
        class_metric: the score of a class that is logged.
        parameters: numbers that the model holds.
        advice: what to do where the loss is not finite.
        save: writes the model with these scores.

    Raises:
        WorkError: if the loss is not finite; nothing is kept.
    """
    if evaluation.loss is None or not math.isfinite(evaluation.loss):
        raise WorkError(
            f"the validation loss is {evaluation.loss} at iteration {progress.iteration}; nothing of this state was "
            f"kept. {advice}; {run.root} keeps the last good state."
        )
    scores = evaluation.to_json()
    score = scores["metrics"][metric] or 0.0
    better = progress.best_score is None or score > progress.best_score
    if better:
        save(scores["metrics"])
        run.write_json(run.metrics, {**scores, "iteration": progress.iteration, "parameters": parameters})
    event = {
        "event": "validation",
        "iteration": progress.iteration,
        "loss": evaluation.loss,
        **scores["metrics"],
        f"per_class_{class_metric}": {name: row[class_metric] for name, row in scores["per_class"].items()},
        "best": better,
        "seconds": round(progress.seconds, 3),
    }
    run.append_log(event)
    return event
