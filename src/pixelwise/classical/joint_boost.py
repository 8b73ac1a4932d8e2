"""Joint boosting: stumps that several classes share.

A. Torralba, K. P. Murphy, W. T. Freeman, "Sharing visual features for multiclass and multiview object detection", PAMI
29(5), 2007.

Axes: M stumps, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Stumps:
    """The weak classifiers of a strong one, in the order of the rounds that found them.

    Class c's score grows by `above` where the feature is over its threshold and by `below` elsewhere if c shares the
    stump, else by its constant.

    Attributes:
        features: int32 (M,), which feature each stump looks at.
        thresholds: int32 (M,), index into the set of thresholds.
        shared: bool (M, C), the classes that share it.
        above: float32 (M,), a.
        below: float32 (M,), b.
        constants: float32 (M, C), k_c; 0 for classes that share it.
    """

    features: NDArray[np.int32]
    thresholds: NDArray[np.int32]
    shared: NDArray[np.bool_]
    above: NDArray[np.float32]
    below: NDArray[np.float32]
    constants: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)
