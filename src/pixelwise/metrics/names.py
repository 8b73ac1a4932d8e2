"""What people call the scores, and what each means in a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricName:
    """How a score is shown.

    Attributes:
        name: as in a sentence.
        meaning: what is measured, in a few words.
        in_percent: whether it is usually given in percent; otherwise with four digits.
    """

    name: str
    meaning: str
    in_percent: bool = True


METRIC_NAMES: Mapping[str, MetricName] = {
    "miou": MetricName("mean IoU", "intersection over union, mean over the classes"),
    "pixel_accuracy": MetricName("pixel accuracy", "share of pixels with the right class"),
    "mean_accuracy": MetricName("mean accuracy", "share of each class's pixels found, mean over the classes"),
    "fwiou": MetricName("frequency-weighted IoU", "IoU weighted by how common each class is"),
    "boundary_iou": MetricName("boundary IoU", "IoU within thin bands along the outlines"),
    "bf": MetricName("boundary F1 (BF)", "share of the outlines that lie where they should"),
    "vrand": MetricName("V_rand", "agreement on which pixels share a cell; 1 is best", in_percent=False),
    "vinfo": MetricName("V_info", "information that the cells share; 1 is best", in_percent=False),
    "rand_error": MetricName("Rand error", "disagreement on which pixels share a cell; 0 is best", in_percent=False),
    "pixel_error": MetricName("pixel error", "wrong pixels; 0 is best", in_percent=False),
    "warping_error": MetricName("warping error", "pixels of splits and mergers; 0 is best", in_percent=False),
    "seg": MetricName("SEG", "overlap of the true objects with those that match them"),
    "ap": MetricName("mask AP", "average precision of objects, mean over overlaps from 50 to 95 %"),
    "ap50": MetricName("mask AP50", "average precision of objects at an overlap of 50 %"),
    "ap75": MetricName("mask AP75", "average precision of objects at an overlap of 75 %"),
    "pq": MetricName("panoptic quality", "objects found, times their overlap"),
    "dsb2018": MetricName("DSB 2018 score", "objects found, mean over overlaps from 50 to 95 %"),
    "top1": MetricName("top-1 accuracy", "share of images whose likeliest class is right"),
    "top5": MetricName("top-5 accuracy", "share of images whose class is among the five likeliest"),
    "ece": MetricName("calibration error", "gap between confidence and accuracy; 0 is best"),
}
