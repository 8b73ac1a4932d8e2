"""Who hears how training goes."""

from __future__ import annotations

from typing import Any, Protocol


class Listener(Protocol):
    """Who wants to hear how training goes: the command line, a notebook, nobody."""

    def say(self, line: str) -> None:
        """Take a sentence for people."""

    def stage(self, what: str, done: int, total: int) -> None:
        """Take note that so much of the work before the first iteration is done; networks have no such stages."""

    def step(self, iteration: int, iterations: int, loss: float) -> None:
        """Take note of an iteration."""

    def validated(self, event: dict[str, Any]) -> None:
        """Take the scores of a validation."""


class Silent:
    """A listener that does nothing."""

    def say(self, line: str) -> None:
        """Ignore a sentence."""

    def stage(self, what: str, done: int, total: int) -> None:
        """Ignore a stage."""

    def step(self, iteration: int, iterations: int, loss: float) -> None:
        """Ignore an iteration."""

    def validated(self, event: dict[str, Any]) -> None:
        """Ignore scores."""
