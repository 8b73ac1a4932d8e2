"""What every page shares: the template engine, and pictures inside the file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from PIL import Image

from pixelwise.data.pictures import Picture


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """A colour and what it means; ignored pixels are hatched."""

    name: str
    color: str
    hatched: bool = False


@cache
def environment() -> jinja2.Environment:
    """Return the template engine; it escapes everything, and an unknown name is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def jpeg_uri(picture: Picture, *, quality: int, limit: int) -> str:
    """Return a picture, uint8 (H, W, 3), as the data URI of a JPEG.

    Colours keep the full resolution, since halving it, as is usual, smears thin coloured lines.

    Args:
        picture: what is encoded.
        quality: JPEG quality, 21 to 95.
        limit: bytes; a picture above, such as noise, is encoded again in less than half of them.
    """
    content = _jpeg(picture, quality=quality, subsampling=0)
    if len(content) > limit:
        content = _jpeg(picture, quality=quality - 20, subsampling=2)
    return "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")


def _jpeg(picture: Picture, *, quality: int, subsampling: int) -> bytes:
    buffer = io.BytesIO()
    # No `optimize`: with it Pillow's buffer is too small for noisy pictures ("encoder error -2").
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()
