"""SEG of the Cell Tracking Challenge, and what it leaves out: predictions that match nothing.

A predicted object S matches a reference object R if it covers more than half of it, |R and S| > |R| / 2; at
most one S can. R scores |R and S| / |R or S|, 0 without a match, and SEG is the mean over all reference
objects of all images. Wrong extra objects do not lower it, and one S may match several R; the counts beside
it tell. Objects that lie in the outer margin only are removed from both maps first, the others stay whole.

Source: Cell Tracking Challenge, evaluation methodology (Maska et al., Bioinformatics 2014; Ulman et al.,
Nature Methods 2017), SEG and field of interest. The challenge's margin E is 50 px for DIC-C2DH-HeLa and
PhC-C2DH-U373, 0 for Fluo-N2DH-SIM+. Detection counts are not its DET measure, which also weighs kinds of errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixelwise.errors import RequestError
from pixelwise.metrics.contingency import Contingency, Counts, Labels, contingency_table, label_areas, label_map


@dataclass(frozen=True, kw_only=True)
class CellScores:
    """SEG and the detection counts behind it; a score is None where nothing can be counted.

    Attributes:
        seg: mean overlap of the reference objects, in [0, 1]; None without any.
        precision: share of the predicted objects that match a reference object; None without predictions.
        recall: share of the reference objects that are matched one to one; None without reference objects.
        f1: harmonic mean of both, 2 matches / (references + predictions); None without either.
        num_reference: reference objects.
        num_predicted: predicted objects.
        num_matched: reference objects with a match; those count in SEG.
        false_positives: predicted objects that match nothing.
        merged: matches beyond the first of the same predicted object; they count in SEG, not in recall.
        num_images: images added.
    """

    seg: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    num_reference: int
    num_predicted: int
    num_matched: int
    false_positives: int
    merged: int
    num_images: int

    def to_json(self) -> dict[str, object]:
        """Return plain numbers; None where not defined."""
        return dict(vars(self))


def seg_score(prediction: npt.ArrayLike, truth: npt.ArrayLike, *, margin: int = 0) -> CellScores:
    """Score one image; arguments and errors are those of `CellTally`.

    >>> scores = seg_score([[1, 1, 0, 2]], [[3, 3, 3, 0]])
    >>> round(scores.seg, 6), scores.false_positives
    (0.666667, 1)
    """
    tally = CellTally(margin=margin)
    tally.add(prediction, truth)
    return tally.result()


class CellTally:
    """SEG and detection counts, summed over images; numbers of objects mean nothing beyond their image.

    Args:
        margin: E, pixels on each side of an image; objects without a pixel further inside are removed.
    """

    def __init__(self, *, margin: int = 0) -> None:
        if margin < 0:
            raise RequestError(f"margin is {margin}. Accepted are 0 or more pixels. Give E of the data set, or 0.")
        self._margin = margin
        self._overlap = 0.0
        self._num_reference = self._num_predicted = self._num_matched = 0
        self._num_matching_predictions = self._num_images = 0

    def add(self, prediction: npt.ArrayLike, truth: npt.ArrayLike) -> None:
        """Compare one image.

        Args:
            prediction: (H, W) integer labels of objects, 0 = background.
            truth: the same; images without any object are fine.

        Raises:
            RequestError: A map is no label map, the shapes differ, or the margin leaves nothing of the image.
        """
        predicted, true = label_map("prediction", prediction), label_map("truth", truth)
        table = contingency_table(predicted, true)
        references, areas = self._objects(true, table.truth, table.pixels)
        predictions, predicted_areas = self._objects(predicted, table.prediction, table.pixels)
        row, column, shared = _pairs(table, references, predictions)
        match = 2 * shared > areas[row]
        row, column, shared = row[match], column[match], shared[match]
        self._overlap += float((shared / (areas[row] + predicted_areas[column] - shared)).sum())
        self._num_reference += references.size
        self._num_predicted += predictions.size
        self._num_matched += row.size
        self._num_matching_predictions += np.unique(column).size
        self._num_images += 1

    def result(self) -> CellScores:
        """Return the scores of everything added so far."""
        hits, references, predictions = self._num_matching_predictions, self._num_reference, self._num_predicted
        return CellScores(
            seg=self._overlap / references if references else None,
            precision=hits / predictions if predictions else None,
            recall=hits / references if references else None,
            f1=2 * hits / (references + predictions) if references + predictions else None,
            num_reference=references,
            num_predicted=predictions,
            num_matched=self._num_matched,
            false_positives=predictions - hits,
            merged=self._num_matched - hits,
            num_images=self._num_images,
        )

    def _objects(self, labels: Labels, of_cell: Counts, pixels: Counts) -> tuple[Counts, Counts]:
        """Return the labels (N,) of the objects that count, ascending, and their areas (N,) in pixels."""
        found, areas = label_areas(of_cell, pixels)
        counts = found > 0
        if self._margin:
            if 2 * self._margin >= min(labels.shape):
                raise RequestError(
                    f"margin is {self._margin} and an image has the size {labels.shape[0]} x {labels.shape[1]}. "
                    f"Accepted are margins below {(min(labels.shape) + 1) // 2}. Give E of the data set, or 0."
                )
            inside = np.s_[self._margin : -self._margin]
            counts &= np.isin(found, labels[inside, inside])
        return found[counts], areas[counts]


def _pairs(
    table: Contingency, references: Counts, predictions: Counts
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Counts]:
    """Return the pairs of listed objects that share pixels: index of both and the number of pixels, (M,) each."""
    listed = np.isin(table.truth, references) & np.isin(table.prediction, predictions)
    row = np.searchsorted(references, table.truth[listed])
    column = np.searchsorted(predictions, table.prediction[listed])
    return row, column, table.pixels[listed]
