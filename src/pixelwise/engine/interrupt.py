"""Ctrl-C while work goes on: the first one is a wish, the second one stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pixelwise.engine import processes


@contextmanager
def catching_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag that the loop asks for between iterations; the second one stops at once."""
    asked = False

    def note(_: int, __: FrameType | None) -> None:
        nonlocal asked
        if asked and processes.count() == 1:  # torchrun passes the terminal's Ctrl-C on once more
            raise KeyboardInterrupt
        asked = True

    try:
        previous = signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread: Ctrl-C does not arrive here
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, previous)
