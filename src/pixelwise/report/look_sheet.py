"""A sheet of captioned pictures, written as one PNG or as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelwise.report.page import environment, jpeg_uri

TEMPLATE_NAME = "look.html.j2"
CONTENT_WIDTH = 1320
MAX_PHOTO_BYTES = 400_000
MARGIN = 40
GAP = 10
TEXT = (27, 31, 36)
MUTED = (87, 96, 106)
LINE = (216, 222, 228)
PAGE = (255, 255, 255)
# Pillow's own font has no accents; these have, and one of them is on most machines.
OTHER_FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf", "NotoSans-Regular.ttf")

VIRIDIS = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1].copy()

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A picture with a line below it.

    Attributes:
        picture: at the size at which it is shown; mode "P" or "RGB".
        caption: what it is; may be empty.
        color: of a small square before the caption.
        photo: whether an HTML page may hold it as JPEG.
    """

    picture: Image.Image
    caption: str = ""
    color: Color | None = None
    photo: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """Panels of one kind under a heading.

    Attributes:
        title: heading.
        note: what is to be seen, and how it was scaled.
        panels: in reading order.
        columns: panels side by side on a wide page; see `column_width`.
        scale: words for the lowest and the highest colour of the panels; None where they have no such colours.
        part: whether it belongs to the section before, under a small heading with the note beside it.
    """

    title: str
    note: str = ""
    panels: Sequence[Panel] = ()
    columns: int = 1
    scale: tuple[str, str] | None = None
    part: bool = False


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """All that one call draws: a title, what must be known about it, and sections."""

    title: str
    facts: Sequence[str]
    sections: Sequence[Section] = field(default_factory=list)


def column_width(columns: int) -> int:
    """Return the width of one of so many panels side by side, in pixels.

    >>> column_width(8)
    156
    """
    return (CONTENT_WIDTH - (columns - 1) * GAP) // columns


def heat(values: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> Image.Image:
    """Paint values 0 to 1, (h, w), in viridis; what lies outside takes the nearest end's colour."""
    picture = Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))
    picture.putpalette(VIRIDIS.tobytes())
    return picture


def sheet_png(sheet: Sheet) -> bytes:
    """Draw a sheet as a PNG of 1400 pixels' width."""
    blocks = [_text(sheet.title, 30), *(_text(fact, 16, color=MUTED) for fact in sheet.facts)]
    for section in sheet.sections:
        blocks += _blocks(section)
    height = sum(block.height for block in blocks) + 2 * MARGIN
    canvas = Image.new("RGB", (CONTENT_WIDTH + 2 * MARGIN, height), PAGE)
    y = MARGIN
    for block in blocks:
        canvas.paste(block, (MARGIN, y))
        y += block.height
    return _png(canvas)


def sheet_html(sheet: Sheet) -> str:
    """Write a sheet as HTML with its pictures inside."""
    colors = ", ".join(f"rgb({r} {g} {b})" for r, g, b in VIRIDIS[::15].tolist())
    return (
        environment()
        .get_template(TEMPLATE_NAME)
        .render(
            sheet=sheet,
            source=_data_uri,
            column_width=column_width,
            narrow_width=_narrow_width,
            gap=GAP,
            width=CONTENT_WIDTH,
            colors=colors,
        )
    )


def _narrow_width(columns: int) -> int:
    """Return the smallest width of a panel on a narrow page: large ones stand alone there, small ones side by side."""
    width = column_width(columns)
    return width if columns <= 4 else round(0.64 * width)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")  # `optimize` takes four times as long and saves less than a percent
    return buffer.getvalue()


def _data_uri(panel: Panel) -> str:
    if panel.photo:
        return jpeg_uri(np.asarray(panel.picture), quality=88, limit=MAX_PHOTO_BYTES)
    return f"data:image/png;base64,{base64.b64encode(_png(panel.picture)).decode('ascii')}"


def _blocks(section: Section) -> list[Image.Image]:
    """Return a section as strips of the canvas, top to bottom."""
    if section.part:
        blocks = [_line_of_part(section)]
    else:
        blocks = [_heading(section.title)]
        if section.note:
            blocks.append(_text(section.note, 16, color=MUTED))
    if section.scale:
        blocks.append(_color_bar(section.scale))
    for start in range(0, len(section.panels), section.columns):
        blocks.append(_row(section.panels[start : start + section.columns], column_width(section.columns)))
    return blocks


def _heading(title: str) -> Image.Image:
    strip = Image.new("RGB", (CONTENT_WIDTH, 74), PAGE)
    draw = ImageDraw.Draw(strip)
    draw.text((0, 54), title, TEXT, _font(23, title), anchor="ls")
    draw.line((0, 65, CONTENT_WIDTH, 65), LINE)
    return strip


def _line_of_part(section: Section) -> Image.Image:
    strip = Image.new("RGB", (CONTENT_WIDTH, 38), PAGE)
    draw = ImageDraw.Draw(strip)
    draw.text((0, 28), section.title, TEXT, _font(17, section.title), anchor="ls")
    x = _font(17, section.title).getlength(section.title) + 14
    draw.text((x, 28), _shortened(section.note, 15, CONTENT_WIDTH - x), MUTED, _font(15, section.note), anchor="ls")
    return strip


def _color_bar(words: tuple[str, str]) -> Image.Image:
    strip = Image.new("RGB", (CONTENT_WIDTH, 30), PAGE)
    draw = ImageDraw.Draw(strip)
    draw.text((0, 18), words[0], MUTED, _font(15, words[0]), anchor="ls")
    x = round(_font(15, words[0]).getlength(words[0])) + 8
    strip.paste(heat(np.tile(np.linspace(0, 1, 200), (14, 1))), (x, 6))
    draw.text((x + 208, 18), words[1], MUTED, _font(15, words[1]), anchor="ls")
    return strip


def _row(panels: Sequence[Panel], width: int) -> Image.Image:
    captions = [_wrapped(panel.caption, 14, width - (20 if panel.color else 0)) for panel in panels]
    lines = max(len(caption) for caption in captions)
    tallest = max(panel.picture.height for panel in panels)
    strip = Image.new("RGB", (CONTENT_WIDTH, tallest + 19 * lines + (14 if lines else GAP)), PAGE)
    draw = ImageDraw.Draw(strip)
    for column, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        x = column * (width + GAP)
        strip.paste(panel.picture, (x, 0))
        indent = 0
        if panel.color:
            indent = 20
            draw.rectangle((x, panel.picture.height + 7, x + 13, panel.picture.height + 20), panel.color, LINE)
        for line, text in enumerate(caption):
            draw.text((x + indent, panel.picture.height + 19 * (line + 1)), text, MUTED, _font(14, text), anchor="ls")
    return strip


def _text(text: str, size: int, *, color: Color = TEXT) -> Image.Image:
    """Return a paragraph as a strip."""
    lines = _wrapped(text, size, CONTENT_WIDTH)
    step = round(size * 1.45)
    strip = Image.new("RGB", (CONTENT_WIDTH, step * len(lines) + size // 2), PAGE)
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((0, step * number + size), line, color, _font(size, line), anchor="ls")
    return strip


def _wrapped(text: str, size: int, width: float) -> list[str]:
    """Break a text into lines that fit; a longer word is shortened."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(size, longer).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_shortened(word, size, width))
    return lines


def _shortened(text: str, size: int, width: float) -> str:
    if _font(size, text).getlength(text) <= width:
        return text
    while text and _font(size, text + "…").getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def sheet_font(size: int) -> Font:
    """Return the font of plain words."""
    return _font_for(size, True)


def _font(size: int, text: str) -> Font:
    """Return Pillow's font, or one of the system's where the text has letters beyond ASCII."""
    return _font_for(size, text.replace("…", "").replace("·", "").isascii())


@cache
def _font_for(size: int, plain: bool) -> Font:
    if not plain:
        for name in OTHER_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:  # not installed
                continue
    return ImageFont.load_default(size)
