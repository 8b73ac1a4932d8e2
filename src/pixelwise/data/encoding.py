"""Which numbers in a mask file mean which class: recognised once for a data set, then applied by a table.

Recognition looks at the values of all masks together. What does not decide itself is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pixelwise.errors import RequestError

Kind = Literal["index", "palette", "binary_255", "binary_01"]
IGNORE = 255  # the usual value of pixels that must not count, where nothing else is said


class MaskEncoding(BaseModel):
    """How the values of mask files become class indices.

    Attributes:
        kind: "index" (values are class numbers), "palette" (the same, in palette PNGs), "binary_255" (0 and
            255) or "binary_01" (0 and 1).
        ignore_index: label of pixels that are neither trained on nor scored, None if there are none.
        words: the decision in a sentence, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    ignore_index: int | None
    words: str

    def decode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Turn file values (H, W) into class indices of the same type."""
        if self.kind == "binary_255":
            labels: NDArray[np.uint8] = np.equal(values, 255).astype(np.uint8)
            return labels
        return values


def recognise_encoding(
    values: Sequence[int],
    *,
    has_palette: bool,
    num_classes: int | None,
    ignore_index: int | None,
    example: str,
) -> MaskEncoding:
    """Decide how masks are encoded from all values that occur in them.

    Args:
        values: sorted distinct values over all masks.
        has_palette: all masks are palette PNGs.
        num_classes: number of classes if dataset.json names them.
        ignore_index: the ignore label of dataset.json.
        example: a mask file, for the error message.

    Raises:
        RequestError: if the values fit none of the encodings, or more than one.
    """
    present = set(values)
    if num_classes is not None:
        if num_classes == 2 and 255 in present and present <= {0, 255} and ignore_index not in present:
            return _encoding("binary_255", None, "binary 0/255 masks: 0 is the first class, 255 the second")
        kind: Kind = "palette" if has_palette else "index"
        return _encoding(kind, ignore_index, f"{_HOW[kind]}, classes named by dataset.json")
    if len(present) == 1:
        raise RequestError(
            f"the masks (such as {example}) hold the value {values[0]} only, so there is nothing to tell apart; "
            "accepted: masks with at least two values. Check how they were exported, or write dataset.json with "
            f"{_DATASET_JSON} beside images/ and masks/."
        )
    if present == {0, 255}:
        return _encoding("binary_255", None, "binary 0/255 masks: 0 is background, 255 is foreground")
    if present == {0, 1}:
        return _encoding("binary_01", None, "binary 0/1 masks: 0 is background, 1 is foreground")
    classes = sorted(present - {IGNORE})
    # Class numbers are small and mostly all present; grey levels (0, 85, 170) leave wide gaps.
    if classes[-1] < IGNORE and 2 * len(classes) >= classes[-1] + 1:
        kind = "palette" if has_palette else "index"
        ignore = IGNORE if IGNORE in present else None
        ignored = ", 255 is ignored" if ignore is not None else ""
        return _encoding(kind, ignore, f"{_HOW[kind]}: classes 0 to {classes[-1]}{ignored}")
    shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    raise RequestError(
        f"the masks (such as {example}) hold {len(values)} values: {shown}, whose meaning would be a guess; accepted: "
        "class numbers from 0 without wide gaps, 0/1 and 0/255 masks. If they are class numbers, write dataset.json "
        f"with {_DATASET_JSON} beside images/ and masks/; if they are object ids or grey levels, convert them to class "
        "numbers."
    )


_DATASET_JSON = '{"name": ..., "classes": [...]}'
_HOW = {"index": "values are class numbers", "palette": "palette PNGs, whose indices are class numbers"}


def _encoding(kind: Kind, ignore_index: int | None, words: str) -> MaskEncoding:
    return MaskEncoding(kind=kind, ignore_index=ignore_index, words=words)
