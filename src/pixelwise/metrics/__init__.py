"""Scores of predictions against truth."""

from pixelwise.metrics.semantic import ClassScores, SemanticScores, confusion_matrix, semantic_scores

__all__ = ["ClassScores", "SemanticScores", "confusion_matrix", "semantic_scores"]
