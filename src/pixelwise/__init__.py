"""Image segmentation from a folder of images and masks to a measured model.

Names are imported when they are first used, so that `import pixelwise` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixelwise.api import check, evaluate, load, load_classifier, look, predict, refine, score, train, tune_crf
    from pixelwise.crf.dense import dense_crf
    from pixelwise.crf.layer import CRFRNN
    from pixelwise.engine.describe import describe
    from pixelwise.models import create_model, list_models
    from pixelwise.structures import SegmentationOutput, SizeRule

_HOMES = {
    "CRFRNN": "pixelwise.crf.layer",
    "check": "pixelwise.api",
    "create_model": "pixelwise.models",
    "dense_crf": "pixelwise.crf.dense",
    "describe": "pixelwise.engine.describe",
    "evaluate": "pixelwise.api",
    "list_models": "pixelwise.models",
    "load": "pixelwise.api",
    "load_classifier": "pixelwise.api",
    "look": "pixelwise.api",
    "predict": "pixelwise.api",
    "refine": "pixelwise.api",
    "score": "pixelwise.api",
    "SegmentationOutput": "pixelwise.structures",
    "SizeRule": "pixelwise.structures",
    "train": "pixelwise.api",
    "tune_crf": "pixelwise.api",
}

__all__ = [
    "CRFRNN",
    "SegmentationOutput",
    "SizeRule",
    "check",
    "create_model",
    "dense_crf",
    "describe",
    "evaluate",
    "list_models",
    "load",
    "load_classifier",
    "look",
    "predict",
    "refine",
    "score",
    "train",
    "tune_crf",
]


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pixelwise' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
