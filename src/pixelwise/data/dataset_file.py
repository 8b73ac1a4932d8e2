"""`dataset.json`: what a data set says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pixelwise.errors import RequestError, closest

Colour = tuple[int, int, int]
DeclaredEncoding = Literal["index", "palette", "colours", "binary", "objects"]

_Level = Annotated[int, Field(ge=0, le=255)]


class DatasetFile(BaseModel):
    """What `dataset.json` says; keys that are not known here are kept by the file and ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    classes: tuple[str, ...]
    ignore_index: Annotated[int, Field(ge=0, le=65535)] | None = None
    palette: tuple[tuple[_Level, _Level, _Level], ...] | None = None
    boundary_class: int | str | None = None
    mask_encoding: DeclaredEncoding | None = None
    licence: str | None = None
    terms: str | None = None

    @model_validator(mode="after")
    def _check(self) -> DatasetFile:
        count = len(self.classes)
        if not count:
            raise ValueError("classes is empty; name at least one")
        twice = [name for name in dict.fromkeys(self.classes) if self.classes.count(name) > 1]
        if twice:
            raise ValueError(f"classes names {twice[0]!r} {self.classes.count(twice[0])} times; name each once")
        if self.palette is not None and len(self.palette) not in (count, count + 1):
            raise ValueError(
                f"palette has {len(self.palette)} colours for {count} classes; give {count}, or {count + 1} with that "
                "of ignored pixels"
            )
        if self.mask_encoding in ("binary", "objects") and count != 2:
            raise ValueError(f"mask_encoding {self.mask_encoding!r} has two classes, classes names {count}; name two")
        if self.mask_encoding == "colours" and self.palette is None:
            raise ValueError(
                "mask_encoding 'colours' needs palette; give one colour [r, g, b] for each class, in order"
            )
        self.boundary_index()
        return self

    def boundary_index(self) -> int | None:
        """Return the index of the boundary class, which may be given by number or by name."""
        given = self.boundary_class
        if given is None:
            return None
        if isinstance(given, str) and given in self.classes:
            return self.classes.index(given)
        if isinstance(given, int) and 0 <= given < len(self.classes):
            return given
        raise ValueError(
            f"boundary_class {given!r} is no class; give 0 to {len(self.classes) - 1} or a name such as "
            f"{closest(str(given), self.classes)}"
        )


def read_dataset_file(path: Path) -> DatasetFile | None:
    """Read dataset.json, None where there is none.

    Raises:
        RequestError: if it cannot be read, or says something that is not accepted.
    """
    if not path.exists():
        return None
    try:
        # utf-8-sig: editors on Windows put a mark before the text
        return DatasetFile.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " if isinstance(part, str) else f"[{part}]: " for part in first["loc"][:2])
        given = f" (given: {str(first['input'])[:60]})" if first["type"] not in ("missing", "value_error") else ""
        raise RequestError(
            f"{path}: {where}{first['msg'].removeprefix('Value error, ')}{given}. Required: name (text) and classes "
            "(names in index order); known: ignore_index (0 to 65535), palette, mask_encoding, boundary_class, licence "
            "or terms. Correct the file."
        ) from error
    except (ValueError, OSError, RecursionError) as error:
        raise RequestError(
            f"{path}: cannot be read as JSON ({error}); accepted: a JSON object with name and classes. Mend or remove "
            "the file."
        ) from error
