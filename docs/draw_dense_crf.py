"""Draw the pictures of docs/dense_crf.md into docs/pictures/.

    python docs/draw_dense_crf.py

The photograph is scikit-image's astronaut (NASA, public domain). The probabilities stand for those of a network of
stride 16: five outlines drawn by hand, with corners up to 20 pixels off, averaged over cells of 16 x 16 pixels and
interpolated. For the smoothness kernel they are mixed with noise, and the appearance kernel is left out.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from pixelwise.crf.dense import PRESETS, CRFParameters, refine
from pixelwise.data.pictures import overlay
from pixelwise.files import write_atomically

Picture = NDArray[np.uint8]

PALETTE = ((40, 40, 40), (70, 130, 255), (255, 220, 60), (255, 90, 60), (160, 90, 255), (60, 210, 120))
OUTLINES = {
    1: [(0, 0), (55, 0), (85, 130), (95, 215), (35, 320), (10, 512), (0, 512)],  # flag
    2: [(160, 20), (230, 5), (290, 40), (305, 100), (270, 190), (185, 190), (150, 110)],  # head
    3: [(110, 215), (135, 160), (290, 165), (310, 230), (365, 310), (350, 512), (20, 512), (40, 300)],  # suit
    4: [(300, 400), (360, 340), (440, 345), (500, 410), (512, 512), (275, 512)],  # helmet
    5: [(400, 0), (430, 0), (460, 50), (455, 190), (470, 285), (365, 285), (350, 215), (380, 150), (375, 50)],  # shuttle
}
CELL = 16  # pixels, the stride of the network that is stood for
SURE = 0.9  # probability inside an outline
NOISE = 1.2  # standard deviation, nats
GAP, HEADING = 6, 20  # pixels
VALUES: Mapping[str, Sequence[Any]] = {
    "iterations": (0, 1, 3, 10),
    "bilateral_weight": (0, 2, 10, 40),
    "bilateral_spatial_sigma": (5, 20, 80, 320),
    "bilateral_color_sigma": (2, 5, 13, 40),
    "spatial_weight": (0, 1, 3, 10),
    "spatial_sigma": (0.5, 1, 3, 20),
    "normalization": ("symmetric", "after", "before", "none"),
}


def coarse_probabilities(height: int, width: int) -> NDArray[np.float32]:
    """Return what a network of stride 16 might say of the photograph, float32 (6, H, W)."""
    labels = np.zeros((height, width), dtype=np.uint8)
    for label, outline in OUTLINES.items():
        cv2.fillPoly(labels, [np.array(outline)], label)
    classes = len(OUTLINES) + 1
    maps = np.stack([(labels == k).astype(np.float32) for k in range(classes)])
    maps = maps * np.float32(SURE) + (1 - maps) * np.float32((1 - SURE) / (classes - 1))
    cells = [cv2.resize(each, (width // CELL, height // CELL), interpolation=cv2.INTER_AREA) for each in maps]
    return np.stack([cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR) for each in cells])


def noisy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities whose logarithms have Gaussian noise, of a fixed seed."""
    noise = np.random.default_rng(0).normal(0, NOISE, probabilities.shape).astype(np.float32)
    mixed = probabilities * np.exp(noise)
    result: NDArray[np.float32] = mixed / mixed.sum(axis=0)
    return result


def sheet(rows: Sequence[Sequence[tuple[str, Picture]]], side: int) -> Picture:
    """Return titled pictures in rows, each scaled to a side of so many pixels."""
    columns = max(len(row) for row in rows)
    canvas = Image.new("RGB", (columns * (side + GAP) + GAP, len(rows) * (side + GAP + HEADING) + GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for r, row in enumerate(rows):
        for c, (title, picture) in enumerate(row):
            x, y = GAP + c * (side + GAP), GAP + r * (side + GAP + HEADING)
            draw.text((x, y), title, fill="black", font=font)
            small = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
            canvas.paste(small, (x, y + HEADING))
    return np.asarray(canvas)


def save(path: Path, picture: Picture) -> None:
    """Write a picture as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=88)
    write_atomically(path, buffer.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pictures")
    out = parser.parse_args().out
    image = data.astronaut()
    probabilities = coarse_probabilities(*image.shape[:2])

    def shown(beliefs: NDArray[np.float32]) -> Picture:
        return overlay(image, beliefs.argmax(axis=0).astype(np.uint8), PALETTE)

    def refined(parameters: CRFParameters, given: NDArray[np.float32] = probabilities) -> Picture:
        return shown(refine(image, given, parameters))

    before = [("photograph", image), ("before: stride 16", shown(probabilities))]
    before += [(f"after: {name}", refined(PRESETS[name])) for name in ("pydensecrf_default", "crfrnn")]
    save(out / "dense_crf_before_after.jpg", sheet([before[:2], before[2:]], 380))
    default = PRESETS["pydensecrf_default"]
    for name, values in VALUES.items():
        start, given = default, probabilities
        if name.startswith("spatial_"):
            start, given = replace(default, bilateral_weight=0.0), noisy(probabilities)
        row = [(f"{name} = {value}", refined(replace(start, **{name: value}), given)) for value in values]
        save(out / f"dense_crf_{name}.jpg", sheet([row], 230))


if __name__ == "__main__":
    main()
