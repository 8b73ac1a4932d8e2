"""Segmentation before deep learning: filter banks, textons and boosted pixel classifiers."""
