"""What can be wrong with a data set, as tables and scripts take it: one file, one sentence, one severity."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pixelwise.errors import RequestError

Severity = Literal["error", "warning"]
PROBLEMS_SHOWN = 2  # an error is three lines at most


class Problem(BaseModel):
    """One thing that is wrong with a data set, or worth a look.

    Attributes:
        file: path relative to the data folder where the file lies below it; the folder itself is ".".
        problem: what is wrong, what is accepted and what to do; reads on after the file's name.
        severity: an error stops training, a warning does not.
        kind: what problems of the same sort have in common, in a few words, for grouping them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    problem: str
    severity: Severity
    kind: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem as it is found, with full paths.

    Attributes:
        path: the file, or the data folder.
        text: the sentence, which begins with the path where it is about this one file.
        kind: as in `Problem`.
        severity: as in `Problem`.
        spoils: keys of the items that cannot be used because of it.
    """

    path: Path
    text: str
    kind: str
    severity: Severity = "error"
    spoils: frozenset[str] = frozenset()

    def told(self, root: Path) -> Problem:
        """Return the problem with paths relative to the data folder."""
        inside = self.path.is_relative_to(root)
        name, rest = str(self.path), self.text.removeprefix(str(self.path))
        text = rest.lstrip(": ") if self.text.startswith((f"{name}:", f"{name} ")) else self.text
        return Problem(
            file=self.path.relative_to(root).as_posix() if inside else str(self.path),
            problem=text.replace(f"{root}{os.sep}", ""),
            severity=self.severity,
            kind=self.kind,
        )


def errors_among(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that stop training."""
    return [finding for finding in findings if finding.severity == "error"]


def refusal(root: Path, errors: Sequence[Finding]) -> RequestError:
    """Return the one error for many: the first problems and their number."""
    if len(errors) == 1:
        return RequestError(errors[0].text.rstrip(".") + ".")
    shown = "\n".join(f"  {error.text.rstrip('.')}." for error in errors[:PROBLEMS_SHOWN])
    rest = f" (the first {PROBLEMS_SHOWN} here; `pixelwise check {root}` lists all)"
    first = rest if len(errors) > PROBLEMS_SHOWN else ""
    return RequestError(f"{root}: {len(errors)} problems stop the work before it begins{first}:\n{shown}")
