"""Writing the dataset folder: images, index masks with a palette, 16-bit object ids and `dataset.json`.

```
folder/
  dataset.json
  images/<split>/NAME.png      8-bit grey or RGB
  masks/<split>/NAME.png       8-bit class index, palette mode
  instances/<split>/NAME.png   16-bit object ids, 0 is no object (only for items that have them)
```
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import RequestError
from pixelwise.files import write_atomically

Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class FolderItem:
    """One image with its annotation, and the place it takes in the folder.

    Attributes:
        split: Folder below `images/`, `masks/` and `instances/`, such as `train`.
        name: File name without its ending, the same for image, mask and instances.
        image: uint8 (H, W) grey or (H, W, 3) RGB.
        labels: Class ids, uint8 (H, W).
        instances: Object ids, uint16 (H, W), 0 where there is no object; None if objects are not annotated.
    """

    split: str
    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint16] | None = None


def write_dataset_folder(
    folder: Path,
    items: Sequence[FolderItem],
    *,
    name: str,
    classes: Sequence[str],
    palette: Sequence[Color],
    ignore_index: int | None = None,
    terms: str,
    extra: Mapping[str, object] | None = None,
) -> Path:
    """Write a dataset folder; a file is either complete under its final name or not there.

    `dataset.json` is written last, so a folder that has it is whole. Files of the same names are replaced,
    others in the folder are left alone.

    Args:
        folder: The folder to make; its parents are made as well.
        items: The images with their annotation, at least one.
        name: The data set's name.
        classes: Class names in index order.
        palette: One RGB colour, 0..255, per class, and one more for `ignore_index` where there is one.
        ignore_index: The label that no score counts, or None.
        terms: Under which terms the images may be used.
        extra: Further JSON values for `dataset.json`, kept by readers and otherwise ignored.

    Returns:
        The folder, as given.

    Raises:
        RequestError: An item, the palette or a name does not fit the format, or `folder` is a file.
        WorkError: The folder cannot be written.
    """
    _check_classes(classes, palette, ignore_index)
    _check_items(items, len(classes), ignore_index)
    card: dict[str, object] = {
        "name": name,
        "classes": list(classes),
        "palette": [list(color) for color in palette],
        "ignore_index": ignore_index,
        "terms": terms,
        "splits": dict(Counter(item.split for item in items)),
    }
    if clash := sorted(card.keys() & (extra or {}).keys()):
        raise RequestError(f"extra repeats {', '.join(clash)}: these have their own arguments; rename the keys")
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder} is a file, not a folder: name another place for the data set")
    colors = _full_palette(palette, len(classes), ignore_index)
    for item in items:
        _write_item(folder, item, colors)
    text = json.dumps(card | dict(extra or {}), indent=1, ensure_ascii=False)
    write_atomically(folder / "dataset.json", (text + "\n").encode())
    return folder


def mask_png(labels: NDArray[np.uint8], colors: Sequence[int]) -> bytes:
    """Encode class ids as a PNG in palette mode; the stored values are the ids themselves.

    Args:
        labels: Class ids, uint8 (H, W).
        colors: The palette flattened, red, green, blue of id 0, then of id 1, ...; 0..255.
    """
    image = Image.fromarray(labels)
    # Pillow packs a small palette's indices into 1, 2 or 4 bits; some readers scale those to 0..255.
    image.putpalette([*colors, *[0] * (256 * 3 - len(colors))])
    return _png(image)


def _write_item(folder: Path, item: FolderItem, colors: Sequence[int]) -> None:
    def place(kind: str) -> Path:
        return folder / kind / item.split / f"{item.name}.png"

    write_atomically(place("images"), _png(Image.fromarray(item.image)))
    write_atomically(place("masks"), mask_png(item.labels, colors))
    if item.instances is not None:
        write_atomically(place("instances"), _png(Image.fromarray(item.instances)))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _full_palette(palette: Sequence[Color], num_classes: int, ignore_index: int | None) -> list[int]:
    """Return the flattened palette with the ignore colour moved to the ignore index, black between."""
    rows: list[Color] = [*palette[:num_classes]]
    if ignore_index is not None and len(palette) > num_classes:
        rows += [(0, 0, 0)] * (ignore_index + 1 - len(rows))
        rows[ignore_index] = palette[num_classes]
    return [value for row in rows for value in row]


def _check_classes(classes: Sequence[str], palette: Sequence[Color], ignore_index: int | None) -> None:
    if not 1 <= len(classes) <= 256 or len(set(classes)) < len(classes):
        raise RequestError(f"classes={list(classes)}: 1 to 256 different names are accepted; rename or merge some")
    if ignore_index is not None and not len(classes) <= ignore_index <= 255:
        raise RequestError(
            f"ignore_index={ignore_index} with {len(classes)} classes: {len(classes)}..255 or None is "
            "accepted; 255 is the custom"
        )
    wanted = len(classes) + (ignore_index is not None)
    if len(palette) != wanted:
        raise RequestError(
            f"palette has {len(palette)} colours: {wanted} are accepted, one per class and one for "
            "ignore_index where it is set; add or remove colours"
        )
    for color in palette:
        if len(color) != 3 or not all(0 <= value <= 255 for value in color):
            raise RequestError(f"palette has {color}: three values 0..255 are accepted; correct the colour")


def _check_items(items: Sequence[FolderItem], num_classes: int, ignore_index: int | None) -> None:
    if not items:
        raise RequestError("items is empty: at least one image is accepted; add images")
    places = Counter((item.split, item.name) for item in items)
    (split, name), times = places.most_common(1)[0]
    if times > 1:
        raise RequestError(f"{split}/{name} is given {times} times: one image per name is accepted; rename them")
    for item in items:
        _check_names(item)
        _check_arrays(item)
        known = item.labels < num_classes
        if ignore_index is not None:
            known |= item.labels == ignore_index
        if not known.all():
            wrong = int(item.labels[~known].max())
            raise RequestError(
                f"labels of {item.split}/{item.name} hold {wrong}: 0..{num_classes - 1} and "
                f"ignore_index={ignore_index} are accepted; name more classes or change the labels"
            )


def _check_names(item: FolderItem) -> None:
    for argument, text in (("split", item.split), ("name", item.name)):
        if text in {"", ".", ".."} or Path(text).name != text or "\\" in text:
            raise RequestError(f"{argument}={text!r}: a plain file name is accepted; leave folders and separators out")


def _check_arrays(item: FolderItem) -> None:
    where = f"{item.split}/{item.name}"
    grey_or_rgb = item.image.ndim == 2 or (item.image.ndim == 3 and item.image.shape[2] == 3)
    if item.image.dtype != np.uint8 or not grey_or_rgb or item.image.size == 0:
        raise RequestError(
            f"image of {where} is {item.image.dtype} {item.image.shape}: uint8 (H, W) or (H, W, 3) is "
            "accepted; convert it first"
        )
    annotations: list[tuple[str, type, NDArray[np.uint8] | NDArray[np.uint16]]]
    annotations = [("labels", np.uint8, item.labels)]
    if item.instances is not None:
        annotations.append(("instances", np.uint16, item.instances))
    for kind, dtype, array in annotations:
        if array.dtype != dtype or array.shape != item.image.shape[:2]:
            raise RequestError(
                f"{kind} of {where} are {array.dtype} {array.shape}: {np.dtype(dtype)} "
                f"{item.image.shape[:2]} is accepted, as the image's size; convert or crop them first"
            )
