"""Scores of predictions against truth."""

from pixelwise.metrics.boundary import BandScores, BoundaryBands, BoundaryIoU, BoundaryIoUScores
from pixelwise.metrics.boundary_f1 import BoundaryF1, BoundaryF1Scores
from pixelwise.metrics.calibration import Calibration, CalibrationBin, CalibrationScores
from pixelwise.metrics.cells import CellScores, CellTally, seg_score
from pixelwise.metrics.contingency import Contingency, contingency_table
from pixelwise.metrics.electron_microscopy import (
    MembraneScores,
    MembraneTally,
    PartitionScores,
    ThresholdScores,
    partition_scores,
)
from pixelwise.metrics.membranes import thin_membranes, warping_error
from pixelwise.metrics.objects import ObjectClassScores, ObjectScores, ObjectTally
from pixelwise.metrics.semantic import ClassScores, SemanticScores, confusion_matrix, semantic_scores

__all__ = [
    "BandScores",
    "BoundaryBands",
    "BoundaryF1",
    "BoundaryF1Scores",
    "BoundaryIoU",
    "BoundaryIoUScores",
    "Calibration",
    "CalibrationBin",
    "CalibrationScores",
    "CellScores",
    "CellTally",
    "ClassScores",
    "Contingency",
    "MembraneScores",
    "MembraneTally",
    "ObjectClassScores",
    "ObjectScores",
    "ObjectTally",
    "PartitionScores",
    "SemanticScores",
    "ThresholdScores",
    "confusion_matrix",
    "contingency_table",
    "partition_scores",
    "seg_score",
    "semantic_scores",
    "thin_membranes",
    "warping_error",
]
