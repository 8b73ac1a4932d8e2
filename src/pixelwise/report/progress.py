"""How far a run came, and why it ended there."""

from __future__ import annotations

from dataclasses import dataclass

from pixelwise.report.run_files import RunFiles, as_number


@dataclass(frozen=True, kw_only=True)
class TrainingEnd:
    """Where training ended.

    Attributes:
        words: how many iterations, of how many, and why no more.
        early: whether it ended since scores did not improve any more.
        complete: whether it ended early or at the last iteration, and is not still running or interrupted.
    """

    words: str
    early: bool
    complete: bool


def training_end(files: RunFiles) -> TrainingEnd | None:
    """Return where the log ends; None where it holds no iteration."""
    iterations = [as_number(event.get("iteration")) or 0 for event in (*files.training, *files.validation)]
    if not iterations:
        return None
    last, planned = max(iterations), as_number(files.config.get("iterations"))
    if planned is None or last >= planned:
        return TrainingEnd(words=f"{last:,.0f} iterations", early=False, complete=True)
    patience = as_number(files.config.get("early_stop")) or 0
    if patience and _validations_since_best(files) >= patience:
        why = f"no better score in {patience:,.0f} validations"
        words = f"stopped early at iteration {last:,.0f} of {planned:,.0f}: {why}"
        return TrainingEnd(words=words, early=True, complete=True)
    words = f"at iteration {last:,.0f} of {planned:,.0f} when this report was written: not finished"
    return TrainingEnd(words=words, early=False, complete=False)


def _validations_since_best(files: RunFiles) -> int:
    best = as_number(files.metrics.get("iteration"))
    if best is None:
        return 0
    return sum((as_number(event.get("iteration")) or 0) > best for event in files.validation)
