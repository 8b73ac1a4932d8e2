"""The Python interface behind the command line: whole jobs, from paths to files."""

from pixelwise.api.check import check
from pixelwise.api.crf_search import tune_crf
from pixelwise.api.evaluation import evaluate, load
from pixelwise.api.prediction import Predicted, find_images, predict
from pixelwise.api.refinement import RefinedFile, refine
from pixelwise.api.reports import report
from pixelwise.api.scores import score
from pixelwise.api.training import train
from pixelwise.engine.classifier import load_classifier
from pixelwise.report.look import Looked, look

__all__ = [
    "Looked",
    "Predicted",
    "RefinedFile",
    "check",
    "evaluate",
    "find_images",
    "load",
    "load_classifier",
    "look",
    "predict",
    "refine",
    "report",
    "score",
    "train",
    "tune_crf",
]
