"""The whole path on embedded data: check it, train on one part, measure on the other, predict, count, report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelwise import api
from pixelwise.data.coins import write_coins
from pixelwise.data.microscopy import write_microscopy
from pixelwise.engine.listener import Listener
from pixelwise.engine.run_folder import RunFolder
from pixelwise.errors import RequestError

DemoData = Literal["coins", "cells"]
MINUTES = 1.0  # of training; the whole demo stays below a minute and a half


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo made.

    Attributes:
        scores: as `evaluate` returns them, on the part that was not trained on.
        data: the dataset folder.
        card: the data card, an HTML page.
        num_objects: objects that were found in the unseen part.
        run: the run folder.
        predictions: files with the predictions of the unseen part.
        report: the report.
        seconds: wall-clock time.
    """

    scores: dict[str, Any]
    data: Path
    card: Path
    num_objects: int | None
    run: Path
    predictions: tuple[Path, ...]
    report: Path
    seconds: float


def demo(out: str | Path, *, data: DemoData = "coins", listener: Listener | None = None) -> DemoResult:
    """Run the whole path and leave data, run, predictions and report in a new or empty folder.

    Args:
        out: folder for everything.
        data: "coins", a photograph of 24 coins with every coin outlined by hand; or "cells", generated
            microscopy of three classes with exact truth.
        listener: hears how it goes.
    """
    started = time.perf_counter()
    root = Path(out)
    RunFolder(root).prepare()
    if data not in ("coins", "cells"):
        raise RequestError(f"demo data {data!r}; accepted: coins, cells. Choose one.")
    folder = write_coins(root / "data") if data == "coins" else write_microscopy(root / "data")
    run, card = root / "run", root / "data_card.html"
    api.check(folder, out=card)
    api.train(folder, model="unet_small", out=run, minutes=MINUTES, listener=listener)
    scores = api.evaluate(run, folder, split="val", metrics=("seg", "ap50"))
    unseen = folder / "images" / "val"
    made = api.predict(run, [unseen], out=root / "predictions", overlay=True, instances=True)
    return DemoResult(
        scores=scores,
        data=folder,
        card=card,
        num_objects=made.num_objects,
        run=run,
        predictions=made.outputs,
        report=run / "report.html",
        seconds=round(time.perf_counter() - started, 1),
    )
