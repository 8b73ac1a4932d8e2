"""The two errors that users meet; the command line turns them into one message and an exit code.

Each message has three parts: what was given, what is accepted, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RequestError(ValueError):
    """The request is wrong: a path, a name, a value or the data must change. Exit code 2."""


class WorkError(RuntimeError):
    """The request was right but the work failed: a full disk, a folder without write access. Exit code 1."""


def closest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return the known names nearest to a mistyped one, capitals aside, as text for an error message.

    Returns:
        `"a, b, c"`: up to `count` close names, or the first `count` known ones where none is close.

    >>> closest("unet_smal", ["unet", "unet_small", "fcn8s_vgg16"])
    'unet_small, unet'
    """
    names = sorted(known)
    by_small = {known_name.lower(): known_name for known_name in names}
    near = [by_small[small] for small in difflib.get_close_matches(name.lower(), by_small, n=count, cutoff=0.5)]
    return ", ".join(near or names[:count])
