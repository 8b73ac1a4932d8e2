"""Compilation of the counting loops, at their first use: importing numba and compiling take a second or more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compile_loop(loop: Loop, signatures: Sequence[object]) -> Loop:
    """Compile a Python function for the given numba signatures, or read it from numba's cache."""
    import numba

    try:
        return cast(Loop, numba.njit(list(signatures), cache=True, nogil=True)(loop))
    except (RuntimeError, OSError):
        # No folder for the cache can be written: read-only install and home. Compile per process.
        return cast(Loop, numba.njit(list(signatures), nogil=True)(loop))
